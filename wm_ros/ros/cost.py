"""
What the node's own code costs, beside the model: `python -m wm_ros.ros.cost`.

Processor time of the executor's thread from serialised messages to a set with its odometry, and of
building and serialising the messages of a forecast. The model is left out: nothing is decoded,
inferred or sent. A set is of six cameras. (In a checkout set PYTHONSAFEPATH=1: the messages are in
the installed package.)
"""

from __future__ import annotations

import argparse
import array
import json
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from wm_ros.messages import (
    BASE_LINK,
    agents_cdr,
    flow_message,
    grid_message,
    occupancy_message,
)
from wm_ros.ros.calibration import Calibration
from wm_ros.ros.convert import message_types
from wm_ros.ros.markers import markers_message
from wm_ros.ros.parameters import settings_from
from wm_ros.ros.pipeline import Pipeline
from wm_ros.sim.rigs import rig as named_rig
from wm_ros.types import (
    AGENT_CLASSES,
    HORIZON_STEPS,
    MODES,
    OUTPUT_GRID,
    WINDOW_FRAMES,
    AgentForecast,
    CameraRig,
    CameraState,
    EgoPlan,
    Forecast,
    PlanSource,
    WindowInfo,
)

NS = 1_000_000_000
PERIOD_NS = NS // 10
#: Of the messages: about what a JPEG of 1600x900 holds, and road users in a busy street.
JPEG_BYTES, AGENTS = 200_000, 20


class Idle:
    """An engine that takes everything and does nothing."""

    def reset(self, reason: str) -> None: ...

    def change(self, settings: Any) -> None: ...

    def calibrate(self, rig: CameraRig, problems: dict[str, str]) -> None: ...

    def prepare(self, frame: Any) -> None: ...

    def encode(self, frames: Any, ego: Any) -> None: ...

    def forecast(self, plan: Any = None) -> None: ...


def input_costs(rounds: int) -> dict[str, list[float]]:
    """Return milliseconds of taking pictures, calibration and odometry, or of reading them."""
    from nav_msgs.msg import Odometry
    from rclpy.serialization import deserialize_message, serialize_message
    from sensor_msgs.msg import CameraInfo, CompressedImage, Image

    rig = named_rig('surround')
    pipeline = Pipeline(settings_from({}), Calibration(rig, 'required', 'rig', None), Idle(),
                        time.monotonic_ns, time.time_ns, lambda forecast: forecast)
    picture = array.array('B', bytes(JPEG_BYTES))

    def stamped(msg: Any, i: int) -> bytes:
        msg.header.stamp.sec, msg.header.stamp.nanosec = divmod(NS + i * PERIOD_NS, NS)
        return serialize_message(msg)

    def taking(kind: type, data: bytes, take: Callable[..., None], *first: Any) -> float:
        begin = time.thread_time_ns()
        take(*first, deserialize_message(data, kind))
        return (time.thread_time_ns() - begin) / 1e6

    raw = serialize_message(Image(width=1600, height=900, step=4800, encoding='rgb8',
                                  data=array.array('B', bytes(1600 * 900 * 3))))
    costs: dict[str, list[float]] = {name: [] for name in (
        'six JPEG messages', 'six CameraInfo', 'odometry', 'one JPEG, read alone',
        'one raw image, read alone')}
    pipeline.start()
    try:
        for i in range(rounds):
            costs['six CameraInfo'].append(sum(
                taking(CameraInfo, stamped(info_of(camera), i), pipeline.camera_info, camera.name)
                for camera in rig.cameras))
            costs['odometry'].append(taking(
                Odometry, stamped(Odometry(), i), lambda msg: pipeline.odometry([msg])))
            costs['six JPEG messages'].append(sum(
                taking(CompressedImage, stamped(CompressedImage(format='jpeg', data=picture), i),
                       pipeline.compressed, name) for name in rig.names))
            costs['one JPEG, read alone'].append(taking(
                CompressedImage, stamped(CompressedImage(data=picture), i), lambda msg: None))
            costs['one raw image, read alone'].append(taking(Image, raw, lambda msg: None))
    finally:
        pipeline.stop()
    window = next(status for status in pipeline.statuses() if status.name == 'window')
    used = next(int(pair.value) for pair in window.values if pair.key == 'sets_used')
    if used != rounds:
        raise RuntimeError(f'{used} sets were formed of {rounds}')
    return costs


def info_of(camera: Any) -> Any:
    """Return the CameraInfo of a camera."""
    from sensor_msgs.msg import CameraInfo

    return CameraInfo(width=camera.width, height=camera.height, distortion_model='plumb_bob',
                      d=list(camera.distortion) or [0.0] * 5, k=np.asarray(camera.k).reshape(-1))


def output_costs(rounds: int) -> dict[str, list[float]]:
    """Return milliseconds of building and serialising each message of a forecast."""
    types, forecast = message_types(), a_forecast()
    build = {
        '~/agents': lambda: agents_cdr(types, forecast),
        '~/occupancy': lambda: types.serialise(occupancy_message(types, forecast)),
        '~/flow': lambda: types.serialise(flow_message(types, forecast)),
        'both grids': lambda: [types.serialise(grid_message(types, forecast, horizon))
                               for horizon in (False, True)],
        '~/markers': lambda: markers_message(forecast, BASE_LINK)}
    costs: dict[str, list[float]] = {name: [] for name in build}
    for _ in range(rounds):
        for name, make in build.items():
            begin = time.thread_time_ns()
            make()
            costs[name].append((time.thread_time_ns() - begin) / 1e6)
    return costs


def a_forecast() -> Forecast:
    """Return a valid forecast of so many road users, all of it observed."""
    rng = np.random.default_rng(0)
    steps = HORIZON_STEPS + 1
    agents = tuple(AgentForecast(
        bytes([i] * 16), 0.8, np.full(len(AGENT_CLASSES), 1 / len(AGENT_CLASSES)),
        rng.normal(0, 10, 3), np.eye(3), rng.normal(0, 3, 2), np.eye(2), np.array([4.5, 1.9, 1.5]),
        rng.normal(0, 10, (MODES, HORIZON_STEPS, 2)), np.full(MODES, 1 / MODES),
        np.tile(np.eye(2), (MODES, HORIZON_STEPS, 1, 1))) for i in range(AGENTS))
    layers = rng.integers(0, 255, (steps + 1, *OUTPUT_GRID.shape), dtype=np.uint8)
    cameras = dict.fromkeys(named_rig('surround').names, CameraState.OK)
    window = WindowInfo(WINDOW_FRAMES, 0, 0, 1.0, PERIOD_NS, 15 * PERIOD_NS, True, cameras)
    plan = EgoPlan(np.zeros((HORIZON_STEPS, 3)), PlanSource.GIVEN)
    return Forecast(
        NS, True, (), window, plan, np.zeros(3), agents, layers[1:], layers[0],
        rng.normal(0, 1, (steps, 2, *OUTPUT_GRID.shape)).astype(np.float32), layers[:3])


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog='python -m wm_ros.ros.cost', description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--rounds', type=int, default=100, help='camera sets (default: 100)')
    parser.add_argument('--json', action='store_true')
    options = parser.parse_args(arguments)
    if options.rounds < 1:
        parser.error('want --rounds of at least 1')
    costs = {name: {f'p{q}': round(float(np.percentile(values, q)), 3) for q in (50, 95)}
             for name, values in (input_costs(options.rounds)
                                  | output_costs(options.rounds)).items()}
    if options.json:
        print(json.dumps(costs))
        return 0
    print(f'{"ms of processor":<28}{"p50":>8}{"p95":>8}')
    for name, cost in costs.items():
        print(f'{name:<28}{cost["p50"]:>8.3f}{cost["p95"]:>8.3f}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
