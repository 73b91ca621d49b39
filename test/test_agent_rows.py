"""Agents as bytes: what stands in them is the message, built field by field."""

from dataclasses import replace

import numpy as np
import pytest
from bags import rich_forecast

from wm_ros.cdr import CdrWriter
from wm_ros.data.messages import bag_types
from wm_ros.messages import FrameOfReference, agents_cdr, agents_message
from wm_ros.types import CameraState

FRAMES = {'base_link': FrameOfReference(),
          'odom': FrameOfReference('odom', np.array([100.0, 50.0, 2.0]))}
PLAIN = rich_forecast()
FORECASTS = {
    'plain': PLAIN, 'nobody': replace(PLAIN, agents=()),
    'one agent': replace(PLAIN, agents=PLAIN.agents[:1]),
    'no odometry, invalid': rich_forecast(valid=False, odometry=False),
    'several reasons': replace(PLAIN, valid=False, agents=(), reasons=(
        'a', 'bb: m\u00fcde', '', 'camera back: missing')),
    'no cameras': replace(PLAIN, window=replace(PLAIN.window, cameras={})),
    'many cameras': replace(PLAIN, window=replace(
        PLAIN.window, cameras={'a' * i: CameraState(i % 7) for i in range(1, 8)})),
    'fewer modes and steps': replace(PLAIN, agents=tuple(replace(
        agent, trajectories_m=agent.trajectories_m[:3, :5],
        mode_probabilities=agent.mode_probabilities[:3],
        covariances_m2=agent.covariances_m2[:3, :5]) for agent in PLAIN.agents)),
    'no modes': replace(PLAIN, agents=tuple(replace(
        agent, trajectories_m=agent.trajectories_m[:0],
        mode_probabilities=agent.mode_probabilities[:0],
        covariances_m2=agent.covariances_m2[:0]) for agent in PLAIN.agents))}


def at_every_alignment(forecast):
    """Yield the forecast with a string of every length before its agents."""
    for length in range(9):
        yield replace(forecast, model_hash=forecast.model_hash + 'x' * length)


@pytest.mark.parametrize('frame', FRAMES)
@pytest.mark.parametrize('name', FORECASTS)
def test_bytes_are_those_of_the_message(name, frame):
    types = bag_types()
    for forecast in at_every_alignment(FORECASTS[name]):
        built = agents_message(types, forecast, FRAMES[frame], 'odom_of_a_robot')
        assert agents_cdr(types, forecast, FRAMES[frame], 'odom_of_a_robot') == bytes(
            types.serialise(built))
        assert len(built.agents) == len(forecast.agents)


def test_agents_of_different_numbers_of_modes_are_refused():
    few = FORECASTS['fewer modes and steps']
    with pytest.raises(ValueError, match='same shape'):
        agents_cdr(bag_types(), replace(PLAIN, agents=(PLAIN.agents[0], few.agents[0])))


def test_other_encodings_are_not_written_on():
    with pytest.raises(ValueError, match=r"want it to begin with b'\\x00\\x01\\x00\\x00', got "
                                         r"b'\\x00\\x00\\x00\\x00'"):
        CdrWriter(bytes(12))
