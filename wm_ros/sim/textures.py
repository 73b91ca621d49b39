"""Pictures of upright faces: house fronts with doors and shops, walls, hedges, fences."""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np

from wm_ros.sim.appearance import Style, noise_tile

_FLOOR_M = 3.1
_WALLS = np.array([[196, 178, 150], [168, 160, 150], [206, 200, 188], [150, 96, 74],
                   [128, 112, 98], [186, 150, 112], [110, 110, 114], [214, 206, 170],
                   [142, 122, 104], [176, 120, 88], [92, 84, 78], [198, 160, 140]])
_LETTERS = 'ABCDEHIKLMNOPRSTUXZ'


@cache
def _tiles() -> list[np.ndarray]:
    return [noise_tile(np.random.default_rng([64, k]), 64, 5) for k in range(16)]


def _dirt(rng: np.random.Generator) -> np.ndarray:
    """Return a (64, 64) texture of mean 0: one of a few, turned and moved."""
    tile = _tiles()[rng.integers(16)]
    moved = np.roll(tile, rng.integers(0, 64, 2), (0, 1))
    return np.ascontiguousarray(moved[::rng.choice([-1, 1])])


def facade(rng: np.random.Generator, style: Style, width_m: float, height_m: float,
           px_per_m: float, light: np.ndarray) -> np.ndarray:
    """
    Return an RGB facade of `width_m` x `height_m` under `light` (3,), its top row first.

    Lit windows shine on their own: their colours are divided by the light beforehand.
    """
    w, h = max(8, int(width_m * px_per_m)), max(8, int(height_m * px_per_m))
    wall = _WALLS[rng.integers(len(_WALLS))] * rng.uniform(.7, 1.1)
    image = np.empty((h, w, 3), np.float32)
    image[:] = wall
    front = _Front(rng, style, image, wall, width_m, px_per_m, light)
    front.skin()
    shop = rng.random() < .5
    for k in range(int(height_m // _FLOOR_M) + 1):
        base = h - k * front.floor
        if base - front.floor < -.3 * front.floor:
            break
        for i in range(front.bays):
            if k == 0 and shop:
                front.shop(i, base)
            elif k == 0 and rng.random() < .22:
                front.door(i, base)
            else:
                front.window(i, base, k)
        if k:
            front.course(base)
    if shop:
        front.board(h - front.floor)
    image[:max(1, int(.35 * px_per_m))] *= .7
    front.pipes()
    dirt = cv2.resize(_dirt(rng), (w, h))
    foot = np.clip((np.arange(h) - h + 2.5 * px_per_m) / (2.5 * px_per_m), 0, 1)
    image *= (1 + .07 * dirt[..., None]) * light * (1 - .18 * foot)[:, None, None]
    return np.clip(image, 0, 255).astype(np.uint8)


class _Front:
    """One house front being painted: `image` (h, w, 3) float, daylight colours."""

    def __init__(self, rng, style: Style, image, wall, width_m: float, px: float, light) -> None:
        self.rng, self.image, self.wall, self.px, self.light = rng, image, wall, px, light
        self.height, self.width = image.shape[:2]
        self.night = style.light in ('night', 'dusk')
        self.floor = _FLOOR_M * px
        self.bays = max(1, int(width_m / rng.uniform(2.0, 4.0)))
        self.bay = self.width / self.bays
        self.ww, self.wh = rng.uniform(.35, .7) * self.bay, rng.uniform(.42, .62) * self.floor
        self.frame = wall * rng.uniform(.6, 1.4) if rng.random() < .6 else np.array(
            [235., 235., 230.])
        self.line = max(1, int(.1 * px))
        self.arched = rng.random() < .2
        self.balconies = rng.random() < .25
        self.shutters = rng.uniform(40, 160, 3) if rng.random() < .2 else None
        self.awning = rng.uniform(30, 220, 3) if rng.random() < .35 else None
        self.sign = rng.uniform(20, 220, 3)
        self.shop_light = rng.random() < .6

    def fill(self, x0, y0, x1, y1, colour) -> None:
        self.image[max(0, int(y0)):max(0, int(y1)), max(0, int(x0)):max(0, int(x1))] = colour

    def dim(self, x0, y0, x1, y1, share) -> None:
        self.image[max(0, int(y0)):max(0, int(y1)), max(0, int(x0)):max(0, int(x1))] *= share

    def skin(self) -> None:
        """Bricks, stone blocks or a base of another stone."""
        rng, px = self.rng, self.px
        if self.wall[0] > 1.35 * self.wall[2] and px > 8:
            self.image[::max(2, int(.12 * px))] *= .88
        elif rng.random() < .35:
            row = max(3, int(rng.uniform(.4, .8) * px))
            self.image[::row] *= .82
            for y in range(0, self.height, 2 * row):
                self.image[y:y + row, ::2 * row] *= .85
        if rng.random() < .5:
            self.fill(0, self.height - rng.uniform(.5, 3.1) * px, self.width, self.height,
                      self.wall * rng.uniform(.55, 1.15))

    def glass(self):
        rng = self.rng
        if self.night and rng.random() < .35:
            return np.array([255., 214., 140.]) * rng.uniform(.3, .9) / self.light
        if rng.random() < .2:
            return np.array([150., 170., 190.]) * rng.uniform(.7, 1.1)
        return np.array([48., 56., 66.]) * rng.uniform(.4, 1.6)

    def window(self, i: int, base: float, storey: int) -> None:
        rng, line = self.rng, self.line
        a = (i + .5) * self.bay - self.ww / 2
        b, y1 = a + self.ww, base - .25 * self.floor
        y0 = y1 - self.wh
        self.fill(a - line, y0 - line, b + line, y1 + line, self.frame)
        glass = self.glass()
        self.fill(a, y0, b, y1, glass)
        self.fill(a, y0, b, y0 + .3 * (y1 - y0), glass * rng.uniform(.6, 1.5))    # sky in it
        if self.arched:
            centre = (int((a + b) / 2), int(y0))
            cv2.ellipse(self.image, centre, (max(1, int(self.ww / 2)), max(1, int(.3 * self.wh))),
                        0, 180, 360, tuple(float(c) for c in glass), -1)
        if self.px > 8:
            middle = (a + b) / 2
            self.fill(middle, y0, middle + max(1, line // 2), y1, self.frame)
            self.dim(a - line, y1, b + line, y1 + 2 * line, .7)
        if rng.random() < .25:
            self.fill(a, y0, b, y0 + rng.uniform(.2, .8) * (y1 - y0), self.frame * .9)
        if self.shutters is not None:
            for x in (a - .32 * self.ww, b + .06 * self.ww):
                self.fill(x, y0, x + .26 * self.ww, y1, self.shutters)
        if self.balconies and storey and i % 2 == 0:
            rail = y1 + .05 * self.floor
            self.dim(a - .3 * self.ww, rail, b + .3 * self.ww, rail + .3 * self.floor, .5)
            self.fill(a - .35 * self.ww, rail + .3 * self.floor, b + .35 * self.ww,
                      rail + .36 * self.floor, self.wall * 1.1)

    def door(self, i: int, base: float) -> None:
        rng = self.rng
        wide = rng.uniform(1.0, 2.8) * self.px if rng.random() < .7 else .9 * self.bay
        a = (i + .5) * self.bay - wide / 2
        y0 = base - rng.uniform(2.1, 2.8) * self.px
        colour = rng.uniform(18, 120) * (1 + rng.normal(0, .2, 3))
        self.fill(a - self.line, y0 - self.line, a + wide + self.line, base, self.frame)
        self.fill(a, y0, a + wide, base, colour)
        for _ in range(rng.integers(0, 4)):
            x = a + rng.uniform(0, wide)
            self.dim(x, y0, x + self.line, base, .6)
        if rng.random() < .3:
            self.dim(a, y0, a + wide, base, .4)                       # an open gateway

    def shop(self, i: int, base: float) -> None:
        """Paint a window with goods, posters and a door; an awning above."""
        rng, px = self.rng, self.px
        a, b = i * self.bay + .06 * self.bay, (i + 1) * self.bay - .06 * self.bay
        y0, y1 = base - .8 * self.floor, base - rng.uniform(.0, .14) * self.floor
        glass = np.array([48., 56., 66.]) * rng.uniform(.4, 1.8)
        if self.night and self.shop_light:
            glass = np.array([255., 230., 180.]) * rng.uniform(.4, 1.) / self.light
        self.fill(a, y0, b, y1, glass)
        for _ in range(rng.integers(0, 9)):                             # goods and posters
            x, y = rng.uniform(a, b), rng.uniform(y0, y1)
            wide, tall = rng.uniform(.1, .9, 2) * px
            self.fill(x, y, min(x + wide, b), min(y + tall, y1),
                      glass * rng.uniform(.3, 1.6) + rng.uniform(0, 130, 3))
        self.dim(a, y0, b, y0 + .25 * (y1 - y0), .6)
        if rng.random() < .4:
            x = rng.uniform(a, b - .3 * self.bay)
            self.fill(x, y0, x + .9 * px, base, glass * .6)
            self.fill(x, y0, x + self.line, base, self.frame)
        self.fill(a - self.line, y0, a, y1, self.frame)
        if self.awning is not None:
            for k in range(6):
                x = a + (b - a) * k / 6
                self.fill(x, y0 - .05 * self.floor, x + (b - a) / 6, y0 + .16 * self.floor,
                          self.awning if k % 2 else np.minimum(self.awning * 1.3 + 30, 245))

    def board(self, y: float) -> None:
        """Paint the name over a shop: letters on a coloured board."""
        rng = self.rng
        self.fill(0, y + .02 * self.floor, self.width, y + .18 * self.floor, self.sign)
        if self.px > 8 and rng.random() < .8:
            word = ''.join(rng.choice(list(_LETTERS), int(rng.integers(4, 12))))
            ink = self.sign * .3 if self.sign.mean() > 120 else 255 - .2 * self.sign
            top, tall = max(0, int(y)), max(4, int(.2 * self.floor))
            letters = np.zeros((tall, self.width), np.uint8)
            cv2.putText(letters, word, (int(rng.uniform(.02, .5) * self.width), int(.8 * tall)),
                        cv2.FONT_HERSHEY_SIMPLEX, .12 * self.floor / 22, 255,
                        max(1, self.line // 2), cv2.LINE_AA)
            strip = self.image[top:top + tall]
            share = letters[:len(strip), :, None] / np.float32(255)
            strip += share * (ink - strip)

    def course(self, y: float) -> None:
        self.image[max(0, int(y)):max(0, int(y)) + self.line] *= .78

    def pipes(self) -> None:
        for _ in range(self.rng.integers(0, 3)):
            x = int(self.rng.uniform(0, self.width))
            self.image[:, x:x + self.line] *= .65


def surface(rng: np.random.Generator, style: Style, kind: str, width_m: float, height_m: float,
            px_per_m: float) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the picture of a wall, hedge or fence, and its mask where it has holes."""
    w, h = max(8, int(width_m * px_per_m)), max(6, int(height_m * px_per_m))
    dirt = cv2.resize(_dirt(rng), (w, h))[..., None]
    fine = rng.standard_normal((h, w, 1)).astype(np.float32)
    if kind == 'hedge':
        image = style.leaves * .9 * (1 + .25 * dirt + .28 * fine)
        image = image * np.linspace(1.15, .6, h)[:, None, None]
        return np.clip(image, 0, 255).astype(np.uint8), None
    if kind == 'wall':
        base = np.array([[150, 140, 126], [150, 92, 70], [176, 172, 164]])[rng.integers(3)]
        image = base * (1 + .1 * dirt + .04 * fine)
        image[::max(3, int(.25 * px_per_m))] *= .8
        if rng.random() < .35:                                 # posters and scrawls
            for _ in range(rng.integers(1, 8)):
                x, y = int(rng.uniform(0, w)), int(rng.uniform(.1, .7) * h)
                if rng.random() < .5:
                    image[y:y + max(2, h // 3), x:x + max(2, h // 4)] = rng.uniform(30, 235, 3)
                else:
                    points = np.cumsum(rng.normal(0, .2 * h, (8, 2)), 0) + [x, y]
                    image = np.ascontiguousarray(image, np.float32)
                    cv2.polylines(image, [points.astype(np.int32)], False,
                                  rng.uniform(0, 255, 3).tolist(), max(1, h // 14))
        return np.clip(image, 0, 255).astype(np.uint8), None
    base = rng.uniform(40, 200) * (1 + rng.normal(0, .06, 3))
    image = np.broadcast_to(base, (h, w, 3)) * (1 + .05 * fine)
    mask = np.zeros((h, w), np.uint8)
    step = max(3, int(rng.uniform(.15, .4) * px_per_m))
    for k in range(max(1, step // 3)):
        mask[:, k::step] = 255
    mask[:max(1, h // 10)] = 255
    mask[-max(1, h // 8):] = 255
    return np.clip(image, 0, 255).astype(np.uint8), mask
