"""Boxes to cells: held against a test of every cell, and by hand where a box is simple."""

import time

import numpy as np
import pytest
from truths import make_truth

from wm_ros import raster
from wm_ros.types import OUTPUT_GRID, BevGrid

GRID = BevGrid(-5.0, -5.0, 0.5, 20, 20)


def brute_force(poses, sizes, grid):
    """Say of every cell whether its centre is in a box or a box's centre in it."""
    occupied = np.zeros(grid.shape, dtype=bool)
    for row in range(grid.rows):
        for col in range(grid.cols):
            x = grid.x_min_m + (col + 0.5) * grid.cell_m
            y = grid.y_min_m + (row + 0.5) * grid.cell_m
            for (px, py, yaw), (length, width, _) in zip(poses, sizes, strict=True):
                dx, dy = x - px, y - py
                along = np.cos(yaw) * dx + np.sin(yaw) * dy
                across = -np.sin(yaw) * dx + np.cos(yaw) * dy
                half = grid.cell_m / 2
                if ((abs(along) <= length / 2 and abs(across) <= width / 2)
                        or (-half < dx <= half and -half < dy <= half)):
                    occupied[row, col] = True
    return occupied


def test_a_box_of_two_by_one_metres_covers_eight_cells():
    # Centre at (1, 0.5): x in [0, 2], y in [0, 1] -> columns 10-13, rows 10-11.
    truth = make_truth(poses=[[1.0, 0.5, 0.0]], sizes=[[2.0, 1.0, 1.5]])
    occupied = raster.agent_occupancy(truth, 0, GRID)
    want = np.zeros((20, 20), dtype=bool)
    want[10:12, 10:14] = True
    np.testing.assert_array_equal(occupied, want)


def test_a_turned_box_lies_along_y():
    truth = make_truth(poses=[[0.5, 1.0, np.pi / 2]], sizes=[[1.99, 0.99, 1.5]])
    occupied = raster.agent_occupancy(truth, 0, GRID)
    want = np.zeros((20, 20), dtype=bool)
    want[10:14, 10:12] = True
    np.testing.assert_array_equal(occupied, want)


def test_random_boxes_equal_the_test_of_every_cell():
    rng = np.random.default_rng(3)
    poses = np.column_stack([rng.uniform(-7, 7, (40, 2)), rng.uniform(-4, 4, 40)])
    sizes = np.column_stack([rng.uniform(0.3, 6, 40), rng.uniform(0.3, 2.5, 40), np.ones(40)])
    for i in range(0, 40, 4):
        truth = make_truth(poses=poses[i:i + 4], sizes=sizes[i:i + 4])
        np.testing.assert_array_equal(raster.agent_occupancy(truth, 0, GRID),
                                      brute_force(poses[i:i + 4], sizes[i:i + 4], GRID))


def test_a_pedestrian_never_falls_between_cells():
    for shift in np.linspace(0, 0.5, 7):
        truth = make_truth(poses=[[shift, shift, 0.4]], sizes=[[0.3, 0.3, 1.7]])
        assert raster.agent_occupancy(truth, 0, GRID).sum() >= 1


def test_boxes_beside_the_grid_and_unknown_futures_cover_nothing():
    truth = make_truth(poses=[[60.0, 0.0, 0.0], [0.0, 0.0, 0.0], [-5000.0, 1.0, 0.3]],
                       futures=np.full((3, 6, 3), np.nan))
    assert not raster.agent_occupancy(truth, 0, OUTPUT_GRID, agents=np.array([0, 2])).any()
    assert raster.agent_occupancy(truth, 0, OUTPUT_GRID).any()
    assert not raster.agent_occupancy(truth, 3, OUTPUT_GRID).any()


def test_an_empty_truth_is_an_empty_grid():
    truth = make_truth(poses=np.zeros((0, 3)))
    assert not raster.agent_occupancy(truth, 0).any()
    assert not raster.agent_flow(truth, 1).any()


def test_flow_points_back_along_the_motion():
    # 4 m/s forward: half a second earlier the car was 2 m behind.
    futures = np.array([[[2.0 * t, 0.0, 0.0] for t in range(1, 7)]])
    truth = make_truth(poses=[[0.0, 0.0, 0.0]], velocities=[[4.0, 0.0]], futures=futures)
    for step in (0, 1, 6):
        flow = raster.agent_flow(truth, step)
        occupied = raster.agent_occupancy(truth, step)
        np.testing.assert_allclose(flow[0][occupied], -2.0, atol=1e-6)
        np.testing.assert_allclose(flow[1][occupied], 0.0, atol=1e-6)
        assert not flow[:, ~occupied].any()


def test_flow_carries_a_turning_box_back_onto_itself():
    futures = np.zeros((1, 6, 3))
    futures[0, :, 2] = np.radians(30) * np.arange(1, 7)
    futures[0, :, 0] = 3.0 * np.arange(1, 7)
    truth = make_truth(poses=[[0.0, 0.0, 0.0]], sizes=[[8.0, 2.0, 3.0]], futures=futures)
    flow = raster.agent_flow(truth, 2)
    occupied = raster.agent_occupancy(truth, 2)
    came_from = (OUTPUT_GRID.centres_m() + flow.transpose(1, 2, 0))[occupied]
    x, y, yaw = futures[0, 0]
    dx, dy = came_from[:, 0] - x, came_from[:, 1] - y
    assert np.abs(np.cos(yaw) * dx + np.sin(yaw) * dy).max() <= 4.0 + 1e-4
    assert np.abs(-np.sin(yaw) * dx + np.cos(yaw) * dy).max() <= 1.0 + 1e-4
    # A corner 4 m ahead of the centre swings further than the centre moves.
    assert np.ptp(flow[1][occupied]) > 3.0


def test_a_step_beyond_the_horizon_is_refused():
    with pytest.raises(ValueError, match='step: want -1 .. 6, got 7'):
        raster.agent_occupancy(make_truth(poses=[[0.0, 0.0, 0.0]]), 7)


def test_thirty_agents_take_well_under_a_frame():
    rng = np.random.default_rng(0)
    truth = make_truth(poses=np.column_stack([rng.uniform(-45, 45, (30, 2)),
                                              rng.uniform(-3, 3, 30)]))
    raster.agent_occupancy(truth, 0)
    seconds = []
    for _ in range(20):
        start = time.process_time()     # of the processor: others may use this machine
        raster.agent_occupancy(truth, 0)
        raster.agent_flow(truth, 0)
        seconds.append(time.process_time() - start)
    assert min(seconds) < 0.01
