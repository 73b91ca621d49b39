"""
The warp of cached maps, rewritten for OpenVINO's CPU plugin.

Its GridSample gathers every channel of every cell on its own. Channels innermost, a cell is a sum
of four weighted rows, and that is what an embedding bag computes: the same numbers in a tenth of
the time.
"""

from __future__ import annotations

import numpy as np
import openvino as ov
from openvino import opset15 as ops


def rewrite_warps(model: ov.Model) -> list[ov.Output]:
    """
    Replace every bilinear GridSample with zero padding in `model`, in place.

    Returns the outputs (M, R, C, channels) of the new operations: what comes before them computes
    positions, and needs all of its bits.
    """
    made = []
    for node in model.get_ordered_ops():
        if node.get_type_name() == 'GridSample' and _is_plain(node):
            warped = _warp(node)
            made.append(warped)
            node.output(0).replace(ops.transpose(warped, np.array([0, 3, 1, 2])).output(0))
    model.validate_nodes_and_infer_types()
    return made


def _is_plain(node: ov.Node) -> bool:
    attributes = node.get_attributes()
    return ((attributes['mode'], attributes['padding_mode'], attributes['align_corners'])
            == ('bilinear', 'zeros', False) and not node.get_input_partial_shape(0).is_dynamic
            and not node.get_input_partial_shape(1).is_dynamic)


def _warp(node: ov.Node) -> ov.Output:
    """Return maps (M, C, H, W) sampled at a grid (M, h, w, 2) as (M, h, w, C)."""
    maps, grid = node.input_value(0), node.input_value(1)
    count, channels, height, width = maps.get_shape()
    _, rows, cols, _ = grid.get_shape()
    table = ops.reshape(ops.transpose(maps, np.array([0, 2, 3, 1])),
                        np.array([count * height * width, channels]), False)
    x, y = _coordinates(grid, count * rows * cols)
    # Taps: north-west, north-east, south-west, south-east, one a row: long rows vectorise.
    column, weight_x = _taps(x, width, (0, 1, 0, 1))
    row, weight_y = _taps(y, height, (0, 0, 1, 1))
    first = np.repeat(np.arange(count) * height * width, rows * cols)[None]
    index = ops.add(ops.add(ops.multiply(row, np.float32(width)), column),
                    first.astype(np.float32))              # below 2^24, so exact
    index, weight = (ops.transpose(values, np.array([1, 0])) for values in
                     (ops.convert(index, 'i32'), ops.multiply(weight_x, weight_y)))
    bag = ops.embedding_bag_packed(table, index, weight, 'sum')
    return ops.reshape(bag, np.array([count, rows, cols, channels]), False).output(0)


def _coordinates(grid: ov.Output, places: int) -> list[ov.Node]:
    """Return x and y, (1, places) each, of a grid (..., 2): what it was put together from."""
    node = grid.get_node()
    if node.get_type_name() == 'Convert' and node.get_element_type() == ov.Type.f32:
        node = node.input_value(0).get_node()
    if node.get_type_name() == 'Concat' and node.get_input_size() == 2:
        parts = [node.input_value(0), node.input_value(1)]
    else:
        parts = ops.split(grid, np.int64(3), 2).outputs()
    return [ops.reshape(part, np.array([1, places]), False) for part in parts]


def _taps(place: ov.Node, size: int, offsets: tuple[int, ...]) -> tuple[ov.Node, ov.Node]:
    """Return the cells (4, L) that places (1, L) in [-1, 1] read on one axis, and how much."""
    at = ops.add(ops.multiply(place, np.float32(size / 2)), np.float32((size - 1) / 2))
    cell = ops.add(ops.floor(at), np.array(offsets, dtype=np.float32)[:, None])
    weight = ops.subtract(np.float32(1), ops.abs(ops.subtract(at, cell)))
    held = ops.clamp(cell, 0.0, float(size - 1))
    inside = ops.convert(ops.equal(cell, held), 'f32')
    return held, ops.multiply(weight, inside)
