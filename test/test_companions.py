"""Several road users from one peak: which rows they get, and what peaks learn to stand for."""

import numpy as np
import pytest

torch = pytest.importorskip('torch')

from wm_ros.model.agents import AgentDecoder, peaks  # noqa: E402
from wm_ros.model.companions import Companions  # noqa: E402
from wm_ros.runtime.contract import COMPANIONS, MAX_AGENTS  # noqa: E402
from wm_ros.train.companions import (  # noqa: E402
    LEFT_OUT,
    NOBODY,
    companion_losses,
    what_peaks_are,
)
from wm_ros.types import AGENT_CLASSES  # noqa: E402

PEDESTRIAN = AGENT_CLASSES.index('pedestrian')
PEAKS = MAX_AGENTS - COMPANIONS


def decoder(companions=2):
    torch.manual_seed(0)
    return AgentDecoder(32, 24, 32, 1, 4, True, companions, 4).eval()


def scene(batch=1):
    torch.manual_seed(1)
    return (torch.rand(batch, 24, 80, 80), torch.rand(batch, 256, 32),
            torch.randn(batch, 320, 320), (torch.zeros(batch, 6, 3), torch.ones(batch, 1)))


@torch.no_grad()
def test_before_it_has_learnt_it_is_a_model_without():
    agents, inputs = decoder(), scene(2)
    got = agents.everybody(*inputs)
    score, cells = peaks(inputs[2], PEAKS)
    want = agents(*inputs[:2], score, cells, None, inputs[3])
    torch.testing.assert_close(got['agent_score'][:, :PEAKS], score)
    for name, value in want.items():
        torch.testing.assert_close(got[name][:, :PEAKS], value)
    assert got['agent_score'].shape == (2, MAX_AGENTS)
    assert (got['agent_score'][:, PEAKS:] < 0.05).all()


@torch.no_grad()
def test_companions_are_the_likeliest_and_stand_by_their_peak():
    agents, inputs = decoder(), scene()
    with torch.no_grad():
        agents.companions.judge[-1].bias.copy_(torch.tensor([0.0, 2.0, -1.0]))
        torch.nn.init.normal_(agents.companions.apart[-1].bias)
    got = agents.everybody(*inputs)
    score = got['agent_score'][0]
    first, second = torch.sigmoid(torch.tensor([2.0, -1.0]))
    each = torch.stack([score[:PEAKS] * first, score[:PEAKS] * first * second], -1).flatten()
    want, row = each.topk(COMPANIONS)
    torch.testing.assert_close(score[PEAKS:], want)
    # All have another place than their peak: the second of a peak another than the first.
    place, peak = got['agent_box'][0, :, :2], row // 2
    away = (place[PEAKS:] - place[peak]).norm(dim=-1)
    assert (away > 1e-3).all() and (away < 5.0).all()
    cells = peaks(inputs[2], PEAKS)
    same = agents(*inputs[:2], *cells, None, inputs[3])
    torch.testing.assert_close(got['agent_box'][0, :PEAKS], same['agent_box'][0])


def truth(*rows):
    """Return true agents (1, 64, 29): x, y, visible of each."""
    out = torch.zeros(1, 64, 29)
    for i, (x, y, visible) in enumerate(rows):
        out[0, i, :2], out[0, i, 3:6] = torch.tensor([x, y]), torch.tensor([0.6, 0.6, 1.7])
        out[0, i, 8], out[0, i, 9], out[0, i, 28] = PEDESTRIAN, visible, 1.0
        out[0, i, 22:28] = 1.0
    return out


def found(*rows):
    """Return scores, boxes and classes of peaks on foot: x, y, score of each."""
    box, label = torch.zeros(1, len(rows), 9), torch.zeros(1, len(rows), 8)
    box[0, :, :2], box[0, :, 3] = torch.tensor([row[:2] for row in rows]), 1.0
    label[..., PEDESTRIAN] = 5.0
    return torch.tensor([[row[2] for row in rows]]), box, label


@pytest.mark.parametrize('rows, agents, first, others', [
    # One peak between two who walk together; a third is too far from it.
    ([(10, 0, .9)], [(10, .6, 1), (10, -.5, 1), (10, 2.8, 1)], [1], [[0, NOBODY]]),
    # The nearer one is the first companion; there is no room for a third.
    ([(0, 0, .9)], [(.1, 0, 1), (0, 1.5, 1), (0, .8, 1), (0, -1.7, 1)], [0], [[2, 1]]),
    # Each has a peak of its own.
    ([(0, 0, .9), (0, 1.0, .8)], [(0, .1, 1), (0, 1.1, 1)], [0, 1], [[NOBODY] * 2] * 2),
    # Nobody there; a double of the first peak; and one that is hardly there.
    ([(0, 0, .9), (0, .3, .8), (30, 0, .7), (40, 0, .04)], [(0, 0, 1)],
     [0, LEFT_OUT, NOBODY, NOBODY], [[NOBODY] * 2] * 4),
    # Somebody hidden may be found, and is nobody's companion.
    ([(0, 0, .9), (20, 0, .9)], [(0, 0, 1), (0, .7, 0), (20, 0, 0)], [0, 2], [[NOBODY] * 2] * 2),
    # A peak that is weak has a say for itself alone: whom it has found is the strong one's too.
    ([(0, 0, .9), (0, 1.0, .1)], [(0, 0, 1), (0, 1.0, 1)], [0, 1], [[1, NOBODY], [NOBODY] * 2]),
])
def test_what_peaks_are(rows, agents, first, others):
    got = what_peaks_are(*found(*rows), truth(*agents), 2)
    np.testing.assert_array_equal(got[0][0], first)
    np.testing.assert_array_equal(got[1][0], others)


@pytest.mark.parametrize('rows, agents, want', [
    # Too far for the benchmark, near enough to be learnt from; and too far for that.
    ([(10, 0, .9), (30, 0, .9)], [(13, 0, 1), (30, 4.2, 1)], [0, NOBODY]),
    # The nearest first, each once; who has found somebody is not asked.
    ([(10, 0, .9), (16, 0, .8), (20, 0, .7)], [(10, 0, 1), (13, 0, 1), (13.5, 0, 1)],
     [NOBODY, 2, NOBODY]),
    # A companion is not missed, nor is somebody hidden; a weak peak is not asked.
    ([(0, 0, .9), (0, 3, .8), (30, 0, .05)], [(0, 0, 1), (0, 1.2, 1), (0, 6, 0), (32.5, 0, 1)],
     [NOBODY] * 3),
])
def test_whom_peaks_should_have_found(rows, agents, want):
    got = what_peaks_are(*found(*rows), truth(*agents), 2)
    np.testing.assert_array_equal(got[2][0], want)


def test_a_peak_beside_somebody_learns_where_they_are():
    """A peak three metres off: its box is drawn to them, and then it is a find."""
    agents, (now, state, centre, ego) = decoder(), scene()
    centre[:] = -9.0
    centre[0, 160, 192] = 1.0                                   # x 10.2 m, y 0.2 m
    batch = {'agents': truth((13.2, 0.2, 1)), 'plans': ego[0], 'odometry_mask': ego[1]}
    outputs = {'centre': centre, 'now': now, 'states': state[:, None]}
    optimiser = torch.optim.Adam(agents.parameters(), 3e-3)
    for _ in range(60):
        parts = companion_losses(agents, outputs, batch, batch['agents'][..., 9] > 0)
        optimiser.zero_grad()
        sum(parts.values()).backward()
        optimiser.step()
    with torch.no_grad():
        got = agents.everybody(now, state, centre, ego)
    assert (got['agent_box'][0, 0, :2] - torch.tensor([13.2, 0.2])).norm() < 1.0
    assert got['agent_score'][0, 0] > 0.7


def test_a_pair_under_one_peak_is_learnt():
    """One window, one peak, two people: after some steps both are said to be there, apart."""
    agents, (now, state, centre, ego) = decoder(), scene()
    centre[:] = -9.0
    centre[0, 160, 192] = 1.0                                   # x 10.2 m, y 0.2 m
    pair = truth((10.2, 0.9, 1), (10.2, -0.6, 1))
    batch = {'agents': pair, 'plans': ego[0], 'odometry_mask': ego[1]}
    outputs = {'centre': centre, 'now': now, 'states': state[:, None]}
    optimiser = torch.optim.Adam(agents.companions.parameters(), 1e-2)
    first = None
    for _ in range(120):
        parts = companion_losses(agents, outputs, batch, pair[..., 9] > 0)
        del parts['own']                                        # of heads that stay as they are
        total = sum(parts.values())
        first = first or total.item()
        optimiser.zero_grad()
        total.backward()
        optimiser.step()
    with torch.no_grad():
        got = agents.everybody(now, state, centre, ego)
    assert set(parts) == {'existence', 'companion', 'beside'} and total.item() < first / 2
    scores = got['agent_score'][0]
    assert scores[PEAKS] > 0.8 and scores[PEAKS + 1] < 0.3
    assert scores[0] > 0.9
    # The heads are as they were: only the companion's query has moved.
    place = got['agent_box'][0, PEAKS, :2]
    assert min((place - pair[0, i, :2]).norm() for i in range(2)) < 0.4


@torch.no_grad()
@pytest.mark.parametrize('beside, asked', [(0, False), (1, True), (2, True)])
def test_a_second_companion_is_asked_for_beside_a_first(beside, asked):
    """Its chance is multiplied by the first one's: without a first nothing is to be learnt."""
    agents, (now, state, centre, ego) = decoder(), scene()
    centre[:] = -9.0
    centre[0, 160, 192] = 1.0                                   # x 10.2 m, y 0.2 m
    people = truth(*[(10.2, 0.2 + 0.6 * i, 1) for i in range(1 + beside)])
    batch = {'agents': people, 'plans': ego[0], 'odometry_mask': ego[1]}
    outputs = {'centre': centre, 'now': now, 'states': state[:, None]}
    lost = []
    for second in (-3.0, 0.0):
        agents.companions.judge[-1].bias[2] = second
        lost.append(companion_losses(agents, outputs, batch, people[..., 9] > 0)['companion'])
    assert (lost[0] != lost[1]) == asked


def test_what_is_asked_of_peaks_reaches_what_they_are_read_from():
    agents, (now, state, centre, ego) = decoder(), scene()
    now.requires_grad_(True)
    batch = {'agents': truth((1.0, 0.0, 1)), 'plans': ego[0], 'odometry_mask': ego[1]}
    torch.nn.init.normal_(agents.companions.judge[-1].weight)
    parts = companion_losses(agents, {'centre': centre, 'now': now, 'states': state[:, None]},
                             batch, batch['agents'][..., 9] > 0)
    parts['existence'].backward()
    assert now.grad.abs().max() > 0
    assert agents.from_map.weight.grad.abs().max() > 0


def test_scores_at_the_ends_stay_finite():
    judge = Companions(8, 2)
    somebody, another = judge.judged(torch.randn(1, 3, 8), torch.tensor([[0.0, 0.5, 1.0]]))
    assert torch.isfinite(somebody).all() and another.shape == (1, 3, 2)
