"""Export: a trained model becomes the artifact's three ONNX graphs."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from wm_ros.model.parts import PARTS, Part
from wm_ros.model.quant import fold_batch_norms
from wm_ros.model.world_model import WorldModel
from wm_ros.runtime.contract import GRAPHS, GraphSpec, graph_specs
from wm_ros.types import FEATURE_GRID

OPSET = 17
#: Graphs whose float weights are stored in half precision (the rest of them is INT8).
HALF_GRAPHS = ('fold', 'rollout')
#: What stands behind a parameter's name where its weights are not stored as they are in torch.
INT8_SUFFIX, HALF_SUFFIX, TRANSPOSED_SUFFIX = '_int8', '_half', '_t'


def export_graphs(model: WorldModel, folder: Path, cameras: int = 6,
                  half: bool = True) -> dict[str, GraphSpec]:
    """
    Write encode.onnx, fold.onnx and rollout.onnx; return their specification.

    The model is folded and set to evaluation in place. `cameras` is only the example's: the
    graphs leave N and P free, to be fixed when a backend loads them. Without `half` the float
    weights keep single precision.
    """
    config = model.config
    specs = graph_specs(config.memory_channels, config.skip_channels, config.latent_dim,
                        FEATURE_GRID.rows)
    model.eval()
    fold_batch_norms(model)
    folder.mkdir(parents=True, exist_ok=True)
    for name in GRAPHS:
        path = folder / f'{name}.onnx'
        _export(PARTS[name](model, specs[name]), specs[name], path, cameras)
        graph = onnx.load(path)
        part_equal_weights(graph)
        fold_weight_quantizers(graph)
        name_weights(graph, model)
        if half and name in HALF_GRAPHS:
            store_half(graph)
        onnx.checker.check_model(graph, full_check=True)
        onnx.save(graph, path)
    return specs


def _export(part: Part, spec: GraphSpec, path: Path, cameras: int) -> None:
    example = tuple(_example(tensor.dtype, tensor.resolve(N=cameras, P=2))
                    for tensor in spec.inputs)
    free = {tensor.name: {axis: size for axis, size in enumerate(tensor.shape)
                          if isinstance(size, str)}
            for tensor in (*spec.inputs, *spec.outputs)}
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter('ignore')  # the tracer warns of shapes that are constants here
        torch.onnx.export(
            part, example, str(path), opset_version=OPSET, dynamo=False,
            input_names=[tensor.name for tensor in spec.inputs],
            output_names=[tensor.name for tensor in spec.outputs],
            dynamic_axes={name: axes for name, axes in free.items() if axes})


def _example(dtype: str, shape: tuple[int, ...]) -> torch.Tensor:
    if dtype == 'float32':
        return torch.rand(shape)
    return torch.zeros(shape, dtype=getattr(torch, dtype))


def part_equal_weights(graph: onnx.ModelProto) -> None:
    """Give equal weights and scales their own names again: the exporter keeps one of them."""
    constants = {item.name: item for item in graph.graph.initializer}
    kept = []
    for node in graph.graph.node:
        named = node.op_type == 'Identity' and node.output[0].startswith('model.')
        source = constants.get(node.input[0]) if named else None
        if source is None:
            kept.append(node)
            continue
        graph.graph.initializer.append(
            numpy_helper.from_array(numpy_helper.to_array(source), node.output[0]))
    _replace_nodes(graph, kept)


def fold_weight_quantizers(graph: onnx.ModelProto) -> None:
    """
    Store quantised weights as int8: a QuantizeLinear of a constant becomes its result.

    The exporter leaves float weights in front of each QuantizeLinear; TensorRT and OpenVINO read
    either form, but the file would be four times as large.
    """
    constants = {item.name: item for item in graph.graph.initializer}
    constants.update({node.output[0]: node.attribute[0].t for node in graph.graph.node
                      if node.op_type == 'Constant'})
    kept, renamed = [], {}
    for node in graph.graph.node:
        source = constants.get(node.input[0]) if node.op_type == 'QuantizeLinear' else None
        if source is None:
            kept.append(node)
            continue
        weight = numpy_helper.to_array(source)
        scale = numpy_helper.to_array(constants[node.input[1]])
        axis = next((a.i for a in node.attribute if a.name == 'axis'), 1)
        shape = [-1 if i == axis else 1 for i in range(weight.ndim)] if scale.ndim else []
        quantized = np.clip(np.rint(weight / scale.reshape(shape)), -128, 127).astype(np.int8)
        name = f'{node.input[0]}{INT8_SUFFIX}'
        graph.graph.initializer.append(numpy_helper.from_array(quantized, name))
        renamed[node.output[0]] = name
    _replace_nodes(graph, kept)
    _rename(graph, renamed)
    _drop_unused(graph)


def name_weights(graph: onnx.ModelProto, model: WorldModel) -> None:
    """
    Give weights that the exporter transposed or reshaped the name of their parameter again.

    The graphs are the only place where an artifact keeps its weights: by these names they are
    read back (`wm_ros.export.weights`). A transposed matrix is named `..._t`.
    """
    values = {name: value.detach().numpy() for name, value in model.state_dict().items()}
    by_bytes = {value.tobytes(): name for name, value in values.items() if value.ndim}
    transposed = {value.T.tobytes(): f'{name}{TRANSPOSED_SUFFIX}'
                  for name, value in values.items() if value.ndim == 2}
    renamed = {}
    for item in graph.graph.initializer:
        array = numpy_helper.to_array(item)
        if not item.name.startswith('model.') and array.dtype == np.float32 and array.ndim:
            name = by_bytes.get(array.tobytes()) or transposed.get(array.tobytes())
            if name is not None:
                renamed[item.name] = item.name = f'model.{name}'
    _rename(graph, renamed)


def _rename(graph: onnx.ModelProto, renamed: dict[str, str]) -> None:
    for node in graph.graph.node:
        for i, name in enumerate(node.input):
            node.input[i] = renamed.get(name, name)


def store_half(graph: onnx.ModelProto, smallest: int = 64) -> None:
    """
    Store float weights in half precision, with a Cast that a run time folds away.

    Scales stay as they are: INT8 weights were rounded by these very numbers.
    """
    scales = {node.input[1] for node in graph.graph.node
              if node.op_type in ('QuantizeLinear', 'DequantizeLinear')}
    casts = []
    for item in list(graph.graph.initializer):
        array = numpy_helper.to_array(item)
        if item.data_type != TensorProto.FLOAT or array.size < smallest or item.name in scales:
            continue
        graph.graph.initializer.remove(item)
        half = numpy_helper.from_array(array.astype(np.float16), f'{item.name}{HALF_SUFFIX}')
        graph.graph.initializer.append(half)
        casts.append(helper.make_node('Cast', [half.name], [item.name], to=TensorProto.FLOAT))
    _replace_nodes(graph, casts + list(graph.graph.node))


def _replace_nodes(graph: onnx.ModelProto, nodes: list) -> None:
    del graph.graph.node[:]
    graph.graph.node.extend(nodes)


def _drop_unused(graph: onnx.ModelProto) -> None:
    """Remove initializers and constants that nothing reads any more."""
    while True:
        used = {name for node in graph.graph.node for name in node.input}
        used |= {item.name for item in graph.graph.output}
        nodes = [node for node in graph.graph.node if used & set(node.output)]
        initializers = [item for item in graph.graph.initializer if item.name in used]
        if (len(nodes), len(initializers)) == (len(graph.graph.node),
                                               len(graph.graph.initializer)):
            return
        _replace_nodes(graph, nodes)
        del graph.graph.initializer[:]
        graph.graph.initializer.extend(initializers)
