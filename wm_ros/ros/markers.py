"""A forecast as visualization_msgs/MarkerArray: boxes, labels and the likeliest paths, for RViz."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from wm_ros.cdr import CdrWriter, fields
from wm_ros.colours import CLASSES, rgb
from wm_ros.geometry import quaternion_from_yaw
from wm_ros.messages import FrameOfReference
from wm_ros.types import AgentForecast, Forecast

#: RGB of each class, 0 to 1, in the order of `AGENT_CLASSES`.
COLOURS = tuple(tuple(value / 255 for value in rgb(code)) for code in CLASSES['dark'])
#: Modes less likely than this are not drawn.
MIN_MODE_PROBABILITY = 0.1
#: Height of the paths above ground in metres, and how wide they are drawn.
PATH_HEIGHT_M, PATH_WIDTH_M = 0.2, 0.15

# visualization_msgs/Marker: kinds and actions.
CUBE, LINE_STRIP, TEXT = 1, 4, 9
ADD, DELETE_ALL = 0, 3
_WHITE, _RED = (1.0, 1.0, 1.0), (1.0, 0.2, 0.2)
_NO_POINTS = np.zeros((0, 3))
_NO_TURN = quaternion_from_yaw(0.0)


class _Mark(NamedTuple):
    """What this node sets of a Marker; `pose` is x, y, z, yaw."""

    namespace: str = ''
    number: int = 0
    kind: int = 0
    action: int = ADD
    pose: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    scale: tuple[float, float, float] = (0.0, 0.0, 0.0)
    colour: tuple[float, float, float] = (0.0, 0.0, 0.0)
    alpha: float = 0.0
    points: np.ndarray | None = None    # (length, 3)
    text: str = ''


def markers_message(forecast: Forecast, frame: FrameOfReference) -> bytes:
    """
    Return the MarkerArray of a forecast, serialised; its first marker removes those before.

    An invalid forecast removes them and shows its reasons instead. As bytes, because rclpy takes
    longer to build and convert two hundred markers than everything else takes to publish.
    """
    marks = [_Mark(action=DELETE_ALL)]
    if forecast.valid:
        for number, agent in enumerate(forecast.agents):
            marks += _agent(frame, number, agent)
    else:
        x, y, yaw = (float(value) for value in frame.pose(np.zeros(3)))
        marks.append(_Mark('invalid', 0, TEXT, pose=(x, y, 3.0, yaw), scale=(0.0, 0.0, 1.0),
                           colour=_RED, alpha=1.0,
                           text='invalid: ' + '; '.join(forecast.reasons)))
    out = CdrWriter()
    out.pack('I', len(marks))
    for mark in marks:
        _write(out, mark, forecast.stamp_ns, frame.frame_id)
    return out.bytes()


def _agent(frame: FrameOfReference, number: int, agent: AgentForecast) -> list[_Mark]:
    colour = COLOURS[int(np.argmax(agent.class_probabilities))]
    length, width, height = (float(side) for side in agent.size_m)
    x, y, yaw = (float(value) for value in frame.pose(agent.pose))
    speed = float(np.hypot(*agent.velocity_mps))
    marks = [
        _Mark('agents', number, CUBE, pose=(x, y, height / 2, yaw), scale=(length, width, height),
              colour=colour, alpha=min(0.4 + 0.5 * float(agent.score), 1.0)),
        _Mark('labels', number, TEXT, pose=(x, y, height + 0.7, yaw), scale=(0.0, 0.0, 0.7),
              colour=_WHITE, alpha=1.0,
              text=f'{agent.label} {agent.score:.2f} {speed:.0f} m/s')]
    modes, steps = agent.trajectories_m.shape[:2]
    points = np.full((modes, steps + 1, 3), PATH_HEIGHT_M)
    points[:, 0, :2] = frame.points(agent.pose[:2])
    points[:, 1:, :2] = frame.points(agent.trajectories_m)
    likely = agent.mode_probabilities >= MIN_MODE_PROBABILITY
    likely[np.argmax(agent.mode_probabilities)] = True
    return marks + [
        _Mark('paths', number * modes + int(mode), LINE_STRIP, scale=(PATH_WIDTH_M, 0.0, 0.0),
              colour=colour, alpha=min(0.2 + 0.8 * float(agent.mode_probabilities[mode]), 1.0),
              points=points[mode]) for mode in np.flatnonzero(likely)]


def _write(out: CdrWriter, mark: _Mark, stamp_ns: int, frame_id: str) -> None:
    """Append a visualization_msgs/Marker; what is the same in many is written once."""
    out.put(_header(stamp_ns, frame_id, mark.namespace), 4)
    out.pack('iii', mark.number, mark.kind, mark.action)
    x, y, z, yaw = mark.pose
    out.pack('7d3d4fiI?', x, y, z, *(quaternion_from_yaw(yaw) if yaw else _NO_TURN), *mark.scale,
             *mark.colour, mark.alpha, 0, 0, False)     # lifetime: for ever; not frame_locked
    out.sequence(_NO_POINTS if mark.points is None else mark.points)
    out.put(_BEFORE_TEXT, 4)
    out.string(mark.text)
    out.put(_AFTER_TEXT, 4)


@lru_cache(maxsize=8)
def _header(stamp_ns: int, frame_id: str, namespace: str) -> bytes:
    def write(out: CdrWriter) -> None:
        out.pack('iI', stamp_ns // 1_000_000_000, stamp_ns % 1_000_000_000)
        out.string(frame_id)
        out.string(namespace)
    return fields(write)


def _before_text(out: CdrWriter) -> None:
    out.pack('I', 0)                        # colors: one for all points
    out.string('')                          # texture_resource
    out.pack('iI', 0, 0)                    # texture: header,
    out.string('')
    out.string('')                          # format,
    out.pack('I', 0)                        # data
    out.pack('I', 0)                        # uv_coordinates


def _after_text(out: CdrWriter) -> None:
    out.string('')                          # mesh_resource
    out.string('')                          # mesh_file: filename,
    out.pack('I', 0)                        # data
    out.pack('?', False)                    # mesh_use_embedded_materials


_BEFORE_TEXT, _AFTER_TEXT = fields(_before_text), fields(_after_text)
