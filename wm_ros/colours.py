"""
The colours of road users and of ground, wherever they are drawn.

Vehicles are cool, two-wheelers and walkers bright; warm colours are left to occupancy. Pictures,
Rerun, RViz and Foxglove are dark; the page is that or light.
"""

from __future__ import annotations

THEMES = ('dark', 'light')
#: By theme, in the order of `types.AGENT_CLASSES`.
CLASSES = {
    'dark': ('#5ab4ff', '#3ddbd9', '#b18cff', '#ff7ad9', '#c3e86b', '#4be38a', '#fff07a',
             '#e0b080'),
    'light': ('#0b62c4', '#007a78', '#6a2bc9', '#b4007f', '#567a00', '#0c7a3c', '#8f6a00',
              '#8a4b1f')}
#: By theme: neither of the following, drivable, walkway, static obstacle.
GROUND = {'dark': ('#181e26', '#2f3845', '#42394e', '#4e4332'),
          'light': ('#eceff3', '#ced5df', '#dfd5eb', '#e5dac4')}


def rgb(code: str) -> tuple[int, int, int]:
    """Return red, green and blue, 0 to 255, of '#rrggbb'."""
    return int(code[1:3], 16), int(code[3:5], 16), int(code[5:7], 16)


def bgr(code: str) -> tuple[int, int, int]:
    """Return '#rrggbb' as OpenCV wants it."""
    return rgb(code)[::-1]
