"""The node's bytes: read by rclpy they are the message, and the same as the replay's."""

from functools import partial

import pytest

pytest.importorskip('rclpy')

from rclpy.serialization import deserialize_message, serialize_message
from test_agent_rows import FORECASTS, FRAMES, at_every_alignment

from wm_ros.data.messages import bag_types
from wm_ros.messages import (
    agents_cdr,
    agents_message,
    flow_message,
    grid_message,
    occupancy_message,
)
from wm_ros.msg import AgentForecastArray
from wm_ros.ros.convert import message_types

each_forecast = pytest.mark.parametrize('name', FORECASTS)
each_frame = pytest.mark.parametrize('frame', FRAMES)


@each_frame
@each_forecast
def test_agents_as_bytes_are_the_message(name, frame):
    for forecast in at_every_alignment(FORECASTS[name]):
        data = agents_cdr(message_types(), forecast, FRAMES[frame])
        wire = serialize_message(agents_message(message_types(), forecast, FRAMES[frame]))
        assert len(data) == len(wire)       # what lies between fields may be anything
        read = deserialize_message(data, AgentForecastArray)
        assert read == deserialize_message(wire, AgentForecastArray)
        assert len(read.agents) == len(forecast.agents)


@each_frame
@each_forecast
def test_node_and_replay_say_the_same(name, frame):
    forecast, where = FORECASTS[name], FRAMES[frame]
    assert (deserialize_message(agents_cdr(bag_types(), forecast, where), AgentForecastArray)
            == deserialize_message(agents_cdr(message_types(), forecast, where),
                                   AgentForecastArray))
    for build in (occupancy_message, flow_message, partial(grid_message, horizon=False),
                  partial(grid_message, horizon=True)):
        mine = build(message_types(), forecast, frame=where)
        theirs = bag_types().serialise(build(bag_types(), forecast, frame=where))
        assert deserialize_message(bytes(theirs), type(mine)) == deserialize_message(
            serialize_message(mine), type(mine))
