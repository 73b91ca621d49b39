"""Graphs cut up: together the parts give what the whole gives, and do no work twice."""

import numpy as np
import openvino as ov
import pytest
from openvino import opset15 as ops

from wm_ros.runtime.openvino_split import for_rows, split_shared


def run(model, given):
    compiled = ov.Core().compile_model(model, 'CPU', {'INFERENCE_PRECISION_HINT': 'f32'})
    taken = {name: given[name] for port in compiled.inputs for name in port.get_names()}
    return {port.get_any_name(): value for port, value in compiled(taken).items()}


def named(node, name):
    node.output(0).set_names({name})
    return ops.result(node)


@pytest.fixture
def branching():
    """Return a model whose outputs a, b and c share exp(x), of which b and c read its floor too."""
    x = ops.parameter((2, 3), np.float32)
    x.output(0).set_names({'x'})
    shared = ops.exp(x)
    shared.set_friendly_name('shared')
    floor = ops.floor(shared)
    floor.set_friendly_name('floor')
    both = ops.multiply(x, np.float32(2))
    both.set_friendly_name('both')
    return ov.Model([named(ops.sqrt(shared), 'a'), named(ops.add(floor, x), 'b'),
                     named(ops.add(floor, both), 'c')], [x])


def kinds(model):
    return {node.get_type_name() for node in model.get_ops()} - {'Parameter', 'Result', 'Constant'}


def test_what_several_need_is_made_first_and_once(branching):
    given = {'x': np.random.default_rng(0).random((2, 3), np.float32)}
    wanted = run(branching, given)
    results = branching.get_results()
    shared, branches, maps = split_shared(branching, [[item] for item in results], [])
    assert kinds(shared) == {'Exp', 'Floor'} and not maps
    assert [kinds(branch) for branch in branches] == [{'Sqrt'}, {'Add'}, {'Add', 'Multiply'}]
    given |= run(shared, given)
    for branch in branches:
        (name, value), = run(branch, given).items()
        np.testing.assert_array_equal(value, wanted[name])


def test_what_is_to_be_early_is_made_first(branching):
    results = branching.get_results()
    early = [node for node in branching.get_ops() if node.get_friendly_name() == 'both']
    shared, (_, other), _ = split_shared(branching, [results[:2], results[2:]], early)
    assert kinds(shared) == {'Exp', 'Floor', 'Multiply'} and kinds(other) == {'Add'}


def by_rows(mixes=False):
    """Return a model of six rows, each reshaped on its own and moved by a seventh, or mixed."""
    rows, still = ops.parameter((6, 4), np.float32), ops.parameter((2, 2), np.float32)
    for node, name in ((rows, 'rows'), (still, 'still')):
        node.output(0).set_names({name})
    shape = np.array([4, 6] if mixes else [1, 6, 2, 2])
    found = ops.reshape(rows, shape, False)
    return ov.Model([named(found if mixes else ops.add(found, still), 'out')], [rows, still][
        :1 if mixes else 2])


def test_a_model_for_fewer_rows_gives_those_rows():
    rng = np.random.default_rng(1)
    given = {'rows': rng.random((6, 4), np.float32), 'still': rng.random((2, 2), np.float32)}
    whole = run(by_rows(), given)['out']
    few = for_rows(by_rows(), ['rows'], 6, 2)
    assert list(few.output('out').shape) == [1, 2, 2, 2]
    np.testing.assert_array_equal(run(few, {**given, 'rows': given['rows'][2:4]})['out'],
                                  whole[:, 2:4])


def test_where_rows_cannot_be_told_apart_there_is_none():
    stuck = by_rows()
    held = ops.add(stuck.get_results()[0].input_value(0), np.zeros((1, 6, 2, 2), np.float32))
    model = ov.Model([named(held, 'held')], stuck.get_parameters())
    assert for_rows(model, ['rows'], 6, 4) is None
