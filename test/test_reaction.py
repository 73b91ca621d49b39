"""Forecasts under two ego plans are compared agent by agent, against what the simulator does."""

from types import SimpleNamespace

import numpy as np
import pytest
from truths import make_agent, make_forecast, make_truth

from wm_ros.data.two_plans import INFLUENCED_M
from wm_ros.evaluate import reaction
from wm_ros.evaluate.agents import Detections


def detections(ends, probabilities):
    paths = np.zeros((*np.shape(probabilities), 6, 2))
    paths[:, :, -1] = ends
    n = len(paths)
    return Detections(np.ones(n), (b'',) * n, np.zeros(n, int), np.zeros((n, 3)), np.zeros((n, 2)),
                      np.ones((n, 3)), paths, np.array(probabilities), None)


def test_the_expected_end_weighs_the_modes():
    found = detections([[[4.0, 0.0], [0.0, 8.0]]], [[0.75, 0.25]])
    np.testing.assert_allclose(reaction.expected_end(found), [[3.0, 2.0]])


class Told:
    """A predictor that says of a follower what it is told to, and finds more under one plan."""

    def __init__(self, ends):
        self.ends = ends

    def reset(self, reason):
        pass

    def encode(self, frames, ego):
        pass

    def forecast_plans(self, plans):
        paths = [np.linspace((-10.0, 0.0), (end, 0.0), 7)[1:] for end in self.ends]
        other = make_agent((0, 10), score=0.8)
        goes, stops = (make_agent((-10, 0), score=score, trajectories=np.tile(path, (6, 1, 1)))
                       for score, path in zip((0.9, 0.7), paths, strict=True))
        return [make_forecast([goes, other]), make_forecast([make_agent((30, 3)), other, stops])]


def test_an_agent_is_the_same_under_both_plans_wherever_it_stands_in_the_forecasts():
    futures = np.zeros((2, 2, 6, 3))
    futures[:, 1, :, 1] = 10.0
    futures[:, 0, -1, 0] = 8.0, 3.0      # the follower gets 5 m less far
    truths = [make_truth([[-10, 0, 0], [0, 10, 0]], futures=future) for future in futures]
    sample = SimpleNamespace(frames=None, ego=None, truth=truths[0])
    drive = SimpleNamespace(seed=7, rig=None, samples=lambda: [sample] * 16)
    both = reaction.TwoTruths(drive, (None, None), tuple(truths))
    found = list(reaction.reactions(both, lambda rig: Told((6.0, 4.0))))
    assert [(one.seed, one.influenced) for one in found] == [(7, True), (7, False)]
    assert (found[0].truth_m, found[0].model_m) == (5.0, pytest.approx(2.0))
    assert found[1].model_m == pytest.approx(0.0)


def test_reactions_are_pooled_over_agents_and_drawn_over_drives():
    found = [reaction.Reaction(1, True, 4.0, 1.0), reaction.Reaction(1, True, 2.0, 2.0),
             reaction.Reaction(2, True, 4.0, -1.0), reaction.Reaction(1, False, 0.0, 0.3),
             reaction.Reaction(2, False, 0.0, 0.1)]
    scores = reaction.summary(found)
    assert scores['reaction'] == pytest.approx(2.0 / 10.0)
    assert scores['followed'] == pytest.approx(1 / 3)
    assert (scores['n_drives'], scores['n_influenced'], scores['n_untouched']) == (2, 3, 2)
    assert scores['untouched_m'] == pytest.approx(0.2)
    low, high = scores['ci']
    assert low == pytest.approx(-0.25) and high == pytest.approx(0.5)
    with pytest.raises(ValueError, match='take more seeds'):
        reaction.summary(found[3:])


def test_a_drive_is_told_twice_where_somebody_is_influenced():
    seeds = range(800100, 800112)
    told = [both for both in (reaction.tell_twice(seed, 'sim') for seed in seeds) if both]
    assert told and len(told) < len(seeds)
    both = told[0]
    goes, stops = (plan.poses[-1, 0] for plan in both.plans)
    assert stops < goes - 2
    np.testing.assert_array_equal(both.truths[0].poses, both.truths[1].poses)
    apart = np.linalg.norm(both.apart_m(), axis=1)
    assert apart.max() > INFLUENCED_M and np.median(apart) < reaction.UNTOUCHED_M


@pytest.mark.parametrize('arguments, code, said', [
    (['--seeds', '5'], 2, '--seeds 5: want A:B'), (['--world', 'mars'], 2, 'sim-hard'),
    (['--artifact', 'nowhere', '--seeds', '900000:900001'], 1, 'nowhere'),
    (['--seeds', '900000:900001'], 1, 'take more seeds')])
def test_what_cannot_be_scored_is_one_line_and_no_trace(arguments, code, said, capsys):
    try:
        assert reaction.main(arguments) == code
    except SystemExit as stop:
        assert stop.code == code
    last = capsys.readouterr().err.splitlines()[-1]
    assert said in last
