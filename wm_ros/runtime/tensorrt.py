"""
TensorRT backend, for 10.3 to 11.x: engines built from the artifact, run as CUDA graphs.

It has run on no hardware yet: its calls are held against what each version's bindings expose, and
its behaviour against a stand-in (test/test_tensorrt_api.py, test/test_tensorrt.py).
"""

from __future__ import annotations

import importlib
import json
import tempfile
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from wm_ros.runtime.artifact import Artifact, ArtifactError
from wm_ros.runtime.backend import BackendError, GraphBackend, LoadedGraph
from wm_ros.runtime.contract import GraphSpec
from wm_ros.runtime.cuda import Cuda
from wm_ros.runtime.derived import check_form, find_form, form_of, parent_hash, sizes_of
from wm_ros.runtime.tensorrt_build import BuildOptions, build_engine, make_logger
from wm_ros.runtime.tensorrt_cache import EngineCache, default_folder

FORM = 'tensorrt'
OLDEST = (10, 3)
#: Names of heavy layers in the inspector, and of types in the formats of their inputs.
_HEAVY = ('conv', 'gemm', 'matmul', 'matrix')
_TYPES = {'int8': 'i8', 'half': 'f16', 'fp16': 'f16', 'float16': 'f16', 'float': 'f32',
          'fp32': 'f32'}


class TensorRtBackend(GraphBackend):
    """
    Runs each graph as one engine with fixed addresses, its copies and kernels in a CUDA graph.

    It runs the form `tensorrt` of an artifact for its number of cameras and plans: the artifact
    itself, what lies beside it, or else made here, which needs the package onnx. Options: `cache`
    (a folder, '' is the user's cache), `build` (False refuses where no engine fits, instead of
    building for minutes), `workspace_mb` and `optimization_level` of a build, `cuda_graph`.
    The GPU is the first one visible.
    """

    name = 'tensorrt'
    OPTIONS = {'cache': '', 'build': True, 'workspace_mb': 0, 'optimization_level': 3,
               'cuda_graph': True}
    RANGES = {'workspace_mb': (0, 1 << 20), 'optimization_level': (0, 5)}

    def __init__(self, threads: int, options: Mapping[str, Any]) -> None:
        super().__init__(threads, options)
        self._cuda: Cuda | None = None
        self._runtime: Any = None
        self._temporary: tempfile.TemporaryDirectory | None = None

    def prepare(self, artifact: Artifact) -> None:
        """Open TensorRT and the GPU."""
        check_form(artifact, self.name, '', FORM)
        self._trt = _import_tensorrt()
        self._cuda = Cuda()
        self._device = self._cuda.device()
        self._said: list[str] = []
        self._logger = make_logger(self._trt, self._said)
        try:
            self._runtime = self._trt.Runtime(self._logger)
        except Exception as err:    # pybind11 raises TypeError where the library gives nothing
            raise BackendError(f'tensorrt: {"; ".join(self._said) or err}, want one that starts '
                               'on this machine') from err
        self._build = BuildOptions(self.options['workspace_mb'],
                                   self.options['optimization_level'])
        self._cache = EngineCache(Path(self.options['cache'] or default_folder()).expanduser())
        self._form: Artifact | None = None

    def open(self, graph: str, artifact: Artifact, sizes: Mapping[str, int]) -> LoadedGraph:
        """Load or build one engine and give it its buffers."""
        form = self._form_of(artifact, sizes)
        key = {'artifact': parent_hash(form), 'form': form.hash, 'graph': graph,
               'sizes': dict(sizes), 'tensorrt': self._trt.__version__,
               **self._device.key(), 'options': self._build.key()}
        name = f'{graph}-{key["artifact"][:12]}-n{sizes["N"]}-p{sizes["P"]}.engine'
        engine = self._stored_engine(name, key)
        if engine is None:
            if not self.options['build']:
                why = '; '.join(self._cache.notes) or f'{self._cache.folder / name}: not there'
                raise BackendError(f'no engine fits, and `build` is off: {why}')
            engine = self._built_engine(graph, form, name, key)
        self.notes += [note for note in self._cache.notes if note not in self.notes]
        need = engine.device_memory_size_v2 + _buffer_bytes(form.specs[graph], sizes)
        free = self._cuda.free_bytes()
        if need > free:
            raise BackendError(f'not enough memory: {need >> 20} MB of the device are needed, '
                               f'{free >> 20} MB are free')
        return _Graph(self._trt, self._cuda, graph, form.specs[graph], sizes, engine,
                      self.options['cuda_graph'])

    def close(self) -> None:
        """Free graphs, buffers, engines and the stream; a second call does nothing."""
        super().close()
        self._runtime = None
        cuda, self._cuda = self._cuda, None
        if cuda is not None:
            try:
                cuda.close()
            except BackendError as err:
                self.notes.append(str(err))
        if self._temporary is not None:
            self._temporary.cleanup()
            self._temporary = None

    def _form_of(self, artifact: Artifact, sizes: Mapping[str, int]) -> Artifact:
        """Return the strongly typed form for these sizes: given, stored, or made now."""
        if self._form is not None:
            return self._form
        if form_of(artifact) == FORM:
            if dict(sizes_of(artifact)) != dict(sizes):
                raise BackendError(f'made for {_sizes(sizes_of(artifact))}, want {_sizes(sizes)}; '
                                   'give the artifact that it was derived from')
            self._form = artifact
            return artifact
        kept = self._cache.folder / f'{artifact.hash[:12]}-{FORM}-n{sizes["N"]}-p{sizes["P"]}'
        for folder in (None, kept):
            try:
                found = find_form(artifact, FORM, folder)
            except ArtifactError as err:    # of an older artifact, or damaged
                self.notes.append(f'{err}; not used')
                continue
            if found is not None and dict(sizes_of(found)) == dict(sizes):
                break
        else:
            found = self._derived(artifact, sizes, kept)
        self._form = found
        return found

    def _derived(self, artifact: Artifact, sizes: Mapping[str, int], folder: Path) -> Artifact:
        try:
            from wm_ros.export.derive import derive
        except ModuleNotFoundError as err:
            raise BackendError(
                f'{err}, and no form {FORM} for {_sizes(sizes)} lies beside {artifact.path}; make '
                f'one where onnx is installed: wm_ros derive {artifact.path} --form {FORM} '
                f'--cameras {sizes["N"]} --plans {sizes["P"]}') from err
        self.log(f'deriving the form {FORM} for {_sizes(sizes)}')
        try:
            derive(artifact, FORM, folder, sizes)
        except OSError as err:
            self.notes.append(f'{folder}: {err.strerror}; the form is made again at the next start')
            self._temporary = tempfile.TemporaryDirectory(prefix='wm_ros_')
            folder = Path(self._temporary.name)
            derive(artifact, FORM, folder, sizes)
        return find_form(artifact, FORM, folder)

    def _stored_engine(self, name: str, key: Mapping[str, Any]) -> Any:
        plan = self._cache.load(name, key)
        if plan is None:
            return None
        engine = self._runtime.deserialize_cuda_engine(plan)
        if engine is None:
            self._cache.notes.append(f'{self._cache.folder / name}: TensorRT does not read it: '
                                     f'{"; ".join(self._said) or "it did not say why"}')
        return engine

    def _built_engine(self, graph: str, form: Artifact, name: str, key: Mapping[str, Any]) -> Any:
        for note in self._cache.notes:
            self.log(note)
        self.log(f'building the engine {name} for {self._device.name}; this takes minutes, once')
        timing_key = {'tensorrt': key['tensorrt'], **self._device.key()}
        timing = self._cache.load('timing.cache', timing_key)
        plan, timing = build_engine(self._trt, graph, form.graph(graph), self._build, timing,
                                    self.log)
        self._cache.store('timing.cache', timing_key, timing)
        self._cache.store(name, key, plan)
        engine = self._runtime.deserialize_cuda_engine(plan)
        if engine is None:
            raise BackendError('TensorRT does not read the engine that it has just built: '
                               f'{"; ".join(self._said) or "it did not say why"}')
        return engine


class _Graph(LoadedGraph):
    """
    One engine with its context, buffers at fixed addresses, and the recorded CUDA graph.

    The first run, while loading, is queued call by call, which lets TensorRT set up what it sets up
    lazily; then the same is recorded, and a run is one launch: copies in, kernels, copies out.
    """

    def __init__(self, trt: ModuleType, cuda: Cuda, name: str, spec: GraphSpec,
                 sizes: Mapping[str, int], engine: Any, record: bool) -> None:
        super().__init__(name, spec, sizes)
        self._cuda, self._engine, self._record = cuda, engine, record
        self._context: Any = None
        self._executable: Any = None
        self._addresses: dict[str, int] = {}
        self._inputs: dict[str, np.ndarray] = {}
        try:
            self._check(trt)
            self.kernels = _executed(trt, engine)
            context = engine.create_execution_context()
            if context is None:
                raise BackendError(f'{name}: no execution context; too little device memory?')
            self._context = context
            for item in (*spec.inputs, *spec.outputs):
                array = cuda.pinned(item.resolve(**sizes), item.dtype)
                (self._inputs if item in spec.inputs else self.outputs)[item.name] = array
                self._addresses[item.name] = cuda.allocate(max(array.nbytes, 1))
                if not context.set_tensor_address(item.name, self._addresses[item.name]):
                    raise BackendError(f'{name}: TensorRT takes no address for {item.name}')
        except BaseException:
            with suppress(BackendError):
                self.close()
            raise

    def infer(self, inputs: Mapping[str, np.ndarray]) -> None:
        """Copy inputs to pinned memory, run, and wait until the outputs are there."""
        for name, array in self._inputs.items():
            np.copyto(array, inputs[name])
        if self._executable is not None:
            self._cuda.launch(self._executable)
            self._cuda.synchronise()
            return
        self._queue()
        self._cuda.synchronise()
        if self._record:
            self._executable = self._recorded()

    def close(self) -> None:
        """Free everything but the outputs' memory, which goes with the arrays."""
        addresses, self._addresses = self._addresses, {}
        executable, self._executable = self._executable, None
        with ExitStack() as held:   # after an error of the device every one of them raises
            for address in addresses.values():
                held.callback(self._cuda.free, address)
            if executable is not None:
                held.callback(self._cuda.destroy, executable)
            self._context = self._engine = None
            self._inputs, self.outputs = {}, {}

    def _queue(self) -> None:
        for name, array in self._inputs.items():
            self._cuda.to_device(self._addresses[name], array)
        if not self._context.execute_async_v3(self._cuda.stream):
            raise BackendError(f'{self.name}: TensorRT did not run it')
        for name, array in self.outputs.items():
            self._cuda.to_host(array, self._addresses[name])

    def _recorded(self) -> Any:
        self._cuda.begin_capture()
        try:
            self._queue()
        except BaseException:
            self._cuda.abandon_capture()
            raise
        return self._cuda.end_capture()

    def _check(self, trt: ModuleType) -> None:
        """Hold the engine's tensors against the contract: names, types, shapes."""
        engine = self._engine
        names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
        inputs = [name for name in names
                  if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
        self.check_names(inputs, [name for name in names if name not in inputs])
        for item in (*self.spec.inputs, *self.spec.outputs):
            dtype = np.dtype(trt.nptype(engine.get_tensor_dtype(item.name)))
            shape = tuple(engine.get_tensor_shape(item.name))
            want = item.resolve(**self.sizes)
            if (dtype, shape) != (np.dtype(item.dtype), want):
                raise BackendError(f'{self.name}.{item.name}: the engine has {dtype} {shape}, want '
                                   f'{item.dtype} {want}')


def _import_tensorrt() -> ModuleType:
    try:
        trt = importlib.import_module('tensorrt')
    except (ImportError, OSError) as err:   # the bindings may be there without their libraries
        raise BackendError(f'tensorrt: {err}, want TensorRT {OLDEST[0]}.{OLDEST[1]} or newer'
                           ) from err
    try:
        version = tuple(int(part) for part in trt.__version__.split('.')[:2])
    except ValueError:
        version = (0, 0)
    if version < OLDEST:
        raise BackendError(f'tensorrt: version {trt.__version__}, want {OLDEST[0]}.{OLDEST[1]} or '
                           'newer')
    return trt


def _executed(trt: ModuleType, engine: Any) -> dict[str, int]:
    """Count heavy layers by the type of their first input, as the engine's inspector tells."""
    inspector = engine.create_engine_inspector()
    counts: Counter[str] = Counter()
    try:
        told = json.loads(inspector.get_engine_information(trt.LayerInformationFormat.JSON))
    except ValueError:  # what it tells is for people; the engine runs without
        return {'unknown': 1}
    for layer in told.get('Layers', ()):
        if not isinstance(layer, dict):     # names alone: another's engine, with less detail
            continue
        kind = f'{layer.get("LayerType", "")} {layer.get("TacticName", "")}'.lower()
        if not layer.get('Inputs') or not any(word in kind for word in _HEAVY):
            continue
        first = json.dumps(layer['Inputs'][0].get('Format/Datatype', '')).lower()
        counts[next((name for word, name in _TYPES.items() if word in first), 'unknown')] += 1
    return dict(counts)


def _buffer_bytes(spec: GraphSpec, sizes: Mapping[str, int]) -> int:
    return sum(int(np.prod(item.resolve(**sizes))) * np.dtype(item.dtype).itemsize
               for item in (*spec.inputs, *spec.outputs))


def _sizes(sizes: Mapping[str, int]) -> str:
    return f'{sizes.get("N", "any")} cameras and {sizes.get("P", "any")} plans'
