"""The node on real DDS with the tiny artifact: what it publishes, and what it takes."""

from __future__ import annotations

import array
import threading

import numpy as np
import pytest
from fakes import picture

pytest.importorskip('rclpy')

from nav_msgs.msg import Odometry
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.qos import qos_profile_sensor_data
from ros_drive import (
    NS,
    PATIENCE_S,
    info_of,
    set_stamp,
    wait_for,
    wait_matched,
)
from sensor_msgs.msg import Image

from wm_ros.messages import MessageTypes, stamp_ns
from wm_ros.msg import EgoPlan, WindowInfo
from wm_ros.ros.convert import message_types

pytest_plugins = ['ros_world']

SUCCESS, FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE
OK, WARN, ERROR = 0, 1, 2


def while_sent(drive, camera, problem, send):
    """Wait until an ERROR of a camera is told: 175 ms after its last picture, that is what is."""
    drive.wait_status(f'camera {camera}', ERROR, problem,
                      meanwhile=lambda: drive.forecast(send()) and None)


def test_forecasts_every_set_with_all_outputs(world):
    outputs = ('agents', 'occupancy', 'flow', 'occupancy_grid', 'risk_grid', 'markers')
    _, drive = world(outputs)
    stamps = drive.run(18)
    last = drive.forecast(stamps[-1])
    assert drive.stamps() == stamps
    assert [msg.info.valid for msg in drive.got['agents']] == [False] * 13 + [True] * 5
    assert last.header.frame_id == 'base_link'
    assert last.info.odom_known and last.info.odom_frame == 'odom'
    assert last.info.odom_from_base_link.position.x == pytest.approx(0.5 * 18)
    assert last.info.ego_plan.source == EgoPlan.SOURCE_CONSTANT_TURN_RATE
    # 5 m/s straight on, 0.5 s apart.
    assert [pose.position.x for pose in last.info.ego_plan.poses] == pytest.approx(
        [2.5, 5.0, 7.5, 10.0, 12.5, 15.0], abs=1e-4)
    assert last.agents
    for name in outputs[1:5]:
        drive.forecast(stamps[-1], name)
    # An invalid forecast is on no grid: that type cannot say so.
    assert drive.stamps('occupancy_grid') == stamps[13:]
    wait_for(lambda: len(drive.got['markers']) == 18, PATIENCE_S, 'the markers')
    assert len(drive.got['markers'][-1].markers) > 2 * len(last.agents)


def test_nothing_of_load_or_wall_clock_is_in_the_messages(world):
    """Two runs over the same stamps, one hurried and one slow, publish equal messages."""
    _, drive = world(('agents', 'occupancy'))
    runs = []
    for pause_s in (0.0, 0.08):
        for name in ('agents', 'occupancy'):
            drive.got[name].clear()
        drive.stamp_ns, drive.sets = drive.start_ns, 0
        last = drive.run(16, pause_s=pause_s)[-1]
        runs.append((drive.forecast(last, 'occupancy'), drive.forecast(last)))
    assert runs[0][0] == runs[1][0]
    for agent in (*runs[0][1].agents, *runs[1][1].agents):
        agent.uuid = np.zeros(16, np.uint8)   # ids are of the associator, which goes on counting
    assert runs[0][1] == runs[1][1]


def test_unknown_encoding_is_named_and_recovers(world):
    _, drive = world(('agents',), image_transport=['raw', 'compressed'])
    raw = drive.raw_images['camera_0']
    drive.edit = lambda name, msg: None if name == 'camera_0' else msg

    def send(encoding):
        stamp = drive.stamp_ns + NS // 10
        pixels = picture(drive.sets, 640, 360)
        msg = Image(width=640, height=360, step=1920, encoding=encoding,
                    data=array.array('B', pixels.tobytes()))
        set_stamp(msg, stamp)
        raw.publish(msg)
        return drive.send_set()

    for _ in range(16):
        last = drive.forecast(send('rgb8'))
    assert last.info.valid
    bad = drive.forecast(send('bayer_magic'))
    assert not bad.info.valid
    assert "encoding 'bayer_magic', want one of rgb8" in bad.info.invalid_reasons[0]
    assert list(bad.info.window.camera_states) == [WindowInfo.CAMERA_CORRUPT, WindowInfo.CAMERA_OK]
    while_sent(drive, 'camera_0', "encoding 'bayer_magic'", lambda: send('bayer_magic'))
    assert drive.forecast(send('bgr8')).info.valid


def test_truncated_jpeg_is_named_and_recovers(world):
    _, drive = world()
    drive.run(16)

    def cut(name, msg):
        if name == 'camera_1':
            msg.data = msg.data[:len(msg.data) // 2]
        return msg

    drive.edit = cut
    bad = drive.forecast(drive.send_set())
    assert not bad.info.valid
    assert 'camera_1' in bad.info.invalid_reasons[0] and 'truncated' in bad.info.invalid_reasons[0]
    while_sent(drive, 'camera_1', 'corrupt', drive.send_set)
    drive.edit = lambda name, msg: msg
    assert drive.forecast(drive.send_set()).info.valid


def test_wrong_size_is_named_and_recovers(world):
    from ros_drive import jpeg
    _, drive = world()
    drive.run(16)

    def small(name, msg):
        if name == 'camera_0':
            msg.data = array.array('B', jpeg(1, 320, 180))
        return msg

    drive.edit = small
    bad = drive.forecast(drive.send_set())
    assert not bad.info.valid
    assert 'a picture of 320x180, want 640x360' in bad.info.invalid_reasons[0]
    drive.edit = lambda name, msg: msg
    assert drive.forecast(drive.send_set()).info.valid


def test_missing_camera_info_and_bad_k_keep_the_camera_out(world):
    node, drive = world(connect=False)
    drive.wait_connected(node)
    bad = info_of(drive.rig.cameras[1])
    bad.k[0] = float('nan')
    drive.send_info(camera_1=bad)
    stamps = drive.run(16)
    drive.wait_status('camera camera_1', ERROR, 'CameraInfo of camera_1: k')
    forecast = drive.forecast(stamps[-1])
    assert not forecast.info.valid
    assert forecast.info.window.camera_states[1] == WindowInfo.CAMERA_UNCALIBRATED
    assert 'camera_1: k' in ' '.join(forecast.info.invalid_reasons)
    drive.calibrate()
    stamps = drive.run(16)
    assert drive.forecast(stamps[-1]).info.valid


def test_no_camera_info_at_all_publishes_invalid_forecasts_that_say_so(world):
    node, drive = world(connect=False)
    drive.wait_connected(node)
    stamp = drive.send_set()
    forecast = drive.forecast(stamp)
    assert 'camera camera_0: no CameraInfo yet' in forecast.info.invalid_reasons
    drive.wait_status('camera camera_0', ERROR, 'no CameraInfo yet')


def test_missing_camera_is_reported_and_comes_back(world):
    _, drive = world(set_deadline_ms=300.0)
    stamps = drive.run(16)
    assert drive.forecast(stamps[-1]).info.valid
    drive.diagnostics.clear()
    missed = drive.run(4, 0.1, skip=('camera_1',))
    # Within two periods of its last image: test_ros_pipeline.py, by a clock of its own.
    drive.wait_status('camera camera_1', ERROR, 'no image')
    forecast = drive.forecast(missed[-1])
    assert not forecast.info.valid
    assert forecast.info.window.camera_states[1] == WindowInfo.CAMERA_MISSING
    assert 'camera camera_1: no frame in the set' in forecast.info.invalid_reasons
    drive.diagnostics.clear()
    assert drive.forecast(drive.run(1)[0]).info.valid

    def back():     # and overdue again 175 ms later, so go on sending
        drive.run(1)
        return any(entry.name.endswith('camera camera_1') and entry.level == bytes([OK])
                   for msg in list(drive.diagnostics) for entry in msg.status)

    wait_for(back, PATIENCE_S, 'the camera to be well again')


def test_a_given_plan_is_used_until_it_is_too_old(world):
    node, drive = world()
    drive.run(15)
    types: MessageTypes = message_types()
    stamp = drive.stamp_ns + NS // 10
    plan = EgoPlan(header=types.header(stamp, 'base_link'),
                   times_from_start=[types.duration(NS // 2 * i) for i in range(1, 7)],
                   poses=[types.pose(1.0 * i, 0.1 * i, 0.0) for i in range(1, 7)])
    drive.plan.publish(plan)
    wait_for(lambda: node.pipeline._plan, PATIENCE_S, 'the plan')
    used = drive.forecast(drive.send_set()).info.ego_plan
    assert used.source == EgoPlan.SOURCE_GIVEN
    assert [pose.position.y for pose in used.poses] == pytest.approx(
        [0.1, 0.2, 0.3, 0.4, 0.5, 0.6], abs=1e-5)
    stamps = drive.run(12)
    assert drive.forecast(stamps[0]).info.ego_plan.source == EgoPlan.SOURCE_GIVEN
    late = drive.forecast(stamps[-1]).info.ego_plan
    assert late.source == EgoPlan.SOURCE_CONSTANT_TURN_RATE
    wait_for(lambda: any(value.key == 'plan_problem' and 'old, want at most 1 s' in value.value
                         for msg in list(drive.diagnostics) for status in msg.status
                         if status.name.endswith('window') for value in status.values),
             PATIENCE_S, 'the problem with the plan')


def test_without_odometry_the_forecast_says_so(world):
    _, drive = world()
    stamps = drive.run(16, odometry=False)
    forecast = drive.forecast(stamps[-1])
    assert forecast.info.valid and not forecast.info.odom_known
    assert forecast.info.ego_plan.source == EgoPlan.SOURCE_NONE
    drive.wait_status('odometry', WARN, 'no odometry')


def test_required_odometry_makes_its_lack_invalid(world):
    _, drive = world(odometry='required')
    stamps = drive.run(16, odometry=False)
    assert drive.forecast(stamps[-1]).info.invalid_reasons == [
        'odometry: missing in the window, and it is required']


def test_odometry_that_waited_is_read_before_the_pictures_that_waited(world):
    """The process stands still while sets and odometry at 100 Hz come; no set is left without."""
    node, drive = world(odometry_wait_ms=0.0)
    drive.run(2)
    probe = []
    drive.node.create_subscription(
        Odometry, 'odometry', probe.append, qos_profile_sensor_data)
    wait_matched(node, drive.node)
    paused, go_on = threading.Event(), threading.Event()

    def stand_still():
        paused.set()
        go_on.wait(PATIENCE_S)

    node.executor.create_task(stand_still)
    assert paused.wait(PATIENCE_S)
    for number in range(1, 41):
        drive.send_odometry(drive.stamp_ns + number * NS // 100)
    sent = [drive.send_set(odometry=False) for _ in range(4)]
    wait_for(lambda: probe and stamp_ns(probe[-1].header) == sent[-1], PATIENCE_S, 'the odometry')
    go_on.set()
    assert drive.forecast(sent[-1]).info.window.odometry
    assert drive.value('odometry', 'frame') == 'odom'


def test_a_clock_that_steps_back_starts_a_new_window(world):
    _, drive = world()
    drive.forecast(drive.run(16)[-1])
    drive.stamp_ns = drive.start_ns
    del drive.got['agents'][:]
    drive.run(14)
    used = [msg.info.window.frames_used for msg in drive.got['agents']]
    assert used == list(range(1, 15))
    assert drive.got['agents'][-1].info.valid


def test_one_camera_with_a_wrong_clock_is_left_out_and_named(world):
    _, drive = world(set_deadline_ms=300.0)
    drive.run(16)

    def an_hour_ahead(name, msg):
        if name == 'camera_1':
            set_stamp(msg, drive.stamp_ns + 3600 * NS)
        return msg

    drive.edit = an_hour_ahead
    missed = [drive.forecast(stamp) for stamp in drive.run(3)]
    assert [msg.info.window.frames_used for msg in missed] == [16] * 3
    assert all(list(msg.info.window.camera_states) ==
               [WindowInfo.CAMERA_OK, WindowInfo.CAMERA_MISSING] for msg in missed)
    while_sent(drive, 'camera_1', "stamps far from the other cameras'", drive.send_set)
    drive.edit = lambda name, msg: msg
    assert drive.forecast(drive.run(1)[0]).info.valid


def test_simulated_time_may_stop_and_step_back(world):
    """Stamps of /clock; liveness goes on while the clock stands, a step back flushes."""
    from rosgraph_msgs.msg import Clock
    node, drive = world(use_sim_time=True)
    clock = drive.node.create_publisher(Clock, '/clock', 10)
    wait_matched(node, drive.node)

    def tick(stamp_ns):
        msg = Clock()
        msg.clock.sec, msg.clock.nanosec = divmod(stamp_ns, NS)
        clock.publish(msg)
        wait_for(lambda: node.get_clock().now().nanoseconds == stamp_ns, PATIENCE_S, 'the clock')

    tick(drive.stamp_ns)
    drive.run(16)   # the clock stands all the while
    assert drive.forecast(drive.stamp_ns).info.valid
    drive.diagnostics.clear()
    drive.wait_status('camera camera_0', ERROR, 'no image')   # and a camera is still missed
    assert drive.diagnostics[-1].header.stamp.sec == drive.start_ns // NS
    tick(drive.start_ns - NS // 2)   # a step too small to be seen in the images' stamps
    assert drive.forecast(drive.run(1)[0]).info.window.frames_used == 1


def test_output_in_the_odometry_frame(world):
    _, drive = world(output_frame='odom')
    last = drive.forecast(drive.run(16)[-1])
    assert last.header.frame_id == 'odom'
    # The vehicle stands at x = 8 m there; the plan begins from it.
    assert last.info.ego_plan.poses[0].position.x == pytest.approx(8.0 + 2.5, abs=1e-4)


def test_odometry_of_another_body_is_told_and_of_another_frame_not_mixed(world):
    node, drive = world()
    drive.forecast(drive.run(2)[-1])
    drive.wait_status('odometry', OK, 'ok')
    msg = Odometry(child_frame_id='imu_link')
    msg.header.frame_id = 'odom'
    msg.pose.pose.orientation.w = 1.0

    def sent(text, level):
        """Send it until it has been heard: the message is a copy, its stamp a new one."""
        drive.diagnostics.clear()

        def told():
            drive.stamp_ns += NS // 100
            set_stamp(msg, drive.stamp_ns)
            drive.odometry.publish(msg)
            found = drive.status('odometry')
            return found is not None and text in found.message
        wait_for(told, PATIENCE_S, text)
        drive.wait_status('odometry', level, text)
    sent('odometry: of imu_link, want base_link', WARN)
    msg.child_frame_id, msg.header.frame_id = 'base_link', 'map'
    sent('odometry: in map after odom, want one frame', ERROR)
