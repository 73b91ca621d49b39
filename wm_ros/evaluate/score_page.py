"""`wm_ros evaluate --html`: one small self-contained page with curves and the worst drives."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable
from html import escape
from pathlib import Path
from typing import Any

from wm_ros.evaluate.baselines import NAMES
from wm_ros.evaluate.datasets import Dataset
from wm_ros.evaluate.plots import Series, bars, lines
from wm_ros.evaluate.worst import WorstWindow, worst_windows
from wm_ros.types import AGENT_CLASSES, CameraRig

#: So many drives are shown, of those with at least this many agents.
WORST_DRIVES, LEAST_AGENTS = 4, 20
_ROWS = (('SPA top-6, 30 m', 'spa_top6', '%'), ('SPA top-1, 30 m', 'spa_top1', '%'),
         ('SPA top-6, moving', 'spa_top6_moving', '%'), ('SPA top-6, 50 m', 'spa_top6_50m', '%'),
         ('recall', 'recall', ''), ('precision', 'precision', ''), ('EPA', 'epa', ''),
         ('minADE-6', 'min_ade_6', 'm'), ('minFDE-6', 'min_fde_6', 'm'),
         ('miss rate-6', 'miss_rate_6', ''), ('IoU near, 0 to 2 s', 'iou_near_to_2s', '%'),
         ('IoU far, 0 to 2 s', 'iou_far_to_2s', '%'), ('occupancy Brier', 'brier', ''),
         ('occupancy ECE', 'ece', ''))
_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;color:#222;background:#fafafa;max-width:1320px;
margin:0 auto;padding:20px}h1{font-size:24px;margin:0 0 4px}h2{font-size:18px;margin:28px 0 8px}
p{margin:4px 0;color:#444}table{border-collapse:collapse;background:#fff}td,th{padding:4px 12px;
border-bottom:1px solid #e3e3e3;text-align:right;white-space:nowrap;
font-variant-numeric:tabular-nums}th{white-space:normal;max-width:120px;vertical-align:bottom}
td:first-child,th:first-child{text-align:left}.grid3{display:grid;gap:14px;
grid-template-columns:repeat(auto-fill,minmax(390px,1fr))}figure{margin:0;background:#fff;
border:1px solid #e3e3e3;border-radius:6px;padding:8px}svg{width:100%;height:auto}
svg .grid{stroke:#e8e8e8}svg .diagonal{stroke:#aaa;stroke-dasharray:3 3;fill:none}
svg text{font:11px system-ui,sans-serif;fill:#555;text-anchor:middle}svg .tick.y{text-anchor:end}
svg .title{font-size:13px;font-weight:600;fill:#222;text-anchor:start}
figcaption{font-size:12px;color:#444;display:flex;flex-wrap:wrap;gap:4px 14px}
figcaption i{display:inline-block;width:10px;height:10px;border-radius:2px;margin-right:5px}
img{max-width:100%;display:block;border-radius:6px;margin:4px 0 18px}.yes{font-weight:600}"""


def write_page(path: Path, report: dict[str, Any], dataset: Dataset,
               open_predictor: Callable[[CameraRig], Any], threshold: float, every: int) -> None:
    """Write the page of a report; the worst drives of `dataset` are run once more for it."""
    keys = {str(key): key for key in dataset.keys}
    worst = [keys[row['drive']] for row in report['drives']
             if row['n_agents'] >= LEAST_AGENTS and row['spa_top6'] is not None][:WORST_DRIVES]
    windows = worst_windows(worst, dataset.open_drive, open_predictor, threshold, every)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page(report, windows), encoding='utf-8')


def page(report: dict[str, Any], windows: Iterable[WorstWindow]) -> str:
    """Return the page of a report and the windows to look at."""
    title = f'{report["artifact"]} on {report["dataset"]}'
    benchmark = (f' · {report["benchmark"]} {report["benchmark_hash"][:12]}'
                 if report.get('benchmark') else '')
    mix = ', '.join(f'{name.replace("_", " ")} {100 * share:.0f} %'
                    for name, share in report['mix'].items() if share)
    body = [
        f'<h1>{escape(title)}</h1>',
        f'<p>model {report["model_hash"][:12]} · {report["n_drives"]} drives{benchmark} · '
        f'{report["n_forecasts"]} windows ({report["n_invalid"]} invalid) · {report["n_agents"]} '
        f'visible agents within 30 m of {report["n_tracks"]} tracks · threshold '
        f'{report["threshold"]:g} · 95 % bootstrap intervals over drives</p>',
        f'<p>What was driven among: {escape(mix)}.</p>',
        '<h2>Headline</h2>', _headline(report),
        '<h2>Curves</h2>', '<div class="grid3">', *_curves(report), '</div>',
        '<h2>Lead in SPA points, drives paired</h2>', _differences(report),
        *_against(report), '<h2>The worst drives</h2>',
        '<p>Of each, the window in which most agents failed. White is truth, colour what was '
        'forecast; boxes in the pictures: blue what was forecast, red not found, orange found '
        'without a right path.</p>']
    for window in windows:
        code = base64.b64encode(window.picture).decode()
        body.append(
            f'<p><b>{escape(window.drive)}</b> at {window.seconds:.1f} s: of {window.visible} '
            f'visible agents within 30 m {window.right} right, {window.wrong} found without a '
            f'right path, {window.missed} not found; {window.invented} invented</p>'
            f'<img alt="{escape(window.drive)}" src="data:image/webp;base64,{code}">')
    return (f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title>'
            f'<style>{_STYLE}</style><body>' + '\n'.join(body) + '</body></html>\n')


def _number(value: float | None, unit: str) -> str:
    if value is None:
        return '–'
    return f'{value:.1f}' if unit == '%' else f'{value:.3f}'


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    cells = ''.join(f'<th>{escape(cell)}</th>' for cell in head)
    lines_ = ''.join('<tr>' + ''.join(f'<td>{cell}</td>' for cell in row) + '</tr>'
                     for row in rows)
    return f'<table><tr>{cells}</tr>{lines_}</table>'


def _headline(report: dict[str, Any]) -> str:
    head = ['', 'model', '95 %', *(f'{name.replace("_", " ")}, own boxes' for name in NAMES),
            'constant velocity, truth']
    oracle = report['oracles']['oracle_constant_velocity']
    rows = []
    for label, key, unit in _ROWS:
        low, high = report['ci'][key]
        rows.append([
            f'{label}{f" ({unit})" if unit else ""}', f'<b>{_number(report[key], unit)}</b>',
            f'{_number(low, unit)} to {_number(high, unit)}',
            *(_number(report['baselines'][name].get(key), unit) for name in NAMES),
            _number(oracle.get(key.replace('top6', 'top1')), unit)])
    return _table(head, rows)


def _curves(report: dict[str, Any]) -> Iterable[str]:
    ci, seconds = report['ci'], ['0', '1', '2', '3']
    own = report['baselines']['constant_velocity']
    static = report['baselines']['static']
    oracle = report['oracles']['oracle_constant_velocity']

    def over_time(name: str, source: dict, key: str, **style: Any) -> Series:
        values = source[key]
        intervals = [ci[key].get(s) for s in values] if source is report and key in ci else ()
        return Series(name, [float(s) for s in values], list(values.values()), intervals, **style)

    yield lines('SPA by horizon (%), 30 m', 'seconds ahead (0: found)', [
        over_time('top-6', report, 'spa_top6_by_horizon'),
        over_time('top-1', report, 'spa_top1_by_horizon'),
        over_time('constant velocity, own boxes', own, 'spa_top1_by_horizon', dashed=True),
        over_time('standing still, own boxes', static, 'spa_top1_by_horizon', dashed=True),
        over_time('constant velocity, truth', oracle, 'spa_top1_by_horizon', dashed=True)],
        (0, 3), (0, 100))
    bands = list(report['spa_top6_by_range'])
    yield bars('SPA top-6 by range (%)', [f'{band} m' for band in bands], [
        _bars_of(report, 'spa_top6_by_range', bands, 'all', 'all'),
        _bars_of(report, 'spa_top6_by_range', bands, 'moving', 'moving', dashed=True)])
    groups = [name for name in AGENT_CLASSES if report['n_agents_by_group'][name]]
    yield _by_group('SPA top-6 by class (%), 30 m', report, groups, oracle)
    motions = [name for name in ('standing', 'steady', 'speeding', 'turning', 'braking', 'starting')
               if report['n_agents_with_future_by_group'][name]]
    yield _by_group('SPA top-6 by motion (%), 30 m', report, motions, oracle)
    yield bars('Recall by range', [f'{band} m' for band in bands],
               [_bars_of(report, 'recall_by_range', bands, 'all', 'all'),
                _bars_of(report, 'recall_by_range', bands, 'car', 'cars', dashed=True),
                _bars_of(report, 'recall_by_range', bands, 'pedestrian', 'pedestrians',
                         dashed=True)], (0, 1))
    yield bars('Not found within 30 m: why, share of agents', groups, [
        Series(label, range(len(groups)), [report[f'missed_{kind}_by_group'][g] for g in groups])
        for kind, label in (('taken', 'one within 2 m is of another'),
                            ('displaced', 'the nearest is 2 to 4 m off'),
                            ('unsure', 'under the threshold'), ('unseen', 'nothing there'))],
        (0, 1))
    for extent in ('near', 'far'):
        yield lines(f'Occupancy IoU {extent} (%)', 'seconds ahead', [
            over_time('decoded', report, f'iou_{extent}'),
            over_time('boxes at constant velocity', own, f'iou_{extent}', dashed=True),
            over_time('boxes standing still', static, f'iou_{extent}', dashed=True)],
            (0, 3), (0, 100))
    curve = report['curves']['precision_recall']
    at = max((i for i, t in enumerate(curve['threshold']) if t >= report['threshold'] - 1e-9),
             default=None)
    yield lines('Detections within 30 m: precision over recall', 'recall (ring: the threshold)',
                [Series('within 2 m', curve['recall'], curve['precision'], marked=at)])
    for name, label in (('existence', 'Detection scores, as stated'),
                        ('occupancy', 'Occupancy probabilities, as stated')):
        bins = report['curves'][name]
        yield lines(f'{label} and as found', 'stated', [
            Series('bins', [x if x is not None else 0 for x in bins['stated']], bins['outcome'])],
            diagonal=True)
    levels = report.get('covariance_coverage') or {}
    yield lines('Outcomes in the highest-density regions (%)', 'seconds ahead', [
        Series(f'{level} % region', [float(s) for s in seconds[1:]],
               [None if share is None else 100 * share for share in by_horizon.values()],
               [None if pair[0] is None else [100 * end for end in pair]
                for pair in ci['covariance_coverage'][level].values()])
        for level, by_horizon in levels.items()], (0, 3), (0, 100))


def _bars_of(report: dict[str, Any], key: str, bands: list[str], group: str, name: str,
             dashed: bool = False) -> Series:
    return Series(name, range(len(bands)), [report[key][band][group] for band in bands],
                  [report['ci'][key][band][group] for band in bands], dashed)


def _by_group(title: str, report: dict[str, Any], groups: list[str], oracle: dict) -> str:
    return bars(title, groups, [
        Series('top-6', range(len(groups)), [report['spa_top6_by_group'][g] for g in groups],
               [report['ci']['spa_top6_by_group'][g] for g in groups]),
        Series('constant velocity, truth', range(len(groups)),
               [oracle['spa_top1_by_group'][g] for g in groups], dashed=True)])


def _differences(report: dict[str, Any]) -> str:
    cases = (('1', '1 s'), ('2', '2 s'), ('3', '3 s'),
             ('manoeuvring_3', '3 s, who turn, brake or start'))
    rows = []
    for baseline, by_modes in report['differences'].items():
        for modes, entries in by_modes.items():
            row = [f'{modes.replace("spa_", "").replace("top", "top-")} over '
                   f'{baseline.replace("_", " ")}']
            for key, _ in cases:
                d = entries[key]
                text = (f'{_number(d["mean"], "%")} [{_number(d["low"], "%")}, '
                        f'{_number(d["high"], "%")}]')
                row.append(f'<span class="yes">{text}</span>' if d['excludes_zero'] else text)
            rows.append(row)
    return (_table(['', *(label for _, label in cases)], rows)
            + '<p>Bold: the 95 % interval leaves out 0.</p>')


def _against(report: dict[str, Any]) -> Iterable[str]:
    for entry in report.get('against', ()):
        yield f'<h2>Against {escape(entry["artifact"])} on {escape(entry["backend"])}</h2>'
        rows = []
        for key, row in entry['headline'].items():
            text = (f'{_number(row["difference"], "")} [{_number(row["low"], "")}, '
                    f'{_number(row["high"], "")}]')
            rows.append([key, _number(row['this'], ''), _number(row['other'], ''),
                         f'<span class="yes">{text}</span>' if row['excludes_zero'] else text,
                         _number(row['ratio'], '')])
        yield _table(['', 'this', 'other', 'difference', 'ratio'], rows)
