"""The baselines' paths by hand, and turn rates from one forecast to the next."""

import numpy as np
import pytest
from truths import make_agent, make_forecast, make_truth

from wm_ros.evaluate import baselines
from wm_ros.evaluate.agents import Detections, agent_scores, count_agents


def one(name, pose=(1.0, 2.0, 0.0), velocity=(4.0, -2.0), rate=0.0):
    """Return the future poses (6, 3) of one agent."""
    return baselines.paths(name, np.array([pose]), np.array([velocity]), np.array([rate]))[0]


def test_static_stands_still():
    np.testing.assert_array_equal(one('static'), np.tile([1.0, 2.0, 0.0], (6, 1)))


def test_constant_velocity_after_three_seconds():
    np.testing.assert_allclose(one('constant_velocity')[-1], [13.0, -4.0, 0.0])
    np.testing.assert_allclose(one('constant_velocity')[0], [3.0, 1.0, 0.0])


def test_constant_turn_rate_is_a_circle():
    # 5 m/s at 0.5 rad/s is a circle of 10 m: after t at (10 sin wt, 10 (1 - cos wt)).
    future = one('constant_turn_rate', (0, 0, 0), (5, 0), 0.5)
    angle = 0.5 * 0.5 * np.arange(1, 7)
    np.testing.assert_allclose(future[:, 0], 10 * np.sin(angle))
    np.testing.assert_allclose(future[:, 1], 10 * (1 - np.cos(angle)))
    np.testing.assert_allclose(future[:, 2], angle)


def test_no_turn_is_constant_velocity():
    np.testing.assert_allclose(one('constant_turn_rate'), one('constant_velocity'))


def test_wild_and_slow_turns_go_straight():
    for velocity, rate in (((5, 0), 1.5), ((0.5, 0), 0.5)):
        np.testing.assert_allclose(one('constant_turn_rate', velocity=velocity, rate=rate),
                                   one('constant_velocity', velocity=velocity))


def test_an_unknown_baseline_is_refused():
    with pytest.raises(ValueError, match="want one of static, .* got 'kalman'"):
        one('kalman')


def test_turn_rates_follow_ids_in_odom():
    turns = baselines.TurnRates()
    assert turns.update(0, ['a', 'b'], np.array([0.1, 0.2]), 0.0).tolist() == [0.0, 0.0]
    # The vehicle turned by 0.1; 'a' turned with it by 0.2 over ground, 'c' is new.
    rates = turns.update(500_000_000, ['c', 'a'], np.array([0.0, 0.2]), 0.1)
    np.testing.assert_allclose(rates, [0.0, 0.4])
    # Read backwards, then after too long, then without odometry.
    assert turns.update(1_000_000_000, ['a'], np.array([0.3 + np.pi]), 0.1)[0] == 0.0
    assert turns.update(3_000_000_000, ['a'], np.array([0.5 + np.pi]), 0.1)[0] == 0.0
    assert turns.update(3_500_000_000, ['a'], np.array([0.6 + np.pi]), None)[0] == 0.0
    assert turns.update(4_000_000_000, ['a'], np.array([0.6 + np.pi]), 0.1)[0] == 0.0


def test_a_turn_across_pi_is_small():
    turns = baselines.TurnRates()
    turns.update(0, [1], np.array([np.pi - 0.1]), 0.0)
    rate = turns.update(500_000_000, [1], np.array([-np.pi + 0.1]), 0.0)
    np.testing.assert_allclose(rate, [0.4])


def test_a_baseline_has_the_models_boxes_and_one_path():
    truth = make_truth([[10, 0, 0]], velocities=[[6, 0]])
    detections = Detections.of(make_forecast([make_agent((10, 0.5), velocity=(6, 0))]))
    told, future = baselines.baseline_detections('constant_velocity', detections, np.zeros(1))
    assert told.trajectories.shape == (1, 1, 6, 2)
    scores = agent_scores(count_agents(told, truth))
    assert scores['spa_top1'] == scores['spa_top6'] == 100.0
    assert scores['min_fde_6'] == pytest.approx(0.5)
    still, _ = baselines.baseline_detections('static', detections, np.zeros(1))
    assert agent_scores(count_agents(still, truth))['spa_top1'] == 0.0
    assert baselines.box_occupancy(told, future)[6, 100:102, 156].all()  # x = 28 m after 3 s


def test_the_oracle_finds_all_that_is_visible():
    truth = make_truth([[10, 0, 0], [0, 20, 1.0], [5, 5, 0]], velocities=[[3, 0], [0, 0], [1, 0]],
                       visible=[True, True, False])
    oracle = baselines.oracle_detections('constant_velocity', truth, np.zeros(3))
    scores = agent_scores(count_agents(oracle, truth))
    assert (scores['recall'], scores['precision'], scores['spa_top1']) == (1.0, 1.0, 100.0)


def test_a_hidden_agent_beside_a_visible_one_does_not_take_its_place():
    # The hidden one comes first, stands 1 m off and goes the other way.
    truth = make_truth([[11, 0, 0], [10, 0, 0]], velocities=[[-3, 0], [3, 0]],
                       visible=[False, True])
    oracle = baselines.oracle_detections('constant_velocity', truth, np.zeros(2))
    assert agent_scores(count_agents(oracle, truth))['spa_top1'] == 100.0
