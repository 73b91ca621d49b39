"""The warp as OpenVINO runs it: the numbers of a GridSample, and positions in full precision."""

import numpy as np
import openvino as ov
import pytest
from openvino import opset15 as ops

from wm_ros.runtime.artifact import load_artifact
from wm_ros.runtime.openvino import OpenVinoBackend
from wm_ros.runtime.openvino_split import Cut, split_at
from wm_ros.runtime.openvino_warp import rewrite_warps
from wm_ros.share import share_path

MAPS = (2, 3, 6, 5)


def model(mode='bilinear', joined=True):
    """Return a model: maps (2, 3, 6, 5) sampled at (2, 4, 4, 2) places and doubled."""
    maps = ops.parameter(MAPS, np.float32, name='maps')
    parts = [ops.parameter((2, 4, 4, 1), np.float32, name=name) for name in 'xy']
    grid = ops.concat(parts, 3)
    if not joined:
        grid = ops.multiply(grid, np.float32(1))
    sampled = ops.grid_sample(maps, grid, {'mode': mode, 'padding_mode': 'zeros',
                                           'align_corners': False})
    found = ov.Model([ops.multiply(sampled, np.float32(2))], [maps, *parts])
    for port in found.inputs:
        port.set_names({port.get_node().get_friendly_name()})
    return found


def run(found, **inputs):
    compiled = ov.Core().compile_model(found, 'CPU', {'INFERENCE_PRECISION_HINT': 'f32'})
    return compiled({name: inputs[name] for port in compiled.inputs
                     for name in port.get_names()})[0]


@pytest.fixture
def inputs():
    rng = np.random.default_rng(3)
    x, y = rng.uniform(-1.6, 1.6, (2, 2, 4, 4, 1)).astype(np.float32)
    x[0, 0, 0], y[0, 0, 0] = -1.0, 1.0      # on the border itself
    return {'maps': rng.normal(size=MAPS).astype(np.float32), 'x': x, 'y': y}


@pytest.mark.parametrize('joined', [True, False])
def test_equals_grid_sample(inputs, joined):
    changed = model(joined=joined)
    assert len(rewrite_warps(changed)) == 1
    assert 'GridSample' not in {node.get_type_name() for node in changed.get_ops()}
    np.testing.assert_allclose(run(changed, **inputs), run(model(joined=joined), **inputs),
                               atol=1e-5)


def test_leaves_another_kind_of_sampling_alone(inputs):
    changed = model(mode='nearest')
    assert rewrite_warps(changed) == []
    np.testing.assert_array_equal(run(changed, **inputs), run(model(mode='nearest'), **inputs))


def test_both_halves_of_a_split_model_make_the_whole(inputs):
    whole = run(model(), **inputs)
    changed = model()
    warped, = rewrite_warps(changed)
    before, after = split_at(changed, [Cut(warped, warped, 'cut', 'cut')])
    assert [port.get_any_name() for port in after.inputs] == ['cut']
    np.testing.assert_allclose(run(after, cut=run(before, **inputs)), whole, atol=1e-5)


def test_the_fold_in_lower_precision_stays_near_the_full_one():
    """Poses and masks go to both halves of the graph; positions in bf16 would be far off."""
    artifact = load_artifact(share_path('models', 'world-model'))
    rng = np.random.default_rng(5)
    spec = artifact.specs['fold']
    values = {item.name: rng.random(item.shape, np.float32) for item in spec.inputs}
    values['now_from_frame'] *= np.float32([12.0, 0.5, 0.2])
    values['frame_mask'][:] = values['odometry_mask'][:] = 1
    latents = []
    for options in ({'fold_precision': 'f32'}, {'fold_precision': 'auto'}):
        backend = OpenVinoBackend(1, options)
        backend.prepare(artifact)
        fold = backend.open('fold', artifact, {})
        fold.infer(values)
        latents.append(fold.outputs['latent'])
    assert np.abs(latents[0] - latents[1]).mean() < 0.005
    assert np.abs(latents[0]).mean() > 0.1
