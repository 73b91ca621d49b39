"""
Score an artifact: metrics with baselines beside them, intervals over drives.

Data sets: `sim`, `sim-hard` and the worlds that training never sees are simulated drives (seeds
A:B, B not included; from 900000 on no model was trained on them), `kitti:DIR` a KITTI drive,
`nuscenes:DIR` all scenes of a nuScenes version, `bag:BAG` a bag that holds /truth/agents. A bag
without truth is scored against itself: what was forecast, against what was seen later (with
--artifact by that model, else by the forecasts in the bag where it holds any). SPA and IoU are
in percent, every other rate 0-1.
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wm_ros.cli.progress import Progress
from wm_ros.cli.usage import UsageError

if TYPE_CHECKING:
    from wm_ros.evaluate.datasets import Dataset

#: Of 30 drives the threshold fell short of its precision on others.
VALIDATION_SEEDS = '800000:800060'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--dataset', default='sim',
                        help='sim, another simulated world, kitti:DIR, nuscenes:DIR or bag:BAG '
                        '(default: sim)')
    parser.add_argument('--seeds', metavar='A:B',
                        help='of simulated drives (default: those of bench-v1, with '
                             f'--choose {VALIDATION_SEEDS})')
    parser.add_argument('--seconds', type=float, default=10.0,
                        help='of each simulated drive (default: 10)')
    parser.add_argument('--rig', default='surround', choices=('surround', 'front', 'kitti'),
                        help='of simulated drives (default: surround)')
    parser.add_argument('--cache', type=Path, metavar='DIR',
                        help='where simulated drives are kept rendered, 16 MB each (default: '
                             '~/.cache/wm_ros/drives)')
    parser.add_argument('--no-cache', action='store_true', help='render, and keep nothing')
    parser.add_argument('--render-only', action='store_true',
                        help='render what is not in the cache yet, and score nothing')
    parser.add_argument('--artifact', type=Path,
                        help='folder of an artifact, or of a training run, which PyTorch runs '
                             '(default: the artifact that ships)')
    parser.add_argument('--backend', default='auto')
    parser.add_argument('--threads', type=int, default=1, help='of the backend, a worker')
    parser.add_argument('--against', metavar='ARTIFACT[@BACKEND][=THRESHOLD]', action='append',
                        default=[],
                        help='score this one too, over the same drives, and print by how much '
                             '--artifact differs from it; may be given several times')
    parser.add_argument('--every', type=int, default=5,
                        help='frames from one scored forecast to the next (default: 5, 0.5 s)')
    parser.add_argument('--workers', type=int, default=2, help='processes that share the drives')
    parser.add_argument('--threshold', type=float, help="of scores (default: the artifact's)")
    parser.add_argument('--choose', type=Path, metavar='FILE',
                        help='score nothing: choose on validation seeds what an artifact carries '
                             'beside its weights, for `wm_ros export --choices FILE`')
    parser.add_argument('--no-plan', action='store_true',
                        help='forecast for constant turn rate and velocity, as the node does where '
                             'nobody tells it the ego plan; simulated drives know it, and bags '
                             'that hold it (not bench-v1 then)')
    parser.add_argument('--frames', action='store_true',
                        help='score the predicted camera frames too (wm_ros train --stage frames)')
    parser.add_argument('--json', type=Path, metavar='FILE', help='write the report there')
    parser.add_argument('--html', type=Path, metavar='FILE',
                        help='write a page there: curves, and the worst drives to look at')


def run(arguments: argparse.Namespace) -> int:
    _check(arguments)
    if arguments.choose is not None:
        return _choose(arguments)
    if arguments.dataset.startswith('bag:') and _without_truth(arguments.dataset[4:]):
        return _against_itself(arguments)
    from wm_ros.evaluate.table import comparison, table

    dataset = _open(arguments)
    if arguments.render_only:
        return _render(dataset, arguments)
    models = [_model(arguments, arguments.artifact, arguments.backend, arguments.threshold)]
    for text in arguments.against:
        rest, _, threshold = text.partition('=')
        folder, _, backend = rest.partition('@')
        models.append(_model(arguments, Path(folder), backend or arguments.backend,
                             float(threshold) if threshold else None))
    scores = [_score(dataset, model, arguments) for model in models]
    report = _head(arguments, dataset, models[0]) | scores[0].report()
    report['against'] = [
        {'artifact': model.folder.name, 'model_hash': model.hash, 'backend': model.backend,
         'threshold': model.threshold, 'headline': scores[0].against(other)}
        for model, other in zip(models[1:], scores[1:], strict=True)]
    print(f'{report["dataset"]}: {report["artifact"]}, model {report["model_hash"][:12]}'
          + (f', {report["benchmark"]} {report["benchmark_hash"][:12]}'
             if report.get('benchmark') else '')
          + (', without the ego plan' if arguments.no_plan else ''))
    print(table(report))
    for entry in report['against']:
        print('\n' + comparison(entry))
    if arguments.frames:
        from wm_ros.evaluate import frame_scores
        report['future_frames'] = _frames(dataset, models[0], arguments)
        print('\n' + frame_scores.table(report['future_frames']))
    _write(arguments.json, report)
    if arguments.html is not None:
        from wm_ros.evaluate.score_page import write_page
        write_page(arguments.html, report, dataset, models[0].source, models[0].threshold,
                   arguments.every)
    return 0


def _check(arguments: argparse.Namespace) -> None:
    """Raise UsageError for numbers that no data set can be scored with."""
    for name, least in (('every', 1), ('workers', 1), ('threads', 0)):
        if getattr(arguments, name) < least:
            raise UsageError(f'--{name} {getattr(arguments, name)}: want at least {least}')
    if not (math.isfinite(arguments.seconds) and arguments.seconds > 0):
        raise UsageError(f'--seconds {arguments.seconds:g}: want more than 0')


@dataclass(frozen=True)
class _Model:
    """One artifact on one backend, as it is scored."""

    folder: Path
    backend: str
    hash: str
    threshold: float
    source: Any


def _model(arguments: argparse.Namespace, folder: Path | None, backend: str,
           threshold: float | None) -> _Model:
    from wm_ros.evaluate.predictors import PredictorSource, checkpoint_path, open_model_file
    from wm_ros.evaluate.scores import CURVE_FROM

    if folder is None:
        from wm_ros.share import share_path
        folder = share_path('models', 'world-model')
    artifact = open_model_file(folder)
    if checkpoint_path(folder) is not None:
        backend = 'checkpoint'      # no other runs one
    threshold = artifact.choices.score_threshold if threshold is None else threshold
    source = PredictorSource(str(folder), backend, arguments.threads, min(threshold, CURVE_FROM))
    return _Model(folder, backend, artifact.hash, threshold, source)


def _open(arguments: argparse.Namespace, default_seeds: str | None = None) -> Dataset:
    from wm_ros.data.render_cache import default_folder
    from wm_ros.data.samples import unplanned
    from wm_ros.evaluate.datasets import DatasetError, open_dataset

    folder = None if arguments.no_cache else arguments.cache or default_folder()
    try:
        dataset = open_dataset(arguments.dataset, arguments.seeds or default_seeds,
                               arguments.seconds, arguments.rig, arguments.every, folder)
    except DatasetError as err:
        raise UsageError(str(err)) from err
    if not arguments.no_plan:
        return dataset
    return replace(dataset, open_drive=partial(unplanned, dataset.open_drive),
                   head={**dataset.head, 'benchmark': None})


def _render(dataset: Dataset, arguments: argparse.Namespace) -> int:
    from wm_ros.evaluate.protocol import spread

    if dataset.ensure is None:
        raise ValueError('--render-only: want a simulated data set and a cache')
    sizes = spread(dataset.ensure, dataset.keys, arguments.workers,
                   Progress('rendering', 'drives'))
    print(f'{dataset.name}: {len(sizes)} drives, {sum(sizes) / 1e6:.0f} MB, as '
          f'{dataset.head["render_key"]}')
    return 0


def _score(dataset: Dataset, model: _Model, arguments: argparse.Namespace) -> Any:
    from wm_ros.evaluate.protocol import Task, evaluate
    from wm_ros.evaluate.scores import DriveCounter, Scores

    task = Task(dataset.open_drive, model.source, partial(DriveCounter, model.threshold),
                arguments.every)
    return Scores(evaluate(task, dataset.keys, arguments.workers,
                           Progress(f'scoring {model.folder.name}', 'drives')),
                  [str(key) for key in dataset.keys])


def _frames(dataset: Dataset, model: _Model, arguments: argparse.Namespace) -> dict[str, Any]:
    from wm_ros.evaluate import frame_scores
    from wm_ros.evaluate.protocol import spread

    task = frame_scores.FrameTask(dataset.open_drive, model.source, arguments.every)
    return frame_scores.report(spread(task, dataset.keys, arguments.workers,
                                      Progress(f'drawing with {model.folder.name}', 'drives')))


def _choose(arguments: argparse.Namespace) -> int:
    """Choose threshold, meaning of scores, spread and occupancy weights; write them to a file."""
    from wm_ros.evaluate import choose
    from wm_ros.evaluate.predictors import PredictorSource, open_model_file
    from wm_ros.evaluate.protocol import Task, evaluate
    from wm_ros.evaluate.scores import plain
    from wm_ros.evaluate.threshold import choose as choose_threshold

    dataset = _open(arguments, VALIDATION_SEEDS)
    _refuse_other_seeds(dataset)
    model = _model(arguments, arguments.artifact, arguments.backend, None)
    observed = open_model_file(model.folder).choices.observed_threshold
    source = PredictorSource(str(model.folder), model.backend, arguments.threads,
                             choices=choose.neutral(observed))
    drives = evaluate(Task(dataset.open_drive, source, choose.Collector, arguments.every),
                      dataset.keys, arguments.workers, Progress('forecasting', 'drives'))
    existence, points = choose.choose_existence(drives)
    print(f'{"threshold":>9}{"SPA top-6":>11}{"precision":>11}{"recall":>8}{"EPA":>8}')
    for point in points[::5]:
        print(f'{point.threshold:>9.2f}{point.spa_top6:>11.1f}{point.precision:>11.3f}'
              f'{point.recall:>8.3f}{point.epa:>8.3f}')
    choices, evidence = choose.choose_all(drives, existence, choose_threshold(points), observed)
    _write(arguments.choose, {'choices': choices.to_json(), 'reached': plain(evidence),
                              'chosen_on': _head(arguments, dataset, model) | _weights(model)})
    print(choose.table(choices, evidence))
    return 0


def _weights(model: _Model) -> dict[str, str]:
    """Return the hash of an artifact's graphs, which other choices leave as it is."""
    from wm_ros.evaluate.predictors import checkpoint_path
    from wm_ros.runtime.artifact import load_artifact
    from wm_ros.runtime.frames import weights_hash

    if checkpoint_path(model.folder) is not None:
        return {}       # `model_hash` is that of its weights
    return {'weights': weights_hash(load_artifact(model.folder))}


def _refuse_other_seeds(dataset: Dataset) -> None:
    """Raise ValueError for simulated drives that models are trained on, or scored with."""
    from wm_ros.sim.seeds import VALIDATION_END, VALIDATION_START

    if 'seeds' in dataset.head and not (VALIDATION_START <= dataset.keys[0]
                                        and dataset.keys[-1] < VALIDATION_END):
        raise ValueError(f'--choose on seeds {dataset.head["seeds"]}: want seeds from '
                         f'{VALIDATION_START} to {VALIDATION_END - 1}; those before are for '
                         'training, those after for scores')


def _without_truth(path: str) -> bool:
    """Tell whether a bag holds no truth to score against."""
    from wm_ros.data.bag import TRUTH_TOPIC, BagReader
    with BagReader(path) as reader:
        return TRUTH_TOPIC not in reader.topics


def _against_itself(arguments: argparse.Namespace) -> int:
    """Score the forecasts of a bag against what was seen later."""
    from wm_ros.evaluate.self_report import score_bag, table

    without = [name for name, given in (
        ('against', arguments.against), ('html', arguments.html is not None),
        ('frames', arguments.frames), ('threshold', arguments.threshold is not None),
        ('no-plan', arguments.no_plan)) if given]
    if without:
        raise UsageError(f'--{", --".join(without)}: want truth, and there is none in '
                         f'{arguments.dataset[4:]}')
    report = {'dataset': arguments.dataset} | score_bag(
        Path(arguments.dataset[4:]), arguments.artifact, arguments.backend, arguments.threads,
        Progress('forecasting', 'camera sets'))
    print(f'{report["dataset"]}: no truth in it')
    print(table(report))
    _write(arguments.json, report)
    return 0


def _head(arguments: argparse.Namespace, dataset: Dataset, model: _Model) -> dict[str, Any]:
    """Return what a report was made from."""
    return {'dataset': dataset.name, 'artifact': model.folder.name, 'model_hash': model.hash,
            'backend': model.backend, 'every': arguments.every, 'no_plan': arguments.no_plan,
            **dataset.head}


def _write(path: Path | None, report: dict[str, Any]) -> None:
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(report, indent=1, allow_nan=False) + '\n', encoding='utf-8')
