"""
Maxima around every cell of one large map, as OpenVINO's pooling wants them.

Its kernels take many channels at once, and of a map with one they compute sixteen. Rows of the map
are handed to it as channels for maxima along a row, columns for those along a column: the same
numbers in a quarter of the time.
"""

from __future__ import annotations

import numpy as np
import openvino as ov
from openvino import opset15 as ops

_TO_FIRST, _TO_LAST = np.array([0, 3, 1, 2]), np.array([0, 2, 3, 1])


def rewrite_pools(model: ov.Model) -> int:
    """Replace maxima over windows of maps (M, 1, H, W), in place; return how many there were."""
    found = 0
    for node in model.get_ordered_ops():
        if node.get_type_name() == 'MaxPool' and _is_plain(node):
            node.output(0).replace(_by_axis(node))
            found += 1
    return found


def _is_plain(node: ov.Node) -> bool:
    """Tell whether a pooling gives a maximum for every cell of maps of one channel."""
    attributes = node.get_attributes()
    shape = node.get_input_partial_shape(0)
    margin = [size // 2 for size in attributes['kernel']]
    return (shape.is_static and len(shape) == 4 and shape[1] == 1
            and set(attributes['strides']) | set(attributes['dilations']) == {1}
            and attributes['auto_pad'] == 'explicit'
            and all(size % 2 for size in attributes['kernel'])
            and list(attributes['pads_begin']) == list(attributes['pads_end']) == margin
            and not node.output(1).get_target_inputs())


def _by_axis(node: ov.Node) -> ov.Output:
    """Return the maxima along rows, and along columns of those."""
    maps, (down, along) = node.input_value(0), node.get_attributes()['kernel']
    count, _, rows, cols = maps.get_shape()
    if along > 1:
        by_row = ops.reshape(maps, np.array([count, rows, 1, cols]), False)
        maps = ops.reshape(_pool(by_row, along), np.array([count, 1, rows, cols]),
                           False).output(0)
    if down > 1:
        maps = ops.transpose(_pool(ops.transpose(maps, _TO_FIRST), down), _TO_LAST).output(0)
    return maps


def _pool(maps: ov.Node, size: int) -> ov.Output:
    """Return the maxima of `size` cells around each on the last axis."""
    margin = [0, size // 2]
    return ops.max_pool(maps, [1, 1], [1, 1], margin, margin, [1, size]).output(0)
