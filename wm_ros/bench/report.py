"""One measurement: everything that `wm_ros bench` reports, as a dictionary with stable keys."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from wm_ros.bench import baselines, ceilings, counting, machine, roofline
from wm_ros.bench.drive import CameraDrive, camera_drive
from wm_ros.bench.latency import Publish, System, Times, measure_beside, percentiles
from wm_ros.ego import constant_turn_rate_plan
from wm_ros.runtime.artifact import Artifact
from wm_ros.runtime.backend import Backend, create_backend
from wm_ros.types import WINDOW_FRAMES, EgoPlan, EgoState, PlanSource

PRESETS = {'surround': 'six 1600x900 JPEG cameras', 'front': 'one 1600x900 JPEG camera'}
TOKENS = 256
#: Stages of a backend that folds the older frames while the newest one is decoded and encoded.
TOGETHER = ('jpeg_decode', 'resize', 'encode', 'fold')
#: How far apart the pictures of a set come where they do not come all at once.
APART_S = 0.004


@dataclass(frozen=True)
class Settings:
    """
    What to measure; `width` of the pictures, 0 for the rig's own.

    `beside` frames are measured of each system in `baselines` and of the backend, in turns;
    `plans` candidate ego plans are held against one (0: not measured).
    """

    preset: str
    backend: str = 'auto'
    options: Mapping[str, Any] = field(default_factory=dict)
    threads: int = 2
    frames: int = 200
    beside: int = 50
    baselines: tuple[str, ...] = baselines.BASELINES
    plans: int = 8
    width: int = 0
    device: str = ''


def measure(settings: Settings, artifact: Artifact, publish: Publish | None,
            log: Callable[[str], None]) -> dict[str, Any]:
    """Measure and return the report; `publish` makes messages of a forecast where ROS is there."""
    log(f'rendering {PRESETS[settings.preset]}')
    drive = camera_drive(settings.preset, width=settings.width)
    cameras = len(drive.rig)
    backend = create_backend(settings.backend, artifact, cameras, 1, settings.threads,
                             settings.options, log)
    system = System(artifact, backend, drive, publish=publish)
    try:
        log(f'measuring {settings.frames} frames')
        system.fill()
        times, energy = Times(), machine.GpuEnergy()
        before = energy.joules() if energy else 0.0
        system.measure(settings.frames, times)
        joules = (energy.joules() - before) / settings.frames if energy else None
        spread = Times()
        system.measure(settings.beside, spread, apart_s=APART_S)
        rss = machine.peak_rss_mb()
        found = _beside(settings, artifact, drive, system, log)
        plans = _plans(settings, artifact, drive, log) if settings.plans else None
    finally:
        system.close()
        backend.close()
    log('measuring the ceilings of this machine')
    limits = (ceilings.measure_cuda() if machine.runs_on_cuda(backend) else
              ceilings.measure(settings.threads or 1))
    report = _head(settings, artifact, backend, drive)
    report |= {'latency_ms': times.latency(), 'latency_spread_ms': spread.latency(),
               'spread_apart_ms': 1e3 * APART_S, 'stages_ms': _medians(times),
               'stages_p95_ms': {name: row['p95'] for name, row in times.by_stage().items()},
               'model_ms': percentiles([sum(parts) for parts in zip(*(
                   times.stages[stage] for stage in roofline.GRAPH_OF_STAGE), strict=True)]),
               'rss_mb': rss}
    report |= _counted(counting.count_artifact(artifact, cameras), backend, limits, report)
    report |= {'baselines': found, 'plans': plans, 'energy_j_per_frame': joules}
    return report


def _head(settings: Settings, artifact: Artifact, backend: Backend,
          drive: CameraDrive) -> dict[str, Any]:
    model = artifact.manifest.get('model', {})
    slots = 3 * model['block'] + model['anchors'] if model else None
    return {
        'preset': settings.preset, 'host': machine.host(settings.device),
        'artifact': artifact.path.name, 'model_hash': artifact.hash,
        'backend': backend.name, 'options': dict(settings.options),
        'precision': dict(backend.precision), 'threads': settings.threads,
        'frames': settings.frames, 'warm_up_frames': WINDOW_FRAMES,
        'artifact_mb': {name: round(entry['bytes'] / 1e6, 3)
                        for name, entry in artifact.manifest['files'].items()},
        'cameras': len(drive.rig), 'jpeg_bytes': drive.jpeg_bytes,
        'tokens': TOKENS, 'pairs_per_layer': TOKENS * slots if slots else None}


def _counted(works: Mapping[str, counting.Work], backend: Backend, limits: Mapping[str, float],
             report: Mapping[str, Any]) -> dict[str, Any]:
    whole = counting.total(works)
    together = TOGETHER if getattr(backend, 'overlaps', False) else ()
    return {
        'int8_weights_mb': round(whole.weight_bytes.get('int8', 0) / 1e6, 3),
        'weights_mb': {form: round(size / 1e6, 3)
                       for form, size in sorted(whole.weight_bytes.items())},
        'weights_as_fp32_mb': round(whole.weights_as_float32 / 1e6, 3),
        'gflops_per_frame': round(whole.gflops, 3),
        'graphs': {graph: {
            'gflops': round(work.gflops, 3), 'int8_gops': round(work.operations['int8'] / 1e9, 3),
            'least_mb': round(work.least_bytes / 1e6, 3),
            'uncached_mb': round((work.moved['int8'] + 2 * work.moved['float']) / 1e6, 3)}
            for graph, work in works.items()},
        'ceilings': {name: round(value, 1) for name, value in limits.items()},
        'together': list(together),
        'roofline_share': roofline.shares(works, backend.precision, limits, report['stages_ms'],
                                          together)}


def _medians(times: Times) -> dict[str, float]:
    return {name: row['p50'] for name, row in times.by_stage().items()}


def _beside(settings: Settings, artifact: Artifact, drive: CameraDrive, system: System,
            log: Callable[[str], None]) -> dict[str, Any]:
    """Measure the baselines and the system in turns; ratios are of medians of the same turns."""
    found: dict[str, Any] = {}
    loaded: dict[str, tuple[Backend, System]] = {}
    try:
        for name in settings.baselines:
            lacking = baselines.missing(name)
            if lacking:
                found[name] = {'absent': lacking}
                continue
            backend = baselines.load(name, artifact, len(drive.rig), settings.threads)
            loaded[name] = backend, System(artifact, backend, drive)
            loaded[name][1].fill()
        if not loaded:
            return found
        log(f'measuring {settings.beside} frames beside {", ".join(loaded)}')
        times = measure_beside({'this': system, **{name: pair[1] for name, pair in loaded.items()}},
                               settings.beside)
    finally:
        for backend, other in loaded.values():
            other.close()
            backend.close()
        gc.collect()
    mine = times['this'].latency()['p50']
    for name in loaded:
        row = times[name].latency()
        found[name] = {'latency_ms': row, 'stages_ms': _medians(times[name]),
                       'beside_ms': mine, 'ratio': round(row['p50'] / mine, 2)}
    return found


def _plans(settings: Settings, artifact: Artifact, drive: CameraDrive,
           log: Callable[[str], None]) -> dict[str, Any]:
    """Hold several candidate plans a set against one, in turns of the same systems."""
    count = settings.plans
    log(f'measuring {count} candidate plans beside one')
    candidates = [_swerve(0.05 * (i - count / 2)) for i in range(count)]
    pairs = {size: create_backend(settings.backend, artifact, len(drive.rig), size,
                                  settings.threads, settings.options) for size in (1, count)}
    systems = {size: System(artifact, backend, drive, size) for size, backend in pairs.items()}
    times = {size: Times() for size in pairs}
    try:
        for system in systems.values():
            system.fill()
        for _ in range(max(1, settings.beside // 5)):
            for size, system in systems.items():
                system.step(candidates[:size])
                system.measure(5, times[size], candidates[:size])
    finally:
        for size, backend in pairs.items():
            systems[size].close()
            backend.close()
    one, several = (times[size].latency()['p50'] for size in (1, count))
    return {'count': count, 'one_ms': one, 'all_ms': several, 'ratio': round(several / one, 2)}


def _swerve(yaw_rate_rps: float) -> EgoPlan:
    ego = EgoState(0, np.zeros(3), 8.0, yaw_rate_rps)
    return EgoPlan(constant_turn_rate_plan(ego).poses, PlanSource.GIVEN)
