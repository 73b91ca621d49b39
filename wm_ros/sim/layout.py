"""
Random road layouts: where roads, junctions, crossings, pavements and car parks lie.

Everything lies in the layout's own plane (metres). The main road starts at the origin and heads
along +x; up to three roads cross it. Traffic keeps right.
"""

from __future__ import annotations

import numpy as np

from wm_ros.sim import roundabout
from wm_ros.sim.furniture import furnish
from wm_ros.sim.lanes import paths_through
from wm_ros.sim.roads import (
    DRIVABLE,
    RASTER_M,
    WALKWAY,
    Junction,
    Layout,
    Road,
    fill,
    headings,
    strip,
)


def _bend(rng: np.random.Generator, length: float, strength: float) -> np.ndarray:
    """Return a smooth curvature profile a metre, (n,)."""
    n = int(length)
    knots = rng.normal(0, strength, max(3, n // 60 + 2)) * (rng.random() < 0.75)
    return np.interp(np.arange(n), np.linspace(0, n, len(knots)), knots)


def _road(rng, start_heading, curvature, lanes, lane_m, parking, pavement_m, middle=None):
    heading = start_heading + np.cumsum(curvature)
    steps = np.stack([np.cos(heading), np.sin(heading)], -1)
    centre = np.concatenate([[[0.0, 0.0]], np.cumsum(steps, axis=0)[:-1]])
    if middle is not None:
        mid = len(centre) // 2
        heading = heading + (start_heading - heading[mid])
        steps = np.stack([np.cos(heading), np.sin(heading)], -1)
        centre = np.concatenate([[[0.0, 0.0]], np.cumsum(steps, axis=0)[:-1]])
        centre = centre - centre[mid] + middle
    return Road(centre, headings(centre), lanes, lane_m, parking, pavement_m)


def make_layout(rng: np.random.Generator, place: str = '') -> Layout:
    """
    Return a random place: 'street', 'suburb' or 'arterial', or 'rural' where asked for.

    'rural' is a narrow road of many bends through fields, without kerbs, pavements or lamps.
    """
    if place == 'rural':
        return _rural(rng)
    if place:
        raise ValueError(f"place: want '' or 'rural', got {place!r}")
    kind = rng.choice(['street', 'suburb', 'arterial'], p=[0.5, 0.25, 0.25])
    lane_m = rng.uniform(3.0, 3.7)
    n = {'street': rng.choice([1, 1, 2]), 'suburb': 1, 'arterial': rng.choice([2, 2, 3])}[kind]
    one_way = kind == 'street' and rng.random() < 0.15
    parking = {'street': 0.75, 'suburb': 0.5, 'arterial': 0.15}[kind]
    length = 440.0
    strength = {'street': 0.0015, 'suburb': 0.003, 'arterial': 0.001}[kind]
    pavement = rng.uniform(2.0, 4.5)
    main = _road(rng, 0.0, _bend(rng, length, strength), (int(n), 0 if one_way else int(n)),
                 lane_m, (rng.random() < parking, rng.random() < parking), pavement)
    roads, junctions = [main], []
    at = rng.uniform(90, 190)
    while at < length - 90 and len(junctions) < 3 and rng.random() < 0.88:
        i = int(at)
        angle = main.heading[i] + np.pi / 2 + rng.normal(0, 0.12)
        n_cross = int(rng.choice([1, 1, 1, 2]))
        cross = _road(rng, angle, _bend(rng, 360.0, 0.0012), (n_cross, n_cross),
                      rng.uniform(3.0, 3.5),
                      (rng.random() < parking, rng.random() < parking),
                      rng.uniform(2.0, 4.0), main.centre[i])
        corner = rng.uniform(3.0, 5.0)
        box = (max(cross.half_m(0), cross.half_m(1)) + corner,
               max(main.half_m(0), main.half_m(1)) + corner)
        control, radius = str(rng.choice(['signal', 'priority', 'priority', 'all_way'])), 0.0
        if main.lanes == (1, 1) and n_cross == 1 and rng.random() < 0.35:
            control, radius = 'roundabout', rng.uniform(9.0, 14.0)
            box = (radius + 5.0, radius + 5.0)
        junctions.append(Junction(
            main.centre[i], float(main.heading[i]), float(angle), box, control,
            rng.uniform(24, 44), rng.uniform(0, 40), rng.uniform(0.45, 0.65), radius))
        roads.append(cross)
        at += rng.uniform(80, 160)
    layout = Layout(str(kind), roads, junctions, paths_through(roads, junctions))
    _areas(layout, rng)
    _raster(layout)
    furnish(layout, rng)
    return layout


def _rural(rng: np.random.Generator) -> Layout:
    lane_m, verge, length = rng.uniform(2.5, 3.1), rng.uniform(0.3, 1.2), 440.0
    main = _road(rng, 0.0, _bend(rng, length, 0.007), (1, 1), lane_m, (False, False), 0.0)
    roads, junctions = [main], []
    if rng.random() < 0.5:
        i = int(rng.uniform(110, 330))
        angle = float(main.heading[i] + np.pi / 2 + rng.normal(0, 0.2))
        roads.append(_road(rng, angle, _bend(rng, 360.0, 0.004), (1, 1), rng.uniform(2.3, 2.8),
                           (False, False), 0.0, main.centre[i]))
        junctions.append(Junction(
            main.centre[i], float(main.heading[i]), angle, (roads[1].half_m(0) + 4.0,
                                                            main.half_m(0) + 4.0),
            'priority', 30.0, 0.0, 0.5))
    layout = Layout('rural', roads, junctions, paths_through(roads, junctions))
    if junctions:
        layout.junction_polygons.append(_octagon(junctions[0], main, roads[1]))
    for road in roads:
        for side, sign in ((0, -1), (1, 1)):
            layout.pavements.append(road.offset(sign * (road.half_m(side) + verge)))
    _raster(layout)
    furnish(layout, rng)
    return layout


def _octagon(junction: Junction, main: Road, cross: Road) -> np.ndarray:
    """Return the asphalt where two roads meet; its corners are cut off."""
    um = np.array([np.cos(junction.main_heading), np.sin(junction.main_heading)])
    uc = np.array([np.cos(junction.cross_heading), np.sin(junction.cross_heading)])
    a0, a1 = cross.half_m(0), cross.half_m(1)
    b0, b1 = main.half_m(0), main.half_m(1)
    ca, cb = junction.box[0] - max(a0, a1), junction.box[1] - max(b0, b1)
    shape = [(a0 + ca, -b0), (a0 + ca, b1), (a0, b1 + cb), (-a1, b1 + cb),
             (-a1 - ca, b1), (-a1 - ca, -b0), (-a1, -b0 - cb), (a0, -b0 - cb)]
    return np.array([junction.xy + u * um + v * uc for u, v in shape])


def _areas(layout: Layout, rng: np.random.Generator) -> None:
    """Add junction polygons, crossings, pavement lines and a car park."""
    for j, junction in enumerate(layout.junctions):
        um = np.array([np.cos(junction.main_heading), np.sin(junction.main_heading)])
        uc = np.array([np.cos(junction.cross_heading), np.sin(junction.cross_heading)])
        main, cross = layout.roads[0], layout.roads[j + 1]
        a0, a1 = cross.half_m(0), cross.half_m(1)
        b0, b1 = main.half_m(0), main.half_m(1)
        if junction.radius_m:
            layout.junction_polygons += roundabout.areas(junction, main, cross)
            layout.islands.append((junction.xy, junction.radius_m - roundabout.INNER_M))
        else:
            layout.junction_polygons.append(_octagon(junction, main, cross))
        back = 6.5 if junction.radius_m else 1.2      # a car's length before the circle
        if junction.control == 'signal' or rng.random() < 0.5:
            for sign in (-1, 1):
                if rng.random() < 0.8:
                    centre = junction.xy + um * sign * (junction.box[0] + back)
                    layout.crossings.append((centre, junction.cross_heading, b0 + b1))
                if rng.random() < 0.8:
                    centre = junction.xy + uc * sign * (junction.box[1] + back)
                    layout.crossings.append((centre, junction.main_heading, a0 + a1))
    main = layout.roads[0]
    for _ in range(rng.integers(0, 3)):
        i = int(rng.uniform(80, 360))
        if all(np.hypot(*(main.centre[i] - j.xy)) > j.box[0] + 14 for j in layout.junctions):
            layout.crossings.append((main.centre[i], float(main.heading[i] + np.pi / 2),
                                     main.half_m(0) + main.half_m(1)))
    for road in layout.roads:
        for side, sign in ((0, -1), (1, 1)):
            for share in (0.3, 0.7):
                room = share * road.pavement_m
                line = road.offset(sign * (road.half_m(side) + room))
                for junction in layout.junctions:
                    if junction.radius_m:
                        line = roundabout.walk_round(junction, line, room)
                layout.pavements.append(line)
    if rng.random() < 0.55:
        side = int(rng.integers(2))
        sign = 1 if side else -1
        i = int(rng.uniform(120, 300))
        h = float(main.heading[i])
        u, v = np.array([np.cos(h), np.sin(h)]), np.array([-np.sin(h), np.cos(h)])
        near = main.half_m(side) + main.pavement_m + rng.uniform(0.5, 3)
        length = rng.uniform(28, 60)
        rows = int(rng.integers(1, 4))
        depth = {1: 11.5, 2: 17.0, 3: 28.5}[rows]
        base = main.centre[i]
        clear = all(abs((j.xy - base) @ u) > length / 2 + j.box[0] + 4 for j in layout.junctions)
        if clear:
            def at(a, b):
                return base + a * u + sign * (near + b) * v
            layout.car_parks.append(np.array([
                at(-length / 2, 0), at(length / 2, 0), at(length / 2, depth),
                at(-length / 2, depth)]))
            layout.car_parks.append(np.array([       # its drive
                at(-3.5, main.half_m(side) - near), at(3.5, main.half_m(side) - near),
                at(3.5, 0), at(-3.5, 0)]))
            for b in (8.8, 2.8, 20.0)[:rows]:
                for a in np.arange(-length / 2 + 2, length / 2 - 1.5, 2.6):
                    if b == 2.8 and abs(a) < 5:
                        continue
                    layout.slots.append((*at(a, b), h + sign * np.pi / 2, float(b)))


def _raster(layout: Layout) -> None:
    every = np.concatenate([road.centre for road in layout.roads])
    low, high = every.min(0) - 40, every.max(0) + 40
    layout.origin = low
    cols, rows = np.ceil((high - low) / RASTER_M).astype(int)
    walk = np.zeros((rows, cols), np.uint8)
    drive = np.zeros((rows, cols), np.uint8)
    cross = np.zeros((rows, cols), np.uint8)
    for road in layout.roads:
        fill(walk, layout, strip(road, -road.half_m(0) - road.pavement_m,
                                  road.half_m(1) + road.pavement_m), WALKWAY)
    for junction in layout.junctions:
        if junction.radius_m:
            room = roundabout.OUTER_M + layout.roads[0].pavement_m
            fill(walk, layout, roundabout.circle(junction.xy, junction.radius_m + room), WALKWAY)
    for polygon in layout.car_parks:
        fill(drive, layout, polygon, DRIVABLE)
    for road in layout.roads:
        fill(drive, layout, strip(road, -road.half_m(0), road.half_m(1)), DRIVABLE)
    for polygon in layout.junction_polygons:
        fill(drive, layout, polygon, DRIVABLE)
    for centre, heading, length in layout.crossings:
        u = np.array([np.cos(heading), np.sin(heading)])
        v = np.array([-u[1], u[0]])
        fill(cross, layout, np.array([centre + a * u * length / 2 + b * v * 1.6
                                       for a, b in ((1, 1), (-1, 1), (-1, -1), (1, -1))]),
              WALKWAY)
    walk[drive > 0] = 0
    for xy, radius in layout.islands:
        for mask in (walk, drive):
            fill(mask, layout, roundabout.circle(xy, radius), 0)
    layout.classes = walk | drive | np.where(drive > 0, cross, 0).astype(np.uint8)
    layout.heights = np.zeros((rows, cols), np.uint8)
