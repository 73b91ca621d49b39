"""Traffic keeps its rules, and does all that it is there for: lights, right of way, no crashes."""

from collections import Counter
from functools import cache

import cv2
import numpy as np

from wm_ros.sim import seeds
from wm_ros.sim.layout import make_layout
from wm_ros.sim.roads import DRIVABLE
from wm_ros.sim.traffic import Simulation
from wm_ros.sim.worlds import AXLE_SHARE, BICYCLE, PEDESTRIAN, STEP_S, WORLDS

SECONDS = 16.0


class Traced(Simulation):
    """A simulation that remembers on which path each vehicle is, how far along, how far aside."""

    def __init__(self, seed, world):
        self.trace = []
        layout = make_layout(seeds.generator(seed, seeds.LAYOUT), WORLDS[world].place)
        super().__init__(layout, WORLDS[world], seeds.generator(seed, seeds.TRAFFIC), SECONDS)
        self.recording = self.run()
        self.path, self.s, self.v, self.lat = (
            np.array(values) for values in zip(*self.trace, strict=True))

    def _lateral(self):
        slope = super()._lateral()
        veh = self.vehicles
        self.trace.append((veh.path.copy(), veh.s.copy(), veh.v.copy(), veh.lat.copy()))
        return slope

    def inside(self, step):
        """Return the junction that each vehicle is in, -1 for none, and its event there."""
        paths, path = self.paths, self.path[step]
        front = self.s[step] + (AXLE_SHARE + 0.5) * self.vehicles.size[:, 0]
        rear = self.s[step] - 0.25 * self.vehicles.size[:, 0]
        there = (paths.event_line[path] < front[:, None]) & (
            paths.event_exit[path] > rear[:, None]) & np.isfinite(paths.event_line[path])
        event = np.argmax(there, axis=1)
        return np.where(there.any(axis=1), paths.event_junction[path, event], -1), event


@cache
def drives():
    """Return drives of both mixes."""
    return [Traced(seed, world) for world in ('sim', 'sim-hard') for seed in range(8)]


def area_of_overlap(a, b):
    """Return the common area of two boxes (x, y, yaw, length, width)."""
    (ra, rb) = (((x, y), (length, width), float(np.degrees(yaw)))
                for x, y, yaw, length, width in (a, b))
    kind, region = cv2.rotatedRectangleIntersection(ra, rb)
    return cv2.contourArea(region) if kind else 0.0


def test_nobody_enters_a_junction_against_a_red_light():
    entered = Counter()
    for drive in drives():
        before, _ = drive.inside(0)
        for step in range(1, len(drive.path)):
            now, event = drive.inside(step)
            for i in np.flatnonzero((now >= 0) & (before != now)
                                    & (drive.path[step] == drive.path[step - 1])):
                if drive.layout.junctions[now[i]].control == 'signal':
                    own = 1 if drive.paths.event_main[drive.path[step, i], event[i]] else -1
                    entered[drive.recording.green_main[step, now[i]] * own] += 1
            before = now
    assert entered[1] >= 5      # on green
    assert entered[-1] == 0


def test_ways_that_cross_are_driven_one_after_the_other():
    """Whoever is in a junction: nobody else is on a way through it that meets theirs."""
    together = alone = 0
    for drive in drives():
        for step in range(20, len(drive.path), 3):
            junctions, _ = drive.inside(step)
            for k, junction in enumerate(drive.layout.junctions):
                here = np.flatnonzero((junctions == k) & (drive.v[step] > 0.5))
                if junction.control == 'roundabout':
                    continue
                meets = drive.paths.conflict[k][np.ix_(drive.path[step, here],
                                                       drive.path[step, here])]
                together += int(np.triu(meets, 1).sum())
                alone += len(here)
    assert alone > 200
    assert together < 0.03 * alone


def test_vehicles_do_not_drive_through_each_other_nor_through_people():
    touching = count = hit = 0
    for drive in drives():
        kinds, sizes = drive.recording.classes, drive.recording.sizes
        n = len(drive.vehicles.s)
        people = np.flatnonzero(kinds == PEDESTRIAN)
        for step in range(20, len(drive.path), 5):
            poses = drive.recording.poses[step]
            boxes = np.column_stack([poses, sizes[:, :2]])
            for i in range(n):
                away = np.hypot(*(poses[:, :2] - poses[i, :2]).T)
                touching += sum(area_of_overlap(boxes[i], boxes[j]) > 0.3
                                for j in range(i + 1, n) if away[j] < 12)
                if drive.v[step, i] > 2.0:
                    hit += sum(area_of_overlap(boxes[i], boxes[j]) > 0.05
                               for j in people if away[j] < 8)
            count += n
    assert count > 10_000
    assert touching < 0.01 * count
    assert hit < 0.002 * count


def what_happens(drive):
    """Return the names of what some road user of a drive does."""
    veh, found = drive.vehicles, set()
    moves = drive.v.max(axis=0) > 3.0
    jumped = np.diff(drive.path, axis=0) != 0
    if (jumped & (drive.v[1:] > 3)).any():
        found.add('changes lanes')
    stands, drives_on = drive.v < 0.1, drive.v > 3.0
    for i in np.flatnonzero(moves):
        still, going = np.flatnonzero(stands[:, i]), np.flatnonzero(drives_on[:, i])
        if len(still) and (going < still[0]).any():
            found.add('stops')
            found |= {'stops and starts'} if (going > still[0]).any() else set()
        if veh.d_lat[i] < 17 and abs(drive.lat[0, i]) > 1.5 and abs(drive.lat[-1, i]) < 0.5 \
                and drive.v[0, i] == 0:
            found.add('pulls out of a parking place')
        turn = np.unwrap(drive.recording.poses[:, i, 2])
        if np.ptp(turn) > 1.0 and drive.recording.classes[i] != BICYCLE:
            found.add('turns')
    walks = np.flatnonzero(drive.recording.classes == PEDESTRIAN)
    for i in walks:
        line = drive.recording.poses[:, i, :2]
        speed = np.hypot(*np.diff(line, axis=0).T) / STEP_S
        on_road = (drive._bits(line) & DRIVABLE).astype(bool)
        if on_road[10:].any() and not on_road[:5].any() and not on_road[-5:].any() \
                and speed.max() > 0.8:
            found.add('crosses the road')
        if (speed < 0.05).sum() > 10 and speed.max() > 0.8:
            found.add('waits or stops on foot')
    if np.ptp(np.unwrap(drive.recording.axle[:, 2])) > 0.8:
        found.add('the ego vehicle turns')
    ego = drive.recording.axle[:, 3]
    if ego.min() < 0.1 and ego.max() > 4:
        found.add('the ego vehicle stops or starts')
    return found


def test_all_that_traffic_is_there_for_happens():
    found = Counter(what for drive in drives() for what in what_happens(drive))
    wanted = {
        'changes lanes', 'stops', 'stops and starts', 'pulls out of a parking place', 'turns',
        'crosses the road', 'waits or stops on foot', 'the ego vehicle turns',
        'the ego vehicle stops or starts'}
    assert wanted - found.keys() == set(), found
