"""Cutting a graph into parts that run one after the other, each with its own settings."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import openvino as ov
from openvino import opset15 as ops
from openvino.passes import ConstantFolding, Manager


@dataclass(frozen=True)
class Cut:
    """
    Where a graph is cut: the first part gives `given`, the second takes what stands in for `taken`.

    They are tensors `gives` and `takes` by name; for a plain cut both are the same.
    """

    given: ov.Output
    taken: ov.Output
    gives: str
    takes: str


def split_at(model: ov.Model, cuts: Sequence[Cut]) -> tuple[ov.Model, ov.Model]:
    """Return what comes before the cuts, with the results that need none, and what comes after."""
    entries, gifts = [], []
    for cut in cuts:
        entry = ops.parameter(cut.taken.get_shape(), cut.taken.get_element_type())
        entry.output(0).set_names({cut.takes})
        for target in cut.taken.get_target_inputs():
            target.replace_source_output(entry.output(0))
        cut.given.set_names({cut.gives})
        gifts.append(ops.result(cut.given))
        entries.append(entry)
    names = {entry.get_name() for entry in entries}
    early, late = [], []
    for result in model.get_results():
        (late if names & _ancestors([result]) else early).append(result)
    first, second = [*gifts, *early], late
    return (ov.Model(first, needed(model.get_parameters(), first)),
            ov.Model(second, needed([*model.get_parameters(), *entries], second)))


def split_shared(model: ov.Model, branches: Sequence[Sequence[ov.Node]], early: Iterable[ov.Node]
                 ) -> tuple[ov.Model, list[ov.Model], set[str]]:
    """
    Cut a graph before it branches out to these groups of results.

    Returns what more than one of them depends on, or nodes that are to be `early`; what else each
    group depends on; and which of the tensors that go from the one to the others convolutions read.
    Tensors are called by the names of what makes them.
    """
    shared = _ancestors(early).union(
        *(one & other for one, other in combinations(map(_ancestors, branches), 2)))
    moving = _follows(model.get_parameters())
    gifts, entries, maps = [], [], set()
    for node in model.get_ordered_ops():
        if node.get_name() not in shared & moving or node.get_type_name() == 'Parameter':
            continue
        for port in node.outputs():
            readers = [item for item in port.get_target_inputs()
                       if item.get_node().get_name() not in shared]
            if not readers:
                continue
            name = f'{node.get_friendly_name()}:{port.get_index()}'
            entries.append(ops.parameter(port.get_shape(), port.get_element_type()))
            entries[-1].output(0).set_names({name})
            for reader in readers:
                reader.replace_source_output(entries[-1].output(0))
            port.set_names({name})
            gifts.append(ops.result(port))
            if any(item.get_node().get_type_name() == 'Convolution' for item in readers):
                maps.add(name)
    given = [*model.get_parameters(), *entries]
    return (ov.Model(gifts, needed(model.get_parameters(), gifts)),
            [ov.Model(list(results), needed(given, results)).clone() for results in branches], maps)


def for_rows(model: ov.Model, names: Iterable[str], rows: int, count: int) -> ov.Model | None:
    """
    Return a copy of a model for `count` rows of the inputs `names` that have `rows` of them.

    None where they do not go their own way through it.
    """
    model = model.clone()
    for node in model.get_ordered_ops():
        target = node.input_value(1).get_node() if node.get_type_name() == 'Reshape' else None
        if target is None or target.get_type_name() != 'Constant':
            continue
        shape = list(target.get_data())
        if rows in shape[:2]:
            shape[shape.index(rows)] = -1
            node.input(1).replace_source_output(ops.constant(np.array(shape)).output(0))
    names = set(names)
    try:
        model.reshape({port.get_any_name(): [count, *port.get_shape()[1:]]
                       for port in model.inputs if port.get_names() & names})
    except RuntimeError:
        return None
    return model


def constants_folded(model: ov.Model) -> ov.Model:
    """Return a copy of a model in which what depends on no input is worked out."""
    model = model.clone()
    folding = Manager()
    folding.register_pass(ConstantFolding())
    folding.run_passes(model)
    return model


def needed(parameters: Iterable[ov.Node], results: Iterable[ov.Node]) -> list[ov.Node]:
    """Return the parameters that these results depend on."""
    reached = _ancestors(results)
    return [item for item in parameters if item.get_name() in reached]


def _follows(nodes: Iterable[ov.Node]) -> set[str]:
    """Return the names of these nodes and of all that depend on them."""
    return _reached(nodes, lambda node: [item.get_node() for port in node.outputs()
                                         for item in port.get_target_inputs()])


def _ancestors(nodes: Iterable[ov.Node]) -> set[str]:
    """Return the names of these nodes and of all that they depend on."""
    return _reached(nodes, lambda node: [port.get_source_output().get_node()
                                         for port in node.inputs()])


def _reached(nodes: Iterable[ov.Node], beside: Callable[[ov.Node], list[ov.Node]]) -> set[str]:
    """Return the names of these nodes and of all that is reached from them."""
    seen: set[str] = set()
    waiting = list(nodes)
    while waiting:
        node = waiting.pop()
        if node.get_name() not in seen:
            seen.add(node.get_name())
            waiting += beside(node)
    return seen
