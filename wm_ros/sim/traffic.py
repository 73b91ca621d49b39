"""
Traffic: how road users move, at 10 Hz, vectorised over agents.

Cars follow by the Intelligent Driver Model (Treiber et al. 2000), yield at junctions, change
lanes, stop, start and leave parking places; pedestrians walk, wait and cross. Agent 0 is the ego
vehicle, which drives by the same rules.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from wm_ros.sim.population import Population
from wm_ros.sim.roundabout import has_room
from wm_ros.sim.worlds import ANIMAL, AXLE_SHARE, BICYCLE, BUS, STEP_S, TRUCK


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


class Simulation(Population):
    """One drive: populate, then `run`."""

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
        limit = limit * np.where((veh.kind == TRUCK) | (veh.kind == BUS), .8, 1.)
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
        a = np.clip(a, -8.0, 3.0)
        if t >= self.ego_stops_s:
            a[0] = min(a[0], -3.5)
        return a

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
        if self.blind:                              # the ego does not see animals
            pair[0, n:] &= np.tile(self.walk_kind[walkers] != ANIMAL, 2)
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
            if info.control == 'roundabout':
                go = has_room(paths, veh, i, line[i], np.flatnonzero(inside & (junction == k)))
            elif go:
                for other, other_k in self.held.items():
                    if other_k == k and conflict[veh.path[other]]:
                        go = False
                        break
            if go and info.control in ('priority', 'signal'):
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
        jumps = self.careful < 0
        if jumps.any():
            near = np.hypot(*(self.walk_xy - pose[0, :2]).T) < -self.careful
            self.walk_wait = np.where(jumps & near & (self.walk_next == 1), 0.0, self.walk_wait)
        waiting = self.walk_wait > 0
        self.walk_wait = np.maximum(self.walk_wait - STEP_S, 0)
        # Before a step onto the road: is a vehicle near or coming?
        ahead = self.walk_xy + to / np.maximum(dist, 1e-3)[:, None] * 1.2
        bits = self._bits(ahead)
        here = self._bits(self.walk_xy)
        self.on_road = np.flatnonzero((here & 1) > 0)
        enters = ((bits & 1) > 0) & ((here & 1) == 0) & ~waiting & (self.walk_next <= last) & ~jumps
        blocked = np.zeros(len(rows), bool)
        for i in np.flatnonzero(enters):
            rel = self.walk_xy[i] + 2.5 * to[i] / max(dist[i], 1e-3) - pose[:, :2]
            c, s = np.cos(pose[:, 2]), np.sin(pose[:, 2])
            along, aside = rel[:, 0] * c + rel[:, 1] * s, -rel[:, 0] * s + rel[:, 1] * c
            v = self.vehicles.v
            reach = v * (3.2 if self.careful[i] > 0.5 else 1.6) + 3.0
            blocked[i] = np.any((along > -3) & (along < reach) & (np.abs(aside) < 4.5) & (v > .6))
        for i in np.flatnonzero(jumps & ~waiting):
            blocked[i] = self._in_front_of(i, to[i] / max(dist[i], 1e-3), pose)
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

    def _in_front_of(self, i: int, heading: np.ndarray, pose: np.ndarray) -> bool:
        """Return whether walker `i` would run into the way of a vehicle that is too close."""
        rel = self.walk_xy[i] - pose[:, :2]
        c, s = np.cos(pose[:, 2]), np.sin(pose[:, 2])
        along, aside = rel[:, 0] * c + rel[:, 1] * s, -rel[:, 0] * s + rel[:, 1] * c
        towards = (-heading[0] * s + heading[1] * c) * aside < 0
        reach = self.vehicles.size[:, 0] / 2 + 1.5
        takes_s = (np.abs(aside) + 2.0) / max(self.walk_speed[i], .5) * np.full(len(pose), .45)
        if self.blind:                              # who sees it can still brake
            takes_s[0] /= .45
        near = (along > -reach) & (along < reach + self.vehicles.v * takes_s)
        return bool(np.any(near & towards & (np.abs(aside) > 1.8) & (np.abs(aside) < 5.5)))

    def _bits(self, points: np.ndarray) -> np.ndarray:
        layout = self.layout
        cells = ((points - layout.origin) / 0.25).astype(int)
        rows, cols = layout.classes.shape
        return layout.classes[np.clip(cells[:, 1], 0, rows - 1), np.clip(cells[:, 0], 0, cols - 1)]
