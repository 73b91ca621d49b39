"""ONNX Runtime backend: any execution provider, plain CPU by default."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from wm_ros.runtime.artifact import Artifact
from wm_ros.runtime.backend import BackendError, check_inputs, summarise, take_options
from wm_ros.runtime.contract import GRAPHS, GraphSpec

_INT8_OPS = ('QLinearConv', 'QLinearMatMul', 'QGemm', 'MatMulInteger', 'ConvInteger',
             'MatMulIntegerToFloat', 'DynamicQuantizeMatMul', 'QAttention')
_FLOAT_OPS = ('Conv', 'FusedConv', 'NhwcFusedConv', 'MatMul', 'FusedMatMul', 'Gemm', 'FusedGemm',
              'Attention', 'MultiHeadAttention', 'ConvTranspose')


class OnnxRuntimeBackend:
    """
    Runs each graph as one session with bound buffers.

    Options: `providers`, a list of execution provider names, tried in order
    (['CPUExecutionProvider']).
    """

    name = 'onnxruntime'

    def __init__(self, threads: int, options: Mapping[str, Any]) -> None:
        self._options = take_options(self.name, options, {'providers': ['CPUExecutionProvider']})
        self._threads = threads
        self.precision: dict[str, str] = {}
        self._graphs: dict[str, _Graph] = {}

    def load(self, artifact: Artifact, sizes: Mapping[str, int]) -> None:
        """Create the three sessions for static sizes and run each once to see its kernels."""
        providers = list(self._options['providers'])
        absent = [name for name in providers if name not in ort.get_available_providers()]
        if absent:
            raise BackendError(f'onnxruntime: no provider {", ".join(absent)}, want some of '
                               f'{", ".join(ort.get_available_providers())}')
        for graph in GRAPHS:
            try:
                self._graphs[graph] = _Graph(graph, artifact, sizes, self._threads, providers)
            except BackendError:
                raise
            except Exception as err:  # its errors share no base class but Exception
                raise BackendError(f'onnxruntime: {artifact.path}: {graph}: {err}') from err
            self.precision[graph] = self._graphs[graph].precision

    def run(self, graph: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run one graph; the outputs are written into arrays that stay the same."""
        return self._graphs[graph].run(inputs)

    def close(self) -> None:
        """Free the sessions."""
        self._graphs.clear()


class _Graph:
    """One session with its binding and output arrays."""

    def __init__(self, graph: str, artifact: Artifact, sizes: Mapping[str, int], threads: int,
                 providers: list[str]) -> None:
        self._name, self._sizes = graph, dict(sizes)
        self._spec: GraphSpec = artifact.specs[graph]
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # Three sessions that spin take each other's cores: 176 ms instead of 48 for one frame.
        options.add_session_config_entry('session.intra_op.allow_spinning', '0')
        for letter, size in sizes.items():
            options.add_free_dimension_override_by_name(letter, size)
        options.log_severity_level = 3
        with tempfile.TemporaryDirectory(prefix='wm_ros_') as folder:
            options.enable_profiling = True
            options.profile_file_prefix = str(Path(folder) / graph)
            self._session = ort.InferenceSession(artifact.graph(graph), options,
                                                 providers=providers)
            self._check_names()
            self._binding = self._session.io_binding()
            self._outputs = {item.name: np.zeros(item.resolve(**sizes), dtype=item.dtype)
                             for item in self._spec.outputs}
            for name, array in self._outputs.items():
                self._binding.bind_output(name, 'cpu', 0, array.dtype, array.shape,
                                          array.ctypes.data)
            self._inputs: dict[str, np.ndarray] = {}
            self.run({item.name: np.zeros(item.resolve(**sizes), dtype=item.dtype)
                      for item in self._spec.inputs})
            self.precision = _executed_precision(Path(self._session.end_profiling()))

    def _check_names(self) -> None:
        for kind, found, wanted in (('input', self._session.get_inputs(), self._spec.inputs),
                                    ('output', self._session.get_outputs(), self._spec.outputs)):
            names, want = [item.name for item in found], [item.name for item in wanted]
            if sorted(names) != sorted(want):
                raise BackendError(f'onnxruntime: {self._name} has {kind}s {", ".join(names)}, '
                                   f'want {", ".join(want)}')

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        check_inputs(self._name, self._spec, inputs, self._sizes)
        for item in self._spec.inputs:
            array = inputs[item.name]
            self._binding.bind_input(item.name, 'cpu', 0, array.dtype, array.shape,
                                     array.ctypes.data)
            self._inputs[item.name] = array  # keeps the memory alive as long as it is bound
        self._session.run_with_iobinding(self._binding)
        return self._outputs


def _executed_precision(profile: Path) -> str:
    """Return the precisions of the heavy kernels in a profile of one run."""
    counts: Counter[str] = Counter()
    for event in json.loads(profile.read_text()):
        operation = event.get('args', {}).get('op_name', '')
        if event.get('cat') == 'Node' and operation in _INT8_OPS:
            counts['i8'] += 1
        elif event.get('cat') == 'Node' and operation in _FLOAT_OPS:
            counts['f32'] += 1
    return summarise(counts)
