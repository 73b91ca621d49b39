"""
PyTorch backend: the reference on a CPU, and CUDA graphs on a GPU.

The model is rebuilt from the artifact's own graphs, with its fake quantisation: every INT8 tensor
is rounded as an INT8 kernel would round it, and multiplied in floating point. On a CPU in 'f32'
that is what the parity gate measures every other backend against.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from wm_ros.export.weights import load_artifact_model
from wm_ros.model.parts import PARTS
from wm_ros.runtime.artifact import Artifact
from wm_ros.runtime.backend import BackendError, GraphBackend, LoadedGraph
from wm_ros.runtime.derived import check_form

_DTYPES = {'f32': torch.float32, 'f16': torch.float16, 'bf16': torch.bfloat16}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
_HEAVY = ('convolution', 'conv2d', 'linear', 'matmul', 'mm', 'addmm', 'bmm', 'baddbmm')
#: Runs before a graph is captured: libraries choose their kernels and take their memory.
WARM_UP_RUNS = 3

Tensors = tuple[torch.Tensor, ...]


class PyTorchBackend(GraphBackend):
    """
    Runs the fake-quantised model.

    Options: `device` ('auto': 'cuda' where there is one, else 'cpu'; 'cuda:1'), `precision` of
    products and convolutions ('auto': 'f16' on CUDA, 'f32' on a CPU; 'bf16'). `threads` are those
    of all of torch in this process.
    """

    name = 'pytorch'
    OPTIONS = {'device': 'auto', 'precision': 'auto'}

    def prepare(self, artifact: Artifact) -> None:
        """Rebuild the model on its device, with its weights rounded once and for all."""
        check_form(artifact, self.name, '')
        able = torch.cuda.is_available()
        wanted = self.options['device']
        self._device = torch.device(('cuda' if able else 'cpu') if wanted == 'auto' else wanted)
        if self._device.type not in ('cpu', 'cuda') or (self._device.type == 'cuda' and not able):
            raise BackendError(f'pytorch: device {wanted!r}, want cpu'
                               + (' or cuda' if able else '; no CUDA device is there'))
        precision = self.options['precision']
        if precision == 'auto':
            precision = 'f16' if self._device.type == 'cuda' else 'f32'
        if precision not in _DTYPES:
            raise BackendError(f'pytorch: precision {precision!r}, want auto or one of '
                               f'{", ".join(_DTYPES)}')
        self._dtype = _DTYPES[precision]
        if self.threads:
            torch.set_num_threads(self.threads)
        try:
            self._model = load_artifact_model(artifact).to(self._device)
            round_weights_once(self._model, self._dtype)
        except (RuntimeError, MemoryError) as err:
            raise BackendError(f'pytorch: {artifact.path}: {err}') from err

    def open(self, graph: str, artifact: Artifact, sizes: Mapping[str, int]) -> LoadedGraph:
        """Take one part of the model; on CUDA, capture it as a CUDA graph."""
        part = PARTS[graph](self._model, artifact.specs[graph])
        kind = _CudaGraph if self._device.type == 'cuda' else _CpuGraph
        return kind(graph, part, artifact, sizes, self._device, self._dtype)

    def close(self) -> None:
        """Free the model, and the memory of a GPU for other programs."""
        super().close()
        self._model = None
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def round_weights_once(model: nn.Module, dtype: torch.dtype) -> None:
    """
    Keep the rounded weights of the quantised layers, and all weights of layers in `dtype`.

    Nothing changes them any more, and rounding or casting them is work that would be done anew in
    every run. Norms stay in single precision, as autocast has them.
    """
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                if hasattr(module, 'rounded_weight'):
                    rounded = module.rounded_weight().to(dtype)
                    module.rounded_weight = _Constant(rounded)
                else:
                    module.weight.data = module.weight.data.to(dtype)
                if module.bias is not None:
                    module.bias.data = module.bias.data.to(dtype)


class _Constant:
    """Stands in for a function that would return the same every time."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def __call__(self) -> Any:
        return self._value


class _TorchGraph(LoadedGraph):
    """One part of the model with the way to run it."""

    def __init__(self, graph: str, part: nn.Module, artifact: Artifact, sizes: Mapping[str, int],
                 device: torch.device, dtype: torch.dtype) -> None:
        super().__init__(graph, artifact.specs[graph], sizes)
        self._part, self._device, self._dtype = part, device, dtype

    def forward(self, given: Tensors) -> Tensors:
        """Run the part on tensors of its device; outputs in single precision."""
        mixed = (nullcontext() if self._dtype == torch.float32 else
                 torch.autocast(self._device.type, self._dtype, cache_enabled=False))
        with torch.inference_mode(), mixed:
            return tuple(out.float().contiguous() for out in self._part(*given))


class _CpuGraph(_TorchGraph):
    """Runs on the arrays as they lie; torch allocates what is in between."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._hosts = [torch.from_numpy(array) for array in self.outputs.values()]
        counter = _HeavyOperations()
        with counter:
            self.infer(self.zeros())
        self.kernels = counter.kernels

    def infer(self, inputs: Mapping[str, np.ndarray]) -> None:
        given = tuple(torch.from_numpy(inputs[item.name]) for item in self.spec.inputs)
        for host, made in zip(self._hosts, self.forward(given), strict=True):
            host.copy_(made)


class _CudaGraph(_TorchGraph):
    """
    One CUDA graph with static shapes: pinned buffers, fixed addresses, a stream of its own.

    A frame is copied into pinned memory, copied to the device beside nothing else, replayed, and
    copied back; the host waits once.
    """

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._stream = new_stream(self._device)
        self._staged = [pinned(item.resolve(**self.sizes), item.dtype)
                        for item in self.spec.inputs]
        self._given = tuple(torch.zeros_like(staged, device=self._device)
                            for staged in self._staged)
        self._hosts = [pinned(array.shape, 'float32') for array in self.outputs.values()]
        self.outputs = {name: host.numpy()
                        for name, host in zip(self.outputs, self._hosts, strict=True)}
        counter = _HeavyOperations()
        with self._stream, counter:
            self.forward(self._given)
        self.kernels = counter.kernels
        self._replay, self._made = capture(lambda: self.forward(self._given), self._stream)

    def infer(self, inputs: Mapping[str, np.ndarray]) -> None:
        with self._stream:
            for item, staged, given in zip(self.spec.inputs, self._staged, self._given,
                                           strict=True):
                np.copyto(staged.numpy(), inputs[item.name])
                given.copy_(staged, non_blocking=True)
            self._replay()
            for host, made in zip(self._hosts, self._made, strict=True):
                host.copy_(made, non_blocking=True)
        self._stream.synchronize()


def new_stream(device: torch.device) -> torch.cuda.Stream:
    """Return a stream of the device, which makes itself and the device current in a `with`."""
    return torch.cuda.Stream(device)


def pinned(shape: tuple[int, ...], dtype: str) -> torch.Tensor:
    """Return zeros in page-locked host memory, from which copies run beside the CPU."""
    return torch.zeros(shape, dtype=getattr(torch, dtype), pin_memory=True)


def capture(forward: Callable[[], Tensors],
            stream: torch.cuda.Stream) -> tuple[Callable[[], None], Tensors]:
    """
    Record a run as a CUDA graph; return what replays it and the tensors that it writes.

    The first runs are not recorded: in them cuDNN and cuBLAS choose and allocate.
    """
    with torch.cuda.stream(stream):
        for _ in range(WARM_UP_RUNS):
            forward()
    stream.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        made = forward()
    return graph.replay, made


class _HeavyOperations(TorchDispatchMode):
    """Counts products and convolutions by the precision of their result."""

    def __init__(self) -> None:
        super().__init__()
        self.kernels: Counter[str] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if func.overloadpacket.__name__ in _HEAVY:
            self.kernels[_NAMES.get(out.dtype, str(out.dtype))] += 1
        return out
