"""Raw outputs to agents and layers, with values worked out by hand."""

from dataclasses import fields

import numpy as np
import pytest

from wm_ros import decode
from wm_ros.choices import Choices
from wm_ros.decode import OutputError
from wm_ros.reading import OutputReader
from wm_ros.runtime.contract import MAX_AGENTS, graph_specs


def outputs(plans=1):
    """Return outputs in which nothing is there and all ground is observed and free."""
    spec = graph_specs()['rollout'].outputs
    out = {item.name: np.zeros(item.resolve(P=plans), dtype=item.dtype) for item in spec}
    out['agent_box'][..., 3] = 1.0
    out['agent_box'][..., 0] = np.linspace(-49, 49, MAX_AGENTS)
    out['occupancy'][:] = -20.0
    out['road'][:] = np.array([20.0, -20.0, -20.0])[:, None, None]
    out['observed'][:] = 5.0
    return out


def test_one_agent_by_hand():
    raw = outputs(2)
    raw['agent_score'][1, 7] = 0.8
    raw['agent_class'][1, 7] = [0, 0, np.log(3), -50, -50, -50, -50, -50]   # 1 : 1 : 3
    raw['agent_box'][1, 7] = [10, -4, 1, 0, np.log(4), np.log(2), np.log(1.5), 3, 4]
    raw['agent_log_sigma'][1, 7] = np.log([0.5, 0.25, 0.1, 2.0, 1.0])
    raw['mode_logits'][1, 7] = np.log([1, 2, 4, 1, 1, 1])
    raw['trajectories'][1, 7, :, :, 0] = np.arange(6)[:, None]
    raw['trajectory_spread'][1, 7, 2, 5] = [np.log(2), np.log(3), np.arctanh(0.5)]
    table = decode.decode_agents(raw, 1, 0.5)
    assert len(table) == 1 and len(decode.decode_agents(raw, 0, 0.5)) == 0
    np.testing.assert_allclose(table.score, [0.8])
    np.testing.assert_allclose(table.class_probabilities[0, :3], [0.2, 0.2, 0.6], atol=1e-6)
    np.testing.assert_allclose(table.pose[0], [10, -4, np.pi / 2], atol=1e-6)
    np.testing.assert_allclose(table.size_m[0], [4, 2, 1.5], rtol=1e-6)
    np.testing.assert_allclose(table.velocity_mps[0], [3, 4])
    np.testing.assert_allclose(table.pose_covariance[0], np.diag([0.25, 0.0625, 0.01]), rtol=1e-5)
    np.testing.assert_allclose(table.twist_covariance[0], np.diag([4.0, 1.0]), rtol=1e-5)
    np.testing.assert_allclose(table.mode_probabilities[0], [.4, .2, .1, .1, .1, .1], atol=1e-6)
    # Most probable first, and paths go with their modes; equals stay in order.
    np.testing.assert_array_equal(table.trajectories_m[0, :, 0, 0], [2, 1, 0, 3, 4, 5])
    np.testing.assert_allclose(table.covariances_m2[0, 0, 5], [[4, 3], [3, 9]], rtol=1e-5)


def test_the_threshold_is_inclusive_and_agents_come_best_first():
    raw = outputs()
    raw['agent_score'][0, [3, 10, 20]] = [0.5, 0.9, 0.499]
    table = decode.decode_agents(raw, 0, 0.5)
    np.testing.assert_allclose(table.score, [0.9, 0.5])


def test_duplicates_go_and_pedestrians_may_stand_close():
    raw = outputs()
    raw['agent_score'][0, :4] = [0.9, 0.8, 0.7, 0.6]
    raw['agent_box'][0, :4, :2] = [[0, 0], [0.7, 0.6], [1.5, 1.2], [30, 0]]
    # The second is 0.92 m from the first: gone. The third is 1.0 m from the second, which is gone.
    np.testing.assert_allclose(decode.decode_agents(raw, 0, 0.5).score, [0.9, 0.7, 0.6])
    raw['agent_class'][0, :3, 6] = 9.0
    assert len(decode.decode_agents(raw, 0, 0.5)) == 4
    raw['agent_box'][0, 1, :2] = [0.3, 0.3]
    np.testing.assert_allclose(decode.decode_agents(raw, 0, 0.5).score, [0.9, 0.7, 0.6])


def test_a_second_peak_inside_the_box_of_a_bus_goes():
    raw = outputs()
    raw['agent_score'][0, :3] = [0.9, 0.8, 0.7]
    raw['agent_box'][0, 0, 2:6] = [1.0, 0.0, np.log(12.0), np.log(2.5)]      # heading along y
    raw['agent_box'][0, :3, :2] = [[0, 0], [0, 4.7], [4.7, 0]]
    np.testing.assert_allclose(decode.decode_agents(raw, 0, 0.5).score, [0.9, 0.7])


def test_a_companion_stands_by_its_peak_and_by_no_other():
    raw, last = outputs(), decode.FIRST_COMPANION
    rows = [0, 1, last, last + 1, last + 2]
    raw['agent_class'][0, :, 6] = 9.0
    raw['agent_score'][0, rows] = [0.95, 0.9, 0.8, 0.7, 0.6]
    # Two companions of the first, nearer than doubles may be, and one of the second.
    raw['agent_box'][0, rows, :2] = [[0, 0], [0, 2], [0, 0.2], [0, -0.1], [0, 1.8]]
    np.testing.assert_allclose(decode.decode_agents(raw, 0, 0.5).score, [0.95, 0.9, 0.8, 0.7, 0.6])
    # Where the second peak is a double of the first, its companion goes too.
    raw['agent_box'][0, 1, :2] = [0, 0.45]
    raw['agent_box'][0, last + 2, :2] = [0, 0.7]
    np.testing.assert_allclose(decode.decode_agents(raw, 0, 0.5).score, [0.95, 0.8, 0.7])
    # One that comes too near to another peak than its own is that one's double: here the third
    # of the first peak stands 0.45 m from the second, which is further from it than the first.
    raw['agent_box'][0, rows, :2] = [[0, 0], [0, 0.85], [0, 0.41], [0, -0.1], [0, 3.0]]
    np.testing.assert_allclose(decode.decode_agents(raw, 0, 0.5).score, [0.95, 0.9, 0.7, 0.6])


def test_a_companion_inside_a_bus_goes_and_the_car_behind_it_stays():
    raw, last = outputs(), decode.FIRST_COMPANION
    rows = [0, last, last + 1]
    raw['agent_score'][0, rows] = [0.9, 0.8, 0.7]
    raw['agent_box'][0, 0, 4:6] = np.log([12.0, 2.5])                        # heading along x
    raw['agent_box'][0, rows, :2] = [[0, 0], [3.0, 0], [-9.0, 0]]
    np.testing.assert_allclose(decode.decode_agents(raw, 0, 0.5).score, [0.9, 0.7])


def test_a_model_without_companions_has_none_in_its_last_rows():
    raw, rows = outputs(), [0, decode.FIRST_COMPANION + 1]
    raw['agent_class'][0, :, 6] = 9.0
    raw['agent_score'][0, rows] = [0.9, 0.8]
    raw['agent_box'][0, rows, :2] = [[0, 0], [0, 0.2]]
    found = []
    for companions in (True, False):
        reader = OutputReader(Choices(), 1, companions)
        ((agents, _, why),) = reader.read(raw, 1, np.ones((200, 200), bool), 0.5, None)
        reader.close()
        found.append((len(agents), why))
    assert found == [(2, ()), (1, ())]


def test_whose_companion_somebody_is_does_not_depend_on_who_is_below_the_threshold():
    raw, last = outputs(), decode.FIRST_COMPANION
    rows = [0, 1, last]
    raw['agent_class'][0, :, 6] = 9.0
    raw['agent_score'][0, rows] = [0.9, 0.15, 0.6]
    # Nearer to the weak peak than to its own, of which it would else be a double.
    raw['agent_box'][0, rows, :2] = [[0, 0], [0, 0.9], [0, 0.47]]
    np.testing.assert_allclose(decode.decode_agents(raw, 0, 0.5).score, [0.9, 0.6])
    np.testing.assert_allclose(decode.decode_agents(raw, 0, 0.1).above(0.5).score, [0.9, 0.6])


def test_layers_by_hand():
    raw = outputs()
    raw['occupancy'][0, 2, 10, 20] = np.log(3)              # p = 0.75 -> round(190.5) = 191
    raw['road'][:, 50, 60] = [np.log(4), 0, np.log(1 / 3)]  # drivable 0.8, static 0.25
    raw['flow'][0, 3, 1, 5, 6] = -1.5
    observed = np.ones((200, 200), dtype=bool)
    observed[0, :5] = False
    layers = decode.decode_layers(raw, 0, decode.decode_ground(raw, observed))
    assert layers.occupancy_agents[2, 10, 20] == 191
    assert layers.occupancy_agents[1, 10, 20] == 0
    assert layers.road[:, 50, 60].tolist() == [203, 127, 64]     # 203.2, 127, 63.5
    assert layers.occupancy_static[50, 60] == 102                # 1 - 0.8 * 0.75 = 0.4 -> 101.6
    assert layers.occupancy_static[51, 60] == 0
    assert layers.flow[3, 1, 5, 6] == np.float32(-1.5)
    for layer in (*layers.occupancy_agents, layers.occupancy_static, *layers.road):
        assert (layer[0, :5] == 255).all()
        assert (layer[observed] <= 254).all()
    assert not np.shares_memory(layers.flow, raw['flow'])


def test_layers_stay_as_they_are_when_the_next_are_decoded():
    """What they are computed in is used again."""
    rng = np.random.default_rng(0)
    observed = rng.random((200, 200)) < 0.9

    def decoded():
        raw = outputs()
        for name in ('occupancy', 'flow', 'road'):
            raw[name][:] = rng.normal(0, 3, raw[name].shape)
        return decode.decode_layers(raw, 0, decode.decode_ground(raw, observed))

    first = decoded()
    kept = [getattr(first, field.name).copy() for field in fields(first)]
    decoded()
    for field, values in zip(fields(first), kept, strict=True):
        np.testing.assert_array_equal(getattr(first, field.name), values, field.name)


def test_ground_is_observed_where_model_and_geometry_say_so():
    raw = outputs()
    raw['observed'][0] = [-1.0] * 100 + [0.5] * 100
    seen = np.ones((200, 200), dtype=bool)
    seen[:, 150:] = False
    observed = decode.observed_ground(raw, 0.5, seen)
    assert observed[0].tolist() == [False] * 100 + [True] * 50 + [False] * 50


def test_extreme_logits_stay_probabilities():
    logits = np.array([-9e3, -100, 0, 100, 9e3], dtype=np.float32)
    np.testing.assert_allclose(decode.probability(logits), [0, 0, 0.5, 1, 1], atol=1e-7)
    assert decode.coded(decode.probability(logits)).tolist() == [0, 0, 127, 254, 254]


@pytest.mark.parametrize('value', [np.nan, np.inf, -np.inf, 1e9])
@pytest.mark.parametrize('name', [item.name for item in graph_specs()['rollout'].outputs])
def test_one_bad_number_anywhere_is_found(name, value):
    raw = outputs()
    raw[name].reshape(-1)[-1] = value
    with pytest.raises(OutputError, match=f'output {name}'):
        decode.check_outputs(raw)


@pytest.mark.parametrize('name,place,value,wanted', [
    ('agent_box', 0, 90.0, 'agent centre: 90 m, want at most 75 m'),
    ('agent_box', 7, 150.0, 'agent velocity: 150 m/s'),
    ('trajectories', 0, 900.0, 'waypoint: 900 m')])
def test_what_cannot_be_is_refused(name, place, value, wanted):
    raw = outputs()
    raw['agent_score'][0, 5] = 0.9
    raw[name][0, 5].reshape(-1)[place] = value
    everybody = decode.decode_agents(raw, 0, 0.5)
    with pytest.raises(OutputError, match=wanted):
        decode.check_agents(everybody)
    decode.check_agents(everybody.above(0.95))   # nobody publishes that one


def test_a_score_means_an_existence_probability():
    raw = outputs()
    raw['agent_score'][0, [3, 10]] = [0.5, 0.2]
    choices = Choices(existence=(2.0, np.log(3)))
    # logit 0 -> ln 3 -> 3/4; logit -ln 4 -> ln 3 - 2 ln 4 -> 3/19.
    np.testing.assert_allclose(decode.decode_agents(raw, 0, 0.1, choices).score, [0.75, 3 / 19],
                               rtol=1e-5)
    assert len(decode.decode_agents(raw, 0, 0.74, choices)) == 1
    assert len(decode.decode_agents(raw, 0, 0.76, choices)) == 0


def test_the_spread_of_paths_is_scaled_a_step_and_nothing_else():
    raw = outputs()
    raw['agent_score'][0, 0] = 0.9
    factors = (1.0, 1.0, 2.0, 1.0, 1.0, 0.5)
    before = decode.decode_agents(raw, 0, 0.5)
    after = decode.decode_agents(raw, 0, 0.5, Choices(spread=factors))
    ratio = after.covariances_m2[0, 0] / before.covariances_m2[0, 0].clip(1e-9)
    np.testing.assert_allclose(ratio[:, 0, 0], np.square(factors), rtol=1e-5)
    np.testing.assert_allclose(ratio[:, 1, 1], np.square(factors), rtol=1e-5)
    for name in ('score', 'pose_covariance', 'trajectories_m', 'mode_probabilities'):
        np.testing.assert_array_equal(getattr(after, name), getattr(before, name))


def test_rows_above_a_score_are_what_decoding_from_there_gives():
    raw = outputs()
    raw['agent_score'][0, :6] = [0.9, 0.8, 0.7, 0.6, 0.5, 0.4]
    raw['agent_box'][0, 2, :2] = raw['agent_box'][0, 3, :2] + 0.3   # a duplicate below the cut
    everybody, few = decode.decode_agents(raw, 0, 0.1), decode.decode_agents(raw, 0, 0.65)
    assert (len(everybody), len(few)) == (5, 3)
    for name in everybody.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(everybody.above(0.65), name), getattr(few, name))


def test_sizes_and_spreads_are_held_to_bounds():
    raw = outputs()
    raw['agent_score'][0, 5] = 0.9
    raw['agent_box'][0, 5, 4:7] = [50.0, -50.0, 0.0]
    raw['agent_log_sigma'][0, 5] = 90.0
    raw['trajectory_spread'][0, 5] = [-90.0, 90.0, 90.0]
    table = decode.decode_agents(raw, 0, 0.5)
    np.testing.assert_allclose(table.size_m[0], [25, 0.2, 1.0], rtol=1e-6)
    assert np.isfinite(table.pose_covariance).all() and table.pose_covariance.max() < 2501
    assert (np.linalg.eigvalsh(table.covariances_m2.astype(float)) > 0).all()


def test_nothing_has_the_shapes_of_something():
    nothing, layers = decode.no_agents(), decode.nothing_observed()
    something = decode.decode_agents(outputs(), 0, 0.5)
    for name in nothing.__dataclass_fields__:
        assert getattr(nothing, name).shape == getattr(something, name).shape
    raw = outputs()
    real = decode.decode_layers(raw, 0, decode.decode_ground(raw, np.ones((200, 200), bool)))
    for name in layers.__dataclass_fields__:
        assert getattr(layers, name).shape == getattr(real, name).shape
        assert getattr(layers, name).dtype == getattr(real, name).dtype
    assert (layers.occupancy_agents == 255).all() and (layers.road == 255).all()
