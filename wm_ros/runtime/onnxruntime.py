"""
ONNX Runtime backend: any execution provider, plain CPU by default.

On the CPU it runs the artifact's form `ort-u8s8`, whose kernels are int8 there; every other
provider gets the graphs as exported, symmetric int8.
"""

from __future__ import annotations

import importlib.util
import json
import platform
import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from wm_ros.runtime.artifact import Artifact
from wm_ros.runtime.backend import BackendError, GraphBackend, LoadedGraph
from wm_ros.runtime.derived import check_form, find_form, form_of, form_path

CPU = 'CPUExecutionProvider'
U8S8 = 'ort-u8s8'
_SUFFIX = 'ExecutionProvider'
_INT8_OPS = ('QLinearConv', 'QLinearMatMul', 'QGemm', 'MatMulInteger', 'ConvInteger',
             'MatMulIntegerToFloat', 'DynamicQuantizeMatMul', 'QAttention')
_FLOAT_OPS = ('Conv', 'FusedConv', 'NhwcFusedConv', 'MatMul', 'FusedMatMul', 'Gemm', 'FusedGemm',
              'Attention', 'MultiHeadAttention', 'ConvTranspose')


class OnnxRuntimeBackend(GraphBackend):
    """
    Runs each graph as one session with bound buffers.

    Options: `providers`, names of execution providers in the order of preference, in full or as
    in 'cpu', 'cuda', 'qnn', 'tensorrt' (['cpu']); `provider_options`, a dictionary of options for
    each of them by the same name.
    """

    name = 'onnxruntime'
    OPTIONS = {'providers': ('cpu',), 'provider_options': {}}

    def prepare(self, artifact: Artifact) -> None:
        """Find the providers and the form of the graphs that the first of them wants."""
        wanted = self.options['providers']
        names = [_full_name(name) for name in ([wanted] if isinstance(wanted, str) else wanted)]
        settings = {_full_name(name): dict(value)
                    for name, value in self.options['provider_options'].items()}
        available = ort.get_available_providers()
        for name in (*names, *settings):
            if name not in available:
                raise BackendError(f'onnxruntime: no provider {name}, want some of '
                                   f'{", ".join(available)}')
        if not names or set(settings) - set(names):
            raise BackendError(f'onnxruntime: options for {", ".join(settings) or "nothing"}, '
                               f'want some of the providers {", ".join(names) or "(none)"}')
        self.providers = [(name, settings.get(name, {})) for name in names]
        self._form, self._derive = artifact, False
        if names[0] != CPU:
            check_form(artifact, f'onnxruntime with {names[0]}', '')
            return
        check_form(artifact, 'onnxruntime', '', U8S8)
        reason = self._find_form(artifact)
        if reason and form_of(artifact):
            raise BackendError(f'onnxruntime: {artifact.path}: {reason}; want the artifact as '
                               'exported')
        if reason:
            self.notes.append(f'{reason}; the graphs run as exported, mostly in float')

    def _find_form(self, artifact: Artifact) -> str:
        """Take the form with int8 kernels, stored or made now; return why not, '' where taken."""
        if overflows():
            return 'sums of uint8 x int8 products overflow on this CPU, which has no VNNI'
        stored = find_form(artifact, U8S8)
        if stored is not None:
            self._form = stored
        elif importlib.util.find_spec('onnx') is not None:
            self._derive = True     # takes a fifth of a second, and is the same every time
        else:
            return (f'{artifact.path} has no form {U8S8} beside it and onnx, which makes it, is '
                    f'not installed (elsewhere: wm_ros derive {artifact.path} --form {U8S8} '
                    f'--out {form_path(artifact.path, U8S8)})')
        return ''

    def open(self, graph: str, artifact: Artifact, sizes: Mapping[str, int]) -> LoadedGraph:
        """Create the session of one graph and run it once to see its kernels."""
        data = self._form.graph(graph)
        if self._derive:
            import onnx

            from wm_ros.export.derive_ort import derive_graph
            data = derive_graph(graph, onnx.load_from_string(data), {}).SerializeToString()
        u8s8 = self._derive or form_of(self._form) == U8S8
        opened = _Graph(graph, data, artifact, sizes, self.threads, self.providers, u8s8)
        if self.providers[0][0] not in opened.ran_by:
            self.notes.append(f'{graph}: {self.providers[0][0]} took no part of it, '
                              f'{", ".join(sorted(opened.ran_by))} runs it')
        return opened


class _Graph(LoadedGraph):
    """One session with its binding."""

    def __init__(self, graph: str, data: bytes, artifact: Artifact, sizes: Mapping[str, int],
                 threads: int, providers: list[tuple[str, dict]], u8s8: bool) -> None:
        super().__init__(graph, artifact.specs[graph], sizes)
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # Three sessions that spin take each other's cores: 176 ms instead of 48 for one frame.
        options.add_session_config_entry('session.intra_op.allow_spinning', '0')
        for letter, size in sizes.items():
            options.add_free_dimension_override_by_name(letter, size)
        options.log_severity_level = 3
        # A product with its bias as one Gemm would leave int8: there is no such int8 kernel.
        disabled = ['MatMulAddFusion'] if u8s8 else []
        with tempfile.TemporaryDirectory(prefix='wm_ros_') as folder:
            options.enable_profiling = True
            options.profile_file_prefix = str(Path(folder) / graph)
            self._session = ort.InferenceSession(data, options, providers=providers,
                                                 disabled_optimizers=disabled)
            if self._session.get_providers()[0] != providers[0][0]:
                raise BackendError(f'provider {providers[0][0]} does not start here, '
                                   f'{", ".join(self._session.get_providers())} would')
            self.check_names([item.name for item in self._session.get_inputs()],
                             [item.name for item in self._session.get_outputs()])
            self._binding = self._session.io_binding()
            for name, array in self.outputs.items():
                self._binding.bind_output(name, 'cpu', 0, array.dtype, array.shape,
                                          array.ctypes.data)
            self._bound: dict[str, np.ndarray] = {}
            # Binding is when a device's copy of an input is made; only the CPU reads it in place.
            self._in_place = providers[0][0] == CPU
            self.infer(self.zeros())
            profile = Path(self._session.end_profiling())
            self.kernels, self.ran_by = executed_kernels(profile), providers_of(profile)

    def infer(self, inputs: Mapping[str, np.ndarray]) -> None:
        for item in self.spec.inputs:
            array = inputs[item.name]
            known = self._bound.get(item.name)
            if (known is None or not self._in_place
                    or known.ctypes.data != array.ctypes.data):
                self._binding.bind_input(item.name, 'cpu', 0, array.dtype, array.shape,
                                         array.ctypes.data)
            self._bound[item.name] = array  # keeps the memory alive as long as it is bound
        self._session.run_with_iobinding(self._binding)


def executed_kernels(profile: Path) -> Counter[str]:
    """
    Count the heavy kernels of a profiled run by precision.

    A provider that compiles whole pieces of a graph (QNN, TensorRT, OpenVINO) does not say in what
    precision; such a piece counts under the provider's own name.
    """
    counts: Counter[str] = Counter()
    for told in _kernels_of(profile):
        operation, provider = told.get('op_name', ''), told.get('provider', '')
        if operation in _INT8_OPS:
            counts['i8'] += 1
        elif operation in _FLOAT_OPS:
            types = {kind for item in told.get('input_type_shape', ()) for kind in item}
            counts['f16' if 'float16' in types else 'f32'] += 1
        elif operation.startswith(provider.removesuffix(_SUFFIX)) and provider not in ('', CPU):
            counts[provider.removesuffix(_SUFFIX).lower()] += 1
    return counts


def providers_of(profile: Path) -> set[str]:
    """Return the providers that ran anything of a profiled run."""
    return {told['provider'] for told in _kernels_of(profile) if told.get('provider')}


def _kernels_of(profile: Path) -> list[dict[str, Any]]:
    return [event.get('args', {}) for event in json.loads(profile.read_text())
            if event.get('cat') == 'Node' and event.get('name', '').endswith('_kernel_time')]


def overflows(cpuinfo: Path = Path('/proc/cpuinfo')) -> bool:
    """
    Tell whether this CPU adds two uint8 x int8 products in 16 bits, which does not hold them.

    So do x86 CPUs without VNNI (ONNX Runtime's documentation on quantisation, "reduce range").
    """
    if platform.machine() not in ('x86_64', 'AMD64') or not cpuinfo.exists():
        return False
    flags = cpuinfo.read_text().partition('flags')[2].partition('\n')[0].split()
    return not {'avx512_vnni', 'avx_vnni'} & set(flags)


def _full_name(name: str) -> str:
    """Return 'CUDAExecutionProvider' for 'cuda'; a full name stays."""
    by_short = {full.removesuffix(_SUFFIX).lower(): full for full in ort.get_all_providers()}
    return by_short.get(name.lower(), name)
