"""What the quantised model is held against: the same weights in FP32, PyTorch and OpenVINO."""

from __future__ import annotations

import importlib.util
from typing import Any

import openvino as ov

from wm_ros.runtime.artifact import Artifact
from wm_ros.runtime.backend import Backend
from wm_ros.runtime.openvino import OpenVinoBackend

PYTORCH, OPENVINO = 'pytorch-fp32', 'openvino-fp32'
BASELINES = (PYTORCH, OPENVINO)


def missing(name: str) -> str:
    """Return what keeps a baseline from being measured here, empty for nothing."""
    if name != PYTORCH:
        return ''
    lacking = [module for module in ('torch', 'onnx') if importlib.util.find_spec(module) is None]
    return f'no module {", ".join(lacking)}' if lacking else ''


def load(name: str, artifact: Artifact, cameras: int, threads: int) -> Backend:
    """Return a baseline, loaded for so many cameras and one plan."""
    if name == PYTORCH:
        backend = _float_pytorch(threads)
    else:
        backend = FloatOpenVino(threads, {f'{graph}_precision': 'f32'
                                          for graph in ('encode', 'fold', 'rollout')})
    backend.load(artifact, {'N': cameras, 'P': 1})
    return backend


class FloatOpenVino(OpenVinoBackend):
    """Runs an artifact with its quantisers taken out, all in float32."""

    name = OPENVINO

    def prepare(self, artifact: Artifact) -> None:
        super().prepare(artifact)
        self._core = _FloatCore(self._core)


class _FloatCore:
    """An OpenVINO core whose models come without quantisers."""

    def __init__(self, core: ov.Core) -> None:
        self._core = core

    def __getattr__(self, name: str) -> Any:
        return getattr(self._core, name)

    def read_model(self, data: bytes) -> ov.Model:
        model = self._core.read_model(data)
        strip_quantisers(model)
        return model


def strip_quantisers(model: ov.Model) -> int:
    """
    Take every quantiser of an activation out of `model`, in place; return how many there were.

    The file has FakeQuantize to INT8, then the way back to float: what reads the latter gets what
    went into the former. Weights stay what they are, multiples of their scales.
    """
    count = 0
    for node in model.get_ordered_ops():
        if node.get_type_name() == 'FakeQuantize':
            _dequantised(node).replace(node.input_value(0))
            count += 1
    model.validate_nodes_and_infer_types()
    return count


def _dequantised(quantiser: ov.Node) -> ov.Output:
    """Return where a quantised value is a float again: after the product with its scale."""
    node = quantiser
    while node.get_type_name() != 'Multiply':
        reader, = (port.get_node() for port in node.output(0).get_target_inputs())
        if reader.get_type_name() not in ('Convert', 'Subtract', 'Multiply'):
            raise ValueError(f'{quantiser.get_friendly_name()}: {reader.get_type_name()} follows, '
                             'want DequantizeLinear')
        node = reader
    return node.output(0)


def _float_pytorch(threads: int) -> Backend:
    from wm_ros.model.quant import Quantizer
    from wm_ros.runtime.pytorch import PyTorchBackend

    class FloatPyTorch(PyTorchBackend):
        """Runs the torch model with its quantisers off, all in float32, on the CPU."""

        name = PYTORCH

        def prepare(self, artifact: Artifact) -> None:
            super().prepare(artifact)
            for module in self._model.modules():
                if isinstance(module, Quantizer):
                    module.active = False

    return FloatPyTorch(threads, {'device': 'cpu', 'precision': 'f32'})
