"""OpenVINO backend: the default where there is no accelerator."""

from __future__ import annotations

import ctypes
import gc
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import openvino as ov

from wm_ros.runtime.artifact import Artifact
from wm_ros.runtime.backend import BackendError, GraphBackend, LoadedGraph
from wm_ros.runtime.derived import check_form
from wm_ros.runtime.openvino_resize import last_resizes, resize
from wm_ros.runtime.openvino_split import Cut, split_at
from wm_ros.runtime.openvino_warp import rewrite_warps

#: Layer types, as the CPU plugin names them, whose precision says how a graph executes.
_HEAVY = ('Convolution', 'FullyConnected', 'MatMul', 'Deconvolution', 'ScaledDotProductAttention')
_ALIASES = {'i8': 'i8', 'u8': 'i8', 'f32': 'f32', 'f16': 'f16', 'bf16': 'bf16'}


class OpenVinoBackend(GraphBackend):
    """
    Runs each graph as one compiled model with its own buffers.

    Options: `device` ('CPU'), `encode_precision` and `fold_precision` ('f32'), `rollout_precision`
    ('auto'): what operations outside the quantised ones run in, 'f32', 'bf16' or 'f16'; 'auto' is
    bf16 where the device has it, else f32, as for a graph exported in float32. Where the fold
    looks into its maps is always f32; the rest of it in bf16 is no faster and takes 35 MB.
    """

    name = 'openvino'
    OPTIONS = {'device': 'CPU', 'encode_precision': 'f32', 'fold_precision': 'f32',
               'rollout_precision': 'auto'}

    def prepare(self, artifact: Artifact) -> None:
        """Start the library; it runs the artifact as exported."""
        check_form(artifact, self.name, '')
        self._core = ov.Core()

    def open(self, graph: str, artifact: Artifact, sizes: Mapping[str, int]) -> LoadedGraph:
        """Compile one graph for static sizes."""
        config = {'INFERENCE_PRECISION_HINT': self._precision(graph, artifact),
                  'INFERENCE_NUM_THREADS': self.threads, 'NUM_STREAMS': '1',
                  'PERFORMANCE_HINT': 'LATENCY', 'ENABLE_CPU_PINNING': False}
        opened = _Graph(self._core, graph, artifact, sizes, self.options['device'], config)
        give_back_memory()
        return opened

    def _precision(self, graph: str, artifact: Artifact) -> str:
        wanted = self.options[f'{graph}_precision']
        if wanted != 'auto':
            return wanted
        if artifact.precision[graph] == 'float32':  # exported to be compared with
            return 'f32'
        able = self._core.get_property(self.options['device'], 'OPTIMIZATION_CAPABILITIES')
        return 'bf16' if 'BF16' in able else 'f32'


class _Graph(LoadedGraph):
    """One graph: one compiled model, or two with a change of precision or OpenCV in between."""

    def __init__(self, core: ov.Core, graph: str, artifact: Artifact, sizes: Mapping[str, int],
                 device: str, config: dict[str, Any]) -> None:
        super().__init__(graph, artifact.specs[graph], sizes)
        model = core.read_model(artifact.graph(graph))
        self.check_names([port.get_any_name() for port in model.inputs],
                         [port.get_any_name() for port in model.outputs])
        model.reshape({item.name: ov.PartialShape(list(item.resolve(**sizes)))
                       for item in self.spec.inputs})
        self._requests = []
        self._takers: dict[str, list[ov.InferRequest]] = {}
        makers: dict[str, ov.InferRequest] = {}
        self.kernels = Counter()
        parts, self._resizes = _parts(model, config)
        for part, changed in parts:
            compiled = core.compile_model(part, device, {**config, **changed})
            self.kernels += executed_kernels(compiled)
            request = compiled.create_infer_request()
            for name in _names(compiled.inputs):
                self._takers.setdefault(name, []).append(request)
                if name in makers:
                    request.set_tensor(name, makers[name].get_tensor(name))
            makers.update(dict.fromkeys(_names(compiled.outputs), request))
            self._requests.append(request)
        self._resizes = [(makers[small].get_tensor(small).data,
                          self._takers[large][0].get_tensor(large).data)
                         for small, large in self._resizes]
        for name, array in self.outputs.items():
            shape = tuple(makers[name].get_tensor(name).shape)
            if shape != array.shape:
                raise BackendError(f'{name}: {shape}, want {array.shape}')
            makers[name].set_tensor(name, ov.Tensor(array, shared_memory=True))
        self._bound: dict[str, np.ndarray] = {}

    def infer(self, inputs: Mapping[str, np.ndarray]) -> None:
        for item in self.spec.inputs:
            array = inputs[item.name]
            known = self._bound.get(item.name)
            # Binding costs more than comparing; the predictor hands in the same arrays again.
            if known is None or known.ctypes.data != array.ctypes.data:
                tensor = ov.Tensor(array, shared_memory=True)
                for request in self._takers[item.name]:
                    request.set_tensor(item.name, tensor)
            self._bound[item.name] = array  # keeps the memory alive as long as it is bound
        first, *others = self._requests
        first.infer()
        for small, large in self._resizes:
            resize(small, large)
        for request in others:
            request.infer()


def _parts(model: ov.Model, config: Mapping[str, Any]
           ) -> tuple[list[tuple[ov.Model, dict[str, str]]], list[tuple[str, str]]]:
    """
    Return the models that make up a graph, in order, each with what changes in `config`.

    Beside them by name the maps that are resized between the first and the second.
    """
    plain = {'INFERENCE_PRECISION_HINT': 'f32'}
    warped = rewrite_warps(model)
    if warped and config['INFERENCE_PRECISION_HINT'] != 'f32':
        # With the 8 bits of bf16 the places that are read would be up to a third of a cell off.
        cut = Cut(warped[0], warped[0], 'warped', 'warped')
        before, after = split_at(model, [cut])
        return [(before, plain), (after, {})], []
    cuts = [Cut(node.input_value(0), node.output(0), f'small{i}', f'large{i}')
            for i, node in enumerate(last_resizes(model))]
    if not cuts:
        return [(model, {})], []
    before, after = split_at(model, cuts)
    return [(before, {}), (after, plain)], [(cut.gives, cut.takes) for cut in cuts]


def _names(ports: list[ov.ConstOutput]) -> list[str]:
    return [name for port in ports for name in port.get_names()]


def give_back_memory() -> None:
    """
    Return freed memory to the system, where the C library can (glibc).

    Compiling takes some 20 MB a graph that it frees, and that would stay with the process.
    """
    gc.collect()
    trim = getattr(ctypes.CDLL(None), 'malloc_trim', None)
    if trim:
        trim(0)


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
