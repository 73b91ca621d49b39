"""Parts of a graph as compiled models: how they are compiled, bound to memory, and run."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor, wait
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import openvino as ov

from wm_ros.runtime.openvino_resize import raise_maps

#: Layer types, as the CPU plugin names them, whose precision says how a graph executes.
_HEAVY = ('Convolution', 'FullyConnected', 'MatMul', 'Deconvolution', 'ScaledDotProductAttention')
_ALIASES = {'i8': 'i8', 'u8': 'i8', 'f32': 'f32', 'f16': 'f16', 'bf16': 'bf16'}


@dataclass(frozen=True)
class Settings:
    """How a graph is compiled; `beside` threads run what is begun early, 0 for no such thing."""

    core: ov.Core
    device: str
    precision: str
    threads: int
    beside: int

    def compile(self, model: ov.Model, precision: str, threads: int,
                at_once: int = 1) -> ov.CompiledModel:
        """Compile for so many runs at once, each in so many threads."""
        return self.core.compile_model(model, self.device, {
            'INFERENCE_PRECISION_HINT': precision, 'INFERENCE_NUM_THREADS': threads * at_once,
            'NUM_STREAMS': str(at_once), 'PERFORMANCE_HINT': 'LATENCY',
            'ENABLE_CPU_PINNING': False})


@dataclass(frozen=True)
class Part:
    """A model that is a part of a graph: which rows it takes of inputs that go by frame."""

    model: ov.Model
    precision: str
    frames: slice


@dataclass
class Step:
    """A part ready to run, with what of the graph's inputs is bound to it."""

    request: ov.InferRequest
    takes: dict[str, slice]
    bound: dict[str, np.ndarray] = field(default_factory=dict)

    def bind(self, name: str, array: np.ndarray) -> None:
        """Let the part read from this memory, which stays as it is as long as it is bound."""
        array = array[self.takes[name]]
        known = self.bound.get(name)
        # Binding costs more than comparing; the predictor hands in the same arrays again.
        if known is None or known.ctypes.data != array.ctypes.data:
            self.request.set_tensor(name, ov.Tensor(array, shared_memory=True))
        self.bound[name] = array

    def run(self, given: Mapping[str, np.ndarray]) -> None:
        """Run on the graph's inputs; return when it is done."""
        for name in self.takes:
            self.bind(name, given[name])
        self.request.infer(share_outputs=True)      # or it would return copies of them


@dataclass(frozen=True)
class Branch:
    """A step that others may run beside, and small maps that are enlarged into others after it."""

    step: Step
    maps: Sequence[tuple[np.ndarray, np.ndarray]] = ()

    def run(self, given: Mapping[str, np.ndarray]) -> None:
        """Run the step on the graph's inputs, then enlarge its maps."""
        self.step.run(given)
        raise_maps(self.maps)


def run_beside(branches: Sequence[Branch], given: Mapping[str, np.ndarray], pool: Executor,
               threads: int) -> None:
    """Run branches in so many threads, the first ones first; return when all are done."""
    waiting = deque(branches)

    def work() -> None:
        while waiting:
            try:
                branch = waiting.popleft()
            except IndexError:      # another thread was quicker
                return
            branch.run(given)

    helping = [pool.submit(work) for _ in range(min(threads, len(branches)) - 1)]
    try:
        work()
    finally:
        wait(helping)       # the next run may use no request that is still under way
    for future in helping:
        future.result()


def executed_kernels(compiled: ov.CompiledModel) -> Counter[str]:
    """Count the heavy layers by the precision in which the plugin runs them."""
    counts: Counter[str] = Counter()
    for operation in compiled.get_runtime_model().get_ops():
        info = operation.get_rt_info()
        if str(_info(info, 'layerType')) in _HEAVY:
            found = str(_info(info, 'runtimePrecision')).lower()
            counts[_ALIASES.get(found, found)] += 1
    return counts


def _info(info: Any, key: str) -> Any:
    value = info[key] if key in info else ''
    return value.value if hasattr(value, 'value') else value
