"""Who is on the road when a drive begins: vehicles on lanes and at the kerb, people on foot."""

from __future__ import annotations

import numpy as np

from wm_ros.sim.roads import SHELTER, Layout
from wm_ros.sim.worlds import (
    ANIMAL,
    AXLE_SHARE,
    BICYCLE,
    BUS,
    CAR,
    MOTORCYCLE,
    PEDESTRIAN,
    TRUCK,
    VAN,
    World,
    sample_size,
)

#: Shares of standing groups of one, two, three. With their spacing below, about as many people
#: stand within 1.25 m, 2 m and 3 m of another as in street recordings of large cities.
GROUPS = (0.4, 0.35, 0.25)


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


#: Where the others of a group walk, metres beside the first.
_COMPANY = np.array([[.55, .5], [-.6, .45], [.05, 1.1], [1.1, .1]])


def _vehicle_kind(rng) -> int:
    return int(rng.choice([CAR, VAN, TRUCK, BUS, MOTORCYCLE], p=[.74, .11, .07, .03, .05]))


class Population:
    """The road users of one drive: vehicles on paths, parked ones, people with their ways."""

    def __init__(self, layout: Layout, world: World, rng: np.random.Generator,
                 total_s: float, ego_stops_s: float | None = None) -> None:
        self.ego_stops_s = np.inf if ego_stops_s is None else ego_stops_s
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

    def _ego(self) -> None:
        rng, paths = self.rng, self.paths
        through = [i for i in range(len(paths.length)) if paths.lane[i] == i]
        turns = [i for i in range(len(paths.length)) if paths.lane[i] != i]
        main = [i for i in through if paths.road[i] == 0]
        speed = {'street': (6.5, 12.5), 'suburb': (6.5, 12.0), 'arterial': (9.0, 17.0),
                 'rural': (10.0, 20.0)}[self.layout.kind]
        self.speed_range = (speed[0] * self.world.pace, speed[1] * self.world.pace)
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
            if rng.random() < 0.22:                # company
                for beside in _COMPANY[:rng.choice([1, 1, 1, 2, 4])]:
                    add(way + rng.normal(0, 0.1, 2) + beside, wait,
                        speed * rng.uniform(.97, 1.03))
            if rng.random() < 0.04:                # a dog
                add(way + [0.6, -0.5], wait, speed, ANIMAL)
        stops = layout.statics[layout.statics[:, 6] == SHELTER]
        stops = [s for s in stops if np.min(((route - s[:2])**2).sum(-1)) < 45**2]
        for _ in range(rng.integers(*world.standing, endpoint=True)):
            if stops and rng.random() < .25:       # people wait for a bus
                x, y, yaw, length, width = stops[rng.integers(len(stops))][:5]
                along = np.array([np.cos(yaw), np.sin(yaw)])
                front = np.array([x, y]) - np.array([-along[1], along[0]]) * (width / 2 + .4)
                for k in range(rng.integers(1, 6)):
                    add([front + along * (k - 2) * length / 4 + rng.normal(0, .12, 2)], [1e9], 1.0)
                continue
            line, i = near()
            turn, apart = rng.uniform(0, 2 * np.pi), rng.uniform(0.4, 1.1)
            for k in range(rng.choice(3, p=GROUPS) + 1):
                angle = turn + 2.1 * k + rng.normal(0, .2)
                add([line[i] + apart * np.array([np.cos(angle), np.sin(angle)])], [1e9], 1.0)
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
        self._jumpers(add, route)
        self.ways = np.array(ways, float).reshape(-1, 6, 2)
        self.waits = np.array(waits, float).reshape(-1, 6)
        self.walk_speed = np.array(speeds, float)
        self.walk_kind = np.array(kinds, int)
        self.careful = np.array(careful)
        self.walk_size = np.array([sample_size(rng, k) for k in kinds]).reshape(-1, 3)
        jumps = self.careful < 0
        if jumps.any():                             # from a dog to a deer
            self.walk_size[jumps] *= rng.uniform(.9, 2.0, (int(jumps.sum()), 1))

    def _jumpers(self, add, route: np.ndarray) -> None:
        """
        Add animals beside the ego's way that run across when it comes near.

        `careful` is negative for them: minus the distance in metres at which they start. In half
        of the drives the ego does not brake for them (`blind`); they start farther off then.
        """
        rng, (fewest, most) = self.rng, self.world.jumpers
        self.blind = False
        if not most:
            return
        self.blind = bool(rng.random() < 0.5)
        want = self.vehicles.want[0]
        path = int(self.vehicles.path[0])
        at = self.vehicles.s[0] + want * rng.uniform(4.0, 8.5)
        k = int(np.clip(at, 5, self.paths.length[path] - 6))
        along, across = self.paths.heading[path, k], rng.choice([-1, 1])
        ahead = np.array([np.cos(along), np.sin(along)])
        side = across * np.array([-ahead[1], ahead[0]])
        road = self.layout.roads[int(self.paths.road[path])]
        wide = road.half_m(0) + road.half_m(1)
        trigger = want * rng.uniform(2.0, 3.0) + 8 if self.blind else want * rng.uniform(
            1.0, 2.0) + 5
        for n in range(rng.integers(fewest, most, endpoint=True)):
            place = self.paths.points[path, k] + ahead * rng.normal(0, 1.5)
            start = place + side * (wide / 2 + rng.uniform(1.5, 6.0))
            back = rng.random() < 0.2               # some turn round on the road
            end = place + (side if back else -side) * (wide / 2 + rng.uniform(6, 25))
            add([start, place + side * rng.uniform(-1, 2), end + ahead * rng.normal(0, 4)],
                [1e9, 0.0, 1e9], rng.uniform(4.0, 9.0), ANIMAL, -(trigger - 4.0 * n))
