"""The linter for TensorRT: a graph that is right passes; every rule finds its planted fault."""

import numpy as np
import pytest

onnx = pytest.importorskip('onnx', reason='the linter reads ONNX')

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from wm_ros.choices import Choices  # noqa: E402
from wm_ros.export.lint import SOURCES, LintError, check_graph, lint  # noqa: E402
from wm_ros.model.config import ModelConfig  # noqa: E402
from wm_ros.runtime.artifact import load_artifact  # noqa: E402
from wm_ros.runtime.contract import GRAPHS  # noqa: E402
from wm_ros.share import share_path  # noqa: E402

F, H = TensorProto.FLOAT, TensorProto.FLOAT16


class Model:
    """A quantised convolution and a quantised product of images in bytes, built to be broken."""

    def __init__(self):
        rng = np.random.default_rng(0)
        self.constants = {
            'scale': np.float32(0.02), 'zero': np.int8(0),
            'kernel': rng.integers(-128, 128, (4, 3, 3, 3), dtype=np.int8),
            'kernel_scale': rng.uniform(0.001, 0.01, 4).astype(np.float32),
            'kernel_zero': np.zeros(4, np.int8), 'bias': np.zeros(4, np.float32),
            'scale_2': np.float32(0.05),
            'weight': rng.integers(-127, 128, (4, 5), dtype=np.int8),
            'weight_scale': rng.uniform(0.001, 0.01, 5).astype(np.float32),
            'weight_zero': np.zeros(5, np.int8)}
        self.nodes = []
        self.inputs = {'images': (TensorProto.UINT8, ['N', 3, 8, 8])}
        self.opset = 19
        self.op('Cast', ['images'], 'x', to=F)
        self.op('QuantizeLinear', ['x', 'scale', 'zero'], 'x_q')
        self.op('DequantizeLinear', ['x_q', 'scale', 'zero'], 'x_dq')
        self.op('DequantizeLinear', ['kernel', 'kernel_scale', 'kernel_zero'], 'w_dq', axis=0)
        self.op('Conv', ['x_dq', 'w_dq', 'bias'], 'y', pads=[1, 1, 1, 1])
        self.op('Relu', ['y'], 'z')
        self.op('GlobalAveragePool', ['z'], 'pooled')
        self.op('Flatten', ['pooled'], 'flat')
        self.op('QuantizeLinear', ['flat', 'scale_2', 'zero'], 'f_q')
        self.op('DequantizeLinear', ['f_q', 'scale_2', 'zero'], 'f_dq')
        self.op('DequantizeLinear', ['weight', 'weight_scale', 'weight_zero'], 'm_dq', axis=1)
        self.op('MatMul', ['f_dq', 'm_dq'], 'out')

    def op(self, kind, inputs, output, at=None, **attributes):
        node = helper.make_node(kind, inputs, [output], name=f'/{output}', **attributes)
        self.nodes.insert(len(self.nodes) if at is None else at, node)
        return node

    def node(self, output):
        return next(node for node in self.nodes if output in node.output)

    def proto(self, **sizes):
        inputs = [helper.make_tensor_value_info(name, kind, [sizes.get(d, d) for d in shape])
                  for name, (kind, shape) in self.inputs.items()]
        outputs = [onnx.ValueInfoProto(name='out')]
        graph = helper.make_graph(self.nodes, 'g', inputs, outputs, [
            numpy_helper.from_array(np.asarray(value), name)
            for name, value in self.constants.items()])
        opset = helper.make_opsetid('', self.opset)
        model = helper.make_model(graph, opset_imports=[opset], ir_version=9)
        kind = onnx.shape_inference.infer_shapes(model).graph.output[0]
        model.graph.output[0].CopyFrom(kind)
        if not model.graph.output[0].type.tensor_type.elem_type:
            model.graph.output[0].CopyFrom(helper.make_tensor_value_info('out', F, [2, 5]))
        return model


def found(model, typed=False):
    return {(item.rule, item.node, item.tensor) for item in lint(
        model.proto(**({'N': 2} if typed else {})), typed)}


def test_a_graph_that_is_right_passes():
    assert found(Model()) == set()
    assert found(Model(), typed=True) == set()


def test_minus_128_is_taken():
    """INT8 is clamped to [-128, 127] for weights as for activations (NvInfer.h, IQuantizeLayer)."""
    model = Model()
    model.constants['kernel'][:] = -128
    assert found(model) == set()


def const(name, value):
    return lambda model: model.constants.update({name: value})


def link(output, index, name):
    def change(model):
        model.node(output).input[index] = name
    return change


def attribute(output, **values):
    def change(model):
        node = model.node(output)
        kept = [item for item in node.attribute if item.name not in values]
        del node.attribute[:]
        node.attribute.extend(kept)
        node.attribute.extend(helper.make_attribute(*item) for item in values.items())
    return change


def between(output, user, index, kind, **attributes):
    """Put an operator between what makes a tensor and one of its users."""
    def change(model):
        at = model.nodes.index(model.node(user))
        extra = attributes.pop('extra', [])
        model.op(kind, [output, *extra], f'{output}_{kind}', at=at, **attributes)
        model.node(user).input[index] = f'{output}_{kind}'
    return change


def both(*changes):
    def change(model):
        for one in changes:
            one(model)
    return change


def set_opset(model):
    model.opset = 24


def free_size(model):
    model.inputs['images'] = (TensorProto.UINT8, ['N', 3, 'height', 8])


def double(model):
    model.node('x').attribute[0].i = TensorProto.DOUBLE


def computed_scale(model):
    model.op('ReduceMax', ['x'], 'seen', at=1, keepdims=0)
    model.node('x_q').input[1] = 'seen'


def no_zero_point(model):
    for output in ('x_q', 'x_dq'):
        del model.node(output).input[2]


def quantised_bias(model):
    model.constants.update(bias_q=np.zeros(4, np.int32), bias_zero=np.int32(0))
    at = model.nodes.index(model.node('y'))
    model.op('DequantizeLinear', ['bias_q', 'scale', 'bias_zero'], 'bias_dq', at=at)
    model.node('y').input[2] = 'bias_dq'


def int8_bias(model):
    model.constants['bias_q'] = np.zeros(4, np.int8)
    at = model.nodes.index(model.node('y'))
    model.op('DequantizeLinear', ['bias_q', 'kernel_scale', 'kernel_zero'], 'bias_dq', at=at,
             axis=0)
    model.node('y').input[2] = 'bias_dq'


def float_weights(model):
    model.constants['kernel'] = np.zeros((4, 3, 3, 3), np.float32)
    at = model.nodes.index(model.node('w_dq'))
    model.op('QuantizeLinear', ['kernel', 'kernel_scale', 'kernel_zero'], 'w_q', at=at, axis=0)
    model.node('w_dq').input[0] = 'w_q'


def per_channel_activation(model):
    model.constants.update(scale_3=np.full(3, 0.02, np.float32), zero_3=np.zeros(3, np.int8))
    for output in ('x_q', 'x_dq'):
        model.node(output).input[1:] = ['scale_3', 'zero_3']


FAULTS = [
    ('opset', 'ai.onnx', set_opset),
    ('operator', 'z', lambda model: setattr(model.node('z'), 'op_type', 'Hardswish')),
    ('data-dependent', 'nz', lambda model: model.op('NonZero', ['z'], 'nz')),
    ('restriction', 'k', both(const('k', np.array([4000], np.int64)), lambda model: (
        model.op('Flatten', ['z'], 'long', axis=0),
        model.op('TopK', ['long', 'k'], 'top').output.append('index')))),
    ('restriction', 'z', lambda model: model.op('MaxPool', ['z'], 'p', kernel_shape=[2, 2],
                                                dilations=[2, 2])),
    ('restriction', 'z', both(const('w', np.ones(4, np.float32)), lambda model: (
        model.op('Resize', ['z', '', 'w'], 'big', mode='linear', antialias=1)))),
    ('free-size', 'images', free_size),
    ('element-type', 'x', double),
    ('zero-point', 'zero', const('zero', np.int8(3))),
    ('zero-point', 'kernel_zero', const('kernel_zero', np.array([0, 0, 1, 0], np.int8))),
    ('zero-point', 'kernel_zero', const('kernel_zero', np.zeros(2, np.int8))),
    ('quantised-type', 'zero', const('zero', np.uint8(0))),
    ('quantised-type', 'zero', const('zero', np.uint8(128))),
    ('quantised-type', 'x_q', no_zero_point),
    ('scale-constant', 'seen', computed_scale),
    ('scale-value', 'scale', const('scale', np.float32(0))),
    ('scale-value', 'scale', const('scale', np.float32(-0.1))),
    ('scale-value', 'kernel_scale', const('kernel_scale', np.array([1, np.inf, 1, 1], np.float32))),
    ('scale-value', 'kernel_scale', const('kernel_scale', np.array([1, np.nan, 1, 1], np.float32))),
    ('activation-scale', 'scale_3', per_channel_activation),
    ('pair', 'scale_2', link('x_dq', 1, 'scale_2')),
    ('pair', 'x_q', lambda model: (model.op('Identity', ['x_q'], 'copy', at=2),
                                   link('x_dq', 0, 'copy')(model))),
    ('pair', 'x_q', lambda model: model.op('Cast', ['x_q'], 'seen', to=F)),
    ('weights', 'kernel', float_weights),
    ('weights', 'kernel_scale', both(const('kernel_scale', np.float32(0.01)),
                                     const('kernel_zero', np.int8(0)))),
    ('weights', 'w_dq', lambda model: model.op('Sigmoid', ['w_dq'], 'elsewhere')),
    ('weights-axis', 'weight_scale', both(
        attribute('m_dq', axis=0), const('weight_scale', np.full(4, 0.01, np.float32)),
        const('weight_zero', np.zeros(4, np.int8)))),
    ('weights-axis', 'kernel_scale', both(const('kernel_scale', np.full(3, 0.01, np.float32)),
                                          const('kernel_zero', np.zeros(3, np.int8)))),
    ('weights-axis', 'weight_scale', both(
        const('weight', np.ones((5, 4), np.int8)), attribute('m_dq', axis=1),
        const('weight_scale', np.full(4, 0.01, np.float32)),
        const('weight_zero', np.zeros(4, np.int8)), between('m_dq', 'out', 1, 'Transpose',
                                                            perm=[1, 0]))),
    ('bias', 'bias_q', quantised_bias),
    ('bias', 'bias_dq', int8_bias),
    ('half-quantised', 'x', link('y', 0, 'x')),
    ('half-quantised', 'x_dq_Relu', between('x_dq', 'y', 0, 'Relu')),
]
TYPED_FAULTS = [
    ('free-size', 'images', lambda model: model.inputs.update(
        images=(TensorProto.UINT8, ['P', 3, 8, 8]))),
    ('uint8', 'images', both(between('images', 'x', 0, 'Transpose', perm=[0, 1, 3, 2]))),
    ('placement', 'x_dq', between('x_dq', 'y', 0, 'Relu')),
    ('placement', 'x_dq', both(const('all', np.array([0, 3, 8, 8], np.int64)), between(
        'x_dq', 'y', 0, 'Reshape', extra=['all']))),
    ('types', 'y', const('bias', np.zeros(4, np.float16))),
    ('scale-type', 'x_q', const('scale', np.float16(0.02))),
    ('scale-constant', 'late', lambda model: (
        model.op('Identity', ['scale'], 'late', at=1), link('x_q', 1, 'late')(model))),
    ('scale-half', 'kernel_scale', const('kernel_scale', np.full(4, 2e-5, np.float16))),
]


@pytest.mark.parametrize('rule,tensor,change', FAULTS)
def test_a_fault_is_found_under_its_rule_and_name(rule, tensor, change):
    model = Model()
    change(model)
    items = lint(model.proto())
    assert (rule, tensor) in {(item.rule, item.tensor) for item in items}
    assert all(item.node for item in items)


@pytest.mark.parametrize('rule,tensor,change', TYPED_FAULTS)
def test_a_fault_of_the_strongly_typed_form_is_found(rule, tensor, change):
    model = Model()
    change(model)
    assert (rule, tensor) in {(item.rule, item.tensor) for item in lint(model.proto(N=2), True)}
    if rule not in ('scale-half', 'types', 'scale-type', 'placement'):
        assert rule not in {item.rule for item in lint(model.proto(N=2, P=2))}


def test_a_domain_of_its_own_is_found():
    model = Model().proto()
    model.opset_import.append(helper.make_opsetid('own', 1))
    model.graph.node.append(helper.make_node('Add', ['out', 'out'], ['more'], domain='own'))
    assert {(item.rule, item.tensor) for item in lint(model)} == {('opset', 'own'),
                                                                  ('operator', 'more')}


def test_every_rule_has_a_source_and_a_planted_fault():
    assert {rule for rule, _, _ in (*FAULTS, *TYPED_FAULTS)} == set(SOURCES)
    assert all(len(source) > 20 for source in SOURCES.values())


def test_a_refusal_names_graph_node_tensor_and_source():
    model = Model()
    model.constants['scale'] = np.float32(0)
    with pytest.raises(LintError) as refused:
        check_graph('encode', model.proto())
    text = str(refused.value)
    assert text.startswith('encode: TensorRT would not take it')
    assert '/x_q' in text and 'scale: 0.0, want above 0' in text and 'Dequantize; NvInfer.h' in text


def test_export_writes_no_manifest_over_a_finding(tmp_path, monkeypatch):
    artifact = pytest.importorskip('wm_ros.export.artifact', reason='export needs torch')
    model = Model()
    model.constants['kernel_zero'][2] = 1

    def export(_, folder, half):
        onnx.save(model.proto(), folder / 'encode.onnx')
        return {'encode': None}
    calibrated = artifact.Quantizer()
    calibrated.active, calibrated.config = True, ModelConfig()
    monkeypatch.setattr(artifact, 'export_graphs', export)
    with pytest.raises(LintError, match='encode: .*\n  zero-point: /w_dq: kernel_zero: 1, want 0'):
        artifact.write_artifact(calibrated, tmp_path, Choices(), {})
    assert not (tmp_path / 'manifest.json').exists()


@pytest.mark.parametrize('graph', GRAPHS)
def test_what_ships_passes(graph):
    artifact = load_artifact(share_path('models', 'world-model'))
    check_graph(graph, onnx.load_from_string(artifact.graph(graph)))


def test_zeros_beside_quantised_blocks_count_as_quantised():
    """Attention pads its first and last block with zeros; the padding is no other type."""
    model = Model()
    model.constants['nought'] = np.float32(0)
    at = model.nodes.index(model.node('y'))
    model.op('Mul', ['x_dq', 'nought'], 'edge', at=at)
    model.op('Concat', ['edge', 'x_dq'], 'padded', at=at + 1, axis=3)
    model.node('y').input[0] = 'padded'
    assert found(model) == set()
    model.constants['nought'] = np.float32(1)
    assert ('half-quantised', '/y', 'padded') in found(model)
