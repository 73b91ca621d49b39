"""
Shapes: vehicles as quads in a unit box, trees as sprites.

A unit mesh spans x (forward) and y (left) from -0.5 to 0.5 and z (up) from 0 to 1; it is scaled by
length, width and height. Quads are in drawing order: a later one may cover an earlier one.
"""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np

from wm_ros.sim.appearance import Style, noise_tile

(PAINT, GLASS, TYRE, HEADLIGHT, TAILLIGHT, PLATE, TRIM, CARGO, HUB, SHOULDER, SILL,
 SKY_GLASS) = range(12)


class _Builder:
    def __init__(self) -> None:
        self.quads: list = []
        self.materials: list = []
        self.details: list = []

    def quad(self, points, material, detail=False) -> None:
        points = np.asarray(points, float)
        self.quads.append(points)
        self.materials.append(material)
        self.details.append(detail)

    def prism(self, profile, half_low, half_high, z_low, z_high, materials,
              taper=0.0, first=0) -> None:
        """
        Extrude a convex profile (x, z) sideways; it narrows from `half_low` to `half_high`.

        Edges before `first` get no face: something else hides them for good.
        """
        def half(x, z):
            side = half_low + (half_high - half_low) * np.clip((z - z_low) / (z_high - z_low), 0, 1)
            return side * (1 - taper * np.clip((abs(x) - .4) * 10, 0, 1)**1.5)
        left = [(x, half(x, z), z) for x, z in profile]
        right = [(x, -half(x, z), z) for x, z in profile]
        for i in range(first, len(profile) - 1):
            self.quad([right[i], right[i + 1], left[i + 1], left[i]], materials[i])
        for points in (left, right[::-1]):
            # A fan of quads over the convex side.
            for i in range(1, len(points) - 2, 2):
                self.quad([points[0], points[i], points[i + 1], points[i + 2]], materials[-1])
            if len(points) % 2:
                self.quad([points[0], points[-2], points[-1], points[-1]], materials[-1])

    def sides(self, points_xz, y, material, detail=True) -> None:
        self.quad([(x, y, z) for x, z in points_xz], material, detail)
        self.quad([(x, -y, z) for x, z in points_xz][::-1], material, detail)

    def wheels(self, xs, radius_x, radius_z) -> None:
        angle = np.arange(8) * np.pi / 4 + np.pi / 8
        for x in xs:
            for scale, material, y in ((1.0, TYRE, .505), (.6, HUB, .51)):
                ring = np.stack([x + radius_x * scale * np.cos(angle),
                                 radius_z * (1 + scale * np.sin(angle))], -1)
                # Seen from the left side, counter-clockwise is clockwise in x, z.
                for part in ((0, 1, 2, 3), (0, 3, 4, 7), (4, 5, 6, 7)):
                    self.sides(ring[list(part)][::-1], y, material, scale < 1)

    def ends(self, y0, y1, z0, z1, x, material, mirror=True, detail=True) -> None:
        """Add a plate on the front (x > 0) or back, and its mirror image."""
        for sign in ((1, -1) if mirror else (1,)):
            a, b = sorted((sign * y0, sign * y1))
            points = [(x, a, z0), (x, b, z0), (x, b, z1), (x, a, z1)]
            self.quad(points if x > 0 else points[::-1], material, detail)

    def done(self):
        return (np.array(self.quads), np.array(self.materials), np.array(self.details))


def _lights(b: _Builder, z_head, z_tail, wide=.2) -> None:
    b.ends(.46 - wide, .44, z_head - .05, z_head + .04, .506, HEADLIGHT, detail=False)
    b.ends(.46 - wide * .8, .445, z_tail - .06, z_tail + .06, -.506, TAILLIGHT, detail=False)
    b.ends(-.17, .17, z_tail - .16, z_tail - .08, -.508, PLATE, mirror=False)
    b.ends(-.15, .15, .22, .29, .508, PLATE, mirror=False)


@cache
def vehicle_mesh(name: str):
    """Return quads (Q, 4, 3), materials (Q,) and whether each is only a detail (Q,)."""
    b = _Builder()
    if name in ('sedan', 'hatch', 'suv', 'pickup'):
        belt = {'sedan': .60, 'hatch': .58, 'suv': .60, 'pickup': .58}[name]
        rear = {'sedan': -.42, 'hatch': -.49, 'suv': -.495, 'pickup': -.08}[name]
        roof_rear = {'sedan': -.24, 'hatch': -.34, 'suv': -.42, 'pickup': -.04}[name]
        front, roof_front = (.24, .04) if name != 'suv' else (.26, .1)
        b.prism([(-.5, .16), (-.5, belt - .06), (-.47, belt), (front + .01, belt), (.46, belt - .1),
                 (.5, belt - .18), (.5, .16)], .47, .5, .16, .45,
                [PAINT, PAINT, PAINT, PAINT, PAINT, PAINT, PAINT], .13)
        b.sides([(-.41, belt - .13), (-.41, belt - .02), (.38, belt - .02), (.38, belt - .13)],
                .501, SHOULDER)
        b.sides([(-.41, .24), (-.41, .36), (.41, .36), (.41, .24)], .501, SILL)
        b.sides([(-.41, .16), (-.41, .24), (.41, .24), (.41, .16)], .502, TRIM)
        for x in (-.31, .31):           # wheel arches
            b.sides([(x - .086, .2), (x - .06, .455), (x + .06, .455), (x + .086, .2)], .503,
                    TRIM, False)
        b.prism([(rear, belt), (roof_rear, .97), (roof_front, 1.0), (front, belt)], .47, .38, belt,
                1., [PAINT, PAINT, PAINT, PAINT])

        def inset(x0, z0, x1, z1, t):
            return x0 + (x1 - x0) * t, z0 + (z1 - z0) * t
        lo, hi = .12, .88
        a, c = inset(rear, belt, roof_rear, .97, lo), inset(rear, belt, roof_rear, .97, hi)
        b.quad([(a[0] - .003, -.40, a[1]), (c[0] - .003, -.36, c[1]), (c[0] - .003, .36, c[1]),
                (a[0] - .003, .40, a[1])], GLASS)
        a, c = inset(front, belt, roof_front, 1., lo * .5), inset(front, belt, roof_front, 1., hi)
        b.quad([(a[0] + .003, .43, a[1]), (c[0] + .003, .36, c[1]), (c[0] + .003, -.36, c[1]),
                (a[0] + .003, -.43, a[1])], GLASS)
        mid = (roof_rear + roof_front) / 2 if name != 'pickup' else roof_front - .02
        top, base = .94, belt + .03
        for x0, x1, t0, t1 in ((rear + .045, mid - .012, roof_rear + .015, mid - .012),
                               (mid + .012, front - .04, mid + .012, roof_front - .0)):
            if t1 - t0 > .02:
                for s in (1, -1):
                    points = [(x0, s * .472, base), (t0, s * .402, top), (t1, s * .402, top),
                              (x1, s * .472, base)]
                    b.quad(points if s > 0 else points[::-1], GLASS)
        b.ends(-.3, .3, .2, .36, .503, TRIM, mirror=False)
        b.ends(-.47, .47, .16, .23, -.503, TRIM, mirror=False)
        b.wheels((-.31, .31), .073, .215)
        _lights(b, belt - .14, belt - .1)
        for y in (1, -1):               # mirrors
            b.quad([(front - .06, y * .48, belt + .02), (front - .06, y * .56, belt + .02),
                    (front - .06, y * .56, belt + .09), (front - .06, y * .48, belt + .09)][::y],
                   TRIM, True)
            b.quad([(front - .06, y * .48, belt + .02), (front - .06, y * .56, belt + .02),
                    (front - .06, y * .56, belt + .09), (front - .06, y * .48, belt + .09)][::-y],
                   PAINT, True)
        b.sides([(mid, .3), (mid + .004, .3), (mid + .004, belt), (mid, belt)][::-1], .503, TRIM)
    elif name == 'van':
        b.prism([(-.5, .1), (-.5, .97), (-.47, 1.), (.18, .99), (.36, .62), (.49, .48), (.5, .1)],
                .5, .46, .45, 1., [PAINT] * 7)
        b.quad([(.345, -.44, .655), (.345, .44, .655), (.205, .42, .945), (.205, -.42, .945)],
               GLASS)
        b.sides([(.09, .6), (.32, .62), (.2, .92), (.09, .92)][::-1], .502, GLASS, False)
        b.ends(.05, .42, .6, .9, -.503, GLASS)
        b.ends(-.35, .35, .2, .36, .503, TRIM, mirror=False)
        b.wheels((-.31, .31), .065, .155)
        _lights(b, .42, .42, .12)
        b.sides([(-.1, .12), (-.094, .12), (-.094, .92), (-.1, .92)][::-1], .503, TRIM)
    elif name == 'truck':
        b.prism([(-.5, .22), (-.5, 1.), (.24, 1.), (.24, .22)], .5, .5, 0., 1., [CARGO] * 4)
        b.prism([(.26, .12), (.26, .8), (.42, .8), (.49, .5), (.5, .12)], .47, .46, 0., 1.,
                [PAINT] * 5, first=1)
        b.quad([(.495, -.43, .5), (.495, .43, .5), (.43, .42, .76), (.43, -.42, .76)], GLASS)
        b.sides([(.33, .47), (.46, .47), (.41, .74), (.33, .74)][::-1], .475, GLASS, False)
        b.sides([(-.5, .1), (.24, .1), (.24, .21), (-.5, .21)][::-1], .46, TRIM)
        b.ends(-.4, .4, .2, .42, .503, TRIM, mirror=False)
        b.ends(-.5, .5, .1, .2, -.503, TRIM, mirror=False)
        b.wheels((-.37, -.24, .37), .055, .145)
        _lights(b, .2, .17, .12)
    elif name == 'bus':
        b.prism([(-.5, .1), (-.5, .97), (-.48, 1.), (.48, 1.), (.5, .95), (.5, .1)], .5, .48, .6,
                1., [PAINT] * 6)
        for k in range(8):
            x = -.47 + k * .117
            b.sides([(x, .44), (x + .105, .44), (x + .105, .84), (x, .84)][::-1], .502, GLASS,
                    k % 2 > 0)
        b.ends(-.46, .46, .4, .86, .503, GLASS, mirror=False, detail=False)
        b.ends(-.4, .4, .5, .85, -.503, GLASS, mirror=False)
        b.ends(-.35, .35, .88, .95, .504, TRIM, mirror=False)
        b.wheels((-.27, .33), .042, .15)
        _lights(b, .24, .25, .1)
    else:
        raise ValueError(f'vehicle mesh: {name!r} is unknown')
    return b.done()


#: Closed box for bins and other lumps.
@cache
def box_mesh() -> np.ndarray:
    b = _Builder()
    b.prism([(-.5, 0.), (-.5, 1.), (.5, 1.), (.5, 0.)], .5, .5, 0., 1., [0] * 4)
    return b.done()[0]


def normals_of(quads: np.ndarray) -> np.ndarray:
    """Return outward unit normals (Q, 3) of quads (Q, 4, 3)."""
    d1, d2 = quads[:, 2] - quads[:, 0], quads[:, 3] - quads[:, 1]
    n = np.cross(d1, d2)
    return n / np.maximum(np.linalg.norm(n, axis=1, keepdims=True), 1e-9)


_GREYS = np.array([[232, 232, 230], [26, 27, 30], [120, 124, 128], [168, 172, 176], [70, 74, 80]])
_PAINTS = np.array([
    [150, 24, 26], [28, 52, 110], [52, 84, 142], [40, 70, 50], [198, 186, 160], [110, 70, 44],
    [214, 170, 30], [226, 110, 28], [96, 22, 38], [18, 40, 60], [120, 150, 180]])


def paint(rng: np.random.Generator) -> np.ndarray:
    """Return a car's colour: two of three are white, grey or black, as on real roads."""
    table = _GREYS if rng.random() < .66 else _PAINTS
    return np.clip(table[rng.integers(len(table))] * rng.uniform(.8, 1.15)
                   + rng.normal(0, 5, 3), 4, 250)


def crown(rng: np.random.Generator, style: Style, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a tree crown: RGB (size, size, 3) lit from the top, and its mask."""
    mask = np.zeros((size, size), np.uint8)
    tone = np.zeros((size, size), np.float32)
    cone, sparse = rng.random() < .2, rng.random() < .3
    tall = rng.uniform(.8, 1.0)
    for _ in range(70 if sparse else 120):
        r = rng.uniform(.03, .09 if sparse else .13) * size
        angle, reach = rng.uniform(0, 2 * np.pi), .4 * size * np.sqrt(rng.random())
        x = size / 2 + reach * np.cos(angle) * tall
        y = size / 2 + reach * np.sin(angle)
        if cone:
            x = size / 2 + (x - size / 2) * np.clip(y / size * 1.25, .06, 1)
        level = 1.28 - .75 * (y / size) + rng.normal(0, .16)
        cv2.circle(mask, (int(x), int(y)), int(r), 255, -1)
        cv2.circle(tone, (int(x), int(y)), int(r), float(level), -1)
        cv2.circle(tone, (int(x - .2 * r), int(y - .3 * r)), int(.55 * r), float(level * 1.15), -1)
    rough = noise_tile(rng, size, 4)
    edge = cv2.blur(mask, (max(3, size // 12) | 1,) * 2)
    mask[(rough > 2.1 - 1.2 * (edge < 225)) & (mask > 0)] = 0
    image = style.leaves * (tone * (1 + .2 * rough))[..., None]
    image = image * (1 + .14 * rng.standard_normal((size, size, 1)))
    return np.clip(image, 0, 255).astype(np.uint8), mask
