"""What `--force` does: a bag is replaced once the new one is whole."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(out: Path, force: bool) -> Iterator[None]:
    """
    Let a bag be written to the folder `out`; with `force` one that is there gives way.

    Until the new one is written the old one lies beside it, as `out`.replaced, and it comes back
    where writing fails.
    """
    old = out.with_name(f'{out.name}.replaced')
    moved = force and (out / 'metadata.yaml').is_file()
    if moved and old.exists():      # left by one that was killed: the whole one is there
        shutil.rmtree(out)
    elif moved:
        out.rename(old)
    try:
        yield
    except BaseException:
        if moved:
            shutil.rmtree(out, ignore_errors=True)
            old.rename(out)
        raise
    if moved:
        shutil.rmtree(old)
