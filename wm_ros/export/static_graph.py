"""
Fix a graph's free sizes and work out everything that is then constant.

The exporter leaves shape arithmetic, masks and index tables as nodes (more than nine tenths of the
rollout's). A run time that compiles for one size folds them anyway; one that wants types and
operators it knows is better not shown them.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

#: Kept as nodes: INT8 weights have to stay INT8.
_NEVER_FOLDED = ('QuantizeLinear', 'DequantizeLinear')


def static_graph(model: onnx.ModelProto, sizes: Mapping[str, int]) -> onnx.ModelProto:
    """
    Return a model of the same outputs with letters of `sizes` fixed and constants folded.

    Every tensor has a static shape in the result's `value_info`. Raises ValueError where a size
    stays free.
    """
    graph = onnx.ModelProto()
    graph.CopyFrom(model)
    _fix_sizes(graph, sizes)
    while True:
        before = len(graph.graph.node)
        del graph.graph.value_info[:]
        graph = onnx.shape_inference.infer_shapes(graph, strict_mode=True, data_prop=True)
        _fold(graph)
        if len(graph.graph.node) == before:
            break
    _merge_equal(graph.graph)
    _check_static(graph)
    return graph


def drop_unused(graph: onnx.GraphProto) -> None:
    """Remove nodes and initializers that no output of the graph needs."""
    needed = {item.name for item in graph.output}
    nodes = []
    for node in reversed(graph.node):   # topological order, so users come before makers
        if needed & set(node.output):
            nodes.append(node)
            needed.update(node.input)
    replace_nodes(graph, nodes[::-1])
    initializers = [item for item in graph.initializer if item.name in needed]
    del graph.initializer[:]
    graph.initializer.extend(initializers)


def replace_nodes(graph: onnx.GraphProto, nodes: list[onnx.NodeProto]) -> None:
    """Make `nodes` the nodes of a graph."""
    del graph.node[:]
    graph.node.extend(nodes)


def shapes_of(graph: onnx.GraphProto) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the tensors whose every size is known."""
    shapes = {item.name: tuple(item.dims) for item in graph.initializer}
    for item in (*graph.input, *graph.value_info, *graph.output):
        kind = item.type.tensor_type
        if kind.HasField('shape') and all(dim.HasField('dim_value') for dim in kind.shape.dim):
            shapes[item.name] = tuple(dim.dim_value for dim in kind.shape.dim)
    return shapes


def _fix_sizes(graph: onnx.ModelProto, sizes: Mapping[str, int]) -> None:
    for item in graph.graph.input:
        for dim in item.type.tensor_type.shape.dim:
            if dim.dim_param in sizes:
                dim.dim_value = sizes[dim.dim_param]
            elif not dim.HasField('dim_value'):
                raise ValueError(f'{item.name}: free size {dim.dim_param!r}, want one of '
                                 f'{", ".join(sizes) or "no free size"}')
    for item in graph.graph.output:     # inferred again: the exporter's names mean nothing
        item.type.tensor_type.ClearField('shape')


def _fold(model: onnx.ModelProto) -> None:
    """Replace what depends on constants and on known shapes alone by initializers, in place."""
    graph = model.graph
    shapes = shapes_of(graph)
    outputs = {item.name for item in graph.output}
    known = {item.name for item in graph.initializer}
    folded, kept = [], []
    for node in graph.node:
        if node.op_type == 'Shape' and node.input[0] in shapes and not node.attribute:
            node = helper.make_node('Constant', [], list(node.output),
                                    value=numpy_helper.from_array(
                                        np.array(shapes[node.input[0]], np.int64)))
        zeros = _product_with_zero(node, graph, shapes)
        if zeros is not None:
            node = helper.make_node('Constant', [], list(node.output), value=zeros)
        constant = (all(name in known for name in node.input if name)
                    and node.op_type not in _NEVER_FOLDED and not outputs & set(node.output))
        if constant:
            folded.append(node)
            known.update(node.output)
        else:
            kept.append(node)
    replace_nodes(graph, kept)
    wanted = {name for node in kept for name in node.input if name}
    made = [name for node in folded for name in node.output if name in wanted]
    if made:
        for name, value in zip(made, _evaluate(model, folded, made), strict=True):
            graph.initializer.append(numpy_helper.from_array(value, name))
    _drop_identities(graph)
    drop_unused(graph)


def _product_with_zero(node: onnx.NodeProto, graph: onnx.GraphProto,
                       shapes: Mapping[str, tuple[int, ...]]) -> onnx.TensorProto | None:
    """Return the zeros that a finite tensor times 0 is (so the exporter writes a padding)."""
    shape = shapes.get(node.output[0]) if node.output else None
    if node.op_type != 'Mul' or shape is None:
        return None
    for item in graph.initializer:
        if item.name in node.input and not numpy_helper.to_array(item).any():
            dtype = helper.tensor_dtype_to_np_dtype(item.data_type)
            return numpy_helper.from_array(np.zeros(shape, dtype))
    return None


def _evaluate(model: onnx.ModelProto, nodes: list[onnx.NodeProto],
              names: list[str]) -> list[np.ndarray]:
    used = {name for node in nodes for name in node.input}
    part = helper.make_model(
        helper.make_graph(nodes, 'constants', [],
                          [helper.make_value_info(name, onnx.TypeProto()) for name in names],
                          [item for item in model.graph.initializer if item.name in used]),
        opset_imports=model.opset_import, ir_version=model.ir_version)
    return [np.asarray(value) for value in ReferenceEvaluator(part).run(names, {})]


def _drop_identities(graph: onnx.GraphProto) -> None:
    """Leave out what changes nothing: Identity, Cast and Reshape to what a tensor is already."""
    types = {item.name: item.data_type for item in graph.initializer}
    types.update({item.name: item.type.tensor_type.elem_type
                  for item in (*graph.input, *graph.value_info, *graph.output)})
    shapes = shapes_of(graph)
    outputs = {item.name for item in graph.output}
    renamed: dict[str, str] = {}
    kept = []
    for node in graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = renamed.get(name, name)
        source = node.input[0] if node.input else ''
        same_type = types.get(source, TensorProto.UNDEFINED) == types.get(node.output[0])
        same_shape = source in shapes and shapes[source] == shapes.get(node.output[0])
        nothing = (node.op_type == 'Identity' or node.op_type == 'Cast' and same_type
                   or node.op_type in ('Reshape', 'Expand', 'Flatten') and same_shape)
        if nothing and node.output[0] not in outputs:
            renamed[node.output[0]] = source
        else:
            kept.append(node)
    replace_nodes(graph, kept)


def _merge_equal(graph: onnx.GraphProto) -> None:
    """Keep one of several equal initializers: folding writes a shared weight out at every use."""
    first: dict[tuple, str] = {}
    same: dict[str, str] = {}
    for item in graph.initializer:
        content = (item.data_type, tuple(item.dims), numpy_helper.to_array(item).tobytes())
        same[item.name] = first.setdefault(content, item.name)
    for node in graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = same.get(name, name)
    drop_unused(graph)


def _check_static(model: onnx.ModelProto) -> None:
    shapes = shapes_of(model.graph)
    for node in model.graph.node:
        for name in node.output:
            if name and name not in shapes:
                raise ValueError(f'{node.name}: {name} has no static shape')
