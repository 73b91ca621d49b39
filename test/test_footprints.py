"""What agents cover, drawn by hand: shares of cells, steps, motion, and what others see of it."""

from dataclasses import fields

import numpy as np
import pytest

from wm_ros import decode
from wm_ros.choices import Choices
from wm_ros.decode import AgentTable
from wm_ros.footprints import footprints
from wm_ros.runtime.contract import MAX_AGENTS, graph_specs

ROW = COL = 100     # the cell whose centre is (0.25, 0.25)


def agents(score=1.0, place=(0.25, 0.25), heading=0.0, size=(4.0, 2.0), velocity=(0.0, 0.0),
           paths=None, sigma=1e-3):
    """Return one agent whose two modes are equally likely; `paths` (2, 6, 2), by default still."""
    f = np.float32
    paths = np.broadcast_to(f(place), (2, 6, 2)) if paths is None else np.asarray(paths, f)
    covariance = np.broadcast_to(np.eye(2, dtype=f) * f(sigma) ** 2, (1, 2, 6, 2, 2))
    return AgentTable(
        f([score]), np.full((1, 8), 0.125, f), f([[*place, heading]]),
        np.eye(3, dtype=f)[None] * f(sigma) ** 2, f([velocity]),
        np.eye(2, dtype=f)[None], f([[*size, 1.5]]), paths[None], f([[0.5, 0.5]]), covariance)


def drawn(table, weight=1.0):
    out = np.zeros((7, 200, 200), np.float32)
    footprints(table).add_to(out, weight)
    return out


def test_a_sharp_box_by_hand():
    share = drawn(agents())[0]
    # Edges fade over +-0.25 m: a cell centre 0.5 m outside has nothing, one on the edge a half.
    along = share[ROW, COL - 6:COL + 7]
    np.testing.assert_allclose(along, [0, 0, .5, 1, 1, 1, 1, 1, 1, 1, .5, 0, 0], atol=1e-6)
    across = share[ROW - 4:ROW + 5, COL]
    np.testing.assert_allclose(across, [0, 0, .5, 1, 1, 1, .5, 0, 0], atol=1e-6)
    assert share[ROW + 2, COL + 4] == pytest.approx(0.25)
    assert share.sum() == pytest.approx(4 * 2 / 0.25, rel=1e-4)     # its area in cells
    np.testing.assert_array_equal(drawn(agents(heading=np.pi / 2))[0].T.round(4), share.round(4))


def test_the_place_is_as_wide_as_it_is_said_to_be():
    # Sigma 2 m: a box of half length 2 over a place uniform in +-1 m.
    share = drawn(agents(sigma=2.0))[0]
    np.testing.assert_allclose(share[ROW, COL:COL + 7], [1, 1, 1, .75, .5, .25, 0], atol=1e-6)
    # A person of 0.5 m in the same place covers none of it for sure: 0.25 each way.
    person = drawn(agents(sigma=2.0, size=(0.5, 0.5)))[0]
    assert person.max() == pytest.approx(1 / 16)
    # Two modes 4 m apart are one place of sigma 2 m.
    paths = np.zeros((2, 6, 2)) + 0.25
    paths[0, :, 1] -= 2.0
    paths[1, :, 1] += 2.0
    later = drawn(agents(paths=paths))[3]
    np.testing.assert_allclose(later[ROW:ROW + 5, COL], [1, .75, .5, .25, 0], atol=1e-6)


def test_who_is_drawn_and_how_much():
    np.testing.assert_allclose(drawn(agents(score=0.4), 0.5), 0.2 * drawn(agents()), atol=1e-6)
    assert drawn(agents(score=0.09)).max() == 0
    assert drawn(agents(place=(500.0, -3e5))).max() == 0
    assert drawn(agents(place=(49.75, 0.25)))[0, ROW, -1] == 1     # clipped at the border
    assert drawn(decode.no_agents()).max() == 0
    assert drawn(agents(), 3.0).max() == 1


def test_boxes_point_where_they_go_and_flow_leads_back():
    # 2 m a step along y, from a heading along x.
    paths = np.tile(0.25 + np.array([[0.0, 2.0 * step] for step in range(1, 7)]), (2, 1, 1))
    table = agents(velocity=(0.0, 4.0), paths=paths)
    found = footprints(table)
    flow = np.full((7, 2, 200, 200), 9.0, np.float32)
    found.write_flow(flow)
    occupancy = drawn(table)
    for step in range(1, 7):
        at = ROW + 4 * step
        assert occupancy[step, at + 3, COL] == 1 and occupancy[step, at, COL + 3] == 0
        np.testing.assert_allclose(flow[step, :, at, COL], [0, -2], atol=1e-5)
    assert occupancy[0, ROW, COL + 3] == 1      # now it is where its heading says
    np.testing.assert_allclose(flow[0, :, ROW, COL], [0, -2], atol=1e-5)
    assert (flow[:, :, 0, 0] == 9).all()
    # Whoever is probably not there leaves the flow as it is.
    untouched = np.zeros((7, 2, 200, 200), np.float32)
    footprints(agents(score=0.45, velocity=(0.0, 4.0), paths=paths)).write_flow(untouched)
    assert (untouched == 0).all()


def test_the_motion_of_a_large_box_is_written_over_that_of_a_small_one():
    bus, person = (agents(size=size, velocity=velocity) for size, velocity in (
        ((12.0, 2.5), (4.0, 0.0)), ((1.0, 1.0), (0.0, 1.0))))
    for tables in ((bus, person), (person, bus)):
        both = AgentTable(*(np.concatenate([getattr(table, field.name) for table in tables])
                            for field in fields(AgentTable)))
        flow = np.zeros((7, 2, 200, 200), np.float32)
        footprints(both).write_flow(flow)
        np.testing.assert_allclose(flow[0, :, ROW, COL], [-2, 0], atol=1e-5)


def test_the_forecast_is_the_weighted_sum_and_hidden_ground_is_never_free():
    spec = graph_specs()['rollout'].outputs
    raw = {item.name: np.zeros(item.resolve(P=1), item.dtype) for item in spec}
    raw['occupancy'][0, 0, ROW, COL] = np.log(4)             # the head says 0.8 there, else 0.5
    raw['agent_box'][0, :, 3] = 1.0
    raw['agent_score'][0, 0] = 0.5
    raw['agent_box'][0, 0, [0, 1, 4, 5]] = [0.25, 0.25, np.log(4.0), np.log(2.0)]
    raw['agent_log_sigma'][:] = -6.0
    everybody = decode.decode_agents(raw, 0, 0.1)
    assert len(everybody) == 1 < MAX_AGENTS
    observed = np.ones((200, 200), bool)
    observed[ROW, COL + 1] = False
    ground = decode.decode_ground(raw, observed)
    codes = decode.decode_layers(raw, 0, ground, everybody, (0.5, 0.8)).occupancy_agents
    raw['agent_score'][0, 0] = 0.45
    unsure = decode.decode_layers(raw, 0, ground, decode.decode_agents(raw, 0, 0.1), (0.5, 0.8))
    assert codes[0, ROW, COL] == round(254 * (0.5 * 0.8 + 0.8 * 0.5))
    assert codes[0, ROW + 1, COL] == round(254 * (0.5 * 0.5 + 0.8 * 0.5))
    assert codes[0, 0, 0] == round(254 * 0.25)
    # Hidden ground is unknown, but under who surely stands there: never free.
    assert codes[0, ROW, COL + 1] == 127
    assert (unsure.occupancy_agents[:, ROW, COL + 1] == 255).all()
    assert (codes[:, ~observed] >= 127).all()
    raw['agent_score'][0, 0] = 0.5
    # Neutral weights leave the head's word alone, byte for byte.
    alone, neutral = (decode.decode_layers(raw, 0, ground), decode.decode_layers(
        raw, 0, ground, everybody, Choices().occupancy_weights))
    for name in alone.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(alone, name), getattr(neutral, name))
