"""
The graph of future camera frames: a small folder beside an artifact, for people and evaluation.

Nothing on the vehicle reads it. `frames.onnx` holds the artifact's own dynamics and what it needs
of the decoder once more, so that it goes from latent and plan to pictures by itself. Its manifest
says by hash on which artifact's weights it was learnt, and with others it is refused.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from wm_ros.runtime.artifact import MANIFEST, Artifact, ArtifactError
from wm_ros.runtime.contract import GRAPHS

FORMAT, VERSION = 'wm_ros-frames', 1
GRAPH = 'frames.onnx'
#: N views of one scene; sizes of what comes with a view are in `wm_ros.frames`.
INPUTS = ('latent', 'skip', 'plan', 'ego_motion', 'odometry_mask',
          'step', 'rays', 'origin', 'lens', 'sources')
#: Pictures (N, 80, 200, 3) float32 of values 0-1: predicted, and the newest ones moved by the ego
#: vehicle's own motion over flat ground.
OUTPUTS = ('frames', 'moved')


def weights_hash(artifact: Artifact) -> str:
    """Return the SHA-256 over the three graphs of an artifact: thresholds are left out."""
    files = artifact.manifest['files']
    told = ' '.join(files[artifact.manifest['contract'][graph]['file']]['sha256']
                    for graph in GRAPHS)
    return hashlib.sha256(told.encode()).hexdigest()


def frames_path(artifact: Path) -> Path:
    """Return where the frames of an artifact lie: beside it."""
    artifact = Path(artifact).resolve()
    return artifact.with_name(f'{artifact.name}-frames')


def write_manifest(folder: Path, artifact: Artifact, training: Mapping[str, Any]) -> str:
    """Write the manifest of `frames.onnx` in `folder`; return its SHA-256."""
    data = (folder / GRAPH).read_bytes()
    manifest = {'format': FORMAT, 'version': VERSION, 'weights': weights_hash(artifact),
                'graph': {'file': GRAPH, 'bytes': len(data),
                          'sha256': hashlib.sha256(data).hexdigest()},
                'training': dict(training)}
    text = (json.dumps(manifest, sort_keys=True, indent=1, allow_nan=False) + '\n').encode()
    (folder / MANIFEST).write_bytes(text)
    return hashlib.sha256(text).hexdigest()


def find_frames(artifact: Artifact, threads: int = 2) -> FrameGraph | None:
    """
    Load the frames that lie beside an artifact; None where there are none.

    Raises ArtifactError where they are damaged or were learnt on other weights.
    """
    folder = frames_path(artifact.path)
    return load_frames(folder, artifact, threads) if (folder / MANIFEST).exists() else None


def load_frames(folder: Path, artifact: Artifact, threads: int = 2) -> FrameGraph:
    """Load the frames in a folder for `artifact`; see `find_frames`."""
    where = folder / MANIFEST
    try:
        manifest = json.loads(where.read_bytes())
        entry = manifest['graph']
        told = (manifest['format'], manifest['version'], entry['file'])
        data = (folder / GRAPH).read_bytes()
        weights, wanted = manifest['weights'], entry['sha256']
    except (OSError, ValueError, KeyError, TypeError) as err:
        raise ArtifactError(f'{where}: {err}, want a manifest of {FORMAT} with its graph') from err
    if told != (FORMAT, VERSION, GRAPH):
        raise ArtifactError(f'{where}: {told}, want {(FORMAT, VERSION, GRAPH)}')
    found = hashlib.sha256(data).hexdigest()
    if found != wanted:
        raise ArtifactError(f'{folder / GRAPH}: SHA-256 {found}, want {wanted}')
    if weights != weights_hash(artifact):
        raise ArtifactError(
            f'{where}: learnt on weights {weights[:12]}, want those of {artifact.path}, '
            f'{weights_hash(artifact)[:12]}; learn it anew: wm_ros train --stage frames')
    return FrameGraph(data, threads)


class FrameGraph:
    """`frames.onnx` on this machine's CPU, by OpenVINO, else by ONNX Runtime; any N."""

    def __init__(self, data: bytes, threads: int = 2) -> None:
        self._run = (_openvino if importlib.util.find_spec('openvino') else _onnxruntime)(
            data, threads)

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run on all of `INPUTS`; return `OUTPUTS`."""
        return dict(zip(OUTPUTS, self._run({name: inputs[name] for name in INPUTS}),
                        strict=True))


def _openvino(data: bytes, threads: int):
    import openvino as ov

    core = ov.Core()
    compiled = core.compile_model(core.read_model(data), 'CPU', {
        'INFERENCE_PRECISION_HINT': 'f32', 'INFERENCE_NUM_THREADS': threads, 'NUM_STREAMS': '1',
        'PERFORMANCE_HINT': 'LATENCY', 'ENABLE_CPU_PINNING': False})

    def run(inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        outputs = compiled(inputs)
        return [np.array(outputs[name]) for name in OUTPUTS]
    return run


def _onnxruntime(data: bytes, threads: int):
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = ort.InferenceSession(data, options, providers=['CPUExecutionProvider'])
    return lambda inputs: session.run(list(OUTPUTS), inputs)
