"""What goes out on /diagnostics: a status for each camera, for node, window and inference."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from wm_ros.ros.monitor import CameraMonitor, Level
from wm_ros.ros.worker import Counters
from wm_ros.types import WINDOW_FRAMES, Forecast


@dataclass
class NodeHealth:
    """What the node as a whole has to say; `error` is the cause of the last failure."""

    state: str = 'unconfigured'
    error: str = ''
    warnings: dict[str, str] = field(default_factory=dict)
    facts: dict[str, str] = field(default_factory=dict)


def diagnostics_message(stamp: Any, node: str, statuses: Iterable[Any]) -> Any:
    """Return a diagnostic_msgs/DiagnosticArray; names of statuses get the node's before them."""
    from diagnostic_msgs.msg import DiagnosticArray

    found = list(statuses)
    for entry in found:
        entry.name = f'{node.lstrip("/")}: {entry.name}'
        entry.hardware_id = node
    msg = DiagnosticArray(status=found)
    msg.header.stamp = stamp
    return msg


def status(name: str, level: Level, message: str, values: Mapping[str, Any]) -> Any:
    """Return a diagnostic_msgs/DiagnosticStatus; values become text."""
    from diagnostic_msgs.msg import DiagnosticStatus, KeyValue

    return DiagnosticStatus(
        name=name, level=bytes([level]), message=message,
        values=[KeyValue(key=key, value=_text(value)) for key, value in values.items()])


def node_status(health: NodeHealth) -> Any:
    """Return the status of the node: ERROR with its cause, WARN with all warnings."""
    if health.error:
        level, message = Level.ERROR, health.error
    elif health.warnings:
        level, message = Level.WARN, '; '.join(health.warnings.values())
    else:
        level, message = Level.OK, health.state
    return status('node', level, message, {'state': health.state, **health.facts})


def camera_status(camera: CameraMonitor, now_ns: int, period_ns: int) -> Any:
    """Return the status of one camera."""
    level, message = camera.judge(now_ns, period_ns)
    age = camera.age_ms(now_ns)
    return status(f'camera {camera.name}', level, message, {
        'rate_hz': camera.rate_hz(now_ns), 'age_ms': 'never' if age is None else age,
        'state': camera.state.name, 'calibration': camera.uncalibrated or 'ok',
        'last_problem': camera.problem.text, **dict(sorted(camera.counts.items()))})


def window_status(forecast: Forecast | None, now_ns: int, made_ns: int, period_ns: int,
                  facts: Mapping[str, Any]) -> Any:
    """Return the status of the window by the newest forecast; `made_ns` is when it was made."""
    if forecast is None:
        return status('window', Level.WARN, 'no forecast yet', facts)
    window = forecast.window
    age_ns = now_ns - made_ns
    if age_ns > 3 * period_ns:
        level, message = Level.ERROR, 'no new forecast for more than 3 periods'
    elif forecast.valid:
        level, message = Level.OK, 'valid'
    else:
        level, message = Level.WARN, 'invalid: ' + '; '.join(forecast.reasons)
    return status('window', level, message, {
        'valid': forecast.valid, 'frames_used': f'{window.frames_used} of {WINDOW_FRAMES}',
        'frames_missing': window.frames_missing, 'frames_partial': window.frames_partial,
        'max_gap_periods': window.max_gap_periods, 'period_ms': window.period_ns / 1e6,
        'span_ms': window.span_ns / 1e6, 'odometry': window.odometry,
        'ego_plan': forecast.ego_plan.source.name.lower(), 'agents': len(forecast.agents),
        'forecast_age_ms': age_ns / 1e6, **facts})


def inference_status(counters: Counters, latencies: Mapping[str, tuple[float, float, float]],
                     shed: int, failures: int, facts: Mapping[str, Any]) -> Any:
    """
    Return the status of the inference thread.

    `latencies` are p50, p95 and maximum in milliseconds by stage over the period that is
    reported; `shed` and `failures` count what happened in it.
    """
    if failures:
        level, message = Level.ERROR, f'{failures} sets failed in the last period'
    elif shed:
        level, message = Level.WARN, f'overload: {shed} shed in the last period'
    else:
        level, message = Level.OK, 'ok'
    values: dict[str, Any] = dict(facts)
    values.update(
        encoded=counters.encoded, forecasts=counters.forecasts, failures=counters.failures,
        shed_forecasts=counters.shed_forecasts, shed_encodes=counters.shed_encodes)
    for stage, (p50, p95, worst) in sorted(latencies.items()):
        values[f'{stage}_ms p50/p95/max'] = f'{p50:.2f} / {p95:.2f} / {worst:.2f}'
    return status('inference', level, message, values)


def _text(value: Any) -> str:
    return f'{value:.2f}' if isinstance(value, float) else str(value)
