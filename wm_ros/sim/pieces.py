"""Street furniture and vegetation in a picture: poles, boxes, signs, sprites."""

from __future__ import annotations

import cv2
import numpy as np

from wm_ros.sim.meshes import box_mesh, normals_of
from wm_ros.sim.roads import (
    BARRIER,
    BENCH,
    BIN,
    BOLLARD,
    BUSH,
    CABINET,
    COLUMN,
    CONE,
    LAMP,
    PARASOL,
    PLANTER,
    POLE,
    SHELTER,
    SIGN,
    SIGNAL,
    TREE,
)
from wm_ros.sim.scene import light_on

_RED, _WHITE, _BLUE = np.array([196., 24, 28]), np.array([236., 236, 232]), np.array([24., 74, 160])
#: Colours of boxes by kind; the piece's seed chooses.
_BOXES = {
    BIN: ((60, 84, 62), (70, 70, 74), (120, 100, 40), (30, 60, 120), (50, 50, 50)),
    CABINET: ((120, 126, 120), (150, 146, 136), (84, 96, 84)),
    COLUMN: ((150, 146, 138), (110, 118, 112)), PLANTER: ((128, 118, 104), (86, 70, 54)),
    BENCH: ((96, 74, 50), (60, 62, 64)), BARRIER: ((225, 225, 220), (196, 40, 34))}


def draw_static(view, item, style, sprites, signals) -> None:
    """Draw one row of `Layout.statics` that is no panel; `item` is (row, its seed)."""
    piece = _Piece(view, item, style, sprites)
    if piece.depth < .4:
        return
    kind = int(piece.row[6])
    if kind in (TREE, BUSH):
        piece.plant(kind == TREE)
    elif kind == LAMP:
        piece.lamp()
    elif kind == SIGN:
        piece.sign()
    elif kind == SIGNAL:
        piece.signal(signals)
    elif kind == BOLLARD:
        piece.bollard()
    elif kind == POLE:
        piece.post()
    elif kind == CONE:
        piece.cone()
    elif kind == PARASOL:
        piece.parasol()
    elif kind == SHELTER:
        piece.shelter()
    else:
        piece.block(kind)


class _Piece:
    """One piece being drawn: its foot and head in the picture, its scale and light."""

    def __init__(self, view, item, style, sprites) -> None:
        self.view, self.style, self.sprites = view, style, sprites
        self.row, self.seed = item
        self.x, self.y, self.yaw, _, _, self.height, _ = self.row
        self.foot, z = view.project(np.array([[self.x, self.y, 0.], [self.x, self.y,
                                                                    self.height]]))
        self.depth = float(z[0])
        self.scale = view.focal / max(self.depth, .1)
        self.light = style.ambient + .45 * style.sun_strength
        grey = 50 + self.seed % 110
        self.grey = (grey, grey, grey)

    def at(self, dx: float, dy: float, z: float) -> np.ndarray:
        """Return the pixel of a point given in the piece's own frame, (2,)."""
        c, s = np.cos(self.yaw), np.sin(self.yaw)
        point = np.array([[self.x + c * dx - s * dy, self.y + s * dx + c * dy, z]])
        return np.clip(self.view.project(point)[0][0], -8000, 8000)

    def pole(self, a, b, thick: float, rgb) -> None:
        points = np.round(np.clip(np.stack([a, b]), -8000, 8000) * 8).astype(np.int32)
        cv2.line(self.view.canvas, points[0].tolist(), points[1].tolist(),
                 self.view.colour(np.asarray(rgb) * self.light, self.depth),
                 max(1, int(round(thick * self.scale))), cv2.LINE_8, 3)

    def disc(self, centre, radius_px: float, rgb, lit: bool = True) -> None:
        rgb = np.asarray(rgb) * (self.light if lit else 1.0)
        cv2.circle(self.view.canvas, np.clip(centre, -8000, 8000).astype(int).tolist(),
                   max(1, int(radius_px)), self.view.colour(rgb, self.depth if lit else 1.), -1)

    def box(self, low, high, rgb) -> None:
        """Draw an upright box between two corners in the piece's frame."""
        low, high = np.array(low, float), np.array(high, float)
        mesh = box_mesh() * (high - low) + [*(low + high)[:2] / 2, low[2]]
        normals = normals_of(mesh)
        c, s = np.cos(self.yaw), np.sin(self.yaw)
        turn = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1.]])
        points, normals = mesh @ turn.T + [self.x, self.y, 0], normals @ turn.T
        facing = ((self.view.position - points[:, 0]) * normals).sum(1) > 0
        for q in np.flatnonzero(facing):
            shape = self.view.clipped(points[q])
            if shape is not None:
                self.view.polygon(shape, self.view.colour(
                    np.asarray(rgb) * light_on(self.style, normals[q]), self.depth))

    def plant(self, tree: bool) -> None:
        height, seed = self.height, self.seed
        r = height * (.3 + .012 * (seed % 10)) if tree else .75 * height
        middle = height - r * .95 if tree else height * .5
        if tree:
            self.pole(self.foot[0], self.at(0, 0, max(middle, .4 * height)), .1 + .025 * height,
                      (78, 62, 48))
        _sprite(self.view, self.sprites.items[seed % len(self.sprites.items)],
                self.at(0, 0, middle), r * self.scale, r * self.scale * (1.05 if tree else .75),
                self.depth)

    def lamp(self) -> None:
        self.pole(self.foot[0], self.foot[1], .14, self.grey)
        arm = self.at(0, 1.6, self.height + .15)
        self.pole(self.foot[1], arm, .1, self.grey)
        glow = (255, 224, 160) if self.style.light in ('night', 'dusk') else (150, 150, 146)
        cv2.circle(self.view.canvas, arm.astype(int).tolist(), max(1, int(.16 * self.scale)),
                   (*glow, 0), -1)

    def post(self) -> None:
        """Draw a pole, some with a plate, a box or posters on it."""
        self.pole(self.foot[0], self.foot[1], .1 + .01 * (self.seed % 9), self.grey)
        z = .35 + .1 * (self.seed % 6)
        if self.seed % 4 == 0:
            colour = ((230, 230, 220), (200, 60, 40), (40, 90, 170), (220, 180, 40))[
                self.seed // 4 % 4]
            self.pole(self.at(0, 0, z * self.height), self.at(0, 0, z * self.height + .6), .42,
                      colour)
        elif self.seed % 4 == 1:
            self.pole(self.at(0, 0, .8), self.at(0, 0, 1.5), .3, (90, 96, 90))

    def bollard(self) -> None:
        rgb = ((60, 60, 62), (170, 50, 40), (190, 190, 186), (40, 44, 52), (120, 116, 108))[
            self.seed % 5]
        thick = .12 + .02 * (self.seed % 4)
        self.pole(self.foot[0], self.foot[1], thick, rgb)
        if self.seed % 3:                            # a band of another colour
            band = _WHITE if self.seed % 5 in (0, 1, 3) else _RED
            self.pole(self.at(0, 0, .62 * self.height), self.at(0, 0, .8 * self.height), thick,
                      band)

    def cone(self) -> None:
        orange = np.array([236., 92, 30])
        left, right = self.at(0, .17, 0), self.at(0, -.17, 0)
        width = max(abs(right[0] - left[0]), .34 * self.scale) / 2
        for low, high, rgb in ((0., 1., orange), (.45, .7, _WHITE)):
            a, b = (self.foot[0] + (self.foot[1] - self.foot[0]) * v for v in (low, high))
            wa, wb = width * (1 - .85 * low), width * (1 - .85 * high)
            self.view.polygon(np.array([[a[0] - wa, a[1]], [a[0] + wa, a[1]], [b[0] + wb, b[1]],
                                        [b[0] - wb, b[1]]]),
                              self.view.colour(rgb * self.light, self.depth))

    def parasol(self) -> None:
        self.pole(self.foot[0], self.foot[1], .07, (200, 200, 200))
        colour = np.array(((220, 60, 50), (230, 220, 190), (50, 110, 80), (240, 180, 50))[
            self.seed % 4], float)
        rim = [self.at(1.3 * np.cos(a), 1.3 * np.sin(a), self.height - .45)
               for a in np.arange(6) * np.pi / 3]
        hull = cv2.convexHull(np.array([*rim, self.foot[1]], np.float32))[:, 0]
        self.view.polygon(hull, self.view.colour(colour * self.light, self.depth))
        self.box((-.5, .2, 0), (.5, .8, .72), (110, 90, 70))         # a table

    def shelter(self) -> None:
        length, width, height = self.row[3:6]
        a, b = length / 2, width / 2
        glass, frame = (150, 164, 170), (70, 74, 80)
        self.box((-a, b - .08, .3), (a, b, height - .25), glass)
        if self.seed % 2:                            # a lit or coloured poster at the end
            self.box((a - .12, -b, .3), (a, b, height - .3),
                     ((190, 60, 70), (70, 110, 180), (220, 200, 90))[self.seed // 2 % 3])
        for x in (-a, a):
            self.pole(self.at(x, -b, 0), self.at(x, -b, height), .09, frame)
        self.box((-a - .1, -b - .2, height - .18), (a + .1, b + .1, height), frame)

    def block(self, kind: int) -> None:
        """Draw what is a box, with what goes on it."""
        length, width, height = self.row[3:6]
        a, b, seed = length / 2, width / 2, self.seed
        colour = np.array(_BOXES[kind][seed % len(_BOXES[kind])], float)
        if height * self.scale < 9:                  # far away: a stroke will do
            self.pole(self.foot[0], self.foot[1], length, colour)
            return
        if kind == BENCH:
            self.box((-a, -b, .36), (a, b, .46), colour)
            self.box((-a, b - .08, .36), (a, b, height), colour)
            return
        if kind == BARRIER:
            for k in range(4):
                x = -a + k * length / 4
                self.box((x, -.03, height * .6), (x + length / 4, .03, height),
                         _BOXES[BARRIER][(k + seed) % 2])
            for x in (-a + .1, a - .1):
                self.pole(self.at(x, 0, 0), self.at(x, 0, height), .07, (60, 60, 60))
            return
        self.box((-a, -b, 0), (a, b, height * (.45 if kind == PLANTER else 1)), colour)
        if kind == PLANTER:
            _sprite(self.view, self.sprites.items[seed % len(self.sprites.items)],
                    self.at(0, 0, .75 * height), .75 * a * self.scale * 1.2, .4 * height
                    * self.scale, self.depth)
        elif seed % 3:                               # posters, a lid, a label
            rng = np.random.default_rng(seed)
            low, high = (.35, .9) if kind == COLUMN else (.5, .85)
            for _ in range(3 if kind == COLUMN else 1):
                y = rng.uniform(-.5, .5) * b
                rgb = rng.uniform(30, 240, 3)
                self.box((-a - .01, y - .5 * b, low * height), (a + .01, y + .5 * b,
                                                               high * height), rgb)

    def sign(self) -> None:
        view, light, seed = self.view, self.light, self.seed
        self.pole(self.foot[0], self.foot[1], .08, (130, 130, 130))
        c = np.clip(self.foot[1], -8000, 8000).astype(int).tolist()
        r = max(1, int(.36 * self.scale))
        canvas, colour = view.canvas, lambda rgb: view.colour(rgb * light, self.depth)
        if seed % 4 == 0:
            cv2.circle(canvas, c, r, colour(_RED), -1)
            cv2.circle(canvas, c, int(.7 * r), colour(_WHITE), -1)
        elif seed % 4 == 1:
            for k, rgb in ((1.0, _RED), (.62, _WHITE)):
                points = np.array([[c[0], c[1] - r * k], [c[0] - .9 * r * k, c[1] + .6 * r * k],
                                   [c[0] + .9 * r * k, c[1] + .6 * r * k]]).astype(np.int32)
                cv2.fillConvexPoly(canvas, points, colour(rgb))
        elif seed % 4 == 2:
            cv2.rectangle(canvas, (c[0] - r, c[1] - r), (c[0] + r, c[1] + r), colour(_BLUE), -1)
        else:                                        # a street's name, or a board
            wide = int(r * (1.2 + .3 * (seed % 5)))
            board = (_WHITE, _BLUE, np.array([30., 100, 60]), np.array([230., 190, 40]))[
                seed // 4 % 4]
            cv2.rectangle(canvas, (c[0] - wide, c[1] - r // 2), (c[0] + wide, c[1] + r // 2),
                          colour(board), -1)

    def signal(self, signals) -> None:
        view = self.view
        self.pole(self.foot[0], self.foot[1], .13, (70, 72, 74))
        h = .45 * self.scale
        c = np.clip(self.foot[1], -8000, 8000)
        cv2.rectangle(view.canvas, (c - [.17 * self.scale, h]).astype(int).tolist(),
                      (c + [.17 * self.scale, h]).astype(int).tolist(),
                      view.colour((24, 24, 26), self.depth), -1)
        state = _lamp_state(view, self.x, self.y, signals)
        for k, rgb in ((-1, (255, 40, 30)), (0, (255, 190, 30)), (1, (40, 240, 110))):
            on = state == -k
            shown = np.array(rgb) if on else np.array(rgb) * .18 * self.light
            self.disc(c + [0, k * .58 * h], .12 * self.scale, shown / (1 if on else self.light),
                      not on)


def _lamp_state(view, x, y, signals) -> int:
    """Return 1 red, 0 amber, -1 green for who looks at a signal from the view's position."""
    junctions, green = signals
    k = int(np.argmin([np.hypot(*(j.xy - [x, y])) for j in junctions]))
    to = np.arctan2(y - view.position[1], x - view.position[0])
    main = abs(np.cos(to - junctions[k].main_heading)) > abs(
        np.cos(to - junctions[k].cross_heading))
    state = int(green[k]) * (1 if main else -1)
    return -state if state else 0


def _sprite(view, levels, centre, rx: float, ry: float, depth: float) -> None:
    image, mask = levels[1 if 2 * rx < .5 * levels[0][0].shape[1] else 0]
    x0, y0 = centre[0] - rx, centre[1] - ry
    low = np.maximum([int(np.floor(x0)), int(np.floor(y0))], 0)
    high = np.minimum([int(np.ceil(x0 + 2 * rx)), int(np.ceil(y0 + 2 * ry))],
                      [view.width, view.height])
    w, h = int(high[0] - low[0]), int(high[1] - low[1])
    if w < 1 or h < 1:
        return
    sx, sy = 2 * rx / image.shape[1], 2 * ry / image.shape[0]
    move = np.array([[sx, 0, x0 - low[0]], [0, sy, y0 - low[1]]])
    patch = cv2.warpAffine(image, move, (w, h), flags=cv2.INTER_LINEAR,
                           borderMode=cv2.BORDER_REPLICATE)
    stencil = cv2.warpAffine(mask, move, (w, h), flags=cv2.INTER_LINEAR)
    stencil = cv2.threshold(stencil, 110, 255, cv2.THRESH_BINARY)[1]
    haze = view.haze(depth)
    if haze > .02 or view.beam:
        patch = cv2.convertScaleAbs(patch, alpha=(1 - haze) * view.headlights(depth))
        patch = cv2.add(patch, (*(view.fog * haze), 0.))
    cv2.copyTo(patch, stencil, view.canvas[low[1]:high[1], low[0]:high[0]])
