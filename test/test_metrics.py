"""Each formula on values worked out by hand."""

import numpy as np
import pytest
from truths import make_agent, make_forecast, make_truth

from wm_ros.evaluate import agents, calibration, metrics, occupancy
from wm_ros.evaluate.agents import Detections, count_agents, match
from wm_ros.evaluate.bootstrap import paired_bootstrap

STEPS = np.arange(1, 7)


def straight(start, velocity):
    """Return (6, 2) waypoints of constant velocity."""
    return np.asarray(start, float) + 0.5 * STEPS[:, None] * np.asarray(velocity, float)


def rates(forecast, truth, threshold=0.0):
    """Return the agent rates of one forecast."""
    return agents.agent_scores(count_agents(Detections.of(forecast, threshold), truth))


def test_a_final_offset_of_three_and_four_metres_is_an_fde_of_five():
    future = straight((0, 0), (2, 0))
    path = future.copy()
    path[-1] += (3, 4)
    distances = metrics.displacements(path[None], future)
    assert metrics.min_fde(distances) == pytest.approx(5.0)
    assert metrics.min_ade(distances) == pytest.approx(5.0 / 6)
    assert not metrics.path_is_right(distances)


def test_the_best_mode_counts_each_time_anew():
    future = np.zeros((6, 2))
    near_end = np.full((6, 2), (3.0, 0.0))
    near_end[-1] = (0.5, 0.0)
    near_all = np.full((6, 2), (1.0, 0.0))
    distances = metrics.displacements(np.stack([near_end, near_all]), future)
    assert metrics.min_fde(distances) == pytest.approx(0.5)
    assert metrics.min_ade(distances) == pytest.approx(1.0)
    assert metrics.path_is_right(distances)
    assert not metrics.path_is_right(distances[:1])


def test_a_path_is_wrong_at_two_metres_and_right_under_them():
    future = np.zeros((6, 2))
    for offset, right in ((1.999, True), (2.0, False)):
        path = future.copy()
        path[2, 0] = offset
        assert metrics.path_is_right(metrics.displacements(path[None], future)) == right


def test_top_modes_are_the_most_probable_ones():
    paths = np.arange(4)[:, None, None] * np.ones((4, 6, 2))
    top = metrics.top_modes(paths, np.array([0.1, 0.4, 0.2, 0.3]), 2)
    assert top[:, 0, 0].tolist() == [1.0, 3.0]


def test_epa_by_hand():
    # 6 hits, 4 false positives, 10 agents: (6 - 0.5 * 4) / 10.
    assert metrics.end_to_end_prediction_accuracy(6, 4, 10) == pytest.approx(0.4)


def test_a_rate_of_nothing_is_not_a_number():
    assert np.isnan(metrics.ratio(0, 0))
    assert metrics.iou(2, 4, 3) == pytest.approx(2 / 5)


def test_expected_calibration_error_by_hand():
    # Ten cases said 0.8, seven came true; ten said 0.2, two came true: (1 + 0) / 20.
    error = metrics.expected_calibration_error(
        np.array([2.0, 8.0]), np.array([2.0, 7.0]), np.array([10.0, 10.0]))
    assert error == pytest.approx(0.05)


def test_average_precision_by_hand():
    # Descending: positive, negative, positive -> 1 * 1/2 + 2/3 * 1/2.
    area = metrics.average_precision(np.array([1.0, 0.0, 1.0]), np.array([0.0, 1.0, 0.0]))
    assert area == pytest.approx(0.5 + 1 / 3)


def test_the_higher_score_takes_the_agent_and_the_other_is_left():
    truth = np.array([[0.0, 0.0], [10.0, 0.0]])
    partner = match(np.array([[0.1, 0.0], [1.0, 0.0], [10.0, 2.1]]), np.array([0.5, 0.9, 0.8]),
                    truth, np.ones(2, bool))
    assert partner.tolist() == [-1, 0, -1]


def test_a_visible_agent_is_taken_before_a_nearer_hidden_one():
    truth = np.array([[0.0, 0.0], [1.5, 0.0]])
    partner = match(np.zeros((2, 2)), np.array([0.9, 0.8]), truth, np.array([False, True]))
    assert partner.tolist() == [1, 0]


def test_a_found_hidden_agent_is_neither_hit_nor_false_positive():
    truth = make_truth(poses=[[10, 0, 0], [20, 0, 0]], visible=[True, False])
    got = rates(make_forecast([make_agent((10, 0)), make_agent((20, 1))]), truth)
    assert got['recall'] == 1.0
    assert got['precision'] == 1.0
    got = rates(make_forecast([make_agent((10, 0)), make_agent((24, 1))]), truth)
    assert got['precision'] == 0.5


def test_a_twin_is_a_false_positive():
    truth = make_truth(poses=[[10, 0, 0]])
    got = rates(make_forecast([make_agent((10, 0)), make_agent((10.5, 0))]), truth)
    assert got['precision'] == 0.5
    assert got['epa'] == pytest.approx(0.5)


def test_an_agent_on_the_border_of_the_range_is_not_missed_and_invented_at_once():
    truth = make_truth(poses=[[29.5, 0, 0]])
    got = rates(make_forecast([make_agent((30.5, 0))]), truth)
    assert (got['recall'], got['precision']) == (1.0, 1.0)
    beyond = make_truth(poses=[[30.5, 0, 0], [1.0, 9.0, 0]])
    got = rates(make_forecast([make_agent((29.5, 0))]), beyond)
    assert got['recall'] == 0.0
    assert np.isnan(got['precision'])
    assert got['recall_50m'] == 0.5


def test_scene_prediction_accuracy_by_hand():
    # Four visible agents: found with a right path in mode 3; found, all paths wrong; missed; and
    # found with a right first path. A fifth is hidden.
    poses = [[10, 0, 0], [0, 10, 0], [-10, 0, 0], [0, -10, 0], [5, 5, 0]]
    velocities = [[4, 0], [0, 4], [0, 0], [0, 0], [0, 0]]
    truth = make_truth(poses, velocities=velocities, visible=[1, 1, 1, 1, 0])
    modes = np.stack([straight((10, 0), (0, v)) for v in (1, 2, 3, 4, 5, 6)])
    modes[2] = straight((10, 0), (3.5, 0))
    probabilities = np.array([0.3, 0.2, 0.1, 0.15, 0.15, 0.1])
    got = rates(make_forecast([
        make_agent((10, 0), trajectories=modes, probabilities=probabilities),
        make_agent((0, 10)), make_agent((0, -10.5))]), truth)
    assert got['spa_top6'] == pytest.approx(50.0)
    assert got['spa_top1'] == pytest.approx(25.0)
    # Two of four move; one of them has a right path.
    assert got['spa_top6_moving'] == pytest.approx(50.0)
    assert got['spa_top1_moving'] == pytest.approx(0.0)
    assert got['recall'] == pytest.approx(0.75)
    # Paths of found agents: best errors at 3 s are 1.5, 12 and 0.5 m.
    assert got['min_fde_6'] == pytest.approx((1.5 + 12 + 0.5) / 3)
    assert got['min_ade_6'] == pytest.approx((0.875 + 7 + 0.5) / 3)
    assert got['miss_rate_6'] == pytest.approx(1 / 3)
    assert got['epa'] == pytest.approx(0.5)


def test_spa_by_horizon_judges_up_to_that_horizon():
    truth = make_truth([[10, 0, 0]], velocities=[[1.5, 0]])
    # Standing still is 1.5 m off after 1 s and 3 m after 2 s.
    got = rates(make_forecast([make_agent((10, 0))]), truth)
    assert got['spa_top1_by_horizon'].tolist() == [100.0, 100.0, 0.0, 0.0]


def test_an_agent_without_a_whole_future_counts_for_recall_only():
    futures = np.zeros((2, 6, 3))
    futures[1, 4:] = np.nan
    futures[0, :, 0] = 10.0
    truth = make_truth([[10, 0, 0], [0, 5, 0]], futures=futures)
    got = rates(make_forecast([make_agent((10, 0)), make_agent((0, 5))]), truth)
    assert got['recall'] == 1.0
    assert got['spa_top6'] == 100.0
    only = rates(make_forecast([make_agent((10, 0))]), truth)
    assert only['recall'] == 0.5
    assert only['spa_top6'] == 100.0


def test_scores_by_class():
    truth = make_truth([[10, 0, 0], [0, 5, 0]], classes=[0, 6])
    got = rates(make_forecast([make_agent((10, 0))]), truth)
    group = dict(zip(agents.GROUPS, got['spa_top6_by_group'], strict=True))
    assert group['car'] == 100.0
    assert group['pedestrian'] == 0.0
    assert np.isnan(group['bus'])


def test_scores_by_range():
    # Right at 5 m, not found at 15 m (a moving one) and found without a right path at 20 m.
    truth = make_truth([[5, 0, 0], [0, 15, 0], [20, 0, 0]], velocities=[[0, 0], [3, 0], [3, 0]])
    counts = count_agents(Detections.of(make_forecast([make_agent((5, 0)), make_agent((20, 0))])),
                          truth)
    got = agents.agent_scores(counts)
    everyone, moving = agents.GROUPS.index('all'), agents.GROUPS.index('moving')
    np.testing.assert_array_equal(got['spa_top6_by_range'][:, everyone],
                                  [100.0, 0.0, 0.0, np.nan, np.nan])
    np.testing.assert_array_equal(got['recall_by_range'][:, everyone], [1, 0, 1, np.nan, np.nan])
    np.testing.assert_array_equal(got['recall_by_range'][:, moving],
                                  [np.nan, 0, 1, np.nan, np.nan])
    assert got['spa_top6_moving_by_horizon'].tolist() == [50.0, 0.0, 0.0, 0.0]
    # Bands up to 30 m are what the headline pools.
    assert counts['band_truths'][:3].sum(axis=0).tolist() == counts['truths_30'].tolist()
    assert counts['band_right_6'][:3].sum(axis=0).tolist() == counts['right_6_30'][-1].tolist()


def test_detections_are_sorted_by_score_into_right_and_invented():
    truth = make_truth([[10, 0, 0], [0, 10, 0], [0, -10, 0]], visible=[1, 1, 0])
    told = Detections.of(make_forecast([
        make_agent((10, 0), score=0.9), make_agent((10, 1), score=0.505),  # a twin
        make_agent((0, -10), score=0.7),                                   # hidden: left out
        make_agent((0, 35), score=0.8)]))                                  # beyond 30 m
    wrong, right = agents.count_scores(told, truth)['scores']
    assert np.flatnonzero(right).tolist() == [90]
    assert np.flatnonzero(wrong).tolist() == [50]


def test_reliability_of_occupancy_by_hand():
    # 8 occupied cells said with 0.5, 8 free ones with 0.5, everything else with 0.
    truth = make_truth([[1.0, 0.5, 0.0]], sizes=[[2.0, 1.0, 1.5]])
    codes = np.zeros((7, 200, 200), np.uint8)
    codes[:, 100:102, 100:108] = 127
    occupied, scored = occupancy.truth_occupancy(truth)
    got = occupancy.reliability(occupancy.count_occupancy(codes, occupied, scored)['occupancy'])
    assert (got['stated'][7], got['outcome'][7], got['cases'][7]) == (0.5, 0.5, 7 * 16)
    assert (got['stated'][0], got['outcome'][0]) == (0.0, 0.0)
    assert np.isnan(got['outcome'][3])


def test_the_threshold_drops_detections():
    truth = make_truth([[10, 0, 0]])
    forecast = make_forecast([make_agent((10, 0), score=0.3)])
    assert rates(forecast, truth, 0.3)['recall'] == 1.0
    assert rates(forecast, truth, 0.31)['recall'] == 0.0
    assert len(Detections.of(forecast).above(0.31)) == 0


def test_an_invalid_forecast_says_nothing():
    assert len(Detections.of(make_forecast([make_agent((10, 0))], valid=False))) == 0


def test_kinds_of_motion():
    turn = np.zeros((6, 3))
    turn[:, 0] = 2.5 * STEPS
    turn[:, 2] = np.radians(5) * STEPS
    brake = np.zeros((6, 3))
    brake[:, 0] = np.cumsum([2.5, 2.2, 2, 1.8, 1.6, 1.5])
    start = np.zeros((6, 3))
    start[:, 0] = np.cumsum([0, 0.2, 0.5, 1, 1.5, 2])
    steady = np.zeros((6, 3))
    steady[:, 0] = 2.5 * STEPS
    speed_up = np.zeros((6, 3))
    speed_up[:, 0] = np.cumsum([2.5, 2.7, 2.9, 3.1, 3.3, 3.5])
    creep = np.zeros((6, 3))
    creep[:, 0] = 0.2 * STEPS
    unknown = np.full((6, 3), np.nan)
    truth = make_truth(
        np.zeros((7, 3)),
        velocities=[[5, 0], [5, 0], [0, 0], [5, 0], [0.4, 0], [5, 0], [5, 0]],
        futures=[turn, brake, start, steady, creep, speed_up, unknown])
    kinds = agents.motion_of(truth)
    assert [agents.MOTIONS[k] for k in kinds[:6]] == [
        'turning', 'braking', 'starting', 'steady', 'standing', 'speeding']
    assert kinds[6] == -1
    groups = dict(zip(agents.GROUPS, agents.groups_of(truth).T, strict=True))
    assert groups['moving'].tolist() == [True, True, True, True, False, True, False]
    assert groups['manoeuvring'].tolist() == [True, True, True, False, False, False, False]


def test_density_rank_of_one_gaussian():
    # The highest-density region of level 1 - exp(-r^2 / 2) is the disc of radius r.
    means, covariance = np.zeros((3, 1, 2)), np.tile(np.eye(2), (3, 1, 1, 1))
    radius = np.array([0.0, 1.0, 3.0])
    rank = calibration.density_rank(np.column_stack([radius, 0 * radius]), means, covariance,
                                    np.ones((3, 1)))
    np.testing.assert_allclose(rank, 1 - np.exp(-radius ** 2 / 2), atol=0.07)


def test_density_rank_is_uniform_where_the_mixture_is_right():
    rng = np.random.default_rng(5)
    n = 3000
    means = rng.normal(0, 3, (1, 6, 2)).repeat(n, axis=0)
    root = rng.normal(0, 1, (1, 6, 2, 2)).repeat(n, axis=0)
    covariance = root @ np.swapaxes(root, -1, -2) + 0.1 * np.eye(2)
    weights = np.tile([0.4, 0.2, 0.2, 0.1, 0.05, 0.05], (n, 1))
    mode = rng.choice(6, n, p=weights[0])
    outcomes = np.array([rng.multivariate_normal(means[i, m], covariance[i, m])
                         for i, m in enumerate(mode)])
    rank = calibration.density_rank(outcomes, means, covariance, weights, seed=1)
    for level in (0.5, 0.9):
        assert abs((rank <= level).mean() - level) < 0.03


def test_mixture_density_integrates_to_one():
    x = np.linspace(-8, 8, 161)
    points = np.stack(np.meshgrid(x, x), axis=-1).reshape(1, -1, 2)
    density = calibration.mixture_density(
        points, np.array([[[1.0, 0.0], [-2.0, 1.0]]]),
        np.array([[[[1.0, 0.3], [0.3, 0.5]], [[0.4, 0.0], [0.0, 0.9]]]]), np.array([[0.3, 0.7]]))
    assert density.sum() * 0.1 ** 2 == pytest.approx(1.0, abs=1e-3)


def test_coverage_counts_found_agents_with_a_known_pose():
    truth = make_truth([[10, 0, 0], [0, 10, 0], [-10, 0, 0]])
    forecast = make_forecast([
        make_agent((10, 0)), make_agent((0, 11.9), covariance_m2=0.01), make_agent((-20, 0))])
    counts = calibration.count_calibration(Detections.of(forecast), truth)
    assert counts['covered_of'].tolist() == [2, 2, 2]
    # The first is at the centre of its mixture, the second 19 standard deviations off.
    assert counts['covered'].tolist() == [[1, 1, 1], [1, 1, 1]]


def test_existence_calibration_by_hand():
    truth = make_truth([[10, 0, 0], [5, 0, 0]], visible=[True, False])
    forecast = make_forecast([make_agent((10, 0), score=0.8), make_agent((0, 9), score=0.4),
                              make_agent((5, 0), score=0.6)])
    got = calibration.calibration_scores(
        calibration.count_calibration(Detections.of(forecast), truth))
    assert got['existence_brier'] == pytest.approx((0.2 ** 2 + 0.4 ** 2) / 2)
    assert got['existence_ece'] == pytest.approx((0.2 + 0.4) / 2)


def test_paired_bootstrap_of_a_constant_lead_has_no_width():
    b = np.array([[3, 10], [5, 10], [9, 10], [1, 10]], float)
    a = b + [[1, 0]]
    difference = paired_bootstrap(a, b, seed=1, scale=100)
    assert difference.mean == pytest.approx(10)
    assert (difference.low, difference.high) == (pytest.approx(10), pytest.approx(10))
    assert difference.excludes_zero


def test_paired_bootstrap_pools_and_repeats_itself():
    a = np.array([[9, 10], [0, 90]], float)
    b = np.array([[0, 10], [9, 90]], float)
    assert paired_bootstrap(a, b).mean == pytest.approx(0.0)
    assert paired_bootstrap(a, b, seed=3) == paired_bootstrap(a, b, seed=3)
    assert not paired_bootstrap(a, b).excludes_zero


def test_paired_bootstrap_covers_the_normal_interval():
    # 400 drives, differences of mean 0.02 and standard deviation 0.1: +-1.96 * 0.1 / 20.
    rng = np.random.default_rng(0)
    b = np.column_stack([rng.uniform(0.4, 0.6, 400), np.ones(400)])
    a = b + np.column_stack([rng.normal(0.02, 0.1, 400), np.zeros(400)])
    difference = paired_bootstrap(a, b, seed=2)
    assert difference.high - difference.low == pytest.approx(2 * 1.96 * 0.1 / 20, rel=0.15)


def test_paired_bootstrap_refuses_unequal_drives():
    with pytest.raises(ValueError, match='want two'):
        paired_bootstrap(np.ones((3, 2)), np.ones((4, 2)))


def test_one_drive_has_no_interval():
    difference = paired_bootstrap(np.array([[9.0, 10.0]]), np.array([[1.0, 10.0]]))
    assert difference.mean == pytest.approx(0.8) and not difference.excludes_zero
    assert np.isnan([difference.low, difference.high]).all()
