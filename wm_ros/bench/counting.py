"""
Operations and bytes of an artifact, counted from its ONNX graphs at the sizes of one rig.

Convolutions and matrix products are counted, two operations a multiply-add; what surrounds them
(sums, norms, softmax, resampling) moves bytes but hardly computes, and is left out of the
operations. OpenVINO reads the graphs here, because it infers every shape; nothing is compiled.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod

import openvino as ov

from wm_ros.runtime.artifact import Artifact
from wm_ros.runtime.contract import GRAPHS

#: What lies between a quantiser and the product that reads it: moves and the dequantisation.
_PASSED = ('Reshape', 'Transpose', 'Squeeze', 'Unsqueeze', 'Slice', 'StridedSlice', 'Split',
           'VariadicSplit', 'Concat', 'Broadcast', 'Multiply', 'Subtract', 'Convert')


@dataclass
class Work:
    """
    What one graph does a run.

    `operations` by exported precision ('int8', 'float'); `weight_bytes` by how constants are
    stored ('int8', 'float16', 'float32', 'other'); `io_bytes` of its inputs and outputs; `moved`
    counts the elements, by precision, that products and convolutions read and write, weights
    included: what would move if nothing stayed in a cache.
    """

    operations: dict[str, int] = field(default_factory=lambda: {'int8': 0, 'float': 0})
    weight_bytes: dict[str, int] = field(default_factory=dict)
    io_bytes: int = 0
    moved: dict[str, int] = field(default_factory=lambda: {'int8': 0, 'float': 0})

    @property
    def gflops(self) -> float:
        return sum(self.operations.values()) / 1e9

    @property
    def least_bytes(self) -> int:
        """Bytes that have to move whatever is cached: weights once, inputs and outputs once."""
        return sum(self.weight_bytes.values()) + self.io_bytes

    @property
    def weights_as_float32(self) -> int:
        return sum(size * _TO_FLOAT32.get(form, 1) for form, size in self.weight_bytes.items())


_TO_FLOAT32 = {'int8': 4, 'float16': 2}


def count_artifact(artifact: Artifact, cameras: int, plans: int = 1) -> dict[str, Work]:
    """Count the three graphs of an artifact for a rig of `cameras` and so many ego plans a run."""
    core = ov.Core()
    works = {}
    for graph in GRAPHS:
        model = core.read_model(artifact.graph(graph))
        model.reshape({item.name: ov.PartialShape(list(item.resolve(N=cameras, P=plans)))
                       for item in artifact.specs[graph].inputs})
        works[graph] = count_model(model)
    return works


def count_model(model: ov.Model) -> Work:
    """Count one model of static shapes."""
    work = Work()
    for port in (*model.inputs, *model.outputs):
        work.io_bytes += prod(port.get_shape()) * port.get_element_type().size
    for node in model.get_ordered_ops():
        kind = node.get_type_name()
        if kind == 'Constant' and node.get_element_type().is_real() or _is_int8(node):
            form = _form(node)
            size = prod(node.get_output_shape(0)) * node.get_element_type().size
            work.weight_bytes[form] = work.weight_bytes.get(form, 0) + size
        operations = _operations(node, kind)
        if operations:
            quantised = all(_is_quantised(node.input_value(port)) for port in (0, 1))
            precision = 'int8' if quantised else 'float'
            work.operations[precision] += operations
            work.moved[precision] += sum(prod(shape) for shape in (
                node.get_input_shape(0), node.get_input_shape(1), node.get_output_shape(0)))
    return work


def _operations(node: ov.Node, kind: str) -> int:
    """Return twice the multiply-adds of a convolution or product, 0 for anything else."""
    out = prod(node.get_output_shape(0)) if node.get_output_size() else 0
    if kind == 'Convolution':           # weights (out, in, kernel ...)
        return 2 * out * prod(node.get_input_shape(1)[1:])
    if kind == 'GroupConvolution':      # weights (groups, out / groups, in / groups, kernel ...)
        return 2 * out * prod(node.get_input_shape(1)[2:])
    if kind == 'MatMul':
        inner = -2 if node.get_attributes()['transpose_a'] else -1
        return 2 * out * node.get_input_shape(0)[inner]
    return 0


def _is_quantised(port: ov.Output) -> bool:
    """Tell whether a value comes from an INT8 quantiser or an INT8 constant."""
    node = port.get_node()
    while node.get_type_name() in _PASSED:
        node = node.input_value(0).get_node()
    return node.get_type_name() == 'FakeQuantize' or _is_int8(node)


def _is_int8(node: ov.Node) -> bool:
    """Tell whether a node is an INT8 weight; zero points, of one axis at most, are not meant."""
    return (node.get_type_name() == 'Constant' and node.get_element_type() == ov.Type.i8
            and len(node.get_output_shape(0)) > 1)


def _form(node: ov.Node) -> str:
    names = {ov.Type.i8: 'int8', ov.Type.f16: 'float16', ov.Type.f32: 'float32'}
    return names.get(node.get_element_type(), 'other')


def total(works: Mapping[str, Work]) -> Work:
    """Return the sum of several graphs."""
    out = Work()
    for work in works.values():
        for mine, other in ((out.operations, work.operations), (out.moved, work.moved),
                            (out.weight_bytes, work.weight_bytes)):
            for key, value in other.items():
                mine[key] = mine.get(key, 0) + value
        out.io_bytes += work.io_bytes
    return out
