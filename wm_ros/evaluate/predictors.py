"""Opens the predictor of an artifact once a process, for the drives that the process scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from wm_ros.predictor import Predictor, PredictorSettings
from wm_ros.runtime.artifact import load_artifact
from wm_ros.runtime.backend import create_backend
from wm_ros.types import CameraRig

_open: dict[tuple[PredictorSource, int], tuple[Predictor, CameraRig]] = {}


@dataclass(frozen=True)
class PredictorSource:
    """
    Which artifact to run on what; call it with a rig for a `Predictor` of that rig.

    `score_threshold` replaces the artifact's where given. `threads` are those of the backend,
    `options` its options as pairs. A second call with as many cameras returns the same predictor
    with the new rig.
    """

    artifact: str
    backend: str = 'auto'
    threads: int = 1
    score_threshold: float | None = None
    options: tuple[tuple[str, Any], ...] = ()

    def __call__(self, rig: CameraRig) -> Predictor:
        key = (self, len(rig))
        if key not in _open:
            artifact = load_artifact(self.artifact)
            backend = create_backend(self.backend, artifact, len(rig), threads=self.threads,
                                     options=dict(self.options))
            predictor = Predictor(artifact, backend, rig, PredictorSettings(
                decode_threads=1, score_threshold=self.score_threshold))
        else:
            predictor, last = _open[key]
            if last is not rig:
                predictor.set_rig(rig)
        _open[key] = predictor, rig
        return predictor
