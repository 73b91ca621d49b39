"""A look at an ONNX graph: who makes, who reads, what is constant, where values come from."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import onnx
from onnx import helper, numpy_helper

#: Operators that move values about and change none.
MOVES = ('Concat', 'Expand', 'Flatten', 'Gather', 'Identity', 'Reshape', 'Slice', 'Split',
         'Squeeze', 'Transpose', 'Unsqueeze')


class GraphView:
    """A model with its makers, users and constants."""

    def __init__(self, model: onnx.ModelProto) -> None:
        # Data propagation gives the shapes behind shape arithmetic; no check yet, that is ours.
        self.model = onnx.shape_inference.infer_shapes(model, data_prop=True)
        self.graph = self.model.graph
        self.nodes = list(self.graph.node)
        self.maker = {name: node for node in self.nodes for name in node.output}
        self.users: dict[str, list[onnx.NodeProto]] = {}
        for node in self.nodes:
            for name in node.input:
                self.users.setdefault(name, []).append(node)
        self.types = {item.name: item.data_type for item in self.graph.initializer}
        self.types.update({item.name: item.type.tensor_type.elem_type for item in (
            *self.graph.input, *self.graph.value_info, *self.graph.output)})
        self._constants: dict[str, np.ndarray | None] = {}

    @cached_property
    def initializers(self) -> dict[str, onnx.TensorProto]:
        return {item.name: item for item in self.graph.initializer}

    def constant(self, name: str) -> np.ndarray | None:
        """Return the value of a constant, also behind Cast and Identity; None for anything else."""
        if name not in self._constants:
            self._constants[name] = self._constant(name)
        return self._constants[name]

    def _constant(self, name: str) -> np.ndarray | None:
        if name in self.initializers:
            return numpy_helper.to_array(self.initializers[name])
        node = self.maker.get(name)
        if node is None:
            return None
        if node.op_type == 'Constant' and node.attribute[0].name == 'value':
            return numpy_helper.to_array(node.attribute[0].t)
        if node.op_type in ('Cast', 'Identity'):
            value = self.constant(node.input[0])
            if value is None or node.op_type == 'Identity':
                return value
            return value.astype(helper.tensor_dtype_to_np_dtype(attribute(node, 'to', 1)))
        return None

    def sources(self, name: str) -> list[onnx.NodeProto | None]:
        """Return what a tensor's values come from, past moves; None for an input or a constant."""
        node = self.maker.get(name)
        if node is None or self.constant(name) is not None:
            value = self.constant(name)
            return [] if value is not None and not value.any() else [None]
        if node.op_type == 'Mul' and any(
                value is not None and not value.any() for value in map(self.constant, node.input)):
            return []       # a padding of zeros, quantised or not
        if node.op_type not in MOVES:
            return [node]
        parts = node.input if node.op_type == 'Concat' else node.input[:1]
        return [source for part in parts for source in self.sources(part)]


def attribute(node: onnx.NodeProto, name: str, default: object) -> object:
    """Return an attribute of a node, or its default."""
    return next((helper.get_attribute_value(item) for item in node.attribute if item.name == name),
                default)
