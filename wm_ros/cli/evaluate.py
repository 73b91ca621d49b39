"""
Score an artifact: metrics with baselines beside them, intervals over drives.

Data sets: `sim` and `sim-hard` are simulated drives (seeds A:B, B not included; from 900000 on no
model was trained on them), `kitti:DIR` a KITTI drive, `bag:BAG` a bag that holds /truth/agents. A
bag without truth is scored against itself: what was forecast, against what was seen later (with
--artifact by that model, else by the forecasts in the bag where it holds any). SPA and IoU are in
percent, every other rate 0-1.
"""

from __future__ import annotations

import argparse
import json
from functools import partial
from pathlib import Path
from typing import Any

from wm_ros.cli.progress import Progress

DEFAULT_SEEDS = '900000:900200'
VALIDATION_SEEDS = '800000:800040'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--dataset', default='sim',
                        help='sim, another simulated world, kitti:DIR or bag:BAG (default: sim)')
    parser.add_argument('--seeds', metavar='A:B',
                        help=f'of simulated drives (default: {DEFAULT_SEEDS}, with '
                             f'--choose-threshold {VALIDATION_SEEDS})')
    parser.add_argument('--seconds', type=float, default=10.0,
                        help='of each simulated drive (default: 10)')
    parser.add_argument('--rig', default='surround', choices=('surround', 'front', 'kitti'),
                        help='of simulated drives (default: surround)')
    parser.add_argument('--artifact', type=Path, help='folder (default: the one that ships)')
    parser.add_argument('--backend', default='auto')
    parser.add_argument('--threads', type=int, default=1, help='of the backend, a worker')
    parser.add_argument('--every', type=int, default=5,
                        help='frames from one scored forecast to the next (default: 5, 0.5 s)')
    parser.add_argument('--workers', type=int, default=2, help='processes that share the drives')
    parser.add_argument('--threshold', type=float, help="of scores (default: the artifact's)")
    parser.add_argument('--choose-threshold', action='store_true',
                        help='print the threshold of the highest SPA at a precision of 0.85 or '
                             'more, on validation seeds')
    parser.add_argument('--json', type=Path, metavar='FILE', help='write the report there')


def run(arguments: argparse.Namespace) -> int:
    if arguments.choose_threshold:
        return _choose_threshold(arguments)
    if arguments.dataset.startswith('bag:') and _without_truth(arguments.dataset[4:]):
        return _against_itself(arguments)
    from wm_ros.evaluate.predictors import PredictorSource
    from wm_ros.evaluate.protocol import Task, evaluate
    from wm_ros.evaluate.scores import DriveCounter, Scores
    from wm_ros.evaluate.table import table
    from wm_ros.runtime.artifact import load_artifact

    folder = _artifact_folder(arguments)
    artifact = load_artifact(folder)
    threshold = artifact.score_threshold if arguments.threshold is None else arguments.threshold
    open_drive, keys = _drives(arguments, DEFAULT_SEEDS)
    task = Task(open_drive, PredictorSource(str(folder), arguments.backend, arguments.threads,
                                            threshold),
                partial(DriveCounter, threshold), arguments.every)
    counters = evaluate(task, keys, arguments.workers, Progress('scoring', 'drives'))
    scores = Scores(counters, [str(key) for key in keys])
    report = _head(arguments, folder, artifact.hash) | scores.report()
    print(f'{report["dataset"]}: {report["artifact"]}, model {report["model_hash"][:12]}')
    print(table(report))
    _write(arguments.json, report)
    return 0


def _choose_threshold(arguments: argparse.Namespace) -> int:
    from wm_ros.evaluate import threshold
    from wm_ros.evaluate.predictors import PredictorSource
    from wm_ros.evaluate.protocol import Task, evaluate
    from wm_ros.runtime.artifact import load_artifact

    folder = _artifact_folder(arguments)
    open_drive, keys = _drives(arguments, VALIDATION_SEEDS)
    task = Task(open_drive, PredictorSource(str(folder), arguments.backend, arguments.threads,
                                            threshold.CANDIDATES[0]),
                threshold.SweepCounter, arguments.every)
    points = threshold.sweep(evaluate(task, keys, arguments.workers,
                                      Progress('scoring', 'drives')))
    print(f'{"threshold":>9}{"SPA top-6":>11}{"precision":>11}{"recall":>8}{"EPA":>8}')
    for point in points:
        print(f'{point.threshold:>9.3f}{point.spa_top6:>11.1f}{point.precision:>11.3f}'
              f'{point.recall:>8.3f}{point.epa:>8.3f}')
    _write(arguments.json, _head(arguments, folder, load_artifact(folder).hash)
           | {'points': [vars(point) for point in points]})
    best = threshold.choose(points)
    print(f'chosen: {best.threshold:g}')
    return 0


def _without_truth(path: str) -> bool:
    """Tell whether a bag holds no truth to score against."""
    from wm_ros.data.bag import TRUTH_TOPIC, BagReader
    with BagReader(path) as reader:
        return TRUTH_TOPIC not in reader.topics


def _against_itself(arguments: argparse.Namespace) -> int:
    """Score the forecasts of a bag against what was seen later."""
    from wm_ros.evaluate.self_report import score_bag, table

    report = {'dataset': arguments.dataset} | score_bag(
        Path(arguments.dataset[4:]), arguments.artifact, arguments.backend, arguments.threads,
        Progress('forecasting', 'camera sets'))
    print(f'{report["dataset"]}: no truth in it')
    print(table(report))
    _write(arguments.json, report)
    return 0


def _artifact_folder(arguments: argparse.Namespace) -> Path:
    if arguments.artifact is not None:
        return arguments.artifact
    from wm_ros.share import share_path
    return share_path('models', 'world-model')


def _drives(arguments: argparse.Namespace, default_seeds: str) -> tuple[Any, list[Any]]:
    """Return how to open a drive and the keys of all drives."""
    kind, _, place = arguments.dataset.partition(':')
    if kind == 'kitti' and place:
        from wm_ros.data.kitti import load_drive
        return load_drive, [place]
    if kind == 'bag' and place:
        from wm_ros.data.bag_drive import BagDrive
        return BagDrive, [place]
    from wm_ros.data.simulator import SimulatedDrive
    from wm_ros.sim.worlds import WORLDS
    if kind not in WORLDS or place:
        raise ValueError(f'--dataset {arguments.dataset}: want {", ".join(WORLDS)}, kitti:DIR or '
                         'bag:BAG')
    return (partial(SimulatedDrive, seconds=arguments.seconds, world=kind,
                    rig_name=arguments.rig), parse_seeds(arguments.seeds or default_seeds))


def parse_seeds(text: str) -> list[int]:
    """Return the seeds A .. B-1 of 'A:B'; raise ValueError for anything else."""
    first, _, end = text.partition(':')
    if not first.isdecimal() or not end.isdecimal() or int(end) <= int(first):
        raise ValueError(f'--seeds {text}: want A:B with A < B, such as {DEFAULT_SEEDS}')
    return list(range(int(first), int(end)))


def _head(arguments: argparse.Namespace, folder: Path, model_hash: str) -> dict[str, Any]:
    """Return what a report was made from."""
    simulated = ':' not in arguments.dataset
    default = VALIDATION_SEEDS if arguments.choose_threshold else DEFAULT_SEEDS
    return {'dataset': arguments.dataset, 'artifact': folder.name, 'model_hash': model_hash,
            'backend': arguments.backend, 'every': arguments.every,
            'seeds': (arguments.seeds or default) if simulated else None,
            'seconds': arguments.seconds if simulated else None,
            'rig': arguments.rig if simulated else None}


def _write(path: Path | None, report: dict[str, Any]) -> None:
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(report, indent=1) + '\n', encoding='utf-8')
