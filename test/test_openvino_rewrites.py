"""What OpenVINO's graphs are rewritten to gives the numbers of the graphs as they are."""

import numpy as np
import openvino as ov
import pytest
from openvino import opset15 as ops

from wm_ros.runtime.openvino_attention import rewrite_keys
from wm_ros.runtime.openvino_layout import channels_last, hold_channels_last
from wm_ros.runtime.openvino_lift import rewrite_lifts
from wm_ros.runtime.openvino_pool import rewrite_pools

TABLE = (7, 5)
TAPS = 3


def run(model, **inputs):
    """Return the outputs of a model by name."""
    compiled = ov.Core().compile_model(model, 'CPU', {'INFERENCE_PRECISION_HINT': 'f32'})
    return {port.get_any_name(): value for port, value in compiled(inputs).items()}


def named(outputs, parameters):
    for name, node in parameters.items():
        node.output(0).set_names({name})
    results = []
    for name, node in outputs.items():
        node.output(0).set_names({name})
        results.append(ops.result(node))
    return ov.Model(results, list(parameters.values()))


def kinds(model):
    return [node.get_type_name() for node in model.get_ordered_ops()]


def lift(columns=range(TAPS), tables=1):
    """Return a model: rows of one table, or of two in turns, weighted and added up."""
    given = {'index': ops.parameter((4, TAPS), np.int32),
             'weight': ops.parameter((4, TAPS), np.float32)}
    given |= {f'table{i}': ops.parameter(TABLE, np.float32) for i in range(tables)}
    total = None
    for number, column in enumerate(columns):
        rows, weight = (ops.gather(given[name], np.int64(column), np.int64(-1))
                        for name in ('index', 'weight'))
        picked = ops.gather(given[f'table{number % tables}'], rows, np.int64(0))
        product = ops.multiply(picked, ops.reshape(weight, np.array([4, 1]), False))
        total = product if total is None else ops.add(total, product)
    return named({'lifted': total}, given)


def test_a_sum_of_weighted_rows_becomes_a_bag():
    rng = np.random.default_rng(0)
    values = {'index': rng.integers(0, 7, (4, TAPS), dtype=np.int32),
              'weight': rng.random((4, TAPS), np.float32), 'table0': rng.random(TABLE, np.float32)}
    model = lift()
    assert rewrite_lifts(model) == 1 and 'Gather' not in kinds(model)
    np.testing.assert_allclose(run(model, **values)['lifted'], run(lift(), **values)['lifted'],
                               rtol=1e-6)


@pytest.mark.parametrize('changes', [{'tables': 2}, {'columns': (0, 2, 1)}, {'columns': (0, 1)}])
def test_other_sums_are_left_alone(changes):
    assert rewrite_lifts(lift(**changes)) == 0


def attention(shared=False):
    """Return a model: queries times keys that are turned round and then rounded to INT8."""
    given = {name: ops.parameter((2, 4, 8), np.float32) for name in ('query', 'key')}
    turned = ops.transpose(given['key'], np.array([0, 2, 1]))
    rounded = [ops.fake_quantize(value, np.float32(-1.28), np.float32(1.27), np.float32(-1.28),
                                 np.float32(1.27), 256) for value in (given['query'], turned)]
    outputs = {'scores': ops.matmul(*rounded, False, False)}
    if shared:
        outputs['turned'] = ops.relu(turned)
    return named(outputs, given)


def test_keys_are_read_as_they_lie():
    rng = np.random.default_rng(1)
    values = {name: rng.normal(size=(2, 4, 8)).astype(np.float32) for name in ('query', 'key')}
    model = attention()
    assert rewrite_keys(model) == 1 and 'Transpose' not in kinds(model)
    np.testing.assert_allclose(run(model, **values)['scores'], run(attention(), **values)['scores'],
                               atol=1e-5)
    assert rewrite_keys(attention(shared=True)) == 0


def test_maps_with_channels_innermost_hold_the_same_numbers():
    def model():
        given = {'maps': ops.parameter((3, 4, 4), np.float32),
                 'more': ops.parameter((2, 3, 4, 4), np.float32)}
        batch = ops.unsqueeze(given['maps'], np.array([0]))
        both = ops.add(batch, given['more'])
        return named({'both': ops.relu(both), 'one': ops.squeeze(batch, np.array([0]))}, given)

    rng = np.random.default_rng(2)
    values = {'maps': rng.normal(size=(3, 4, 4)).astype(np.float32),
              'more': rng.normal(size=(2, 3, 4, 4)).astype(np.float32)}
    wanted = run(model(), **values)
    found = run(hold_channels_last(model(), {'maps', 'more', 'both', 'one'}),
                **{name: np.ascontiguousarray(channels_last(array))
                   for name, array in values.items()})
    for name, array in wanted.items():
        np.testing.assert_array_equal(found[name], channels_last(array))


def test_maps_are_added_and_read_as_they_lie():
    def model():
        given = {name: ops.parameter((1, 3, 4, 4), np.float32) for name in 'ab'}
        total = ops.add(given['a'], given['b'])
        last = ops.transpose(total, np.array([0, 2, 3, 1]))
        return named({'out': ops.relu(last)}, given)

    rng = np.random.default_rng(3)
    values = {name: rng.normal(size=(1, 3, 4, 4)).astype(np.float32) for name in 'ab'}
    held = hold_channels_last(model(), {'a', 'b'})
    assert 'Transpose' not in kinds(held)
    found = run(held, **{name: np.ascontiguousarray(channels_last(array))
                         for name, array in values.items()})
    np.testing.assert_array_equal(found['out'], run(model(), **values)['out'])


def pooling(kernel=(3, 3), channels=1, strides=(1, 1)):
    """Return a model: maxima over windows around every cell of maps (2, channels, 7, 9)."""
    given = {'maps': ops.parameter((2, channels, 7, 9), np.float32)}
    margin = [size // 2 for size in kernel]
    pool = ops.max_pool(given['maps'], list(strides), [1, 1], margin, margin, list(kernel))
    return named({'maxima': ops.relu(pool.output(0))}, given)


@pytest.mark.parametrize('kernel', [(3, 3), (1, 5), (5, 1)])
def test_maxima_are_found_by_axis(kernel):
    values = np.random.default_rng(4).normal(size=(2, 1, 7, 9)).astype(np.float32)
    model = pooling(kernel)
    assert rewrite_pools(model) == 1
    shapes = {tuple(node.get_output_shape(0)[2:]) for node in model.get_ops()
              if node.get_type_name() == 'MaxPool'}
    assert shapes == {size for size, used in (((1, 9), kernel[1] > 1), ((1, 7), kernel[0] > 1))
                      if used}
    np.testing.assert_array_equal(run(model, maps=values)['maxima'],
                                  run(pooling(kernel), maps=values)['maxima'])


@pytest.mark.parametrize('changes', [{'channels': 2}, {'strides': (2, 2)}, {'kernel': (2, 2)}])
def test_other_maxima_are_left_alone(changes):
    assert rewrite_pools(pooling(**changes)) == 0
