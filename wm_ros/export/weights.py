"""
The way back: an artifact's graphs become a torch model again, with its fake quantisation.

An artifact keeps its weights in its three graphs alone, under the names of their parameters. What
is read from there is what a backend runs: INT8 weights are exact multiples of their scales, the
rest has gone through half precision.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper

from wm_ros.export.onnx import HALF_SUFFIX, INT8_SUFFIX, TRANSPOSED_SUFFIX
from wm_ros.model.config import ModelConfig
from wm_ros.model.quant import Quantizer, fold_batch_norms
from wm_ros.model.world_model import WorldModel
from wm_ros.runtime.artifact import Artifact, load_artifact
from wm_ros.runtime.contract import GRAPHS


def load_artifact_model(artifact: Path | Artifact) -> WorldModel:
    """
    Rebuild the torch model of an artifact: batch norms folded, quantised where the graphs are.

    Raises ArtifactError where the folder is refused, ValueError where its graphs lack a weight.
    """
    if not isinstance(artifact, Artifact):
        artifact = load_artifact(artifact)
    model = WorldModel(ModelConfig.from_dict(dict(artifact.manifest['model']))).eval()
    fold_batch_norms(model)
    found: dict[str, np.ndarray] = {}
    for graph in GRAPHS:
        found.update(_parameters(onnx.load_from_string(artifact.graph(graph))))
    state = model.state_dict()
    for name, module in model.named_modules():
        if isinstance(module, Quantizer):
            state[f'{name}.enabled'] = torch.tensor(f'{name}.scale' in found)
    lacking = [name for name, _ in model.named_parameters() if name not in found]
    if lacking:
        raise ValueError(f'{artifact.path}: {len(lacking)} weights are not in its graphs under '
                         f'their names, such as {lacking[0]}; want one exported by this version')
    for name, array in found.items():
        if name in state:
            state[name] = torch.from_numpy(np.array(array, np.float32)).reshape(state[name].shape)
    model.load_state_dict(state)
    return model


def _parameters(graph: onnx.ModelProto) -> dict[str, np.ndarray]:
    """Return the parameters and scales of one graph as float arrays, by torch's names."""
    stored = {item.name.removeprefix('model.'): numpy_helper.to_array(item)
              for item in graph.graph.initializer if item.name.startswith('model.')}
    found = {}
    for name, array in stored.items():
        name = name.removesuffix(HALF_SUFFIX)
        if name.endswith(TRANSPOSED_SUFFIX):
            name, array = name.removesuffix(TRANSPOSED_SUFFIX), array.T
        if name.endswith(INT8_SUFFIX):
            name = name.removesuffix(INT8_SUFFIX)
            scale = stored.get(f'{name}_scale', stored.get(f'{name}_scale{HALF_SUFFIX}'))
            array = array * scale.astype(np.float32).reshape(-1, *[1] * (array.ndim - 1))
        found[name] = array.astype(np.float32)
    return found
