"""
Random road layouts: roads, junctions, the paths through them, and what stands beside.

Everything lies in the layout's own plane (metres). The main road starts at the origin and heads
along +x; up to three roads cross it. Traffic keeps right.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np

DRIVABLE, WALKWAY, STATIC = 1, 2, 4          # bits of the class raster
(BUILDING, TREE, POLE, WALL, HEDGE, SIGN, SIGNAL, BOLLARD, SHELTER, BIN, BUSH, LAMP,
 FENCE) = range(13)
RASTER_M = 0.25                              # cell of the class and height rasters
PARKING_M = 2.2
PATH_STEP_M = 1.0


@dataclass(frozen=True)
class Road:
    """A road along `centre` (n, 2); lanes to the right go with it, lanes to the left against."""

    centre: np.ndarray
    heading: np.ndarray
    lanes: tuple[int, int]          # right, left
    lane_m: float
    parking: tuple[bool, bool]      # right, left
    pavement_m: float

    def half_m(self, side: int) -> float:
        """Return the distance from the centre line to the kerb; side 0 right, 1 left."""
        return self.lanes[side] * self.lane_m + (PARKING_M if self.parking[side] else 0.0) + 0.2

    def offset(self, d: float) -> np.ndarray:
        """Return the line at lateral offset `d` (left positive), (n, 2)."""
        normal = np.stack([-np.sin(self.heading), np.cos(self.heading)], -1)
        return self.centre + d * normal


@dataclass(frozen=True)
class Junction:
    """Two roads crossing: `control` is 'signal', 'priority' (main road) or 'all_way'."""

    xy: np.ndarray
    main_heading: float
    cross_heading: float
    box: tuple[float, float]        # half extents along the main road and along the cross road
    control: str
    cycle_s: float
    offset_s: float
    main_share: float


@dataclass
class Paths:
    """All lines that a vehicle may drive, padded to one length; index by path number."""

    points: np.ndarray              # (R, L, 2)
    heading: np.ndarray             # (R, L) unwrapped
    length: np.ndarray              # (R,)
    limit: np.ndarray               # (R, L) speed that curves allow
    event_line: np.ndarray          # (R, E) arc length of the stop line, inf where none
    event_exit: np.ndarray          # (R, E)
    event_junction: np.ndarray      # (R, E)
    event_main: np.ndarray          # (R, E) approached on the main road
    event_turn: np.ndarray          # (R, E) 0 straight, 1 left, 2 right
    lane: np.ndarray                # (R,) the through path that this one starts on
    left: np.ndarray                # (R,) neighbouring through path or -1
    right: np.ndarray
    road: np.ndarray                # (R,) road that it starts on
    kerb_m: np.ndarray              # (R,) offset from the line to parked cars, 0 where none
    conflict: list                  # per junction: (R, R) bool


@dataclass
class Layout:
    """A whole place. Polygons and lines are in layout metres."""

    kind: str
    roads: list
    junctions: list
    paths: Paths
    car_parks: list = field(default_factory=list)        # corner polygons (4, 2)
    slots: list = field(default_factory=list)            # (x, y, yaw) of car park bays
    crossings: list = field(default_factory=list)        # (centre xy, heading along walk, length)
    pavements: list = field(default_factory=list)        # lines to walk on (n, 2)
    junction_polygons: list = field(default_factory=list)
    statics: np.ndarray = None                           # (S, 7) x, y, yaw, l, w, h, kind
    origin: np.ndarray = None                            # layout xy of raster cell (0, 0)
    classes: np.ndarray = None                           # (rows, cols) uint8 bits
    heights: np.ndarray = None                           # (rows, cols) uint8, 0.25 m units


def resample(line: np.ndarray, step: float) -> np.ndarray:
    """Return the line with a point every `step` metres of arc."""
    seg = np.hypot(*np.diff(line, axis=0).T)
    s = np.concatenate([[0.0], np.cumsum(seg)])
    t = np.arange(0.0, s[-1], step)
    return np.stack([np.interp(t, s, line[:, 0]), np.interp(t, s, line[:, 1])], -1)


def headings(line: np.ndarray) -> np.ndarray:
    d = np.gradient(line, axis=0)
    return np.unwrap(np.arctan2(d[:, 1], d[:, 0]))


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


def _inside(junction: Junction, points: np.ndarray) -> np.ndarray:
    d = points - junction.xy
    um = np.array([np.cos(junction.main_heading), np.sin(junction.main_heading)])
    uc = np.array([np.cos(junction.cross_heading), np.sin(junction.cross_heading)])
    coords = d @ np.linalg.inv(np.stack([um, uc], 0))
    return (np.abs(coords[..., 0]) < junction.box[0]) & (np.abs(coords[..., 1]) < junction.box[1])


def _bezier(p0, h0, p1, h1):
    reach = 0.45 * np.hypot(*(p1 - p0))
    a = p0 + reach * np.array([np.cos(h0), np.sin(h0)])
    b = p1 - reach * np.array([np.cos(h1), np.sin(h1)])
    t = np.linspace(0, 1, 24)[:, None]
    return (1 - t)**3 * p0 + 3 * (1 - t)**2 * t * a + 3 * (1 - t) * t * t * b + t**3 * p1


def _paths(roads: list, junctions: list) -> Paths:
    lines, lane_of, road_of, kerb, left, right = [], [], [], [], [], []
    lanes: dict = {}
    for r, road in enumerate(roads):
        for side in (0, 1):
            for k in range(road.lanes[side]):
                d = (k + 0.5) * road.lane_m * (-1 if side == 0 else 1)
                line = road.offset(d)
                lanes[r, side, k] = len(lines)
                lines.append(resample(line if side == 0 else line[::-1], PATH_STEP_M))
                lane_of.append(len(lines) - 1)
                road_of.append(r)
                outer = k == road.lanes[side] - 1 and road.parking[side]
                kerb.append(-(0.5 * road.lane_m + 0.55 * PARKING_M) if outer else 0.0)
    for (r, side, k) in lanes:
        left.append(lanes.get((r, side, k - 1), -1))
        right.append(lanes.get((r, side, k + 1), -1))
    # Turns: from the outermost lane to the right, from the innermost to the left.
    for j, junction in enumerate(junctions):
        cross = j + 1
        for source, target in ((0, cross), (cross, 0)):
            for side in (0, 1):
                for target_side in (0, 1):
                    n_in, n_out = roads[source].lanes[side], roads[target].lanes[target_side]
                    if not n_in or not n_out:
                        continue
                    probe_in, probe_out = lanes[source, side, 0], lanes[target, target_side, 0]
                    inside_in = np.flatnonzero(_inside(junction, lines[probe_in]))
                    inside_out = np.flatnonzero(_inside(junction, lines[probe_out]))
                    if not len(inside_in) or not len(inside_out):
                        continue
                    turn = np.angle(np.exp(1j * (
                        headings(lines[probe_out])[inside_out[-1]]
                        - headings(lines[probe_in])[inside_in[0]])))
                    a = lines[lanes[source, side, n_in - 1 if turn < 0 else 0]]
                    b = lines[lanes[target, target_side, n_out - 1 if turn < 0 else 0]]
                    ia = np.flatnonzero(_inside(junction, a))[0]
                    ib = np.flatnonzero(_inside(junction, b))[-1]
                    curve = _bezier(a[ia], headings(a)[ia], b[ib], headings(b)[ib])
                    line = resample(np.concatenate([a[:ia], curve, b[ib + 1:]]), PATH_STEP_M)
                    lane_of.append(lanes[source, side, n_in - 1 if turn < 0 else 0])
                    lines.append(line)
                    road_of.append(source)
                    kerb.append(kerb[lane_of[-1]])
                    left.append(-1)
                    right.append(-1)
    count, longest = len(lines), max(map(len, lines))
    points = np.zeros((count, longest, 2), np.float32)
    heading = np.zeros((count, longest), np.float32)
    limit = np.full((count, longest), 40.0, np.float32)
    shape = (count, 4)
    event = dict(line=np.full(shape, np.inf), exit=np.full(shape, np.inf),
                 junction=np.full(shape, -1), main=np.zeros(shape, bool),
                 turn=np.zeros(shape, int))
    for i, line in enumerate(lines):
        n = len(line)
        h = headings(line)
        points[i, :n], points[i, n:] = line, line[-1]
        heading[i, :n], heading[i, n:] = h, h[-1]
        bend = np.abs(np.gradient(np.convolve(np.pad(h, 2, 'edge'), np.ones(5) / 5, 'valid')))
        v = np.sqrt(2.2 / np.maximum(bend, 1e-3))
        for k in range(n - 2, -1, -1):            # brake in time at 1.6 m/s^2
            reach = (v[k + 1]**2 + 3.2)**0.5
            if v[k] > reach:
                v[k] = reach
        limit[i, :n] = v
        found = []
        for j, junction in enumerate(junctions):
            inside = np.flatnonzero(_inside(junction, line))
            if len(inside):
                found.append((inside[0] - 1.0, inside[-1] + 1.0, j))
        for e, (enter, leave, j) in enumerate(sorted(found)[:4]):
            a, b = int(max(enter, 0)), int(min(leave, n - 1))
            turn = h[b] - h[a]
            main = np.abs(np.cos(h[a] - junctions[j].main_heading)) > np.abs(
                np.cos(h[a] - junctions[j].cross_heading))
            event['line'][i, e], event['exit'][i, e] = enter, leave
            event['junction'][i, e], event['main'][i, e] = j, main
            event['turn'][i, e] = 0 if abs(turn) < 0.6 else (1 if turn > 0 else 2)
    conflict = []
    for j in range(len(junctions)):
        inside = []
        for i in range(count):
            e = np.flatnonzero(event['junction'][i] == j)
            if len(e):
                a, b = int(max(event['line'][i, e[0]], 0)), int(event['exit'][i, e[0]])
                inside.append(points[i, a:b + 1:2])
            else:
                inside.append(None)
        table = np.zeros((count, count), bool)
        for a in range(count):
            for b in range(a):
                if inside[a] is None or inside[b] is None or lane_of[a] == lane_of[b]:
                    continue
                gap = inside[a][:, None] - inside[b][None]
                table[a, b] = table[b, a] = (gap**2).sum(-1).min() < 2.3**2
        conflict.append(table)
    return Paths(points, heading, np.array([len(x) for x in lines], float), limit,
                 event['line'], event['exit'], event['junction'], event['main'], event['turn'],
                 np.array(lane_of), np.array(left), np.array(right), np.array(road_of),
                 np.array(kerb), conflict)


def make_layout(rng: np.random.Generator) -> Layout:
    """Return a random place: 'street', 'suburb' or 'arterial'."""
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
        junctions.append(Junction(
            main.centre[i], float(main.heading[i]), float(angle),
            (max(cross.half_m(0), cross.half_m(1)) + corner,
             max(main.half_m(0), main.half_m(1)) + corner),
            str(rng.choice(['signal', 'priority', 'priority', 'all_way'])),
            rng.uniform(24, 44), rng.uniform(0, 40), rng.uniform(0.45, 0.65)))
        roads.append(cross)
        at += rng.uniform(80, 160)
    layout = Layout(str(kind), roads, junctions, _paths(roads, junctions))
    _areas(layout, rng)
    _raster(layout)
    _furniture(layout, rng)
    return layout


def _areas(layout: Layout, rng: np.random.Generator) -> None:
    """Add junction polygons, crossings, pavement lines and a car park."""
    for j, junction in enumerate(layout.junctions):
        um = np.array([np.cos(junction.main_heading), np.sin(junction.main_heading)])
        uc = np.array([np.cos(junction.cross_heading), np.sin(junction.cross_heading)])
        main, cross = layout.roads[0], layout.roads[j + 1]
        a0, a1 = cross.half_m(0), cross.half_m(1)
        b0, b1 = main.half_m(0), main.half_m(1)
        ca, cb = junction.box[0] - max(a0, a1), junction.box[1] - max(b0, b1)
        # Kerbs cut off the corners: an octagon.
        shape = [(a0 + ca, -b0), (a0 + ca, b1), (a0, b1 + cb), (-a1, b1 + cb),
                 (-a1 - ca, b1), (-a1 - ca, -b0), (-a1, -b0 - cb), (a0, -b0 - cb)]
        layout.junction_polygons.append(
            np.array([junction.xy + u * um + v * uc for u, v in shape]))
        if junction.control == 'signal' or rng.random() < 0.5:
            for sign in (-1, 1):
                if rng.random() < 0.8:
                    centre = junction.xy + um * sign * (junction.box[0] + 1.2)
                    layout.crossings.append((centre, junction.cross_heading, b0 + b1))
                if rng.random() < 0.8:
                    centre = junction.xy + uc * sign * (junction.box[1] + 1.2)
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
                layout.pavements.append(
                    road.offset(sign * (road.half_m(side) + share * road.pavement_m)))
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


def to_cells(layout: Layout, points: np.ndarray) -> np.ndarray:
    """Return raster (col, row) of layout points as float."""
    return (points - layout.origin) / RASTER_M - 0.5


def _fill(mask: np.ndarray, layout: Layout, polygon: np.ndarray, value: int) -> None:
    cells = np.round(to_cells(layout, polygon) * 16).astype(np.int32)
    cv2.fillPoly(mask, [cells], value, shift=4)


def strip(road: Road, inner: float, outer: float) -> np.ndarray:
    """Return the polygon between two lateral offsets of a road."""
    return np.concatenate([road.offset(inner), road.offset(outer)[::-1]])


def _raster(layout: Layout) -> None:
    every = np.concatenate([road.centre for road in layout.roads])
    low, high = every.min(0) - 40, every.max(0) + 40
    layout.origin = low
    cols, rows = np.ceil((high - low) / RASTER_M).astype(int)
    walk = np.zeros((rows, cols), np.uint8)
    drive = np.zeros((rows, cols), np.uint8)
    cross = np.zeros((rows, cols), np.uint8)
    for road in layout.roads:
        _fill(walk, layout, strip(road, -road.half_m(0) - road.pavement_m,
                                  road.half_m(1) + road.pavement_m), WALKWAY)
    for polygon in layout.car_parks:
        _fill(drive, layout, polygon, DRIVABLE)
    for road in layout.roads:
        _fill(drive, layout, strip(road, -road.half_m(0), road.half_m(1)), DRIVABLE)
    for polygon in layout.junction_polygons:
        _fill(drive, layout, polygon, DRIVABLE)
    for centre, heading, length in layout.crossings:
        u = np.array([np.cos(heading), np.sin(heading)])
        v = np.array([-u[1], u[0]])
        _fill(cross, layout, np.array([centre + a * u * length / 2 + b * v * 1.6
                                       for a, b in ((1, 1), (-1, 1), (-1, -1), (1, -1))]),
              WALKWAY)
    walk[drive > 0] = 0
    layout.classes = walk | drive | np.where(drive > 0, cross, 0).astype(np.uint8)
    layout.heights = np.zeros((rows, cols), np.uint8)


def _classes_at(layout: Layout, points: np.ndarray) -> np.ndarray:
    cells = np.round(to_cells(layout, points)).astype(int)
    rows, cols = layout.classes.shape
    return layout.classes[np.clip(cells[..., 1], 0, rows - 1), np.clip(cells[..., 0], 0, cols - 1)]


def _furniture(layout: Layout, rng: np.random.Generator) -> None:
    """Place buildings, trees, poles and so on; draw them into the rasters."""
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
                    if not np.any(_classes_at(layout, probe)):
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
            for _ in range(rng.integers(6, 26)):
                i = int(rng.uniform(0, n - 1))
                what = rng.choice([POLE, SIGN, BOLLARD, BIN, BUSH, SHELTER, SIGN, BOLLARD],)
                p, h = place(i, road.half_m(side) + rng.uniform(0.35, 0.9))
                size = {POLE: (.12, .12, 4.), SIGN: (.1, .1, 2.6), BOLLARD: (.16, .16, .9),
                        BIN: (.6, .6, 1.1), BUSH: (1., .8, 1.), SHELTER: (3.5, 1.2, 2.5)}[what]
                if what == SHELTER:
                    p, h = place(i, road.half_m(side) + road.pavement_m - 0.7)
                statics.append((*p, h, *size, what))
                if what == BOLLARD:
                    for k in range(1, int(rng.integers(2, 7))):
                        q, h = place(int(min(i + 2 * k, n - 1)), road.half_m(side) + 0.4)
                        statics.append((*q, h, *size, what))
    kept = []
    for item in statics:
        # Poles of one road must not stand on another.
        bits = _classes_at(layout, np.array(item[:2]))
        if item[6] in (BUILDING,) or not bits & DRIVABLE:
            half = np.array([np.cos(item[2]), np.sin(item[2])]) * item[3] / 2
            ends = _classes_at(layout, np.array([item[:2] + half, item[:2] - half]))
            if not np.any(ends & DRIVABLE):
                kept.append(item)
    for junction in layout.junctions:
        if junction.control == 'signal':
            um = np.array([np.cos(junction.main_heading), np.sin(junction.main_heading)])
            uc = np.array([np.cos(junction.cross_heading), np.sin(junction.cross_heading)])
            for a in (-1, 1):
                for b in (-1, 1):
                    xy = junction.xy + um * a * (junction.box[0] - 0.6) \
                        + uc * b * (junction.box[1] - 0.6)
                    if _classes_at(layout, xy) & WALKWAY:
                        kept.append((*xy, junction.main_heading, .15, .15, 3.4, SIGNAL))
    table = np.array(kept, np.float64).reshape(-1, 7)
    layout.statics = table
    mask = np.zeros_like(layout.heights)
    for x, y, yaw, length, width, height, _ in table[np.argsort(table[:, 5])]:
        u = np.array([np.cos(yaw), np.sin(yaw)]) * max(length, 0.3) / 2
        v = np.array([-np.sin(yaw), np.cos(yaw)]) * max(width, 0.3) / 2
        corners = np.array([x, y]) + np.array([u + v, v - u, -u - v, u - v])
        _fill(mask, layout, corners, STATIC)
        _fill(layout.heights, layout, corners, int(np.clip(height / RASTER_M, 1, 255)))
    layout.classes |= mask
