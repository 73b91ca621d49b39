"""The simulator's truth: the same everywhere, and consistent with itself."""

import dataclasses
import hashlib
import subprocess
import sys

import numpy as np
import pytest

from wm_ros.data.sim_bag import DriveSettings, _odometry_states, leaves_road_s
from wm_ros.evaluate.shares import shares
from wm_ros.geometry import cells_of, relative_pose, transform_points
from wm_ros.raster import agent_flow, agent_occupancy
from wm_ros.sim.drive import RANGE_M, simulate
from wm_ros.sim.observed import observed_cells
from wm_ros.sim.rigs import random_rig, rig
from wm_ros.types import OUTPUT_GRID, CameraRig, EgoState, PlanSource


def digest(seed: int) -> str:
    drive = simulate(seed, 2.0)
    truth = drive.truth(7, rig('surround'))
    total = hashlib.sha256()
    for array in (drive.recording.poses, drive.layout.classes, truth.futures, truth.observed,
                  truth.road, truth.ids):
        total.update(np.ascontiguousarray(array).tobytes())
    return total.hexdigest()


def test_one_seed_gives_one_drive_in_every_process():
    code = 'import sys; sys.path.insert(0, "test"); from test_sim_drive import digest; ' \
        'print(digest(12))'
    other = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == digest(12)
    assert digest(13) != digest(12)


def test_futures_are_where_the_agents_are_later():
    drive = simulate(3, 4.0)
    cameras = rig('front')
    now, later = drive.truth(2, cameras), drive.truth(17, cameras)     # 1.5 s on
    step = relative_pose(now.ego.odom_from_base, later.ego.odom_from_base)
    compared = 0
    for a, agent in enumerate(now.ids):
        b = np.flatnonzero(later.ids == agent)
        if len(b):
            expected = transform_points(step, later.poses[b[0], :2])
            np.testing.assert_allclose(now.futures[a, 2, :2], expected, atol=1e-6)
            compared += 1
    assert compared > 5
    np.testing.assert_allclose(now.ego_plan.poses[2], step, atol=1e-6)
    assert now.ego_plan.source is PlanSource.GIVEN


def test_velocity_is_the_slope_of_the_path():
    drive = simulate(5, 3.0)
    truth = drive.truth(10, rig('front'))
    speed = np.hypot(*truth.velocities.T)
    moved = np.hypot(*(truth.futures[:, 0, :2] - truth.poses[:, :2]).T) / 0.5
    assert (speed > 2).sum() >= 3
    assert np.all(np.abs(speed - moved) < 3.0)       # 6 m/s^2 for half a second
    along = (truth.futures[:, 0, :2] - truth.poses[:, :2]) / 0.5
    fast = speed > 3
    assert fast.any() and (np.hypot(*(truth.velocities - along)[fast].T) < 2.0).all()
    assert np.isfinite(truth.futures).all()


def test_flow_carries_occupancy_from_the_step_before():
    there, stayed = [], []
    for seed in (3, 5):
        truth = simulate(seed, 1.0, 'sim-hard').truth(2, rig('front'))
        for step in range(1, 7):
            flow, before = agent_flow(truth, step), agent_occupancy(truth, step - 1)
            moving = agent_occupancy(truth, step) & (np.hypot(*flow) > 1.5)
            came_from = (OUTPUT_GRID.centres_m() + np.moveaxis(flow, 0, -1))[moving]
            inside = np.abs(came_from).max(1) < 49
            there += before[cells_of(OUTPUT_GRID, came_from[inside])].tolist()
            stayed += before[moving][inside].tolist()
    assert len(there) > 300
    # Cells are half a metre wide: on the edge of a box one may have come from beside it.
    assert np.mean(there) > 0.85 > 0.6 > np.mean(stayed)


def test_ego_state_follows_its_own_pose():
    drive = simulate(8, 6.0)
    for i in range(1, drive.n - 1, 7):
        a, b = drive.ego(i - 1).odom_from_base, drive.ego(i + 1).odom_from_base
        step = relative_pose(a, b)
        assert drive.ego(i).speed_mps == pytest.approx(np.hypot(step[0], step[1]) / 0.2, abs=0.02)
        assert drive.ego(i).yaw_rate_rps == pytest.approx(step[2] / 0.2, abs=0.01)
        # What the traffic model drove at, which nobody has taken a difference of.
        at = drive.step_at(drive.time_s(i))
        assert drive.ego(i).speed_mps == pytest.approx(drive.recording.axle[at, 3], abs=0.4)
    assert np.all(np.diff(drive.stamps_ns) == 100_000_000)


def test_other_rates_sample_the_same_drive():
    slow, fast = simulate(8, 2.0, rate_hz=10.0), simulate(8, 2.0, rate_hz=20.0)
    assert (slow.n, fast.n) == (20, 40)
    np.testing.assert_allclose(slow.ego(6).odom_from_base, fast.ego(12).odom_from_base, atol=1e-9)


def test_agents_beyond_60_m_are_left_out():
    drive = simulate(2, 2.0)
    truth = drive.truth(0, rig('front'))
    t = drive.time_s(0)
    far = np.hypot(*(drive.poses_at(t)[1:, :2] - drive.base_at(t)[:2]).T)
    assert len(truth.ids) == np.sum(far < RANGE_M) < len(far)
    assert np.all(np.hypot(*truth.poses[:, :2].T) < RANGE_M)


def test_road_layers_are_sane():
    cameras = rig('front')
    on_road = []
    for seed in range(6):
        truth = simulate(seed, 1.0).truth(3, cameras)
        drivable, walkway, static = truth.road
        row, col = cells_of(OUTPUT_GRID, np.array([0.3, 0.0]))
        assert drivable[row, col], 'the ego stands on the road'
        assert not static[row, col]
        assert 0.05 < drivable.mean() < 0.8 and 0.005 < walkway.mean() < 0.5
        assert 0 < static.mean() < 0.6
        assert (drivable & static).mean() < 0.005
        driving = (np.hypot(*truth.velocities.T) > 2.5) & (truth.classes < 4)
        near = driving & (np.abs(truth.poses[:, :2]).max(1) < 49)
        row, col = cells_of(OUTPUT_GRID, truth.poses[near, :2])
        on_road += drivable[row, col].tolist()
    assert len(on_road) > 20 and np.mean(on_road) > 0.97


def test_nothing_is_observed_behind_a_wall():
    front = rig('front')
    heights = np.zeros(OUTPUT_GRID.shape, np.float32)
    open_ground = observed_cells(front, heights, np.zeros((0, 3)), np.zeros((0, 3)))
    at = lambda x, y: tuple(cells_of(OUTPUT_GRID, np.array([x, y], float)))    # noqa: E731
    assert open_ground[at(30, 0.2)] and open_ground[at(49, 0.2)]
    assert not open_ground[at(-10, 0)] and not open_ground[at(0, 20)]
    assert not open_ground[at(2.5, 0.2)], 'below the picture'
    row, col = at(20, 0)
    heights[row - 10:row + 10, col:col + 2] = 4.0
    walled = observed_cells(front, heights, np.zeros((0, 3)), np.zeros((0, 3)))
    assert walled[at(20.2, 0.2)] and walled[at(15, 0.2)]
    assert not walled[at(22, 0.2)] and not walled[at(45, 0.2)]
    assert walled[at(30, 12)]


def test_a_car_hides_the_ground_only_so_far():
    """Lens 1.51 m, roof 1.0 m at 12 m: hidden up to about 12.0 * 1.51 / 0.51 = 35 m."""
    front = rig('front')
    heights = np.zeros(OUTPUT_GRID.shape, np.float32)
    pose, size = np.array([[11.7, 0.0, 0.0]]), np.array([[4.0, 1.8, 1.0]])
    seen = observed_cells(front, heights, pose, size)
    at = lambda x: tuple(cells_of(OUTPUT_GRID, np.array([x, 0.2])))            # noqa: E731
    assert seen[at(9.5)] and seen[at(12.0)] and seen[at(13.4)], 'the car itself'
    assert not seen[at(18.0)] and not seen[at(30.0)]
    assert seen[at(44.0)]
    tall = observed_cells(front, heights, pose, np.array([[4.0, 1.8, 2.5]]))
    assert not tall[at(44.0)]


def test_observed_needs_the_camera_that_looks_there():
    drive = simulate(4, 1.0)
    surround = rig('surround')
    every = drive.truth(0, surround).observed
    parts = [drive.truth(0, CameraRig((c,))).observed for c in surround.cameras]
    assert all(0 < part.mean() < every.mean() for part in parts)
    assert np.array_equal(np.any(parts, axis=0), every)


@pytest.mark.parametrize('world,low,high', [('sim', 80.0, 89.0), ('sim-hard', 0.0, 70.0)])
def test_constant_velocity_reaches_what_the_mix_is_meant_for(world, low, high):
    result = shares(world, range(820_000, 820_030))
    print(world, {name: round(float(value), 1) for name, value in result.items()})
    assert low <= result['cv_spa'] <= high
    assert result['agents'] > 1000


def test_random_rigs_keep_to_their_bounds():
    rng = np.random.default_rng(0)
    for _ in range(60):
        count = int(rng.integers(1, 7))
        cameras = random_rig(rng, count)
        assert len(cameras) == count == len(set(cameras.names))
        for camera in cameras.cameras:
            assert 1.0 < camera.base_from_camera[2, 3] < 2.4
            hfov = 2 * np.arctan(camera.width / 2 / camera.k[0, 0])
            assert np.deg2rad(40) < hfov < np.deg2rad(120)
            assert abs(camera.base_from_camera[2, 2]) < np.sin(np.deg2rad(4))


@pytest.mark.parametrize('call', [
    lambda: simulate(0, 1.0, 'mars'), lambda: simulate(0, 0.0), lambda: rig('twelve'),
    lambda: random_rig(np.random.default_rng(0), 7)])
def test_wrong_arguments_are_named(call):
    with pytest.raises(ValueError, match='want'):
        call()


def test_a_drive_past_the_end_of_its_road_is_told_to_the_second():
    long = DriveSettings(3, 40.0, 'front', 'sim', 90)
    off_s = leaves_road_s(long)
    assert off_s is not None and 20 < off_s < 40
    assert leaves_road_s(dataclasses.replace(long, seconds=off_s - 0.5)) is None
    assert leaves_road_s(dataclasses.replace(long, seed=900000, seconds=20.0)) is None


@pytest.mark.parametrize('frames', [1, 2, 31])
def test_odometry_between_pictures_comes_at_50_hz_and_doubles_none(frames):
    stamps = (10 ** 9 + np.arange(frames) * 100_000_000
              + np.random.default_rng(0).integers(-3_000_000, 3_000_000, frames)).tolist()
    states = [EgoState(stamp, np.array([0.5 * i, 0.0, 0.0]), 5.0, 0.0)
              for i, stamp in enumerate(stamps)]
    found = np.array([state.stamp_ns for state in _odometry_states(states, stamps)])
    assert set(stamps) <= set(found.tolist()) and (np.diff(found) >= 10_000_000).all()
    assert frames == 1 or np.median(np.diff(found)) == pytest.approx(20_000_000, abs=3_000_000)
