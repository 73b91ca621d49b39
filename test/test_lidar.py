"""Occupancy against lidar: cells by hand."""

import numpy as np
from truths import make_forecast

from wm_ros.evaluate.lidar import against_lidar, hit_and_bare


def box(x, y, z, n=3):
    return np.tile([x, y, z], (n, 1)).astype(float)


def test_cells_are_hit_by_obstacles_and_bare_with_ground_alone():
    points = np.concatenate([box(10.1, 0.1, 1.0), box(10.1, 0.1, 0.0), box(20.1, 0.1, 0.05),
                             box(30.1, 0.1, 1.0, n=1), box(5.1, 5.1, 3.0), box(60.0, 0.0, 1.0)])
    hit, bare = hit_and_bare(points)
    # x 10.1 is column (10.1 + 50) / 0.5 = 120, y 0.1 row 100.
    assert np.argwhere(hit).tolist() == [[100, 120]]
    assert np.argwhere(bare).tolist() == [[100, 140]]


def test_a_forecast_is_held_against_where_things_were_later():
    """The vehicle drives 10 m ahead in a second; a wall stands 20 m ahead of where it began."""
    stamps = np.arange(4) * 1_000_000_000
    poses = np.array([[10.0 * i, 0.0, 0.0] for i in range(4)])

    def points_at(i):
        return np.concatenate([box(20.1 - 10 * i, 0.1, 1.0), box(30.1 - 10 * i, 0.1, 0.0)])

    occupancy = np.zeros((7, 200, 200), np.uint8)
    occupancy[0, 100, 140] = 254        # the wall, now
    occupancy[2, 100, 160] = 254        # and bare ground, in 1 s
    occupancy[:, :, :50] = 255
    forecast = make_forecast(occupancy=occupancy)
    report = against_lidar([forecast, make_forecast(valid=False)], stamps, poses,
                           points_at).report()
    assert report['windows'] == 1
    assert report['hit_cells'] == [1, 1, 1, 1] and report['bare_cells'] == [1, 1, 1, 1]
    assert report['hit_called_occupied'] == {'0': 1.0, '1': 0.0, '2': 0.0, '3': 0.0}
    assert report['bare_called_occupied'] == {'0': 0.0, '1': 1.0, '2': 0.0, '3': 0.0}
    # A sweep too far from the time asked for says nothing.
    assert against_lidar([forecast], stamps[:1], poses[:1], points_at).report()[
        'hit_called_occupied']['1'] is None
