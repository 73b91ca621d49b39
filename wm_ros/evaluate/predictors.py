"""Opens the predictor of a model once a process, for the drives that the process scores."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from wm_ros.choices import Choices
from wm_ros.predictor import Predictor, PredictorSettings
from wm_ros.runtime.artifact import Artifact, load_artifact
from wm_ros.runtime.backend import Backend, create_backend
from wm_ros.types import CameraRig

_open: dict[tuple[PredictorSource, int], tuple[Predictor, CameraRig]] = {}


@dataclass(frozen=True)
class PredictorSource:
    """
    Which artifact to run on what; call it with a rig for a `Predictor` of that rig.

    `artifact` may also be a checkpoint of training, or a run's folder; PyTorch runs it then.
    `score_threshold` and `choices` replace the artifact's where given. `threads` are those of the
    backend, `options` its options as pairs. A second call with as many cameras returns the same
    predictor with the new rig.
    """

    artifact: str
    backend: str = 'auto'
    threads: int = 1
    score_threshold: float | None = None
    options: tuple[tuple[str, Any], ...] = ()
    choices: Choices | None = None

    def __call__(self, rig: CameraRig) -> Predictor:
        key = (self, len(rig))
        if key not in _open:
            artifact, backend = self._load(len(rig))
            if self.choices is not None:
                artifact = replace(artifact, choices=self.choices)
            predictor = Predictor(artifact, backend, rig, PredictorSettings(
                decode_threads=1, score_threshold=self.score_threshold))
        else:
            predictor, last = _open[key]
            if last is not rig:
                predictor.set_rig(rig)
        _open[key] = predictor, rig
        return predictor

    def _load(self, cameras: int) -> tuple[Artifact, Backend]:
        checkpoint = checkpoint_path(self.artifact)
        if checkpoint is not None:
            from wm_ros.evaluate.checkpoint import CheckpointBackend
            from wm_ros.train.loop import load_model
            return open_model_file(self.artifact), CheckpointBackend(load_model(checkpoint),
                                                                      self.threads)
        artifact = load_artifact(self.artifact)
        return artifact, create_backend(self.backend, artifact, cameras, threads=self.threads,
                                        options=dict(self.options))


def checkpoint_path(path: str | Path) -> Path | None:
    """Return the checkpoint of training that `path` is or holds, None where it is an artifact."""
    path = Path(path)
    if path.suffix == '.safetensors':
        return path
    inside = path / 'model.safetensors'
    return inside if inside.is_file() and not (path / 'manifest.json').is_file() else None


def open_model_file(path: str | Path) -> Artifact:
    """Return an artifact, or what a `Predictor` has to know of a checkpoint in its place."""
    checkpoint = checkpoint_path(path)
    if checkpoint is None:
        return load_artifact(path)
    from wm_ros.evaluate.checkpoint import as_artifact
    return as_artifact(checkpoint)
