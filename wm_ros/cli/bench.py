"""
Measure the way from JPEG pictures to a forecast: latency by stage, memory, precision, ceilings.

All pictures of a set come at once, which is the worst case; the window is full and the backend
warm. FP32 PyTorch and FP32 OpenVINO run in turns with the backend, so that their ratios hold on a
busy machine too; absolute times want an idle one. `--roofline` prints what the counted work
allows on other hardware, and measures nothing.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

PRESET_NAMES = ('surround', 'front')
BASELINE_NAMES = ('pytorch-fp32', 'openvino-fp32')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--preset', default='surround', choices=PRESET_NAMES,
                        help='six cameras or one, JPEG of 1600x900 (default: surround)')
    parser.add_argument('--backend', default='auto',
                        help='auto, openvino, onnxruntime, tensorrt, pytorch (default: auto)')
    parser.add_argument('--option', action='append', default=[], metavar='KEY=VALUE',
                        help='of the backend; VALUE is JSON or a word; may be repeated')
    parser.add_argument('--threads', type=int, default=2, help='of the backend (default: 2)')
    parser.add_argument('--frames', type=int, default=200, help='to measure (default: 200)')
    parser.add_argument('--beside', type=int, default=50,
                        help='frames of each system that runs in turns (default: 50)')
    parser.add_argument('--baselines', default=','.join(BASELINE_NAMES), metavar='LIST',
                        help=f'of {", ".join(BASELINE_NAMES)}; none for none (default: all)')
    parser.add_argument('--plans', type=int, default=8,
                        help='candidate ego plans to hold against one; 0: none (default: 8)')
    parser.add_argument('--width', type=int, default=0,
                        help="of the pictures (default: the rig's, 1600)")
    parser.add_argument('--artifact', type=Path, help='folder (default: the one that ships)')
    parser.add_argument('--device', default='', help='what to call this machine in the report')
    parser.add_argument('--json', type=Path, metavar='FILE', help='write the report there')
    parser.add_argument('--markdown', type=Path, metavar='FILE',
                        help='write its tables there: into the section <!-- bench PRESET --> (or '
                             'roofline) of a page that has one, else as the whole file')
    parser.add_argument('--roofline', action='store_true',
                        help='print bounds for other hardware from counted work, and end')


def run(arguments: argparse.Namespace) -> int:
    _check(arguments)
    publish = _publisher() if not arguments.roofline else None
    from wm_ros.bench import table
    from wm_ros.runtime.artifact import load_artifact
    from wm_ros.share import share_path

    artifact = load_artifact(arguments.artifact or share_path('models', 'world-model'))
    if arguments.roofline:
        text = table.platforms(artifact)
        print(text)
        _write_section(arguments.markdown, 'roofline', text)
        return 0
    from wm_ros.bench.report import Settings, measure

    settings = Settings(
        arguments.preset, arguments.backend, dict(map(_option, arguments.option)),
        arguments.threads, arguments.frames, arguments.beside, _baselines(arguments.baselines),
        arguments.plans, arguments.width, arguments.device)
    report = measure(settings, artifact, publish, lambda text: print(text, file=sys.stderr))
    text = table.tables(report)
    print(text)
    _write(arguments.json, json.dumps(report, indent=1, allow_nan=False))
    _write_section(arguments.markdown, arguments.preset, text)
    return 0


def _check(arguments: argparse.Namespace) -> None:
    for name, least in (('frames', 1), ('beside', 1), ('plans', 0), ('threads', 0), ('width', 0)):
        if getattr(arguments, name) < least:
            raise ValueError(f'--{name} {getattr(arguments, name)}, want at least {least}')


def _baselines(text: str) -> tuple[str, ...]:
    names = tuple(name for name in text.split(',') if name not in ('', 'none'))
    unknown = [name for name in names if name not in BASELINE_NAMES]
    if unknown:
        raise ValueError(f'--baselines {", ".join(unknown)}, want some of '
                         f'{", ".join(BASELINE_NAMES)}, or none')
    return names


def _option(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition('=')
    if not equals:
        raise ValueError(f'--option {text}, want KEY=VALUE')
    try:
        return key, json.loads(value)
    except ValueError:
        return key, value


def _publisher() -> Any:
    """Return what builds and serialises all messages of a forecast, None where ROS is not there."""
    from wm_ros.cli import environment

    environment.prepare()
    try:
        from wm_ros.ros.outputs import serialised
    except ImportError:
        return None
    return serialised


def _write_section(path: Path | None, key: str, text: str) -> None:
    from wm_ros.bench.table import put_into

    if path:
        page = path.read_text() if path.is_file() else ''
        path.write_text(put_into(page, key, text))


def _write(path: Path | None, text: str) -> None:
    if path:
        path.write_text(text + '\n')
