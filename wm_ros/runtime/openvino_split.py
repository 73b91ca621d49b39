"""Cutting a graph into parts that run one after the other, each with its own settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import openvino as ov
from openvino import opset15 as ops


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


def needed(parameters: list[ov.Node], results: list[ov.Node]) -> list[ov.Node]:
    """Return the parameters that these results depend on."""
    reached = _ancestors(results)
    return [item for item in parameters if item.get_name() in reached]


def _ancestors(nodes: list[ov.Node]) -> set[str]:
    """Return the names of these nodes and of all that they depend on."""
    seen: set[str] = set()
    waiting = list(nodes)
    while waiting:
        node = waiting.pop()
        if node.get_name() not in seen:
            seen.add(node.get_name())
            waiting += [port.get_source_output().get_node() for port in node.inputs()]
    return seen
