"""
A bag through the live node: player, node and recorder as three processes over DDS.

What comes back is measured from outside the node: when the player gave the last picture of a set
to the middleware, and when the recorder had the forecast for it, both on the host's steady clock.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wm_ros.data.bag import BagReader
from wm_ros.demo.processes import Process, ProcessError, peak_memory_mb, waited_s
from wm_ros.share import share_path

NODE = '/world_model'
#: A node that loads and compiles its model takes seconds, on a busy machine a minute; where that
#: fails, its log says so at once.
START_S = 300.0
#: How long the last forecast may take, and what the node then says of it.
LAST_S = 30.0
#: What the node counts: sets by what became of them, in two statuses of its diagnostics.
COUNTS = {
    'window': ('sets_formed', 'sets_used', 'sets_skipped', 'sets_overtaken', 'sets_flushed',
               'flushes', 'buffer_overruns'),
    'inference': ('encoded', 'forecasts', 'failures', 'shed_encodes', 'shed_forecasts')}


@dataclass(frozen=True)
class LiveRun:
    """
    What a live run left: the bag of forecasts and what was measured.

    `latency_ms` maps a stamp to the time from the last picture's publication to the forecast's
    arrival; `sets` are the stamps of the camera sets that were played. `node_waited_s` is how long
    the node waited for a processor meanwhile, which others had.
    """

    bag: Path
    sets: list[int]
    latency_ms: dict[int, float]
    play_seconds: float
    player_lag_ms: float
    node_memory_mb: float | None
    node_exit_s: float
    start_seconds: float
    node_waited_s: float = 0.0


def run_live(drive: Path, folder: Path, rig_file: Path, artifact: Path | None, backend: str,
             threads: int, say: Callable[[str], None], rate: float = 1.0,
             domain: int | None = None) -> LiveRun:
    """
    Play the bag `drive` to a fresh node and record it into `folder`/forecasts.

    All of it in a ROS `domain` of its own, whatever the shell's is: a vehicle's planner is not to
    hear of simulated pictures.

    Raises ProcessError, with the last lines of the process that failed, where the node does not
    start, ends early, or publishes nothing, and FileExistsError where somebody else's `forecasts`
    are there.
    """
    out, agents = folder / 'forecasts', f'{NODE}/agents'
    if out.exists():
        if not (folder / 'recorder.log').is_file():
            raise FileExistsError(f'{out}: there already, and not recorded by the demo; want '
                                  'another folder')
        shutil.rmtree(out)
    if domain is None:
        taken = os.environ.get('ROS_DOMAIN_ID', '')
        domain = next(number for number in (1 + os.getpid() % 99, 100) if str(number) != taken)
    play_log, record_log = folder / 'player.json', folder / 'recorder.jsonl'
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
                  folder / 'recorder.log', domain, end_s=60.0) as recorder,
          Process('node', 'wm_ros.ros.main', node_arguments, folder / 'node.log',
                  domain, end_s=60.0, fatal='on_configure: ',
                  profile='fastdds_node.xml') as node):
        say('node: starting')
        start = time.monotonic()
        if not wait_until(lambda: agents in recorded(record_log), START_S, (node, recorder)):
            raise ProcessError(f'no topic {agents} after {START_S:.0f} s; the node: '
                               f'{node.last_lines(3)}')
        begun, waited = time.monotonic() - start, waited_s(node.pid)
        with Process('player', 'wm_ros.ros.player',
                     [str(drive), '--rate', str(rate), '--wait', str(START_S), '--log',
                      str(play_log)], folder / 'player.log', domain) as player:
            try:
                player.wait(START_S + 600, beside=(node, recorder))
            except ProcessError as err:
                # The player only knows that nobody listens; the node knows why.
                raise ProcessError(f'{err}; the node: {node.last_lines(3)}') from err
        played = json.loads(play_log.read_text())
        published = {int(stamp): ns for stamp, ns in played['published_ns'].items()}
        # Where the last picture was lost there is nothing to wait for, and the summary says so.
        wait_until(lambda: reported(recorded(record_log), agents, max(published)), LAST_S,
                   (node, recorder))
        memory, waited = peak_memory_mb(node.pid), waited_s(node.pid) - waited
        exit_s = node.end()
        # A host without a free processor lets the node's own alarm come first.
        if node.code not in (0, -signal.SIGALRM):
            raise ProcessError(f'node ended with code {node.code}: {node.last_lines()}')
        recorder.end()
        if recorder.code:
            raise ProcessError(f'recorder ended with code {recorder.code}: '
                               f'{recorder.last_lines()}')
    arrivals = recorded(record_log)[agents]
    if not arrivals:
        raise ProcessError(f'the node published nothing: {node.last_lines()}')
    latency = {stamp: (ns - published[stamp]) / 1e6 for stamp, ns in arrivals
               if stamp in published}
    return LiveRun(out, sorted(published), latency, played['seconds'], played['lag_ms'], memory,
                   exit_s, begun, waited)


def wait_until(condition: Callable[[], bool], timeout_s: float,
               beside: Sequence[Process] = ()) -> bool:
    """Wait until a condition holds; return False after `timeout_s`. Processes must be well."""
    end = time.monotonic() + timeout_s
    while not condition():
        for process in beside:
            process.check()
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def recorded(log: Path) -> dict[str, list[tuple[int, int]]]:
    """Return (stamp, arrival) of what a recorder has so far, of every topic it listens to."""
    found: dict[str, list[tuple[int, int]]] = {}
    for line in log.read_text().splitlines(keepends=True) if log.is_file() else ():
        if line.endswith('\n'):         # else it is being written
            topic, stamp_ns, arrival_ns = json.loads(line)
            arrivals = found.setdefault(topic, [])
            if stamp_ns is not None:
                arrivals.append((stamp_ns, arrival_ns))
    return found


def reported(arrivals: dict[str, list[tuple[int, int]]], topic: str, stamp_ns: int) -> bool:
    """Tell whether a message of that stamp came and diagnostics after it: the second surely are."""
    came = next((at for stamp, at in arrivals[topic] if stamp == stamp_ns), None)
    return came is not None and sum(
        at > came for _, at in arrivals.get('/diagnostics', ())) >= 2


def node_counts(bag: Path) -> dict[str, int]:
    """Return what the node had counted, by the last of its diagnostics that hold it: `COUNTS`."""
    found: dict[str, int] = {}
    with BagReader(bag) as reader:
        for _, _, msg in reader.read(['/diagnostics']):
            for entry in msg.status:
                wanted = COUNTS.get(entry.name.rpartition(' ')[2], ())
                found.update({item.key: int(item.value) for item in entry.values
                              if item.key in wanted})
    return found


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
    span_s = (run.sets[-1] - run.sets[0]) / 1e9 if len(run.sets) > 1 else None

    def rate(count: int) -> float | None:
        return None if span_s is None else round(max(count - 1, 0) / span_s, 2)

    def percentile(q: float) -> float | None:
        return round(float(np.percentile(latency, q)), 1) if latency else None

    return {
        'sets': len(run.sets), 'forecasts': len(by_stamp),
        'rate_in_hz': rate(len(run.sets)), 'rate_out_hz': rate(len(by_stamp)),
        'dropped': len(set(run.sets) - set(by_stamp)), 'node_counts': node_counts(run.bag),
        'sets_before_first_valid': len(run.sets) - len(after),
        'valid_share_after_first': (sum(s in by_stamp and by_stamp[s].valid for s in after)
                                    / len(after) if after else 0.0),
        'latency_p50_ms': percentile(50), 'latency_p95_ms': percentile(95),
        'latency_max_ms': percentile(100), 'player_lag_ms': round(run.player_lag_ms, 1),
        'node_start_s': round(run.start_seconds, 1), 'node_exit_s': round(run.node_exit_s, 2),
        'node_waited_s': round(run.node_waited_s, 2),
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

    def counted(name: str, rate: str) -> str:
        every = '' if summary[rate] is None else f' at {summary[rate]:.1f} Hz'
        return f'{summary[name]}{every}'

    lines = [
        'Live node on a simulated drive', '',
        line('camera sets in', counted('sets', 'rate_in_hz')),
        line('forecasts out', counted('forecasts', 'rate_out_hz')),
        line('dropped', f'{summary["dropped"]}{_causes(summary["node_counts"])}'),
        line('first valid forecast', f'set {summary["sets_before_first_valid"] + 1}, then '
             f'{100 * summary["valid_share_after_first"]:.1f} % valid'),
        line('stamp to publish, p50 / p95', 'none' if summary['latency_p50_ms'] is None else
             f'{summary["latency_p50_ms"]:.0f} / {summary["latency_p95_ms"]:.0f} ms (max '
             f'{summary["latency_max_ms"]:.0f} ms)'),
        line('  of that, inside the node', _stages(summary['node_stages_p50_ms'])),
        line('node', f'started in {summary["node_start_s"]:.1f} s, ended in '
             f'{summary["node_exit_s"]:.1f} s, peak memory '
             f'{summary["node_peak_memory_mb"] or math.nan:.0f} MB, waited '
             f'{summary["node_waited_s"]:.1f} s for a CPU'),
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


def _causes(counts: dict[str, int]) -> str:
    """Return what the node says of sets without a forecast, nothing where it lost none."""
    whole = ('sets_formed', 'sets_used', 'encoded', 'forecasts')
    lost = [f'{name} {count}' for name, count in counts.items() if count and name not in whole]
    return f' (the node: {", ".join(lost)})' if lost else ''


def _stages(stages: dict[str, float]) -> str:
    """Return the medians of the stages that a set passes, in a line."""
    wanted = [(name, stages[key]) for name, key in (
        ('wait', 'wait'), ('decode and encode', 'encode'), ('forecast', 'forecast'),
        ('publish', 'publish')) if key in stages]
    return ', '.join(f'{name} {ms:.1f}' for name, ms in wanted) + ' ms' if wanted else 'unknown'
