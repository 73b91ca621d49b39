"""
The form for TensorRT: strongly typed, FP16 wherever the artifact is not INT8, static shapes.

A strongly typed network computes in the types that the graph writes down; TensorRT 11 knows no
other kind. The artifact stores half-precision weights with a Cast to FP32 behind each, so as it is
it would run in FP32. Here activations become FP16 and weights lose their Cast; QuantizeLinear and
DequantizeLinear take scales of the type they stand in (possible from opset 19 on) and move next to
the products they are for. What stays FP32:

- what is computed from poses, times, plans and boxes alone, and the warp: TensorRT wants a map
  and the grid it is read at in one type, and in FP16 places near its edge are rounded to 2 cm
- the scores that agents and companions are picked by, from their last convolution on: rounding
  makes ties
- boxes, their spread and trajectories, in metres, from the last linear layer on
- INT8 convolutions whose result is quantised again at once: one kernel each, that reads and writes
  INT8 and scales in FP32 inside; rounded to FP16 in between, values would fall to the next step of
  INT8, and the encoder is eighteen of these deep
- INT8 products with a scale that is no normal FP16 number: it would lose digits, or become 0

Inputs and outputs keep the types of the contract.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper, version_converter

from wm_ros.export.lint import check_graph
from wm_ros.export.static_graph import drop_unused, replace_nodes, static_graph

#: The first opset with FP16 scales. TensorRT 10.3 reads up to 20.
OPSET = 19
PRECISION = {'encode': 'int8+float16', 'fold': 'float16', 'rollout': 'int8+float16'}

POSES = ('now_from_frame', 'age_s', 'frame_mask', 'plans', 'ego_motion', 'odometry_mask')
METRES = ('agent_box', 'agent_log_sigma', 'trajectories', 'trajectory_spread')
PRODUCTS = ('Conv', 'MatMul', 'Gemm')
#: Operators that move values and change none, so that quantisation may stand before or behind.
MOVES = ('Concat', 'Expand', 'Flatten', 'Gather', 'Reshape', 'Slice', 'Split', 'Squeeze',
         'Transpose', 'Unsqueeze')
#: Operators that a convolution takes in behind it on the way to the next QuantizeLinear.
_TAKEN_IN = ('Relu', 'Add', 'Clip', 'Resize')
#: Where walking back from what has to be FP32 ends.
_STOPS = (*PRODUCTS, 'QuantizeLinear', 'DequantizeLinear', 'LayerNormalization', 'Softmax', 'TopK')
#: Inputs that are float32 in whatever type the operator computes.
_ALWAYS_FLOAT = {('Resize', 1), ('Resize', 2)}
_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16)
_HALF = np.finfo(np.float16)


def derive_graph(graph: str, model: onnx.ModelProto, sizes: Mapping[str, int]) -> onnx.ModelProto:
    """
    Return one graph of an artifact in the strongly typed form for fixed `sizes` N and P.

    Raises ValueError where a size stays free or a constant does not fit FP16, LintError where
    TensorRT would not take what was made.
    """
    made = static_graph(version_converter.convert_version(model, OPSET), sizes)
    _cast_bytes_first(made.graph)
    _quantise_at_products(made.graph)
    _turn_weights(made.graph)
    del made.graph.value_info[:]
    made = onnx.shape_inference.infer_shapes(made, check_type=True, strict_mode=True)
    _write_types(made.graph, _full_precision(made.graph))
    del made.graph.value_info[:]
    made = onnx.shape_inference.infer_shapes(made, check_type=True, strict_mode=True)
    made.producer_name = 'wm_ros derive --form tensorrt'
    check_graph(graph, made, typed=True)
    return made


def _cast_bytes_first(graph: onnx.GraphProto) -> None:
    """Cast a uint8 input before anything else: no other operator of TensorRT takes uint8."""
    for item in graph.input:
        if item.type.tensor_type.elem_type == TensorProto.UINT8:
            cast = f'{item.name}_cast'
            for node in graph.node:
                _rename(node.input, {item.name: cast})
            replace_nodes(graph, [helper.make_node('Cast', [item.name], [cast], cast,
                                                   to=TensorProto.FLOAT), *graph.node])


def _quantise_at_products(graph: onnx.GraphProto) -> None:
    """
    Move each pair of QuantizeLinear and DequantizeLinear behind the moves, in front of its product.

    Rounding commutes with moving values about, and 0 stays 0, so the numbers are the same. Behind
    a Concat with a constant the pair would be lost, and the product computed in FP16.
    """
    makers = {name: node for node in graph.node for name in node.output}
    constants = {item.name: item for item in graph.initializer}

    def pairs_behind(name: str) -> list[tuple] | None:
        """Return the (Q, DQ) that every value of a tensor has come through; None for no such."""
        if name in constants:
            return None if numpy_helper.to_array(constants[name]).any() else []
        node = makers.get(name)
        if node is None:
            return None
        if node.op_type == 'DequantizeLinear':
            quantize = makers.get(node.input[0])
            return None if quantize is None else [(quantize, node)]
        if node.op_type not in MOVES:
            return None
        found = []
        for source in node.input if node.op_type == 'Concat' else node.input[:1]:
            pairs = pairs_behind(source)
            if pairs is None:
                return None
            found += pairs
        return found

    bypassed: dict[str, str] = {}
    nodes = []
    for node in graph.node:
        for index, name in enumerate(node.input):
            maker = makers.get(name)
            if node.op_type not in PRODUCTS or maker is None or maker.op_type not in MOVES:
                continue
            pairs = pairs_behind(name)
            if not pairs or len({tuple(dq.input[1:]) for _, dq in pairs}) != 1:
                continue
            quantize, dequantize = pairs[0]
            for q, dq in pairs:
                bypassed[dq.output[0]] = q.input[0]
            int8, back = f'{name}_{node.name}_q{index}', f'{name}_{node.name}_dq{index}'
            nodes.append(helper.make_node('QuantizeLinear', [name, *quantize.input[1:]], [int8],
                                          int8))
            nodes.append(helper.make_node('DequantizeLinear', [int8, *dequantize.input[1:]], [back],
                                          back))
            node.input[index] = back
        nodes.append(node)
    # A product that read such a pair directly keeps it; moves read what was before it.
    for node in nodes:
        if node.op_type in MOVES:
            _rename(node.input, bypassed)
    replace_nodes(graph, nodes)
    drop_unused(graph)


def _turn_weights(graph: onnx.GraphProto) -> None:
    """Store INT8 weights as their products read them, with a DequantizeLinear for each product."""
    constants = {item.name: item for item in graph.initializer}
    makers = {name: node for node in graph.node for name in node.output}
    nodes = []
    for node in graph.node:
        turn = makers.get(node.input[1]) if node.op_type == 'MatMul' else None
        dequantize = makers.get(turn.input[0]) if turn is not None and (
            turn.op_type == 'Transpose') else None
        if dequantize is not None and dequantize.op_type == 'DequantizeLinear' and (
                dequantize.input[0] in constants):
            weight = constants[dequantize.input[0]]
            name, back = f'{weight.name}_turned', f'{node.name}_weight'
            if name not in constants:
                values = numpy_helper.to_array(weight).T        # (out, in) -> (in, out)
                constants[name] = numpy_helper.from_array(np.ascontiguousarray(values), name)
                graph.initializer.append(constants[name])
            nodes.append(helper.make_node('DequantizeLinear', [name, *dequantize.input[1:]], [back],
                                          back, axis=1))
            node.input[1] = back
        nodes.append(node)
    replace_nodes(graph, nodes)
    drop_unused(graph)


def _full_precision(graph: onnx.GraphProto) -> set[int]:
    """Return the indices of the nodes that stay FP32 (see the head of this file)."""
    nodes = list(graph.node)
    makers = {name: i for i, node in enumerate(nodes) for name in node.output}
    constants = {item.name for item in graph.initializer}

    def backwards(starts: Iterable[int], with_product: bool) -> set[int]:
        found, todo = set(), list(starts)
        while todo:
            i = todo.pop()
            if i in found:
                continue
            found.add(i)
            for name in nodes[i].input:
                j = makers.get(name)
                if j is None or nodes[j].op_type in _STOPS and not (
                        with_product and nodes[j].op_type in PRODUCTS
                        and not _reads_int8(nodes[j], nodes, makers)):
                    continue
                if nodes[j].op_type in PRODUCTS:
                    found.add(j)
                else:
                    todo.append(j)
        return found

    full: set[int] = set()
    metres = backwards((makers[item.name] for item in graph.output if item.name in METRES), True)
    known = {item.name for item in graph.input if item.name in POSES}
    known.update(name for i in metres for name in nodes[i].output)
    for i, node in enumerate(nodes):
        if (node.op_type not in _STOPS and known & set(node.input)
                and all(not name or name in known or name in constants for name in node.input)):
            full.add(i)
            known.update(node.output)
    full |= backwards((i for i, node in enumerate(nodes) if node.op_type == 'GridSample'), False)
    full |= backwards((i for i, node in enumerate(nodes) if node.op_type == 'TopK'), True)
    full |= metres
    return full | _int8_products(graph, nodes, makers)


def _reads_int8(node: onnx.NodeProto, nodes: list[onnx.NodeProto], makers: dict[str, int]) -> bool:
    """Tell whether a product reads what was INT8 a moment ago."""
    return any(nodes[i].op_type == 'DequantizeLinear' for i in _sources(node, nodes, makers))


def _sources(node: onnx.NodeProto, nodes: list[onnx.NodeProto], makers: dict[str, int]) -> set[int]:
    """Return the nodes that feed a product, through moves up to QuantizeLinear."""
    found, todo = set(), [makers[name] for name in node.input if name in makers]
    while todo:
        i = todo.pop()
        if i not in found and nodes[i].op_type in (*MOVES, 'DequantizeLinear', 'QuantizeLinear'):
            found.add(i)
            if nodes[i].op_type != 'QuantizeLinear':
                todo += [makers[name] for name in nodes[i].input if name in makers]
    return found


def _int8_products(graph: onnx.GraphProto, nodes: list[onnx.NodeProto],
                   makers: dict[str, int]) -> set[int]:
    """Return INT8 products that stay FP32, with what feeds them and what they take in."""
    values = {item.name: numpy_helper.to_array(item) for item in graph.initializer
              if item.data_type in _FLOATS}
    groups = {i: {i, *_sources(node, nodes, makers)} for i, node in enumerate(nodes)
              if node.op_type in PRODUCTS and _reads_int8(node, nodes, makers)}
    full = {i for i, node in enumerate(nodes)
            if node.op_type in ('QuantizeLinear', 'DequantizeLinear')
            and not ((values[node.input[1]] >= _HALF.smallest_normal)
                     & (values[node.input[1]] <= _HALF.max)).all()}
    for i, group in groups.items():
        taken_in = _until_quantised(graph, nodes, nodes[i].output[0])
        if nodes[i].op_type == 'Conv' and taken_in is not None:
            full |= group | taken_in
    while True:     # two products may share a quantised tensor
        more = set().union(*(group for group in groups.values() if group & full)) - full
        if not more:
            return full
        full |= more


def _until_quantised(graph: onnx.GraphProto, nodes: list[onnx.NodeProto],
                     name: str) -> set[int] | None:
    """Return what a product takes in where all it makes is quantised or given out, else None."""
    outputs = {item.name for item in graph.output}
    found: set[int] = set()
    for i, node in enumerate(nodes):
        if name not in node.input or node.op_type == 'QuantizeLinear':
            continue
        if node.op_type in MOVES and outputs.issuperset(node.output):
            found.add(i)
            continue
        behind = (_until_quantised(graph, nodes, node.output[0])
                  if node.op_type in _TAKEN_IN else None)
        if behind is None:
            return None
        found |= {i, *behind}
    return found


def _write_types(graph: onnx.GraphProto, full: set[int]) -> None:
    """Make every float node FP16, those of `full` FP32, with a Cast where the two meet."""
    constants = {item.name: item for item in graph.initializer}
    types = {item.name: item.type.tensor_type.elem_type
             for item in (*graph.input, *graph.value_info, *graph.output)}
    # Outputs keep their names and types; inside, the tensor goes by another name.
    inner = {item.name: f'{item.name}_inner' for item in graph.output
             if types[item.name] in _FLOATS}
    made = {item.name: TensorProto.FLOAT for item in graph.input
            if types[item.name] == TensorProto.FLOAT}
    same: dict[str, str] = {}
    used: dict[str, onnx.TensorProto] = {}
    nodes: list[onnx.NodeProto] = []

    def wanted(name: str, kind: int) -> str:
        """Return the name of a tensor in the type asked for; other than floats as they are."""
        name = same.get(name, name)
        if name in constants:
            item = constants[name]
            if item.data_type in _FLOATS and item.data_type != kind:
                item = _converted(item, kind)
            used[item.name] = item
            return item.name
        if name not in made or made[name] == kind:
            return name
        cast = f'{name}_{"half" if kind == TensorProto.FLOAT16 else "float"}'
        if cast not in made:
            made[cast] = kind
            nodes.append(helper.make_node('Cast', [name], [cast], f'{cast}/Cast', to=kind))
        return cast

    for i, node in enumerate(graph.node):
        kind = TensorProto.FLOAT if i in full else TensorProto.FLOAT16
        _rename(node.input, inner)
        _rename(node.output, inner)
        floats = [name for name in node.output
                  if types.get(name, types.get(name.removesuffix('_inner'))) in _FLOATS]
        if node.op_type == 'Cast':
            source = same.get(node.input[0], node.input[0])
            if floats and source in made:       # of one float to another: types are given here
                same[node.output[0]] = source
                continue
            if floats:
                del node.attribute[:]
                node.attribute.append(helper.make_attribute('to', kind))
            node.input[0] = source
        else:
            for index, name in enumerate(node.input):
                if name:
                    node.input[index] = wanted(name, TensorProto.FLOAT
                                               if (node.op_type, index) in _ALWAYS_FLOAT else kind)
        made.update(dict.fromkeys(floats, kind))
        nodes.append(node)
    back = {}
    for outer, name in inner.items():
        name = same.get(name, name)
        if made[name] == TensorProto.FLOAT and name == inner[outer]:
            back[name] = outer
        else:
            nodes.append(helper.make_node('Cast', [name], [outer], f'{outer}/Cast',
                                          to=TensorProto.FLOAT))
    for node in nodes:
        _rename(node.input, back)
        _rename(node.output, back)
    replace_nodes(graph, nodes)
    del graph.initializer[:]
    graph.initializer.extend(used.values())


def _converted(item: onnx.TensorProto, kind: int) -> onnx.TensorProto:
    values = numpy_helper.to_array(item)
    if kind == TensorProto.FLOAT:
        return numpy_helper.from_array(values.astype(np.float32), f'{item.name}_float')
    if not (np.abs(values) <= _HALF.max).all():
        raise ValueError(f'{item.name}: values to {np.abs(values).max():g}, '
                         f'FP16 holds {float(_HALF.max):g}')
    return numpy_helper.from_array(values.astype(np.float16), f'{item.name}_half')


def _rename(names: list[str], renamed: Mapping[str, str]) -> None:
    for index, name in enumerate(names):
        if name in renamed:
            names[index] = renamed[name]
