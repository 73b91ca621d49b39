"""A node on real DDS with the tiny artifact, and a drive for it: the fixtures of its tests."""

from __future__ import annotations

import pytest
from fakes import make_fake_artifact, make_rig

pytest.importorskip('rclpy')

from ros_drive import Drive, Ros, parameters, write_rig

from wm_ros.ros.node import WorldModelNode

#: The longest that parameters allow: no set is to be given up because the machine is busy. What
#: happens at the limits, test_ros_pipeline.py holds by a clock of its own.
PATIENT = {'set_deadline_ms': 2000.0, 'odometry_wait_ms': 500.0, 'diagnostics_period_s': 0.2}


@pytest.fixture(scope='module')
def artifact(tmp_path_factory):
    return str(make_fake_artifact(tmp_path_factory.mktemp('artifact')))


@pytest.fixture
def world(tmp_path, artifact):
    """Yield a function that starts a node and its drive, each in a context of its own."""
    rig = make_rig(2)
    with Ros() as inside, Ros() as outside:
        def start(outputs=('agents',), connect=True, **values):
            values = {'autostart': True, 'artifact': artifact, 'threads': 1,
                      'rig_file': write_rig(rig, tmp_path), **PATIENT, **values}
            node = inside.add(WorldModelNode(
                context=inside.context, parameter_overrides=parameters(**values)))
            drive = Drive(outside, rig, outputs=outputs)
            if connect:
                drive.wait_connected(node)
                drive.calibrate()
            return node, drive
        yield start
