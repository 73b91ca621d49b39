"""Roundabouts: driven counter-clockwise round an island, and who is inside goes first."""

from functools import cache
from types import SimpleNamespace

import numpy as np

from wm_ros.geometry import wrap_angle
from wm_ros.sim import seeds
from wm_ros.sim.drive import simulate
from wm_ros.sim.furniture import classes_at
from wm_ros.sim.layout import make_layout
from wm_ros.sim.roads import DRIVABLE
from wm_ros.sim.roundabout import has_room


@cache
def layouts():
    """Return (seed, layout, junction number) of a few roundabouts."""
    found = []
    for seed in range(100):
        layout = make_layout(seeds.generator(seed, seeds.LAYOUT))
        found += [(seed, layout, j) for j, junction in enumerate(layout.junctions)
                  if junction.radius_m]
        if len(found) >= 3:
            break
    return found[:3]


def test_paths_lead_counter_clockwise_round_the_island():
    for _, layout, j in layouts():
        junction, paths, turns = layout.junctions[j], layout.paths, []
        for i, e in zip(*np.nonzero(paths.event_junction == j), strict=True):
            a, b = int(max(paths.event_line[i, e], 0)), int(paths.event_exit[i, e])
            away = paths.points[i, a:b] - junction.xy
            distance = np.hypot(*away.T)
            assert distance.min() > junction.radius_m - 1.5, 'nobody drives over the island'
            assert np.all(classes_at(layout, paths.points[i, a:b]) & DRIVABLE)
            turn = np.sum(wrap_angle(np.diff(np.arctan2(away[:, 1], away[:, 0]))))
            assert turn > 0.2
            turns.append((paths.event_turn[i, e], turn))
        middle = [np.mean([t for k, t in turns if k == kind]) for kind in (2, 0, 1)]
        assert middle[0] < middle[1] - 1.0 < middle[2] - 2.0, 'right, straight on, left'
        assert not np.any(classes_at(layout, junction.xy) & DRIVABLE)


def test_vehicles_drive_round_without_touching():
    inside = overlaps = 0
    for seed, layout, j in layouts():
        drive = simulate(seed, 6.0, 'sim-hard')
        xy, radius = layout.junctions[j].xy, layout.junctions[j].radius_m + 4
        recording = drive.recording
        vehicles = np.flatnonzero(recording.classes < 4)
        for poses in recording.poses[::5, vehicles, :2]:
            near = poses[np.hypot(*(poses - xy).T) < radius]
            gap = np.hypot(*np.moveaxis(near[:, None] - near[None], -1, 0))
            inside += len(near)
            overlaps += int(np.sum(gap[np.triu_indices(len(near), 1)] < 1.9))
    assert inside > 50
    assert overlaps == 0


def test_there_is_room_only_while_nobody_comes_round():
    """One in the circle, at 6 m/s, seen by one who waits at the yield line of another arm."""
    for _, layout, j in layouts():
        paths, junction = layout.paths, layout.junctions[j]
        through = [i for i in np.flatnonzero((paths.event_junction == j).any(1))
                   if paths.lane[i] == i]
        own = int(through[0])
        line = float(paths.event_line[own, paths.event_junction[own] == j][0])
        join = paths.points[own, int(line) + 7]
        answers = {}
        for other in through[1:]:
            e = np.flatnonzero(paths.event_junction[other] == j)[0]
            first, last = int(paths.event_line[other, e]), int(paths.event_exit[other, e])
            way = np.hypot(*(paths.points[other, first:last] - join).T)
            nearest = first + int(np.argmin(way))
            if way.min() > 1.0:
                continue                          # leaves before, or comes in after
            for name, at in (('comes', nearest - 8), ('has passed', nearest + 12)):
                vehicles = SimpleNamespace(path=np.array([own, other]), s=np.array([line - 3, at]),
                                           v=np.array([0.0, 6.0]))
                answers.setdefault(name, []).append(
                    has_room(paths, vehicles, 0, line, np.array([1])))
        assert answers['comes'] and not any(answers['comes'])
        assert all(answers['has passed'])
        alone = SimpleNamespace(path=np.array([own]), s=np.array([line - 3]), v=np.zeros(1))
        assert has_room(paths, alone, 0, line, np.array([], int))
        assert np.hypot(*(join - junction.xy)) > junction.radius_m - 1
