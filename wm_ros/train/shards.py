"""
Checkpoints that travel: half precision, in files of at most 16 MiB.

Weights are stored in float16, the optimiser's moments in bfloat16 (squared gradients do not fit
into float16); a run that goes on from them goes on from nearly the same place.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from wm_ros.train.loop import notes_of

LIMIT_BYTES = 16 << 20


def pack(folder: Path, out: Path, limit: int = LIMIT_BYTES) -> list[Path]:
    """Write every checkpoint of a run's folder to `out` as NAME.NN.safetensors; return them."""
    if out.resolve() == folder.resolve():
        raise ValueError(f'{out}: is the folder of the run, want another')
    out.mkdir(parents=True, exist_ok=True)
    written = []
    for path in sorted(folder.glob('*.safetensors')):
        for old in out.glob(f'{path.stem}.[0-9]*.safetensors'):
            old.unlink()        # of another time, when there may have been more of them
        kind = torch.bfloat16 if 'optimiser' in path.name else torch.float16
        tensors = {name: value.to(kind) if value.dtype == torch.float32 and value.ndim else value
                   for name, value in load_file(path).items()}
        notes = {**notes_of(path), 'packed_from': path.name}
        parts = _parts(tensors, limit)
        for number, part in enumerate(parts):
            target = out / f'{path.stem}.{number:02d}.safetensors'
            save_file(part, target, metadata={**notes, 'packed_parts': str(len(parts))})
            written.append(target)
    return written


def unpack(source: Path, folder: Path) -> list[Path]:
    """
    Write what `pack` left in `source` back into a run's folder, in single precision.

    Raises ValueError for a file that is no part of it, and where a part is missing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    names: dict[str, list[Path]] = {}
    for path in sorted(source.glob('*.safetensors')):
        notes = notes_of(path)
        if 'packed_from' not in notes:
            raise ValueError(f'{path}: want a part of a packed checkpoint, got notes '
                             f'{json.dumps(sorted(notes))}')
        names.setdefault(notes['packed_from'], []).append(path)
    for name, parts in names.items():
        wanted = int(notes_of(parts[0]).get('packed_parts', len(parts)))
        if len(parts) != wanted:
            raise ValueError(f'{source}: {len(parts)} parts of {name}, want {wanted}: '
                             f'{", ".join(part.name for part in parts)}')
    written = []
    for name, parts in names.items():
        tensors = {key: value.float() if value.dtype in (torch.float16, torch.bfloat16) else value
                   for part in parts for key, value in load_file(part).items()}
        notes = {key: value for key, value in notes_of(parts[0]).items()
                 if not key.startswith('packed_')}
        save_file(tensors, folder / name, metadata=notes)
        written.append(folder / name)
    return written


def _parts(tensors: dict[str, torch.Tensor], limit: int) -> list[dict[str, torch.Tensor]]:
    """Fill parts up to the limit in order, with room for a header."""
    parts: list[dict[str, torch.Tensor]] = [{}]
    used, room = 0, limit - (256 << 10)
    for name, value in tensors.items():
        size = value.numel() * value.element_size()
        if size > room:
            raise ValueError(f'{name}: {size} bytes do not fit into a file of {limit}')
        if used + size > room:
            parts.append({})
            used = 0
        parts[-1][name] = value.contiguous()
        used += size
    return parts
