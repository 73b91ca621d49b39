"""A bag played to the node over DDS and the replay of that bag: the same forecasts."""

from __future__ import annotations

from collections import defaultdict

import pytest
from bags import differences
from fakes import make_fake_artifact

pytest.importorskip('rclpy')

from rclpy.node import Node
from rclpy.qos import QoSProfile
from ros_drive import OUTPUTS, Ros, parameters, wait_for, write_rig

from wm_ros.cli.main import main
from wm_ros.data.bag import BagReader
from wm_ros.data.sim_bag import DriveSettings, write_drive
from wm_ros.messages import stamp_ns
from wm_ros.ros.node import WorldModelNode
from wm_ros.ros.raw import message_class

SETS = 20
TOPICS = {f'/world_model/{name}': kind for name, kind in OUTPUTS.items()
          if name in ('agents', 'occupancy', 'flow', 'occupancy_grid')}


def played(reader, folder, artifact):
    """Return the messages of a live node as CDR bytes, by topic and in order of arrival."""
    got = defaultdict(list)
    with Ros() as inside, Ros() as outside:
        node = inside.add(WorldModelNode(context=inside.context, parameter_overrides=parameters(
            autostart=True, artifact=str(artifact), threads=1, odometry_wait_ms=200.0,
            set_deadline_ms=500.0, rig_file=write_rig(reader.rig(), folder))))
        listener = outside.add(Node('listener', context=outside.context))
        for topic, kind in TOPICS.items():
            listener.create_subscription(kind, topic, got[topic].append,
                                         QoSProfile(depth=100), raw=True)
        player = outside.add(Node('player', context=outside.context))
        publishers = {topic.name: player.create_publisher(
            message_class(topic.type_name), topic.name, 10) for topic in reader.topics.values()
            if not topic.name.startswith(('/truth/', '/tf_static'))}
        wait_for(lambda: node.pipeline and node.pipeline.active and all(
            publisher.get_subscription_count() for publisher in publishers.values()) and all(
            listener.count_publishers(topic) for topic in TOPICS), 30.0, 'the node')
        agents, sets, newest = got['/world_model/agents'], 0, 0
        for topic, _, time_ns, data in reader.raw(publishers):
            if topic.endswith('compressed') and time_ns > newest:
                # Each set waits for the forecast of the one before: a busy machine sheds nothing.
                wait_for(lambda: len(agents) >= sets, 20.0, 'the forecast before')  # noqa: B023
                sets, newest = sets + 1, time_ns
            publishers[topic].publish(bytes(data))
        wait_for(lambda: len(agents) == SETS, 20.0, 'the last forecast')
        wait_for(lambda: all(len(got[topic]) == SETS for topic in list(TOPICS)[:3]), 10.0,
                 'the layers')
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
