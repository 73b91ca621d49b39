"""
What runs the graphs: one small protocol, one heavy library a file, chosen by name.

A backend is loaded once for fixed sizes, is warm when `load` returns, and then runs without
allocating. Its arrays belong to it: outputs hold until the next run of the same graph.
"""

from __future__ import annotations

import importlib
import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np

from wm_ros.runtime.artifact import Artifact, ArtifactError
from wm_ros.runtime.contract import GRAPHS, GraphSpec
from wm_ros.runtime.derived import FormError


class BackendError(RuntimeError):
    """A backend that is not there or cannot run the artifact: what was found and wanted."""


@runtime_checkable
class Backend(Protocol):
    """
    Runs the three graphs of an artifact.

    `precision` tells after `load` in which precision the heavy operations of each graph really
    execute, such as 'i8', 'f32' or, mixed, 'i8+f32'; `notes` what else a user should know. Maps
    (..., C, R, R) named in `channels_last` it gives, and takes as they lie, with the channels
    innermost in memory; it takes them in the usual order too, but then has to copy them.
    """

    name: str
    precision: dict[str, str]
    notes: list[str]
    channels_last: frozenset[str]

    def load(self, artifact: Artifact, sizes: Mapping[str, int]) -> None:
        """Compile the graphs for `sizes` (N cameras, P plans) and warm up; raise BackendError."""

    def begin(self, graph: str, inputs: Mapping[str, np.ndarray]) -> None:
        """
        Start on what `run` will be asked for, if there is anything to gain, and return at once.

        For 'fold' before the newest frame is encoded: all inputs are there but `memory[-1]`.
        `run` then gives what it would have given without.
        """

    def run(self, graph: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run one graph on C-contiguous inputs; outputs hold until its next run."""

    def close(self) -> None:
        """Free the graphs; a second call does nothing."""


class LoadedGraph(ABC):
    """
    One graph that a library has loaded for fixed sizes, with its output arrays.

    `kernels` counts the heavy kernels (products and convolutions) by executed precision.
    """

    def __init__(self, name: str, spec: GraphSpec, sizes: Mapping[str, int]) -> None:
        self.name, self.spec, self.sizes = name, spec, dict(sizes)
        self.outputs = {item.name: np.zeros(item.resolve(**sizes), dtype=item.dtype)
                        for item in spec.outputs}
        self.kernels: Mapping[str, int] = {}

    @abstractmethod
    def infer(self, inputs: Mapping[str, np.ndarray]) -> None:
        """Run on checked inputs, into `outputs`."""

    def close(self) -> None:    # noqa: B027 - for those that have something to end
        """End what the graph has going on."""

    def zeros(self) -> dict[str, np.ndarray]:
        """Return inputs of zeros, to warm up with."""
        return {item.name: np.zeros(item.resolve(**self.sizes), dtype=item.dtype)
                for item in self.spec.inputs}

    def check_names(self, inputs: list[str], outputs: list[str]) -> None:
        """Raise BackendError where the file's tensors are not those of the contract."""
        for kind, found, tensors in (('inputs', inputs, self.spec.inputs),
                                     ('outputs', outputs, self.spec.outputs)):
            wanted = [item.name for item in tensors]
            if sorted(found) != sorted(wanted):
                raise BackendError(f'{self.name} has {kind} {", ".join(found)}, '
                                   f'want {", ".join(wanted)}')


class GraphBackend(ABC):
    """
    What every backend shares: options, loading graph by graph, warm-up, checks, closing.

    A subclass gives `name`, its `OPTIONS` with their defaults, which tell their types, `RANGES` of
    whole numbers among them, `prepare` and `open`.
    """

    name: ClassVar[str]
    OPTIONS: ClassVar[Mapping[str, Any]]
    RANGES: ClassVar[Mapping[str, tuple[int, int]]] = {}
    channels_last: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, threads: int, options: Mapping[str, Any]) -> None:
        for key, value in options.items():
            if key not in self.OPTIONS:
                raise BackendError(f'{self.name}: option {key!r}, want {", ".join(self.OPTIONS)}')
            wanted = unfit(value, self.OPTIONS[key], self.RANGES.get(key))
            if wanted:
                raise BackendError(f'{self.name}: option {key}: {value!r}, want {wanted}')
        self.options = {**self.OPTIONS, **options}
        self.threads = threads
        self.precision: dict[str, str] = {}
        self.kernels: dict[str, dict[str, int]] = {}
        self.notes: list[str] = []
        self.log: Callable[[str], None] = lambda text: None     # for what takes minutes
        self.throughput = False     # whether `begin` and `run` share the threads all the time
        self.overlaps = False       # whether `begin` starts anything
        self._graphs: dict[str, LoadedGraph] = {}

    @abstractmethod
    def prepare(self, artifact: Artifact) -> None:
        """Check options and artifact before the first graph is opened."""

    @abstractmethod
    def open(self, graph: str, artifact: Artifact, sizes: Mapping[str, int]) -> LoadedGraph:
        """Load one of `GRAPHS` for static sizes."""

    def load(self, artifact: Artifact, sizes: Mapping[str, int]) -> None:
        """Open the three graphs and run each once; whatever the library raises is BackendError."""
        try:
            self.prepare(artifact)
        except (ArtifactError, BackendError):
            raise
        except Exception as err:    # the libraries' errors share no base class but Exception
            raise BackendError(f'{self.name}: {artifact.path}: {err}') from err
        for graph in GRAPHS:
            where = f'{self.name}: {artifact.path}: {graph}'
            try:
                opened = self._graphs[graph] = self.open(graph, artifact, sizes)
                opened.infer(opened.zeros())    # the first run allocates
            except ArtifactError:
                raise
            except MemoryError as err:
                raise BackendError(f'{where}: not enough memory') from err
            except Exception as err:
                raise BackendError(f'{where}: {err}') from err
            self.kernels[graph] = dict(opened.kernels)
            self.precision[graph] = summarise(opened.kernels)

    def run(self, graph: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run one graph; the outputs are written into arrays that stay the same."""
        opened = self._graphs.get(graph)
        if opened is None:
            raise BackendError(f'{self.name}: {graph} is not loaded; want one of '
                               f'{", ".join(self._graphs) or "none, the backend is closed"}')
        check_inputs(graph, opened.spec, inputs, opened.sizes, self.channels_last)
        opened.infer(inputs)
        return opened.outputs

    def begin(self, graph: str, inputs: Mapping[str, np.ndarray]) -> None:  # noqa: B027
        """Do nothing: most libraries run a graph in one piece."""

    def close(self) -> None:
        """
        Free the graphs; a second call does nothing.

        What a library raises meanwhile is noted: after an error of a device nothing can be given
        back to it, and there is another backend to try, or a node to clean up.
        """
        graphs, self._graphs = self._graphs, {}
        for graph, opened in graphs.items():
            try:
                opened.close()
            except Exception as err:
                self.notes.append(f'closing {graph}: {err}')


@dataclass(frozen=True)
class _Choice:
    """Where a backend lives and which library it needs."""

    module: str
    cls: str
    library: str


BACKENDS = {
    'openvino': _Choice('wm_ros.runtime.openvino', 'OpenVinoBackend', 'openvino'),
    'onnxruntime': _Choice('wm_ros.runtime.onnxruntime', 'OnnxRuntimeBackend', 'onnxruntime'),
    'tensorrt': _Choice('wm_ros.runtime.tensorrt', 'TensorRtBackend', 'tensorrt'),
    'pytorch': _Choice('wm_ros.runtime.pytorch', 'PyTorchBackend', 'torch'),
}
#: What 'auto' tries, best first. PyTorch is a reference and never chosen unasked.
AUTO_ORDER = ('tensorrt', 'openvino', 'onnxruntime')


def create_backend(name: str, artifact: Artifact, cameras: int, plans: int = 1, threads: int = 2,
                   options: Mapping[str, Any] | None = None,
                   log: Callable[[str], None] = lambda text: None,
                   throughput: bool = False) -> Backend:
    """
    Return a loaded backend for `cameras` cameras and `plans` ego plans a run.

    `name` is a key of `BACKENDS`, or 'auto': the first of `AUTO_ORDER` that is installed and
    loads. `threads` are those of the graphs (0: the library's choice); `options` is handed to the
    backend; `log` hears which one was taken, why, and in what precision it runs. With
    `throughput` a backend that can begin a graph beside another gives half of the threads to
    either: more sets a second, each of them later. Raises BackendError where none is there or
    loads.
    """
    if name != 'auto' and name not in BACKENDS:
        raise BackendError(f'backend {name!r}: want auto or one of {", ".join(BACKENDS)}')
    refused: list[str] = []
    for candidate in AUTO_ORDER if name == 'auto' else (name,):
        lacking = missing(candidate)
        if lacking:
            refused.append(f'{candidate}: {lacking}')
            continue
        choice = BACKENDS[candidate]
        try:
            kind = getattr(importlib.import_module(choice.module), choice.cls)
        except (ImportError, OSError) as err:   # installed, but a library of its own is not
            refused.append(f'{candidate}: {err}')
            continue
        backend = kind(threads=threads, options=dict(options or {}))
        backend.log, backend.throughput = log, throughput
        try:
            backend.load(artifact, {'N': cameras, 'P': plans})
        except (BackendError, FormError) as err:
            backend.close()
            if name != 'auto':
                raise
            refused.append(str(err))
            continue
        except BaseException:
            backend.close()
            raise
        reason = '; '.join(['the first that loads', *refused]) if name == 'auto' else 'as asked'
        precision = ', '.join(f'{graph}={value}' for graph, value in backend.precision.items())
        log(f'backend {backend.name} ({reason}): {cameras} cameras, {plans} plans, '
            f'{threads} threads, {precision}')
        for note in backend.notes:
            log(f'backend {backend.name}: {note}')
        return backend
    if name != 'auto':
        raise BackendError(f'backend {refused[0]}, want it installed, and whole')
    raise BackendError(f'backend auto: {"; ".join(refused)}; want one that is installed and loads')


def unfit(value: Any, default: Any, limits: tuple[int, int] | None) -> str:
    """Return what an option wants whose value is not of the type of its default, '' where it is."""
    if isinstance(default, bool):
        return '' if isinstance(value, bool) else 'true or false'
    if isinstance(default, int):
        low, high = limits or (-(1 << 31), 1 << 31)
        fits = isinstance(value, int) and not isinstance(value, bool) and low <= value <= high
        return '' if fits else f'a whole number from {low} to {high}'
    if isinstance(default, str):
        return '' if isinstance(value, str | Path) else 'text'
    if isinstance(default, Mapping):
        fits = isinstance(value, Mapping) and all(isinstance(item, Mapping)
                                                  for item in value.values())
        return '' if fits else 'options by name for each name'
    names = [value] if isinstance(value, str) else value
    fits = isinstance(names, list | tuple) and all(isinstance(name, str) for name in names)
    return '' if fits else 'a name or a list of names'


def missing(name: str) -> str:
    """Return what keeps a backend from being used here, empty for nothing."""
    choice = BACKENDS[name]
    for module in (choice.module, choice.library):
        if importlib.util.find_spec(module) is None:
            return f'no module {module}'
    return ''


def check_inputs(graph: str, spec: GraphSpec, inputs: Mapping[str, np.ndarray],
                 sizes: Mapping[str, int], channels_last: frozenset[str]) -> None:
    """
    Raise ValueError where inputs do not fit the contract: name, type, shape, layout.

    Those in `channels_last` may have their channels innermost.
    """
    for tensor in spec.inputs:
        if tensor.name not in inputs:
            raise ValueError(f'{graph}: no input {tensor.name}, want '
                             f'{", ".join(item.name for item in spec.inputs)}')
        tensor.check(inputs[tensor.name], **sizes)
        array = inputs[tensor.name]
        if not (array.flags.c_contiguous or tensor.name in channels_last
                and np.moveaxis(array, -3, -1).flags.c_contiguous):
            raise ValueError(f'{graph}.{tensor.name}: want a C-contiguous array')


def summarise(counts: Mapping[str, int]) -> str:
    """Return 'i8' or, for several, 'i8+f32', most operations first; 'none' for no operation."""
    present = [key for key, count in counts.items() if count]
    return '+'.join(sorted(present, key=lambda key: (-counts[key], key))) or 'none'
