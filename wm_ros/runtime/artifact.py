"""
The artifact: a folder with `manifest.json` and the graphs, which proves itself before it is used.

The manifest names every file with size and SHA-256, and carries a hash of itself over its one
canonical form, so that any flipped byte in the folder is found. The artifact's own hash is the
SHA-256 of the manifest.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wm_ros.choices import Choices
from wm_ros.runtime.contract import (
    GRAPHS,
    IMAGE_HEIGHT,
    IMAGE_WIDTH,
    LIFT_HEIGHTS_M,
    GraphSpec,
    TensorSpec,
    graph_specs,
)
from wm_ros.types import (
    AGENT_CLASSES,
    FEATURE_GRID,
    HORIZON_STEPS,
    MODES,
    OUTPUT_GRID,
    ROAD_LAYERS,
    TIME_STEP_S,
    WINDOW_FRAMES,
    BevGrid,
)

FORMAT = 'wm_ros-artifact'
VERSION = 2
MANIFEST = 'manifest.json'
_MAX_MANIFEST_BYTES = 1 << 20
_MAX_FILE_BYTES = 1 << 30
_CHANNELS = ('memory_channels', 'skip_channels', 'latent_dim')


class ArtifactError(ValueError):
    """An artifact that must not be run: what was found and what was wanted."""


@dataclass(frozen=True)
class Artifact:
    """A verified artifact; `hash` is the SHA-256 of its manifest."""

    path: Path
    hash: str
    manifest: Mapping[str, Any] = field(repr=False)
    specs: Mapping[str, GraphSpec] = field(repr=False)
    choices: Choices

    def read(self, name: str) -> bytes:
        """Return a file's bytes, checked once more: what is loaded is what the manifest names."""
        return _read_checked(self.path, name, self.manifest['files'][name])

    def graph(self, name: str) -> bytes:
        """Return the ONNX bytes of one of `GRAPHS`."""
        return self.read(self.manifest['contract'][name]['file'])

    @property
    def precision(self) -> Mapping[str, str]:
        """The precision that each graph was exported for."""
        return self.manifest['precision']

    @property
    def companions(self) -> bool:
        """Whether the last rows of its agents are companions; older models have none."""
        return bool(self.manifest.get('model', {}).get('companions', 0))


def load_artifact(path: str | Path) -> Artifact:
    """
    Read and verify an artifact folder.

    Raises ArtifactError for a missing or changed file, another format or version, and a contract
    that is not the one of this node, naming what was found and wanted.
    """
    path = Path(path)
    data = _read(path / MANIFEST, _MAX_MANIFEST_BYTES)
    try:
        manifest = json.loads(data)
    except (ValueError, RecursionError) as err:
        raise ArtifactError(f'{path / MANIFEST}: {err}, want JSON') from err
    where = str(path / MANIFEST)
    if not isinstance(manifest, dict):
        raise ArtifactError(f'{where}: {type(manifest).__name__}, want an object')
    _same(where, 'format', manifest.get('format'), FORMAT)
    _same(where, 'version', manifest.get('version'), VERSION)
    _same(where, 'manifest_sha256', manifest.get('manifest_sha256'), _self_hash(manifest))
    if data != _serialise(manifest):
        raise ArtifactError(f'{where}: not in canonical form, want what `write_manifest` writes')
    specs = _check_contract(where, manifest)
    for name, entry in manifest['files'].items():
        _read_checked(path, name, entry)
    return Artifact(path, hashlib.sha256(data).hexdigest(), manifest, specs,
                    _choices(where, manifest))


def write_manifest(folder: str | Path, contents: Mapping[str, Any]) -> str:
    """
    Write `manifest.json` for the graphs in `folder`; return the artifact's hash.

    `contents` needs `channels` {memory_channels, skip_channels, latent_dim}, `score_threshold`
    and `observed_threshold`, with whatever else of `Choices` is not neutral, and `precision`
    {graph: str}; `graphs` {graph: file name} defaults to `<graph>.onnx`; `normalisation`,
    `training` and anything else that is JSON travels along. Format, shapes, classes, grids and
    file hashes are filled in. Raises ArtifactError for a folder that would not load.
    """
    folder = Path(folder)
    manifest = {key: value for key, value in contents.items() if key != 'graphs'}
    graphs = dict(contents.get('graphs', {graph: f'{graph}.onnx' for graph in GRAPHS}))
    files = {}
    for name in sorted(graphs.values()):
        data = _read(folder / name, _MAX_FILE_BYTES)
        files[name] = {'sha256': hashlib.sha256(data).hexdigest(), 'bytes': len(data)}
    specs = graph_specs(**contents['channels'])
    manifest.update(
        format=FORMAT, version=VERSION, files=files, **_node_contract(),
        contract={graph: {'file': graphs[graph], **_spec_json(specs[graph])} for graph in GRAPHS})
    manifest.setdefault('normalisation', {'input': 'uint8 RGB, scaled inside the graph'})
    manifest.setdefault('training', {})
    manifest.pop('manifest_sha256', None)
    # Tuples become lists, as they will be read back; infinity and NaN are no JSON.
    manifest = json.loads(json.dumps(manifest, allow_nan=False))
    manifest['manifest_sha256'] = _self_hash(manifest)
    (folder / MANIFEST).write_bytes(_serialise(manifest))
    return load_artifact(folder).hash


def rewrite(artifact: Artifact, folder: str | Path, changes: Mapping[str, Any]) -> str:
    """
    Write an artifact's graphs with `changes` in its manifest into `folder`; return the new hash.

    Raises ArtifactError for a change that would not load.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    graphs = {graph: entry['file'] for graph, entry in artifact.manifest['contract'].items()}
    for name in graphs.values():
        (folder / name).write_bytes(artifact.read(name))
    return write_manifest(folder, {**artifact.manifest, **changes, 'graphs': graphs})


def _node_contract() -> dict[str, Any]:
    """Return what this node fixes and an artifact has to have been made for."""
    return {
        'window_frames': WINDOW_FRAMES, 'horizon_steps': HORIZON_STEPS,
        'time_step_s': TIME_STEP_S, 'modes': MODES,
        'image': {'width': IMAGE_WIDTH, 'height': IMAGE_HEIGHT, 'channels': 'rgb'},
        'lift_heights_m': list(LIFT_HEIGHTS_M),
        'classes': list(AGENT_CLASSES), 'road_layers': list(ROAD_LAYERS),
        'grid': {'output': _grid_json(OUTPUT_GRID), 'feature': _grid_json(FEATURE_GRID)}}


def _grid_json(grid: BevGrid) -> dict[str, Any]:
    return {'x_min_m': grid.x_min_m, 'y_min_m': grid.y_min_m, 'cell_m': grid.cell_m,
            'rows': grid.rows, 'cols': grid.cols}


def _spec_json(spec: GraphSpec) -> dict[str, Any]:
    def tensors(items: tuple[TensorSpec, ...]) -> list[dict[str, Any]]:
        return [{'name': item.name, 'dtype': item.dtype, 'shape': list(item.shape)}
                for item in items]
    return {'inputs': tensors(spec.inputs), 'outputs': tensors(spec.outputs)}


def _check_contract(where: str, manifest: dict) -> dict[str, GraphSpec]:
    """Compare every field that this node depends on; return the specs of the graphs."""
    for key, wanted in _node_contract().items():
        _same(where, key, manifest.get(key), wanted)
    channels = manifest.get('channels')
    if (not isinstance(channels, dict) or sorted(channels) != sorted(_CHANNELS)
            or not all(type(value) is int and 1 <= value <= 4096 for value in channels.values())):
        raise ArtifactError(f'{where}: channels {channels!r}, want whole numbers '
                            f'{", ".join(_CHANNELS)}')
    files, contract = manifest.get('files'), manifest.get('contract')
    if not isinstance(files, dict) or not isinstance(contract, dict):
        raise ArtifactError(f'{where}: want objects `files` and `contract`')
    _same(where, 'contract', sorted(contract), sorted(GRAPHS))
    specs = graph_specs(**channels)
    for graph in GRAPHS:
        entry = contract[graph]
        if not isinstance(entry, dict) or entry.get('file') not in files:
            raise ArtifactError(f'{where}: contract.{graph} names no file of `files`')
        for side, tensors in _spec_json(specs[graph]).items():
            _same(where, f'contract.{graph}.{side}', entry.get(side), tensors)
    precision = manifest.get('precision')
    if not isinstance(precision, dict) or sorted(precision) != sorted(GRAPHS):
        raise ArtifactError(f'{where}: precision {precision!r}, want one for each of '
                            f'{", ".join(GRAPHS)}')
    return specs


def _same(where: str, key: str, found: Any, wanted: Any) -> None:
    # bool and int compare equal in Python and differ in JSON.
    if found != wanted or type(found) is not type(wanted):
        raise ArtifactError(f'{where}: {key} {found!r}, want {wanted!r}')


def _choices(where: str, manifest: dict) -> Choices:
    for key in ('score_threshold', 'observed_threshold'):
        if key not in manifest:
            raise ArtifactError(f'{where}: no {key}, want a number')
    try:
        return Choices.from_json(manifest)
    except ValueError as err:
        raise ArtifactError(f'{where}: {err}') from err


def _read(path: Path, limit: int) -> bytes:
    try:
        size = path.stat().st_size
        if size > limit:
            raise ArtifactError(f'{path}: {size} bytes, want at most {limit}')
        return path.read_bytes()
    except OSError as err:
        raise ArtifactError(f'{path}: {err.strerror}, want a readable file') from err


def _read_checked(folder: Path, name: str, entry: Any) -> bytes:
    if not isinstance(name, str) or not name or name != Path(name).name or name in ('.', '..'):
        raise ArtifactError(f'{folder}: file {name!r}, want a plain name in the folder')
    if not isinstance(entry, dict) or sorted(entry) != ['bytes', 'sha256']:
        raise ArtifactError(f'{folder}: file {name!r} has {entry!r}, want bytes and sha256')
    data = _read(folder / name, _MAX_FILE_BYTES)
    if len(data) != entry['bytes']:
        raise ArtifactError(f'{folder / name}: {len(data)} bytes, want {entry["bytes"]}')
    found = hashlib.sha256(data).hexdigest()
    if found != entry['sha256']:
        raise ArtifactError(f'{folder / name}: SHA-256 {found}, want {entry["sha256"]}')
    return data


def _self_hash(manifest: Mapping[str, Any]) -> str:
    body = {key: value for key, value in manifest.items() if key != 'manifest_sha256'}
    return hashlib.sha256(_serialise(body)).hexdigest()


def _serialise(manifest: Mapping[str, Any]) -> bytes:
    """Return the one canonical form: sorted keys, fixed indent, ASCII."""
    return (json.dumps(manifest, sort_keys=True, indent=1) + '\n').encode('ascii')
