"""
Engines and timing caches on disk, each with the key of what it was made from.

An engine runs only where it was built: the same graph, the same TensorRT, the same GPU. A file is
one line of JSON, with the key and the sum of what follows, and then the bytes. What does not fit,
or is damaged, is told by name and built again; a folder that cannot be written costs the next
start its build and nothing else.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_MAX_HEADER_BYTES = 1 << 16


def default_folder() -> Path:
    """Return where engines are kept unless an option says otherwise: the user's cache."""
    base = os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache'
    return Path(base) / 'wm_ros' / 'tensorrt'


class EngineCache:
    """A folder of files with keys; `notes` tells what was not used, and why."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self.notes: list[str] = []

    def load(self, name: str, key: Mapping[str, Any]) -> bytes | None:
        """Return the bytes stored as `name` with this very key, else None, with a note why."""
        path = self.folder / name
        try:
            with path.open('rb') as file:
                header, data = file.readline(_MAX_HEADER_BYTES), file.read()
        except FileNotFoundError:
            return None
        except OSError as err:
            self.notes.append(f'{path}: {err.strerror}, want a readable file')
            return None
        try:
            found = json.loads(header)
            stored, wanted = found['key'], _plain(key)
            differing = [field for field in {**stored, **wanted}
                         if stored.get(field) != wanted.get(field)]
            whole = found['sha256'] == hashlib.sha256(data).hexdigest()
        except (ValueError, KeyError, TypeError, AttributeError):
            self.notes.append(f'{path}: no header of a cached file, built again')
            return None
        if differing:
            listed = ', '.join(f'{field} {stored.get(field)!r}, want {wanted.get(field)!r}'
                               for field in differing)
            self.notes.append(f'{path}: stale: {listed}')
            return None
        if not whole:
            self.notes.append(f'{path}: damaged, its sum is another')
            return None
        return data

    def store(self, name: str, key: Mapping[str, Any], data: bytes) -> bool:
        """Write a file whole or not at all; return whether it was, with a note why not."""
        header = json.dumps({'key': _plain(key), 'sha256': hashlib.sha256(data).hexdigest()},
                            sort_keys=True).encode() + b'\n'
        temporary = None
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=self.folder, prefix=f'.{name}-',
                                             delete=False) as file:
                temporary = Path(file.name)
                file.write(header)
                file.write(data)
            os.replace(temporary, self.folder / name)
            return True
        except OSError as err:
            if temporary is not None:
                temporary.unlink(missing_ok=True)
            self.notes.append(f'{self.folder}: {err.strerror}; {name} is not kept, and is made '
                              'again at the next start')
            return False


def _plain(key: Mapping[str, Any]) -> dict[str, Any]:
    """Return a key as JSON gives it back."""
    return json.loads(json.dumps(dict(key)))
