"""
Derived forms at run time: which form an artifact has, and whose it is.

`wm_ros derive` (`wm_ros/export/derive.py`) makes a form of an artifact for one run time. It is an
artifact of its own whose manifest has `derived`: the form's name, the parent's hash and, where a
form is made for fixed sizes, those. A form lies beside its parent: `<parent's folder>-<form>`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wm_ros.runtime.artifact import MANIFEST, Artifact, ArtifactError, load_artifact


class FormError(ArtifactError):
    """An artifact in a form that a backend does not run."""


#: By which recipe a form is made (`wm_ros/export/derive_*.py`). One that is made otherwise than
#: before gets the next number, so that what lies in a cache is made again.
RECIPES = {'tensorrt': 2, 'ort-u8s8': 1}


def form_of(artifact: Artifact) -> str:
    """Return the form's name, '' for an artifact as exported; raise ArtifactError for no form."""
    return _entry(artifact).get('form', '')


def parent_hash(artifact: Artifact) -> str:
    """Return the hash of the artifact that this one was derived from, or its own."""
    return _entry(artifact).get('parent', artifact.hash)


def sizes_of(artifact: Artifact) -> Mapping[str, int]:
    """Return the sizes (N cameras, P plans) that a form is fixed to; empty for free ones."""
    return _entry(artifact).get('sizes', {})


def form_path(parent: Path, form: str) -> Path:
    """Return where a form of an artifact lies unless it is said otherwise."""
    parent = Path(parent).resolve()
    return parent.with_name(f'{parent.name}-{form}')


def check_form(artifact: Artifact, backend: str, *forms: str) -> None:
    """Raise FormError where a backend is given another form than those it runs ('' is none)."""
    if form_of(artifact) not in forms:
        wanted = ', '.join(form or 'as exported' for form in forms)
        raise FormError(f'{artifact.path}: {backend} got the form {form_of(artifact)!r}, '
                        f'want {wanted}')


def find_form(artifact: Artifact, form: str, folder: Path | None = None) -> Artifact | None:
    """
    Return the form of an artifact: itself, or what lies in `folder` (beside it), or None.

    Raises ArtifactError where a folder is there but damaged, another form, derived from another
    artifact, or made by another recipe than this version's.
    """
    if form_of(artifact) == form:
        return artifact
    folder = form_path(artifact.path, form) if folder is None else Path(folder)
    if not (folder / MANIFEST).exists():
        return None
    found = load_artifact(folder)
    if form_of(found) != form:
        raise ArtifactError(f'{folder}: form {form_of(found)!r}, want {form!r}')
    if parent_hash(found) != artifact.hash:
        raise ArtifactError(f'{folder}: derived from artifact {parent_hash(found)[:12]}, want '
                            f'{artifact.hash[:12]}; {_again(artifact, form, folder)}')
    recipe = _entry(found).get('recipe', 1)
    if recipe != RECIPES[form]:
        raise ArtifactError(f'{folder}: made by recipe {recipe} of the form {form}, want '
                            f'{RECIPES[form]}; {_again(artifact, form, folder)}')
    return found


def _again(artifact: Artifact, form: str, folder: Path) -> str:
    return f'make it again: wm_ros derive {artifact.path} --form {form} --out {folder}'


def _entry(artifact: Artifact) -> Mapping[str, Any]:
    entry = artifact.manifest.get('derived')
    if entry is None:
        return {}
    where = f'{artifact.path / MANIFEST}: derived'
    if not isinstance(entry, dict) or not isinstance(entry.get('form'), str) or not entry['form']:
        raise ArtifactError(f'{where} {entry!r}, want an object with `form` and `parent`')
    parent = entry.get('parent')
    if not isinstance(parent, str) or len(parent) != 64 or set(parent) - set('0123456789abcdef'):
        raise ArtifactError(f'{where}.parent {parent!r}, want a SHA-256')
    sizes = entry.get('sizes', {})
    if not isinstance(sizes, dict) or not all(type(size) is int and size > 0
                                              for size in sizes.values()):
        raise ArtifactError(f'{where}.sizes {sizes!r}, want whole numbers above 0')
    return entry
