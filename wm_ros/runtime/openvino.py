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

#: Layer types, as the CPU plugin names them, whose precision says how a graph executes.
_HEAVY = ('Convolution', 'FullyConnected', 'MatMul', 'Deconvolution', 'ScaledDotProductAttention')
_ALIASES = {'i8': 'i8', 'u8': 'i8', 'f32': 'f32', 'f16': 'f16', 'bf16': 'bf16'}


class OpenVinoBackend(GraphBackend):
    """
    Runs each graph as one compiled model with its own buffers.

    Options: `device` ('CPU'), `encode_precision`, `fold_precision`, `rollout_precision`
    ('f32', 'bf16', 'f16'): what operations outside the quantised ones run in. OpenVINO's own
    default is bf16 where the CPU has it, so it is always set.
    """

    name = 'openvino'
    OPTIONS = {'device': 'CPU', 'encode_precision': 'f32', 'fold_precision': 'f32',
               'rollout_precision': 'f32'}

    def prepare(self, artifact: Artifact) -> None:
        """Start the library; it runs the artifact as exported."""
        check_form(artifact, self.name, '')
        self._core = ov.Core()

    def open(self, graph: str, artifact: Artifact, sizes: Mapping[str, int]) -> LoadedGraph:
        """Compile one graph for static sizes."""
        config = {'INFERENCE_PRECISION_HINT': self.options[f'{graph}_precision'],
                  'INFERENCE_NUM_THREADS': self.threads, 'NUM_STREAMS': '1',
                  'PERFORMANCE_HINT': 'LATENCY', 'ENABLE_CPU_PINNING': False}
        return _Graph(self._core, graph, artifact, sizes, self.options['device'], config)


class _Graph(LoadedGraph):
    """One compiled graph with its request."""

    def __init__(self, core: ov.Core, graph: str, artifact: Artifact, sizes: Mapping[str, int],
                 device: str, config: dict[str, Any]) -> None:
        super().__init__(graph, artifact.specs[graph], sizes)
        model = core.read_model(artifact.graph(graph))
        self.check_names([port.get_any_name() for port in model.inputs],
                         [port.get_any_name() for port in model.outputs])
        model.reshape({item.name: ov.PartialShape(list(item.resolve(**sizes)))
                       for item in self.spec.inputs})
        compiled = core.compile_model(model, device, config)
        self.kernels = executed_kernels(compiled)
        self._request = compiled.create_infer_request()
        for name, array in self.outputs.items():
            shape = tuple(compiled.output(name).shape)
            if shape != array.shape:
                raise BackendError(f'{name}: {shape}, want {array.shape}')
            self._request.set_tensor(name, ov.Tensor(array, shared_memory=True))
        self._bound: dict[str, np.ndarray] = {}

    def infer(self, inputs: Mapping[str, np.ndarray]) -> None:
        for item in self.spec.inputs:
            array = inputs[item.name]
            known = self._bound.get(item.name)
            # Binding costs more than comparing; the predictor hands in the same arrays again.
            if known is None or known.ctypes.data != array.ctypes.data:
                self._request.set_tensor(item.name, ov.Tensor(array, shared_memory=True))
            self._bound[item.name] = array  # keeps the memory alive as long as it is bound
        self._request.infer()


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
