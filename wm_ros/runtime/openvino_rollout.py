"""
The rollout cut into parts that run side by side, as far as they can.

First come the states: the dynamics, some plans at a time. Then what more than one of the others
reads, in all threads: the state of now spread over the ground and, the larger share, the map that
agents are read from. After it they part: agents, a long row of operations too small for two
threads; what is there now; and the dense maps to come. Those are decoded a few steps of one plan at
a time. It costs no more than all six, and runs so short let all threads end at about the same time.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import openvino as ov
from openvino import opset15 as ops

from wm_ros.runtime.openvino_split import Cut, constants_folded, for_rows, split_at, split_shared
from wm_ros.types import HORIZON_STEPS

#: Steps of a plan whose dense maps are decoded at a time.
STEPS_AT_A_TIME = 2
#: What takes a part of the states and computes nothing.
_TAKES = ('Slice', 'StridedSlice', 'Gather', 'Reshape', 'Squeeze', 'Unsqueeze')


@dataclass(frozen=True)
class Rollout:
    """
    The parts of a rollout, and what goes from one to the other.

    `dynamics` gives the states of one plan. They are one tensor for each use, cut out before:
    handed on whole, they would be put in the order of memory of the maps that they become. `states`
    are their shapes for all plans. `shared` gives what the others have in common, among it `maps`
    that convolutions read. `agents` and `now` are of all plans, `ahead` makes the maps `dense` of a
    few steps of one.
    """

    dynamics: ov.Model
    shared: ov.Model
    agents: ov.Model
    now: ov.Model
    ahead: ov.Model
    states: dict[str, tuple[int, ...]]
    maps: set[str]
    dense: str


def split_rollout(model: ov.Model, single: ov.Model, small: set[str]) -> Rollout | None:
    """
    Cut a rollout of static shapes whose last enlargements are taken out; None for another graph.

    `single` is the same for one plan. Both give `small` maps by the same names, and both are spent.
    """
    dense = [name for name in small
             if list(single.output(name).get_shape())[:1] == [HORIZON_STEPS]]
    whole = split_states(model) if len(dense) == 1 else None
    if whole is None:
        return None
    alone = (whole[0], whole[1].clone()) if single is model else split_states(single)
    states = {port.get_any_name(): tuple(port.get_shape()) for port in whole[1].inputs
              if port.get_any_name() in {item.get_any_name() for item in alone[0].outputs}}
    by_step = _by_step(alone[1])
    shared, (agents, now, _), maps = _branches(whole[1], dense[0], small, by_step)
    _, (_, _, ahead), _ = _branches(alone[1], dense[0], small, by_step)
    few = for_rows(constants_folded(ahead), _names_of_rows(ahead), HORIZON_STEPS, STEPS_AT_A_TIME)
    return Rollout(alone[0], shared, agents, now, few or ahead, states, maps, dense[0])


def split_states(model: ov.Model) -> tuple[ov.Model, ov.Model] | None:
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


def rows_of(values: np.ndarray, shape: tuple[int, ...], number: int) -> np.ndarray:
    """Return rows like `shape` of values, those that come after so many like it, from the start."""
    if values.shape == shape:
        return values
    first = number * shape[0] % len(values)
    return values[first:first + shape[0]]


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


def _branches(model: ov.Model, dense: str, small: set[str], early: set[str]
              ) -> tuple[ov.Model, list[ov.Model], set[str]]:
    """Cut what follows the states: what is shared, and agents, maps of now and maps `dense`."""
    agents, now, ahead = [], [], []
    for result in model.get_results():
        names = result.input_value(0).get_names()
        (ahead if dense in names else now if names & small else agents).append(result)
    return split_shared(
        model, [agents, now, ahead],
        [node for node in model.get_ordered_ops() if node.get_friendly_name() in early])


def _by_step(model: ov.Model) -> set[str]:
    """Return the names of what takes rows of steps from what has none, for one plan."""
    moving = {node.get_name() for node in model.get_parameters()}
    stepwise, found = set(), set()
    for node in model.get_ordered_ops():
        sources = {port.get_source_output().get_node().get_name() for port in node.inputs()}
        if sources & moving:
            moving.add(node.get_name())
        if sources & stepwise:
            stepwise.add(node.get_name())
        elif node.get_name() in moving and list(node.get_output_shape(0))[:1] == [HORIZON_STEPS]:
            stepwise.add(node.get_name())
            if node.get_type_name() != 'Parameter':
                found.add(node.get_friendly_name())
    return found


def _names_of_rows(model: ov.Model) -> list[str]:
    """Return the inputs that have a row a step."""
    return [port.get_any_name() for port in model.inputs
            if list(port.get_shape())[:1] == [HORIZON_STEPS]]
