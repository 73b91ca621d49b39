"""
The form that ONNX Runtime runs in INT8 on a CPU: uint8 activations, int8 weights (U8S8).

The exported graphs are symmetric int8, as accelerators want them, and ONNX Runtime's CPU kernels
leave most of that in float. The same numbers in another dress run in int8: an activation becomes
uint8 with zero point 128, and 0 behind a ReLU, which the convolution then swallows. What int8
held at 127 is held there still, so nothing but the order of rounding changes.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import onnx
from onnx import helper, numpy_helper

PRECISION = {'encode': 'uint8 x int8', 'fold': 'float16', 'rollout': 'uint8 x int8 + float16'}

_QMAX = 127
_ZERO = {'signed': np.int8(0), 'unsigned': np.uint8(128), 'relu': np.uint8(0)}


def derive_graph(graph: str, model: onnx.ModelProto, sizes: object = None) -> onnx.ModelProto:
    """
    Return one of the exported graphs in this form; N and P stay free, so `sizes` says nothing.

    A graph without quantisation comes back as it was. Raises ValueError for quantisation that is
    not int8 with zero point 0.
    """
    out = onnx.ModelProto()
    out.CopyFrom(model)
    editor = _Editor(out.graph)
    editor.check()
    editor.transpose_weights()
    editor.give_each_quantizer_its_convolution()
    editor.take_types()
    editor.quantize_biases()
    editor.finish()
    return out


class _Editor:
    """The nodes and constants of one graph, rewritten in place step by step."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.graph = graph
        self.nodes = list(graph.node)
        self.constants = {item.name: numpy_helper.to_array(item) for item in graph.initializer}
        for node in self.nodes:
            if node.op_type == 'Constant':
                self.constants[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
        for node in self.nodes:     # half-precision weights stand in front of a Cast
            if node.op_type == 'Cast' and node.input[0] in self.constants:
                kind = helper.tensor_dtype_to_np_dtype(node.attribute[0].i)
                self.constants[node.output[0]] = self.constants[node.input[0]].astype(kind)
        self.index()

    def index(self) -> None:
        """Find anew who makes and who reads each tensor."""
        self.made_by = {name: node for node in self.nodes for name in node.output}
        self.read_by: dict[str, list[onnx.NodeProto]] = defaultdict(list)
        for node in self.nodes:
            for name in dict.fromkeys(node.input):
                self.read_by[name].append(node)

    def constant(self, name: str, value: np.ndarray) -> str:
        """Add a constant under a name of its own; return the name."""
        if name not in self.constants:
            self.constants[name] = value
            self.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def is_weight(self, node: onnx.NodeProto) -> bool:
        """Tell whether a node dequantises a constant."""
        return node.op_type == 'DequantizeLinear' and node.input[0] in self.constants

    def is_activation(self, name: str) -> bool:
        """Tell whether a tensor is a dequantised activation."""
        node = self.made_by.get(name)
        return (node is not None and node.op_type == 'DequantizeLinear'
                and not self.is_weight(node))

    # --- steps ----------------------------------------------------------------------------------

    def check(self) -> None:
        """Refuse what is not symmetric int8."""
        for node in self.nodes:
            if node.op_type in ('QuantizeLinear', 'DequantizeLinear'):
                zero = self.constants.get(node.input[2])
                if zero is None or zero.dtype != np.int8 or zero.any():
                    raise ValueError(f'{self.graph.name}: {node.name} is not int8 with zero point '
                                     '0; want an artifact as exported')

    def transpose_weights(self) -> None:
        """Store a matrix as it is multiplied, with its scales along the columns."""
        for node in self.nodes:
            source = self.made_by.get(node.input[0]) if node.op_type == 'Transpose' else None
            if source is None or not self.is_weight(source):
                continue
            weight, scale, zero = (self.constants[name] for name in source.input)
            name = self.constant(f'{source.input[0]}_columns', np.ascontiguousarray(weight.T))
            new = helper.make_node('DequantizeLinear', [name, source.input[1], source.input[2]],
                                   list(node.output), axis=weight.ndim - 1)
            node.CopyFrom(new)
        self.index()

    def give_each_quantizer_its_convolution(self) -> None:
        """
        Repeat a quantised convolution whose result is quantised twice, with two scales.

        Only one that ends in a single quantisation runs in int8; twice in int8 is a fifth of once
        in float. One whose result is also wanted in float has to run in float.
        """
        nodes: list[onnx.NodeProto] = []
        for node in self.nodes:
            nodes.append(node)
            readers = self.read_by[node.output[0]] if node.op_type == 'Relu' else []
            if len(readers) < 2 or any(item.op_type != 'QuantizeLinear' for item in readers):
                continue
            conv = self.made_by.get(node.input[0])
            if conv is None or not self._is_quantized(conv):
                continue
            for count, reader in enumerate(readers[1:], 1):
                copies = [onnx.NodeProto.FromString(item.SerializeToString())
                          for item in (conv, node)]
                for copy in copies:
                    copy.name = f'{copy.name}/{count}'
                    copy.output[0] = f'{copy.output[0]}_{count}'
                copies[1].input[0] = copies[0].output[0]
                reader.input[0] = copies[1].output[0]
                nodes += copies
        self.nodes = nodes
        self.index()

    def _is_quantized(self, node: onnx.NodeProto) -> bool:
        """Tell whether a node is a convolution of a quantised activation and quantised weights."""
        return (node.op_type == 'Conv' and self.is_activation(node.input[0])
                and node.input[1] in self.made_by and self.is_weight(self.made_by[node.input[1]]))

    def take_types(self) -> None:
        """Give every activation its type: signed as a second factor, unsigned anywhere else."""
        nodes: list[onnx.NodeProto] = []
        for node in self.nodes:
            nodes.append(node)
            if node.op_type != 'QuantizeLinear':
                continue
            kind = self._kind(node)
            zero = self.constant(f'zero_point_{kind}', np.array(_ZERO[kind]))
            node.input[2] = zero
            for reader in self.read_by[node.output[0]]:
                reader.input[2] = zero
            if kind == 'relu':
                nodes.append(self._held_at_127(node))
        self.nodes = nodes
        self.index()

    def _kind(self, node: onnx.NodeProto) -> str:
        roles = set()
        for reader in self.read_by[node.output[0]]:
            if reader.op_type != 'DequantizeLinear':
                raise ValueError(f'{self.graph.name}: {node.name} is read by a {reader.op_type}, '
                                 'want DequantizeLinear')
            roles |= {(user.op_type, list(user.input).index(reader.output[0]))
                      for user in self.read_by[reader.output[0]]}
        if roles == {('MatMul', 1)}:
            return 'signed'
        relu = self.made_by.get(node.input[0])
        conv = self.made_by.get(relu.input[0]) if relu and relu.op_type == 'Relu' else None
        if conv is not None and self._is_quantized(conv) and (
                self.read_by[relu.output[0]] == [node]):
            return 'relu'
        return 'unsigned'

    def _held_at_127(self, node: onnx.NodeProto) -> onnx.NodeProto:
        """Saturate where int8 did; it also keeps sums of two products within 16 bits (AVX2)."""
        bounds = [self.constant('at_least_0', np.array(0, np.uint8)),
                  self.constant('at_most_127', np.array(_QMAX, np.uint8))]
        out, node.output[0] = node.output[0], f'{node.output[0]}_open'
        return helper.make_node('Clip', [node.output[0], *bounds], [out], name=f'{node.name}/clip')

    def quantize_biases(self) -> None:
        """Store biases of quantised convolutions as int32 in the scale of their sums."""
        nodes: list[onnx.NodeProto] = []
        for node in self.nodes:
            if self._is_quantized(node) and len(node.input) == 3:
                scales = [self.constants[self.made_by[name].input[1]] for name in node.input[:2]]
                scale = (scales[0] * scales[1]).astype(np.float32)
                bias = np.rint(self.constants[node.input[2]].astype(np.float64) / scale)
                if np.abs(bias).max() >= 2 ** 31:
                    raise ValueError(f'{self.graph.name}: {node.name}: a bias of '
                                     f'{np.abs(bias).max():.2g} steps, want under 2^31')
                name = f'{node.name}/bias'
                names = [self.constant(f'{name}_int32', bias.astype(np.int32)),
                         self.constant(f'{name}_scale', scale),
                         self.constant(f'{name}_zero', np.zeros(scale.shape, np.int32))]
                nodes.append(helper.make_node('DequantizeLinear', names, [name], axis=0))
                node.input[2] = name
            nodes.append(node)
        self.nodes = nodes
        self.index()

    def finish(self) -> None:
        """Write the nodes back without what nobody reads; types inside are inferred anew."""
        wanted = {item.name for item in self.graph.output}
        kept = []
        for node in reversed(self.nodes):
            if wanted & set(node.output):
                kept.append(node)
                wanted.update(node.input)
        used = [item for item in self.graph.initializer if item.name in wanted]
        del self.graph.node[:], self.graph.initializer[:], self.graph.value_info[:]
        self.graph.node.extend(reversed(kept))
        self.graph.initializer.extend(used)
