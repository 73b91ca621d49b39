"""
Hold two versions, backends or precisions against each other over the same bags.

A and B are each an artifact, run over the bags of --bag, or a bag (or a folder of bags) that
`wm_ros replay` or a recorder has written. An artifact may name its backend and that one's options:
models/world-model@openvino, models/new@onnxruntime, models/world-model@openvino:fold_precision=f32.

Where the bags hold /truth/agents, both are scored, and what is printed is B minus A. The windows
that differ most come first.

Exit codes: 0 done; 1 failed; 2 wrong usage; 3 the demand of --expect is not met.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wm_ros.cli.progress import Progress
from wm_ros.cli.usage import UsageError

NOT_MET = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('a', metavar='A', help='ARTIFACT[@BACKEND[:OPTION=VALUE,...]], or bags of '
                        'forecasts')
    parser.add_argument('b', metavar='B', help='the same')
    parser.add_argument('--bag', metavar='BAG', type=Path, nargs='+', default=[],
                        help='bags, or folders of bags, that artifacts are run over; with bags of '
                        'forecasts alone, where their truth is')
    parser.add_argument('--backend', default='auto', help='of artifacts that name none')
    parser.add_argument('--threads', type=int, default=2, help='of the backend (default: 2)')
    parser.add_argument('--top', type=int, default=10, metavar='N',
                        help='windows to print (default: 10)')
    parser.add_argument('--keep', type=Path, metavar='DIR',
                        help='keep the bags of forecasts of artifacts there')
    parser.add_argument('--expect', metavar='identical|DROP', help='fail with exit code 3 unless '
                        'all forecasts are equal to the bit; or, with a number, where B is lower '
                        'than A by more points in SPA or IoU')
    parser.add_argument('--json', type=Path, metavar='FILE', help='write everything there')


@dataclass(frozen=True)
class Side:
    """One of the two: an artifact with its backend, or a path of bags that hold forecasts."""

    path: Path
    backend: str = ''
    options: tuple[tuple[str, Any], ...] = ()

    @property
    def is_artifact(self) -> bool:
        return (self.path / 'manifest.json').is_file()


def side_of(text: str, backend: str) -> Side:
    """Return what A or B stands for; raise ValueError where it is neither."""
    import yaml

    folder, _, how = text.partition('@')
    name, _, pairs = how.partition(':')
    options = []
    for pair in pairs.split(',') if pairs else []:
        key, separator, value = pair.partition('=')
        if not separator:
            raise ValueError(f'{text}: option {pair!r}, want NAME=VALUE')
        options.append((key, yaml.safe_load(value)))
    side = Side(Path(folder), name or backend, tuple(options))
    if not side.path.exists():
        raise ValueError(f'{text}: not there; want the folder of an artifact, or bags')
    return side


def run(arguments: argparse.Namespace) -> int:
    from wm_ros.evaluate.compare import difference, paired
    from wm_ros.evaluate.scores import Scores

    limit = _limit(arguments.expect)
    if arguments.top < 0:
        raise UsageError(f'--top {arguments.top}: want 0 or more windows')
    sides = [side_of(text, arguments.backend) for text in (arguments.a, arguments.b)]
    windows, scores = [], ([], [], [])
    alone = [0, 0]
    with ExitStack() as stack:
        folder = arguments.keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for name, bag_a, bag_b, truth in _pairs(sides, arguments, folder):
            truths = _truths(truth)
            counters = _counters()
            for one, other in paired(_forecasts(bag_a), _forecasts(bag_b)):
                if one is None or other is None:
                    alone[one is None] += 1
                    continue
                windows.append((name, difference(one, other)))
                _count(counters, one, other, truths)
            if counters[0].forecasts:
                scores[0].append(counters[0])
                scores[1].append(counters[1])
                scores[2].append(name)
    if not windows:
        raise ValueError(f'{arguments.a} and {arguments.b}: no window that both have forecast')
    headline = None
    if scores[2]:
        headline = Scores(scores[1], scores[2]).against(Scores(scores[0], scores[2]))
    report = _report(arguments, windows, alone, headline, len(scores[2]))
    print('\n'.join(_lines(arguments, report)))
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=1, allow_nan=False) + '\n',
                                  encoding='utf-8')
    return _judge(arguments.expect, limit, report)


def _limit(expect: str | None) -> float | None:
    if expect in (None, 'identical'):
        return None
    try:
        limit = float(expect)
    except ValueError:
        limit = math.nan
    if not math.isfinite(limit):    # no difference is more than NaN
        raise UsageError(f"--expect {expect}: want 'identical' or a number of points")
    return limit


def _pairs(sides: list[Side], arguments: argparse.Namespace,
           folder: Path) -> Iterator[tuple[str, Path, Path, Path | None]]:
    """Yield the name of a recording, the forecasts of both sides, and where its truth may be."""
    from wm_ros.data.bag_files import is_bag, name_of
    from wm_ros.replay_job import Settings, replay_bag

    def bags(path: Path) -> dict[str, Path]:
        if is_bag(path):
            return {'': path}
        return {each.name: each for each in sorted(path.iterdir()) if is_bag(each)}

    inputs: dict[str, Path] = {}
    for bag in (bag for path in arguments.bag for bag in bags(path).values()):
        # drive, drive.mcap and drive.db3 would all be replayed into one place.
        alike = next((one for one in inputs.values() if name_of(one) == name_of(bag)), None)
        if alike is not None:
            raise ValueError(f'--bag: two recordings named {name_of(bag)}, want names that tell '
                             f'them apart: {alike}, {bag}')
        inputs[bag.name] = bag
    if any(side.is_artifact for side in sides) and not inputs:
        raise UsageError('an artifact says nothing without input: want --bag BAG')
    made: list[dict[str, Path]] = []
    for label, side in zip('ab', sides, strict=True):
        if not side.is_artifact:
            found = bags(side.path)
            if not found:
                raise ValueError(f'{side.path}: no artifact and no bag in it')
            made.append(found)
            continue
        made.append({})
        settings = Settings(side.path, side.backend, arguments.threads, options=side.options)
        for name, bag in inputs.items():
            made[-1][name] = folder / f'{label}_{name_of(bag)}'
            replay_bag(bag, made[-1][name], settings, force=True,
                       progress=Progress(f'{label.upper()}: {name}', 's of the bag'))
    if all(len(found) == 1 for found in made):      # one each: names need not be the same
        (name, one), (_, other) = [next(iter(found.items())) for found in made]
        made = [{name: one}, {name: other}]
    names = [name for name in made[0] if name in made[1]]
    if not names:
        raise ValueError(f'no recording that both have: {", ".join(made[0])} and '
                         f'{", ".join(made[1])}')
    for name in names:
        # One recording may have its truth under another name; of several, that is another drive's.
        only = next(iter(inputs.values())) if len(inputs) == len(names) == 1 else None
        truth = inputs.get(name) or only
        yield name or made[0][name].name, made[0][name], made[1][name], truth or made[0][name]


def _truths(bag: Path) -> dict[int, Any]:
    """Return the truth in a bag, or in the one that it says it was replayed from."""
    from wm_ros.data.bag import BagReader
    from wm_ros.evaluate.recorded import replayed_from, truths_in

    with BagReader(bag) as reader:
        truths, source = truths_in(reader), replayed_from(reader)
    return truths or (_truths(source) if source and source != bag else {})


def _forecasts(bag: Path) -> Iterator[Any]:
    from wm_ros.data.bag import BagReader
    from wm_ros.evaluate.recorded import forecasts_in

    with BagReader(bag) as reader:
        yield from forecasts_in(reader)


def _counters() -> tuple[Any, Any]:
    from wm_ros.evaluate.scores import DriveCounter
    # The node has applied its score threshold already.
    return DriveCounter(0.0), DriveCounter(0.0)


def _count(counters: tuple[Any, Any], one: Any, other: Any, truths: dict[int, Any]) -> None:
    """Score a window that both have, from the first one on that either calls valid."""
    truth = truths.get(one.stamp_ns)
    if truth is not None and (counters[0].forecasts or one.valid or other.valid):
        counters[0].add(one, truth)
        counters[1].add(other, truth)


def _report(arguments: argparse.Namespace, windows: list[tuple[str, Any]], alone: list[int],
            headline: dict[str, Any] | None, drives: int) -> dict[str, Any]:
    worst = sorted(windows, key=lambda item: -item[1].amount)
    used = [window for _, window in windows]
    mean = {key: sum(getattr(window, key) for window in used) / len(used)
            for key in ('place_m', 'path_m', 'occupancy', 'occupied_iou', 'observed')}
    agents = [sum(window.agents[side] for window in used) for side in (0, 1)]
    return {'a': arguments.a, 'b': arguments.b, 'windows': len(windows),
            'identical': sum(window.identical for window in used), 'only_a': alone[0],
            'only_b': alone[1], 'valid_differs': sum(w.valid[0] != w.valid[1] for w in used),
            'agents': agents, 'agents_matched': sum(window.matched for window in used),
            'mean': {key: round(value, 6) for key, value in mean.items()},
            'scored_recordings': drives, 'scores': headline,
            'most_different': [{'recording': name} | window.report() for name, window in worst]}


def _lines(arguments: argparse.Namespace, report: dict[str, Any]) -> list[str]:
    mean = report['mean']
    lines = [
        f'A: {report["a"]}', f'B: {report["b"]}',
        f'{report["windows"]} windows that both have, {report["identical"]} of them equal to the '
        f'bit; {report["only_a"]} only in A, {report["only_b"]} only in B; validity differs in '
        f'{report["valid_differs"]}',
        f'agents: {report["agents"][0]} and {report["agents"][1]}, {report["agents_matched"]} '
        f'within 2 m of each other, on average {mean["place_m"]:.2f} m apart, ends of their paths '
        f'{mean["path_m"]:.2f} m',
        f'occupancy: {100 * mean["occupancy"]:.2f} points apart, occupied ground overlaps '
        f'{100 * mean["occupied_iou"]:.1f} %, observed ground agrees in '
        f'{100 * mean["observed"]:.2f} % of cells']
    different = [window for window in report['most_different'] if not window['identical']]
    if different[:arguments.top]:
        lines += ['', 'windows that differ most:',
                  f'{"":4}{"stamp":>20}{"differ":>8}{"agents":>9}{"matched":>9}{"paths m":>9}'
                  f'{"occupancy":>11}{"overlap":>9}  recording']
    for i, window in enumerate(different[:arguments.top], 1):
        lines.append(
            f'{i:>3} {window["stamp_ns"] / 1e9:>20.3f}{window["amount"]:>8.2f}'
            f'{"{} {}".format(*window["agents"]):>9}{window["matched"]:>9}'
            f'{window["path_m"]:>9.2f}{100 * window["occupancy"]:>10.2f}%'
            f'{100 * window["occupied_iou"]:>8.1f}%  {window["recording"]}')
    if not report['scores']:
        return [*lines, '', 'no truth in these bags: outputs alone are compared']
    lines += ['', f'scores over {report["scored_recordings"]} recordings with truth; '
              'intervals draw recordings',
              f'{"":<20}{"A":>9}{"B":>9}{"B - A":>9}   95 % interval']
    for key, row in report['scores'].items():
        a, b, apart, low, high = (row[name] for name in (
            'other', 'this', 'difference', 'low', 'high'))
        known = None not in (a, b, apart)
        span = f'[{low:.3f}, {high:.3f}]' if known and report['scored_recordings'] > 1 else ''
        lines.append(f'{key:<20}{a:>9.3f}{b:>9.3f}{apart:>9.3f}   {span}' if known else
                     f'{key:<20}   not known')
    return lines


def _judge(expect: str | None, limit: float | None, report: dict[str, Any]) -> int:
    """Say whether what was expected holds."""
    if expect == 'identical':
        alike = report['identical'] == report['windows'] and not (
            report['only_a'] or report['only_b'])
        if not alike:
            print('expected: identical; not met')
        return 0 if alike else NOT_MET
    if limit is None:
        return 0
    if not report['scores']:
        raise ValueError(f'--expect {expect}: these bags hold no truth to score against')
    lower = [f'{key} by {-values["difference"]:.2f}' for key, values in report['scores'].items()
             if key.startswith(('spa', 'iou')) and values['difference'] is not None
             and -values['difference'] > limit]
    if lower:
        print(f'expected: no more than {limit:g} points lower; B is lower in {", ".join(lower)}')
    return NOT_MET if lower else 0
