"""Enlarging by OpenCV between two parts of a graph: the numbers of the graph in one piece."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import openvino as ov
import pytest
from openvino import opset13 as ops

from wm_ros.runtime.openvino_resize import last_resizes, raise_all, take_resizes


def model(mode='linear_onnx', after='split'):
    """Return a model: maps (2, 3, 8, 6) raised to 10x9, and the sum of the maps beside it."""
    maps = ops.parameter((2, 3, 8, 6), np.float32)
    maps.output(0).set_names({'maps'})
    raised = ops.interpolate(
        maps, np.array([10, 9], np.int64), mode, 'sizes', pads_begin=[0] * 4, pads_end=[0] * 4,
        coordinate_transformation_mode='half_pixel', axes=np.array([2, 3]))
    ends = (ops.split(raised, np.int64(1), 3).outputs() if after == 'split'
            else [ops.exp(raised).output(0)])
    results = [ops.result(end) for end in [*ends, ops.reduce_sum(maps, 1).output(0)]]
    for name, result in zip('abcd', results, strict=False):
        result.input_value(0).set_names({name})
    return ov.Model(results, [maps])


def run(found, values):
    compiled = ov.Core().compile_model(found, 'CPU', {'INFERENCE_PRECISION_HINT': 'f32'})
    return {port.get_any_name(): value for port, value in compiled(values).items()}


@pytest.mark.parametrize('threads', [1, 2])
def test_equals_interpolate(threads):
    values = np.random.default_rng(1).normal(size=(2, 3, 8, 6)).astype(np.float32)
    whole = run(model(), [values])
    before, raised = take_resizes(model())
    made = run(before, [values])
    assert {(one.source, one.output) for one in raised} == {('small0', name) for name in 'abc'}
    found = {name: np.zeros_like(whole[name]) for name in 'abc'}
    with ThreadPoolExecutor(1) as pool:
        raise_all([(made[one.source].reshape(-1, 8, 6)[one.map],
                    found[one.output].reshape(-1, 10, 9)[one.plane]) for one in raised],
                  pool, threads)
    for name in 'abc':
        np.testing.assert_allclose(found[name], whole[name], atol=1e-4)
    np.testing.assert_allclose(made['d'], whole['d'], atol=1e-5)


@pytest.mark.parametrize('changes', [{'mode': 'nearest'}, {'after': 'exp'}])
def test_leaves_others_alone(changes):
    assert last_resizes(model(**changes)) == []
    found, raised = take_resizes(model(**changes))
    assert raised == [] and len(found.inputs) == 1
