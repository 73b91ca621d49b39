"""The form for ONNX Runtime: the same numbers as the artifact's, in int8 kernels, and faster."""

import time

import numpy as np
import pytest

onnx = pytest.importorskip('onnx', reason='the form is made with it')
ort = pytest.importorskip('onnxruntime', reason='the form is run with it')

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from wm_ros.export.derive import derive  # noqa: E402
from wm_ros.export.derive_ort import derive_graph  # noqa: E402
from wm_ros.runtime import onnxruntime as backend_module  # noqa: E402
from wm_ros.runtime.artifact import load_artifact  # noqa: E402
from wm_ros.runtime.backend import BackendError, create_backend  # noqa: E402
from wm_ros.runtime.derived import form_of, parent_hash  # noqa: E402
from wm_ros.share import share_path  # noqa: E402

CHANNELS = 8


def conv_graph(bias=1.0, second_scale=None, zero=0):
    """
    Return x -> Q -> conv -> ReLU -> Q -> DQ -> y, 3x3 on 8 channels.

    With `second_scale` the ReLU is quantised twice and there are two outputs.
    """
    rng = np.random.default_rng(0)
    weight = rng.integers(-127, 128, (CHANNELS, CHANNELS, 3, 3)).astype(np.int8)
    constants = {'w': weight, 'ws': rng.uniform(1e-3, 3e-3, CHANNELS).astype(np.float32),
                 'wz': np.zeros(CHANNELS, np.int8), 'xs': np.float32(0.02), 'z': np.int8(zero),
                 'ys': np.float32(0.01), 'b': np.full(CHANNELS, bias, np.float32)}
    nodes = [helper.make_node('QuantizeLinear', ['x', 'xs', 'z'], ['xq'], name='xq'),
             helper.make_node('DequantizeLinear', ['xq', 'xs', 'z'], ['xd'], name='xd'),
             helper.make_node('DequantizeLinear', ['w', 'ws', 'wz'], ['wd'], name='wd', axis=0),
             helper.make_node('Conv', ['xd', 'wd', 'b'], ['c'], name='conv', pads=[1] * 4),
             helper.make_node('Relu', ['c'], ['r'], name='relu')]
    outputs = ['y']
    if second_scale is not None:
        constants['ys2'] = np.float32(second_scale)
        outputs.append('y2')
    for name in outputs:
        scale = name.replace('y', 'ys')
        # Read by a convolution again, as in the model; 1x1 with one weight of 1 step.
        constants[f'{name}w'] = np.full((CHANNELS, CHANNELS, 1, 1), 1, np.int8)
        nodes += [
            helper.make_node('QuantizeLinear', ['r', scale, 'z'], [f'{name}q'], name=f'{name}q'),
            helper.make_node('DequantizeLinear', [f'{name}q', scale, 'z'], [f'{name}d'],
                             name=f'{name}d'),
            helper.make_node('DequantizeLinear', [f'{name}w', 'ws', 'wz'], [f'{name}wd'],
                             name=f'{name}wd', axis=0),
            helper.make_node('Conv', [f'{name}d', f'{name}wd'], [name], name=f'{name}c')]
    shape = ['N', CHANNELS, 6, 6]
    graph = helper.make_graph(
        nodes, 'g', [helper.make_tensor_value_info('x', TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in outputs],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model


def session(model, optimised=None):
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    if optimised is not None:
        options.optimized_model_filepath = str(optimised)
    else:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    return ort.InferenceSession(model.SerializeToString(), options,
                                providers=['CPUExecutionProvider'],
                                disabled_optimizers=['MatMulAddFusion'])


def test_a_convolution_with_its_relu_becomes_one_int8_kernel_with_the_same_result(tmp_path):
    parent, derived = conv_graph(), derive_graph('encode', conv_graph())
    onnx.checker.check_model(derived, full_check=True)
    x = np.random.default_rng(1).normal(0, 1, (2, CHANNELS, 6, 6)).astype(np.float32)
    want = session(parent).run(None, {'x': x})[0]
    found = session(derived, tmp_path / 'optimised.onnx').run(None, {'x': x})[0]
    steps = (found - want) / (0.01 * 1e-3)      # the smallest step of the second product
    assert np.abs(steps).max() < 8              # one activation rounded to the other side
    kernels = [node.op_type for node in onnx.load(tmp_path / 'optimised.onnx').graph.node]
    assert kernels.count('QLinearConv') == 1 and 'Relu' not in kernels


def test_what_int8_held_at_127_is_held_there_still():
    """The ReLU's output reaches 2.5; 127 steps of 0.01 are 1.27, 255 would be 2.55."""
    x = np.full((1, CHANNELS, 6, 6), 0.0, np.float32)
    want = session(conv_graph(bias=2.5)).run(None, {'x': x})[0]
    found = session(derive_graph('encode', conv_graph(bias=2.5))).run(None, {'x': x})[0]
    np.testing.assert_allclose(found, want, rtol=1e-6)
    unheld = derive_graph('encode', conv_graph(bias=2.5))
    bound = next(item for item in unheld.graph.initializer if item.name == 'at_most_127')
    bound.CopyFrom(numpy_helper.from_array(np.array(255, np.uint8), bound.name))
    assert (session(unheld).run(None, {'x': x})[0] > 1.9 * want).all()


def test_a_result_quantised_twice_is_computed_twice_in_int8(tmp_path):
    derived = derive_graph('encode', conv_graph(second_scale=0.017))
    x = np.random.default_rng(2).normal(0, 1, (1, CHANNELS, 6, 6)).astype(np.float32)
    want = session(conv_graph(second_scale=0.017)).run(None, {'x': x})
    found = session(derived, tmp_path / 'optimised.onnx').run(None, {'x': x})
    for a, b in zip(found, want, strict=True):
        assert np.abs(a - b).max() < 0.02 * np.abs(b).max()
    kernels = [node.op_type for node in onnx.load(tmp_path / 'optimised.onnx').graph.node]
    assert kernels.count('QLinearConv') == 2


def test_other_quantisation_is_refused_by_name():
    with pytest.raises(ValueError, match='xq is not int8 with zero point 0'):
        derive_graph('encode', conv_graph(zero=3))
    with pytest.raises(ValueError, match=r'conv: a bias of .* steps, want under 2\^31'):
        derive_graph('encode', conv_graph(bias=2e5))


def test_a_graph_without_quantisation_keeps_its_nodes():
    parent = load_artifact(share_path('models', 'world-model'))
    fold = onnx.load_from_string(parent.graph('fold'))
    derived = derive_graph('fold', fold)
    used = {name for node in fold.graph.node for name in node.input}
    assert {node.name for node in derived.graph.node} >= {
        node.name for node in fold.graph.node if set(node.output) & used and node.name}


@pytest.fixture(scope='module')
def parent():
    return load_artifact(share_path('models', 'world-model'))


def quantised_products(data):
    """Return how many convolutions and products of a graph have two dequantised factors."""
    graph = onnx.load_from_string(data).graph
    made = {name: node for node in graph.node for name in node.output}

    def quantised(name):
        node = made.get(name)
        if node is not None and node.op_type == 'Transpose':
            node = made.get(node.input[0])
        return node is not None and node.op_type == 'DequantizeLinear'

    heavy = [node for node in graph.node if node.op_type in ('Conv', 'MatMul')]
    return (sum(node.op_type == 'Conv' and all(map(quantised, node.input[:2])) for node in heavy),
            sum(node.op_type == 'MatMul' and all(map(quantised, node.input)) for node in heavy))


def test_the_shipped_model_runs_in_int8(parent):
    """All quantised products; convolutions but for those whose result is wanted in float."""
    convolutions, _ = quantised_products(parent.graph('encode'))
    _, products = quantised_products(parent.graph('rollout'))
    made = create_backend('onnxruntime', parent, cameras=1, threads=1)
    made.close()
    assert made.kernels['encode']['i8'] >= convolutions - 5 >= 10
    assert made.kernels['rollout']['i8'] >= products >= 20
    assert made.precision['encode'] == 'i8+f32' and made.precision['rollout'].count('i8') == 1
    opened = create_backend('openvino', parent, cameras=1, threads=1)
    opened.close()
    assert opened.kernels['encode'] == {'i8': convolutions}
    # OpenVINO fuses the anchors' attention, two products a layer, into a kernel of another kind.
    layers = parent.manifest['model']['layers']
    assert opened.kernels['rollout']['i8'] >= products - 2 * layers


def test_the_stored_form_is_taken_and_says_the_same(parent, tmp_path):
    derive(parent, 'ort-u8s8', tmp_path / 'form')
    form = load_artifact(tmp_path / 'form')
    assert (form_of(form), parent_hash(form)) == ('ort-u8s8', parent.hash)
    rng = np.random.default_rng(0)
    given = {item.name: rng.integers(0, 255, item.resolve(N=1)).astype(item.dtype)
             for item in parent.specs['encode'].inputs}
    said = []
    for artifact in (parent, form):
        made = create_backend('onnxruntime', artifact, cameras=1, threads=1)
        said.append(made.run('encode', given)['skip'].copy())
        made.close()
    np.testing.assert_array_equal(*said)
    with pytest.raises(Exception, match="openvino got the form 'ort-u8s8', want as exported"):
        create_backend('openvino', form, cameras=1)


def test_a_cpu_without_vnni_gets_the_graphs_as_exported(parent, tmp_path, monkeypatch):
    told = tmp_path / 'cpuinfo'
    for flags, wanted in (('fpu avx2', True), ('fpu avx512_vnni', False), ('avx_vnni', False)):
        told.write_text(f'processor : 0\nflags\t\t: {flags}\nbugs : avx_vnni\n')
        monkeypatch.setattr(backend_module.platform, 'machine', lambda: 'x86_64')
        assert backend_module.overflows(told) == wanted
    monkeypatch.setattr(backend_module.platform, 'machine', lambda: 'aarch64')
    assert not backend_module.overflows(told)
    monkeypatch.setattr(backend_module, 'overflows', lambda: True)
    derive(parent, 'ort-u8s8', tmp_path / 'form')
    with pytest.raises(BackendError, match='no VNNI; want the artifact as exported'):
        create_backend('onnxruntime', load_artifact(tmp_path / 'form'), cameras=1)
    said = []
    made = create_backend('onnxruntime', parent, cameras=1, threads=1, log=said.append)
    made.close()
    assert 'no VNNI; the graphs run as exported, mostly in float' in said[1]
    assert 'i8' not in made.kernels['encode']


def test_without_onnx_it_says_how_to_get_int8(parent, monkeypatch):
    real = backend_module.importlib.util.find_spec
    monkeypatch.setattr(backend_module.importlib.util, 'find_spec',
                        lambda name: None if name == 'onnx' else real(name))
    made = backend_module.OnnxRuntimeBackend(1, {})
    made.prepare(parent)
    assert 'wm_ros derive' in made.notes[0] and '--form ort-u8s8' in made.notes[0]


def test_int8_is_faster_than_the_artifact_as_exported_and_than_float(parent, monkeypatch):
    """Encode with two cameras, taken in turns, the best of each: 2 to 4 times on a quiet CPU."""
    given = {item.name: np.zeros(item.resolve(N=2), item.dtype)
             for item in parent.specs['encode'].inputs}
    given['images'] = np.random.default_rng(0).integers(0, 255, given['images'].shape, np.uint8)
    opened = {'u8s8': create_backend('onnxruntime', parent, cameras=2, threads=1)}
    monkeypatch.setattr(backend_module, 'overflows', lambda: True)
    opened['exported'] = create_backend('onnxruntime', parent, cameras=2, threads=1)
    monkeypatch.setattr(type(parent), 'graph', without_quantisers(type(parent).graph))
    opened['float'] = create_backend('onnxruntime', parent, cameras=2, threads=1)
    best = dict.fromkeys(opened, np.inf)
    for _ in range(8):
        for name, made in opened.items():
            began = time.process_time()     # of the processor: others may use this machine
            made.run('encode', given)
            best[name] = min(best[name], time.process_time() - began)
    for made in opened.values():
        made.close()
    assert best['u8s8'] < best['exported'] and best['u8s8'] < best['float'], best


def without_quantisers(read):
    """Return `Artifact.graph` that leaves out all rounding: weights as they are dequantised."""
    def graph(artifact, name):
        model = onnx.load_from_string(read(artifact, name))
        quantised = {node.output[0]: node.input[0] for node in model.graph.node
                     if node.op_type == 'QuantizeLinear'}
        kept = []
        for node in model.graph.node:
            if node.op_type == 'QuantizeLinear':
                continue
            if node.op_type == 'DequantizeLinear' and node.input[0] in quantised:
                node = helper.make_node('Identity', [quantised[node.input[0]]], node.output)
            kept.append(node)
        del model.graph.node[:]
        model.graph.node.extend(kept)
        return model.SerializeToString()
    return graph
