"""Curves and bars as SVG text, for pages that need no script and no network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 420, 280
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 12, 30, 40
COLOURS = ('#1769aa', '#e07b00', '#2e8b57', '#8e44ad', '#7f8c8d', '#c0392b')

Interval = tuple[float, float] | list | None


@dataclass(frozen=True)
class Series:
    """
    One line: `x`, `y` (None where unknown) and, where known, intervals of y.

    `dashed` is for what is there to compare with; `marked` is the index of a point to ring.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float | None]
    intervals: Sequence[Interval] = ()
    dashed: bool = False
    marked: int | None = None


class _Frame:
    """The axes of a plot: maps values to pixels and collects what is drawn."""

    def __init__(self, title: str, x_label: str, x: tuple[float, float],
                 y: tuple[float, float]) -> None:
        self._x, self._y = x, y
        self.parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img">'
                      f'<text x="{_LEFT}" y="16" class="title">{escape(title)}</text>']
        middle = (_LEFT + WIDTH - _RIGHT) / 2
        self.parts.append(f'<text x="{middle:.0f}" y="{HEIGHT - 6}" class="label">'
                          f'{escape(x_label)}</text>')
        for i in range(6):
            value = y[0] + (y[1] - y[0]) * i / 5
            at = self.v(value)
            self.parts.append(
                f'<line x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{at:.1f}" y2="{at:.1f}" '
                f'class="grid"/><text x="{_LEFT - 5}" y="{at + 4:.1f}" class="tick y">{value:g}'
                '</text>')

    def u(self, x: float) -> float:
        return _LEFT + (x - self._x[0]) / (self._x[1] - self._x[0]) * (WIDTH - _LEFT - _RIGHT)

    def v(self, y: float) -> float:
        share = min(max((y - self._y[0]) / (self._y[1] - self._y[0]), 0.0), 1.0)
        return HEIGHT - _BOTTOM - share * (HEIGHT - _TOP - _BOTTOM)

    def tick(self, x: float, text: str, small: bool = False) -> None:
        style = ' style="font-size:8px"' if small else ''
        self.parts.append(f'<text x="{self.u(x):.1f}" y="{HEIGHT - _BOTTOM + 15}" '
                          f'class="tick"{style}>{escape(text)}</text>')

    def whisker(self, u: float, interval: Interval, colour: str) -> None:
        if interval is None or interval[0] is None:
            return
        low, high = self.v(interval[0]), self.v(interval[1])
        self.parts.append(f'<path d="M{u:.1f} {low:.1f}V{high:.1f}M{u - 3:.1f} {low:.1f}h6'
                          f'M{u - 3:.1f} {high:.1f}h6" stroke="{colour}" fill="none"/>')

    def legend(self, names: Sequence[str]) -> str:
        """Close the picture; names follow below it."""
        keys = ''.join(f'<span><i style="background:{COLOURS[i % len(COLOURS)]}"></i>'
                       f'{escape(name)}</span>' for i, name in enumerate(names))
        return ('<figure>' + ''.join(self.parts) + f'</svg><figcaption>{keys}</figcaption>'
                '</figure>')


def lines(title: str, x_label: str, series: Sequence[Series], x: tuple[float, float] = (0, 1),
          y: tuple[float, float] = (0, 1), diagonal: bool = False) -> str:
    """Return a plot of lines; `diagonal` draws where stated and found would be equal."""
    frame = _Frame(title, x_label, x, y)
    steps = 3 if x[1] == 3 else 4
    for i in range(steps + 1):
        value = x[0] + (x[1] - x[0]) * i / steps
        frame.tick(value, f'{value:g}')
    if diagonal:
        frame.parts.append(f'<path d="M{frame.u(x[0]):.1f} {frame.v(y[0]):.1f}'
                           f'L{frame.u(x[1]):.1f} {frame.v(y[1]):.1f}" class="diagonal"/>')
    for i, one in enumerate(series):
        colour = COLOURS[i % len(COLOURS)]
        points = [(frame.u(a), frame.v(b)) for a, b in zip(one.x, one.y, strict=True)
                  if a is not None and b is not None]
        if not points:
            continue
        path = 'M' + 'L'.join(f'{a:.1f} {b:.1f}' for a, b in points)
        dash = ' stroke-dasharray="5 4"' if one.dashed else ''
        frame.parts.append(f'<path d="{path}" stroke="{colour}" fill="none" '
                           f'stroke-width="2"{dash}/>')
        if len(points) <= 20:
            frame.parts += [f'<circle cx="{a:.1f}" cy="{b:.1f}" r="2.5" fill="{colour}"/>'
                            for a, b in points]
        for a, interval in zip(one.x, one.intervals, strict=False):
            frame.whisker(frame.u(a), interval, colour)
        if one.marked is not None:
            a, b = frame.u(one.x[one.marked]), frame.v(one.y[one.marked])
            frame.parts.append(f'<circle cx="{a:.1f}" cy="{b:.1f}" r="6" fill="none" '
                               f'stroke="{colour}" stroke-width="2"/>')
    return frame.legend([one.name for one in series])


def bars(title: str, labels: Sequence[str], series: Sequence[Series],
         y: tuple[float, float] = (0, 100)) -> str:
    """Return a plot of bars in groups: one group a label, one bar a series (its `x` is unused)."""
    frame = _Frame(title, '', (0, max(len(labels), 1)), y)
    width = 0.8 / max(len(series), 1)
    for place, label in enumerate(labels):
        frame.tick(place + 0.5, label, small=len(labels) > 6)
        for i, one in enumerate(series):
            value, colour = one.y[place], COLOURS[i % len(COLOURS)]
            if value is None:
                continue
            left = frame.u(place + 0.1 + i * width)
            right = frame.u(place + 0.1 + (i + 1) * width)
            top = frame.v(value)
            faint = ' opacity="0.55"' if one.dashed else ''
            frame.parts.append(
                f'<rect x="{left:.1f}" y="{top:.1f}" width="{right - left - 1:.1f}" '
                f'height="{frame.v(y[0]) - top:.1f}" fill="{colour}"{faint}/>')
            if place < len(one.intervals):
                frame.whisker((left + right) / 2, one.intervals[place], '#333')
    return frame.legend([one.name for one in series])
