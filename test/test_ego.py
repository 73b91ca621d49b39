"""Ego-motion at a stamp and plans, by hand."""

import numpy as np
import pytest

from wm_ros.ego import (
    NS,
    EgoHistory,
    EgoPush,
    constant_turn_rate_plan,
    extrapolate,
    plan_from_poses,
)
from wm_ros.types import EgoState, PlanSource

MS = 1_000_000


def state(stamp_ms, x=0.0, y=0.0, yaw=0.0, speed=0.0, rate=0.0):
    return EgoState(stamp_ms * MS, np.array([x, y, yaw]), speed, rate)


def test_the_newest_sample_that_is_not_newer_is_moved_on():
    history = EgoHistory()
    history.push(state(100, x=1.0, speed=10.0))
    history.push(state(200, x=99.0, speed=0.0))
    at = history.at(150 * MS)
    assert at.stamp_ns == 150 * MS
    np.testing.assert_allclose(at.odom_from_base, [1.5, 0, 0])   # 10 m/s for 50 ms
    assert history.at(99 * MS) is None                            # nothing that old
    np.testing.assert_allclose(history.at(200 * MS).odom_from_base, [99, 0, 0])


def test_a_quarter_circle():
    # Radius 10 m at 5 m/s: after pi s a quarter turn, at (10, 10).
    end = extrapolate(state(0, speed=5.0, rate=0.5), round(np.pi * NS))
    np.testing.assert_allclose(end.odom_from_base, [10, 10, np.pi / 2], atol=1e-6)
    turned = extrapolate(state(0, x=3, y=4, yaw=np.pi / 2, speed=5.0, rate=0.5), round(np.pi * NS))
    np.testing.assert_allclose(turned.odom_from_base[:2], [3 - 10, 4 + 10], atol=1e-6)


def test_old_samples_say_nothing():
    history = EgoHistory(max_age_ns=200 * MS)
    history.push(state(0))
    assert history.at(200 * MS) is not None
    assert history.at(201 * MS) is None
    assert not history.settled(1 * MS)
    history.push(state(1))
    assert history.settled(1 * MS)


def test_order_of_arrival_does_not_matter():
    samples = [state(10 * i, x=float(i), speed=1.0) for i in range(20)]
    asked = [10 * i * MS + 3 * MS for i in range(19)]
    rng = np.random.default_rng(1)
    wanted = None
    for _ in range(5):
        history = EgoHistory()
        for i in rng.permutation(len(samples)):
            history.push(samples[i])
        found = [history.at(stamp).odom_from_base.tolist() for stamp in asked]
        wanted = wanted or found
        assert found == wanted


def test_every_push_has_a_named_outcome():
    history = EgoHistory()
    assert history.push(state(2000)) is EgoPush.ACCEPTED
    assert history.push(state(2000)) is EgoPush.DUPLICATE
    assert history.push(state(1500)) is EgoPush.OUT_OF_ORDER
    assert history.push(state(2100, x=np.nan)) is EgoPush.REFUSED
    assert history.push(state(2100, speed=np.inf)) is EgoPush.REFUSED
    assert history.push(state(2100, rate=50.0)) is EgoPush.REFUSED
    assert len(history) == 2
    assert history.push(state(900)) is EgoPush.STAMP_JUMP
    assert len(history) == 1
    assert history.at(2000 * MS) is None


def test_memory_is_bounded():
    history = EgoHistory(keep_ns=5 * NS, capacity=100)
    for i in range(1000):
        history.push(state(i))
    assert len(history) == 100
    slow = EgoHistory(keep_ns=5 * NS)
    for i in range(100):
        slow.push(state(100 * i))
    assert len(slow) == 51


def test_constant_turn_rate_plan():
    plan = constant_turn_rate_plan(state(0, x=7, yaw=1.0, speed=4.0))
    assert plan.source is PlanSource.CONSTANT_TURN_RATE and plan.poses.dtype == np.float32
    np.testing.assert_allclose(plan.poses, [[2.0 * i, 0, 0] for i in range(1, 7)])
    arc = constant_turn_rate_plan(state(0, speed=np.pi, rate=np.pi / 2))   # radius 2 m
    np.testing.assert_allclose(arc.poses[1], [2, 2, np.pi / 2], atol=1e-6)     # 1 s
    np.testing.assert_allclose(arc.poses[3, :2], [0, 4], atol=1e-6)            # 2 s
    nothing = constant_turn_rate_plan(None)
    assert nothing.source is PlanSource.NONE and not nothing.poses.any()


def test_a_given_plan_is_resampled_in_base_link():
    # The vehicle stands at (10, 5) and looks along y; the path goes 3 m/s along y in the frame.
    times = np.arange(0, 4.01, 0.2)
    poses = np.column_stack([np.full(len(times), 10.0), 5 + 3 * times,
                             np.full(len(times), np.pi / 2)])
    plan = plan_from_poses((times * NS).astype(np.int64) + 1000, poses, 1000,
                           np.array([10.0, 5.0, np.pi / 2]))
    assert plan.source is PlanSource.GIVEN
    np.testing.assert_allclose(plan.poses, [[1.5 * i, 0, 0] for i in range(1, 7)], atol=1e-6)


def test_a_plan_that_started_before_the_stamp_and_crosses_pi():
    times = np.array([-1.0, 1.0, 3.0])
    poses = np.array([[-2, 0, 3.0], [2, 0, -3.0], [6, 0, -3.0]])
    plan = plan_from_poses((times * NS).astype(np.int64), poses, 0, np.zeros(3))
    np.testing.assert_allclose(plan.poses[:, 0], [1, 2, 3, 4, 5, 6], atol=1e-6)
    # From 3.0 to -3.0 is a turn of 0.283 through pi, not of 6 the other way.
    np.testing.assert_allclose(plan.poses[0, 2], 3.0 + 0.75 * (2 * np.pi - 6) - 2 * np.pi,
                               atol=1e-6)


def test_a_plan_that_begins_late_and_ends_early():
    plan = plan_from_poses(np.array([1 * NS, 2 * NS]), np.array([[2.0, 0, 0], [4.0, 0, 0]]), 0,
                           np.zeros(3))
    np.testing.assert_allclose(plan.poses, [[1.0 * i, 0, 0] for i in range(1, 7)], atol=1e-6)


@pytest.mark.parametrize('times,poses,wanted', [
    ([], np.zeros((0, 3)), 'want M stamps'),
    ([1, 2], np.zeros((1, 3)), 'want M stamps'),
    ([1, 2], np.full((2, 3), np.nan), 'finite'),
    ([2, 1], np.zeros((2, 3)), 'ascending'),
    ([0.1, 0.3], np.zeros((2, 3)), 'ends 0.300 s after the frame, want at least 0.5'),
    ([0.0, 3.0], np.array([[0, 0, 0], [2000.0, 0, 0]]), 'want at most 400'),
    ([0.5, 3.0], np.full((2, 3), 1e308), 'want at most 400'),
    # Poses of another place than the vehicle's: the origin of their frame is not that of odometry.
    ([0.5, 3.0], np.array([[60.0, 0, 0], [70.0, 0, 0]]), '60 m within 0.5 s, .* want at most 50 m'),
    # A clock that went back, or a planner on another one: it would be a plan to stand still.
    ([3.1, 4.0], np.zeros((2, 3)), 'begins 3.100 s after the frame, want at most 3 s'),
    ([1e9, 1e9 + 3], np.zeros((2, 3)), 'begins 1000000000.000 s after the frame'),
])
def test_bad_plans_are_refused_by_name(times, poses, wanted):
    with pytest.raises(ValueError, match=wanted):
        plan_from_poses((np.array(times) * NS).astype(np.int64), poses, 0, np.zeros(3))


def test_a_clock_that_goes_back_a_little_begins_the_history_anew():
    history = EgoHistory()
    for i in range(100):
        history.push(state(10 * i, x=0.1 * i))
    # The clock steps back by half a second and a bit; the vehicle drives on.
    results = [history.push(state(485 + 10 * i, x=10.0 + 0.1 * i)) for i in range(20)]
    assert results[:4] == [EgoPush.OUT_OF_ORDER] * 2 + [EgoPush.STAMP_JUMP, EgoPush.ACCEPTED]
    assert history.newest_ns == 675 * MS and len(history) == 20
    assert history.at(500 * MS).odom_from_base[0] == pytest.approx(10.1, abs=0.02)


def test_samples_that_are_only_late_drop_nothing():
    history = EgoHistory()
    for i in range(100):
        history.push(state(10 * i))
        if i >= 40 and i % 2:       # a second source, 300 ms behind
            assert history.push(state(10 * i - 305)) is EgoPush.OUT_OF_ORDER
    assert len(history) == 130
