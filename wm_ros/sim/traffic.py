"""
Traffic: who is on the road and how they move, at 10 Hz, vectorised over agents.

Cars follow by the Intelligent Driver Model (Treiber et al. 2000), yield at junctions, change
lanes, stop, start and leave parking places; pedestrians walk, wait and cross. Agent 0 is the ego
vehicle, which drives by the same rules.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from wm_ros.sim.layout import Layout
from wm_ros.types import AGENT_CLASSES

STEP_S = 0.1
(CAR, VAN, TRUCK, BUS, MOTORCYCLE, BICYCLE, PEDESTRIAN, ANIMAL) = range(len(AGENT_CLASSES))
#: Reference point (rear axle) to box centre, as a share of the length.
AXLE_SHARE = 0.28


@dataclass(frozen=True)
class World:
    """How a world is populated. Rates are probabilities or means unless a unit is given."""

    gap_m: tuple[float, float] = (16.0, 48.0)     # between moving vehicles of a lane
    parked: tuple[float, float] = (0.3, 0.92)     # share of parking places taken
    car_park: tuple[float, float] = (0.3, 0.9)
    pull_out: float = 0.03                        # of parked vehicles at the kerb
    stop_in_lane: float = 0.08                    # of moving vehicles that stop for a while
    lane_change: float = 0.15                     # of moving vehicles that may
    turn: float = 0.4
    walkers: tuple[int, int] = (4, 26)
    standing: tuple[int, int] = (2, 12)           # groups who stand about
    crossers: tuple[int, int] = (0, 5)
    pause: float = 0.15                           # of walkers who stop on their way
    turn_back: float = 0.03                       # of walkers who turn round
    step_out: float = 0.05                        # of walkers who step onto the road
    cyclists: tuple[int, int] = (0, 6)
    speed_spread: float = 0.18
    brake_hard: float = 0.02
    ego_stop: float = 0.1
    start_stopped: float = 0.18                   # of moving vehicles, from standstill
    speed_change: float = 0.3                     # of moving vehicles that change their mind


WORLDS = {
    'sim': World(),
    'sim-hard': World(
        gap_m=(16.0, 46.0), parked=(0.0, 0.12), car_park=(0.0, 0.1), pull_out=0.2,
        stop_in_lane=0.14, lane_change=0.5, turn=0.75, walkers=(1, 9), standing=(0, 1),
        crossers=(6, 18), pause=0.8, turn_back=0.4,
        step_out=0.5, cyclists=(2, 9), speed_spread=0.25, brake_hard=0.2,
        ego_stop=0.2, start_stopped=0.25, speed_change=0.9),
}

_SIZES = {  # length, width, height: mean and relative spread
    CAR: ((4.4, 1.82, 1.52), 0.07), VAN: ((5.3, 2.0, 2.2), 0.08), TRUCK: ((8.0, 2.45, 3.3), 0.14),
    BUS: ((11.8, 2.55, 3.1), 0.05), MOTORCYCLE: ((2.1, 0.8, 1.5), 0.06),
    BICYCLE: ((1.75, 0.62, 1.75), 0.05), PEDESTRIAN: ((0.55, 0.6, 1.72), 0.08),
    ANIMAL: ((0.9, 0.35, 0.65), 0.2)}


def sample_size(rng: np.random.Generator, kind: int) -> np.ndarray:
    mean, spread = _SIZES[kind]
    common = rng.normal(0, spread)
    return np.array(mean) * np.clip(1 + 0.7 * common + 0.5 * rng.normal(0, spread, 3), 0.72, 1.35)


@dataclass
class Recording:
    """What happened: box centre poses (T, A, 3) every `STEP_S`, and what each agent is."""

    poses: np.ndarray
    classes: np.ndarray
    sizes: np.ndarray
    braking: np.ndarray       # (T, A) brake lights
    indicator: np.ndarray     # (T, A) int8, 1 left, -1 right
    green_main: np.ndarray    # (T, J) signal state: 1 main road green, -1 cross road, 0 neither
    axle: np.ndarray          # (T, 4) ego x, y, yaw of the rear axle and speed


def signal_state(junction, t: float) -> int:
    """Return 1 when the main road has green, -1 when the cross road has, 0 in between."""
    phase = ((t + junction.offset_s) % junction.cycle_s) / junction.cycle_s
    clear = 3.0 / junction.cycle_s
    if phase < junction.main_share - clear:
        return 1
    if phase < junction.main_share:
        return 0
    return -1 if phase < 1 - clear else 0


class Vehicles:
    """Vehicles on paths; arrays of equal length, ego first."""

    FIELDS = ('path', 's', 'v', 'want', 'lat', 'lat0', 'lat1', 's_lat', 'd_lat', 'headway',
              'accel', 'kind', 'stop_s', 'stop_left', 'start_t', 'change_t', 'change_want')

    def __init__(self) -> None:
        self.rows: list = []
        self.sizes: list = []

    def add(self, size, **values) -> int:
        row = dict(lat=0.0, lat0=0.0, lat1=0.0, s_lat=0.0, d_lat=1.0, headway=1.4, accel=1.6,
                   stop_s=np.inf, stop_left=0.0, start_t=0.0, change_t=np.inf, change_want=0.0)
        row.update(values)
        self.rows.append([row[name] for name in self.FIELDS])
        self.sizes.append(size)
        return len(self.rows) - 1

    def freeze(self) -> None:
        table = np.array(self.rows, float)
        for i, name in enumerate(self.FIELDS):
            setattr(self, name, table[:, i].copy())
        self.path = self.path.astype(int)
        self.kind = self.kind.astype(int)
        self.size = np.array(self.sizes)


def _vehicle_kind(rng) -> int:
    return int(rng.choice([CAR, VAN, TRUCK, BUS, MOTORCYCLE], p=[.74, .11, .07, .03, .05]))


class Simulation:
    """One drive: populate, then `run`."""

    def __init__(self, layout: Layout, world: World, rng: np.random.Generator,
                 total_s: float) -> None:
        self.layout, self.world, self.rng, self.total_s = layout, world, rng, total_s
        self.vehicles = Vehicles()
        self.fixed: list = []        # pose, kind, size
        self.paths = layout.paths
        self._ego()
        self._stream()
        self._kerb()
        self._car_park()
        self.vehicles.freeze()
        self._people()

    # ---- population -----------------------------------------------------------------------
    def _ego(self) -> None:
        rng, paths = self.rng, self.paths
        through = [i for i in range(len(paths.length)) if paths.lane[i] == i]
        turns = [i for i in range(len(paths.length)) if paths.lane[i] != i]
        main = [i for i in through if paths.road[i] == 0]
        speed = {'street': (6.5, 12.5), 'suburb': (6.5, 12.0), 'arterial': (9.0, 17.0)}
        self.speed_range = speed[self.layout.kind]
        want = rng.uniform(*self.speed_range)
        if turns and rng.random() < 0.35:
            path = int(rng.choice(turns))
            s = paths.event_line[path, 0] - want * rng.uniform(2, 12)
            # Where the path turns last is the event of interest.
            e = np.flatnonzero(paths.event_turn[path] > 0)
            if len(e):
                s = paths.event_line[path, e[0]] - want * rng.uniform(3, 12)
            s = max(s, 20.0)
        else:
            path = int(rng.choice(main if rng.random() < 0.7 else through))
            s = rng.uniform(0.12, 0.45) * paths.length[path]
        size = np.array([4.6, 1.9, 1.6])
        values = dict(path=path, s=s, v=want * rng.uniform(0.5, 1.0), want=want, kind=CAR)
        if rng.random() < self.world.ego_stop:
            values.update(stop_s=s + rng.uniform(15, 80), stop_left=rng.uniform(2, 8))
        if rng.random() < self.world.start_stopped * 0.3:
            values.update(v=0.0, start_t=rng.uniform(0, 9))
        self.vehicles.add(size, **values)

    def _free(self, path: int, s: float, half: float = 10.0) -> bool:
        lines, exits = self.paths.event_line[path], self.paths.event_exit[path]
        return not np.any((s > lines - half) & (s < exits + half))

    def _behaviour(self, values: dict) -> dict:
        rng, world = self.rng, self.world
        if rng.random() < world.stop_in_lane:
            values.update(stop_s=values['s'] + rng.uniform(10, 90), stop_left=rng.uniform(2, 10))
        if rng.random() < world.start_stopped:
            values.update(v=0.0, start_t=rng.uniform(2, 14))
        if rng.random() < world.speed_change:
            values.update(change_t=rng.uniform(3, self.total_s),
                          change_want=values['want'] * rng.choice([0.3, 0.6, 1.4]))
        if rng.random() < world.brake_hard:
            values.update(change_t=rng.uniform(3, self.total_s), change_want=0.0)
        return values

    def _stream(self) -> None:
        rng, paths, world = self.rng, self.paths, self.world
        ego = self.vehicles.rows[0]
        ego_lane, ego_s = paths.lane[int(ego[0])], ego[1]
        turns_of: dict = {}
        for i, lane in enumerate(paths.lane):
            if lane != i:
                turns_of.setdefault(int(lane), []).append(i)
        gap = rng.uniform(*world.gap_m) * rng.choice([0.6, 1.0, 2.0], p=[.3, .4, .3])
        for lane in np.flatnonzero(paths.lane == np.arange(len(paths.lane))):
            quiet = 1.0 if paths.road[lane] == 0 else 2.0
            s = -60.0 + rng.uniform(0, gap)
            while s < paths.length[lane] - 5:
                if (lane != ego_lane or abs(s - ego_s) > 14) and self._free(lane, s):
                    kind = _vehicle_kind(rng)
                    path = int(lane)
                    if lane in turns_of and rng.random() < world.turn:
                        options = [p for p in turns_of[lane] if s < paths.event_line[
                            p, np.argmax(paths.event_turn[p] > 0)] - 12]
                        if options:
                            path = int(rng.choice(options))
                    want = rng.uniform(*self.speed_range) * (1 + rng.normal(0, world.speed_spread))
                    values = dict(path=path, s=s, v=want * rng.uniform(0.7, 1.0), want=want,
                                  kind=kind, headway=rng.uniform(1.0, 1.9),
                                  accel=rng.uniform(1.1, 2.2) * (0.7 if kind in (TRUCK, BUS)
                                                                 else 1.0),
                                  lat0=rng.normal(0, 0.15))
                    values['lat'] = values['lat1'] = values['lat0']
                    self.vehicles.add(sample_size(rng, kind), **self._behaviour(values))
                s += 9 + rng.exponential(gap * quiet)
        through = np.flatnonzero(paths.lane == np.arange(len(paths.lane)))
        outer = [i for i in through if paths.right[i] < 0]
        for _ in range(rng.integers(*world.cyclists, endpoint=True)):
            path = int(rng.choice(outer))
            s = rng.uniform(0.1, 0.8) * paths.length[path]
            if path == ego_lane and abs(s - ego_s) < 14:
                continue
            lat = -rng.uniform(0.7, 1.2)
            want = rng.uniform(3.2, 6.5)
            self.vehicles.add(sample_size(rng, BICYCLE), **self._behaviour(dict(
                path=path, s=s, v=want, want=want, kind=BICYCLE, lat=lat, lat0=lat, lat1=lat,
                accel=0.9)))

    def _kerb(self) -> None:
        rng, paths, world = self.rng, self.paths, self.world
        for lane in np.flatnonzero((paths.lane == np.arange(len(paths.lane)))
                                   & (paths.kerb_m != 0)):
            share = rng.uniform(*world.parked)
            s = 5.0
            while s < paths.length[lane] - 8:
                kind = int(rng.choice([CAR, VAN, TRUCK, MOTORCYCLE], p=[.84, .1, .02, .04]))
                size = sample_size(rng, kind)
                s += size[0] / 2
                i = int(s)
                point = paths.points[lane, i]
                crossing = any(np.hypot(*(c - point)) < length / 2 + 4.5
                               for c, _, length in self.layout.crossings)
                if rng.random() < share and self._free(lane, s, 9.0) and not crossing:
                    lat = paths.kerb_m[lane] + rng.normal(0, 0.1)
                    if rng.random() < world.pull_out and kind in (CAR, VAN):
                        want = rng.uniform(*self.speed_range)
                        s_ref = s - AXLE_SHARE * size[0]
                        self.vehicles.add(
                            size, path=int(lane), s=s_ref, v=0.0, want=want, kind=kind, lat=lat,
                            lat0=lat, lat1=0.0, s_lat=s_ref, d_lat=rng.uniform(11, 16),
                            start_t=rng.uniform(3, self.total_s))
                    else:
                        h = paths.heading[lane, i] + rng.normal(0, 0.02)
                        h += np.pi * (rng.random() < 0.06)
                        normal = np.array([-np.sin(h), np.cos(h)])
                        if np.cos(h - paths.heading[lane, i]) < 0:
                            normal = -normal
                        self.fixed.append(((*(point + lat * normal), h), kind, size))
                s += size[0] / 2 + rng.uniform(0.5, 1.6)

    def _car_park(self) -> None:
        rng = self.rng
        share = rng.uniform(*self.world.car_park)
        for x, y, h, _ in self.layout.slots:
            if rng.random() < share:
                kind = int(rng.choice([CAR, VAN], p=[.93, .07]))
                size = np.minimum(sample_size(rng, kind), [5.2, 1.95, 2.4])
                self.fixed.append(((x + rng.normal(0, .15), y + rng.normal(0, .1),
                                    h + np.pi * (rng.random() < 0.4) + rng.normal(0, .03)),
                                   kind, size))

    def _people(self) -> None:
        """Lay out a way (waypoints, waits) for everyone on foot near the ego's route."""
        rng, world, layout = self.rng, self.world, self.layout
        ego = self.paths.points[self.vehicles.path[0]]
        lo = int(max(self.vehicles.s[0] - 20, 0))
        hi = int(min(lo + self.vehicles.want[0] * self.total_s + 50, len(ego) - 1))
        route = ego[lo:hi:8]
        ways, waits, speeds, kinds, careful = [], [], [], [], []

        def near():
            for _ in range(12):
                line = layout.pavements[rng.integers(len(layout.pavements))]
                i = int(rng.integers(6, len(line) - 6))
                if np.min(((route - line[i])**2).sum(-1)) < 45**2:
                    break
            return line, i

        def add(way, wait, speed, kind=PEDESTRIAN, care=1.0):
            way = list(way)[:6]
            wait = list(wait)[:6]
            way += [way[-1]] * (6 - len(way))
            wait += [1e9] * (6 - len(wait))
            ways.append(way), waits.append(wait), speeds.append(speed), kinds.append(kind)
            careful.append(care)

        for _ in range(rng.integers(*world.walkers, endpoint=True)):
            line, i = near()
            step = 1 if rng.random() < 0.5 else -1
            side = rng.normal(0, 0.25, 2)
            picks = np.clip(i + step * np.array([0, 12, 24, 36, 48, 70]), 0, len(line) - 1)
            way = line[picks] + side + rng.normal(0, 0.15, (6, 2))
            wait = [0.0] * 6
            speed = np.clip(rng.normal(1.35, 0.22), 0.6, 2.2)
            if rng.random() < 0.05:
                speed = rng.uniform(2.4, 3.6)
            if rng.random() < world.turn_back:
                k = int(rng.integers(1, 4))
                way[k + 1:] = way[k] + rng.normal(0, .5, 2) + (way[k - 1] - way[k]) * np.linspace(
                    .3, 1.5, 5 - k)[:, None]
            if rng.random() < world.pause:
                wait[rng.integers(1, 4)] = rng.uniform(1, 6)
            kind = PEDESTRIAN
            if rng.random() < world.step_out:      # turns onto the road and crosses it
                k = int(rng.integers(1, 3))
                road = min(layout.roads, key=lambda r: np.min(
                    ((r.centre - way[k])**2).sum(-1)))
                c = road.centre[np.argmin(((road.centre - way[k])**2).sum(-1))]
                way[k + 1] = way[k] + 2 * (c - way[k])
                way[k + 2:] = way[k + 1] + (way[k + 2:] - way[k])
            add(way, wait, speed, kind, 0.3)
            if rng.random() < 0.2:                 # company
                add(way + rng.normal(0, 0.1, 2) + [0.55, 0.5], wait, speed)
            if rng.random() < 0.04:                # a dog
                add(way + [0.6, -0.5], wait, speed, ANIMAL)
        for _ in range(rng.integers(*world.standing, endpoint=True)):
            line, i = near()
            turn = rng.uniform(0, 2 * np.pi)
            for k in range(rng.integers(1, 4)):
                angle = turn + 2.1 * k + rng.normal(0, .2)
                add([line[i] + .6 * np.array([np.cos(angle), np.sin(angle)])], [1e9], 1.0)
        if layout.crossings:
            for _ in range(rng.integers(*world.crossers, endpoint=True)):
                order = sorted(layout.crossings,
                               key=lambda c: np.min(((route - c[0])**2).sum(-1)))
                centre, heading, length = order[rng.integers(min(3, len(order)))]
                u = np.array([np.cos(heading), np.sin(heading)]) * rng.choice([-1, 1])
                v = np.array([-u[1], u[0]]) * rng.normal(0, 0.8)
                a, b = centre - u * (length / 2 + 0.8) + v, centre + u * (length / 2 + 0.8) + v
                along = np.array([-u[1], u[0]]) * rng.choice([-1, 1])
                start = a - u * 0.5 + along * rng.uniform(0, 14)
                add([start, a, b, b + u * 1.0 + along * 30], [rng.uniform(0, 5),
                    rng.uniform(0, 6), 0.0, 0.0], np.clip(rng.normal(1.4, .2), .8, 2.2))
        self.ways = np.array(ways, float).reshape(-1, 6, 2)
        self.waits = np.array(waits, float).reshape(-1, 6)
        self.walk_speed = np.array(speeds, float)
        self.walk_kind = np.array(kinds, int)
        self.careful = np.array(careful)
        self.walk_size = np.array([sample_size(rng, k) for k in kinds]).reshape(-1, 3)

    # ---- motion ---------------------------------------------------------------------------
    def _place(self, path, s, lat, slope=0.0):
        """Return x, y, yaw of reference points at arc length `s` and offset `lat`."""
        points, heading = self.paths.points, self.paths.heading
        last = (self.paths.length[path] - 2).astype(int)
        i = np.clip(np.floor(s).astype(int), 0, last)
        f = s - i                                    # beyond the ends: straight on
        a, b = points[path, i], points[path, i + 1]
        h0, h1 = heading[path, i], heading[path, i + 1]
        h = h0 + np.clip(f, 0, 1) * (h1 - h0)
        xy = a + f[..., None] * (b - a)
        yaw = h + np.arctan(slope)
        return np.stack([xy[..., 0] - lat * np.sin(h), xy[..., 1] + lat * np.cos(h), yaw], -1)

    def _lateral(self):
        veh = self.vehicles
        u = np.clip((veh.s - veh.s_lat) / veh.d_lat, 0, 1)
        change = veh.lat1 - veh.lat0
        veh.lat = veh.lat0 + change * u * u * (3 - 2 * u)
        return change * 6 * u * (1 - u) / veh.d_lat

    def run(self, t0: float = 0.0) -> Recording:
        """Simulate `total_s` seconds and return every step."""
        veh = self.vehicles
        n_veh, n_fixed, n_walk = len(veh.s), len(self.fixed), len(self.walk_kind)
        steps = int(round(self.total_s / STEP_S)) + 1
        count = n_veh + n_fixed + n_walk
        poses = np.zeros((steps, count, 3))
        braking = np.zeros((steps, count), bool)
        indicator = np.zeros((steps, count), np.int8)
        axle = np.zeros((steps, 4))
        junctions = self.layout.junctions
        green = np.zeros((steps, len(junctions)), np.int8)
        kinds = np.concatenate([veh.kind, [f[1] for f in self.fixed], self.walk_kind]).astype(int)
        sizes = np.concatenate([veh.size, np.array([f[2] for f in self.fixed]).reshape(-1, 3),
                                self.walk_size])
        if n_fixed:
            poses[:, n_veh:n_veh + n_fixed] = np.array([f[0] for f in self.fixed])
        self.walk_xy = self.ways[:, 0].copy()
        self.walk_v = np.zeros_like(self.walk_xy)
        self.walk_yaw = self.rng.uniform(-np.pi, np.pi, n_walk)
        self.walk_next = np.ones(n_walk, int)
        self.walk_wait = self.waits[:, 0].copy()
        self.held: dict = {}                      # vehicle -> (junction, event)
        accel = np.zeros(n_veh)
        centre_shift = AXLE_SHARE * veh.size[:, 0] * (veh.kind != BICYCLE)
        for step in range(steps):
            t = step * STEP_S
            slope = self._lateral()
            ref = self._place(veh.path, veh.s, veh.lat, slope)
            pose = ref.copy()
            pose[:, 0] += centre_shift * np.cos(ref[:, 2])
            pose[:, 1] += centre_shift * np.sin(ref[:, 2])
            poses[step, :n_veh] = pose
            poses[step, n_veh + n_fixed:, :2] = self.walk_xy
            poses[step, n_veh + n_fixed:, 2] = self.walk_yaw
            axle[step] = *ref[0], veh.v[0]
            green[step] = [signal_state(j, t) for j in junctions]
            if step % 2 == 0:
                self._mind(t)
                accel = self._accelerate(pose, t, green[step])
            braking[step, :n_veh] = accel < -0.7
            indicator[step, :n_veh] = np.sign(np.round(slope * 20)) * (np.abs(slope) > 0.04)
            go = t >= veh.start_t
            veh.v = np.where(go, np.maximum(veh.v + accel * STEP_S, 0.0), 0.0)
            veh.s = veh.s + veh.v * STEP_S
            self._walk(pose)
        return Recording(poses, kinds, sizes, braking, indicator, green, axle)

    def _mind(self, t: float) -> None:
        """Change minds: speeds, lanes."""
        veh, rng = self.vehicles, self.rng
        changed = (t >= veh.change_t)
        veh.want = np.where(changed, veh.change_want, veh.want)
        veh.change_t = np.where(changed, np.where(veh.change_want < 0.5, t + 3.0, np.inf),
                                veh.change_t)
        veh.change_want = np.where(changed & (veh.change_want < 0.5), self.speed_range[0],
                                   veh.change_want)
        again = changed & ~np.isfinite(veh.change_t) & (
            rng.random(len(veh.s)) < self.world.speed_change)
        if again.any():
            n = int(again.sum())
            veh.change_t[again] = t + rng.uniform(2.5, 7.0, n)
            veh.change_want[again] = rng.choice([0.25, 0.5, 1.0, 1.3], n) * rng.uniform(
                *self.speed_range, n)
        rate = self.world.lane_change * 2 * STEP_S / 4.0
        for i in np.flatnonzero(rng.random(len(veh.s)) < rate):
            path = veh.path[i]
            options = [p for p in (self.paths.left[path], self.paths.right[path]) if p >= 0]
            if not options or veh.v[i] < 4 or veh.kind[i] == BICYCLE or \
                    veh.s[i] < veh.s_lat[i] + veh.d_lat[i] or not self._free(path, veh.s[i], 25.0):
                continue
            target = int(rng.choice(options))
            here = self._place(path, veh.s[i:i + 1], veh.lat[i:i + 1])[0]
            line = self.paths.points[target, :int(self.paths.length[target])]
            k = int(np.argmin(((line - here[:2])**2).sum(-1)))
            mates = (self.paths.lane[veh.path] == target) & (np.arange(len(veh.s)) != i)
            ahead = veh.s[mates] - k
            if np.any((ahead > -12 - 1.2 * veh.v[i]) & (ahead < 14)):
                continue
            d = line[k]
            h = self.paths.heading[target, k]
            lat = -(here[0] - d[0]) * np.sin(h) + (here[1] - d[1]) * np.cos(h)
            along = (here[0] - d[0]) * np.cos(h) + (here[1] - d[1]) * np.sin(h)
            veh.path[i], veh.s[i] = target, k + along
            veh.lat0[i], veh.lat1[i], veh.lat[i] = lat, 0.0, lat
            veh.s_lat[i], veh.d_lat[i] = veh.s[i], max(14.0, 3.4 * veh.v[i])

    def _accelerate(self, pose: np.ndarray, t: float, green: np.ndarray) -> np.ndarray:
        veh = self.vehicles
        n = len(veh.s)
        front = veh.s + (AXLE_SHARE + 0.5) * veh.size[:, 0]
        limit = self.paths.limit[veh.path, np.clip(veh.s + veh.v * 0.5, 0,
                                                   self.paths.length[veh.path] - 1).astype(int)]
        want = np.minimum(veh.want, np.where(veh.kind == BICYCLE, np.maximum(limit, 2.5), limit))
        gap, lead_v = self._leaders(pose, front)
        # A stop of one's own, or a stop line.
        wall = np.full(n, np.inf)
        stopping = np.isfinite(veh.stop_s)
        wall[stopping] = veh.stop_s[stopping] - front[stopping]
        wall[wall < -8] = np.inf
        arrived = stopping & (wall < 3.5) & (veh.v < 0.4)
        veh.stop_left[arrived] -= 2 * STEP_S
        veh.stop_s[veh.stop_left < 0] = np.inf
        wall = np.minimum(wall, self._junctions(front, t, green))
        closer = wall < gap
        gap, lead_v = np.where(closer, wall, gap), np.where(closer, 0.0, lead_v)
        want = np.maximum(want, 0.1)
        v, b = veh.v, 2.0
        desired = 2.0 + np.maximum(0.0, v * veh.headway
                                   + v * (v - lead_v) / (2 * np.sqrt(veh.accel * b)))
        free = 1 - (v / want)**4
        slowing = np.maximum(-2.5 / veh.accel * (1 - want / np.maximum(v, .1)), -2.0)
        free = np.where(v > want, slowing, free)
        a = veh.accel * (free - np.where(np.isfinite(gap),
                                         (desired / np.maximum(gap, 0.15))**2, 0.0))
        return np.clip(a, -8.0, 3.0)

    def _leaders(self, pose, front):
        """Return the free gap ahead (n,) and the leader's speed along it, from geometry alone."""
        veh = self.vehicles
        n = len(veh.s)
        look = np.arange(1.0, 52.0, 3.0, dtype=np.float32)                  # (P,)
        # Obstacles: the vehicles, people on the road, and people as they will be in 1 s.
        walkers = self.on_road if hasattr(self, 'on_road') else np.zeros(0, int)
        wxy, wv = self.walk_xy[walkers], self.walk_v[walkers]
        wsize = self.walk_size[walkers]
        yaw = np.concatenate([pose[:, 2], np.zeros(2 * len(walkers))])
        xy = np.concatenate([pose[:, :2], wxy, wxy + 1.2 * wv]).astype(np.float32)
        size = np.concatenate([veh.size, wsize, wsize])
        vel = np.concatenate([veh.v[:, None] * np.stack([np.cos(pose[:, 2]), np.sin(pose[:, 2])],
                                                        -1), wv, wv])
        # Only pairs that can matter: ahead, near, not oncoming in another lane.
        rel = xy[None] - pose[:, None, :2].astype(np.float32)              # (n, m, 2)
        c, s = np.cos(pose[:, 2]).astype(np.float32), np.sin(pose[:, 2]).astype(np.float32)
        ahead = rel[..., 0] * c[:, None] + rel[..., 1] * s[:, None]
        aside = -rel[..., 0] * s[:, None] + rel[..., 1] * c[:, None]
        turn = np.cos(yaw[None] - pose[:, None, 2])
        turn[:, n:] = 1.0
        pair = (ahead > 0) & (ahead < 55) & (np.abs(aside) < 4 + 0.6 * ahead) & (turn > -0.7)
        pair[np.arange(n), np.arange(n)] = False
        i, j = np.nonzero(pair)
        gap = np.full(n, np.inf)
        lead = np.zeros(n)
        if not len(i):
            return gap, lead
        corridor = self._place(np.repeat(veh.path, len(look)),
                               (front[:, None] + look - 1.0).ravel(),
                               np.repeat(np.where(np.abs(veh.lat1 - veh.lat) < .3, veh.lat,
                                                  0.5 * (veh.lat + veh.lat1)), len(look)))
        corridor = corridor[:, :2].reshape(n, len(look), 2).astype(np.float32)
        d = corridor[i] - xy[j][:, None]                                     # (k, P, 2)
        cj, sj = np.cos(yaw[j]).astype(np.float32)[:, None], np.sin(yaw[j]).astype(
            np.float32)[:, None]
        dx = np.abs(d[..., 0] * cj + d[..., 1] * sj) - (size[j, 0] / 2)[:, None]
        dy = np.abs(-d[..., 0] * sj + d[..., 1] * cj) - (size[j, 1] / 2)[:, None]
        near = np.hypot(np.maximum(dx, 0), np.maximum(dy, 0))
        half = veh.size[i, 1] / 2 + np.where(turn[i, j] > 0.9, 0.15, 0.3)
        hit = (near < half[:, None]) | ((near < 1.5) & (dy < half[:, None]) & (dx < 1.6)
                                        & (turn[i, j] > 0.9)[:, None])
        any_hit = hit.any(1)
        i, j, hit, near = i[any_hit], j[any_hit], hit[any_hit], near[any_hit]
        first = np.argmax(hit, 1)
        distance = np.maximum(look[first] - 1.0 - np.where(first > 0, 1.0, 0.0), 0.05)
        # Behind one that goes the same way the gap is exact, not a step of the corridor.
        exact = ahead[i, j] - size[j, 0] / 2 - veh.size[i, 0] / 2
        distance = np.where(turn[i, j] > .97, np.where((j < n) & (exact > .05), exact, distance),
                            distance)
        along = vel[j, 0] * c[i] + vel[j, 1] * s[i]
        along = np.where(j < n, np.maximum(along, 0), 0.0)
        # Crossing vehicles at a junction: the one with the lower number goes first.
        crossing = (j < n) & (turn[i, np.minimum(j, len(yaw) - 1)] < 0.6) & (i < j) & (
            distance < 12)
        distance = np.where(crossing & (veh.v[np.minimum(j, n - 1)] > 0.5), distance + 4, distance)
        order = np.lexsort((along, distance))[::-1]
        gap[i[order]] = distance[order]
        lead[i[order]] = along[order]
        return gap, lead

    def _junctions(self, front, t, green):
        """Return the distance to a stop line that one may not pass, inf where free (n,)."""
        veh, paths = self.vehicles, self.paths
        n = len(front)
        wall = np.full(n, np.inf)
        if not self.layout.junctions:
            return wall
        lines = paths.event_line[veh.path]                           # (n, E)
        exits = paths.event_exit[veh.path]
        rear = veh.s - 0.25 * veh.size[:, 0]
        # The event one is in, or the next.
        e = np.argmax(exits > rear[:, None], 1)
        rows = np.arange(n)
        line, leave = lines[rows, e], exits[rows, e]
        live = np.isfinite(line) & (leave > rear)
        junction = np.where(live, paths.event_junction[veh.path, e], -1)
        to_line = line - front
        inside = live & (to_line < -0.6)
        main = paths.event_main[veh.path, e]
        turn = paths.event_turn[veh.path, e]
        for i in list(self.held):
            if junction[i] != self.held[i]:
                del self.held[i]
        for i in np.flatnonzero(inside):
            self.held[int(i)] = int(junction[i])
        asks = live & ~inside & (to_line < np.maximum(12.0, veh.v**2 / 4.0 + 6.0))
        eta = to_line / np.maximum(veh.v, 0.8)
        order = np.flatnonzero(asks)
        order = order[np.argsort(eta[order], kind='stable')]
        for i in order:
            i = int(i)
            k = int(junction[i])
            info = self.layout.junctions[k]
            conflict = paths.conflict[k][veh.path[i]]
            if i in self.held:
                if info.control == 'signal' and to_line[i] > veh.v[i]**2 / 6.0 + 2.0 \
                        and green[k] != (1 if main[i] else -1):
                    del self.held[i]
                else:
                    continue
            go = True
            if info.control == 'signal':
                go = green[k] == (1 if main[i] else -1) or (
                    green[k] == 0 and to_line[i] < veh.v[i]**2 / 7.0 and veh.v[i] > 3)
            if go:
                for other, other_k in self.held.items():
                    if other_k == k and conflict[veh.path[other]]:
                        go = False
                        break
            if go and (info.control != 'all_way'):
                rivals = (junction == k) & ~inside & conflict[veh.path] & (rows != i)
                if info.control == 'priority':
                    first = rivals & main & (not main[i] or turn[i] == 1) & (turn != 1)
                else:
                    first = rivals & (main == main[i]) & (turn[i] == 1) & (turn != 1)
                go = not np.any(first & (eta < 4.5) & (veh.v > 1.0))
            if go:
                self.held[i] = k
            else:
                wall[i] = max(to_line[i], 0.2)
        return wall

    def _walk(self, pose: np.ndarray) -> None:
        """Move the people on foot one step."""
        if not len(self.walk_kind):
            return
        rows = np.arange(len(self.walk_kind))
        last = self.ways.shape[1] - 1
        target = self.ways[rows, np.minimum(self.walk_next, last)]
        to = target - self.walk_xy
        dist = np.hypot(to[:, 0], to[:, 1])
        waiting = self.walk_wait > 0
        self.walk_wait = np.maximum(self.walk_wait - STEP_S, 0)
        # Before a step onto the road: is a vehicle near or coming?
        ahead = self.walk_xy + to / np.maximum(dist, 1e-3)[:, None] * 1.2
        bits = self._bits(ahead)
        here = self._bits(self.walk_xy)
        self.on_road = np.flatnonzero((here & 1) > 0)
        enters = ((bits & 1) > 0) & ((here & 1) == 0) & ~waiting & (self.walk_next <= last)
        blocked = np.zeros(len(rows), bool)
        for i in np.flatnonzero(enters):
            rel = self.walk_xy[i] + 2.5 * to[i] / max(dist[i], 1e-3) - pose[:, :2]
            c, s = np.cos(pose[:, 2]), np.sin(pose[:, 2])
            along, aside = rel[:, 0] * c + rel[:, 1] * s, -rel[:, 0] * s + rel[:, 1] * c
            v = self.vehicles.v
            reach = v * (3.2 if self.careful[i] > 0.5 else 1.6) + 3.0
            blocked[i] = np.any((along > -3) & (along < reach) & (np.abs(aside) < 4.5) & (v > .6))
        speed = np.where(waiting | blocked | (self.walk_next > last) | (dist < 0.05), 0.0,
                         self.walk_speed)
        goal = to / np.maximum(dist, 1e-3)[:, None] * speed[:, None]
        # Nobody walks through anybody: a short push to the side.
        gap = self.walk_xy[:, None] - self.walk_xy[None]
        space = (gap**2).sum(-1)
        close = np.exp(-space / .32) * (space > 0)
        push = (gap * close[..., None]).sum(1) * 4.0
        free = ~blocked | ((here & 1) == 0)
        goal = goal + np.clip(push, -.8, .8) * (speed > 0)[:, None] * free[:, None]
        self.walk_v += (goal - self.walk_v) * min(1.0, STEP_S / 0.35)
        self.walk_xy = self.walk_xy + self.walk_v * STEP_S
        moving = np.hypot(self.walk_v[:, 0], self.walk_v[:, 1]) > 0.25
        self.walk_yaw = np.where(moving, np.arctan2(self.walk_v[:, 1], self.walk_v[:, 0]),
                                 self.walk_yaw)
        reached = (dist < 0.7) & ~waiting & (self.walk_next <= last)
        picks = np.minimum(self.walk_next, last)
        self.walk_wait = np.where(reached, self.waits[rows, picks], self.walk_wait)
        self.walk_next = np.where(reached, self.walk_next + 1, self.walk_next)

    def _bits(self, points: np.ndarray) -> np.ndarray:
        layout = self.layout
        cells = ((points - layout.origin) / 0.25).astype(int)
        rows, cols = layout.classes.shape
        return layout.classes[np.clip(cells[:, 1], 0, rows - 1), np.clip(cells[:, 0], 0, cols - 1)]
