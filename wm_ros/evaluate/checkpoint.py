"""
Scores a checkpoint of training before, or without, its export: a teacher has no other way.

Runs the model in PyTorch, in FP32, behind the interface of a backend. What `fold` returns is handed
to `rollout` as it is, so a teacher's history of tokens passes where a student has its latent.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from wm_ros.choices import Choices, read_choices
from wm_ros.model.world_model import WorldModel
from wm_ros.runtime.artifact import Artifact
from wm_ros.runtime.contract import GraphSpec, graph_specs
from wm_ros.train.loop import load_model
from wm_ros.types import FEATURE_GRID

#: What `wm_ros evaluate --choose` wrote for a run, in its folder.
CHOICES = 'choices.json'


def as_artifact(path: Path) -> Artifact:
    """
    Return what a `Predictor` has to know of a checkpoint; its hash is that of the file.

    Choices are those of `choices.json` beside it, neutral where there are none for these weights.
    """
    weights = hashlib.sha256(path.read_bytes()).hexdigest()
    model = load_model(path)
    return Artifact(path, weights, {'model': model.config.to_dict()}, _specs(model),
                    _chosen(path.with_name(CHOICES), weights))


def _chosen(path: Path, weights: str) -> Choices:
    if path.exists():
        choices, chosen_on = read_choices(path)
        if chosen_on.get('model_hash') == weights:
            return choices
    return Choices()


def _specs(model: WorldModel) -> dict[str, GraphSpec]:
    config = model.config
    return graph_specs(config.memory_channels, config.skip_channels, config.latent_dim,
                       FEATURE_GRID.rows)


class CheckpointBackend:
    """Runs encode, fold and rollout of a model; see `runtime.backend.Backend`."""

    name = 'checkpoint'
    channels_last: frozenset[str] = frozenset()

    def __init__(self, model: WorldModel, threads: int = 1) -> None:
        torch.set_num_threads(max(threads, 1))
        self._model = model.eval()
        self._names = [item.name for item in _specs(model)['rollout'].outputs]
        self.precision = dict.fromkeys(('encode', 'fold', 'rollout'), 'f32')
        self.notes: list[str] = []

    def begin(self, graph: str, inputs: Mapping[str, Any]) -> None:
        """Do nothing: each part runs in one piece."""

    def run(self, graph: str, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Run one part on arrays without a batch dimension; what is folded stays tensors."""
        with torch.inference_mode():
            given = {name: torch.from_numpy(value)[None] if isinstance(value, np.ndarray)
                     else value for name, value in inputs.items()}
            if graph == 'encode':
                memory, skip = self._model.encode(**given)
                return {'memory': memory[0].numpy(), 'skip': skip[0].numpy()}
            if graph == 'fold':
                return dict(zip(('latent', 'past'), self._model.fold(**given), strict=True))
            plans = given['plans'][0]
            out = self._model.rollout(**{
                name: value if name in ('skip', 'past') else _repeated(value, len(plans))
                for name, value in {**given, 'plans': plans}.items()})
            # What lies there now is the same under every plan.
            return {name: (out[name][0] if name in ('road', 'observed') else out[name])
                    .float().numpy() for name in self._names}

    def close(self) -> None:
        """Nothing to free."""


def _repeated(value: Any, count: int) -> Any:
    """Return one window's input, or a teacher's several of them, for `count` plans."""
    if isinstance(value, tuple):
        return type(value)(*(_repeated(part, count) for part in value))
    return value.expand(count, *value.shape[1:])
