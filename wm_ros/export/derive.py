"""
Derived forms: the artifact's three graphs rewritten for one run time.

A form is an artifact folder of its own, with manifest and sums; `derived` in its manifest names
the form and the hash of its parent (`wm_ros/runtime/derived.py` reads it back). Thresholds,
classes, grids and what the weights were trained on are the parent's.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx

from wm_ros.runtime.artifact import MANIFEST, Artifact, ArtifactError, write_manifest
from wm_ros.runtime.contract import GRAPHS
from wm_ros.runtime.derived import RECIPES, form_of


@dataclass(frozen=True)
class Form:
    """
    Where a form is made.

    `module` has `derive_graph(graph, model, sizes) -> ModelProto`, which returns a new model of
    one of `GRAPHS` (`sizes` is {} or N and P), and `PRECISION` {graph: str} for the manifest.
    """

    module: str
    help: str
    fixed_sizes: bool = False   # made for one number of cameras and plans


FORMS = {
    'tensorrt': Form('wm_ros.export.derive_tensorrt',
                     'strongly typed, FP16 between the INT8 products, static shapes', True),
    'ort-u8s8': Form('wm_ros.export.derive_ort',
                     'uint8 activations, with which ONNX Runtime runs int8 kernels on a CPU'),
}


def derive(parent: Artifact, form: str, out: Path, sizes: Mapping[str, int] | None = None) -> str:
    """
    Write a form of a verified artifact into folder `out`; return the new artifact's hash.

    `sizes` {'N': cameras, 'P': plans} are what a form with fixed sizes is made for. What lies in
    `out` is replaced. Raises ArtifactError for a parent that is itself derived.
    """
    made_as = FORMS[form]
    if form_of(parent):
        raise ArtifactError(f'{parent.path}: is the form {form_of(parent)!r} of another artifact, '
                            f'want the artifact itself')
    out = Path(out)
    if out.resolve() == parent.path.resolve():
        raise ArtifactError(f'{out}: is the parent, want another folder')
    module = importlib.import_module(made_as.module)
    fixed = dict(sizes or {}) if made_as.fixed_sizes else {}
    graphs = {}
    for graph in GRAPHS:
        model = module.derive_graph(graph, onnx.load_from_string(parent.graph(graph)), fixed)
        onnx.checker.check_model(model, full_check=True)
        graphs[graph] = model.SerializeToString(deterministic=True)
    out.mkdir(parents=True, exist_ok=True)
    (out / MANIFEST).unlink(missing_ok=True)    # a folder that is half written does not load
    for graph, data in graphs.items():
        (out / f'{graph}.onnx').write_bytes(data)
    derived = {'form': form, 'parent': parent.hash, 'recipe': RECIPES[form],
               'onnx': onnx.__version__}
    if fixed:
        derived['sizes'] = fixed
    return write_manifest(out, {**parent.manifest, 'precision': module.PRECISION,
                                'derived': derived})
