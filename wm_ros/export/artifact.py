"""From a trained checkpoint to an artifact folder that a node loads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import onnx
import torch

from wm_ros.choices import Choices
from wm_ros.export.lint import check_graph
from wm_ros.export.onnx import OPSET, export_graphs
from wm_ros.model.quant import Quantizer, calibration, fold_batch_norms, sharpen
from wm_ros.model.world_model import WorldModel
from wm_ros.runtime.artifact import write_manifest
from wm_ros.share import share_path

#: What each graph is exported for; a backend reports what it executes.
PRECISION = {'encode': 'int8', 'fold': 'float16', 'rollout': 'int8+float16'}
#: A model that was never calibrated, to compare with: nothing is quantised or stored in half.
FLOAT_PRECISION = {'encode': 'float32', 'fold': 'float32', 'rollout': 'float32'}


@torch.no_grad()
def calibrate_encoder(model: WorldModel, frames: Iterable[Mapping[str, torch.Tensor]]) -> None:
    """Fix the INT8 scales of encoder and lift from batches of frames; norms are folded first."""
    model.eval()
    fold_batch_norms(model.encoder)
    fold_batch_norms(model.lift)
    with calibration(model.encoder), calibration(model.lift):
        for batch in frames:
            model.encode(batch['images'], batch['index'], batch['weight'])


@torch.no_grad()
def calibrate_dynamics(model: WorldModel, windows: Iterable[Mapping[str, torch.Tensor]]) -> None:
    """Fix the INT8 scales of the dynamics from batches of windows."""
    model.eval()
    with calibration(model.dynamics):
        for batch in windows:
            latent, _ = model.fold(batch['memory'], batch['now_from_frame'], batch['age_s'],
                                   batch['frame_mask'], batch['odometry_mask'])
            model.dynamics(latent, batch['plans'], batch['ego_motion'], batch['odometry_mask'])


def write_artifact(model: WorldModel, folder: Path, choices: Choices,
                   training: Mapping[str, Any]) -> str:
    """
    Export a model into `folder`, in float if it was not calibrated; return the artifact's hash.

    Raises ValueError for a teacher, LintError where TensorRT would not take a graph of a calibrated
    model.
    """
    if model.config.teacher:
        raise ValueError('a teacher is not exported, a student that is distilled from it is')
    quantized = any(module.active for module in model.modules() if isinstance(module, Quantizer))
    fold_batch_norms(model)
    sharpen(model)
    for graph in export_graphs(model, folder, half=quantized):
        if quantized:
            check_graph(graph, onnx.load(folder / f'{graph}.onnx'))
    config = model.config
    return write_manifest(folder, {
        'channels': {'memory_channels': config.memory_channels,
                     'skip_channels': config.skip_channels, 'latent_dim': config.latent_dim},
        **choices.to_json(),
        'precision': PRECISION if quantized else FLOAT_PRECISION, 'model': config.to_dict(),
        'parameters': sum(p.numel() for p in model.parameters()), 'training': dict(training),
        'versions': versions()})


def versions() -> dict[str, str]:
    """Return the versions of what an artifact is exported with."""
    package = ElementTree.parse(share_path('package.xml'))
    return {'wm_ros': package.findtext('version'), 'torch': torch.__version__,
            'onnx': onnx.__version__, 'opset': str(OPSET)}
