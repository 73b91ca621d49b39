"""Roundabouts: driven counter-clockwise round an island, and who is inside goes first."""

import numpy as np

from wm_ros.geometry import wrap_angle
from wm_ros.sim import seeds
from wm_ros.sim.drive import simulate
from wm_ros.sim.furniture import classes_at
from wm_ros.sim.layout import make_layout
from wm_ros.sim.roads import DRIVABLE


def layouts(count):
    """Yield (seed, layout, junction number) of the first `count` roundabouts."""
    found = 0
    for seed in range(400):
        layout = make_layout(seeds.generator(seed, seeds.LAYOUT))
        for j, junction in enumerate(layout.junctions):
            if junction.radius_m and found < count:
                found += 1
                yield seed, layout, j
        if found == count:
            return


def test_paths_lead_counter_clockwise_round_the_island():
    for _, layout, j in layouts(4):
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
    for seed, layout, j in layouts(6):
        drive = simulate(seed, 6.0, 'sim-hard')
        xy, radius = layout.junctions[j].xy, layout.junctions[j].radius_m + 4
        recording = drive.recording
        vehicles = np.flatnonzero(recording.classes < 4)
        for poses in recording.poses[::5, vehicles, :2]:
            near = poses[np.hypot(*(poses - xy).T) < radius]
            gap = np.hypot(*np.moveaxis(near[:, None] - near[None], -1, 0))
            inside += len(near)
            overlaps += int(np.sum(gap[np.triu_indices(len(near), 1)] < 1.9))
    assert inside > 100
    assert overlaps == 0
