"""
Stored hashes of the shipped model's forecasts: no change of behaviour lands unnoticed.

    python test/golden.py             compare with what is stored; exit 1 where it differs
    python test/golden.py --update    store what comes out now, with the metrics old and new

The input is a drive of 2.4 s with six small cameras in test/golden/drive. It is stored and not
simulated anew, so that a change of the simulator does not look like one of the model.

Forecasts are equal to the byte on hosts of one class: the same instruction sets (libraries choose
their kernels, and with them the order of sums, by these), CPU vendor and cache (which sets block
sizes), and the same versions of the libraries that touch a number. On a host of another class the
stored summary and metrics have to be met within a tolerance, and the test says so.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import json
import platform
import sys
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from wm_ros.data.bag import BagReader
from wm_ros.data.messages import bag_types, typestore
from wm_ros.decode import UNOBSERVED
from wm_ros.evaluate.recorded import score, truths_in
from wm_ros.messages import agents_message, flow_message, occupancy_message
from wm_ros.predictor import Predictor
from wm_ros.replay import Replay
from wm_ros.runtime.artifact import load_artifact
from wm_ros.runtime.backend import create_backend
from wm_ros.share import share_path
from wm_ros.types import Forecast
from wm_ros.window import FrameBuffer

FOLDER = Path(__file__).resolve().parent / 'golden'
DRIVE = FOLDER / 'drive'
STORED = FOLDER / 'golden.json'
#: Backends with their packages; PyTorch is a reference, which `wm_ros parity` holds to these.
BACKENDS = {'openvino': 'openvino', 'onnxruntime': 'onnxruntime'}
#: What inference libraries ask for when they choose kernels (oneDNN, MLAS, OpenCV, NumPy).
INSTRUCTION_SETS = (
    'sse4_2', 'avx', 'fma', 'f16c', 'avx2', 'avx_vnni', 'avx512f', 'avx512dq', 'avx512bw',
    'avx512vl', 'avx512_vnni', 'avx512vbmi', 'avx512_bf16', 'avx512_fp16', 'amx_tile', 'amx_int8',
    'amx_bf16', 'asimd', 'asimdhp', 'asimddp', 'i8mm', 'bf16', 'sve', 'sve2')
#: Metrics that are kept, with how far another class of host may be from them. One of the drive's
#: 81 agents is 1.2 points; INT8 that rounds another way moves a few of them.
METRICS = {'spa_top6': 6.0, 'spa_top1': 8.0, 'recall': 0.06, 'precision': 0.08, 'epa': 0.1,
           'min_ade_6': 0.1, 'iou_near_to_2s': 3.0, 'iou_far_to_2s': 3.0, 'brier': 0.003}
#: The same for each forecast: agents, and mean probability of observed cells.
AGENTS_TOLERANCE = 3
OCCUPANCY_TOLERANCE = 0.01


@dataclass
class Outcome:
    """What one backend said about the drive: a hash and a summary a forecast, and metrics."""

    hashes: list[str] = field(default_factory=list)
    summary: list[list[float]] = field(default_factory=list)
    metrics: dict[str, float] = field(default_factory=dict)


@cache
def run(backend: str, drive: Path = DRIVE, threads: int = 1) -> Outcome:
    """Replay the drive with the shipped model."""
    artifact = load_artifact(share_path('models', 'world-model'))
    outcome, forecasts = Outcome(), []
    with BagReader(drive) as reader:
        rig = reader.rig()
        loaded = create_backend(backend, artifact, len(rig), threads=threads)
        try:
            predictor = Predictor(artifact, loaded, rig)
            for forecast in Replay(predictor, FrameBuffer(rig.names, deadline_ns=500_000_000)).run(
                    reader.values(rig.names)):
                forecasts.append(forecast)
                outcome.hashes.append(forecast_hash(forecast))
                outcome.summary.append(summary(forecast))
            predictor.close()
        finally:
            loaded.close()
        report = score(forecasts, truths_in(reader))
    outcome.metrics = {name: round(float(report[name]), 6) for name in METRICS}
    return outcome


def forecast_hash(forecast: Forecast) -> str:
    """Return the first 16 hex digits of the SHA-256 of a forecast's messages as they are sent."""
    return message_hash([build(bag_types(), forecast) for build in (
        agents_message, occupancy_message, flow_message)])


def message_hash(messages: list[Any]) -> str:
    """Return the first 16 hex digits of the SHA-256 of messages of agents, occupancy and flow."""
    digest = hashlib.sha256()
    for msg in messages:
        digest.update(typestore().serialize_cdr(msg, msg.__msgtype__))
    return digest.hexdigest()[:16]


def summary(forecast: Forecast) -> list[float]:
    """Return agents found, then the mean probability of agents (7 steps) and of static ground."""
    layers = [*forecast.occupancy_agents, forecast.occupancy_static]
    means = [float(layer[layer != UNOBSERVED].mean()) / 254 if (layer != UNOBSERVED).any() else 0.0
             for layer in layers]
    return [len(forecast.agents), *(round(mean, 6) for mean in means)]


def host_class(backend: str) -> str:
    """Return the class of host within which a backend's results are equal to the byte."""
    info = {}
    try:
        for line in Path('/proc/cpuinfo').read_text(encoding='utf-8').splitlines():
            key, _, value = line.partition(':')
            info.setdefault(key.strip(), value.strip())
    except OSError:
        pass        # not Linux: what platform says has to do
    flags = set((info.get('flags') or info.get('Features') or '').split())
    sets = ' '.join(name for name in INSTRUCTION_SETS if name in flags)
    cache = Path('/sys/devices/system/cpu/cpu0/cache/index2/size')
    cache = cache.read_text(encoding='ascii').strip() if cache.is_file() else 'unknown'
    versions = ' '.join(f'{name} {importlib.metadata.version(name)}' for name in (
        BACKENDS[backend], 'numpy', 'opencv-python-headless'))
    vendor = info.get('vendor_id') or info.get('CPU implementer') or 'unknown'
    return f'{platform.machine()} {vendor}; {sets}; L2 {cache}; {versions}'


def stored() -> dict[str, Any]:
    """Return the content of golden.json, empty where there is none."""
    return json.loads(STORED.read_text(encoding='utf-8')) if STORED.is_file() else {}


def model_hash() -> str:
    """Return the hash of the shipped model."""
    return load_artifact(share_path('models', 'world-model')).hash


def beyond_tolerance(known: dict[str, Any], now: Outcome) -> list[str]:
    """Return where an outcome is further from a stored one than another host may make it."""
    found = [f'{name}: {known["metrics"][name]:g}, now {now.metrics[name]:g}'
             for name, limit in METRICS.items()
             if not abs(known['metrics'][name] - now.metrics[name]) <= limit]
    if len(known['summary']) != len(now.summary):
        return [*found, f'{len(known["summary"])} forecasts, now {len(now.summary)}']
    for i, (old, new) in enumerate(zip(known['summary'], now.summary, strict=True)):
        if abs(old[0] - new[0]) > AGENTS_TOLERANCE:
            found.append(f'forecast {i}: {old[0]} agents, now {new[0]}')
        if np.abs(np.subtract(old[1:], new[1:])).max() > OCCUPANCY_TOLERANCE:
            found.append(f'forecast {i}: mean occupancy {old[1:]}, now {new[1:]}')
    return found


def compare(known: dict[str, Any], now: Outcome, where: str) -> tuple[list[str], bool]:
    """Return what differs from the stored outcome, and whether it could be told to the byte."""
    hashes = known['classes'].get(where)
    if hashes is None:
        return beyond_tolerance(known, now), False
    changed = [i for i, (old, new) in enumerate(zip(hashes, now.hashes, strict=False))
               if old != new]
    if len(hashes) != len(now.hashes):
        return [f'{len(hashes)} forecasts, now {len(now.hashes)}'], True
    return ([f'{len(changed)} of {len(hashes)} forecasts have other bytes, the first is '
             f'number {changed[0]}'] if changed else []), True


def _table(known: dict[str, Any] | None, now: Outcome) -> str:
    lines = []
    for name, value in now.metrics.items():
        old = known['metrics'].get(name) if known else None
        change = '' if old is None else f'{old:>10.4g} -> {value:<10.4g} {value - old:+.4g}'
        lines.append(f'    {name:<16}{change or f"{value:.4g}"}')
    return '\n'.join(lines)


def _updated(known: dict[str, Any] | None, now: Outcome, where: str, same: bool) -> dict[str, Any]:
    """Return what is to be stored; other hosts' hashes stay only where nothing has changed."""
    classes = dict(known['classes']) if known and same else {}
    classes[where] = now.hashes
    return {'metrics': now.metrics, 'summary': now.summary, 'classes': classes}


def main(arguments: list[str] | None = None) -> int:
    """Compare or update; return 0 where nothing differs or it was stored."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--update', action='store_true', help='store what comes out now')
    update = parser.parse_args(arguments).update
    content, current = stored(), model_hash()
    print(f'model {content.get("model_hash", "none")[:12]} -> {current[:12]}')
    same_model, failed = content.get('model_hash') == current, False
    backends = {}
    for backend in BACKENDS:
        where, now = host_class(backend), run(backend)
        known = content.get('backends', {}).get(backend)
        differences, exact = compare(known, now, where) if known else (['not stored yet'], False)
        failed |= bool(differences) or not same_model
        how = 'to the byte' if exact else f'within a tolerance, a host class not known: {where}'
        print(f'{backend}: compared {how}; {"; ".join(differences) or "no difference"}')
        print(_table(known, now))
        backends[backend] = _updated(known, now, where, same_model and not differences)
    if update:
        STORED.write_text(json.dumps({'model_hash': current, 'backends': backends}, indent=1)
                          + '\n', encoding='utf-8')
        print(f'{STORED}: stored')
        return 0
    if failed:
        print('If this is meant: python test/golden.py --update')
    return int(failed)


if __name__ == '__main__':
    sys.exit(main())
