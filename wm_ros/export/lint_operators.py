"""
What TensorRT's ONNX parser reads of ONNX: operators, opsets, and restrictions of single operators.

From onnx-tensorrt, docs/operators.md at TensorRT 10.1, and the importers of the same version
(onnxOpImporters.cpp); 10.3, the oldest version that is targeted, reads the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import onnx
from onnx import helper

#: Opsets that every targeted version reads (11.x goes to 25).
OPSETS = range(9, 21)

OPERATORS = frozenset("""
    Abs Acos Acosh Add And ArgMax ArgMin Asin Asinh Atan Atanh AveragePool BatchNormalization Cast
    CastLike Ceil Celu Clip Concat Constant ConstantOfShape Conv ConvTranspose Cos Cosh CumSum
    DeformConv DepthToSpace DequantizeLinear Div Dropout Einsum Elu Equal Erf Exp Expand EyeLike
    Flatten Floor Gather GatherElements GatherND Gelu Gemm GlobalAveragePool GlobalLpPool
    GlobalMaxPool Greater GreaterOrEqual GridSample GroupNormalization GRU HardSigmoid HardSwish
    Hardmax Identity If InstanceNormalization IsInf IsNaN LayerNormalization LeakyRelu Less
    LessOrEqual Log LogSoftmax Loop LRN LSTM LpNormalization LpPool MatMul Max MaxPool Mean
    MeanVarianceNormalization Min Mish Mod Mul Neg NonMaxSuppression NonZero Not OneHot Or Pad Pow
    PRelu QuantizeLinear RandomNormal RandomNormalLike RandomUniform RandomUniformLike Range
    Reciprocal ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin
    ReduceProd ReduceSum ReduceSumSquare Relu Reshape Resize ReverseSequence RNN RoiAlign Round Scan
    Scatter ScatterElements ScatterND Selu Shape Shrink Sigmoid Sign Sin Sinh Size Slice Softmax
    Softplus Softsign SpaceToDepth Split Sqrt Squeeze Sub Sum Tan Tanh ThresholdedRelu Tile TopK
    Transpose Trilu Unsqueeze Upsample Where Xor""".split())

#: Operators whose output shape depends on values, or whose body runs a number of times that does:
#: their work is not fixed, and cannot be captured as one CUDA graph.
DATA_DEPENDENT = frozenset(('NonZero', 'NonMaxSuppression', 'If', 'Loop', 'Scan', 'RNN', 'GRU',
                            'LSTM'))

Constants = Callable[[str], 'np.ndarray | None']


def restrictions(node: onnx.NodeProto, constant: Constants) -> Iterator[tuple[str, str]]:
    """
    Yield (tensor, text) for what the parser refuses of an operator that it supports.

    `constant(name)` returns the value of a tensor that is known at build time, else None.
    """
    check = _CHECKS.get(node.op_type)
    if check is not None:
        yield from check(node, {item.name: helper.get_attribute_value(item)
                                for item in node.attribute}, constant)
    for index in _CONSTANT_INPUTS.get(node.op_type, ()):
        if len(node.input) > index and node.input[index] and constant(node.input[index]) is None:
            yield node.input[index], f'input {index} of {node.op_type} is computed, want a constant'


#: Inputs that have to be known at build time: axes and the like.
_CONSTANT_INPUTS = {'Squeeze': (1,), 'Unsqueeze': (1,), 'Slice': (3,), 'Pad': (3,), 'CumSum': (1,),
                    **dict.fromkeys((name for name in OPERATORS if name.startswith('Reduce')),
                                    (1,))}


def _resize(node, attributes, constant):
    mode = _text(attributes, 'mode', 'nearest')
    where = _text(attributes, 'coordinate_transformation_mode', 'half_pixel')
    if mode not in ('nearest', 'linear', 'cubic'):
        yield node.input[0], f'mode {mode}, want nearest, linear or cubic'
    if where not in ('half_pixel', 'pytorch_half_pixel', 'tf_half_pixel_for_nn', 'asymmetric',
                     'align_corners'):
        yield node.input[0], f'coordinate_transformation_mode {where}, want half_pixel or the like'
    if attributes.get('antialias', 0):
        yield node.input[0], 'antialias, want none'


def _top_k(node, attributes, constant):
    k = constant(node.input[1])
    if not attributes.get('sorted', 1):
        yield node.input[0], 'sorted 0, want 1'
    if k is None or k.item() >= 3840:
        yield node.input[1], f'K {"computed" if k is None else k.item()}, want below 3840'


def _scatter_nd(node, attributes, constant):
    if 'reduction' in attributes and _text(attributes, 'reduction', 'none') != 'none':
        yield node.input[0], f'reduction {_text(attributes, "reduction", "")}, want none'


def _max_pool(node, attributes, constant):
    if len(node.output) > 1 and node.output[1]:
        yield node.output[1], 'Indices are asked for, want the first output alone'
    yield from _pool(node, attributes, constant)


def _pool(node, attributes, constant):
    if any(value != 1 for value in attributes.get('dilations', ())):
        yield node.input[0], f'dilations {list(attributes["dilations"])}, want ones'


def _layer_norm(node, attributes, constant):
    if any(node.output[1:]):
        yield node.output[1], 'Mean or InvStdDev are asked for, want the first output alone'


def _cast(node, attributes, constant):
    allowed = ('FLOAT', 'FLOAT16', 'BFLOAT16', 'INT32', 'INT64', 'UINT8', 'BOOL')
    to = onnx.TensorProto.DataType.Name(attributes['to'])
    if to not in allowed:
        yield node.output[0], f'to {to}, want one of {", ".join(allowed)}'


def _pooled_or_convolved(node, attributes, constant):
    if len(attributes.get('kernel_shape', (0, 0))) not in (2, 3):
        yield node.input[0], f'kernel_shape {list(attributes["kernel_shape"])}, want 2 or 3 sizes'


_CHECKS = {'Resize': _resize, 'TopK': _top_k, 'ScatterND': _scatter_nd, 'MaxPool': _max_pool,
           'AveragePool': _pool, 'LayerNormalization': _layer_norm, 'Cast': _cast,
           'Conv': _pooled_or_convolved}


def _text(attributes: dict, name: str, default: str) -> str:
    value = attributes.get(name, default)
    return value.decode() if isinstance(value, bytes) else value
