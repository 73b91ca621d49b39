"""An agent reads the map before and beside it in its own frame."""

import pytest

torch = pytest.importorskip('torch', reason='the model is torch')

import torch.nn.functional as F  # noqa: E402

from wm_ros.model.agents import AgentDecoder  # noqa: E402
from wm_ros.model.surroundings import POINTS_M, Surroundings  # noqa: E402
from wm_ros.types import FEATURE_GRID  # noqa: E402

ROWS, COLS = FEATURE_GRID.shape


def heading(yaw):
    return torch.stack([torch.sin(yaw), torch.cos(yaw)], -1)


def read(module, now, position, yaw):
    """Return what is sampled (B, A, points, C), before it is read."""
    index, weight = module.taps(position, heading(yaw))
    flat = now.flatten(2).transpose(1, 2)
    return torch.stack([(flat[b][index[b]] * weight[b][..., None]).sum(-2)
                        for b in range(len(now))])


def test_points_lie_ahead_and_beside_and_are_sampled_as_torch_does():
    torch.manual_seed(0)
    module = Surroundings(5, 4, 8)
    now = torch.randn(2, 5, ROWS, COLS)
    position, yaw = torch.rand(2, 30, 2) * 110 - 55, torch.rand(2, 30) * 7 - 3.5
    along, across = torch.tensor(POINTS_M).unbind(-1)
    cos, sin = torch.cos(yaw)[..., None], torch.sin(yaw)[..., None]
    x = position[..., :1] + cos * along - sin * across
    y = position[..., 1:] + sin * along + cos * across
    wanted = F.grid_sample(now, torch.stack([x, y], -1) / 50.0, align_corners=False)
    torch.testing.assert_close(read(module, now, position, yaw), wanted.permute(0, 2, 3, 1),
                               atol=1e-4, rtol=1e-4)


def test_who_turns_with_the_world_reads_the_same():
    torch.manual_seed(0)
    module = Surroundings(3, 4, 8)
    now = torch.randn(1, 3, ROWS, COLS)
    position = torch.tensor([[[7.0, -3.0], [-20.0, 11.0]]])
    yaw = torch.tensor([[0.3, -2.0]])
    # A quarter turn to the left: x becomes y, and y becomes -x.
    turned = torch.rot90(now, -1, (2, 3))
    there = torch.stack([-position[..., 1], position[..., 0]], -1)
    torch.testing.assert_close(read(module, turned, there, yaw + torch.pi / 2),
                               read(module, now, position, yaw), atol=2e-4, rtol=1e-3)


@pytest.mark.parametrize('training', [False, True])
def test_it_begins_as_nothing_and_learns_where_a_lane_turns_off(training):
    torch.manual_seed(0)
    module = Surroundings(2, 4, 16).train(training)
    now = torch.zeros(8, 2, ROWS, COLS)
    position, yaw = torch.zeros(8, 1, 2), torch.linspace(0, 5.5, 8)[:, None]
    assert not any(part.any() for part in module(now, position, heading(yaw)))
    # A patch lies 7 m to the left or to the right of the agent, whichever way it points.
    left = torch.arange(8) % 2 * 2.0 - 1
    ahead = heading(yaw[:, 0])
    x, y = 6 * ahead[:, 1] - left * 7 * ahead[:, 0], 6 * ahead[:, 0] + left * 7 * ahead[:, 1]
    for i in range(8):
        row, col = (int((v[i] + 50) / FEATURE_GRID.cell_m) for v in (y, x))
        now[i, 0, row - 1:row + 2, col - 1:col + 2] = 1.0
    learner = torch.optim.Adam(module.parameters(), 0.01)
    for _ in range(150):
        loss = (module(now, position, heading(yaw))[0][:, 0, 0] - left).square().mean()
        learner.zero_grad()
        loss.backward()
        learner.step()
    assert loss < 0.05


def test_speed_is_read_along_the_heading_and_given_in_the_frame_of_the_map():
    torch.manual_seed(0)
    module = Surroundings(2, 4, 16)
    torch.nn.init.constant_(module.speed.bias[:1], 1.5)      # 3 m/s ahead, whatever is around
    yaw = torch.tensor([[0.0, 0.5, -2.0]])
    _, faster, _ = module(torch.zeros(1, 2, ROWS, COLS), torch.zeros(1, 3, 2), heading(yaw))
    wanted = 3.0 * torch.stack([torch.cos(yaw), torch.sin(yaw)], -1)
    torch.testing.assert_close(faster, wanted)


def test_one_map_serves_agents_under_several_plans_and_only_speed_and_futures_read_it():
    torch.manual_seed(0)
    agents = AgentDecoder(32, 24, 32, 1, 4, True, 2, 4).eval()
    for last in (agents.surroundings.query, agents.surroundings.speed):
        torch.nn.init.normal_(last.weight)
    query, place = torch.randn(3, 5, 32), torch.rand(1, 5, 2) * 60 - 30
    now = torch.randn(1, 24, ROWS, COLS)
    together = agents.heads(query, place, now)
    for name, value in agents.heads(query, place, now.expand(3, -1, -1, -1)).items():
        torch.testing.assert_close(value, together[name], atol=1e-4, rtol=1e-4)
    elsewhere = agents.heads(query, place, now + 1.0)
    torch.testing.assert_close(elsewhere['agent_class'], together['agent_class'])
    torch.testing.assert_close(elsewhere['agent_log_sigma'][..., :3],
                               together['agent_log_sigma'][..., :3])
    box, other = together['agent_box'], elsewhere['agent_box']
    torch.testing.assert_close(other[..., :7], box[..., :7])
    assert (other[..., 7:] - box[..., 7:]).abs().max() > 1e-3
    # Paths part by more than the speed does: their query has read the map too.
    apart = [out['trajectories'] - out['agent_box'][:, :, None, None, 7:]
             * agents.time_s[:, None] for out in (together, elsewhere)]
    assert (apart[0] - apart[1]).abs().max() > 1e-3
