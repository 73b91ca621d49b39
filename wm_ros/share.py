"""Where the files live that are not Python: messages, parameters, rigs, models, launch files."""

from __future__ import annotations

from pathlib import Path


def share_path(*parts: str) -> Path:
    """
    Return the path of a file or folder of this package, such as `share_path('params', 'cpu.yaml')`.

    Looks from this file upwards, so it needs no environment: first come `share/wm_ros` of an
    installation and the root of a checkout. Raise FileNotFoundError where the path is in neither.
    """
    for folder in Path(__file__).parents:
        for root in (folder / 'share' / 'wm_ros', folder):
            if (root / 'package.xml').is_file():
                path = root.joinpath(*parts)
                if not path.exists():
                    raise FileNotFoundError(f'{path}: not part of this installation of wm_ros')
                return path
    raise FileNotFoundError(f'no share/wm_ros above {__file__}: is wm_ros installed?')
