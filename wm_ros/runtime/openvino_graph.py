"""One graph of the artifact as compiled models that run one after the other or side by side."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import openvino as ov

from wm_ros.runtime.artifact import Artifact
from wm_ros.runtime.backend import BackendError, LoadedGraph
from wm_ros.runtime.openvino_attention import rewrite_keys
from wm_ros.runtime.openvino_fold import BY_FRAME, split_newest
from wm_ros.runtime.openvino_layout import (
    channels_last,
    hold_channels_last,
    zeros_channels_last,
)
from wm_ros.runtime.openvino_lift import rewrite_lifts
from wm_ros.runtime.openvino_pool import rewrite_pools
from wm_ros.runtime.openvino_resize import Raised, raise_all, small_map, take_resizes
from wm_ros.runtime.openvino_split import Cut, split_at
from wm_ros.runtime.openvino_steps import (
    Branch,
    Part,
    Settings,
    Step,
    executed_kernels,
    run_beside,
)
from wm_ros.runtime.openvino_warp import rewrite_warps
from wm_ros.types import WINDOW_FRAMES

_ALL = slice(None)
_OLDER, _NEWEST = slice(WINDOW_FRAMES - 1), slice(WINDOW_FRAMES - 1, None)


class Graph(LoadedGraph):
    """
    A graph as stages in a row, and maps that OpenCV enlarges at the end.

    A stage is one step or several side by side, each a compiled model. The first `_ahead` stages
    need nothing of the newest frame and can be begun before the rest.
    """

    def __init__(self, settings: Settings, graph: str, artifact: Artifact,
                 sizes: Mapping[str, int], held_last: frozenset[str]) -> None:
        super().__init__(graph, artifact.specs[graph], sizes)
        names = {item.name for item in (*self.spec.inputs, *self.spec.outputs)}
        self._last = held_last & names
        for name in self._last & set(self.outputs):
            self.outputs[name] = zeros_channels_last(self.outputs[name])
        self._threads = settings.threads
        self.kernels = Counter()
        self._stages: list[list[Branch]] = []
        self._ahead = 0
        self._early: list[tuple[np.ndarray, np.ndarray]] = []   # made ahead, and their outputs
        self._raised: list[tuple[np.ndarray, np.ndarray]] = []
        self._assemble(settings, artifact)
        self._helpers = ThreadPoolExecutor(max(1, settings.threads - 1), 'wm_ros_beside')
        self._aside = ThreadPoolExecutor(1, 'wm_ros_begin') if settings.beside else None
        self._given: dict[str, np.ndarray] = {}
        self._begun: tuple[dict[str, np.ndarray], Future[None]] | None = None

    def _assemble(self, settings: Settings, artifact: Artifact) -> None:
        """Compile the parts of the graph, a stage each."""
        model = self._read(settings.core, artifact, self.sizes)
        parts, self._ahead, raised = parts_of(model, settings.precision)
        made: dict[str, ov.Tensor] = {}
        for number, part in enumerate(parts):
            ahead = number < self._ahead and settings.beside > 0
            compiled = self._compile(settings, part.model, part.precision,
                                     settings.beside if ahead else settings.threads)
            by_frame = dict.fromkeys(BY_FRAME, part.frames)
            self._stages.append([Branch(self._step(compiled, by_frame, made, ahead))])
        self._raised = [self._maps(made, one, one.map) for one in raised]

    def _read(self, core: ov.Core, artifact: Artifact, sizes: Mapping[str, int]) -> ov.Model:
        """Return the graph as it is in the file, for these sizes."""
        model = core.read_model(artifact.graph(self.name))
        self.check_names([port.get_any_name() for port in model.inputs],
                         [port.get_any_name() for port in model.outputs])
        model.reshape({item.name: ov.PartialShape(list(item.resolve(**sizes)))
                       for item in self.spec.inputs})
        return model

    def _compile(self, settings: Settings, model: ov.Model, precision: str, threads: int,
                 at_once: int = 1) -> ov.CompiledModel:
        """Compile a part for so many runs at once, each in so many threads."""
        compiled = settings.compile(hold_channels_last(model, self._last), precision, threads,
                                    at_once)
        self.kernels += executed_kernels(compiled)
        return compiled

    def _step(self, compiled: ov.CompiledModel, rows: Mapping[str, slice],
              made: dict[str, ov.Tensor], ahead: bool = False) -> Step:
        """
        Return a step that takes what those before it have `made`, and `rows` of the graph's inputs.

        Outputs of one that runs `ahead` are handed over later: until then those of the last window
        may still be read.
        """
        request = compiled.create_infer_request()
        wanted = {item.name for item in self.spec.inputs}
        takes = {}
        for port in compiled.inputs:
            name = next(name for name in port.get_names() if name in wanted or name in made)
            if name in made:
                request.set_tensor(name, made[name])
            else:
                takes[name] = rows.get(name, _ALL)
        for name in (name for port in compiled.outputs for name in port.get_names()):
            if name in self.outputs and not ahead:
                self._give(request, name, self.outputs[name])
            made[name] = request.get_tensor(name)
            if name in self.outputs and ahead:
                output = self.outputs[name]
                self._early.append((made[name].data,
                                    channels_last(output) if name in self._last else output))
        return Step(request, takes)

    def _maps(self, made: Mapping[str, ov.Tensor], one: Raised,
              number: int) -> tuple[np.ndarray, np.ndarray]:
        """Return a small map and the map of an output that it is enlarged into."""
        return (small_map(made[one.source].data, number),
                small_map(self.outputs[one.output], one.plane))

    def _give(self, request: ov.InferRequest, name: str, array: np.ndarray) -> None:
        """Have an output written into its array."""
        array = channels_last(array) if name in self._last else array
        shape = tuple(request.get_tensor(name).shape)
        if shape != array.shape:
            raise BackendError(f'{name}: {shape}, want {array.shape}')
        request.set_tensor(name, ov.Tensor(array, shared_memory=True))

    @property
    def begins(self) -> bool:
        """Whether there is anything to begin, and threads for it."""
        return self._aside is not None and self._ahead > 0

    def begin(self, inputs: Mapping[str, np.ndarray]) -> None:
        """
        Run the first stages in another thread, from the values that the inputs have now.

        Nothing begins where maps would have to be copied first.
        """
        self._wait()
        if not self.begins or not all(channels_last(inputs[name]).flags.c_contiguous
                                      for name in self._last & set(inputs)):
            return
        given = self._taken(inputs)
        # Small ones are copied: the caller may go on with its arrays.
        mine = {name: array if name in self._last else array.copy()
                for name, array in given.items()}
        self._begun = mine, self._aside.submit(self._run, self._stages[:self._ahead], mine)

    def infer(self, inputs: Mapping[str, np.ndarray]) -> None:
        given = self._taken(inputs)
        done = self._ahead if self._was_begun(given) else 0
        self._run(self._stages[done:], given)
        for early, output in self._early:
            np.copyto(output, early)
        raise_all(self._raised, self._helpers, self._threads)

    def zeros(self) -> dict[str, np.ndarray]:
        """Return inputs of zeros, maps as a predictor keeps them: others would be copied."""
        return {name: zeros_channels_last(array) if name in self._last else array
                for name, array in super().zeros().items()}

    def close(self) -> None:
        self._wait()
        self._helpers.shutdown()
        if self._aside is not None:
            self._aside.shutdown()

    def _taken(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the inputs as the steps take them; maps in another order of memory are copied."""
        taken = {}
        for item in self.spec.inputs:
            array = inputs[item.name]
            if item.name in self._last:
                array = channels_last(array)
                if not array.flags.c_contiguous:
                    own = self._given.setdefault(item.name, np.empty(array.shape, array.dtype))
                    np.copyto(own, array)
                    array = own
            taken[item.name] = array
        return taken

    def _was_begun(self, given: Mapping[str, np.ndarray]) -> bool:
        """Wait for what was begun; tell whether it was begun from these inputs."""
        begun, self._begun = self._begun, None
        if begun is None:
            return False
        mine, future = begun
        future.result()
        return all(array.ctypes.data == mine[name].ctypes.data if name in self._last
                   else np.array_equal(array, mine[name]) for name, array in given.items())

    def _wait(self) -> None:
        if self._begun is not None:
            self._begun[1].result()
            self._begun = None

    def _run(self, stages: Sequence[Sequence[Branch]], given: Mapping[str, np.ndarray]) -> None:
        for branches in stages:
            run_beside(branches, given, self._helpers, self._threads)


def parts_of(model: ov.Model, precision: str) -> tuple[list[Part], int, list[Raised]]:
    """
    Return the parts of a graph in order, and the maps that are enlarged at the end.

    Between them, how many of the parts need nothing of the newest frame.
    """
    rewrite_lifts(model)
    rewrite_keys(model)
    rewrite_pools(model)
    halves = split_newest(model)
    if halves is not None:
        early = _warped(halves[0], precision, _OLDER)
        return [*early, *_warped(halves[1], precision, _NEWEST)], len(early), []
    model, raised = take_resizes(model)
    return _warped(model, precision, _ALL), 0, raised


def _warped(model: ov.Model, precision: str, frames: slice) -> list[Part]:
    """Return a model with its warps rewritten, in two parts where these need more precision."""
    warped = rewrite_warps(model)
    if not warped or precision == 'f32':
        return [Part(model, precision, frames)]
    # With the 8 bits of bf16 the places that are read would be up to a third of a cell off.
    before, after = split_at(model, [Cut(warped[0], warped[0], 'warped', 'warped')])
    return [Part(before, 'f32', frames), Part(after, precision, frames)]
