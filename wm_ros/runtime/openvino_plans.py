"""The rollout as OpenVINO runs it: several plans, and parts of each, beside each other."""

from __future__ import annotations

import numpy as np
import openvino as ov

from wm_ros.runtime.artifact import Artifact
from wm_ros.runtime.openvino_graph import Graph, parts_of
from wm_ros.runtime.openvino_resize import Raised, count_maps
from wm_ros.runtime.openvino_rollout import Rollout, rows_of, split_rollout, split_states
from wm_ros.runtime.openvino_steps import Branch, Settings


class RolloutGraph(Graph):
    """A rollout in three stages: the dynamics, what is shared, and all that branches out of it."""

    def _assemble(self, settings: Settings, artifact: Artifact) -> None:
        model, raised = self._whole(settings, artifact, self.sizes['P'])
        single = model if self.sizes['P'] == 1 else self._whole(settings, artifact, 1)[0]
        cut = split_rollout(model, single, {one.source for one in raised})
        if cut is None:
            super()._assemble(settings, artifact)
            return
        self._last |= cut.maps
        full = for_agents(settings.precision)
        made = self._dynamics(cut, settings, artifact, full)
        compiled = self._compile(settings, cut.shared, full, self._threads)
        self._stages.append([Branch(self._step(compiled, {}, made))])
        self._stages.append(self._beside(cut, settings, full, made, raised))

    def _whole(self, settings: Settings, artifact: Artifact,
               plans: int) -> tuple[ov.Model, list[Raised]]:
        """Return the graph for so many plans without its last enlargements, and those."""
        model = self._read(settings.core, artifact, {**self.sizes, 'P': plans})
        parts, _, raised = parts_of(model, 'f32')
        return parts[0].model, raised

    def _dynamics(self, cut: Rollout, settings: Settings, artifact: Artifact,
                  full: str) -> dict[str, ov.Tensor]:
        """Add the dynamics of the plans; return the states that they give together."""
        plans = self.sizes['P']
        at_once = min(self._threads, plans)
        each = plans_a_run(plans, at_once)
        model = cut.dynamics if each == 1 else (
            split_states(self._whole(settings, artifact, each)[0])[0])
        compiled = self._compile(settings, model, full, self._threads // at_once, at_once)
        states = {name: np.zeros(shape, np.float32) for name, shape in cut.states.items()}
        self._states = states       # tensors in shared memory do not keep it alive
        stage = []
        for run in range(plans // each):
            rows = {item.name: slice(run * each, (run + 1) * each) for item in self.spec.inputs
                    if item.shape[0] == 'P'}
            step = self._step(compiled, rows, {})
            for port in compiled.outputs:
                name, shape = port.get_any_name(), tuple(port.get_shape())
                if run == 0 or shape != states[name].shape:     # not what all plans have in common
                    step.request.set_tensor(name, ov.Tensor(
                        rows_of(states[name], shape, run), shared_memory=True))
            stage.append(Branch(step))
        self._stages.append(stage)
        return {name: ov.Tensor(values, shared_memory=True) for name, values in states.items()}

    def _beside(self, cut: Rollout, settings: Settings, full: str, made: dict[str, ov.Tensor],
                raised: list[Raised]) -> list[Branch]:
        """Return what runs at last: agents, dense maps by a few steps of a plan, maps of now."""
        ahead = sum(one.source == cut.dense for one in raised)
        maps = count_maps(cut.ahead.output(cut.dense).shape)    # of one run
        runs = ahead // maps
        at_once = min(self._threads, runs + 2)
        threads = self._threads // at_once
        agents = self._step(self._compile(settings, cut.agents, full, threads), {}, made)
        now = self._step(self._compile(settings, cut.now, full, threads), {}, made)
        compiled = self._compile(settings, cut.ahead, settings.precision, threads,
                                 min(at_once, runs))
        branches = [Branch(agents)]         # the longest first
        for run in range(runs):
            own = {name: ov.Tensor(rows_of(made[name].data, tuple(port.get_shape()), run),
                                   shared_memory=True)
                   for port in compiled.inputs for name in port.get_names()}
            step = self._step(compiled, {}, own)
            branches.append(Branch(step, [
                self._maps(own, one, one.map % maps) for one in raised
                if one.source == cut.dense and one.map // maps == run]))
        return [*branches, Branch(now, [self._maps(made, one, one.map) for one in raised
                                        if one.source != cut.dense])]


def plans_a_run(plans: int, at_once: int) -> int:
    """
    Return for how many plans the dynamics run together: as many as each thread has.

    So no thread waits for another, and each reads its weights once for all of them.
    """
    return plans // at_once if plans % at_once == 0 else 1


def for_agents(precision: str) -> str:
    """
    Return the precision of states and agents in a rollout whose dense maps run in `precision`.

    bf16's 8 bits move scores enough that of those near the threshold another is published; the
    parity gate did not pass so.
    """
    return 'f32' if precision == 'bf16' else precision
