"""
A bag through the live node: player, node and recorder as three processes over DDS.

What comes back is measured from outside the node: when the player gave the last picture of a set
to the middleware, and when the recorder had the forecast for it, both on the host's steady clock.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wm_ros.data.bag import BagReader
from wm_ros.demo.processes import Process, ProcessError, peak_memory_mb
from wm_ros.share import share_path

NODE = '/world_model'
#: A node that loads and compiles its model takes seconds; a slow machine more.
START_S = 90.0


@dataclass(frozen=True)
class LiveRun:
    """
    What a live run left: the bag of forecasts and what was measured.

    `latency_ms` maps a stamp to the time from the last picture's publication to the forecast's
    arrival; `sets` are the stamps of the camera sets that were played.
    """

    bag: Path
    sets: list[int]
    latency_ms: dict[int, float]
    play_seconds: float
    player_lag_ms: float
    node_memory_mb: float | None
    node_exit_s: float
    start_seconds: float


def run_live(drive: Path, folder: Path, rig_file: Path, artifact: Path | None, backend: str,
             threads: int, say: Callable[[str], None], rate: float = 1.0) -> LiveRun:
    """
    Play the bag `drive` to a fresh node and record it into `folder`/forecasts.

    Raises ProcessError, with the last lines of the process that failed, where the node does not
    start, ends early, or publishes nothing.
    """
    out = folder / 'forecasts'
    shutil.rmtree(out, ignore_errors=True)
    domain = int(os.environ.get('ROS_DOMAIN_ID') or 1 + os.getpid() % 99)
    play_log, record_log = folder / 'player.json', folder / 'recorder.json'
    for path in (play_log, record_log):
        path.unlink(missing_ok=True)
    node_arguments = ['--ros-args', '--params-file',
                      str(share_path('params', 'world_model.yaml'))]
    for name, value in (('autostart', 'true'), ('rig_file', str(rig_file)),
                        ('artifact', str(artifact) if artifact else "''"), ('backend', backend),
                        ('threads', str(threads))):
        node_arguments += ['-p', f'{name}:={value}']
    with (Process('recorder', 'wm_ros.ros.recorder',
                  [str(out), '--topics', f'{NODE}/.*', '/diagnostics', '--log', str(record_log)],
                  folder / 'recorder.log', domain) as recorder,
          Process('node', 'wm_ros.ros.main', node_arguments, folder / 'node.log',
                  domain) as node):
        say('node: starting')
        start = time.monotonic()
        with Process('player', 'wm_ros.ros.player',
                     [str(drive), '--rate', str(rate), '--wait', str(START_S), '--log',
                      str(play_log)], folder / 'player.log', domain) as player:
            try:
                player.wait(START_S + 600, beside=(node, recorder))
            except ProcessError as err:
                # The player only knows that nobody listens; the node knows why.
                raise ProcessError(f'{err}; the node: {node.last_lines(3)}') from err
        played = json.loads(play_log.read_text())
        begun = time.monotonic() - start - played['seconds']
        time.sleep(1.0)     # the last forecast is on its way
        memory = peak_memory_mb(node.pid)
        exit_s = node.end()
        if node.code:
            raise ProcessError(f'node ended with code {node.code}: {node.last_lines()}')
        recorder.end()
        if recorder.code or not record_log.is_file():
            raise ProcessError(f'recorder ended with code {recorder.code}: '
                               f'{recorder.last_lines()}')
    arrivals = json.loads(record_log.read_text()).get(f'{NODE}/agents', [])
    if not arrivals:
        raise ProcessError(f'the node published nothing: {node.last_lines()}')
    published = {int(stamp): ns for stamp, ns in played['published_ns'].items()}
    latency = {stamp: (ns - published[stamp]) / 1e6 for stamp, ns in arrivals
               if stamp in published}
    return LiveRun(out, sorted(published), latency, played['seconds'], played['lag_ms'], memory,
                   exit_s, begun)


def node_stages(bag: Path) -> dict[str, float]:
    """
    Return the median milliseconds of each stage as the node's own diagnostics report them.

    A report covers a second, so this is the median over seconds of their medians. The age of
    stamps is left out: those of a bag are of another day.
    """
    found: dict[str, list[float]] = {}
    with BagReader(bag) as reader:
        for _, _, msg in reader.read(['/diagnostics']):
            for entry in msg.status:
                for item in entry.values if entry.name.endswith('inference') else ():
                    stage, _, kind = item.key.partition('_ms ')
                    if kind.startswith('p50') and stage != 'stamp_to_publish':
                        found.setdefault(stage, []).append(float(item.value.split('/')[0]))
    return {stage: round(float(np.median(values)), 2) for stage, values in found.items()}


def summarise(run: LiveRun, forecasts: list[Any], scores: dict[str, Any] | None) -> dict[str, Any]:
    """Return the figures of a live run, JSON-ready; latencies are those of valid forecasts."""
    by_stamp = {forecast.stamp_ns: forecast for forecast in forecasts}
    valid = [f for f in forecasts if f.valid]
    first = min((f.stamp_ns for f in valid), default=None)
    after = [stamp for stamp in run.sets if first is not None and stamp >= first]
    latency = [run.latency_ms[f.stamp_ns] for f in valid if f.stamp_ns in run.latency_ms]
    span_s = (run.sets[-1] - run.sets[0]) / 1e9 if len(run.sets) > 1 else float('nan')

    def percentile(q: float) -> float | None:
        return round(float(np.percentile(latency, q)), 1) if latency else None

    return {
        'sets': len(run.sets), 'forecasts': len(by_stamp),
        'rate_in_hz': round((len(run.sets) - 1) / span_s, 2),
        'rate_out_hz': round(max(len(by_stamp) - 1, 0) / span_s, 2),
        'dropped': len(set(run.sets) - set(by_stamp)),
        'sets_before_first_valid': len(run.sets) - len(after),
        'valid_share_after_first': (sum(s in by_stamp and by_stamp[s].valid for s in after)
                                    / len(after) if after else 0.0),
        'latency_p50_ms': percentile(50), 'latency_p95_ms': percentile(95),
        'latency_max_ms': percentile(100), 'player_lag_ms': round(run.player_lag_ms, 1),
        'node_start_s': round(run.start_seconds, 1), 'node_exit_s': round(run.node_exit_s, 2),
        'node_peak_memory_mb': run.node_memory_mb and round(run.node_memory_mb),
        'model_hash': forecasts[-1].model_hash if forecasts else '',
        'precision': forecasts[-1].precision if forecasts else {},
        'node_stages_p50_ms': node_stages(run.bag),
        'latency_ms': {str(s): round(ms, 1) for s, ms in sorted(run.latency_ms.items())},
        'scores': scores}


def page_text(summary: dict[str, Any], table: list[list[str]]) -> str:
    """Return the one-page summary for a terminal."""
    def line(name: str, text: str) -> str:
        return f'  {name:<28} {text}'

    lines = [
        'Live node on a simulated drive', '',
        line('camera sets in', f'{summary["sets"]} at {summary["rate_in_hz"]:.1f} Hz'),
        line('forecasts out', f'{summary["forecasts"]} at {summary["rate_out_hz"]:.1f} Hz'),
        line('dropped', f'{summary["dropped"]}'),
        line('first valid forecast', f'set {summary["sets_before_first_valid"] + 1}, then '
             f'{100 * summary["valid_share_after_first"]:.1f} % valid'),
        line('stamp to publish, p50 / p95', 'none' if summary['latency_p50_ms'] is None else
             f'{summary["latency_p50_ms"]:.0f} / {summary["latency_p95_ms"]:.0f} ms (max '
             f'{summary["latency_max_ms"]:.0f} ms)'),
        line('  of that, inside the node', _stages(summary['node_stages_p50_ms'])),
        line('node', f'started in {summary["node_start_s"]:.1f} s, ended in '
             f'{summary["node_exit_s"]:.1f} s, peak memory '
             f'{summary["node_peak_memory_mb"] or float("nan"):.0f} MB'),
        line('model', f'{summary["model_hash"][:12]}, ' + ', '.join(
            f'{stage} {form}' for stage, form in sorted(summary['precision'].items())))]
    if table:
        # Columns are as wide as a terminal of 100 characters allows.
        short = {'oracle: constant velocity from truth': 'const. vel. from truth',
                 'constant velocity': 'const. velocity'}
        lines += ['', "  against the simulator's truth, from the first valid forecast on:"]
        for row in table:
            cells = [short.get(cell, cell) for cell in row]
            lines.append(f'  {cells[0]:<18}' + ''.join(
                f'{cell:>17}' if i < 3 else f'{cell:>25}' for i, cell in enumerate(cells[1:])))
    return '\n'.join(lines)


def _stages(stages: dict[str, float]) -> str:
    """Return the medians of the stages that a set passes, in a line."""
    wanted = [(name, stages[key]) for name, key in (
        ('wait', 'wait'), ('decode and encode', 'encode'), ('forecast', 'forecast'),
        ('publish', 'publish')) if key in stages]
    return ', '.join(f'{name} {ms:.1f}' for name, ms in wanted) + ' ms' if wanted else 'unknown'
