"""OpenVINO backend: the default where there is no accelerator."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import openvino as ov

from wm_ros.runtime.artifact import Artifact
from wm_ros.runtime.backend import BackendError, GraphBackend, LoadedGraph
from wm_ros.runtime.derived import check_form
from wm_ros.runtime.openvino_warp import rewrite_warps, split_at

#: Layer types, as the CPU plugin names them, whose precision says how a graph executes.
_HEAVY = ('Convolution', 'FullyConnected', 'MatMul', 'Deconvolution', 'ScaledDotProductAttention')
_ALIASES = {'i8': 'i8', 'u8': 'i8', 'f32': 'f32', 'f16': 'f16', 'bf16': 'bf16'}


class OpenVinoBackend(GraphBackend):
    """
    Runs each graph as one compiled model with its own buffers.

    Options: `device` ('CPU'), `encode_precision` ('f32'), `fold_precision`, `rollout_precision`
    ('auto'): what operations outside the quantised ones run in, 'f32', 'bf16' or 'f16'; 'auto' is
    bf16 where the device has it, else f32. Where the fold looks into its maps is always f32.
    """

    name = 'openvino'
    OPTIONS = {'device': 'CPU', 'encode_precision': 'f32', 'fold_precision': 'auto',
               'rollout_precision': 'auto'}

    def prepare(self, artifact: Artifact) -> None:
        """Start the library; it runs the artifact as exported."""
        check_form(artifact, self.name, '')
        self._core = ov.Core()

    def open(self, graph: str, artifact: Artifact, sizes: Mapping[str, int]) -> LoadedGraph:
        """Compile one graph for static sizes."""
        config = {'INFERENCE_PRECISION_HINT': self._precision(graph),
                  'INFERENCE_NUM_THREADS': self.threads, 'NUM_STREAMS': '1',
                  'PERFORMANCE_HINT': 'LATENCY', 'ENABLE_CPU_PINNING': False}
        return _Graph(self._core, graph, artifact, sizes, self.options['device'], config)

    def _precision(self, graph: str) -> str:
        wanted = self.options[f'{graph}_precision']
        if wanted != 'auto':
            return wanted
        able = self._core.get_property(self.options['device'], 'OPTIMIZATION_CAPABILITIES')
        return 'bf16' if 'BF16' in able else 'f32'


class _Graph(LoadedGraph):
    """One graph with its requests: one compiled model, or two where the precision changes."""

    def __init__(self, core: ov.Core, graph: str, artifact: Artifact, sizes: Mapping[str, int],
                 device: str, config: dict[str, Any]) -> None:
        super().__init__(graph, artifact.specs[graph], sizes)
        model = core.read_model(artifact.graph(graph))
        self.check_names([port.get_any_name() for port in model.inputs],
                         [port.get_any_name() for port in model.outputs])
        model.reshape({item.name: ov.PartialShape(list(item.resolve(**sizes)))
                       for item in self.spec.inputs})
        self._requests = []
        makers: dict[str, ov.InferRequest] = {}
        self._takers: dict[str, list[ov.InferRequest]] = {}
        self.kernels = Counter()
        for part, changed in _parts(model, config):
            compiled = core.compile_model(part, device, {**config, **changed})
            self.kernels += executed_kernels(compiled)
            request = compiled.create_infer_request()
            for name in _names(compiled.inputs):
                self._takers.setdefault(name, []).append(request)
                if name in makers:
                    request.set_tensor(name, makers[name].get_tensor(name))
            makers.update(dict.fromkeys(_names(compiled.outputs), request))
            self._requests.append(request)
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
        for request in self._requests:
            request.infer()


def _parts(model: ov.Model, config: Mapping[str, Any]) -> list[tuple[ov.Model, dict[str, str]]]:
    """Return the models that make up a graph, in order, each with what changes in `config`."""
    warped = rewrite_warps(model)
    if not warped or config['INFERENCE_PRECISION_HINT'] == 'f32':
        return [(model, {})]
    # With the 8 bits of bf16 the places that are read would be up to a third of a cell off.
    before, after = split_at(model, warped[0])
    return [(before, {'INFERENCE_PRECISION_HINT': 'f32'}), (after, {})]


def _names(ports: list[ov.ConstOutput]) -> list[str]:
    return [name for port in ports for name in port.get_names()]


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
