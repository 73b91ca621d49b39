"""Make the form of an artifact that a run time wants; it carries the hash of its parent."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from wm_ros.export.derive import FORMS

    forms = '; '.join(f'{name}: {form.help}' for name, form in FORMS.items())
    parser.add_argument('artifact', metavar='ARTIFACT', type=Path, nargs='?',
                        help='folder of the artifact (default: the model that is installed)')
    parser.add_argument('--form', required=True, choices=FORMS, help=forms)
    parser.add_argument('--out', metavar='DIR', type=Path,
                        help='default: beside the artifact, <its name>-<form>, where backends look')
    parser.add_argument('--cameras', type=int, default=6,
                        help='of a form with fixed sizes (default: 6)')
    parser.add_argument('--plans', type=int, default=1,
                        help='ego plans a run, of a form with fixed sizes (default: 1)')


def run(arguments: argparse.Namespace) -> int:
    from wm_ros.cli.usage import UsageError
    from wm_ros.export.derive import derive
    from wm_ros.runtime.artifact import load_artifact
    from wm_ros.runtime.derived import form_path
    from wm_ros.share import share_path

    for name in ('cameras', 'plans'):
        if getattr(arguments, name) < 1:
            raise UsageError(f'--{name}: {getattr(arguments, name)}, want at least 1')
    parent = load_artifact(arguments.artifact or share_path('models', 'world-model'))
    out = arguments.out or form_path(parent.path, arguments.form)
    made = derive(parent, arguments.form, out, {'N': arguments.cameras, 'P': arguments.plans})
    print(f'{out}: {made} ({arguments.form} of {parent.hash})')
    return 0
