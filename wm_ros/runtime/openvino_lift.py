"""
The lift of image features, and what agents read around them, rewritten for OpenVINO's CPU plugin.

The file says it as four gathers that are multiplied and added; an embedding bag reads the four rows
of a place and writes their weighted sum once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import openvino as ov
from openvino import opset15 as ops


@dataclass(frozen=True)
class _Tap:
    """One of the weighted rows that a sum is made of: its column in the tables."""

    table: ov.Output        # (rows, channels)
    index: ov.Output        # (..., taps), whose column `column` says which rows
    weight: ov.Output       # (..., taps)
    column: int


def rewrite_lifts(model: ov.Model) -> int:
    """
    Replace every sum of weighted rows of one table in `model`, in place; return how many.

    That is sum_k table[index[:, k]] * weight[:, k] over all columns of the two tables.
    """
    found = 0
    for node in reversed(model.get_ordered_ops()):      # the last sum of a chain first
        taps = _taps(node) if node.get_type_name() == 'Add' else None
        if taps is None or len(taps) < 2:
            continue
        first, count = taps[0], len(taps)
        same = all((tap.table, tap.index, tap.weight) == (first.table, first.index, first.weight)
                   for tap in taps)
        widths = {list(port.get_shape())[-1] for port in (first.index, first.weight)}
        if not same or widths != {count} or [tap.column for tap in taps] != list(range(count)):
            continue
        index, weight = (ops.reshape(port, np.array([-1, count]), False)
                         for port in (first.index, first.weight))
        bag = ops.embedding_bag_packed(first.table, ops.convert(index, 'i32'), weight, 'sum')
        node.output(0).replace(bag.output(0))
        found += 1
    model.validate_nodes_and_infer_types()
    return found


def _taps(node: ov.Node) -> list[_Tap] | None:
    """Return what a sum is made of, in order, None where it is made of anything else."""
    if node.get_type_name() == 'Add':
        left, right = (_taps(port.get_node()) for port in node.input_values())
        return None if left is None or right is None else left + right
    tap = _tap(node) if node.get_type_name() == 'Multiply' else None
    return None if tap is None else [tap]


def _tap(product: ov.Node) -> _Tap | None:
    rows, weight = product.input_values()
    gather = rows.get_node()
    if (gather.get_type_name() != 'Gather' or _constant(gather.input_value(2)) != 0
            or len(gather.get_input_shape(0)) != 2):
        return None
    index, weight = _column(gather.input_value(1)), _column(weight)
    if index is None or weight is None or index[1] != weight[1]:
        return None
    return _Tap(gather.input_value(0), index[0], weight[0], index[1])


def _column(port: ov.Output) -> tuple[ov.Output, int] | None:
    """Return the table and the number of the column that was taken out of it, None for neither."""
    node = port.get_node()
    while node.get_type_name() in ('Reshape', 'Unsqueeze', 'Squeeze'):
        node = node.input_value(0).get_node()
    if node.get_type_name() != 'Gather':
        return None
    column, axis = _constant(node.input_value(1)), _constant(node.input_value(2))
    last = len(node.get_input_shape(0)) - 1
    return (node.input_value(0), column) if column is not None and axis in (last, -1) else None


def _constant(port: ov.Output) -> int | None:
    """Return the whole number that a constant holds, None for anything else."""
    node = port.get_node()
    if node.get_type_name() != 'Constant' or node.get_data().size != 1:
        return None
    return int(node.get_data().reshape(-1)[0])
