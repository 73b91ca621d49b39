"""Errors of what is found, and reasons for what is not, on values worked out by hand."""

import numpy as np
import pytest
from truths import make_agent, make_forecast, make_truth

from wm_ros.evaluate.agents import GROUPS, Detections, count_agents
from wm_ros.evaluate.detection import count_detection, detection_scores


def scores_of(forecast, truth, threshold=0.5):
    """Return counts and rates of one forecast."""
    everything = Detections.of(forecast)
    counts = count_detection(everything, threshold, truth)
    agents = count_agents(everything.above(threshold), truth)
    return counts, detection_scores(counts | agents)


def test_errors_of_found_agents():
    truth = make_truth([[10, 0, 0], [0, 10, 3.0], [0, 50, 0]], sizes=[[4, 2, 1.5]] * 3,
                       velocities=[[5, 0], [0, 0], [0, 0]], classes=[0, 6, 0])
    forecast = make_forecast([
        # 3-4-5: half a metre off, 5 m/s wrong, a right angle, twice the length.
        make_agent((10.3, 0.4), yaw=np.pi / 2, velocity=(2, 4), size=(8, 2, 1.5)),
        # All but right, across the turn of the angle, and of another class.
        make_agent((0, 10), yaw=3.0 - 2 * np.pi, size=(4, 2, 1.5)),
        make_agent((0, 50.9))])  # beyond 30 m
    counts, got = scores_of(forecast, truth)
    assert got['position_error_m'] == pytest.approx(0.25)
    assert got['size_error'] == pytest.approx(0.25)
    assert got['heading_error_rad'] == pytest.approx(np.pi / 4)
    assert got['velocity_error_mps'] == pytest.approx(2.5)
    assert got['class_accuracy'] == 0.5
    car = GROUPS.index('car')
    assert got['velocity_error_mps_by_group'][car] == pytest.approx(5.0)
    assert np.isnan(got['velocity_error_mps_by_group'][GROUPS.index('bus')])
    assert counts['confusion'][0, 0] == counts['confusion'][6, 0] == 1
    assert counts['confusion'].sum() == 2


def test_reasons_for_what_is_not_found():
    truth = make_truth([[5, 0, 0], [5, 1, 0],   # two in one place
                        [0, 10, 0],             # found 3 m beside
                        [0, -10, 0],            # found, but unsure
                        [-20, 0, 0],            # nothing there
                        [20, 20, 0]],           # hidden: does not count
                       visible=[1, 1, 1, 1, 1, 0])
    forecast = make_forecast([
        make_agent((5, 0.1)), make_agent((0, 13)), make_agent((0, -10.5), score=0.2)])
    counts, got = scores_of(forecast, truth)
    assert counts['misses'][:, 0].tolist() == [1, 1, 1, 1]
    for kind in ('taken', 'displaced', 'unsure', 'unseen'):
        assert got[f'missed_{kind}'] == 0.2
    assert counts['errors_of'][0] == 1


def test_nothing_told_leaves_everything_unseen():
    counts, got = scores_of(make_forecast(), make_truth([[5, 0, 0]]))
    assert got['missed_unseen'] == 1.0
    assert np.isnan(got['position_error_m'])
    _, nobody = scores_of(make_forecast([make_agent((5, 0))]), make_truth(np.zeros((0, 3))))
    assert np.isnan(nobody['missed_unseen'])
