"""Health without ROS: levels by time on the steady clock."""

from __future__ import annotations

import pytest

from wm_ros.ros.monitor import START_NS, CameraMonitor, Latencies, Level, Problem
from wm_ros.types import CameraState

MS = 1_000_000
PERIOD = 100 * MS


def camera(arrivals=(), **changes):
    found = CameraMonitor('front', since_ns=0, uncalibrated='')
    for at in arrivals:
        found.arrived(at)
    for name, value in changes.items():
        setattr(found, name, value)
    return found


@pytest.mark.parametrize(('found', 'now', 'level', 'text'), [
    (camera(), 1, Level.WARN, 'waiting for the first image'),
    (camera(), START_NS + 1, Level.ERROR, 'no image yet'),
    (camera([0, PERIOD]), 2 * PERIOD, Level.OK, 'ok'),
    # ERROR before two periods have passed since the last image.
    (camera([0, PERIOD]), PERIOD + 175 * MS, Level.OK, 'ok'),
    (camera([0, PERIOD]), PERIOD + 176 * MS, Level.ERROR, 'no image: more than 1.75 periods'),
    (camera([0], uncalibrated='no CameraInfo yet'), 1, Level.ERROR, 'no CameraInfo yet'),
    (camera([0], state=CameraState.BLACK), 1, Level.WARN, 'image is black'),
    (camera([0], state=CameraState.CORRUPT), 1, Level.ERROR, 'image is corrupt'),
    (camera([0], problem=Problem('bad', Level.WARN, 5)), 4, Level.WARN, 'bad'),
    (camera([0], problem=Problem('bad', Level.WARN, 5)), 5, Level.OK, 'ok'),
    # The gravest first, and of equally grave ones the problem, which says more.
    (camera([0], state=CameraState.MISSING, problem=Problem('late', Level.WARN, 5)), 4,
     Level.ERROR, 'image is missing'),
    (camera([0], state=CameraState.BLACK, problem=Problem('late', Level.WARN, 5)), 4,
     Level.WARN, 'late'),
    (camera([0], state=CameraState.CORRUPT, problem=Problem('no JPEG', Level.ERROR, 5)), 4,
     Level.ERROR, 'no JPEG'),
])
def test_levels(found, now, level, text):
    judged, message = found.judge(now, PERIOD)
    assert judged == level and message.startswith(text)


def test_rate_and_age():
    found = camera([i * PERIOD for i in range(31)])
    assert found.rate_hz(3_000 * MS) == pytest.approx(10.0)
    assert found.age_ms(3_050 * MS) == 50.0
    assert found.rate_hz(9_000 * MS) == 0.0
    assert camera().age_ms(1) is None


def test_latencies_are_those_since_the_last_report():
    latencies = Latencies()
    for value in range(1, 101):
        latencies.add(encode=float(value))
    assert latencies.take() == {'encode': (50.5, pytest.approx(95.05), 100.0)}
    assert latencies.take() == {}
