"""OpenVINO backend: the default where there is no accelerator."""

from __future__ import annotations

import ctypes
import gc
import os
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait

import numpy as np
import openvino as ov

from wm_ros.runtime.artifact import Artifact
from wm_ros.runtime.backend import BackendError, GraphBackend, LoadedGraph
from wm_ros.runtime.derived import check_form
from wm_ros.runtime.openvino_attention import rewrite_keys
from wm_ros.runtime.openvino_fold import BY_FRAME, split_newest
from wm_ros.runtime.openvino_layout import channels_first, channels_last, hold_channels_last
from wm_ros.runtime.openvino_lift import rewrite_lifts
from wm_ros.runtime.openvino_resize import Raised, raise_all, take_resizes
from wm_ros.runtime.openvino_rollout import Rollout, of_plan, split_rollout
from wm_ros.runtime.openvino_split import Cut, split_at
from wm_ros.runtime.openvino_steps import Branch, Part, Settings, Step, executed_kernels
from wm_ros.runtime.openvino_warp import rewrite_warps
from wm_ros.types import WINDOW_FRAMES

_ALL_FRAMES, _OLDER, _NEWEST = (slice(None), slice(WINDOW_FRAMES - 1),
                                slice(WINDOW_FRAMES - 1, None))


class OpenVinoBackend(GraphBackend):
    """
    Runs each graph as compiled models with their own buffers.

    Options: `device` ('CPU'), `encode_precision` and `fold_precision` ('f32'), `rollout_precision`
    ('auto'): what operations outside the quantised ones run in, 'f32', 'bf16' or 'f16'; 'auto' is
    bf16 where the device has it, else f32, as for a graph exported in float32. Where the fold
    looks into its maps is always f32, and of a rollout in bf16 the dense maps alone are.

    With fewer cameras than threads, decoding and encoding leave a core idle: threads are then
    shared between the encoder and the older frames' part of the fold, which `begin` starts beside.
    For throughput they are shared so with any number of cameras, and by the rollout too.

    In a rollout the dense maps of each plan are decoded beside each other and beside the agents.
    """

    name = 'openvino'
    OPTIONS = {'device': 'CPU', 'encode_precision': 'f32', 'fold_precision': 'f32',
               'rollout_precision': 'auto'}
    channels_last = frozenset({'memory', 'skip', 'past'})

    def prepare(self, artifact: Artifact) -> None:
        """Start the library; it runs the artifact as exported."""
        check_form(artifact, self.name, '')
        self._core = ov.Core()
        self.threads = self.threads or len(os.sched_getaffinity(0))

    def open(self, graph: str, artifact: Artifact, sizes: Mapping[str, int]) -> LoadedGraph:
        """Compile one graph for static sizes."""
        shared = self.throughput or sizes.get('N', 1) < self.threads
        beside = self.threads // 2 if shared else 0
        whole = graph != 'encode' and not self.throughput
        settings = Settings(self._core, self.options['device'], self._precision(graph, artifact),
                             self.threads - (0 if whole else beside), beside)
        opened = _Graph(settings, graph, artifact, sizes, self.channels_last)
        give_back_memory()
        self.overlaps |= opened.begins
        return opened

    def begin(self, graph: str, inputs: Mapping[str, np.ndarray]) -> None:
        """Start on the older frames' part of the fold in another thread, if one is to spare."""
        opened = self._graphs.get(graph)
        if opened is not None:
            opened.begin(inputs)

    def _precision(self, graph: str, artifact: Artifact) -> str:
        wanted = self.options[f'{graph}_precision']
        if wanted != 'auto':
            return wanted
        if artifact.precision[graph] == 'float32':  # exported to be compared with
            return 'f32'
        able = self._core.get_property(self.options['device'], 'OPTIMIZATION_CAPABILITIES')
        return 'bf16' if 'BF16' in able else 'f32'


class _Graph(LoadedGraph):
    """
    One graph as steps in a row, each a compiled model, and maps that OpenCV enlarges at the end.

    The first `_ahead` steps need nothing of the newest frame and can be begun before the rest.
    """

    def __init__(self, settings: Settings, graph: str, artifact: Artifact,
                 sizes: Mapping[str, int], held_last: frozenset[str]) -> None:
        super().__init__(graph, artifact.specs[graph], sizes)
        model = self._read(settings.core, artifact, sizes)
        names = {item.name for item in (*self.spec.inputs, *self.spec.outputs)}
        self._last = held_last & names
        for name in self._last & set(self.outputs):
            turned = channels_last(self.outputs[name])
            self.outputs[name] = channels_first(np.zeros(turned.shape, turned.dtype))
        self._threads = settings.threads
        self.kernels = Counter()
        parts, self._ahead, raised = _parts(model, settings.precision)
        cut = self._cut(parts[0].model, settings.core, artifact) if raised else None
        if cut is not None:
            parts = [Part(cut.dynamics, _for_agents(settings.precision), _ALL_FRAMES)]
        made: dict[str, ov.Tensor] = {}
        self._early: list[tuple[np.ndarray, np.ndarray]] = []   # made ahead, and their outputs
        self._steps = []
        for number, part in enumerate(parts):
            threads = settings.beside if number < self._ahead else 0
            compiled = self._compile(settings, part, threads or settings.threads)
            self._steps.append(self._step(compiled, part.frames, made, number < self._ahead))
        self._branches: list[Branch] = []
        self._raised: list[tuple[np.ndarray, np.ndarray]] = []
        if cut is None:
            self._raised = [self._maps(made, one, one.map) for one in raised]
        else:
            self._branch(cut, settings, made, raised)
        self._helpers = ThreadPoolExecutor(max(1, settings.threads - 1), 'wm_ros_maps')
        self._aside = ThreadPoolExecutor(1, 'wm_ros_begin') if settings.beside else None
        self._given: dict[str, np.ndarray] = {}
        self._begun: tuple[dict[str, np.ndarray], Future[None]] | None = None

    def _read(self, core: ov.Core, artifact: Artifact, sizes: Mapping[str, int]) -> ov.Model:
        """Return the graph as it is in the file, for these sizes."""
        model = core.read_model(artifact.graph(self.name))
        self.check_names([port.get_any_name() for port in model.inputs],
                         [port.get_any_name() for port in model.outputs])
        model.reshape({item.name: ov.PartialShape(list(item.resolve(**sizes)))
                       for item in self.spec.inputs})
        return model

    def _cut(self, model: ov.Model, core: ov.Core, artifact: Artifact) -> Rollout | None:
        """Return a rollout cut in three, None for any other graph."""
        sizes = {**self.sizes, 'P': 1}
        single = model if sizes == self.sizes else (
            _parts(self._read(core, artifact, sizes), 'f32')[0][0].model)
        return split_rollout(model, single)

    def _compile(self, settings: Settings, part: Part, threads: int,
                 at_once: int = 1) -> ov.CompiledModel:
        """Compile a part for so many runs at once, each in so many threads."""
        compiled = settings.compile(hold_channels_last(part.model, self._last), part.precision,
                                    threads, at_once)
        self.kernels += executed_kernels(compiled)
        return compiled

    def _step(self, compiled: ov.CompiledModel, frames: slice, made: dict[str, ov.Tensor],
              ahead: bool = False) -> Step:
        """
        Return a step that takes what those before it have `made`, and the graph's inputs.

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
                takes[name] = frames if name in BY_FRAME else _ALL_FRAMES
        for name in (name for port in compiled.outputs for name in port.get_names()):
            if name in self.outputs and not ahead:
                self._give(request, name, self.outputs[name])
            made[name] = request.get_tensor(name)
            if name in self.outputs and ahead:
                output = self.outputs[name]
                self._early.append((made[name].data,
                                    channels_last(output) if name in self._last else output))
        return Step(request, takes)

    def _branch(self, cut: Rollout, settings: Settings, made: dict[str, ov.Tensor],
                raised: Sequence[Raised]) -> None:
        """Add what runs side by side: the rest of a rollout, and the dense maps plan by plan."""
        plans = self.sizes['P']
        at_once = min(self._threads, plans + 1)
        rest = Part(cut.rest, _for_agents(settings.precision), _ALL_FRAMES)
        dense = Part(cut.decoder, settings.precision, _ALL_FRAMES)
        compiled = self._compile(settings, rest, self._threads // at_once)
        states = dict(made)
        step = self._step(compiled, _ALL_FRAMES, made)
        self._branches.append(Branch(step, []))     # the longest: its maps are everybody's, after
        self._raised = [self._maps(made, one, one.map) for one in raised
                        if one.source != cut.dense]
        compiled = self._compile(settings, dense, self._threads // at_once, min(at_once, plans))
        for plan in range(plans):
            own = {name: ov.Tensor(of_plan(states[name].data, tuple(port.get_shape()), plan),
                                   shared_memory=True)
                   for port in compiled.inputs for name in port.get_names() if name in states}
            step = self._step(compiled, _ALL_FRAMES, own)
            count = int(np.prod(own[cut.dense].shape[:2]))
            self._branches.append(Branch(step, [
                self._maps(own, one, one.map % count) for one in raised
                if one.source == cut.dense and one.map // count == plan]))

    def _maps(self, made: Mapping[str, ov.Tensor], one: Raised,
              number: int) -> tuple[np.ndarray, np.ndarray]:
        """Return a small map and the map of an output that it is enlarged into."""
        return (_plane(made[one.source].data, number),
                _plane(self.outputs[one.output], one.plane))

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
        Run the first steps in another thread, from the values that the inputs have now.

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
        self._begun = mine, self._aside.submit(self._run, self._steps[:self._ahead], mine)

    def infer(self, inputs: Mapping[str, np.ndarray]) -> None:
        given = self._taken(inputs)
        done = self._ahead if self._was_begun(given) else 0
        self._run(self._steps[done:], given)
        for early, output in self._early:
            np.copyto(output, early)
        if self._branches:
            self._run_beside(given)
        raise_all(self._raised, self._helpers, self._threads)

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

    @staticmethod
    def _run(steps: Sequence[Step], given: Mapping[str, np.ndarray]) -> None:
        for step in steps:
            step.run(given)

    def _run_beside(self, given: Mapping[str, np.ndarray]) -> None:
        """Run the branches in as many threads as there are, the longest first."""
        waiting = deque(self._branches)

        def work() -> None:
            while waiting:
                try:
                    branch = waiting.popleft()
                except IndexError:      # another thread was quicker
                    return
                branch.run(given)

        helping = [self._helpers.submit(work)
                   for _ in range(min(self._threads, len(self._branches)) - 1)]
        try:
            work()
        finally:
            wait(helping)       # the next run may use no request that is still under way
        for future in helping:
            future.result()


def _parts(model: ov.Model, precision: str) -> tuple[list[Part], int, list[Raised]]:
    """
    Return the parts of a graph in order, and the maps that are enlarged at the end.

    Between them, how many of the parts need nothing of the newest frame.
    """
    rewrite_lifts(model)
    rewrite_keys(model)
    halves = split_newest(model)
    if halves is not None:
        early = _warped(halves[0], precision, _OLDER)
        return [*early, *_warped(halves[1], precision, _NEWEST)], len(early), []
    model, raised = take_resizes(model)
    return _warped(model, precision, _ALL_FRAMES), 0, raised


def _warped(model: ov.Model, precision: str, frames: slice) -> list[Part]:
    """Return a model with its warps rewritten, in two parts where these need more precision."""
    warped = rewrite_warps(model)
    if not warped or precision == 'f32':
        return [Part(model, precision, frames)]
    # With the 8 bits of bf16 the places that are read would be up to a third of a cell off.
    before, after = split_at(model, [Cut(warped[0], warped[0], 'warped', 'warped')])
    return [Part(before, 'f32', frames), Part(after, precision, frames)]


def _for_agents(precision: str) -> str:
    """
    Return the precision of states and agents in a rollout whose maps run in `precision`.

    bf16's 8 bits move scores enough that of those near the threshold another is published; the
    parity gate did not pass so. In FP32 agents take longer than the maps beside them.
    """
    return 'f32' if precision == 'bf16' else precision


def _plane(maps: np.ndarray, number: int) -> np.ndarray:
    """Return a view of one of the maps (..., H, W), which lie one after the other."""
    return maps.reshape(-1, *maps.shape[-2:])[number]


def give_back_memory() -> None:
    """
    Return freed memory to the system, where the C library can (glibc).

    Compiling takes some 20 MB a graph that it frees, and that would stay with the process.
    """
    gc.collect()
    trim = getattr(ctypes.CDLL(None), 'malloc_trim', None)
    if trim:
        trim(0)
