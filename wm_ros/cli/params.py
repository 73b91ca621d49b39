"""Print the parameters of the node: as a table, as the YAML in params/, or as JSON."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict


def add_arguments(parser: argparse.ArgumentParser) -> None:
    form = parser.add_mutually_exclusive_group()
    form.add_argument('--yaml', action='store_true', help='what params/world_model.yaml holds')
    form.add_argument('--markdown', action='store_true', help='the table of the README')
    form.add_argument('--json', action='store_true')


def run(arguments: argparse.Namespace) -> int:
    from wm_ros.ros import parameters

    if arguments.json:
        print(json.dumps([asdict(entry) | {'kind': entry.kind}
                          for entry in parameters.PARAMETERS], indent=1))
    elif arguments.yaml:
        print(parameters.default_yaml(), end='')
    elif arguments.markdown:
        print(parameters.markdown_table(), end='')
    else:
        for entry in parameters.PARAMETERS:
            print(f'{entry.name} ({entry.kind}, default {entry.default!r}'
                  f'{", may change while running" if entry.dynamic else ""})\n    {entry.text}')
    return 0
