"""The report as one self-contained HTML file: the folder `page` with the data of a `Report`."""

from __future__ import annotations

import base64
import json
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from wm_ros.colours import CLASSES, GROUND, THEMES, rgb
from wm_ros.evaluate.recorded import score_table
from wm_ros.evaluate.report_data import (
    TILE_WIDTH,
    Report,
    camera_json,
    encoded,
    mosaic_layout,
    window_json,
)
from wm_ros.evaluate.report_judged import moments_to_look_at
from wm_ros.frame_predictor import FutureFrames
from wm_ros.frames import HEIGHT, WIDTH
from wm_ros.types import AGENT_CLASSES, OUTPUT_GRID, CameraRig, Forecast

#: Predicted frames are small and few: they may be good.
FRAMES_QUALITY = 80
PAGE = Path(__file__).with_name('page')
#: Parts of the page's script, in the order in which they run.
SCRIPTS = ('state', 'draw', 'bev', 'cameras', 'timeline', 'panels', 'player')


def page_data(report: Report) -> dict[str, Any]:
    """Return the JSON-ready data of a page."""
    forecasts = report.forecasts
    start_ns = forecasts[0].stamp_ns
    latency = report.health.latency_ms | {
        int(stamp): ms for stamp, ms in report.summary.get('latency_ms', {}).items()}
    windows = []
    for forecast in forecasts:
        entry = window_json(forecast, report.truths.get(forecast.stamp_ns), start_ns,
                            latency.get(forecast.stamp_ns))
        moment = report.moments.get(forecast.stamp_ns)
        if moment is not None:
            entry['sur'] = [round(moment.agents, 2), round(moment.occupancy, 2)]
        one = report.judged.get(forecast.stamp_ns)
        if one is not None:
            entry['jud'] = [one.right, one.visible, one.invented]
        picture = report.mosaics.get(forecast.stamp_ns)
        if picture is not None:
            entry['cam'] = base64.b64encode(picture).decode()
        frames = report.frames.get(forecast.stamp_ns)
        if frames is not None and report.rig is not None:
            entry['fut'] = base64.b64encode(encoded(
                frames_tiles(frames, report.rig)[..., ::-1], FRAMES_QUALITY)).decode()
        windows.append(entry)
    data = {
        'title': report.title, 'windows': windows, 'classes': list(AGENT_CLASSES),
        'cells': OUTPUT_GRID.rows, 'cell_m': OUTPUT_GRID.cell_m, 'cameras': [], 'mosaic': [1, 1],
        'colours': {theme: {'classes': CLASSES[theme], 'ground': [None, *map(rgb, GROUND[theme])]}
                    for theme in THEMES},
        'rows': 1, 'columns': 1, 'future': [WIDTH, HEIGHT], 'facts': facts(report), 'scores': [],
        'scores_note': '',
        'start': telling_window(report), 'foot': foot(report),
        'moments': moments_to_look_at(forecasts, report.moments, report.judged),
        'health': [[round((stamp - start_ns) / 1e9, 3), level, lines]
                   for stamp, level, lines in report.health.reports]}
    if report.rig is not None:
        layout = mosaic_layout(report.rig)
        columns = max(len(row) for row in layout)
        width = TILE_WIDTH if columns > 1 else 2 * TILE_WIDTH
        height = max(round(width * c.height / c.width) for c in report.rig.cameras)
        data |= {'cameras': camera_json(report.rig), 'rows': len(layout), 'columns': columns,
                 'mosaic': [columns * width, len(layout) * height]}
    if report.scores:
        data['scores'] = score_table(report.scores)
        data['scores_note'] = (
            f'{report.scores["n_forecasts"]} forecasts, {report.scores["n_agents"]} visible agents '
            'within 30 m, against the truth in the bag')
    return data


def frames_tiles(frames: FutureFrames, rig: CameraRig) -> np.ndarray:
    """Return predicted frames as one RGB picture: a row a second, a column a camera as shown."""
    blank = np.zeros((len(frames.seconds), HEIGHT, WIDTH, 3), np.uint8)
    names = [name for row in mosaic_layout(rig) for name in row]
    tiles = np.stack([frames.pictures.get(name, blank) for name in names], 2)
    return tiles.reshape(len(frames.seconds) * HEIGHT, len(names) * WIDTH, 3)


def drawn_moments(report: Report, count: int) -> list[Forecast]:
    """
    Return up to `count` forecasts whose frames are worth predicting, by stamp.

    The one that the page opens with, then the worst moments of each kind in turn.
    """
    worst = moments_to_look_at(report.forecasts, report.moments, report.judged)
    kinds = [[entry['i'] for entry in worst if entry['kind'] == kind]
             for kind in ('surprise', 'truth')]
    turns = [i for turn in zip_longest(*kinds) for i in turn if i is not None]
    chosen = dict.fromkeys([telling_window(report), *turns])
    found = [report.forecasts[i] for i in chosen if report.forecasts[i].valid][:count]
    return sorted(found, key=lambda forecast: forecast.stamp_ns)


def facts(report: Report) -> list[list[str]]:
    """Return the figures of the page's head, name and value."""
    forecasts = report.forecasts
    valid = sum(f.valid for f in forecasts) / len(forecasts)
    rows = [['forecasts', str(len(forecasts))], ['valid', f'{100 * valid:.1f} %']]
    if len(forecasts) > 1:
        spacing = np.diff([f.stamp_ns for f in forecasts]) / 1e9
        rows.append(['rate', f'{1 / np.median(spacing):.1f} Hz'])
    latency = list(report.summary.get('latency_ms', report.health.latency_ms).values())
    if latency:
        rows.append(['stamp to publish p50 / p95', f'{np.percentile(latency, 50):.0f} / '
                     f'{np.percentile(latency, 95):.0f} ms'])
    if report.scores:
        for name, key, form in (('recall', 'recall', '.2f'), ('SPA top-6', 'spa_top6', '.0f')):
            if report.scores.get(key) is not None:
                unit = ' %' if form == '.0f' else ''
                rows.append([name, f'{report.scores[key]:{form}}{unit}'])
    return rows


def foot(report: Report) -> str:
    """Return what the model was and in which precision its stages ran."""
    last = report.forecasts[-1]
    stages = ', '.join(f'{stage} {form}' for stage, form in sorted(last.precision.items()))
    return (f'Model {last.model_hash or "unknown"} · {stages} · forecasts in base_link at the '
            'stamp, 3 s ahead · paths fade with their probability · the ellipse is two standard '
            "deviations of the likeliest path's end")


def telling_window(report: Report) -> int:
    """Return the window to open with: a valid one in which most agents move, near and seen."""
    best, most = 0, -1.0
    for i, forecast in enumerate(report.forecasts):
        moving = sum(min(float(np.hypot(*a.velocity_mps)), 5.0) + 1.0 for a in forecast.agents
                     if a.score > 0.3 and np.hypot(*a.pose[:2]) < 35)
        if forecast.valid and moving > most:
            best, most = i, moving
    return best


def template() -> str:
    """Return the page without its data: style and scripts put into one file."""
    style = (PAGE / 'page.css').read_text(encoding='utf-8')
    script = '\n'.join((PAGE / f'{name}.js').read_text(encoding='utf-8') for name in SCRIPTS)
    html = (PAGE / 'page.html').read_text(encoding='utf-8')
    return html.replace('/*STYLE*/', style).replace('/*SCRIPT*/', script)


def write_page(report: Report, path: Path) -> int:
    """Write the page; return its size in bytes."""
    data = json.dumps(page_data(report), separators=(',', ':'), allow_nan=False)
    # A script element ends at '</' whatever stands around it.
    html = template().replace('__DATA__', data.replace('</', '<\\/'))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(html, encoding='utf-8')
    return len(html.encode())
