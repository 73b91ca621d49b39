"""The node on real DDS with the tiny artifact: what it publishes, and how it lives."""

from __future__ import annotations

import pytest
from fakes import make_fake_artifact, make_rig

pytest.importorskip('rclpy')

from rclpy.lifecycle import TransitionCallbackReturn
from ros_drive import Drive, Ros, parameters, write_rig

from wm_ros.ros.node import WorldModelNode

SUCCESS, FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE


@pytest.fixture(scope='module')
def artifact(tmp_path_factory):
    return str(make_fake_artifact(tmp_path_factory.mktemp('artifact')))


@pytest.fixture
def world(tmp_path, artifact):
    """Yield a function that starts a node (autostart) and its drive."""
    rig = make_rig(2)
    with Ros() as inside, Ros() as outside:
        def start(outputs=('agents',), rig=rig, **values):
            values = {'autostart': True, 'artifact': artifact, 'threads': 1,
                      'rig_file': write_rig(rig, tmp_path), **values}
            node = inside.add(WorldModelNode(
                context=inside.context, parameter_overrides=parameters(**values)))
            drive = Drive(outside, rig, outputs=outputs)
            return node, drive
        yield start


def test_forecasts_every_set_with_all_outputs(world):
    outputs = ('agents', 'occupancy', 'flow', 'occupancy_grid', 'risk_grid', 'markers')
    _, drive = world(outputs)
    drive.wait_connected()
    drive.send_info()
    stamps = drive.run(20)
    last = drive.forecast(stamps[-1])
    assert drive.stamps() == stamps
    assert last.info.valid, last.info.invalid_reasons
    assert last.header.frame_id == 'base_link'
    for name in outputs[1:]:
        if name != 'markers':
            drive.forecast(stamps[-1], name)
    assert drive.got['markers']
    assert [bool(msg.info.valid) for msg in drive.got['agents'][:14]] == [False] * 13 + [True]
