"""Progress on stderr: one line that is rewritten on a terminal, one line a tenth in a log."""

from __future__ import annotations

import sys
import time


class Progress:
    """Shows `label: done/total` with the time that is left; call it with (done, total)."""

    def __init__(self, label: str, unit: str = '') -> None:
        self._label = label
        self._unit = f' {unit}' if unit else ''
        self._start = time.monotonic()
        self._live = sys.stderr.isatty()
        self._shown = -1

    def __call__(self, done: int, total: int) -> None:
        step = done if self._live else done * 10 // max(total, 1)
        if step == self._shown:
            return
        self._shown = step
        spent = time.monotonic() - self._start
        text = f'{self._label}: {done}/{total}{self._unit}'
        if done >= total:
            text += f', {spent:.0f} s'
        elif done and spent > 1:
            text += f', {spent / done * (total - done):.0f} s left'
        if self._live:
            print(f'\r{text:<78}', end='\n' if done >= total else '', file=sys.stderr, flush=True)
        else:
            print(text, file=sys.stderr, flush=True)
