"""
Maps that go in and out of a graph with channels innermost, as OpenVINO's kernels keep them.

The contract's maps are (..., C, R, R). Handed on in that order of memory, each would be reordered
once where it is made and once where it is read.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import openvino as ov
from openvino import opset15 as ops

_TO_LAST, _TO_FIRST = np.array([0, 2, 3, 1]), np.array([0, 3, 1, 2])


def hold_channels_last(model: ov.Model, names: Iterable[str]) -> ov.Model:
    """Return `model` with those of its inputs and outputs that are named as (..., R, R, C)."""
    names = set(names)
    parameters = [_turned_input(node) if names & node.output(0).get_names() else node
                  for node in model.get_parameters()]
    for node in model.get_ordered_ops():
        if node.get_type_name() == 'Add':
            _add_before_turn(node)
    for node in model.get_ordered_ops():
        if _turns(node, _TO_FIRST):
            _leave_out_returns(node)
    results = [_turned_output(node) if names & node.input_value(0).get_names() else node
               for node in model.get_results()]
    return ov.Model(results, parameters)


def channels_last(maps: np.ndarray) -> np.ndarray:
    """Return a view (..., R, R, C) of maps (..., C, R, R)."""
    return np.moveaxis(maps, -3, -1)


def channels_first(maps: np.ndarray) -> np.ndarray:
    """Return a view (..., C, R, R) of maps (..., R, R, C)."""
    return np.moveaxis(maps, -1, -3)


def zeros_channels_last(maps: np.ndarray) -> np.ndarray:
    """Return zeros like maps (..., C, R, R), with the channels innermost in memory."""
    turned = channels_last(maps)
    return channels_first(np.zeros(turned.shape, turned.dtype))


def _turned_input(old: ov.Node) -> ov.Node:
    """Put in a parameter's place one with channels innermost, and the way back behind it."""
    shape, named = list(old.get_output_shape(0)), old.output(0).get_names()
    channels, rows, cols = shape[-3:]
    new = ops.parameter([*shape[:-3], rows, cols, channels], old.get_element_type())
    # Kernels take a transposition as a mere order of memory where it has four axes.
    batch = ops.reshape(new, np.array([-1, rows, cols, channels]), False)
    four = ops.transpose(batch, _TO_FIRST)
    for target in old.output(0).get_target_inputs():
        reader = target.get_node()
        if shape == list(four.get_output_shape(0)):
            target.replace_source_output(four.output(0))
        elif (reader.get_type_name() in ('Unsqueeze', 'Reshape')
                and list(reader.get_output_shape(0)) == list(four.get_output_shape(0))):
            reader.output(0).replace(four.output(0))
        else:
            target.replace_source_output(
                ops.reshape(four, np.array(shape), False).output(0))
    for node in (four, batch):
        node.output(0).set_names(set())
    new.output(0).set_names(named)
    return new


def _add_before_turn(node: ov.Node) -> None:
    """Add two maps as they lie and turn the sum, where both were turned before."""
    turns = [port.get_node() for port in node.input_values()]
    if all(_turns(turn, _TO_FIRST) for turn in turns):
        total = ops.add(*(turn.input_value(0) for turn in turns))
        node.output(0).replace(ops.transpose(total, _TO_FIRST).output(0))


def _leave_out_returns(turn: ov.Node) -> None:
    """Give those who turn maps back what they were before."""
    for target in turn.output(0).get_target_inputs():
        if _turns(target.get_node(), _TO_LAST):
            target.get_node().output(0).replace(turn.input_value(0))


def _turns(node: ov.Node, order: np.ndarray) -> bool:
    """Tell whether a node is a transposition in this order."""
    return (node.get_type_name() == 'Transpose'
            and list(node.input_value(1).get_node().get_data()) == list(order))


def _turned_output(old: ov.Node) -> ov.Node:
    """Return a result with channels innermost in a result's place."""
    made = old.input_value(0)
    shape, named = list(made.get_shape()), made.get_names()
    channels, rows, cols = shape[-3:]
    made.set_names(set())
    source = made.get_node()
    before = source.input_value(0) if source.get_input_size() else made
    if list(before.get_shape()) == [1, *shape]:         # what only takes the batch away
        made = before
    four = ops.transpose(ops.reshape(made, np.array([-1, channels, rows, cols]), False), _TO_LAST)
    turned = ops.reshape(four, np.array([*shape[:-3], rows, cols, channels]), False).output(0)
    turned.set_names(named)
    return ops.result(turned)
