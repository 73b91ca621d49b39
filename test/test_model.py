"""The model keeps the invariants: sparse attention, warping, masks, plans."""

import math
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip('torch', reason='the model is for training; the node runs without')

from wm_ros.geometry import relative_pose, transform_points  # noqa: E402
from wm_ros.model.agents import NEAR_M, peaks, relative_plan  # noqa: E402
from wm_ros.model.bottleneck import warp  # noqa: E402
from wm_ros.model.config import PRESETS, ModelConfig  # noqa: E402
from wm_ros.model.dynamics import Dynamics, SparseAttention  # noqa: E402
from wm_ros.model.quant import fold_batch_norms  # noqa: E402
from wm_ros.model.rows import Sampled  # noqa: E402
from wm_ros.model.world_model import WorldModel  # noqa: E402
from wm_ros.train.grow import grown  # noqa: E402
from wm_ros.types import FEATURE_GRID  # noqa: E402


@pytest.fixture(scope='module')
def model():
    torch.manual_seed(0)
    return with_a_past(WorldModel(PRESETS['tiny']).eval())


def with_a_past(model):
    """Let the past say something, which begins as nothing."""
    torch.nn.init.normal_(model.past.out.weight, std=0.1)
    return model


def window(model, batch=1, seed=0):
    """Return random inputs of fold and rollout for a model."""
    random = torch.Generator().manual_seed(seed)
    config = model.config
    return {
        'memory': torch.rand(batch, 16, config.memory_channels, 80, 80, generator=random),
        'now_from_frame': torch.rand(batch, 16, 3, generator=random) * 0.5,
        'age_s': torch.linspace(1.5, 0.0, 16).expand(batch, -1),
        'frame_mask': torch.ones(batch, 16),
        'odometry_mask': torch.ones(batch, 1)}


def folded(model, inputs):
    """Return latent and past of a window."""
    with torch.no_grad():
        return model.fold(**inputs)


def dense_reference(layer: SparseAttention, x: torch.Tensor) -> torch.Tensor:
    """Compute the layer as full attention over all pairs with a mask of what may see what."""
    length, dim = x.shape[1:]
    a, block = layer.anchors, layer.block
    q, k, v = layer.qkv(x).reshape(1, length, 3, layer.heads, -1).permute(2, 0, 3, 1, 4)
    index = torch.arange(length)
    group = torch.where(index < a, -10, (index - a) // block)
    near = (group[:, None] - group[None]).abs() <= 1
    allowed = near | (index < a)[:, None] | (index < a)[None]
    scores = q @ k.transpose(-1, -2) / math.sqrt(dim // layer.heads)
    scores = scores.masked_fill(~allowed, -math.inf)
    read = (torch.softmax(scores, -1) @ v).transpose(1, 2).reshape(1, length, dim)
    return layer.out(read)


@pytest.mark.parametrize('tokens', [32, 64, 256, 512])
def test_sparse_attention_is_masked_dense_attention(tokens):
    torch.manual_seed(1)
    layer = SparseAttention(dim=48, heads=4, block=32, anchors=32)
    x = torch.randn(1, 32 + tokens, 48)
    assert torch.allclose(layer(x), dense_reference(layer, x), atol=1e-5)


def test_sparse_attention_counts_its_pairs():
    config = ModelConfig()
    layer = SparseAttention(config.dim, config.heads, config.block, config.anchors)
    pairs = layer.pairs(256)
    assert pairs['slots'] == 32_768
    # 8 blocks; the first and the last lack one neighbour: 2 x 32 queries x 32 slots.
    assert pairs['masked'] == 2_048
    assert pairs['anchor_reads'] == 32 * 288
    assert layer.pairs(4096)['slots'] == 16 * pairs['slots']


def test_every_layer_multiplies_the_pairs_that_are_counted():
    """What runs, not what a formula says: the shares that each query gave to its key slots."""
    config = PRESETS['small']
    dynamics = Dynamics(config.latent_dim, config.dim, config.layers, config.heads, config.block,
                        config.anchors).eval()
    shares = []
    for layer in dynamics.layers:
        layer.attention.share.register_forward_hook(lambda _, args, out: shares.append(out))
    with torch.no_grad():
        dynamics(torch.randn(1, 256, config.latent_dim), torch.zeros(1, 6, 3), torch.zeros(1, 2),
                 torch.ones(1, 1))
    assert len(shares) == 2 * config.layers
    counted = dynamics.layers[0].attention.pairs(256)
    for anchors, tokens in zip(shares[::2], shares[1::2], strict=True):
        assert anchors[0, 0].numel() == counted['anchor_reads']
        assert tokens.shape[:2] == anchors.shape[:2] == (1, config.heads)
        assert tokens[0, 0].numel() == counted['slots'] == 32_768 == 256 * 128
        for head in tokens[0]:
            assert int((head == 0).sum()) == counted['masked']


def test_warp_moves_a_cell_to_where_its_ground_is_now():
    then = np.array([3.0, -2.0, 0.4])
    now = np.array([8.0, 1.0, 0.9])
    now_from_then = relative_pose(now, then)
    point_then = FEATURE_GRID.centres_m()[50, 60]
    maps = torch.zeros(1, 1, 80, 80)
    maps[0, 0, 50, 60] = 1.0
    warped = warp(maps, torch.tensor(now_from_then, dtype=torch.float32)[None])[0, 0]
    weight = warped / warped.sum()
    centres = torch.as_tensor(FEATURE_GRID.centres_m())
    found = (weight[..., None] * centres).sum((0, 1)).numpy()
    np.testing.assert_allclose(found, transform_points(now_from_then, point_then), atol=0.25)


def test_warp_by_nothing_changes_nothing():
    maps = torch.rand(2, 3, 80, 80)
    assert torch.allclose(warp(maps, torch.zeros(2, 3)), maps, atol=1e-5)


def test_a_masked_frame_has_no_influence(model):
    inputs = window(model)
    inputs['frame_mask'][:, 4] = 0.0
    before = folded(model, inputs)
    inputs['memory'][:, 4] = 99.0
    inputs['now_from_frame'][:, 4] = 7.0
    for now, then in zip(folded(model, inputs), before, strict=True):
        assert torch.equal(now, then)
    inputs['memory'][:, 5] += 0.5
    for now, then in zip(folded(model, inputs), before, strict=True):
        assert not torch.allclose(now, then, atol=1e-4)


def test_without_odometry_poses_have_no_influence(model):
    inputs = window(model)
    inputs['odometry_mask'] = torch.zeros(1, 1)
    before = folded(model, inputs)
    inputs['now_from_frame'] = inputs['now_from_frame'] + 3.0
    for now, then in zip(folded(model, inputs), before, strict=True):
        assert torch.equal(now, then)


def test_the_past_is_read_cell_by_cell_from_every_older_frame(model):
    inputs = window(model)
    inputs['now_from_frame'].zero_()
    before = folded(model, inputs)[1]
    for frame in (0, 7, 14, 15):
        changed = {**inputs, 'memory': inputs['memory'].clone()}
        changed['memory'][:, frame, :, 40, 50] += 2.0
        moved = (folded(model, changed)[1] - before).abs().amax(1)[0]
        # The newest frame's own map goes to the decoders as it is.
        around = torch.zeros(80, 80, dtype=torch.bool)
        around[39:42, 49:52] = frame < 15
        assert torch.equal(moved > 0, around), frame


def test_what_stood_still_while_the_ego_vehicle_drove_is_read_where_it_stands(model):
    inputs = window(model)
    inputs['memory'].zero_()
    inputs['now_from_frame'].zero_()
    blank = folded(model, inputs)[1]
    for step in range(15):      # the ego vehicle drove a cell a frame along x: it was further ahead
        inputs['now_from_frame'][:, step, 0] = -FEATURE_GRID.cell_m * (15 - step)
        inputs['memory'][:, step, :, 40, 45 + (15 - step)] = 1.0
    moved = (folded(model, inputs)[1] - blank).abs().amax(1)[0] > 1e-6
    assert moved[39:42, 44:47].all() and moved.sum() == 9


def test_a_model_without_a_past_begins_the_same_and_learns_to_read_it():
    torch.manual_seed(0)
    without = WorldModel(replace(PRESETS['tiny'], past_filters=0)).eval()
    fold_batch_norms(without)
    model = grown(without, PRESETS['tiny'])
    inputs = window(model)
    old, new = folded(without, inputs), model.fold(**inputs)
    for name in range(2):
        assert torch.equal(old[name], new[name])
    new[1].sum().backward()
    assert model.past.out.weight.grad.abs().sum() > 0


def test_the_plan_changes_the_forecast_only_with_odometry(model):
    config = model.config
    latent = torch.rand(1, 256, config.latent_dim)
    maps = torch.rand(2, 1, config.skip_channels, 80, 80).unbind()
    stop, go = torch.zeros(1, 6, 3), torch.zeros(1, 6, 3)
    go[..., 0] = torch.linspace(5, 30, 6)
    motion, known = torch.zeros(1, 2), torch.ones(1, 1)
    with torch.no_grad():
        assert not torch.allclose(model.rollout(latent, *maps, stop, motion, known)['occupancy'],
                                  model.rollout(latent, *maps, go, motion, known)['occupancy'])
        assert torch.equal(model.rollout(latent, *maps, stop, motion, known * 0)['occupancy'],
                           model.rollout(latent, *maps, go, motion, known * 0)['occupancy'])


def test_an_agent_sees_the_plan_along_and_across_its_own_heading():
    """One 20 m behind drives at 10 m/s; one on the left faces right: the ego stops, or goes on."""
    stop, go = torch.zeros(1, 6, 3), torch.zeros(1, 6, 3)
    time_s = torch.arange(1, 7) * 0.5
    go[..., 0] = 10.0 * time_s
    position = torch.tensor([[[-20.0, 0.0], [0.0, 8.0]]])
    ahead = torch.tensor([[[0.0, 1.0], [-1.0, 0.0]]])                # sin, cos: along x, along -y
    velocity = torch.tensor([[[10.0, 0.0], [0.0, 0.0]]])

    def seen(plans):
        squeezed = relative_plan(plans, position, ahead, velocity, time_s)
        offsets = NEAR_M * squeezed / (1 - squeezed.abs())
        return offsets.reshape(2, 2, 6, 2).numpy()

    stops, goes = seen(stop), seen(go)
    np.testing.assert_allclose(stops[0, 0], [[20, 0]] * 6, atol=1e-4)
    np.testing.assert_allclose(stops[0, 1, :, 0], [15, 10, 5, 0, -5, -10], atol=1e-4)
    np.testing.assert_allclose(goes[0, 1], [[20, 0]] * 6, atol=1e-3)
    np.testing.assert_allclose(stops[1], [[[8, 0]] * 6] * 2, atol=1e-4)
    np.testing.assert_allclose(goes[1, 0, :, 1], [5, 10, 15, 20, 25, 30], atol=1e-3)


def test_agents_see_the_plan_only_where_it_is_known(model):
    """The scene's tokens kept the same: what differs then came through the agents' queries."""
    random = torch.Generator().manual_seed(3)
    agents = model.agents
    with torch.no_grad():
        agents.from_plan[-1].weight.normal_(std=0.5, generator=random)
        state = torch.rand(1, 256, model.config.dim, generator=random)
        now = torch.rand(1, model.decoder.now_channels, 80, 80, generator=random)
        cell = torch.arange(0, 320 * 320, 5000)[None]
        plans = torch.cat([10 * torch.rand(1, 6, 3, generator=random), torch.zeros(1, 6, 3)])

        def decode(plan, known):
            return agents(now, state, torch.ones(cell.shape), cell, None,
                          (plan[None], torch.full((1, 1), known)))

        one, other = decode(plans[0], 1.0), decode(plans[1], 1.0)
        assert torch.equal(one['agent_box'], other['agent_box'])     # what is there now
        assert (one['trajectories'] - other['trajectories']).abs().amax() > 0.01
        one, other = decode(plans[0], 0.0), decode(plans[1], 0.0)
        assert torch.equal(one['trajectories'], other['trajectories'])
        agents.from_plan[-1].weight.zero_()


def test_peaks_are_local_maxima_highest_first():
    centre = torch.full((1, 80, 80), -6.0)
    centre[0, 10, 10], centre[0, 10, 11], centre[0, 40, 7] = 2.0, 1.0, 3.0
    score, cell = peaks(centre, 2)
    assert cell.tolist() == [[40 * 80 + 7, 10 * 80 + 10]]
    np.testing.assert_allclose(score.numpy(), 1 / (1 + np.exp([[-3.0, -2.0]])), rtol=1e-6)


def test_unknown_config_field_is_named():
    with pytest.raises(ValueError, match='depth'):
        ModelConfig.from_dict({'depth': 3})


def test_plans_over_one_scene_have_the_same_agents_in_the_same_rows(model):
    config = model.config
    latent = torch.rand(1, 256, config.latent_dim).expand(3, -1, -1)
    maps = torch.rand(2, 1, config.skip_channels, 80, 80).unbind()
    plans = torch.zeros(3, 6, 3)
    plans[1, :, 0], plans[2, :, 1] = torch.linspace(5, 30, 6), torch.linspace(0, 9, 6)
    motion, known = torch.zeros(3, 2), torch.ones(3, 1)
    with torch.no_grad():
        together = model.rollout(latent, *maps, plans, motion, known)
        alone = model.rollout(latent[1:2], *maps, plans[1:2], motion[1:2], known[1:2])
    assert torch.equal(together['agent_score'], together['agent_score'][:1].expand(3, -1))
    # Places differ by what each plan adds to the same cell, never by half a cell.
    assert (together['agent_box'][1, :, :2] - together['agent_box'][0, :, :2]).abs().max() < 0.3
    assert together['road'].shape[0] == 1
    for name in ('occupancy', 'flow'):
        later, now = together[name][:, 1:], together[name][:, :1]
        torch.testing.assert_close(later[1], alone[name][0, 1:], rtol=1e-3, atol=1e-3)
        assert torch.equal(now, now[:1].expand_as(now))
    assert not torch.allclose(together['trajectories'][0], together['trajectories'][1])


def test_training_samples_features_as_the_exported_lift_does_with_the_same_gradient():
    torch.manual_seed(0)
    rows, weight = torch.randint(0, 40, (300, 4)), torch.rand(300, 4, dtype=torch.float64)
    weight[torch.rand(300, 4) < 0.4] = 0.0          # no camera sees the point
    table = torch.randn(50, 7, dtype=torch.float64, requires_grad=True)     # some rows nobody reads
    found, wanted = Sampled.apply(table, rows, weight), (table[rows] * weight[..., None]).sum(1)
    torch.testing.assert_close(found, wanted)
    back = torch.randn_like(wanted)
    for got, want in zip(*(torch.autograd.grad(each, table, back) for each in (found, wanted)),
                         strict=True):
        torch.testing.assert_close(got, want)
