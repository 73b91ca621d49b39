"""
Hold every backend on this machine against fake-quantised PyTorch, over benchmark drives.

First the raw outputs, graph by graph over the first drive, within the tolerances that
docs/backends.md states; then the headline figures of every backend over all drives, each running on
its own outputs: within 0.2 points of each other. A backend that is absent is listed as absent.
Ends with exit code 1 where one is out. The reference takes most of the time.
"""

from __future__ import annotations

import argparse
import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

from wm_ros.cli.progress import Progress

#: Points (percent) by which the headline figures of two backends may differ.
POINTS = 0.2
#: Headline figures with what makes percent of them.
FIGURES = {'spa_top6': 1, 'spa_top1': 1, 'recall': 100, 'precision': 100, 'epa': 100,
           'iou_near_to_2s': 1, 'iou_far_to_2s': 1}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--dataset', default='sim', help='a simulated world (default: sim)')
    parser.add_argument('--seeds', default='900000:900020', metavar='A:B',
                        help='of the drives (default: 900000:900020)')
    parser.add_argument('--seconds', type=float, default=10.0, help='of each drive (default: 10)')
    parser.add_argument('--rig', default='surround', choices=('surround', 'front', 'kitti'))
    parser.add_argument('--artifact', type=Path, help='folder (default: the one that ships)')
    parser.add_argument('--only', metavar='NAME', action='append', default=[],
                        help='hold only this one against the reference; may be given several times')
    parser.add_argument('--threads', type=int, default=1, help='of each backend, a worker')
    parser.add_argument('--workers', type=int, default=2, help='processes that share the drives')
    parser.add_argument('--cache', type=Path, metavar='DIR',
                        help='where drives are kept rendered (default: ~/.cache/wm_ros/drives)')
    parser.add_argument('--no-cache', action='store_true', help='render, and keep nothing')
    parser.add_argument('--no-scores', action='store_true', help='compare the raw outputs alone')
    parser.add_argument('--json', type=Path, metavar='FILE', help='write the report there')


def run(arguments: argparse.Namespace) -> int:
    from wm_ros.data.render_cache import default_folder
    from wm_ros.evaluate.datasets import open_dataset
    from wm_ros.export.parity_cases import REFERENCE, cases
    from wm_ros.runtime.artifact import load_artifact
    from wm_ros.share import share_path

    folder = arguments.artifact or share_path('models', 'world-model')
    artifact = load_artifact(folder)
    listed = cases()
    unknown = set(arguments.only) - {case.name for case in listed}
    if unknown:
        raise ValueError(f'--only {", ".join(sorted(unknown))}: want some of '
                         f'{", ".join(case.name for case in listed)}')
    kept = [case for case in listed
            if case.name == REFERENCE or not arguments.only or case.name in arguments.only]
    present = [case for case in kept if not case.absent]
    if not present or present[0].name != REFERENCE:
        raise ValueError(f'the reference is absent: {kept[0].absent}')
    cache = None if arguments.no_cache else arguments.cache or default_folder()
    dataset = open_dataset(arguments.dataset, arguments.seeds, arguments.seconds, arguments.rig,
                           cache=cache)
    report: dict[str, Any] = {
        'artifact': folder.name, 'model_hash': artifact.hash, 'dataset': dataset.name,
        **dataset.head, 'absent': {case.name: case.absent for case in kept if case.absent}}
    report['raw'] = _raw(artifact, dataset.open_drive(dataset.keys[0]), present, arguments.threads)
    failures = [f'{name}: {failure}' for name, found in report['raw'].items()
                for failure in found['failures']]
    if not arguments.no_scores:
        report['headline'] = {case.name: _headline(folder, artifact, dataset, case, arguments)
                              for case in present}
        report['spread'] = spread(report['headline'])
        failures += [f'{key}: {points:.2f} points between backends, want at most {POINTS}'
                     for key, points in report['spread'].items() if not points <= POINTS]
    report['failures'] = failures
    print(text(report))
    if arguments.json is not None:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(report, indent=1) + '\n', encoding='utf-8')
    for failure in failures:
        print(f'wm_ros parity: {failure}', file=sys.stderr)
    return 1 if failures else 0


def _raw(artifact: Any, drive: Any, present: list[Any], threads: int) -> dict[str, Any]:
    """Run one drive through all backends on the reference's inputs; return errors by backend."""
    from wm_ros.evaluate.protocol import forecasts
    from wm_ros.export.parity import Tee, judge
    from wm_ros.predictor import Predictor
    from wm_ros.runtime.backend import create_backend

    opened: dict[str, Any] = {}
    try:
        for case in present:
            opened[case.name] = create_backend(case.backend, artifact, len(drive.rig),
                                               threads=threads, options=dict(case.options))
        reference, *others = opened
        tee = Tee(artifact, opened[reference], {name: opened[name] for name in others})
        predictor = Predictor(artifact, tee, drive.rig)
        said = sum(1 for _ in forecasts(predictor, drive))
        predictor.close()
        if said < 2:
            raise ValueError(f'{drive.name}: {said} windows, want at least 2: a longer drive')
        out = {}
        for name in others:
            found = tee.result(name)
            out[name] = {'precision': opened[name].precision, 'windows': said, 'errors': found,
                         'failures': judge(found, opened[name].precision)}
        return out
    finally:
        for backend in opened.values():
            backend.close()


def _headline(folder: Path, artifact: Any, dataset: Any, case: Any,
              arguments: argparse.Namespace) -> dict[str, float]:
    """Return the headline figures of one backend over all drives, in percent."""
    from wm_ros.evaluate.predictors import PredictorSource
    from wm_ros.evaluate.protocol import EVERY, Task, evaluate
    from wm_ros.evaluate.scores import MODEL, DriveCounter, Scores

    threshold = artifact.choices.score_threshold
    source = PredictorSource(str(folder), case.backend, arguments.threads, threshold, case.options)
    task = Task(dataset.open_drive, source, partial(DriveCounter, threshold), EVERY)
    counted = evaluate(task, dataset.keys, arguments.workers, Progress(case.name, 'drives'))
    rates = Scores(counted, [str(key) for key in dataset.keys]).rates(MODEL)
    return {key: float(rates[key][0]) * scale for key, scale in FIGURES.items()}


def spread(headline: dict[str, dict[str, float]]) -> dict[str, float]:
    """Return by how many points the backends differ at most, figure by figure."""
    columns = {key: [figures[key] for figures in headline.values()] for key in FIGURES}
    return {key: max(values) - min(values) for key, values in columns.items()}


def text(report: dict[str, Any]) -> str:
    """Return the report as lines."""
    from wm_ros.export.parity import OF_AGENTS

    lines = [f'{report["dataset"]} {report["seeds"]}: {report["artifact"]}, model '
             f'{report["model_hash"][:12]}']
    for name, found in report['raw'].items():
        precision = ', '.join(f'{graph}={value}' for graph, value in found['precision'].items())
        lines += ['', f'{name} ({precision}) against the reference, {found["windows"]} windows',
                  f'{"":12}{"mean":>10}{"p99.9":>10}{"another":>10}   of the spread']
        for output, errors in found['errors'].items():
            if output != 'agents':
                lines.append(f'{output:12}{errors["mean"]:10.2g}{errors["p999"]:10.2g}'
                             f'{errors["contrast"]:10.2g}')
        agents = found['errors']['agents']
        lines.append(f'{agents["wanted"]} agents, {100 * agents["found"]:.1f} % found again, '
                     f'scores off by {agents["score"]:.2g}, paths by {agents["path_m"]:.2g} m, '
                     f'the rest by up to {max(agents[name] for name in OF_AGENTS):.2g} spreads')
    if 'headline' in report:
        width = max(len(name) for name in report['headline']) + 2
        lines += ['', ' ' * width + ''.join(f'{key:>16}' for key in FIGURES)]
        for name, figures in report['headline'].items():
            lines.append(f'{name:{width}}' + ''.join(f'{figures[key]:16.2f}' for key in FIGURES))
        lines.append(f'{"spread":{width}}'
                     + ''.join(f'{report["spread"][key]:16.2f}' for key in FIGURES))
    lines += ['', *(f'absent: {name}: {reason}' for name, reason in report['absent'].items())]
    lines.append('parity' if not report['failures'] else f'{len(report["failures"])} out of parity')
    return '\n'.join(lines)
