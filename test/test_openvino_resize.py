"""Enlarging by OpenCV between two parts of a graph: the numbers of the graph in one piece."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import openvino as ov
import pytest
from openvino import opset13 as ops

from wm_ros.runtime.openvino_resize import (
    count_maps,
    last_resizes,
    raise_all,
    small_map,
    spread,
    take_resizes,
)


def model(mode='linear_onnx', after='split', sub_cells=False):
    """
    Return a model: maps (2, 3, 8, 6) raised to 10x9, and the sum of the maps beside it.

    With `sub_cells` the maps come as (2, 12, 4, 3), four channels a cell.
    """
    maps = ops.parameter((2, 12, 4, 3) if sub_cells else (2, 3, 8, 6), np.float32)
    maps.output(0).set_names({'maps'})
    spread_out = ops.depth_to_space(maps, 'depth_first', 2) if sub_cells else maps
    raised = ops.interpolate(
        spread_out, np.array([10, 9], np.int64), mode, 'sizes', pads_begin=[0] * 4,
        pads_end=[0] * 4, coordinate_transformation_mode='half_pixel', axes=np.array([2, 3]))
    ends = (ops.split(raised, np.int64(1), 3).outputs() if after == 'split'
            else [ops.exp(raised).output(0)])
    results = [ops.result(end) for end in [*ends, ops.reduce_sum(maps, 1).output(0)]]
    for name, result in zip('abcd', results, strict=False):
        result.input_value(0).set_names({name})
    return ov.Model(results, [maps])


def run(found, values):
    compiled = ov.Core().compile_model(found, 'CPU', {'INFERENCE_PRECISION_HINT': 'f32'})
    return {port.get_any_name(): value for port, value in compiled(values).items()}


@pytest.mark.parametrize('sub_cells', [False, True])
@pytest.mark.parametrize('threads', [1, 2])
def test_equals_interpolate(threads, sub_cells):
    shape = (2, 12, 4, 3) if sub_cells else (2, 3, 8, 6)
    values = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    whole = run(model(sub_cells=sub_cells), [values])
    before, raised = take_resizes(model(sub_cells=sub_cells))
    assert 'DepthToSpace' not in {node.get_type_name() for node in before.get_ops()}
    made = run(before, [values])
    assert {(one.source, one.output) for one in raised} == {('small0', name) for name in 'abc'}
    assert count_maps(made['small0'].shape) == len(raised) == 6
    found = {name: np.zeros_like(whole[name]) for name in 'abc'}
    with ThreadPoolExecutor(1) as pool:
        raise_all([(small_map(made[one.source], one.map), small_map(found[one.output], one.plane))
                   for one in raised], pool, threads)
    for name in 'abc':
        np.testing.assert_allclose(found[name], whole[name], atol=1e-4)
    np.testing.assert_allclose(made['d'], whole['d'], atol=1e-5)


def test_sub_cells_go_to_their_places():
    cells = np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2)
    assert spread(cells).tolist() == [[0, 1, 4, 5, 8, 9], [2, 3, 6, 7, 10, 11],
                                      [12, 13, 16, 17, 20, 21], [14, 15, 18, 19, 22, 23]]
    among_others = np.arange(96, dtype=np.float32).reshape(2, 3, 4, 2, 2)[:, :, 1]
    assert spread(among_others)[0].tolist() == [4, 5, 20, 21, 36, 37]


@pytest.mark.parametrize('changes', [{'mode': 'nearest'}, {'after': 'exp'}])
def test_leaves_others_alone(changes):
    assert last_resizes(model(**changes)) == []
    found, raised = take_resizes(model(**changes))
    assert raised == [] and len(found.inputs) == 1
