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

_PLAIN = {'Add': ops.add, 'Subtract': ops.subtract, 'Multiply': ops.multiply,
          'Divide': ops.divide}


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
            _read_directly(node.output(0), warped)
            node.output(0).replace(ops.transpose(warped, np.array([0, 3, 1, 2])).output(0))
    model.validate_nodes_and_infer_types()
    return made


def _read_directly(port: ov.Output, warped: ov.Output) -> None:
    """Give those who take a map (M, C, h, w) apart, or turn it round, what is there already."""
    for reader in _readers(port):
        for again in _readers(reader.output(0)) if reader.get_type_name() == 'Reshape' else ():
            if again.get_type_name() == 'Reshape' and again.get_output_shape(0) == port.get_shape():
                again.output(0).replace(port)
    for reader in _readers(port):
        if (reader.get_type_name() == 'Transpose'
                and list(reader.input_value(1).get_node().get_data()) == [0, 2, 3, 1]):
            reader.output(0).replace(warped)


def _readers(port: ov.Output) -> list[ov.Node]:
    return [target.get_node() for target in port.get_target_inputs()]


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
    # Taps: north-west, north-east, south-west, south-east, beside each other in memory as the bag
    # wants them. Turning them round afterwards would take as long as all the rest of it.
    x, y = (_four_times(part, (count, rows, cols)) for part in _coordinates(grid))
    column, weight_x = _taps(x, width, np.tile(np.float32([0, 1, 0, 1]), rows * cols))
    row, weight_y = _taps(y, height, np.tile(np.float32([0, 0, 1, 1]), rows * cols))
    first = np.arange(count, dtype=np.float32)[:, None] * height * width
    index = ops.add(ops.add(ops.multiply(row, np.float32(width)), column), first)
    index, weight = (ops.reshape(values, np.array([count * rows * cols, 4]), False) for values in
                     (ops.convert(index, 'i32'),            # below 2^24, so exact
                      ops.multiply(weight_x, weight_y)))
    bag = ops.embedding_bag_packed(table, index, weight, 'sum')
    return ops.reshape(bag, np.array([count, rows, cols, channels]), False).output(0)


def _coordinates(grid: ov.Output) -> list[ov.Output]:
    """Return x and y, (M, h, w, 1) each, of a grid (M, h, w, 2): what it was put together from."""
    node = grid.get_node()
    if node.get_type_name() == 'Convert' and node.get_element_type() == ov.Type.f32:
        node = node.input_value(0).get_node()
    if node.get_type_name() == 'Concat' and node.get_input_size() == 2:
        return list(node.input_values())
    return ops.split(grid, np.int64(3), 2).outputs()


def _four_times(places: ov.Output, shape: tuple[int, int, int]) -> ov.Output:
    """Return places (M, h, w, 1) as (M, 4 * h * w), each four times in a row."""
    count, rows, cols = shape
    node = places.get_node()
    while node.get_type_name() in ('Unsqueeze', 'Reshape'):
        node = node.input_value(0).get_node()
    if list(node.get_output_shape(0)) == list(shape):
        wide = _widened(node.output(0), (rows, cols))
        if wide is not None:
            return wide
    wide = ops.broadcast(ops.reshape(places, np.array([count, rows * cols, 1]), False),
                         np.array([count, rows * cols, 4]))
    return ops.reshape(wide, np.array([count, 4 * rows * cols]), False).output(0)


def _widened(port: ov.Output, size: tuple[int, int]) -> ov.Output | None:
    """
    Return a sum of products (M, h, w) as (M, 4 * h * w), None where it is no such.

    Constants alone may vary from place to place: they are made wide, and all else, a number a map,
    is computed with them again.
    """
    node, shape = port.get_node(), list(port.get_shape())
    if node.get_type_name() == 'Constant' and len(shape) < 4:
        values = np.broadcast_to(node.get_data(), (*shape[:-2], *size))
        return ops.constant(np.repeat(values.reshape(-1, size[0] * size[1]), 4, 1)).output(0)
    if shape[1:] == [1, 1]:
        return ops.reshape(port, np.array([-1, 1]), False).output(0)
    if node.get_type_name() not in _PLAIN:
        return None
    parts = [_widened(part, size) for part in node.input_values()]
    if any(part is None for part in parts):
        return None
    return _PLAIN[node.get_type_name()](*parts).output(0)


def _taps(place: ov.Node, size: int, offsets: np.ndarray) -> tuple[ov.Node, ov.Node]:
    """Return the cells that places in [-1, 1] read on one axis, and how much, offset by offset."""
    at = ops.add(ops.multiply(place, np.float32(size / 2)), np.float32((size - 1) / 2))
    cell = ops.add(ops.floor(at), offsets)
    weight = ops.subtract(np.float32(1), ops.abs(ops.subtract(at, cell)))
    held = ops.clamp(cell, 0.0, float(size - 1))
    inside = ops.convert(ops.equal(cell, held), 'f32')
    return held, ops.multiply(weight, inside)
