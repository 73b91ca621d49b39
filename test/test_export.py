"""The exported graphs compute what the model computes, in INT8, for any number of cameras."""

from importlib.metadata import version

import numpy as np
import pytest

torch = pytest.importorskip('torch', reason='export needs torch')
onnx = pytest.importorskip('onnx', reason='export needs onnx')

import windows  # noqa: E402

from wm_ros.choices import Choices  # noqa: E402
from wm_ros.export.artifact import calibrate_dynamics, calibrate_encoder, write_artifact  # noqa: E402
from wm_ros.lift import lift_tables  # noqa: E402
from wm_ros.model.config import PRESETS  # noqa: E402
from wm_ros.model.quant import QuantConv2d, few_bits, power_of_two  # noqa: E402
from wm_ros.model.world_model import WorldModel  # noqa: E402
from wm_ros.runtime.artifact import load_artifact  # noqa: E402
from wm_ros.runtime.backend import create_backend  # noqa: E402


def inputs_of(spec, seed, **sizes):
    """Return random inputs of one graph."""
    rng = np.random.default_rng(seed)
    made = {}
    for tensor in spec.inputs:
        shape = tensor.resolve(**sizes)
        if tensor.dtype == 'uint8':
            made[tensor.name] = rng.integers(0, 255, shape, dtype=np.uint8)
        elif tensor.dtype == 'int32':
            made[tensor.name] = rng.integers(0, sizes['N'] * 1000, shape, dtype=np.int32)
        elif 'mask' in tensor.name:
            made[tensor.name] = np.ones(shape, np.float32)
        else:
            made[tensor.name] = rng.random(shape, dtype=np.float32)
    return made


def same_agents(out, want):
    """Return the rows in which both have one agent: a rounded peak may come another row later."""
    place, truth = out['agent_box'][0, :, :2], want['agent_box'][0, :, :2].numpy()
    held = np.abs(place - truth).max(-1) < 0.1
    assert held.sum() > 20, held.sum()
    return held


@pytest.fixture(scope='module')
def exported(tmp_path_factory):
    torch.manual_seed(0)
    model = WorldModel(PRESETS['tiny'])
    for last in (model.agents.surroundings.query, model.agents.surroundings.speed):
        torch.nn.init.normal_(last.weight, std=0.5)     # they begin as nothing: none would be held
    model.train()
    images = torch.randint(0, 255, (2, 2, 160, 400, 3), dtype=torch.uint8)
    index = torch.randint(0, 2000, (2, 25600, 4))
    weight = torch.rand(2, 25600, 4)
    with torch.no_grad():   # batch norms get statistics to fold
        model.encode(images, index, weight)
    calibrate_encoder(model, [{'images': images, 'index': index, 'weight': weight}])
    with torch.no_grad():
        memory, _ = model.encode(images, index, weight)
    calibrate_dynamics(model, [{
        'memory': memory[:, None].expand(-1, 16, -1, -1, -1),
        'now_from_frame': torch.zeros(2, 16, 3), 'age_s': torch.zeros(2, 16),
        'frame_mask': torch.ones(2, 16), 'odometry_mask': torch.ones(2, 1),
        'plans': torch.zeros(2, 6, 3), 'ego_motion': torch.zeros(2, 2)}])
    folder = tmp_path_factory.mktemp('artifact')
    write_artifact(model, folder, Choices(), {})
    return model.eval(), load_artifact(folder)


@pytest.mark.parametrize(('cameras', 'plans'), [(1, 1), (6, 3)])
def test_openvino_runs_what_the_model_computes(exported, cameras, plans):
    model, artifact = exported
    backend = create_backend('openvino', artifact, cameras=cameras, plans=plans, threads=1)
    try:
        for graph, reference in (('encode', model.encode), ('fold', model.fold),
                                 ('rollout', model.rollout)):
            given = inputs_of(artifact.specs[graph], 3, N=cameras, P=plans)
            out = backend.run(graph, given)
            tensors = {name: torch.from_numpy(value)[None] for name, value in given.items()}
            if graph == 'rollout':
                tensors = {name: value[0] if name == 'plans'
                           else value.expand(plans, *value.shape[1:])
                           for name, value in tensors.items()}
            with torch.no_grad():
                want = reference(**tensors)
            want = want if graph == 'rollout' else dict(zip(out, want, strict=True))
            for name in ('memory', 'skip', 'latent', 'past', 'occupancy', 'flow'):
                if name not in out:
                    continue
                truth = want[name].numpy().reshape(out[name].shape)
                # Rounding to INT8 falls the other way here and there; it must not add up.
                error = np.abs(out[name] - truth).mean() / (np.abs(truth).mean() + 1e-6)
                assert error < 0.03, (graph, name, error)
            if graph == 'rollout':
                held = same_agents(out, want)
                for name in ('agent_box', 'trajectories'):
                    apart = np.abs(out[name] - want[name].numpy())[:, held]
                    # Of random weights some rows stand on an edge: which way is ahead, for one.
                    assert np.median(apart) < 0.01, (name, np.median(apart))
            if graph == 'encode':
                backend_other = backend.run(graph, inputs_of(artifact.specs[graph], 4, N=cameras,
                                                             P=plans))
                assert np.abs(backend_other['skip'] - want['skip'][0].numpy()).max() > 1e-3
    finally:
        backend.close()


def test_the_encoder_is_equal_to_the_bit_on_every_backend(exported):
    """Scales, biases and taps are so short that no backend has anything to round its own way."""
    model, artifact = exported
    index, weight = lift_tables(windows.rig(), [True, True])
    given = {'images': inputs_of(artifact.specs['encode'], 5, N=2)['images'],
             'lift_index': index, 'lift_weight': weight}
    with torch.no_grad():
        want = dict(zip(('memory', 'skip'), model.encode(
            *(torch.from_numpy(value)[None] for value in given.values())), strict=True))
    assert all(value.std() > 0.02 and len(value.unique()) > 1000 for value in want.values())
    for name in ('openvino', 'onnxruntime'):
        pytest.importorskip(name)
        backend = create_backend(name, artifact, cameras=2, plans=1, threads=1)
        out = backend.run('encode', given)
        for key, value in want.items():
            np.testing.assert_array_equal(out[key], value[0].numpy(), f'{name}: {key}')
        backend.close()


def test_the_manifest_says_what_it_was_made_with(exported):
    _, artifact = exported
    manifest = artifact.manifest
    assert manifest['versions'] == {
        'wm_ros': version('wm_ros'), 'torch': torch.__version__, 'onnx': onnx.__version__,
        'opset': '17'}
    for name in ('encode', 'fold', 'rollout'):
        opsets = {entry.domain: entry.version
                  for entry in onnx.load(artifact.path / f'{name}.onnx').opset_import}
        assert opsets[''] == 17
    assert {'contract', 'normalisation', 'time_step_s', 'grid', 'classes', 'precision', 'training',
            'files'} <= manifest.keys()


def test_exact_scales_by_hand():
    scale = torch.tensor([0.3, 0.36, 1.0, 1.4, 1.5, 5e-4])
    assert power_of_two(scale).tolist() == [0.25, 0.25 * 2, 1.0, 1.0, 2.0, 2.0 ** -11]
    short = torch.tensor([1.0, 1.01, 0.126, 15.1 / 2 ** 12, 2.1 / 2 ** 15, 1e-9])
    assert few_bits(short).tolist() == [1.0, 1.125, 9 / 64, 16 / 2 ** 12, 3 / 2 ** 15, 1 / 2 ** 15]
    layer = QuantConv2d(1, 1, 1)
    with torch.no_grad():
        layer.weight.fill_(127 * 1.01)
        layer.bias.fill_(0.3)
    layer.input.observing = True
    layer(torch.full((1, 1, 4, 4), 127 * 0.3))
    layer.input.finish()
    layer.update_weight_scale()
    layer.sharpen()
    assert (layer.input.scale, layer.weight_scale, layer.bias) == (0.25, 1.125, 0.28125)


def test_quantised_weights_are_stored_in_one_byte(exported):
    model, artifact = exported
    graph = onnx.load_from_string(artifact.graph('encode'))
    int8 = [item for item in graph.graph.initializer if item.data_type == onnx.TensorProto.INT8]
    stored = sum(int(np.prod(item.dims)) for item in int8 if len(item.dims) > 1)
    weights = sum(p.numel() for part in (model.encoder, model.lift) for p in part.parameters()
                  if p.ndim > 1)
    assert stored == weights


def test_zero_points_are_zero(exported):
    _, artifact = exported
    for name in ('encode', 'rollout'):
        graph = onnx.load_from_string(artifact.graph(name)).graph
        constants = {item.name: onnx.numpy_helper.to_array(item) for item in graph.initializer}
        constants.update({node.output[0]: onnx.numpy_helper.to_array(node.attribute[0].t)
                          for node in graph.node if node.op_type == 'Constant'})
        quantizers = [node for node in graph.node
                      if node.op_type in ('QuantizeLinear', 'DequantizeLinear')]
        assert quantizers
        for node in quantizers:
            zero = constants[node.input[2]]
            assert zero.dtype == np.int8 and not zero.any()


@pytest.mark.parametrize('graph', ['encode', 'rollout'])
def test_openvino_finds_the_weighted_sums_of_rows(exported, graph):
    """The lift, and what agents read around them: gathers would take several times as long."""
    ov = pytest.importorskip('openvino')
    from wm_ros.runtime.openvino_lift import rewrite_lifts
    _, artifact = exported
    model = ov.Core().read_model(artifact.graph(graph))
    model.reshape({port.get_any_name(): [
        d.get_length() if d.is_static else 2 for d in port.get_partial_shape()]
        for port in model.inputs})
    assert rewrite_lifts(model) == 1
