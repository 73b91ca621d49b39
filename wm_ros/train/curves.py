"""Loss curves of a run as one SVG, drawn from what the loop has written. No plotting library."""

from __future__ import annotations

import json
import math
from pathlib import Path

WIDTH, HEIGHT, MARGIN = 640, 260, 46
COLOURS = ('#1f77b4', '#d62728', '#2ca02c', '#9467bd', '#ff7f0e', '#8c564b', '#e377c2', '#17becf',
           '#7f7f7f', '#bcbd22')


def draw_curves(folder: Path) -> Path | None:
    """Write `curves.svg` with a panel a stage; return its path, None where nothing was logged."""
    stages = {path.stem: [json.loads(line) for line in path.read_text().splitlines()]
              for path in sorted(folder.glob('*.jsonl'))}
    stages = {stage: rows for stage, rows in stages.items() if rows}
    if not stages:
        return None
    panels = [f'<g transform="translate(0 {i * HEIGHT})">{_panel(stage, rows)}</g>'
              for i, (stage, rows) in enumerate(stages.items())]
    path = folder / 'curves.svg'
    path.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" '
        f'height="{HEIGHT * len(panels)}" font-family="sans-serif" font-size="10">'
        f'<rect width="100%" height="100%" fill="white"/>{"".join(panels)}</svg>\n')
    return path


def _panel(stage: str, rows: list[dict[str, float]]) -> str:
    """Return the curves of one stage: losses on a logarithmic axis over steps."""
    names = sorted({name for row in rows for name in row} - {'step'})
    positive = [row[name] for row in rows for name in names if row.get(name, 0.0) > 0]
    low, high = (math.floor(math.log10(min(positive))), math.ceil(math.log10(max(positive))))
    high, last = max(high, low + 1), max(row['step'] for row in rows)
    bottom, right = HEIGHT - 30, WIDTH - 110

    def at(step: float, value: float) -> str:
        x = MARGIN + (right - MARGIN) * step / last
        y = bottom - (bottom - 24) * (math.log10(max(value, 10.0 ** low)) - low) / (high - low)
        return f'{x:.1f},{y:.1f}'

    parts = [f'<text x="{MARGIN}" y="14" font-size="12">{stage}: loss over steps, to '
             f'{last}</text>']
    for power in range(low, high + 1):
        start, end = at(0, 10.0 ** power), at(last, 10.0 ** power)
        y = start.split(',')[1]
        parts.append(f'<polyline points="{start} {end}" stroke="#ddd" fill="none"/>'
                     f'<text x="4" y="{y}">1e{power}</text>')
    for i, name in enumerate(names):
        colour = COLOURS[i % len(COLOURS)]
        points = ' '.join(at(row['step'], row[name]) for row in rows if name in row)
        width = 2 if name == 'total' else 1
        parts.append(f'<polyline points="{points}" stroke="{colour}" stroke-width="{width}" '
                     f'fill="none"/><text x="{right + 8}" y="{24 + 12 * i}" '
                     f'fill="{colour}">{name}</text>')
    return ''.join(parts)
