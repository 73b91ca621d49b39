"""OpenVINO backend: the default where there is no accelerator."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import openvino as ov

from wm_ros.runtime.artifact import Artifact
from wm_ros.runtime.backend import BackendError, check_inputs, summarise, take_options
from wm_ros.runtime.contract import GRAPHS, GraphSpec

#: Layer types, as the CPU plugin names them, whose precision says how a graph executes.
_HEAVY = ('Convolution', 'FullyConnected', 'MatMul', 'Deconvolution', 'ScaledDotProductAttention')
_ALIASES = {'i8': 'i8', 'u8': 'i8', 'f32': 'f32', 'f16': 'f16', 'bf16': 'bf16'}


class OpenVinoBackend:
    """
    Runs each graph as one compiled model with its own buffers.

    Options: `device` ('CPU'), `encode_precision`, `fold_precision`, `rollout_precision`
    ('f32', 'bf16', 'f16'): what operations outside the quantised ones run in. OpenVINO's own
    default is bf16 where the CPU has it, so it is always set.
    """

    name = 'openvino'

    def __init__(self, threads: int, options: Mapping[str, Any]) -> None:
        self._options = take_options(self.name, options, {
            'device': 'CPU', 'encode_precision': 'f32', 'fold_precision': 'f32',
            'rollout_precision': 'f32'})
        self._threads = threads
        self.precision: dict[str, str] = {}
        self._graphs: dict[str, _Graph] = {}

    def load(self, artifact: Artifact, sizes: Mapping[str, int]) -> None:
        """Compile the three graphs for static sizes."""
        core = ov.Core()
        for graph in GRAPHS:
            config = {'INFERENCE_PRECISION_HINT': self._options[f'{graph}_precision'],
                      'INFERENCE_NUM_THREADS': self._threads, 'NUM_STREAMS': '1',
                      'PERFORMANCE_HINT': 'LATENCY', 'ENABLE_CPU_PINNING': False}
            try:
                self._graphs[graph] = _Graph(core, graph, artifact, sizes,
                                             self._options['device'], config)
            except RuntimeError as err:
                raise BackendError(f'openvino: {artifact.path}: {graph}: {err}') from err
            self.precision[graph] = self._graphs[graph].precision

    def run(self, graph: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run one graph; the outputs are written into arrays that stay the same."""
        return self._graphs[graph].run(inputs)

    def close(self) -> None:
        """Free the compiled graphs."""
        self._graphs.clear()


class _Graph:
    """One compiled graph with its request and output arrays."""

    def __init__(self, core: ov.Core, graph: str, artifact: Artifact, sizes: Mapping[str, int],
                 device: str, config: dict[str, Any]) -> None:
        self._name, self._sizes = graph, dict(sizes)
        self._spec: GraphSpec = artifact.specs[graph]
        model = core.read_model(artifact.graph(graph))
        _check_names(graph, [port.get_any_name() for port in model.inputs],
                     [item.name for item in self._spec.inputs])
        _check_names(graph, [port.get_any_name() for port in model.outputs],
                     [item.name for item in self._spec.outputs])
        model.reshape({item.name: ov.PartialShape(list(item.resolve(**sizes)))
                       for item in self._spec.inputs})
        compiled = core.compile_model(model, device, config)
        self.precision = _executed_precision(compiled)
        self._request = compiled.create_infer_request()
        self._outputs: dict[str, np.ndarray] = {}
        for item in self._spec.outputs:
            shape = tuple(compiled.output(item.name).shape)
            if shape != item.resolve(**sizes):
                raise BackendError(f'openvino: {graph}.{item.name}: {shape}, '
                                   f'want {item.resolve(**sizes)}')
            self._outputs[item.name] = np.zeros(shape, dtype=item.dtype)
            self._request.set_tensor(
                item.name, ov.Tensor(self._outputs[item.name], shared_memory=True))
        self._inputs: dict[str, np.ndarray] = {}

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        check_inputs(self._name, self._spec, inputs, self._sizes)
        for item in self._spec.inputs:
            array = inputs[item.name]
            known = self._inputs.get(item.name)
            # Binding costs more than comparing; the predictor hands in the same arrays again.
            if known is None or known.ctypes.data != array.ctypes.data:
                self._request.set_tensor(item.name, ov.Tensor(array, shared_memory=True))
            self._inputs[item.name] = array  # keeps the memory alive as long as it is bound
        self._request.infer()
        return self._outputs


def _check_names(graph: str, found: list[str], wanted: list[str]) -> None:
    if sorted(found) != sorted(wanted):
        raise BackendError(f'openvino: {graph} has {", ".join(found)}, want {", ".join(wanted)}')


def _executed_precision(compiled: ov.CompiledModel) -> str:
    """Return the precisions of the heavy layers as the plugin runs them."""
    counts: Counter[str] = Counter()
    for operation in compiled.get_runtime_model().get_ops():
        info = operation.get_rt_info()
        if str(_info(info, 'layerType')) in _HEAVY:
            found = str(_info(info, 'runtimePrecision')).lower()
            counts[_ALIASES.get(found, found)] += 1
    if not counts:
        return str(compiled.get_property('INFERENCE_PRECISION_HINT').get_type_name())
    return summarise(counts)


def _info(info: Any, key: str) -> Any:
    value = info[key] if key in info else ''
    return value.value if hasattr(value, 'value') else value
