"""Messages to values and back, field by field."""

from __future__ import annotations

import array
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest
from fakes import make_rig

pytest.importorskip('rclpy')

from geometry_msgs.msg import Transform
from nav_msgs.msg import Odometry
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from visualization_msgs.msg import Marker, MarkerArray

from wm_ros import messages
from wm_ros.camera_info import camera_from_info
from wm_ros.ego import EgoHistory
from wm_ros.image import ImageError
from wm_ros.messages import FrameOfReference
from wm_ros.msg import AgentForecastArray, OccupancyFlow, OccupancyForecast
from wm_ros.msg import EgoPlan as EgoPlanMessage
from wm_ros.msg import WindowInfo as WindowInfoMessage
from wm_ros.ros import convert
from wm_ros.ros.markers import markers_message
from wm_ros.ros.outputs import serialised
from wm_ros.share import share_path
from wm_ros.timed_plan import PlanError, plan_from_message
from wm_ros.types import (
    AgentForecast,
    CameraState,
    EgoPlan,
    EgoState,
    Forecast,
    Frame,
    FrameSet,
    PlanSource,
    WindowInfo,
)

NS = 1_000_000_000
TYPES = convert.message_types()
CAMERA = make_rig(1).cameras[0]


def image(encoding, data, width, height, step):
    msg = Image(encoding=encoding, width=width, height=height, step=step,
                data=array.array('B', bytes(data)))
    msg.header.stamp.sec, msg.header.stamp.nanosec = 12, 34
    return msg


def rgb(msg):
    """Return what the worker makes of an image message."""
    frame = convert.frame_from_image(msg, 'front', 10_000)
    frames, errors = convert.decoded(FrameSet(frame.stamp_ns, {'front': frame}))
    if errors:
        raise errors['front']
    return frames.frames['front'].image


@pytest.mark.parametrize(('encoding', 'data', 'wanted'), [
    ('rgb8', [1, 2, 3, 4, 5, 6], [[1, 2, 3], [4, 5, 6]]),
    ('bgr8', [1, 2, 3, 4, 5, 6], [[3, 2, 1], [6, 5, 4]]),
    ('rgba8', [1, 2, 3, 9, 4, 5, 6, 9], [[1, 2, 3], [4, 5, 6]]),
    ('bgra8', [1, 2, 3, 9, 4, 5, 6, 9], [[3, 2, 1], [6, 5, 4]]),
    ('mono8', [7, 8], [[7, 7, 7], [8, 8, 8]]),
    # BT.601, studio range: Y = 235 with neutral chroma is white, Y = 16 is black.
    ('yuv422', [128, 235, 128, 16], [[255, 255, 255], [0, 0, 0]]),
    ('yuv422_yuy2', [235, 128, 16, 128], [[255, 255, 255], [0, 0, 0]]),
])
def test_encodings(encoding, data, wanted):
    plain = rgb(image(encoding, data, 2, 1, len(data)))
    assert plain.tolist() == [wanted]
    # Two rows, each followed by three bytes of padding.
    padded = rgb(image(encoding, [*data, 0, 0, 0] * 2, 2, 2, len(data) + 3))
    assert padded.tolist() == [wanted, wanted]


def test_pictures_are_those_of_cv_bridge():
    try:
        from cv_bridge import CvBridge
    except ImportError as err:
        pytest.skip(f'cv_bridge is not installed, or not for this NumPy: {err}')
    pixels = np.random.default_rng(0).integers(0, 255, 6 * 8 * 4, np.uint8)
    for encoding, size in (('rgb8', 3), ('bgr8', 3), ('rgba8', 4), ('bgra8', 4), ('mono8', 1),
                           ('yuv422', 2)):
        msg = image(encoding, pixels[:6 * 8 * size], 8, 6, 8 * size)
        np.testing.assert_array_equal(rgb(msg), CvBridge().imgmsg_to_cv2(msg, 'rgb8'), encoding)


def test_rgb8_is_not_copied():
    msg = image('rgb8', range(6), 2, 1, 6)
    assert np.shares_memory(rgb(msg), np.frombuffer(msg.data, np.uint8))


@pytest.mark.parametrize(('msg', 'wanted'), [
    (image('nv12', range(6), 2, 1, 6), "front: encoding 'nv12', want one of rgb8"),
    (image('rgb8', range(5), 2, 1, 6), 'with 5 bytes, want step \\* height = 6'),
    (image('rgb8', [], 2, 0, 6), 'an image of 0 bytes, want 1 to 10000'),
    (image('rgb8', bytes(10_001), 1, 10_001, 1), 'an image of 10001 bytes, want 1 to 10000'),
    (image('rgb8', range(4), 2, 1, 4), 'want 6 bytes or more a row'),
    (image('yuv422', range(6), 3, 1, 6), 'want an even width, got 3'),
])
def test_bad_images_are_refused_by_name(msg, wanted):
    with pytest.raises(ImageError, match=wanted):
        rgb(msg)


def test_a_frame_that_cannot_be_read_keeps_its_place():
    good, bad = (convert.frame_from_image(msg, 'front', 10_000) for msg in (
        image('rgb8', range(6), 2, 1, 6), image('rgb8', range(4), 2, 1, 4)))
    frames, errors = convert.decoded(FrameSet(1, {'a': good, 'b': bad}))
    assert list(errors) == ['b'] and isinstance(frames.frames['b'].image, ImageError)
    assert frames.frames['a'].image.shape == (1, 2, 3)


def test_compressed_image_is_handed_on_as_bytes():
    msg = CompressedImage(format='jpeg', data=array.array('B', b'\xff\xd8\xff'))
    msg.header.stamp.sec = 3
    frame = convert.frame_from_compressed(msg, 'front', 3)
    assert frame == Frame('front', 3 * NS, memoryview(b'\xff\xd8\xff'))
    with pytest.raises(ImageError, match='of 3 bytes, want 1 to 2'):
        convert.frame_from_compressed(msg, 'front', 2)


def info(**changes):
    msg = CameraInfo(width=640, height=360, distortion_model='plumb_bob', d=[0.1, 0, 0, 0, 0],
                     k=[500.0, 0, 320, 0, 510, 180, 0, 0, 1])
    for name, value in changes.items():
        setattr(msg, name, value)
    return msg


def test_camera_info():
    camera = camera_from_info(info(), CAMERA)
    assert (camera.width, camera.height) == (640, 360)
    assert camera.k.tolist() == [[500, 0, 320], [0, 510, 180], [0, 0, 1]]
    assert camera.distortion == (0.1, 0, 0, 0, 0)
    assert camera.base_from_camera is CAMERA.base_from_camera
    rational = camera_from_info(
        info(distortion_model='rational_polynomial', d=[0.1] * 8 + [0.0] * 4), CAMERA)
    assert rational.distortion == (0.1,) * 8
    for model, count in (('', 5), ('plumb_bob', 5), ('rational_polynomial', 0)):    # all zero: none
        assert camera_from_info(
            info(distortion_model=model, d=[0.0] * count), CAMERA).distortion == ()


@pytest.mark.parametrize(('changes', 'wanted'), [
    ({'distortion_model': 'equidistant'}, "distortion_model 'equidistant', want plumb_bob or"),
    ({'d': [0.1] * 3}, 'CameraInfo.d of 3 numbers, want 0 or 4 or 5 for plumb_bob'),
    ({'distortion_model': 'rational_polynomial', 'd': [0.1] * 12}, 'CameraInfo.d of 12 numbers'),
    ({'k': [float('inf'), 0, 1, 0, 1, 1, 0, 0, 1]}, 'CameraInfo of camera_0: k .*finite'),
    ({'k': [0.0] * 9}, 'CameraInfo of camera_0: k focal lengths 0, 0'),
    ({'width': 0}, 'CameraInfo of camera_0: size 0x360'),
    ({'binning_x': 2}, 'CameraInfo.binning 2x0, want none'),
])
def test_bad_camera_info_is_refused_by_field(changes, wanted):
    with pytest.raises(ImageError, match=wanted) as caught:
        camera_from_info(info(**changes), CAMERA)
    assert caught.value.state is CameraState.UNCALIBRATED


def test_region_of_interest_is_refused():
    msg = info()
    msg.roi.width, msg.roi.height, msg.roi.x_offset = 320, 180, 10
    with pytest.raises(ImageError, match='roi 320x180\\+10\\+0, want none'):
        camera_from_info(msg, CAMERA)


def test_transform():
    # A quarter turn about z: x of the camera frame is y of base_link.
    msg = Transform()
    msg.translation.x, msg.rotation.z, msg.rotation.w = 1.0, np.sqrt(0.5), np.sqrt(0.5)
    pose = convert.pose_from_transform(msg)
    assert np.allclose(pose @ [1, 0, 0, 1], [1, 1, 0, 1])
    msg.rotation.z = msg.rotation.w = 0.0
    with pytest.raises(ValueError, match='quaternion'):
        convert.pose_from_transform(msg)


def test_odometry_with_a_bad_quaternion_is_refused():
    msg = Odometry()
    msg.pose.pose.orientation.w = 0.0
    with pytest.raises(ValueError, match='quaternion: want a finite one of length 1'):
        messages.ego_state_from_odometry(msg)


def forecast(**changes):
    """Return a forecast with one car 10 m ahead that drives along x."""
    paths = np.zeros((6, 6, 2), np.float32)
    paths[..., 0] = 10 + np.arange(1, 7) * 2.5
    paths[1, :, 1] = 3.0
    agent = AgentForecast(
        track_id=bytes(range(16)), score=0.75,
        class_probabilities=np.array([0.9, 0.1, 0, 0, 0, 0, 0, 0], np.float32),
        pose=np.array([10.0, 2.0, 0.0]), pose_covariance=np.diag([0.1, 0.2, 0.3]),
        velocity_mps=np.array([5.0, 0.0]), twist_covariance=np.diag([0.4, 0.5]),
        size_m=np.array([4.5, 1.9, 1.6]), trajectories_m=paths,
        mode_probabilities=np.array([0.2, 0.6, 0.1, 0.1, 0, 0], np.float32),
        covariances_m2=np.tile(np.array([[1.0, 0.25], [0.25, 2.0]], np.float32), (6, 6, 1, 1)))
    agents = np.zeros((7, 200, 200), np.uint8)
    agents[0, 100, 120] = 127
    agents[4, 100, 125] = 254
    static = np.zeros((200, 200), np.uint8)
    static[0] = 255
    flow = np.zeros((7, 2, 200, 200), np.float32)
    flow[2, 0, 100, 120] = -2.5
    values = {
        'stamp_ns': 5 * NS + 7, 'valid': True, 'reasons': (),
        'window': WindowInfo(15, 1, 2, 2.0, NS // 10, 15 * NS // 10, True,
                             {'front': CameraState.OK, 'rear': CameraState.BLACK}),
        'ego_plan': EgoPlan(np.arange(18.0).reshape(6, 3) / 10, PlanSource.GIVEN),
        'odom_from_base': np.array([100.0, 50.0, np.pi / 2]), 'agents': (agent,),
        'occupancy_agents': agents, 'occupancy_static': static, 'flow': flow,
        'road': np.zeros((3, 200, 200), np.uint8), 'model_hash': 'abc',
        'precision': {'encode': 'i8', 'fold': 'f32'}}
    return Forecast(**{**values, **changes})


def over_the_wire(msg):
    return deserialize_message(serialize_message(msg), type(msg))


def test_agents_survive_the_wire_field_by_field():
    msg = over_the_wire(messages.agents_message(TYPES, forecast()))
    assert isinstance(msg, AgentForecastArray)
    assert (msg.header.stamp.sec, msg.header.stamp.nanosec) == (5, 7)
    assert msg.header.frame_id == 'base_link'
    info = msg.info
    assert info.valid and not info.invalid_reasons and info.model_hash == 'abc'
    assert info.precision == ['encode=i8', 'fold=f32']
    assert (info.window.frames_wanted, info.window.frames_used, info.window.frames_missing,
            info.window.frames_partial, info.window.max_gap_periods) == (16, 15, 1, 2, 2.0)
    assert (info.window.period.nanosec, info.window.span.sec) == (NS // 10, 1)
    assert info.window.cameras == ['front', 'rear']
    assert list(info.window.camera_states) == [
        WindowInfoMessage.CAMERA_OK, WindowInfoMessage.CAMERA_BLACK]
    assert info.odom_known and info.odom_from_base_link.position.x == 100.0
    assert info.ego_plan.source == EgoPlanMessage.SOURCE_GIVEN
    assert info.ego_plan.poses[1].position.x == pytest.approx(0.3)
    assert info.ego_plan.times_from_start[1].sec == 1
    agent = msg.agents[0]
    assert bytes(agent.uuid) == bytes(range(16))
    assert (agent.classification, agent.class_probability) == (1, pytest.approx(0.9))
    assert agent.existence_probability == 0.75
    assert (agent.pose.pose.position.x, agent.pose.pose.position.y) == (10.0, 2.0)
    assert [agent.pose.covariance[i] for i in (0, 7, 35)] == [0.1, 0.2, 0.3]
    assert agent.twist.twist.linear.x == 5.0
    assert [agent.twist.covariance[i] for i in (0, 7)] == [0.4, 0.5]
    assert (agent.size.x, agent.size.y, agent.size.z) == (4.5, 1.9, 1.6)
    assert [mode.probability for mode in agent.modes] == pytest.approx([0.6, 0.2, 0.1, 0.1, 0, 0])
    assert list(agent.modes[0].waypoints[:4]) == [12.5, 3.0, 15.0, 3.0]
    assert list(agent.modes[0].covariances[:3]) == [1.0, 0.25, 2.0]


def test_agents_in_odom_are_turned_and_moved():
    changed, frame = convert.frame_of_reference(forecast(), 'odom', 'base_link', 'odom')
    msg = messages.agents_message(TYPES, changed, frame)
    agent = msg.agents[0]
    assert msg.header.frame_id == 'odom'
    # 10 m ahead and 2 m left of a vehicle at (100, 50) that looks along y.
    assert (agent.pose.pose.position.x, agent.pose.pose.position.y) == pytest.approx((98, 60))
    assert agent.pose.covariance[0] == pytest.approx(0.2)
    assert (agent.twist.twist.linear.x, agent.twist.twist.linear.y) == pytest.approx((0, 5))
    assert list(agent.modes[0].waypoints[:2]) == pytest.approx([97, 62.5])
    assert list(agent.modes[0].covariances[:3]) == pytest.approx([2.0, -0.25, 1.0])


def test_odom_without_odometry_is_invalid_and_stays_in_base():
    changed, frame = convert.frame_of_reference(
        forecast(odom_from_base=None), 'odom', 'base', 'odom')
    assert (frame.frame_id, changed.valid) == ('base', False)
    assert changed.reasons == ('output frame odom: no odometry',)


def test_occupancy_and_flow_survive_the_wire():
    msg = over_the_wire(messages.occupancy_message(TYPES, forecast()))
    assert isinstance(msg, OccupancyForecast)
    assert (msg.grid.width, msg.grid.height, msg.grid.resolution) == (200, 200, 0.5)
    assert (msg.grid.origin.position.x, msg.grid.origin.position.y) == (-50, -50)
    assert len(msg.times_from_start) == 7 and msg.times_from_start[3].nanosec == NS // 2
    assert (msg.agents[100 * 200 + 120], msg.agents[4 * 40000 + 100 * 200 + 125]) == (127, 254)
    assert msg.static_ground[0] == OccupancyForecast.UNOBSERVED
    flow = over_the_wire(messages.flow_message(TYPES, forecast()))
    assert isinstance(flow, OccupancyFlow)
    assert flow.metres_per_unit == 0.125
    assert flow.dx[2 * 40000 + 100 * 200 + 120] == -20


def test_the_nodes_segment_holds_ten_forecasts_with_all_their_messages():
    """What a subscriber that is a second behind has not taken yet; more would be sent again."""
    made = forecast()
    sizes = [len(data) for data in serialised(replace(made, agents=100 * made.agents))]
    profile = ElementTree.parse(share_path('params', 'fastdds_node.xml'))
    segment, = (int(item.text) for item in profile.iter() if item.tag.endswith('segment_size'))
    assert 10 * sum(sizes) < segment


def test_grids_say_percent_and_unknown_and_end_at_the_horizon():
    now = messages.grid_message(TYPES, forecast(), horizon=False)
    assert (now.data[100 * 200 + 120], now.data[100 * 200 + 125], now.data[0]) == (50, 0, -1)
    risk = messages.grid_message(TYPES, forecast(), horizon=True)
    assert risk.data[100 * 200 + 125] == 100
    # The cell is taken at 2.0 s.
    for horizon_s, wanted in ((1.9, 0), (2.0, 100), (0.0, 0)):
        near = convert.within_horizon(forecast(), horizon_s)
        assert messages.grid_message(TYPES, near, horizon=True).data[
            100 * 200 + 125] == wanted, horizon_s


def test_a_grid_shows_who_stands_on_hidden_ground_and_nothing_else_of_it():
    said = forecast()
    static, agents = said.occupancy_static.copy(), said.occupancy_agents.copy()
    static[:2], agents[:, :2] = 255, 255
    agents[0, 0, 0], agents[3, 0, 1], agents[0, 1, 1] = 254, 127, 100
    said = replace(said, occupancy_static=static, occupancy_agents=agents)
    now, risk = (messages.grid_message(TYPES, said, horizon).data for horizon in (False, True))
    assert (now[0], now[1], now[201], now[5]) == (100, -1, -1, -1)
    assert (risk[0], risk[1], risk[201], risk[5]) == (100, 50, -1, -1)


def markers(said, frame=None):
    """Return the MarkerArray as rclpy reads it, which would write as many bytes."""
    data = markers_message(said, frame or FrameOfReference())
    msg = deserialize_message(data, MarkerArray)
    assert len(serialize_message(msg)) == len(data)     # what lies between fields may be anything
    return msg.markers


def test_markers():
    found = markers(forecast())
    kinds = [marker.ns for marker in found]
    assert found[0].action == Marker.DELETEALL
    assert kinds == ['', 'agents', 'labels', 'paths', 'paths', 'paths', 'paths']
    box = found[1]
    assert (box.type, box.action, box.header.frame_id) == (Marker.CUBE, Marker.ADD, 'base_link')
    assert (box.pose.position.x, box.pose.position.z, box.scale.x) == (10.0, 0.8, 4.5)
    assert messages.stamp_ns(box.header) == forecast().stamp_ns
    assert (found[2].type, found[2].text) == (Marker.TEXT_VIEW_FACING, 'car 0.75 5 m/s')
    assert found[4].type == Marker.LINE_STRIP and len(found[4].points) == 7
    assert (found[4].points[0].x, found[4].points[1].y) == (10.0, 3.0)
    assert len({marker.id for marker in found[3:]}) == 4
    assert all(0 < marker.color.a <= 1 for marker in found[1:])
    moved = markers(forecast(), FrameOfReference('odom', np.array([100.0, 0.0, np.pi / 2])))
    assert moved[1].header.frame_id == 'odom'
    assert (round(moved[1].pose.position.y, 6), round(moved[4].points[0].y, 6)) == (10.0, 10.0)


def test_markers_of_an_invalid_forecast_say_why():
    found = markers(forecast(valid=False, reasons=('a', 'b\u00e4')))
    assert [marker.text for marker in found] == ['', 'invalid: a; b\u00e4']


def test_markers_are_written_for_the_message_that_is_installed():
    """Fields that are added to the message one day have to be written too."""
    assert list(Marker.get_fields_and_field_types()) == [
        'header', 'ns', 'id', 'type', 'action', 'pose', 'scale', 'color', 'lifetime',
        'frame_locked', 'points', 'colors', 'texture_resource', 'texture', 'uv_coordinates',
        'text', 'mesh_resource', 'mesh_file', 'mesh_use_embedded_materials']


def plan(frame_id, stamp_ns, poses, step_ns=NS // 2):
    return EgoPlanMessage(
        header=TYPES.header(stamp_ns, frame_id),
        times_from_start=[TYPES.duration(step_ns * (i + 1)) for i in range(len(poses))],
        poses=[TYPES.pose(*pose) for pose in poses])


def history():
    """Return 2 s of odometry: along x at 10 m/s from the origin."""
    found = EgoHistory()
    for i in range(21):
        found.push(EgoState(10 * NS + i * NS // 10, np.array([float(i), 0.0, 0.0]), 10.0, 0.0))
    return found


def test_a_plan_in_odom_is_read_at_the_stamp():
    given = plan_from_message(plan('odom', 10 * NS, [(5.0 * i, 1.0, 0.0) for i in range(1, 13)]))
    ego = history().at(11 * NS)   # at x = 10
    found = given.at(ego, history(), 'base_link', 'odom', 2 * NS)
    assert found.source is PlanSource.GIVEN
    assert found.poses[:, 0] == pytest.approx([5, 10, 15, 20, 25, 30])
    assert found.poses[:, 1] == pytest.approx([1] * 6)


def test_a_plan_in_base_link_is_moved_on_since_its_stamp():
    given = plan_from_message(
        plan('base_link', 10 * NS, [(5.0 * i, 0.0, 0.0) for i in range(1, 13)]))
    found = given.at(history().at(11 * NS), history(), 'base_link', 'odom', 2 * NS)
    assert found.poses[:, 0] == pytest.approx([5, 10, 15, 20, 25, 30])


@pytest.mark.parametrize(('msg', 'wanted'), [
    (plan('map', 11 * NS, [(1, 0, 0)] * 6), "frame 'map', want 'odom' or 'base_link'"),
    (plan('odom', 8 * NS, [(1, 0, 0)] * 6), '3.00 s old, want at most 2 s'),
    (plan('', 11 * NS, [(1, 0, 0)] * 6), "header.frame_id ''"),
    (plan('odom', 11 * NS, [(1, 0, 0)] * 1001, step_ns=NS // 100), '1001 poses, want at most 1000'),
    (plan('odom', 11 * NS, []), '0 poses and 0 times_from_start'),
    (plan('odom', 11 * NS, [(1, 0, 0)] * 2, step_ns=0), 'want them ascending'),
    (plan('odom', 11 * NS, [(float('nan'), 0, 0)]), 'poses, want finite ones'),
    (plan('odom', 10 * NS, [(1, 0, 0)]), 'want at least 0.5 s'),
    (plan('odom', 60 * NS, [(1, 0, 0)] * 6), 'begins 49.500 s after the frame, want at most 3 s'),
])
def test_plans_of_no_use_are_refused_by_name(msg, wanted):
    with pytest.raises(PlanError, match=wanted):
        plan_from_message(msg).at(history().at(11 * NS), history(), 'base_link', 'odom', 2 * NS)
