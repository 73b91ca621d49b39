"""Every backend and precision that a machine has, and why it has not the others."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import Any

from wm_ros.runtime.backend import missing

REFERENCE = 'pytorch-cpu'


@dataclass(frozen=True)
class Case:
    """A backend with options, as pairs; `absent` says why it cannot run here, '' where it can."""

    name: str
    backend: str
    options: tuple[tuple[str, Any], ...] = ()
    absent: str = ''


def cases() -> list[Case]:
    """Return the reference first, then everything that is held against it, the absent too."""
    found = [
        Case(REFERENCE, 'pytorch', (('device', 'cpu'), ('precision', 'f32'))),
        Case('openvino', 'openvino'),
        Case('openvino-f32', 'openvino', (('fold_precision', 'f32'), ('rollout_precision', 'f32'))),
        Case('onnxruntime-cpu', 'onnxruntime', (('providers', ('cpu',)),)),
        Case('tensorrt', 'tensorrt')]
    found = [Case(case.name, case.backend, case.options, missing(case.backend)) for case in found]
    return [*found, *_providers(), *_cuda()]


def _providers() -> list[Case]:
    """Return ONNX Runtime's other providers that run models: named, and there or not."""
    there = []
    if importlib.util.find_spec('onnxruntime') is not None:
        import onnxruntime
        there = onnxruntime.get_available_providers()
    return [Case(f'onnxruntime-{name.lower()}', 'onnxruntime', (('providers', (name.lower(),)),),
                 '' if f'{name}ExecutionProvider' in there else
                 f'this onnxruntime has no {name}ExecutionProvider')
            for name in ('CUDA', 'Tensorrt', 'OpenVINO', 'QNN')]


def _cuda() -> list[Case]:
    absent = missing('pytorch')
    if not absent:
        import torch
        absent = '' if torch.cuda.is_available() else 'no CUDA device'
    return [Case('pytorch-cuda', 'pytorch', (('device', 'cuda'),), absent)]
