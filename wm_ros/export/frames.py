"""From a checkpoint of the stage of future frames to the folder of them beside an artifact."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import nn

from wm_ros.export.lint import check_graph
from wm_ros.export.onnx import OPSET, fold_weight_quantizers, name_weights, store_half
from wm_ros.export.weights import load_artifact_model
from wm_ros.frames import HEIGHT, LENS, SOURCES, WIDTH
from wm_ros.model.frames import FrameDecoder, map_channels, scene_maps
from wm_ros.model.world_model import WorldModel
from wm_ros.runtime.artifact import Artifact
from wm_ros.runtime.contract import IMAGE_HEIGHT, IMAGE_WIDTH
from wm_ros.runtime.frames import GRAPH, INPUTS, OUTPUTS, write_manifest
from wm_ros.types import HORIZON_STEPS


class Frames(nn.Module):
    """Latent, plan and views to pictures: one graph, with the frozen dynamics in it."""

    def __init__(self, model: WorldModel, frames: FrameDecoder):
        super().__init__()
        self.model, self.frames = model, frames

    def forward(self, latent, skip, plan, ego_motion, odometry_mask, step, rays, origin, lens,
                sources) -> tuple[torch.Tensor, torch.Tensor]:
        maps, drift = scene_maps(self.model, latent[None], skip[None], plan[None],
                                 ego_motion[None], odometry_mask[None])
        at = step.long() - 1
        view = {'step': step, 'rays': rays, 'origin': origin, 'lens': lens, 'sources': sources}
        return self.frames(maps[0][at], drift[0][at], plan[at], view)


def write_frames(artifact: Artifact, decoder: Mapping[str, torch.Tensor], folder: Path,
                 training: Mapping[str, Any]) -> str:
    """
    Export a decoder that was learnt on `artifact` into `folder`; return the manifest's hash.

    What it takes over from the artifact keeps its INT8; the decoder's weights are stored in half
    precision. Raises LintError where TensorRT would not take the graph.
    """
    model = load_artifact_model(artifact)
    frames = FrameDecoder(map_channels(model.config)).eval()
    frames.load_state_dict(dict(decoder))
    folder.mkdir(parents=True, exist_ok=True)
    path, part, config = folder / GRAPH, Frames(model, frames).eval(), model.config
    views = 2
    example = (torch.rand(256, config.latent_dim), torch.rand(config.skip_channels, 80, 80),
               torch.rand(HORIZON_STEPS, 3), torch.rand(2), torch.ones(1),
               torch.ones(views, dtype=torch.int32), torch.rand(views, HEIGHT, WIDTH, 3),
               torch.rand(views, 3), torch.rand(views, SOURCES, LENS),
               torch.zeros(views, SOURCES, IMAGE_HEIGHT, IMAGE_WIDTH, 3, dtype=torch.uint8))
    free = ('step', 'rays', 'origin', 'lens', 'sources', *OUTPUTS)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter('ignore')  # the tracer warns of shapes that are constants here
        torch.onnx.export(part, example, str(path), opset_version=OPSET, dynamo=False,
                          input_names=list(INPUTS), output_names=list(OUTPUTS),
                          dynamic_axes={name: {0: 'N'} for name in free})
    graph = onnx.load(path)
    fold_weight_quantizers(graph)
    name_weights(graph, model)
    store_half(graph)
    onnx.checker.check_model(graph, full_check=True)
    check_graph('frames', graph)
    onnx.save(graph, path)
    return write_manifest(folder, artifact, training)
