"""
The agents of a forecast as rows of numbers, in the order and the types of wm_ros/AgentForecast.

A row is what `agents_message` makes objects of, and what `agents_cdr` puts on the wire as it lies:
both say the same because there is one place where it is worked out.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from wm_ros.types import AGENT_CLASSES, HORIZON_STEPS, MODES, AgentForecast

if TYPE_CHECKING:
    from wm_ros.messages import FrameOfReference

#: Bytes of a row before the first float64, which CDR aligns to eight bytes; a row begins at four.
BEFORE_POSE = 60


@cache
def row_type(modes: int, steps: int) -> np.dtype:
    """Return the type of the rows of agents of so many modes of so many steps, as CDR has them."""
    mode = [('probability', '<f4'),
            ('waypoint_numbers', '<u4'), ('waypoints', '<f4', (steps, 2)),
            ('covariance_numbers', '<u4'), ('covariances', '<f4', (steps, 3))]
    return np.dtype([
        ('uuid', 'u1', 16), ('classification', 'u1'), ('padding', 'u1', 3),
        ('class_probability', '<f4'), ('class_probabilities', '<f4', len(AGENT_CLASSES)),
        ('existence_probability', '<f4'),
        ('position', '<f8', 3), ('orientation', '<f8', 4), ('pose_covariance', '<f8', (6, 6)),
        ('linear', '<f8', 3), ('angular', '<f8', 3), ('twist_covariance', '<f8', (6, 6)),
        ('size', '<f8', 3), ('mode_count', '<u4'), ('modes', mode, modes)])


def agent_rows(agents: Sequence[AgentForecast], frame: FrameOfReference) -> np.ndarray:
    """
    Return the rows (A,) of agents in a frame, the modes of each the most probable first.

    Raises ValueError where the agents differ in their numbers of modes and steps.
    """
    if not agents:
        return np.zeros(0, row_type(MODES, HORIZON_STEPS))
    paths = np.stack([agent.trajectories_m for agent in agents])             # (A, K, T, 2)
    count, modes, steps, _ = paths.shape
    rows = np.zeros(count, row_type(modes, steps))

    def column(name: str) -> np.ndarray:
        return np.array([getattr(agent, name) for agent in agents], dtype=np.float64)

    classes = np.stack([agent.class_probabilities for agent in agents])
    best = classes.argmax(axis=-1)
    rows['uuid'] = np.frombuffer(b''.join(agent.track_id for agent in agents),
                                 np.uint8).reshape(count, 16)
    rows['classification'] = best + 1
    rows['class_probability'] = classes[np.arange(count), best]
    rows['class_probabilities'] = classes
    rows['existence_probability'] = [agent.score for agent in agents]

    pose = frame.pose(column('pose'))
    rows['position'][:, :2] = pose[:, :2]
    rows['orientation'][:, 2] = np.sin(pose[:, 2] / 2)
    rows['orientation'][:, 3] = np.cos(pose[:, 2] / 2)
    rows['pose_covariance'][:, _PLANAR[:, None], _PLANAR] = frame.pose_covariances(
        column('pose_covariance'))
    rows['linear'][:, :2] = frame.vectors(column('velocity_mps'))
    rows['twist_covariance'][:, :2, :2] = frame.covariances(column('twist_covariance'))
    rows['size'] = column('size_m')

    probability = np.stack([agent.mode_probabilities for agent in agents])
    order = np.argsort(-probability, axis=-1, kind='stable')
    each = np.arange(count)[:, None]
    spread = frame.covariances(np.stack([agent.covariances_m2 for agent in agents])[each, order])
    out = rows['modes']
    rows['mode_count'] = modes
    out['probability'] = probability[each, order]
    out['waypoint_numbers'], out['covariance_numbers'] = 2 * steps, 3 * steps
    out['waypoints'] = frame.points(paths[each, order])
    out['covariances'] = spread[..., (0, 0, 1), (0, 1, 1)]
    return rows


#: x, y and yaw of the six of a geometry_msgs/PoseWithCovariance.
_PLANAR = np.array([0, 1, 5])
