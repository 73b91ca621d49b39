"""
Stand-ins for `tensorrt` and `cuda.bindings`, for a machine that has neither, nor a GPU.

They expose what the real bindings of one version expose (test/data/tensorrt_api), so that a call
which a version lacks is an AttributeError, as there. Memory and copies are real; an "engine" is
the ONNX graph itself, run by ONNX Runtime when its context is enqueued or a recorded graph is
launched. `events` is what happened, in order.
"""

from __future__ import annotations

import ctypes
import json
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import onnx
import onnxruntime as ort
from cuda_stand_in import cuda_module

DATA = Path(__file__).resolve().parent / 'data' / 'tensorrt_api'
TENSORRT = json.loads((DATA / 'tensorrt.json').read_text())
TENSORRT_VERSIONS = ('10.3', '10.13', '10.16', '11.4')


def listed(kind: str, version: str) -> set[str]:
    """Return what one version of TensorRT exposes under a key of the list."""
    return {name for versions, names in TENSORRT[kind].items() if version in versions.split()
            for name in names.split()}


class World:
    """One machine: its GPU, its versions, its memory, and what happened on it."""

    def __init__(self, tensorrt: str = '10.3', cuda: str = '12.9', gpu: str = 'Orin',
                 capability: tuple[int, int] = (8, 7), multiprocessors: int = 16) -> None:
        self.tensorrt, self.cuda, self.gpu, self.capability = tensorrt, cuda, gpu, capability
        self.multiprocessors = multiprocessors
        self.events: list[tuple] = []
        self.memory: dict[int, ctypes.Array] = {}
        self.free_bytes = 1 << 33
        self.engine_bytes = 1 << 20
        self.recording: list | None = None
        self.told = ''      # by the inspector, instead of the usual
        self.refuse_parse = self.refuse_build = self.unreadable = False

    def count(self, kind: str) -> int:
        """Return how often something happened."""
        return sum(event[0] == kind for event in self.events)

    def install(self, monkeypatch) -> World:
        """Make `import tensorrt` and `from cuda.bindings import runtime` give the stand-ins."""
        bindings = ModuleType('cuda.bindings')
        bindings.runtime = cuda_module(self)
        monkeypatch.setitem(sys.modules, 'tensorrt', tensorrt_module(self))
        monkeypatch.setitem(sys.modules, 'cuda', ModuleType('cuda'))
        monkeypatch.setitem(sys.modules, 'cuda.bindings', bindings)
        monkeypatch.setitem(sys.modules, 'cuda.bindings.runtime', bindings.runtime)
        return self


class Held:
    """An object that shows only what its version's bindings list for its class."""

    def __init__(self, world: World, kind: str) -> None:
        object.__setattr__(self, '_world', world)
        object.__setattr__(self, '_names', listed(kind, world.tensorrt))
        object.__setattr__(self, '_kind', kind)

    def _refuse(self, name: str) -> None:
        if not name.startswith('_') and name not in self._names:
            raise AttributeError(f'TensorRT {self._world.tensorrt}: {self._kind} has no {name}')

    def __getattribute__(self, name: str):
        if not name.startswith('_'):
            object.__getattribute__(self, '_refuse')(name)
        return object.__getattribute__(self, name)

    def __setattr__(self, name: str, value: object) -> None:
        self._refuse(name)
        object.__setattr__(self, name, value)


class Listed:
    """An enumeration, or the module, of one version."""

    def __init__(self, version: str, kind: str, values: dict) -> None:
        self.__dict__.update({name: value for name, value in values.items()
                              if name in listed(kind, version)})
        self._version, self._kind = version, kind
        self.__version__, self.__spec__ = f'{version}.0', ModuleSpec(kind, None)

    def __getattr__(self, name: str):
        raise AttributeError(f'TensorRT {self._version}: {self._kind} has no {name}')


def tensorrt_module(world: World) -> Listed:
    """Return a stand-in for `tensorrt`."""
    version = world.tensorrt

    class Callback:
        def __init__(self):
            pass

    class ILogger(Callback):
        Severity = SimpleNamespace(INTERNAL_ERROR=0, ERROR=1, WARNING=2, INFO=3, VERBOSE=4)

    class Network(Held):
        def __init__(self, flags):
            super().__init__(world, 'cls_INetworkDefinition')
            self._model = None
            world.events.append(('network', flags))

    class Parser(Held):
        num_errors = 1

        def __init__(self, network, logger):
            super().__init__(world, 'cls_OnnxParser')
            self._network = network

        def parse(self, data):
            world.events.append(('parse', len(data)))
            self._network._model = data
            return not world.refuse_parse

        def get_error(self, index):
            return 'node 3 (Frobnicate): no importer'

    class Cache:
        def __init__(self, data):
            self.data = data

        def serialize(self):
            return self.data + b'+'

    class Config(Held):
        def __init__(self):
            super().__init__(world, 'cls_IBuilderConfig')

        def set_memory_pool_limit(self, pool, size):
            world.events.append(('pool', size))

        def clear_flag(self, flag):
            world.events.append(('clear_flag', flag))

        def create_timing_cache(self, data):
            world.events.append(('timing_cache', data))
            return Cache(data)

        def set_timing_cache(self, cache, ignore_mismatch):
            assert not ignore_mismatch
            self._cache = cache

        def get_timing_cache(self):
            return self._cache

    class Builder(Held):
        def __init__(self, logger):
            super().__init__(world, 'cls_Builder')
            self._logger = logger

        def create_network(self, flags):
            return Network(flags)

        def create_builder_config(self):
            return Config()

        def build_serialized_network(self, network, config):
            world.events.append(('build', config.builder_optimization_level))
            monitor = config.progress_monitor
            monitor.phase_start('Building the engine', None, 20)
            monitor.phase_start('Timing', 'Building the engine', 3)
            assert monitor.step_complete('Timing', 0)
            if not all(monitor.step_complete('Building the engine', step) for step in range(20)):
                return None
            monitor.phase_finish('Building the engine')
            if world.refuse_build:
                self._logger.log(ILogger.Severity.ERROR, 'no tactic for Conv_7')
                return None
            return b'plan' + network._model

    class Runtime(Held):
        def __init__(self, logger):
            super().__init__(world, 'cls_Runtime')
            self._logger = logger
            if world.capability < (7, 5):
                raise TypeError('pybind11::init(): factory function returned nullptr')

        def deserialize_cuda_engine(self, plan):
            world.events.append(('deserialise', len(plan)))
            if world.unreadable or not plan.startswith(b'plan'):
                world.unreadable = False
                self._logger.log(ILogger.Severity.ERROR, 'magic tag does not match')
                return None
            return Engine(plan[4:])

    class Inspector:
        def get_engine_information(self, form):
            def layer(kind, tactic, *types):
                return {'LayerType': kind, 'TacticName': tactic,
                        'Inputs': [{'Format/Datatype': text} for text in types]}
            return world.told or json.dumps({'Layers': [
                layer('CaskConvolution', 'sm80_xmma_fprop', 'Thirty-two wide channel Int8', 'x'),
                layer('gemm', 'sm80_gemm_i8', 'Row major Int8'),
                layer('kgen', '__myl_MatMul', 'Row major Half'),
                layer('Reformat', 'reformat', 'Row major FP32'), 'a name alone']})

    class Engine(Held):
        def __init__(self, data):
            super().__init__(world, 'cls_ICudaEngine')
            self._data = data
            graph = onnx.load_from_string(data).graph
            self._inputs = [item.name for item in graph.input]
            self._tensors = {item.name: item.type.tensor_type
                             for item in (*graph.input, *graph.output)}

        @property
        def num_io_tensors(self):
            return len(self._tensors)

        @property
        def device_memory_size_v2(self):
            return world.engine_bytes

        def get_tensor_name(self, index):
            return list(self._tensors)[index]

        def get_tensor_mode(self, name):
            return 'in' if name in self._inputs else 'out'

        def get_tensor_dtype(self, name):
            return self._tensors[name].elem_type

        def get_tensor_shape(self, name):
            return tuple(dim.dim_value for dim in self._tensors[name].shape.dim)

        def create_engine_inspector(self):
            return Inspector()

        def create_execution_context(self):
            world.events.append(('context',))
            return Context(self)

    class Context(Held):
        def __init__(self, engine):
            super().__init__(world, 'cls_IExecutionContext')
            options = ort.SessionOptions()
            # Its optimiser misreads FP16 scales (1.31).
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
            options.intra_op_num_threads = 1
            options.log_severity_level = 3
            self._engine, self._addresses = engine, {}
            self._session = ort.InferenceSession(engine._data, options,
                                                 providers=['CPUExecutionProvider'])

        def set_tensor_address(self, name, address):
            assert address in world.memory, f'{name}: {address} is no device memory'
            world.events.append(('address', name))
            self._addresses[name] = address
            return True

        def execute_async_v3(self, stream):
            engine = self._engine
            assert stream == 7, f'enqueued on stream {stream}'
            assert set(self._addresses) == set(engine._tensors), 'enqueued before addresses'
            world.events.append(('enqueue', world.recording is not None))
            if world.recording is None:
                self._run()
            else:
                world.recording.append(self._run)
            return True

        def _run(self):
            arrays = {name: self._array(name) for name in self._engine._tensors}
            outputs = [item.name for item in self._session.get_outputs()]
            made = self._session.run(outputs, {name: arrays[name].copy()
                                               for name in self._engine._inputs})
            for name, value in zip(outputs, made, strict=True):
                arrays[name][...] = value

        def _array(self, name):
            dtype = onnx.helper.tensor_dtype_to_np_dtype(self._engine._tensors[name].elem_type)
            shape = self._engine.get_tensor_shape(name)
            size = int(np.prod(shape)) * dtype.itemsize
            block = (ctypes.c_byte * size).from_address(self._addresses[name])
            return np.frombuffer(block, dtype).reshape(shape)

    def enum(kind, base):
        return Listed(version, kind, {name: base + i for i, name in
                                      enumerate(sorted(listed(kind, version)))})

    return Listed(version, 'top', {
        'ILogger': ILogger, 'IProgressMonitor': Callback, 'Builder': Builder,
        'OnnxParser': Parser, 'Runtime': Runtime,
        'NetworkDefinitionCreationFlag': enum('NetworkDefinitionCreationFlag', 0),
        'BuilderFlag': Listed(version, 'BuilderFlag',
                              {name: name for name in listed('BuilderFlag', version)}),
        'MemoryPoolType': enum('MemoryPoolType', 0),
        'ProfilingVerbosity': SimpleNamespace(DETAILED=2),
        'TensorIOMode': SimpleNamespace(INPUT='in', OUTPUT='out'),
        'LayerInformationFormat': SimpleNamespace(JSON=1),
        'nptype': onnx.helper.tensor_dtype_to_np_dtype})
