"""
The fold cut in two: what needs the older frames alone, and what needs the newest one's features.

Poses and ages of all frames are known before the newest picture is decoded, so the first part, all
but a fraction of the work, can run beside decoding and encoding.
"""

from __future__ import annotations

import numpy as np
import openvino as ov
from openvino import opset15 as ops

from wm_ros.runtime.openvino_split import Cut, constants_folded, for_rows, needed, split_at
from wm_ros.types import WINDOW_FRAMES

#: Inputs that have a row a frame and are read frame by frame; masks go to both parts as they are.
BY_FRAME = ('memory', 'now_from_frame', 'age_s')


def split_newest(model: ov.Model) -> tuple[ov.Model, ov.Model] | None:
    """
    Return the two parts of a fold of static shapes, None where it is not of the kind.

    It is where frames go their own way up to one tensor, of which the steps of a recurrence then
    take one frame each; what else is made on that way is made of the older frames. The first part
    takes the first 15 rows of the inputs `BY_FRAME`, the second the last one and, by name, what the
    first one gives. Outputs that need nothing of the newest frame are the first part's.
    """
    model = model.clone()
    tokens = next((port for node in model.get_ordered_ops() for port in node.outputs()
                   if len(port.get_shape()) > 2 and _steps(port)), None)
    if tokens is None:
        return None
    before, after = split_at(model, [Cut(tokens, tokens, 'tokens', 'tokens')])
    frames_own = before.get_results()[:1]
    single = ov.Model(frames_own, needed(before.get_parameters(), frames_own))
    older, newest = (for_rows(part, BY_FRAME, WINDOW_FRAMES, count)
                     for part, count in ((before, WINDOW_FRAMES - 1), (single, 1)))
    if older is None or newest is None:
        return None
    after = constants_folded(after)     # so that no shape has to go from part to part
    entry = next(node for node in after.get_parameters() if 'tokens' in node.output(0).get_names())
    early, late = (part.get_results()[0].input_value(0) for part in (older, newest))
    for step, gather in _steps(entry.output(0)).items():
        is_late = step == WINDOW_FRAMES - 1
        gather.input(0).replace_source_output(late if is_late else early)
        if is_late:
            gather.input(1).replace_source_output(
                ops.constant(np.zeros(gather.get_input_shape(1), np.int64)).output(0))
    masks = [node for node in after.get_parameters() if node is not entry]
    first = _sharing(older, masks)
    results, own = after.get_results(), older.get_results()[1:]
    carried = _carried(ov.Model(results, [*first, *newest.get_parameters(), *masks]), early, late)
    given = []
    entries = []
    for number, (port, readers) in enumerate(carried):
        entries.append(ops.parameter(port.get_shape(), port.get_element_type()))
        entries[-1].output(0).set_names({f'carried{number}'})
        for reader in readers:
            reader.replace_source_output(entries[-1].output(0))
        port.set_names({f'carried{number}'})
        given.append(ops.result(port))
    return (ov.Model([*given, *own], [*first, *masks]),
            ov.Model(results, [*newest.get_parameters(), *masks, *entries]))


def _sharing(model: ov.Model, parameters: list[ov.Node]) -> list[ov.Node]:
    """Let a model read these parameters for its own of the same names; return its others."""
    others = []
    for old in model.get_parameters():
        names = old.output(0).get_names()
        new = next((node for node in parameters if names & node.output(0).get_names()), None)
        if new is None:
            others.append(old)
            continue
        for target in old.output(0).get_target_inputs():
            target.replace_source_output(new.output(0))
    return others


def _steps(port: ov.Output) -> dict[int, ov.Node]:
    """Return what takes the frames of a tensor one by one, by frame; empty if not all are taken."""
    found = {}
    for target in port.get_target_inputs():
        node = target.get_node()
        index = node.input_value(1).get_node() if node.get_type_name() == 'Gather' else None
        if index is not None and index.get_type_name() == 'Constant' and index.get_data().size == 1:
            found[int(index.get_data().reshape(-1)[0])] = node
    return found if sorted(found) == list(range(WINDOW_FRAMES)) else {}


def _carried(model: ov.Model, early: ov.Output, late: ov.Output
             ) -> list[tuple[ov.Output, list[ov.Input]]]:
    """Return what goes over from nodes that follow `early` alone to those that follow `late`."""
    after_early, after_late = {early.get_node().get_name()}, {late.get_node().get_name()}
    carried: dict[tuple[str, int], tuple[ov.Output, list[ov.Input]]] = {}
    for node in model.get_ordered_ops():
        sources = [port.get_source_output() for port in node.inputs()]
        names = {source.get_node().get_name() for source in sources}
        if names & after_late:
            after_late.add(node.get_name())
            for port, source in zip(node.inputs(), sources, strict=True):
                name = source.get_node().get_name()
                if name in after_early and name not in after_late:
                    carried.setdefault((name, source.get_index()), (source, []))[1].append(port)
        elif names & after_early:
            after_early.add(node.get_name())
    return list(carried.values())
