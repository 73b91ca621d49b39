"""
The rollout cut in three: the dynamics, then the dense maps plan by plan beside all the rest.

Agents are a long row of operations too small for two threads, dense maps a short one of large ones:
side by side, a thread each, neither waits for the other. The maps of one plan stay in the cache on
their way; those of eight together would go through memory after every layer.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import openvino as ov
from openvino import opset15 as ops

from wm_ros.runtime.openvino_split import Cut, needed, split_at
from wm_ros.types import HORIZON_STEPS

#: What takes a part of the states and computes nothing.
_TAKES = ('Slice', 'StridedSlice', 'Gather', 'Reshape', 'Squeeze', 'Unsqueeze')


@dataclass(frozen=True)
class Rollout:
    """
    What gives the states, what makes the maps `dense` of one plan from them, and the rest.

    The states are one tensor for each use, cut out before: handed on whole, they would be put in
    the order of memory of the maps that they become.
    """

    dynamics: ov.Model
    decoder: ov.Model
    rest: ov.Model
    dense: str


def split_rollout(model: ov.Model, single: ov.Model) -> Rollout | None:
    """
    Cut a rollout of static shapes whose last enlargements are taken out; None for another graph.

    `single` is the same for one plan. Both give small maps by the same names, and both are spent.
    """
    dense = [port.get_any_name() for port in single.outputs
             if list(port.get_shape())[:1] == [HORIZON_STEPS]]
    cut = _cut(model) if len(dense) == 1 else None
    if cut is None:
        return None
    alone = cut[1].clone() if single is model else _cut(single)[1]
    return Rollout(cut[0], _giving(alone, dense[0], True), _giving(cut[1], dense[0], False),
                   dense[0])


def of_plan(values: np.ndarray, shape: tuple[int, ...], plan: int) -> np.ndarray:
    """Return the rows of one plan in values of all, or all where they are of no plan."""
    return values if values.shape == shape else values[plan * shape[0]:(plan + 1) * shape[0]]


def _cut(model: ov.Model) -> tuple[ov.Model, ov.Model] | None:
    """Cut a graph before the states (P, 7, 256, dim) and after them; None without any."""
    for node in model.get_ordered_ops():
        if node.get_type_name() == 'ShapeOf':       # no use of the values
            shape = np.array(node.get_input_shape(0), node.get_element_type().to_dtype())
            node.output(0).replace(ops.constant(shape).output(0))
    for node in model.get_ordered_ops():
        if node.get_type_name() == 'Concat':
            shape = list(node.get_output_shape(0))
            if len(shape) == 4 and shape[1] == HORIZON_STEPS + 1:
                return split_at(model, [Cut(port, port, name, name) for port in
                                        _used(node.output(0)) for name in [_name(port)]])
    return None


def _used(port: ov.Output) -> list[ov.Output]:
    """Return what is computed with of a tensor: itself, or what is taken out of it."""
    readers = sorted(port.get_target_inputs(), key=lambda item: item.get_node().get_friendly_name())
    if not all(item.get_node().get_type_name() in _TAKES and item.get_index() == 0
               for item in readers):
        return [port]
    return [used for item in readers for used in _used(item.get_node().output(0))]


def _name(port: ov.Output) -> str:
    """Return the name of a part of the states, the same for any number of plans."""
    return f'states of {port.get_node().get_friendly_name()}'


def _giving(model: ov.Model, name: str, alone: bool) -> ov.Model:
    """Return the part of a model that gives the result of this name, or what gives all others."""
    results = [node for node in model.get_results()
               if (name in node.input_value(0).get_names()) == alone]
    return ov.Model(results, needed(model.get_parameters(), results))
