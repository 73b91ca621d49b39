"""What stands beside the roads: buildings, walls, trees, poles, signs."""

from __future__ import annotations

import numpy as np

from wm_ros.sim.roads import (
    BARRIER,
    BENCH,
    BIN,
    BOLLARD,
    BUILDING,
    BUSH,
    CABINET,
    COLUMN,
    CONE,
    DRIVABLE,
    FENCE,
    HEDGE,
    LAMP,
    PARASOL,
    PLANTER,
    POLE,
    RASTER_M,
    SHELTER,
    SIGN,
    SIGNAL,
    STATIC,
    TREE,
    WALKWAY,
    WALL,
    Layout,
    fill,
    to_cells,
)

#: Pieces beside the kerb or the wall: length, width, height in metres, and their shares.
_SIZES = {
    POLE: (.14, .14, 4.6), SIGN: (.1, .1, 2.6), BOLLARD: (.16, .16, .9), BIN: (.6, .6, 1.1),
    BUSH: (1., .8, 1.), SHELTER: (3.5, 1.2, 2.5), CONE: (.35, .35, .7), COLUMN: (1.1, 1.1, 3.2),
    PARASOL: (2., 2., 2.4), BARRIER: (1.8, .3, 1.), PLANTER: (1.2, .6, 1.1),
    BENCH: (1.7, .5, .8), CABINET: (1.1, .4, 1.3)}
_PIECES = list(_SIZES)
_SHARES = np.array([14, 20, 20, 9, 9, 4, 3, 3, 4, 3, 5, 4, 6]) / 104
_BY_THE_WALL = (SHELTER, COLUMN, PARASOL, BENCH, BUSH)


def classes_at(layout: Layout, points: np.ndarray) -> np.ndarray:
    cells = np.round(to_cells(layout, points)).astype(int)
    rows, cols = layout.classes.shape
    return layout.classes[np.clip(cells[..., 1], 0, rows - 1), np.clip(cells[..., 0], 0, cols - 1)]


def _town(layout: Layout, rng: np.random.Generator) -> list:
    """Return what lines the roads of a town."""
    statics: list = []
    share = {'street': 0.85, 'suburb': 0.6, 'arterial': 0.45}[layout.kind]
    storeys = {'street': (3, 7), 'suburb': (1, 3), 'arterial': (2, 9)}[layout.kind]
    setback = {'street': (0.0, 2.0), 'suburb': (3.0, 9.0), 'arterial': (2.0, 14.0)}[layout.kind]
    tree_gap = rng.uniform(7, 22)
    tree_share = rng.uniform(0.1, 0.9)
    lamp_gap = rng.uniform(22, 38)
    for road in layout.roads:
        n = len(road.centre)
        for side, sign in ((0, -1), (1, 1)):
            edge = road.half_m(side) + road.pavement_m

            def place(i, d, road=road, sign=sign):
                h = road.heading[i]
                return road.centre[i] + sign * d * np.array([-np.sin(h), np.cos(h)]), h

            at = rng.uniform(0, 10)
            while at < n - 12:
                front = rng.uniform(7, 24)
                back = rng.uniform(7, 14)
                if rng.random() < share:
                    gap = rng.uniform(*setback)
                    xy, h = place(int(min(at + front / 2, n - 1)), edge + gap + back / 2)
                    grid = np.array([[a, b] for a in np.linspace(-.5, .5, 9)
                                     for b in np.linspace(-.5, .5, 5)]) * [front, back]
                    c, s = np.cos(h), np.sin(h)
                    probe = xy + grid @ np.array([[c, s], [-s, c]])
                    if not np.any(classes_at(layout, probe)):
                        statics.append((*xy, h, front, back,
                                        rng.integers(storeys[0], storeys[1]) * 3.1 + 1, BUILDING))
                elif rng.random() < 0.8:
                    what = rng.choice([WALL, HEDGE, FENCE])
                    xy, h = place(int(min(at + front / 2, n - 1)), edge + 0.6)
                    tall = {WALL: 1.8, HEDGE: 1.5, FENCE: 1.2}[what] * rng.uniform(0.7, 1.3)
                    statics.append((*xy, h, front, 0.3 if what != HEDGE else 0.8, tall, what))
                    for _ in range(rng.integers(0, 4)):
                        p, h2 = place(int(np.clip(at + rng.uniform(0, front), 0, n - 1)),
                                      edge + rng.uniform(3, 16))
                        statics.append((*p, h2, 0.4, 0.4, rng.uniform(5, 11), TREE))
                at += front + (rng.uniform(0, 1.5) if layout.kind == 'street'
                               else rng.uniform(2, 12))
            for at in np.arange(rng.uniform(0, tree_gap), n - 1, tree_gap):
                if rng.random() < tree_share:
                    p, h = place(int(at), road.half_m(side) + 0.7)
                    statics.append((*p, h, 0.35, 0.35, rng.uniform(4.5, 9), TREE))
            for at in np.arange(rng.uniform(0, lamp_gap), n - 1, lamp_gap):
                p, h = place(int(at), road.half_m(side) + 0.5)
                statics.append((*p, h + (0 if sign < 0 else np.pi), 0.18, 0.18,
                                rng.uniform(5, 9), LAMP))
            for _ in range(rng.integers(10, 44)):
                i = int(rng.uniform(0, n - 1))
                what = rng.choice(_PIECES, p=_SHARES)
                size = np.array(_SIZES[what]) * [1, 1, rng.uniform(.8, 1.25)]
                near = road.half_m(side) + rng.uniform(0.35, 0.9)
                far = road.half_m(side) + road.pavement_m - size[1] / 2 - rng.uniform(0, .3)
                p, h = place(i, far if what in _BY_THE_WALL else near)
                statics.append((*p, h if sign < 0 else h + np.pi, *size, what))
                if what in (BOLLARD, BARRIER, CONE, PARASOL):
                    gap = size[0] + rng.uniform(.9, 2.6)
                    for k in range(1, int(rng.integers(2, 8))):
                        q, h = place(int(min(i + gap * k, n - 1)),
                                     far if what == PARASOL else road.half_m(side) + 0.4)
                        statics.append((*q, h, *size, what))
    return statics


def _country(layout: Layout, rng: np.random.Generator) -> list:
    """Return what stands by a country road: hedges, fences, trees, posts, now and then a farm."""
    statics: list = []
    hedged, wooded = rng.uniform(.1, .8), rng.uniform(0, .8)
    for road in layout.roads:
        n = len(road.centre)
        for side, sign in ((0, -1), (1, 1)):
            at = rng.uniform(0, 20)
            while at < n - 20:
                long = rng.uniform(6, 14)
                i = int(at + long / 2)
                h = road.heading[i]
                away = sign * np.array([-np.sin(h), np.cos(h)])
                edge = road.half_m(side)
                if rng.random() < hedged:
                    what, wide = (HEDGE, .9) if rng.random() < .7 else (FENCE, .15)
                    statics.append((*(road.centre[i] + (edge + rng.uniform(1.2, 2.2)) * away), h,
                                    long, wide, rng.uniform(.8, 2.0), what))
                for _ in range(rng.poisson(2.0 * wooded)):
                    statics.append((*(road.centre[i] + (edge + rng.uniform(2.5, 25)) * away), h,
                                    .4, .4, rng.uniform(4, 13), TREE))
                if rng.random() < .03:
                    statics.append((*(road.centre[i] + (edge + rng.uniform(14, 28)) * away), h,
                                    rng.uniform(9, 22), rng.uniform(8, 12), rng.uniform(4, 7),
                                    BUILDING))
                at += long * rng.uniform(.9, 1.3)
            for i in np.arange(rng.uniform(0, 40), n - 1, rng.uniform(30, 55)).astype(int):
                h = road.heading[i]
                foot = road.offset(sign * (road.half_m(side) + 2.0))[i]
                statics.append((*foot, h, .14, .14, rng.uniform(6, 8), POLE)
                               if rng.random() < .6 else (*foot, h, .12, .12, .9, BOLLARD))
    return statics


def furnish(layout: Layout, rng: np.random.Generator) -> None:
    """Place buildings, trees, poles and so on; draw them into the rasters."""
    statics = (_country if layout.kind == 'rural' else _town)(layout, rng)
    for x, y in rng.uniform(layout.origin, layout.origin + np.array(
            layout.classes.shape[::-1]) * RASTER_M, (rng.integers(20, 160), 2)):
        tree = rng.random() < .6                     # open ground
        statics.append((x, y, 0., .4, .4, rng.uniform(4, 12) if tree else rng.uniform(.7, 2.2),
                        TREE if tree else BUSH))
    # Poles of one road must not stand on another.
    table = np.array(statics, np.float64).reshape(-1, 7)
    half = np.stack([np.cos(table[:, 2]), np.sin(table[:, 2])], -1) * table[:, 3:4] / 2
    on_road = [classes_at(layout, table[:, :2] + k * half) & DRIVABLE > 0 for k in (-1, 0, 1)]
    free = ~on_road[0] & ~on_road[2] & (~on_road[1] | (table[:, 6] == BUILDING))
    kept = [tuple(row) for row in table[free]]
    for junction in layout.junctions:
        if junction.control == 'signal':
            um = np.array([np.cos(junction.main_heading), np.sin(junction.main_heading)])
            uc = np.array([np.cos(junction.cross_heading), np.sin(junction.cross_heading)])
            for a in (-1, 1):
                for b in (-1, 1):
                    xy = junction.xy + um * a * (junction.box[0] - 0.6) \
                        + uc * b * (junction.box[1] - 0.6)
                    if classes_at(layout, xy) & WALKWAY:
                        kept.append((*xy, junction.main_heading, .15, .15, 3.4, SIGNAL))
    table = np.array(kept, np.float64).reshape(-1, 7)
    layout.statics = table
    mask = np.zeros_like(layout.heights)
    for x, y, yaw, length, width, height, _ in table[np.argsort(table[:, 5])]:
        u = np.array([np.cos(yaw), np.sin(yaw)]) * max(length, 0.3) / 2
        v = np.array([-np.sin(yaw), np.cos(yaw)]) * max(width, 0.3) / 2
        corners = np.array([x, y]) + np.array([u + v, v - u, -u - v, u - v])
        fill(mask, layout, corners, STATIC)
        fill(layout.heights, layout, corners, int(np.clip(height / RASTER_M, 1, 255)))
    layout.classes |= mask
