"""
A linter for graphs that TensorRT 10.3 to 11.x has to take: explicit quantisation, strongly typed.

`wm_ros export` refuses what it finds in an artifact; `wm_ros derive --form tensorrt` what it finds
in the form that TensorRT is given (`typed`), which is held to more: types that fit, bytes cast
first, sizes fixed, quantisation right where the products read. Run on no hardware, so the rules
are what documents and the parser's source say; `SOURCES` names them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto

from wm_ros.export.lint_graph import GraphView, attribute
from wm_ros.export.lint_operators import DATA_DEPENDENT, OPERATORS, OPSETS, restrictions

_OPERATORS_MD = 'onnx-tensorrt docs/operators.md'
_IMPORTER = 'onnx-tensorrt onnxOpImporters.cpp, QuantDequantLinearHelper'
_QUANTIZE = 'TensorRT operators, Quantize and Dequantize; NvInfer.h, IQuantizeLayer'
_EXPLICIT = 'TensorRT documentation, Working with Quantized Types, Explicit Quantization'
_TYPED = 'TensorRT documentation, Precision Control, Strongly Typed Networks'

#: Every rule and where it is from.
SOURCES = {
    'opset': f'{_OPERATORS_MD}: opset 9 to 20 at 10.x',
    'operator': f'{_OPERATORS_MD}: Operator Support Matrix',
    'restriction': f'{_OPERATORS_MD}: Restrictions',
    'data-dependent': 'TensorRT documentation, CUDA Graphs: work that values decide cannot be '
                      'captured',
    'free-size': 'the contract: N and P alone are free (wm_ros/runtime/contract.py)',
    'element-type': f'{_OPERATORS_MD}: supported ONNX data types',
    'zero-point': f'{_IMPORTER}: symmetric; zero points all 0, as many as scales',
    'quantised-type': f'{_IMPORTER}: no UINT8; without a zero point ONNX means uint8',
    'scale-constant': f'{_QUANTIZE}: the scale must be a build-time constant',
    'scale-value': f'{_QUANTIZE}: all scales strictly positive; NaN and infinity are no scale',
    'activation-scale': f'{_IMPORTER}: activations are not quantised along an axis',
    'pair': f'{_EXPLICIT}: a quantised tensor lives between QuantizeLinear and DequantizeLinear',
    'weights': f'{_EXPLICIT}: quantised weights; one INT8 scale an output channel',
    'weights-axis': f'{_QUANTIZE}: as many scales as the axis is long, the output channels',
    'bias': f'{_OPERATORS_MD}: DequantizeLinear of INT8, FP8, INT4; a bias stays a float',
    'half-quantised': f'{_EXPLICIT}: a product runs in INT8 when all of its inputs do',
    'placement': f'{_EXPLICIT}: layer placement; what stands between breaks the fusion',
    'uint8': 'TensorRT Python API, DataType.UINT8: network inputs and outputs, next to a Cast',
    'types': f'{_TYPED}: types follow from the graph, nothing is converted unasked',
    'scale-type': f'{_QUANTIZE}: input and scale have one type; FP16 scales want opset 19',
    'scale-half': 'IEEE 754 binary16: below 6.1e-5 digits are lost, and 0 is no scale',
}

_QDQ = ('QuantizeLinear', 'DequantizeLinear')
_PRODUCTS = ('Conv', 'ConvTranspose', 'MatMul', 'Gemm')
_TYPES = ('FLOAT', 'FLOAT16', 'INT8', 'INT32', 'INT64', 'UINT8', 'BOOL')
_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)


class LintError(ValueError):
    """A graph that TensorRT would not take: every finding, with rule, node, tensor and source."""


@dataclass(frozen=True)
class Finding:
    """What one rule has against one node and tensor."""

    rule: str
    node: str
    tensor: str
    text: str

    def __str__(self) -> str:
        return f'{self.rule}: {self.node}: {self.tensor}: {self.text} [{SOURCES[self.rule]}]'


def check_graph(name: str, model: onnx.ModelProto, typed: bool = False) -> None:
    """Raise LintError with all that `lint` finds in a graph called `name`."""
    findings = lint(model, typed)
    if findings:
        listed = '\n  '.join(map(str, findings[:20]))
        more = f'\n  and {len(findings) - 20} more' if len(findings) > 20 else ''
        raise LintError(f'{name}: TensorRT would not take it:\n  {listed}{more}')


def lint(model: onnx.ModelProto, typed: bool = False) -> list[Finding]:
    """Return what TensorRT would refuse or not fuse; `typed` asks for the strongly typed form."""
    graph = GraphView(model)
    checks = [_opset, _operators, _sizes, _element_types, _quantisation, _weights, _products]
    if typed:
        checks += [_bytes, _static, _placement, _types]
    return [finding for check in checks for finding in check(graph)]


def _opset(graph: GraphView) -> Iterator[Finding]:
    for item in graph.model.opset_import:
        if item.domain not in ('', 'ai.onnx'):
            yield Finding('opset', 'model', item.domain, 'a domain of its own, want ai.onnx alone')
        elif item.version not in OPSETS:
            yield Finding('opset', 'model', 'ai.onnx', f'opset {item.version}, want '
                          f'{OPSETS.start} to {OPSETS.stop - 1}')


def _operators(graph: GraphView) -> Iterator[Finding]:
    for node in graph.nodes:
        made = node.output[0] if node.output else ''
        if node.domain not in ('', 'ai.onnx') or node.op_type not in OPERATORS:
            yield Finding('operator', node.name, made, f'{node.op_type}, want a supported one')
        elif node.op_type in DATA_DEPENDENT:
            yield Finding('data-dependent', node.name, made, f'{node.op_type}, want none such')
        for tensor, text in restrictions(node, graph.constant):
            yield Finding('restriction', node.name, tensor, f'{node.op_type}: {text}')


def _sizes(graph: GraphView) -> Iterator[Finding]:
    for item in graph.graph.input:
        for dim in item.type.tensor_type.shape.dim:
            if not dim.HasField('dim_value') and dim.dim_param not in ('N', 'P'):
                yield Finding('free-size', 'input', item.name,
                              f'size {dim.dim_param or "unknown"!r}, want a number, N or P')


def _element_types(graph: GraphView) -> Iterator[Finding]:
    for name, kind in graph.types.items():
        if kind and TensorProto.DataType.Name(kind) not in _TYPES:
            maker = graph.maker.get(name)
            yield Finding('element-type', maker.name if maker else 'input', name,
                          f'{TensorProto.DataType.Name(kind)}, want one of {", ".join(_TYPES)}')


def _quantisation(graph: GraphView) -> Iterator[Finding]:
    """See to scales, zero points and pairs of QuantizeLinear and DequantizeLinear."""
    for node in graph.nodes:
        if node.op_type == 'QuantizeLinear':
            yield from _scale_and_zero(graph, node)
            users = graph.users.get(node.output[0], [])
            if not users or any(user.op_type != 'DequantizeLinear' for user in users):
                others = ', '.join(sorted({user.op_type for user in users})) or 'nobody'
                yield Finding('pair', node.name, node.output[0],
                              f'read by {others}, want DequantizeLinear alone')
        elif node.op_type == 'DequantizeLinear':
            yield from _scale_and_zero(graph, node)
            maker = graph.maker.get(node.input[0])
            if maker is not None and maker.op_type == 'QuantizeLinear':
                scales = [graph.constant(name) for name in (maker.input[1], node.input[1])]
                if all(scale is not None for scale in scales) and not np.array_equal(*scales):
                    yield Finding('pair', node.name, node.input[1], 'another scale than the '
                                  f'QuantizeLinear {maker.name}, want the same')
            elif graph.constant(node.input[0]) is None:
                yield Finding('pair', node.name, node.input[0],
                              'comes from no QuantizeLinear and is no constant')


def _scale_and_zero(graph: GraphView, node: onnx.NodeProto) -> Iterator[Finding]:
    scale = graph.constant(node.input[1])
    if scale is None:
        yield Finding('scale-constant', node.name, node.input[1], 'is computed, want a constant')
    elif not (np.isfinite(scale).all() and (scale > 0).all()):
        worst = scale[~(np.isfinite(scale) & (scale > 0))].flat[0]
        yield Finding('scale-value', node.name, node.input[1], f'{worst}, want above 0 and finite')
    if len(node.input) < 3 or not node.input[2]:
        yield Finding('quantised-type', node.name, node.output[0],
                      'no zero point, which is uint8 to ONNX; want an int8 zero')
        return
    zero = graph.constant(node.input[2])
    if zero is None:
        yield Finding('zero-point', node.name, node.input[2], 'is computed, want a constant 0')
    elif zero.dtype == np.int32 and node.op_type == 'DequantizeLinear':
        yield Finding('bias', node.name, node.input[0], 'int32, want a bias that is not quantised')
    elif zero.dtype != np.int8:
        yield Finding('quantised-type', node.name, node.input[2], f'{zero.dtype}, want int8')
    elif zero.any():
        yield Finding('zero-point', node.name, node.input[2],
                      f'{zero[zero != 0].flat[0]}, want 0')
    elif scale is not None and zero.size != scale.size:
        yield Finding('zero-point', node.name, node.input[2],
                      f'{zero.size} zero points for {scale.size} scales, want as many')


def _weights(graph: GraphView) -> Iterator[Finding]:
    """See that constants are int8 with a scale a channel, and activations have one scale."""
    for node in graph.nodes:
        if node.op_type not in _QDQ:
            continue
        scale = graph.constant(node.input[1])
        stored = graph.constant(node.input[0])
        if node.op_type == 'QuantizeLinear' and stored is not None:
            yield Finding('weights', node.name, node.input[0],
                          'a constant is stored as floats and quantised, want int8')
        elif stored is None:
            if scale is not None and scale.size != 1:
                yield Finding('activation-scale', node.name, node.input[1],
                              f'{scale.size} scales for an activation, want 1')
        elif stored.dtype == np.int8:
            yield from _weight_axis(graph, node, stored, scale)


def _weight_axis(graph: GraphView, node: onnx.NodeProto, stored: np.ndarray,
                 scale: np.ndarray | None) -> Iterator[Finding]:
    if scale is None:
        return
    if scale.ndim != 1:
        yield Finding('weights', node.name, node.input[1],
                      f'scale of shape {scale.shape}, want one scale an output channel')
        return
    axis = attribute(node, 'axis', 1) % stored.ndim
    if stored.shape[axis] != scale.size:
        yield Finding('weights-axis', node.name, node.input[1], f'{scale.size} scales for axis '
                      f'{axis} of {stored.shape}, want {stored.shape[axis]}')
        return
    for user, read, its_axis in _readers(graph, node.output[0], axis):
        want = _channel_axis(user, read, stored.ndim)
        if want is None:
            yield Finding('weights', node.name, node.output[0], f'read by {user.op_type} '
                          f'{user.name}, want a product that it is the weight of')
        elif its_axis != want:
            yield Finding('weights-axis', node.name, node.input[1], f'scales along axis {its_axis} '
                          f'as {user.name} reads it, want {want}, its output channels')


def _readers(graph: GraphView, name: str,
             axis: int = 0) -> Iterator[tuple[onnx.NodeProto, str, int]]:
    """Yield who reads a tensor, past Transpose, under which name, and where `axis` is then."""
    for user in graph.users.get(name, []):
        perm = attribute(user, 'perm', None)
        if user.op_type == 'Transpose' and perm is not None:
            yield from _readers(graph, user.output[0], list(perm).index(axis))
        else:
            yield user, name, axis


def _channel_axis(user: onnx.NodeProto, name: str, ndim: int) -> int | None:
    """Return the axis of a product's weight that its output channels lie along."""
    if user.op_type not in _PRODUCTS or user.input[1] != name:
        return None
    if user.op_type == 'Gemm':
        return 0 if attribute(user, 'transB', 0) else 1
    return {'Conv': 0, 'ConvTranspose': 1, 'MatMul': ndim - 1}[user.op_type]


def _products(graph: GraphView) -> Iterator[Finding]:
    """See that a product is INT8 in both inputs or in none, and its bias a float."""
    for node in graph.nodes:
        if node.op_type not in _PRODUCTS:
            continue
        quantised = [[source is not None and source.op_type == 'DequantizeLinear'
                      for source in graph.sources(name)] for name in node.input[:2]]
        if any(map(any, quantised)) and not all(map(all, quantised)):
            index = next(i for i, sources in enumerate(quantised) if not all(sources))
            yield Finding('half-quantised', node.name, node.input[index],
                          f'input {index} is not quantised and another is, want both or none')
        if len(node.input) > 2 and node.input[2]:
            bias = graph.maker.get(node.input[2])
            if bias is not None and bias.op_type == 'DequantizeLinear':
                yield Finding('bias', node.name, node.input[2], 'is quantised, want floats')


def _bytes(graph: GraphView) -> Iterator[Finding]:
    for name, kind in graph.types.items():
        if kind != TensorProto.UINT8:
            continue
        for user in graph.users.get(name, []):
            if user.op_type != 'Cast':
                yield Finding('uint8', user.name, name, f'read by {user.op_type}, want a Cast')


def _static(graph: GraphView) -> Iterator[Finding]:
    for item in (*graph.graph.input, *graph.graph.output):
        shape = item.type.tensor_type.shape
        if not item.type.tensor_type.HasField('shape') or not all(
                dim.HasField('dim_value') for dim in shape.dim):
            yield Finding('free-size', 'graph', item.name, 'has a free size, want numbers')


def _placement(graph: GraphView) -> Iterator[Finding]:
    """See that DequantizeLinear stands in front of its product; a Transpose may be between."""
    for node in graph.nodes:
        if node.op_type != 'DequantizeLinear':
            continue
        for user, _, _ in _readers(graph, node.output[0]):
            if user.op_type not in _PRODUCTS:
                yield Finding('placement', user.name, node.output[0],
                              f'{user.op_type} behind DequantizeLinear, want a product')


def _types(graph: GraphView) -> Iterator[Finding]:
    """See that the float inputs of a node have one type, scales the one of what they scale."""
    always_float = {('Resize', 1), ('Resize', 2)}
    for node in graph.nodes:
        if node.op_type == 'Cast':
            continue
        kinds = {name: graph.types.get(name) for index, name in enumerate(node.input)
                 if name and (node.op_type, index) not in always_float
                 and graph.types.get(name) in _FLOATS}
        if node.op_type == 'DequantizeLinear':
            kinds[node.output[0]] = graph.types.get(node.output[0])
        if len(set(kinds.values())) > 1:
            rule = 'scale-type' if node.op_type in _QDQ else 'types'
            listed = ', '.join(f'{name} {TensorProto.DataType.Name(kind)}'
                               for name, kind in kinds.items())
            yield Finding(rule, node.name, node.output[0], f'{node.op_type} of {listed}, '
                          f'want one type')
        if node.op_type in _QDQ:
            if node.input[1] not in graph.initializers:
                yield Finding('scale-constant', node.name, node.input[1], 'want an initializer')
            scale = graph.constant(node.input[1])
            if scale is not None and scale.dtype == np.float16 and (
                    scale < np.finfo(np.float16).smallest_normal).any():
                yield Finding('scale-half', node.name, node.input[1],
                              f'{scale.min():.3g} in FP16, want FP32 for this product')
