"""A forecast as visualization_msgs/MarkerArray: boxes, labels and the likeliest paths, for RViz."""

from __future__ import annotations

from typing import Any

import numpy as np

from wm_ros.messages import FrameOfReference, MessageTypes
from wm_ros.types import AgentForecast, Forecast

#: RGB of each class in the order of `AGENT_CLASSES`.
COLOURS = (
    (0.20, 0.60, 1.00), (0.25, 0.45, 0.95), (0.55, 0.35, 0.90), (0.35, 0.30, 0.80),
    (1.00, 0.60, 0.10), (1.00, 0.80, 0.20), (1.00, 0.30, 0.30), (0.60, 0.85, 0.30))
#: Modes less likely than this are not drawn.
MIN_MODE_PROBABILITY = 0.1


def markers_message(types: MessageTypes, forecast: Forecast, frame: FrameOfReference) -> Any:
    """
    Return the MarkerArray of a forecast; its first marker removes those of the one before.

    An invalid forecast removes them and shows its reasons instead.
    """
    from visualization_msgs.msg import Marker, MarkerArray

    header = types.header(forecast.stamp_ns, frame.frame_id)
    markers = [Marker(header=header, action=Marker.DELETEALL)]
    if not forecast.valid:
        notice = _marker(types, header, 'invalid', 0, Marker.TEXT_VIEW_FACING, (1.0, 0.2, 0.2))
        notice.pose = types.pose(*frame.pose(np.zeros(3)))
        notice.pose.position.z = 3.0
        notice.scale.z = 1.0
        notice.text = 'invalid: ' + '; '.join(forecast.reasons)
        return MarkerArray(markers=[*markers, notice])
    for number, agent in enumerate(forecast.agents):
        markers.extend(_agent(types, header, frame, number, agent))
    return MarkerArray(markers=markers)


def _agent(types: MessageTypes, header: Any, frame: FrameOfReference, number: int,
           agent: AgentForecast) -> list[Any]:
    from visualization_msgs.msg import Marker

    colour = COLOURS[int(np.argmax(agent.class_probabilities))]
    length, width, height = (float(side) for side in agent.size_m)
    pose = types.pose(*frame.pose(agent.pose))
    box = _marker(types, header, 'agents', number, Marker.CUBE, colour, 0.4 + 0.5 * agent.score)
    box.pose = pose
    box.pose.position.z = height / 2
    box.scale = types.vector(length, width, height)
    label = _marker(types, header, 'labels', number, Marker.TEXT_VIEW_FACING, (1.0, 1.0, 1.0))
    label.pose = types.pose(*frame.pose(agent.pose))
    label.pose.position.z = height + 0.7
    label.scale.z = 0.7
    speed = float(np.hypot(*agent.velocity_mps))
    label.text = f'{agent.label} {agent.score:.2f} {speed:.0f} m/s'
    made = [box, label]
    modes = len(agent.mode_probabilities)
    for mode in range(modes):
        probability = float(agent.mode_probabilities[mode])
        if probability < MIN_MODE_PROBABILITY and mode != int(np.argmax(agent.mode_probabilities)):
            continue
        path = _marker(types, header, 'paths', number * modes + mode, Marker.LINE_STRIP, colour,
                       0.2 + 0.8 * probability)
        path.pose = types.pose(0.0, 0.0, 0.0)
        path.scale.x = 0.15
        points = np.concatenate([agent.pose[None, :2], agent.trajectories_m[mode]])
        path.points = [types.Point(x=float(x), y=float(y), z=0.2)
                       for x, y in frame.points(points)]
        made.append(path)
    return made


def _marker(types: MessageTypes, header: Any, namespace: str, number: int, kind: int,
            colour: tuple[float, float, float], alpha: float = 1.0) -> Any:
    from std_msgs.msg import ColorRGBA
    from visualization_msgs.msg import Marker

    red, green, blue = colour
    return Marker(header=header, ns=namespace, id=number, type=kind, action=Marker.ADD,
                  color=ColorRGBA(r=red, g=green, b=blue, a=float(min(alpha, 1.0))))
