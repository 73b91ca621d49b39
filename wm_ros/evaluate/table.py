"""The report of `Scores` as text for a terminal: model, baselines and oracles side by side."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from wm_ros.evaluate.agents import GROUPS
from wm_ros.evaluate.baselines import NAMES

_SHORT = {'static': 'static', 'constant_velocity': 'const. vel.', 'constant_turn_rate': 'turn rate'}
_SPA = (('SPA top-6, 30 m', 'spa_top6'), ('SPA top-1, 30 m', 'spa_top1'),
        ('  moving, top-6', 'spa_top6_moving'), ('  manoeuvring, top-6', 'spa_top6_manoeuvring'),
        ('SPA top-6, 50 m', 'spa_top6_50m'))
_RATES = (('recall', 'recall'), ('precision', 'precision'), ('EPA', 'epa'),
          ('minADE-6 (m)', 'min_ade_6'), ('minFDE-6 (m)', 'min_fde_6'),
          ('miss rate-6', 'miss_rate_6'))
_ERRORS = (('position (m)', 'position_error_m', 2), ('size (1 - IoU)', 'size_error', 2),
           ('heading (rad)', 'heading_error_rad', 2), ('velocity (m/s)', 'velocity_error_mps', 2),
           ('right class', 'class_accuracy', 3))
_MISSES = (('a detection within 2 m is of another', 'missed_taken'),
           ('the nearest lies 2 to 4 m off', 'missed_displaced'),
           ('one under the threshold within 2 m', 'missed_unsure'),
           ('nothing there', 'missed_unseen'))
_CALIBRATION = (('occupancy Brier', 'brier'), ('occupancy ECE', 'ece'), ('PR-AUC', 'pr_auc'),
                ('existence ECE', 'existence_ece'))


def table(report: dict[str, Any]) -> str:
    """Return the report as lines of at most 100 columns; '-' for what is not known."""
    lines = [f'{report["n_drives"]} drives, {report["n_forecasts"]} windows '
             f'({report["n_invalid"]} invalid), threshold {report["threshold"]:g}',
             f'visible agents within 30 m: {report["n_agents"]} of {report["n_tracks"]} tracks, '
             f'{report["n_agents_with_future"]} with a whole future '
             f'({report["n_agents_with_future_by_group"]["car"]} cars)', '']
    lines += _rows(report)
    lines += ['', 'share of motions: ' + ', '.join(
        f'{name} {_number(share, 2)}' for name, share in report['mix'].items() if share)]
    lines += ['', *_groups(report), '', *_ranges(report), '', *_detection(report), '',
              *_occupancy(report), '']
    lines += [f'{label:<20}{_number(report.get(key), 4)}' for label, key in _CALIBRATION]
    coverage = report.get('covariance_coverage') or {}
    lines += [f'{level} % regions hold  ' + ', '.join(
        f'{_number(share, 3)} at {seconds} s' for seconds, share in by_horizon.items())
        for level, by_horizon in coverage.items()]
    lines += ['', *_differences(report['differences'])]
    return '\n'.join(lines)


def comparison(entry: dict[str, Any]) -> str:
    """Return the headline figures of two models over the same drives, as `Scores.against` has."""
    lines = [f'against {entry["artifact"]} on {entry["backend"]}, model '
             f'{entry["model_hash"][:12]}, threshold {entry["threshold"]:g}: 95 % intervals of the '
             'paired difference (* leaves out 0)',
             f'{"":<18}{"this":>9}{"other":>9}{"difference":>12} {"":<18}{"ratio":>8}']
    for key, row in entry['headline'].items():
        lines.append(
            f'{key:<18}{_number(row["this"], 3):>9}{_number(row["other"], 3):>9}'
            f'{_number(row["difference"], 3):>12} '
            f'{_span(row, 3):<19}{_number(row["ratio"], 3):>7} '
            f'[{_number(row["ratio_low"], 3)}, {_number(row["ratio_high"], 3)}]')
    return '\n'.join(lines)


def _rows(report: dict[str, Any]) -> Iterable[str]:
    sources = [report['baselines'][name] for name in NAMES]
    oracles = [report['oracles'][f'oracle_{name}'] for name in NAMES]
    yield (f'{"":<22}{"model":>8} {"95 % interval":>16}'
           + ''.join(f'{_SHORT[name]:>12}' for name in NAMES) + '   <- from its own boxes')
    for label, key in _SPA:
        yield _row(label, key, report, sources, 1)
    for label, key in _RATES:
        yield _row(label, key, report, sources, 3)
    yield ''
    yield f'{"":<47}' + ''.join(f'{_SHORT[name]:>12}' for name in NAMES) + '   <- from truth'
    for label, key in _SPA:
        single = key.replace('top6', 'top1')
        if single != key:
            yield f'{label.replace("top-6", "one path"):<47}' + ''.join(
                f'{_number(oracle.get(single), 1):>12}' for oracle in oracles)


def _differences(differences: dict[str, Any]) -> Iterable[str]:
    yield 'lead in SPA points at 1, 2 and 3 s and for manoeuvring agents at 3 s, 95 % intervals'
    yield '(drives paired; * leaves out 0)'
    for baseline, by_modes in differences.items():
        yield f'  over {baseline.replace("_", " ")}'
        for modes, cases in by_modes.items():
            yield f'    {modes[4:]} ' + ''.join(
                f'{_number(d["mean"], 1):>6} {_span(d):<16}' for d in cases.values()).rstrip()


def _span(d: dict[str, Any], digits: int = 1) -> str:
    return (f'[{_number(d["low"], digits)}, {_number(d["high"], digits)}]'
            f'{"*" if d["excludes_zero"] else ""}')


def _row(label: str, key: str, report: dict[str, Any], sources: list[dict[str, Any]],
         digits: int) -> str:
    low, high = report['ci'].get(key, (None, None))
    span = '' if low is None else f'[{_number(low, digits)}, {_number(high, digits)}]'
    return (f'{label:<22}{_number(report.get(key), digits):>8} {span:>16}'
            + ''.join(f'{_number(source.get(key), digits):>12}' for source in sources))


def _groups(report: dict[str, Any]) -> Iterable[str]:
    yield f'{"by group, 30 m":<22}{"SPA top-6":>10}{"SPA top-1":>10}{"recall":>8}{"cv oracle":>11}'
    oracle = report['oracles']['oracle_constant_velocity']['spa_top1_by_group']
    for name in GROUPS:
        if report['recall_by_group'][name] is not None:
            yield (f'  {name:<20}{_number(report["spa_top6_by_group"][name], 1):>10}'
                   f'{_number(report["spa_top1_by_group"][name], 1):>10}'
                   f'{_number(report["recall_by_group"][name], 2):>8}'
                   f'{_number(oracle[name], 1):>11}')


def _ranges(report: dict[str, Any]) -> Iterable[str]:
    bands = report['spa_top6_by_range']
    yield f'{"by range (m)":<22}' + ''.join(f'{band:>10}' for band in bands)
    for label, key, group, digits in (
            ('SPA top-6', 'spa_top6_by_range', 'all', 1),
            ('  moving', 'spa_top6_by_range', 'moving', 1),
            ('SPA top-1', 'spa_top1_by_range', 'all', 1), ('recall', 'recall_by_range', 'all', 3)):
        yield f'  {label:<20}' + ''.join(
            f'{_number(by_group[group], digits):>10}' for by_group in report[key].values())


def _detection(report: dict[str, Any]) -> Iterable[str]:
    yield 'found agents within 30 m, mean errors'
    yield '  ' + ', '.join(f'{label} {_number(report[key], digits)}'
                           for label, key, digits in _ERRORS)
    yield 'agents not found, share of all by the first reason that holds'
    yield from (f'  {label:<40}{_number(report[key], 3)}' for label, key in _MISSES)


def _occupancy(report: dict[str, Any]) -> Iterable[str]:
    yield (f'{"occupancy IoU (%)":<28}' + ''.join(f'{f"{s} s":>8}' for s in '0123')
           + f'{"0-2 s":>8}{"VPQ":>8}')
    for extent in ('near', 'far'):
        for name, source in (('model', report), *report['baselines'].items()):
            by_step = source[f'iou_{extent}']
            yield (f'  {extent + ", " + name.replace("_", " "):<26}'
                   + ''.join(f'{_number(by_step[s], 1):>8}' for s in '0123')
                   + f'{_number(source[f"iou_{extent}_to_2s"], 1):>8}'
                   + f'{_number(source["vpq"][extent], 1):>8}')


def _number(value: float | None, digits: int) -> str:
    return '-' if value is None else f'{value:.{digits}f}'
