"""
The `wm_ros` command: one file a sub-command in this folder.

Each file has `add_arguments(parser)` and `run(arguments) -> int`; its line of the help is in
`COMMANDS`. Only the file of the sub-command that was asked for is imported, so that `--help` costs
nothing.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import os
import sys
from types import ModuleType

from wm_ros.cli.usage import UsageError

#: Sub-commands with what they do, in the order of the help. One whose module is not there (this
#: may be an installation without training) is not listed.
COMMANDS = {
    'demo': 'run the live node on a simulated six-camera drive, score it and show it',
    'sim': 'write a bag of a simulated drive',
    'replay': 'run the model over a bag and write what the node would have published',
    'report': 'make a page to look at from a bag of forecasts',
    'evaluate': 'score forecasts, with baselines beside them',
    'compare': 'hold two versions, backends or precisions against each other over bags',
    'mine': 'cut the most surprising moments out of a bag',
    'kitti': 'write a bag of a KITTI drive',
    'nuscenes': 'write a bag of a nuScenes scene',
    'video': 'write a bag of a video and a rig file',
    'bench': 'measure latency by stage, memory and precision',
    'parity': 'hold every backend on this machine against fake-quantised PyTorch',
    'params': "print the node's parameters",
    'train': 'train a model on simulated drives',
    'distill': 'train a student under a teacher',
    'quantize': 'train with quantisation in the loop',
    'export': 'write the artifact that the node runs',
    'derive': 'make the forms of an artifact that single run times want',
}

USAGE = 2
FAILURE = 1
#: What training and export need beside what the node does; versions are in requirements/train.txt.
LIBRARIES = ('torch', 'onnx', 'onnxruntime', 'safetensors')


def available() -> dict[str, str]:
    """Return the sub-commands whose module is there."""
    return {name: text for name, text in COMMANDS.items()
            if importlib.util.find_spec(f'wm_ros.cli.{name}') is not None}


def main(arguments: list[str] | None = None) -> int:
    """Run one sub-command; return 0, 2 for wrong usage, 1 for a failure said in one line."""
    arguments = sys.argv[1:] if arguments is None else arguments
    commands = available()
    parser = argparse.ArgumentParser(
        prog='wm_ros', formatter_class=argparse.RawDescriptionHelpFormatter,
        usage='wm_ros COMMAND [options]',
        description='A camera world model for ROS 2: forecasts of road users and of occupied '
                    'ground.',
        epilog='commands:\n' + '\n'.join(f'  {name:<10} {text}' for name, text in commands.items())
               + '\n\n`wm_ros COMMAND --help` says more. Exit codes: 0 done, 1 failed, 2 wrong '
                 'usage,\n3 and 4 see docs/replay.md, 130 interrupted.')
    if not arguments or arguments[0] in ('-h', '--help'):
        parser.print_help()
        return 0 if arguments else USAGE
    name = arguments[0]
    if name not in commands:
        print(f'wm_ros: no command {name!r}; there are {", ".join(commands)}', file=sys.stderr)
        return USAGE
    module = importlib.import_module(f'wm_ros.cli.{name}')
    command = argparse.ArgumentParser(prog=f'wm_ros {name}', description=module.__doc__,
                                      formatter_class=argparse.RawDescriptionHelpFormatter)
    return _run(name, module, command, arguments[1:])


def _run(name: str, module: ModuleType, command: argparse.ArgumentParser,
         arguments: list[str]) -> int:
    """Run a command; a failure that it knows of is one line, anything else keeps its trace."""
    try:
        module.add_arguments(command)
        return int(module.run(command.parse_args(arguments)) or 0)
    except SystemExit as stop:      # argparse has printed what it had to say
        return int(stop.code or 0)
    except KeyboardInterrupt:
        print(f'wm_ros {name}: interrupted', file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of stdout went away (`| head`); nothing more can be said there.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILURE
    except (OSError, ValueError, RuntimeError, ModuleNotFoundError) as err:
        if os.environ.get('WM_ROS_TRACEBACK'):
            raise
        print(f'wm_ros {name}: {_one_line(err)}', file=sys.stderr)
        return USAGE if isinstance(err, UsageError) else FAILURE


def _one_line(err: BaseException) -> str:
    text = ' '.join(str(err).split())
    if isinstance(err, ModuleNotFoundError) and err.name in LIBRARIES:
        text += (f'; want it installed, as all that training and export need: '
                 f'pip install {" ".join(LIBRARIES)}')
    return text or type(err).__name__


if __name__ == '__main__':
    sys.exit(main())
