"""A bag played to the node over DDS and the replay of that bag: the same forecasts."""

from __future__ import annotations

import time
from collections import defaultdict

import pytest
from bags import differences
from fakes import make_fake_artifact

pytest.importorskip('rclpy')

from rclpy.node import Node
from rclpy.qos import QoSProfile
from ros_drive import (
    OUTPUTS,
    PATIENCE_S,
    Ros,
    parameters,
    wait_for,
    wait_matched,
    write_rig,
)

from wm_ros.cli.main import main
from wm_ros.data.bag import BagReader
from wm_ros.data.sim_bag import DriveSettings, write_drive
from wm_ros.messages import stamp_ns
from wm_ros.ros.node import WorldModelNode
from wm_ros.ros.raw import header_stamp_ns, message_class

SETS = 20
TOPICS = {f'/world_model/{name}': kind for name, kind in OUTPUTS.items()
          if name in ('agents', 'occupancy', 'flow', 'occupancy_grid')}


#: What is lost on the way is no matter here: odometry is to arrive, however busy the machine is.
RELIABLE = {f'qos_overrides./odometry.subscription.{name}': value for name, value in (
    ('reliability', 'reliable'), ('history', 'keep_last'), ('depth', 500))}


def played(reader, folder, artifact, rate=None):
    """
    Return the messages of a live node as CDR bytes, by topic and in order of arrival.

    At a `rate`, sets come when they are due, and some may be shed; without one, each waits for the
    forecast of the one before.
    """
    got = defaultdict(list)
    with Ros() as inside, Ros() as outside:
        node = inside.add(WorldModelNode(context=inside.context, parameter_overrides=parameters(
            autostart=True, artifact=str(artifact), threads=1, odometry_wait_ms=500.0,
            set_deadline_ms=2000.0, rig_file=write_rig(reader.rig(), folder), **RELIABLE)))
        listener = outside.add(Node('listener', context=outside.context))
        for topic, kind in TOPICS.items():
            listener.create_subscription(kind, topic, got[topic].append,
                                         QoSProfile(depth=100), raw=True)
        player = outside.add(Node('player', context=outside.context))
        publishers = {topic.name: player.create_publisher(
            message_class(topic.type_name), topic.name, 500) for topic in reader.topics.values()
            if not topic.name.startswith(('/truth/', '/tf_static'))}
        wait_for(lambda: node.health.state == 'active', PATIENCE_S, 'the node')
        wait_matched(node, listener, player)
        agents, sets, newest = got['/world_model/agents'], 0, 0
        begin, first_ns = time.monotonic(), reader.start_ns
        for topic, _, time_ns, data in reader.raw(publishers):
            if rate:
                time.sleep(max(0.0, begin + (time_ns - first_ns) / 1e9 / rate - time.monotonic()))
            elif topic.endswith('compressed') and time_ns > newest:
                # A busy machine sheds nothing like this.
                wait_for(lambda: len(agents) >= sets, PATIENCE_S, 'the forecast before')  # noqa: B023
                sets = sets + 1
            if topic.endswith('compressed'):
                newest = time_ns
            publishers[topic].publish(bytes(data))
        if rate:
            wait_for(lambda: agents and header_stamp_ns(agents[-1]) == newest, PATIENCE_S,
                     'the last forecast')
        else:
            wait_for(lambda: len(agents) == SETS, PATIENCE_S, 'the last forecast')
        wait_for(lambda: all(len(got[topic]) == len(agents) for topic in list(TOPICS)[:3]),
                 PATIENCE_S, 'the layers')
    return got


def test_live_and_replay_give_the_same_messages(tmp_path):
    artifact = make_fake_artifact(tmp_path / 'artifact')
    write_drive(tmp_path / 'in', DriveSettings(seed=11, seconds=SETS / 10, width=320), workers=1)
    with BagReader(tmp_path / 'in') as reader:
        live = played(reader, tmp_path, artifact)
    assert main(['replay', str(tmp_path / 'in'), '--out', str(tmp_path / 'out'), '--threads', '1',
                 '--artifact', str(artifact), '--rig', str(tmp_path / 'rig.yaml')]) == 0
    valid = 0
    with BagReader(tmp_path / 'out') as reader:
        replayed = {(topic, stamp_ns(msg.header)): msg for topic, _, msg in reader.read(TOPICS)}
        for topic, kind in TOPICS.items():
            name = f'wm_ros/msg/{kind.__name__}' if topic[-4:] != 'grid' else (
                'nav_msgs/msg/OccupancyGrid')
            messages = [reader.decode(topic, name, 0, data) for data in live[topic]]
            stamps = [stamp_ns(msg.header) for msg in messages]
            assert stamps == [stamp for found, stamp in replayed if found == topic]
            for stamp, msg in zip(stamps, messages, strict=True):
                assert differences(msg, replayed[topic, stamp]) == []
            valid += sum(msg.info.valid and len(msg.agents) > 0 for msg in messages
                         if topic.endswith('/agents'))
    assert valid == SETS - 13


def test_forecasts_played_at_any_rate_are_those_of_the_replay(tmp_path):
    """At five times real time some sets may be shed: windows that are whole are the same."""
    artifact = make_fake_artifact(tmp_path / 'artifact')
    write_drive(tmp_path / 'in', DriveSettings(seed=11, seconds=1.8, rig='front', width=320),
                workers=1)
    replayed, compared = None, {}
    for rate in (5.0, 1.0, 0.5):
        with BagReader(tmp_path / 'in') as reader:
            live = played(reader, tmp_path, artifact, rate)
        if replayed is None:
            assert main(['replay', str(tmp_path / 'in'), '--out', str(tmp_path / 'out'),
                         '--artifact', str(artifact), '--rig', str(tmp_path / 'rig.yaml')]) == 0
            with BagReader(tmp_path / 'out') as reader:
                replayed = {(topic, stamp_ns(msg.header)): msg
                            for topic, _, msg in reader.read(TOPICS)}
        compared[rate] = 0
        with BagReader(tmp_path / 'out') as reader:
            for topic in ('/world_model/agents', '/world_model/occupancy', '/world_model/flow'):
                for data in live[topic]:
                    msg = reader.decode(topic, f'wm_ros/msg/{TOPICS[topic].__name__}', 0, data)
                    other = replayed[topic, stamp_ns(msg.header)]
                    if differences(msg.info.window, other.info.window):
                        continue    # a set of this window was shed
                    if len(live['/world_model/agents']) < 18 and topic.endswith('agents'):
                        for agent, wanted in zip(msg.agents, other.agents, strict=True):
                            agent.uuid = wanted.uuid    # a forecast was shed: ids go on apart
                    assert differences(msg, other) == []
                    compared[rate] += msg.info.valid
    # The newest set is always forecast; on a busy machine a window of it may lack a few.
    assert sum(compared.values()) > 0, compared
