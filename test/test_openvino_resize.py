"""Enlarging by OpenCV between two parts of a graph: the numbers of the graph in one piece."""

import numpy as np
import openvino as ov
import pytest
from openvino import opset13 as ops

from wm_ros.runtime.openvino_resize import last_resizes, resize
from wm_ros.runtime.openvino_split import Cut, split_at


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
    return ov.Model(results, [maps])


def run(found, values):
    compiled = ov.Core().compile_model(found, 'CPU', {'INFERENCE_PRECISION_HINT': 'f32'})
    return list(compiled(values).values())


def test_equals_interpolate():
    values = np.random.default_rng(1).normal(size=(2, 3, 8, 6)).astype(np.float32)
    whole = run(model(), [values])
    found = model()
    node, = last_resizes(found)
    before, after = split_at(found, [Cut(node.input_value(0), node.output(0), 'small', 'large')])
    assert [port.get_any_name() for port in after.inputs] == ['large']
    small, total = run(before, [values])
    large = np.zeros((2, 3, 10, 9), np.float32)
    resize(small, large)
    for part, wanted in zip([*run(after, [large]), total], whole, strict=True):
        np.testing.assert_allclose(part, wanted, atol=1e-4)


@pytest.mark.parametrize('changes', [{'mode': 'nearest'}, {'after': 'exp'}])
def test_leaves_others_alone(changes):
    assert last_resizes(model(**changes)) == []
