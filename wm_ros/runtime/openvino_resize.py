"""
The raising of dense maps to the output grid, taken out of a graph and done by OpenCV.

OpenVINO's bilinear Interpolate on a CPU takes about ten times as long as `cv2.resize` for the same
numbers, and it is the last thing that happens to the maps: what follows only cuts them apart. The
spreading of channels to sub-cells before it is taken out too. OpenVINO moves number by number, in
ten times as long as numpy takes for rows of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

import cv2
import numpy as np
import openvino as ov
from openvino import opset15 as ops

from wm_ros.runtime.openvino_split import Cut, split_at

#: What may follow on the way to an output: nothing that computes.
_MOVES = ('Reshape', 'Slice', 'StridedSlice', 'Gather', 'Squeeze', 'Unsqueeze', 'Split',
          'VariadicSplit', 'Transpose', 'Convert', 'Identity', 'Concat', 'Broadcast')


def last_resizes(model: ov.Model) -> list[ov.Node]:
    """Return the bilinear enlargements (M, C, h, w) of a model that only moves follow."""
    return [node for node in model.get_ordered_ops()
            if node.get_type_name() == 'Interpolate' and _is_plain(node) and _is_last(node)]


def _is_plain(node: ov.Node) -> bool:
    attributes = node.get_attributes()
    source, target = node.get_input_partial_shape(0), node.get_output_partial_shape(0)
    return (attributes['mode'] in ('linear', 'linear_onnx')
            and attributes['coordinate_transformation_mode'] in ('half_pixel',
                                                                 'pytorch_half_pixel')
            and not attributes['antialias'] and not any(attributes['pads_begin'])
            and not any(attributes['pads_end']) and source.is_static and target.is_static
            and len(source) == 4 and all(source[i] == target[i] for i in (0, 1))
            and all(1 < source[i].get_length() <= target[i].get_length() for i in (2, 3)))


def _is_last(node: ov.Node) -> bool:
    """Tell whether every way from a node to a result only moves values."""
    waiting, reached = [node], False
    while waiting:
        for port in waiting.pop().outputs():
            for reader in port.get_target_inputs():
                follower = reader.get_node()
                if follower.get_type_name() == 'Result':
                    reached = True
                elif follower.get_type_name() == 'ShapeOf':
                    continue
                elif follower.get_type_name() not in _MOVES:
                    return False
                else:
                    waiting.append(follower)
    return reached


def take_resizes(model: ov.Model) -> tuple[ov.Model, list[Raised]]:
    """
    Return what comes before the last enlargements of a model, and where their maps go.

    What follows them only moves maps: it is run once, on maps that are numbered, to see where to.
    """
    resizes = last_resizes(model)
    if not resizes:
        return model, []
    cuts = [Cut(_cells(node.input_value(0)), node.output(0), f'small{i}', f'large{i}')
            for i, node in enumerate(resizes)]
    before, after = split_at(model, cuts)
    compiled = ov.Core().compile_model(after, 'CPU', {'INFERENCE_PRECISION_HINT': 'f32'})
    given, owners = {}, []
    for cut in cuts:
        shape = cut.taken.get_shape()
        numbers = np.arange(len(owners), len(owners) + shape[0] * shape[1], dtype=np.float32)
        given[cut.takes] = np.broadcast_to(numbers.reshape(shape[0], shape[1], 1, 1), shape).copy()
        owners += [(cut.gives, plane) for plane in range(len(numbers))]
    raised = []
    for port, values in compiled(given).items():
        for plane, value in enumerate(values.reshape(-1, *values.shape[-2:])):
            if (value != value[0, 0]).any():
                raise ValueError(f'{port.get_any_name()}: cut or turned after its enlargement')
            raised.append(Raised(*owners[round(float(value[0, 0]))], port.get_any_name(), plane))
    return before, raised


def _cells(port: ov.Output) -> ov.Output:
    """
    Return maps (M, C, h, w) as what they are spread from: (M, rows, cols, C, block, block).

    Where a DepthToSpace did not make them, as they are.
    """
    node = port.get_node()
    if node.get_type_name() != 'DepthToSpace' or node.get_attributes()['mode'] != 'depth_first':
        return port
    block = node.get_attributes()['block_size']
    count, channels, rows, cols = node.get_input_shape(0)
    last = ops.transpose(node.input_value(0), np.array([0, 2, 3, 1]))
    return ops.reshape(last, np.array([count, rows, cols, channels // block ** 2, block, block]),
                       False).output(0)


@dataclass(frozen=True)
class Raised:
    """Map number `map` of tensor `source` becomes map number `plane` of `output`, enlarged."""

    source: str
    map: int
    output: str
    plane: int


def small_map(values: np.ndarray, number: int) -> np.ndarray:
    """Return a view of map `number` of a source: (h, w), or cells (rows, cols, block, block)."""
    if values.ndim < 6:
        return values.reshape(-1, *values.shape[-2:])[number]
    return values[number // values.shape[3], :, :, number % values.shape[3]]


def count_maps(shape: Sequence[int]) -> int:
    """Return how many maps a source of this shape has."""
    return int(np.prod(shape[:-2] if len(shape) < 6 else (shape[0], shape[3])))


def raise_all(maps: Sequence[tuple[np.ndarray, np.ndarray]], pool: Executor, threads: int) -> None:
    """Enlarge small maps into others (H, W), half-pixel bilinear, in so many threads."""
    if not maps:
        return
    waiting = [pool.submit(raise_maps, maps[at::threads]) for at in range(1, threads)]
    raise_maps(maps[::threads])
    for future in waiting:
        future.result()


def raise_maps(maps: Sequence[tuple[np.ndarray, np.ndarray]]) -> None:
    """Enlarge small maps, as `small_map` gives them, into others (H, W), half-pixel bilinear."""
    for small, large in maps:
        cv2.resize(small if small.ndim == 2 else spread(small), large.shape[::-1], dst=large,
                   interpolation=cv2.INTER_LINEAR)


def spread(cells: np.ndarray) -> np.ndarray:
    """Return the map (rows * block, cols * block) of cells (rows, cols, block, block)."""
    rows, cols, block, _ = cells.shape
    # A row of sub-cells is moved as one value.
    whole = cells.view(f'V{block * cells.itemsize}')[..., 0].transpose(0, 2, 1)
    return np.ascontiguousarray(whole).view(cells.dtype).reshape(rows * block, cols * block)
