"""
Simulated drives are rendered once and read ever after, by whoever asks for the same drive.

A drive is found under a key of everything that its pictures and truth follow from: the world's
parameters, the rig, the length, the instants that are scored, the simulator's code and the
libraries that draw. What was rendered by another version is never taken for it.
"""

from __future__ import annotations

import ast
import errno
import hashlib
import json
import os
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from wm_ros.data.rendered import (
    FORMAT,
    JPEG_QUALITY,
    RenderedDrive,
    RenderedFileError,
    camera_numbers,
    render,
)
from wm_ros.data.simulator import SimulatedDrive
from wm_ros.sim.worlds import WORLDS

#: Modules that decide what a drive looks like, with what they import of this package.
_CODE = ('wm_ros.data.simulator', 'wm_ros.sim.drive', 'wm_ros.sim.render')
#: What comes of these is in the definition of a drive: the cameras at the model's input size.
_NOT_CODE = ('wm_ros.image', 'wm_ros.runtime')


class CacheError(OSError):
    """The cache cannot be written: says where, why and what can be done."""


@dataclass(frozen=True)
class RenderedDrives:
    """
    Opens the drive of a seed, from the cache where it is there, else rendered and written to it.

    Without `folder` every drive is rendered anew; its bytes are the same. `every` and `first` say
    which instants carry their truth.
    """

    world: str
    seconds: float = 10.0
    rig_name: str = 'surround'
    every: int = 5
    first: int = 15
    folder: Path | None = None
    version: str = ''

    def __call__(self, seed: int) -> RenderedDrive:
        if self.folder is None:
            return self._render(seed)
        path = self.path(seed)
        try:
            return RenderedDrive.load(path, self.key)
        except FileNotFoundError:
            pass
        except RenderedFileError as err:
            print(f'rendering anew: {err}', file=sys.stderr)
        drive = self._render(seed)
        _write(path, drive.to_bytes())
        return drive

    def ensure(self, seed: int) -> int:
        """Render the drive of a seed where it is not there yet; return the bytes of its file."""
        path = self.path(seed)
        if not path.is_file():
            _write(path, self._render(seed).to_bytes())
        return path.stat().st_size

    @property
    def key(self) -> str:
        """What these drives follow from, as 16 hexadecimal digits."""
        return digest(self.definition())[:16]

    def definition(self) -> dict[str, Any]:
        """Return everything that these drives follow from, but for the seed."""
        version = self.version or f'{code_version()} {libraries()}'
        return {'format': FORMAT, 'jpeg_quality': JPEG_QUALITY, 'version': version,
                **world_definition(self.world, self.seconds, self.rig_name, self.every,
                                   self.first)}

    def path(self, seed: int) -> Path:
        """Return where the drive of a seed is, or would be."""
        if self.folder is None:
            raise ValueError('render cache: no folder was given')
        return self.folder / f'{self.world}-{self.key}' / f'{seed}.drive'

    def _render(self, seed: int) -> RenderedDrive:
        drive = SimulatedDrive(seed, self.seconds, self.world, self.rig_name)
        return render(drive, self.every, self.first, self.key)


def world_definition(world: str, seconds: float, rig_name: str, every: int,
                     first: int) -> dict[str, Any]:
    """Return the parameters of a set of drives as JSON-ready values."""
    rig = SimulatedDrive(0, seconds, world, rig_name).rig
    return {'world': world, 'parameters': asdict(WORLDS[world]), 'seconds': seconds,
            'rig': [camera_numbers(camera) for camera in rig.cameras], 'every': every,
            'first': first}


def digest(value: Any) -> str:
    """Return the SHA-256 of a JSON-ready value."""
    text = json.dumps(_rounded(value), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _rounded(value: Any) -> Any:
    """Return a JSON-ready value with numbers short of where processors differ."""
    if isinstance(value, dict):
        return {key: _rounded(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(entry) for entry in value]
    return round(value, 9) if isinstance(value, float) else value


def default_folder() -> Path:
    """Return `$XDG_CACHE_HOME/wm_ros/drives` (default `~/.cache/wm_ros/drives`)."""
    base = os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache'
    return Path(base) / 'wm_ros' / 'drives'


def libraries() -> str:
    """Return the versions of the libraries that draw."""
    return f'numpy {np.__version__} opencv {cv2.__version__}'


@cache
def code_version() -> str:
    """Return a digest of the simulator's code: comments, docstrings and layout do not count."""
    total = hashlib.sha256()
    for name, code in sorted(_modules().items()):
        total.update(f'{name}\n{code}\n'.encode())
    return total.hexdigest()


def _modules() -> dict[str, str]:
    """Return the bare code of the modules that decide about pictures and truth."""
    root = Path(__file__).resolve().parents[2]
    found: dict[str, str] = {}
    todo = list(_CODE)
    while todo:
        name = todo.pop()
        path = root.joinpath(*name.split('.')).with_suffix('.py')
        if name in found or name.startswith(_NOT_CODE) or not path.is_file():
            continue
        found[name] = bare_code(path.read_text(encoding='utf-8'))
        for node in ast.walk(ast.parse(found[name])):
            if isinstance(node, ast.ImportFrom) and node.module:
                # `from wm_ros.sim import seeds` names a module, `.. import Truth` does not.
                todo += [node.module, *(f'{node.module}.{alias.name}' for alias in node.names)]
    return found


def bare_code(source: str) -> str:
    """Return Python without comments and docstrings, in one layout."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        body = getattr(node, 'body', None)
        if (isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and body
                and isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant)
                and isinstance(body[0].value.value, str)):
            node.body = body[1:] or [ast.Pass()]
    return ast.unparse(tree)


def _write(path: Path, data: bytes) -> None:
    """Write a file whole or not at all; raise CacheError where there is no room or no right."""
    temporary = path.with_name(f'.{path.name}-{os.getpid()}')
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(data)
        temporary.replace(path)
    except OSError as err:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        why = {errno.ENOSPC: 'the disk is full', errno.EDQUOT: 'the quota is used up',
               errno.EROFS: 'the file system is read-only'}.get(err.errno, err.strerror or str(err))
        raise CacheError(f'{path}: {why}, want {len(data) / 1e6:.1f} MB for a rendered drive; '
                         'choose another folder (--cache DIR) or none (--no-cache)') from err
