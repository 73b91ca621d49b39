"""Losses by hand, targets against the raster, checkpoints that resume exactly."""

import math

import numpy as np
import pytest

torch = pytest.importorskip('torch', reason='training needs torch')

from truths import make_truth  # noqa: E402

from wm_ros.model.agents import peaks  # noqa: E402
from wm_ros.raster import agent_flow, agent_occupancy  # noqa: E402
from wm_ros.train import losses, targets  # noqa: E402
from wm_ros.train.clips import truth_arrays  # noqa: E402
from wm_ros.train.loop import Schedule, fit, load_model, save_model  # noqa: E402
from wm_ros.train.store import ClipStore  # noqa: E402


def clip_of(truth):
    """Return a clip of one frame, as a worker writes it."""
    return {f'{key}_0': value for key, value in truth_arrays(truth).items()}


def tensors(truth, steps=7):
    """Return the targets of one truth as a batch of one."""
    return targets.collate([targets.truth_targets(clip_of(truth), 0, steps)], torch.device('cpu'))


def test_targets_are_the_raster_of_the_truth():
    truth = make_truth([[10.0, 5.0, 0.6], [-8.0, 2.0, 2.0], [4.0, -9.0, 0.0]],
                       velocities=[[6.0, 2.0], [0.0, 0.0], [1.0, 0.0]],
                       visible=[True, True, False])
    found = targets.truth_targets(clip_of(truth), 0, 7)
    for step in (0, 1, 6):
        np.testing.assert_array_equal(found['occupancy'][step],
                                      agent_occupancy(truth, step, agents=truth.visible))
        np.testing.assert_allclose(found['flow'][step],
                                   agent_flow(truth, step, agents=truth.visible), atol=1e-5)
    np.testing.assert_array_equal(found['hidden'], agent_occupancy(truth, 0,
                                                                   agents=~truth.visible))
    np.testing.assert_array_equal(found['road'], truth.road)


def test_centre_is_one_in_the_cell_of_each_visible_agent_and_free_near_hidden_ones():
    truth = make_truth([[10.2, 5.1, 0.0], [-20.0, 0.0, 0.0]], visible=[True, False])
    agents = tensors(truth)['agents']
    heat, weight = targets.centre_heat(agents, 320)
    row, col = int((5.1 + 50) / 0.3125), int((10.2 + 50) / 0.3125)
    assert heat[0, row, col] == 1.0
    assert (heat == 1.0).sum() == 1
    hidden_row, hidden_col = int(50 / 0.3125), int(30 / 0.3125)
    assert weight[0, hidden_row, hidden_col] == 0.0
    assert weight[0, row, col] == 1.0 and weight[0, 5, 5] == 1.0


def test_two_people_side_by_side_are_two_peaks():
    truth = make_truth([[10.0, 5.0, 0.0], [10.4, 5.9, 0.0]], sizes=[[0.5, 0.6, 1.7]] * 2)
    heat, _ = targets.centre_heat(tensors(truth)['agents'], 320)
    score, cells = peaks(torch.logit(heat.clamp(1e-3, 0.999)), 3)
    assert (score[0, :2] > 0.99).all() and score[0, 2] < 0.1
    rows = torch.div(cells[0, :2], 320, rounding_mode='floor').sort().values
    assert rows[1] - rows[0] == 2


def test_gaussian_likelihood_is_that_of_torch():
    spread = torch.tensor([0.3, -0.5, 0.7])
    sx, sy, rho = math.exp(0.3), math.exp(-0.5), math.tanh(0.7)
    covariance = torch.tensor([[sx * sx, rho * sx * sy], [rho * sx * sy, sy * sy]])
    d = torch.tensor([0.4, -1.1])
    law = torch.distributions.MultivariateNormal(torch.zeros(2), covariance)
    want = -law.log_prob(d) - math.log(2 * math.pi)
    assert losses.gaussian_nll(d, spread).item() == pytest.approx(want.item(), rel=1e-5)


def test_the_mode_whose_largest_error_is_smallest_learns_the_path():
    truth = make_truth([[0.0, 0.0, 0.0]], velocities=[[4.0, 0.0]])
    agents = tensors(truth)['agents']
    future = torch.tensor(truth.futures[0, :, :2], dtype=torch.float32)
    paths = future.expand(1, 64, 6, 6, 2).clone()
    paths[:, :, 0, :, 1] += 5.0        # all the way beside
    paths[:, :, 1:, 5, 1] += 3.0       # right but for the last waypoint: a largest error of 3 m
    paths[:, :, 2, 5, 1] -= 2.0        # mode 2: 1 m at the end
    paths.requires_grad_()
    outputs = {'trajectories': paths, 'trajectory_spread': torch.zeros(1, 64, 6, 6, 3),
               'mode_logits': torch.zeros(1, 64, 6)}
    use = torch.zeros(1, 64, dtype=torch.bool)
    use[0, 0] = True
    parts = losses.trajectory_loss(outputs, agents, use)
    parts['path'].backward()
    moved = paths.grad.abs()[0, 0, :, 5].sum(-1)   # at 3 s, where every mode is wrong
    assert (moved[2] > 20 * moved[[0, 1, 3, 4, 5]]).all()
    # The winner: smooth L1 (beta 0.5) of 1 m is 0.75, weighed 1 / (0.5 + 0.5 * 3 s). All modes, by
    # step: 4.75 for 5 m, 2.75 for 3 m, 0.75 for 1 m.
    weights = [1 / (0.5 + 0.5 * time) for time in (0.5, 1.0, 1.5, 2.0, 2.5, 3.0)]
    shares = [0.3, 0.2, 0.1, 0.05, 0.05, 0.05]
    early = sum(w * share for w, share in zip(weights[:5], shares[:5], strict=True))
    every = 4.75 / 6 * early + (4.75 + 4 * 2.75 + 0.75) / 6 * weights[5] * shares[5]
    assert parts['path'].item() == pytest.approx((0.75 * weights[5] + every) / 6, rel=1e-4)


def test_losses_fall_to_nothing_at_the_truth():
    truth = make_truth([[10.0, 5.0, 0.6]], velocities=[[6.0, 2.0]])
    batch = tensors(truth)
    weight = torch.ones(1, 1, 200, 200)
    right = (batch['occupancy'].float() * 2 - 1) * 30
    assert losses.occupancy_loss(right, batch['occupancy'], weight) < 1e-3
    assert losses.occupancy_loss(-right, batch['occupancy'], weight) > 1.0
    assert losses.flow_loss(batch['flow'], batch['flow'], batch['occupancy']) == 0.0
    assert losses.flow_loss(batch['flow'] + 2.0, batch['flow'], batch['occupancy']).item() \
        == pytest.approx(3.0)          # smooth L1 of 2 m is 1.5, in x and in y


@pytest.mark.parametrize('optimiser', ['adamw', 'muon'])
def test_a_resumed_run_is_the_same_as_one_that_never_stopped(tmp_path, optimiser):
    data = torch.randn(40, 8, 3, generator=torch.Generator().manual_seed(1))

    def start(folder, seed, feed, end):
        """Train a fresh model up to step `end`, or to the end of the schedule."""
        torch.manual_seed(seed)
        model = torch.nn.Sequential(torch.nn.Linear(3, 16), torch.nn.Linear(16, 16),
                                    torch.nn.Linear(16, 1))

        steps = iter(range(end or 30))

        def step(_):
            if next(steps, None) is None:
                raise KeyboardInterrupt
            x = next(feed)
            return {'error': (model(x) - x.sum(-1, keepdim=True)).square().mean()}
        schedule = Schedule(steps=30, rate=1e-2, warmup=3, checkpoint_every=12,
                            optimiser=optimiser)
        try:
            fit(model, step, schedule, folder, 'x', log=lambda line: None)
        except KeyboardInterrupt:
            pass
        return model.state_dict()

    whole = start(tmp_path / 'whole', 0, iter(data), None)
    feed = iter(data)
    half = start(tmp_path / 'parts', 0, feed, 12)
    assert not torch.allclose(half['1.weight'], whole['1.weight'])
    # Other initial weights: everything has to come from the files.
    again = start(tmp_path / 'parts', 99, feed, None)
    for name, value in again.items():
        torch.testing.assert_close(value, whole[name])


def test_checkpoints_carry_their_config(tmp_path):
    from wm_ros.model.config import PRESETS
    from wm_ros.model.world_model import WorldModel
    model = WorldModel(PRESETS['tiny'])
    save_model(model, tmp_path / 'm.safetensors', {'stage': 'test'})
    again = load_model(tmp_path / 'm.safetensors')
    assert again.config == model.config
    for name, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], value)


def test_the_store_shows_whole_clips_only(tmp_path):
    store = ClipStore(tmp_path)
    store.write(7, {'x': np.arange(3)})
    (tmp_path / '.8.1.part').write_bytes(b'half')
    assert [path.name for path in store.paths()] == ['clip_0000007.npz']
    assert store.read(np.random.default_rng(0))['x'].tolist() == [0, 1, 2]
