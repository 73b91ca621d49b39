"""The ground as a picture from above: asphalt, markings, pavements, terrain, still shadows."""

from __future__ import annotations

import cv2
import numpy as np

from wm_ros.sim import roundabout
from wm_ros.sim.appearance import Style, noise_tile
from wm_ros.sim.roads import BUILDING, LAMP, TREE, Layout, strip


class Ground:
    """
    An RGB0 raster of the layout between `low` and `high` (xy metres) with two coarser levels.

    `levels` holds (picture, metres a cell); `origin` is the layout position of the outer corner
    of cell (0, 0). Rows grow with y.
    """

    def __init__(self, layout: Layout, style: Style, rng: np.random.Generator,
                 low: np.ndarray, high: np.ndarray, cell_m: float) -> None:
        self.origin, self._cell = low, cell_m
        cols, rows = np.ceil((high - low) / cell_m).astype(int)
        self._image = np.empty((rows, cols, 3), np.uint8)
        self._style, self._rng = style, rng
        self._image[:] = np.clip(style.terrain, 0, 255)
        self._paint(layout)
        if style.snow:
            self._snow(layout)
        self._texture()
        self._shadows(layout)
        light = style.ambient + style.sun_strength * max(style.sun[2], .0)
        if style.light == 'night':
            light = style.ambient * 1.6
        table = np.clip(np.arange(256)[:, None] * light * (1 - .3 * style.wet), 0, 255)
        image = cv2.LUT(self._image, table.astype(np.uint8)[None])
        if style.lamplight:
            image = np.clip(image * self._lamplight(layout), 0, 255).astype(np.uint8)
        self.border = (*(float(c) for c in np.clip(style.terrain * light, 0, 255)), 0.)
        # The fourth channel is the renderer's id buffer: nobody.
        image = cv2.merge([*cv2.split(image), np.zeros(image.shape[:2], np.uint8)])
        half = cv2.resize(image, None, fx=.5, fy=.5, interpolation=cv2.INTER_AREA)
        quarter = cv2.resize(half, None, fx=.5, fy=.5, interpolation=cv2.INTER_AREA)
        self.levels = [(image, cell_m), (half, 2 * cell_m), (quarter, 4 * cell_m)]
        del self._image

    def _cells(self, points: np.ndarray) -> np.ndarray:
        return np.round(((np.asarray(points) - self.origin) / self._cell - .5) * 8).astype(np.int32)

    def _fill(self, points, colour) -> None:
        cv2.fillPoly(self._image, [self._cells(points)], _rgb(colour), cv2.LINE_AA, 3)

    def _line(self, points, width_m, colour) -> None:
        cv2.polylines(self._image, [self._cells(points)], False, _rgb(colour),
                      max(1, int(round(width_m / self._cell))), cv2.LINE_AA, 3)

    def _dashes(self, points, width_m, colour, on: int, off: int) -> None:
        pieces = [self._cells(points[a:a + on + 1])
                  for a in range(0, len(points) - on, on + off)]
        if pieces:
            cv2.polylines(self._image, pieces, False, _rgb(colour),
                          max(1, int(round(width_m / self._cell))), cv2.LINE_AA, 3)

    def _paint(self, layout: Layout) -> None:
        style, rng = self._style, self._rng
        kerb = style.pavement * rng.uniform(.8, 1.2)
        if layout.kind == 'rural':
            kerb = style.terrain * rng.uniform(.75, 1.0)          # a worn verge
            self._fields()
        for road in layout.roads:
            self._fill(strip(road, -road.half_m(0) - road.pavement_m,
                             road.half_m(1) + road.pavement_m), style.pavement)
        for junction in layout.junctions:
            if junction.radius_m:
                room = roundabout.OUTER_M + layout.roads[0].pavement_m
                self._fill(roundabout.circle(junction.xy, junction.radius_m + room),
                           style.pavement)
        for polygon in layout.car_parks:
            self._fill(polygon, style.asphalt * rng.uniform(.85, 1.2))
        grow = 0.15
        for road in layout.roads:
            self._fill(strip(road, -road.half_m(0) - grow, road.half_m(1) + grow), kerb)
        for polygon in layout.junction_polygons:
            self._line(np.concatenate([polygon, polygon[:1]]), 2 * grow, kerb)
        for road in layout.roads:
            tone = style.asphalt * rng.uniform(.88, 1.12)
            self._fill(strip(road, -road.half_m(0), road.half_m(1)), tone)
            self._wear(road, tone)
            if rng.random() < .5:          # parking lanes in another surface
                for side, sign in ((0, -1), (1, 1)):
                    if road.parking[side]:
                        self._fill(strip(road, sign * (road.half_m(side) - 2.2),
                                         sign * road.half_m(side)), tone * rng.uniform(.8, 1.25))
        white = style.marking
        centre = white if rng.random() < .7 else np.array([205., 165., 60.])
        worn = rng.uniform(.12, .16)
        lines = rng.random() < (.5 if layout.kind == 'rural' else .85)
        for road in layout.roads:
            if road.lanes[1] and (lines or road.lanes[0] > 1):
                if rng.random() < .5:
                    self._dashes(road.centre, worn, centre, 3, 5)
                else:
                    self._line(road.centre, worn, centre)
            for side, sign in ((0, -1), (1, 1)):
                for k in range(1, road.lanes[side]):
                    self._dashes(road.offset(sign * k * road.lane_m), worn, white, 3, 6)
                if road.parking[side] or rng.random() < .4:
                    edge = sign * road.lanes[side] * road.lane_m
                    self._line(road.offset(edge), worn, white)
        for polygon in layout.junction_polygons:
            self._fill(polygon, style.asphalt)
        for xy, radius in layout.islands:
            ring = roundabout.circle(xy, radius + .25)
            self._fill(ring, kerb)
            self._line(np.concatenate([ring, ring[:1]]), worn, white)
            self._fill(roundabout.circle(xy, radius), style.pavement * .9)
            self._fill(roundabout.circle(xy, max(radius - 1.4, .5)), style.terrain)
        for x, y, h, _ in layout.slots:
            u, v = np.array([np.cos(h), np.sin(h)]), np.array([-np.sin(h), np.cos(h)])
            c = np.array([x, y])
            for side in (-1.3, 1.3):
                self._line([c + v * side - u * 2.5, c + v * side + u * 2.5], .1, white)
        paths = layout.paths
        for i in np.flatnonzero(paths.lane == np.arange(len(paths.lane))):
            for e in range(paths.event_line.shape[1]):
                s = paths.event_line[i, e]
                j = paths.event_junction[i, e]
                if j < 0 or s < 2:
                    continue
                if layout.junctions[j].control == 'priority' and paths.event_main[i, e]:
                    continue
                k = int(s) - 1
                h = paths.heading[i, k]
                v = np.array([-np.sin(h), np.cos(h)]) * 1.55
                self._line([paths.points[i, k] - v, paths.points[i, k] + v], .4, white)
        for centre_xy, heading, length in layout.crossings:
            u = np.array([np.cos(heading), np.sin(heading)])
            v = np.array([-u[1], u[0]])
            for a in np.arange(-length / 2 + .4, length / 2 - .4, 1.0):
                corner = centre_xy + a * u
                self._fill([corner - 1.4 * v, corner + .5 * u - 1.4 * v,
                            corner + .5 * u + 1.4 * v, corner + 1.4 * v], white)

    def _fields(self) -> None:
        """Paint fields: large patches, some with furrows."""
        rng, cell = self._rng, self._cell
        rows, cols = self._image.shape[:2]
        size = int(rng.uniform(40, 90) / cell)
        kinds = self._style.terrain * np.array([[1., 1., 1.], [1.25, 1.15, .7], [.95, .75, .6],
                                                [.75, .95, .6], [1.3, 1.2, .9]])
        if self._style.snow:
            kinds = np.repeat(self._style.terrain[None], 5, 0) * rng.uniform(.9, 1., (5, 1))
        for y in range(0, rows, size):
            for x in range(0, cols, size):
                part = self._image[y:y + size, x:x + size]
                part[:] = np.clip(kinds[rng.integers(5)], 0, 255)
                if rng.random() < .4:
                    step = max(3, int(rng.uniform(.5, 1.6) / cell))
                    lines = (slice(None), slice(None, None, step))[::rng.choice([-1, 1])]
                    part[lines] = part[lines] * .8

    def _snow(self, layout: Layout) -> None:
        """Lay snow on the roads, thinner where wheels go."""
        rng, style = self._rng, self._style
        rows, cols = self._image.shape[:2]
        thin = np.zeros((rows, cols), np.uint8)
        for road in layout.roads:
            for side, sign in ((0, -1), (1, 1)):
                for k in range(road.lanes[side]):
                    for wheel in (-.8, .8):
                        line = road.offset(sign * (k + .5) * road.lane_m + wheel)
                        cv2.polylines(thin, [self._cells(line)], False, 255,
                                      max(1, int(.6 / self._cell)), cv2.LINE_8, 3)
        for points in layout.paths.points[layout.paths.lane != np.arange(len(layout.paths.lane))]:
            cv2.polylines(thin, [self._cells(points)], False, 150,
                          max(1, int(1.8 / self._cell)), cv2.LINE_8, 3)
        thin = cv2.blur(thin, (max(1, int(.5 / self._cell)),) * 2).astype(np.float32) / 255
        tile = noise_tile(rng, 512, 6)
        patchy = np.tile(tile, (rows // 512 + 1, cols // 512 + 1))[:rows, :cols]
        cover = np.clip(2.2 * style.snow - .3 + .5 * patchy - 1.5 * thin, 0, 1)[..., None]
        white = np.clip(style.terrain, 0, 255).astype(np.float32)
        self._image = (self._image * (1 - cover) + white * cover).astype(np.uint8)

    def _wear(self, road, tone) -> None:
        """Paint tracks of tyres, seams and covers on one road."""
        rng = self._rng
        track, seam = rng.uniform(.86, 1.06), rng.random() < .4
        for side, sign in ((0, -1), (1, 1)):
            for k in range(road.lanes[side]):
                middle = sign * (k + .5) * road.lane_m
                for wheel in (-.8, .8):
                    self._line(road.offset(middle + wheel), .5, tone * track)
                if seam:
                    self._line(road.offset(middle + rng.uniform(-1.4, 1.4)), .12,
                               tone * rng.uniform(.6, .85))
                for at in rng.integers(0, len(road.centre), rng.integers(0, 12)):
                    cover = road.offset(middle + rng.normal(0, .4))[at]
                    tint = tone * rng.uniform(.55, .8)
                    self._fill(roundabout.circle(cover, rng.uniform(.3, .42), 12), tint)

    def _lamplight(self, layout: Layout) -> np.ndarray:
        """Return how much the street lamps brighten the ground, (rows, cols, 1), 1 for none."""
        rows, cols = self._image.shape[:2]
        cell = 8                                     # pools of light are large and soft
        pools = np.zeros((rows // cell + 1, cols // cell + 1), np.float32)
        for x, y in layout.statics[layout.statics[:, 6] == LAMP, :2]:
            at = self._cells(np.array([x, y])) >> 3
            cv2.circle(pools, (at // cell).tolist(), int(5.5 / self._cell / cell), 1., -1)
        pools = cv2.GaussianBlur(pools, (0, 0), 2.5 / self._cell / cell)
        pools = cv2.resize(pools, (cols, rows), interpolation=cv2.INTER_LINEAR)
        return 1 + self._style.lamplight * pools[..., None]

    def _texture(self) -> None:
        rng = self._rng
        rows, cols = self._image.shape[:2]
        # Patches and cracks of repaired road.
        for _ in range(int(rows * cols * self._cell**2 / 700)):
            x, y = rng.uniform(0, cols), rng.uniform(0, rows)
            if rng.random() < .5:
                points = np.cumsum(rng.normal(0, 9 * .1 / self._cell, (7, 2)), 0) + [x, y]
                cv2.polylines(self._image, [points.astype(np.int32)], False,
                              _rgb(self._style.asphalt * .72), 1)
            else:
                x, y = int(x), int(y)
                a, b = (rng.uniform(.5, 5, 2) / self._cell).astype(int)
                piece = self._image[y:y + b, x:x + a]
                if piece.size:
                    cv2.convertScaleAbs(piece, piece, rng.uniform(.85, 1.1))
                    self._image[y:y + b, x:x + a] = piece
        tile = noise_tile(rng, 512, 6)
        tile = tile / 3 + .22 * rng.standard_normal((512, 512)).astype(np.float32)
        light = np.clip(128 + 26 * tile * rng.uniform(.5, 1.3), 60, 200).astype(np.uint8)
        light = np.tile(light, (rows // 512 + 1, cols // 512 + 1))[:rows, :cols]
        big = cv2.resize(noise_tile(rng, 64, 4), (cols, rows), interpolation=cv2.INTER_CUBIC)
        big = np.clip(128 + 9 * big, 90, 170).astype(np.uint8)
        light = cv2.multiply(light, big, scale=1 / 128)
        self._image = cv2.multiply(self._image, cv2.merge([light] * 3), scale=1 / 128)

    def _shadows(self, layout: Layout) -> None:
        style = self._style
        shade = np.full(self._image.shape[:2], 255, np.uint8)
        if style.sun_strength > .15:
            drift = -style.sun[:2] / max(style.sun[2], .12)
            value = int(255 * style.shadow)
            for x, y, yaw, length, width, height, kind in layout.statics:
                c = np.array([x, y])
                if kind == TREE:
                    r = .3 * height
                    at = self._cells(c + drift * height * .7)
                    spots = (at >> 3) + self._rng.normal(0, .45 * r / self._cell, (14, 2))
                    sizes = self._rng.uniform(.18, .5, 14) * r / self._cell
                    for spot, size in zip(spots.astype(int).tolist(), sizes.astype(int).tolist(),
                                          strict=True):            # light falls through leaves
                        cv2.circle(shade, spot, size, value, -1)
                    cv2.line(shade, (self._cells(c) >> 3).tolist(), (at >> 3).tolist(), value,
                             max(1, int(.3 / self._cell)))
                    continue
                u = np.array([np.cos(yaw), np.sin(yaw)]) * length / 2
                v = np.array([-np.sin(yaw), np.cos(yaw)]) * width / 2
                corners = np.array([c + u + v, c - u + v, c - u - v, c + u - v])
                if kind == LAMP:
                    height = height * .95
                tall = corners + drift * min(height, 30)
                hull = cv2.convexHull(self._cells(np.concatenate([corners, tall])))
                cv2.fillConvexPoly(shade, hull, value, cv2.LINE_8, 3)
            shade = cv2.blur(shade, (3, 3))
        for x, y, yaw, length, width, _, kind in layout.statics:
            if kind == BUILDING:      # the dark foot of a wall
                u = np.array([np.cos(yaw), np.sin(yaw)]) * (length / 2 + .4)
                v = np.array([-np.sin(yaw), np.cos(yaw)]) * (width / 2 + .4)
                c = np.array([x, y])
                corners = self._cells(np.array([c + u + v, c - u + v, c - u - v, c + u - v]))
                cv2.fillConvexPoly(shade, corners, int(150 * style.shadow + 60), cv2.LINE_8, 3)
        self._image = cv2.multiply(self._image, cv2.merge([shade] * 3), scale=1 / 255)


def _rgb(colour) -> tuple[float, float, float]:
    return tuple(float(c) for c in np.clip(colour, 0, 255))
