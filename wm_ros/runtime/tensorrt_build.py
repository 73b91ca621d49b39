"""
Building a TensorRT engine from one graph: strongly typed, with timing cache and progress.

The calls are those that the bindings of 10.3 to 11.x have in common (test/test_tensorrt_api.py
holds them against the lists of each version).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from types import ModuleType
from typing import Any

from wm_ros.runtime.backend import BackendError

#: By which recipe engines are built; one that sets other flags than before gets the next number.
RECIPE = 1


@dataclass(frozen=True)
class BuildOptions:
    """What a build may be told; part of an engine's key. `workspace_mb` 0 is all there is."""

    workspace_mb: int = 0
    optimization_level: int = 3

    def key(self) -> dict[str, int]:
        """Return the options as a part of the key, and the recipe that they are options of."""
        return {**asdict(self), 'recipe': RECIPE}


def make_logger(trt: ModuleType, said: list[str]) -> Any:
    """Return a logger that keeps TensorRT's errors in `said`, for the message of our own."""
    class Logger(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, text: str) -> None:
            if severity in (trt.ILogger.Severity.INTERNAL_ERROR, trt.ILogger.Severity.ERROR):
                said.append(text)

    return Logger()


def make_monitor(trt: ModuleType, name: str, log: Callable[[str], None]) -> Any:
    """
    Return a monitor that tells every tenth of each outermost phase of a build.

    What comes up while it tells, an interrupt for one, may not pass through the library: it ends
    the build and is kept in `raised`.
    """
    class Monitor(trt.IProgressMonitor):
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.raised: BaseException | None = None
            self._steps: dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            if not parent_phase:
                self._steps[phase_name] = num_steps
                self._tell(f'building {name}: {phase_name}')

        def step_complete(self, phase_name: str, step: int) -> bool:
            steps = self._steps.get(phase_name, 0)
            # Called from several threads, in any order of phases; the steps of one go up.
            if steps >= 10 and (step + 1) * 10 // steps > step * 10 // steps:
                self._tell(f'building {name}: {phase_name}: {(step + 1) * 100 // steps} %')
            return self.raised is None

        def phase_finish(self, phase_name: str) -> None:
            self._steps.pop(phase_name, None)

        def _tell(self, text: str) -> None:
            try:
                log(text)
            except BaseException as err:
                self.raised = err

    return Monitor()


def build_engine(trt: ModuleType, name: str, model: bytes, options: BuildOptions,
                 timing: bytes | None, log: Callable[[str], None]) -> tuple[bytes, bytes]:
    """
    Return the serialised engine of an ONNX model, and the timing cache after the build.

    `timing` is the cache of earlier builds with this TensorRT on this GPU. Raises BackendError
    with what TensorRT said where it refuses the graph or finds no way to run it.
    """
    said: list[str] = []
    logger = make_logger(trt, said)
    builder = trt.Builder(logger)
    # TensorRT 11 knows no other kind of network and ignores the flag.
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(model):
        errors = [str(parser.get_error(i)) for i in range(parser.num_errors)] or said
        raise BackendError(f'{name}: the ONNX parser of TensorRT {trt.__version__} refuses it: '
                           f'{"; ".join(errors)}')
    config = builder.create_builder_config()
    if options.workspace_mb:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_mb << 20)
    config.builder_optimization_level = options.optimization_level
    # Layer by layer in the inspector: what is executed is told from there.
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    # On by default, it would round the products that are FP32 on purpose to ten bits.
    config.clear_flag(trt.BuilderFlag.TF32)
    monitor = make_monitor(trt, name, log)
    config.progress_monitor = monitor
    cache = config.create_timing_cache(timing or b'')
    if cache is None:   # another version's, or damaged
        cache = config.create_timing_cache(b'')
    config.set_timing_cache(cache, False)
    plan = builder.build_serialized_network(network, config)
    if monitor.raised is not None:
        raise monitor.raised
    if plan is None:
        raise BackendError(f'{name}: TensorRT {trt.__version__} built no engine: '
                           f'{"; ".join(said) or "it did not say why"}')
    return bytes(plan), bytes(config.get_timing_cache().serialize())
