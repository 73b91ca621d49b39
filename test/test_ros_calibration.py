"""Where calibration comes from: CameraInfo or the rig file, TF or the rig file."""

from __future__ import annotations

import json

import numpy as np
import pytest
import yaml
from fakes import make_rig

pytest.importorskip('rclpy')

from ros_drive import info_of

from wm_ros.ros.calibration import Calibration, tf_lookup
from wm_ros.ros.node import WorldModelNode
from wm_ros.share import share_path

RIG = make_rig(2)
NAMES = list(RIG.names)


def pose_at(x):
    pose = RIG.cameras[0].base_from_camera.copy()
    pose[0, 3] = x
    return pose


def test_required_camera_info_takes_a_camera_in_and_a_bad_one_out_again():
    calibration = Calibration(RIG, 'required', 'rig', None)
    assert calibration.problems == dict.fromkeys(NAMES, 'no CameraInfo yet')
    msg = info_of(RIG.cameras[0])
    assert calibration.info(NAMES[0], msg)
    assert not calibration.info(NAMES[0], msg)      # the same again changes nothing
    assert list(calibration.problems) == [NAMES[1]]
    msg.k[0] = float('nan')
    assert calibration.info(NAMES[0], msg)
    assert not calibration.info(NAMES[0], msg)      # NaN too is the same again
    assert 'CameraInfo of camera_0: k' in calibration.problems[NAMES[0]]


def test_optional_camera_info_replaces_the_rig_file():
    calibration = Calibration(RIG, 'optional', 'rig', None)
    assert calibration.problems == {}
    msg = info_of(RIG.cameras[0])
    msg.k[0] += 10
    calibration.info(NAMES[0], msg)
    assert calibration.rig.cameras[0].k[0, 0] == RIG.cameras[0].k[0, 0] + 10
    assert calibration.rig.cameras[1] == RIG.cameras[1]


def test_tf_is_asked_by_the_frame_that_messages_name_and_again_on_change():
    known = {}
    calibration = Calibration(RIG, 'ignore', 'tf', known.get)
    assert calibration.refresh_poses()
    assert calibration.problems[NAMES[0]] == 'no transform: its messages name no frame yet'
    for name in NAMES:
        calibration.picture_frame(name, f'{name}_optical')
    assert calibration.refresh_poses()
    assert calibration.problems[NAMES[0]] == 'no transform from camera_0_optical'
    known.update({f'{name}_optical': pose_at(1.0) for name in NAMES})
    assert calibration.refresh_poses()
    assert calibration.problems == {}
    assert calibration.rig.cameras[0].base_from_camera[0, 3] == 1.0
    assert not calibration.refresh_poses()
    known['camera_0_optical'] = pose_at(2.0)
    assert calibration.refresh_poses()
    assert calibration.rig.cameras[0].base_from_camera[0, 3] == 2.0
    # A transform that is gone takes its camera out.
    del known['camera_0_optical']
    assert calibration.refresh_poses()
    assert list(calibration.problems) == [NAMES[0]]


def test_a_pose_that_tf_rounds_otherwise_is_no_other_calibration():
    known = {f'{name}_optical': pose_at(1.0) for name in NAMES}
    calibration = Calibration(RIG, 'ignore', 'tf', known.get)
    for name in NAMES:
        calibration.picture_frame(name, f'{name}_optical')
    assert calibration.refresh_poses()
    known['camera_0_optical'] = pose_at(1.0) + 1e-12
    assert not calibration.refresh_poses()
    for step in range(1, 4):    # what creeps is seen in the end
        known['camera_0_optical'] = pose_at(1.0 + 4e-4 * step)
        assert calibration.refresh_poses() is (step == 3)


def test_camera_info_names_the_frame_rather_than_a_picture():
    calibration = Calibration(RIG, 'optional', 'tf', {
        'camera_0_optical': pose_at(1.0), 'camera_0_driver': pose_at(2.0)}.get)

    def x():
        calibration.refresh_poses()
        return calibration.rig.cameras[0].base_from_camera[0, 3]

    calibration.picture_frame(NAMES[0], 'camera_0_driver')
    assert x() == 2.0
    calibration.info(NAMES[0], info_of(RIG.cameras[0]))
    assert x() == 1.0
    calibration.picture_frame(NAMES[0], 'camera_0_driver')
    assert x() == 1.0


def test_auto_falls_back_to_the_rig_file():
    calibration = Calibration(RIG, 'ignore', 'auto', {'camera_0_optical': pose_at(3.0)}.get)
    for name in NAMES:
        calibration.picture_frame(name, f'{name}_optical')
    calibration.refresh_poses()
    assert calibration.problems == {}
    assert calibration.rig.cameras[0].base_from_camera[0, 3] == 3.0
    assert np.array_equal(calibration.rig.cameras[1].base_from_camera,
                          RIG.cameras[1].base_from_camera)


def test_without_tf2_ros_tf_alone_is_refused_by_configure():
    try:
        import tf2_ros  # noqa: F401
    except ImportError:
        assert tf_lookup(None, 'base_link') is None
    else:
        pytest.skip('tf2_ros is installed: its absence cannot be tried')


def test_tf_lookup_with_tf2_ros():
    tf2_ros = pytest.importorskip('tf2_ros', reason='tf2_ros is not installed (not on PyPI)')
    import rclpy
    from geometry_msgs.msg import TransformStamped
    context = rclpy.Context()
    rclpy.init(context=context)
    node = WorldModelNode(context=context)
    lookup = tf_lookup(node, 'base_link')
    assert lookup('front_optical') is None
    found = TransformStamped(child_frame_id='front_optical')
    found.header.frame_id = 'base_link'
    found.transform.translation.x = 1.5
    lookup._buffer.set_transform_static(found, 'test')
    assert lookup('front_optical')[0, 3] == 1.5
    lookup.close()
    node.destroy_node()
    rclpy.shutdown(context=context)
    del tf2_ros


def test_the_views_show_topics_that_the_node_publishes():
    topics = {f'/world_model/{name}' for name in (
        'agents', 'occupancy_grid', 'risk_grid', 'markers')}
    view = yaml.safe_load(share_path('rviz', 'world_model.rviz').read_text(encoding='utf-8'))
    shown = {display['Topic']['Value'] for display in
             view['Visualization Manager']['Displays'] if 'Topic' in display}
    assert {topic for topic in shown if topic.startswith('/world_model')} <= topics
    layout = json.loads(share_path('foxglove', 'world_model.json').read_text(encoding='utf-8'))
    panel = layout['configById']['3D!forecast']
    assert set(panel['topics']) <= topics
