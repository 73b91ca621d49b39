"""
What runs the graphs: one small protocol, one heavy library a file, chosen by name.

A backend is loaded once for fixed sizes and then runs without allocating. Its arrays belong to
it: outputs hold until the next run of the same graph.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from wm_ros.runtime.artifact import Artifact
from wm_ros.runtime.contract import GraphSpec


class BackendError(RuntimeError):
    """A backend that is not there or cannot run the artifact: what was found and wanted."""


@runtime_checkable
class Backend(Protocol):
    """
    Runs the three graphs of an artifact.

    `precision` tells after `load` in which precision the heavy operations of each graph really
    execute, such as 'i8', 'f32' or, mixed, 'i8+f32'.
    """

    name: str
    precision: dict[str, str]

    def load(self, artifact: Artifact, sizes: Mapping[str, int]) -> None:
        """Compile the graphs for `sizes` (N cameras, P plans); raise BackendError."""

    def run(self, graph: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run one graph on C-contiguous inputs; outputs hold until its next run."""

    def close(self) -> None:
        """Free the graphs; a second call does nothing."""


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


def resolve(name: str) -> tuple[str, str]:
    """Return the backend that a name stands for and why ('auto' takes the first one installed)."""
    if name != 'auto':
        if name not in BACKENDS:
            raise BackendError(f'backend {name!r}: want auto or one of {", ".join(BACKENDS)}')
        return name, 'as asked'
    absent = []
    for candidate in AUTO_ORDER:
        lacking = _lacking(candidate)
        if not lacking:
            return candidate, '; '.join(['first of those installed', *absent])
        absent.append(lacking)
    raise BackendError(f'backend auto: {"; ".join(absent)}; want one of them')


def _lacking(name: str) -> str:
    """Return what keeps a backend from being used here, empty for nothing."""
    choice = BACKENDS[name]
    for module in (choice.module, choice.library):
        if importlib.util.find_spec(module) is None:
            return f'{name}: no module {module}'
    return ''


def create_backend(name: str, artifact: Artifact, cameras: int, plans: int = 1, threads: int = 2,
                   options: Mapping[str, Any] | None = None,
                   log: Callable[[str], None] = lambda text: None) -> Backend:
    """
    Return a loaded backend for `cameras` cameras and `plans` ego plans a run.

    `name` is 'auto' or a key of `BACKENDS`; `threads` those of the graphs; `options` is handed to
    the backend; `log` hears which one was taken, why, and in what precision it runs. Raises
    BackendError where the library is not installed or the artifact does not load.
    """
    chosen, reason = resolve(name)
    choice = BACKENDS[chosen]
    lacking = _lacking(chosen)
    if lacking:
        raise BackendError(f'backend {lacking}, want it installed')
    backend = getattr(importlib.import_module(choice.module), choice.cls)(
        threads=threads, options=dict(options or {}))
    try:
        backend.load(artifact, {'N': cameras, 'P': plans})
    except BaseException:
        backend.close()
        raise
    precision = ', '.join(f'{graph}={value}' for graph, value in backend.precision.items())
    log(f'backend {backend.name} ({reason}): {cameras} cameras, {plans} plans, '
        f'{threads} threads, {precision}')
    return backend


def check_inputs(graph: str, spec: GraphSpec, inputs: Mapping[str, np.ndarray],
                 sizes: Mapping[str, int]) -> None:
    """Raise ValueError where inputs do not fit the contract: name, type, shape, layout."""
    for tensor in spec.inputs:
        if tensor.name not in inputs:
            raise ValueError(f'{graph}: no input {tensor.name}, want '
                             f'{", ".join(item.name for item in spec.inputs)}')
        tensor.check(inputs[tensor.name], **sizes)
        if not inputs[tensor.name].flags.c_contiguous:
            raise ValueError(f'{graph}.{tensor.name}: want a C-contiguous array')


def take_options(name: str, options: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    """Return `known` defaults overlaid with `options`; raise BackendError for one not known."""
    for key in options:
        if key not in known:
            raise BackendError(f'{name}: option {key!r}, want {", ".join(known)}')
    return {**known, **options}


def summarise(counts: Mapping[str, int]) -> str:
    """Return 'i8' or, for several, 'i8+f32', most operations first."""
    present = [key for key, count in counts.items() if count]
    return '+'.join(sorted(present, key=lambda key: (-counts[key], key))) or 'f32'
