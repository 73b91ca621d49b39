"""The node on real DDS with the tiny artifact: how it is configured, lives and ends."""

from __future__ import annotations

import pytest

pytest.importorskip('rclpy')

from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile
from ros_drive import OUTPUTS, PATIENCE_S, wait_for

pytest_plugins = ['ros_world']

SUCCESS, FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE
OK, WARN, ERROR = 0, 1, 2


def test_parameters_change_together_or_not_at_all(world):
    node, drive = world()
    result = node.set_parameters_atomically([
        Parameter('min_frames', value=3), Parameter('max_gap_periods', value=99.0)])
    assert not result.successful
    assert '15.0' in result.reason and '99.0' in result.reason
    assert node.get_parameter('min_frames').value == 14
    result = node.set_parameters_atomically([
        Parameter('min_frames', value=3), Parameter('output_frame', value='moon')])
    assert not result.successful and "want one of base, odom, got 'moon'" in result.reason
    assert node.get_parameter('min_frames').value == 14
    result = node.set_parameters_atomically([Parameter('threads', value=3)])
    assert not result.successful and 'read-only' in result.reason
    assert node.set_parameters_atomically([Parameter('min_frames', value=3)]).successful
    stamps = drive.run(3)
    assert drive.forecast(stamps[-1]).info.valid


@pytest.mark.parametrize(('values', 'wanted'), [
    ({'threads': -1}, 'parameter threads: want at least 0, got -1'),
    ({'min_frames': 3.5}, 'parameter min_frames: want integer, got 3.5'),
    ({'backend': 'abacus'}, 'parameter backend: want one of auto, openvino'),
    ({'min_frame': 3}, 'parameter min_frame: unknown; did you mean min_frames?'),
    ({'artifact': '/nowhere'}, '/nowhere/manifest.json: No such file or directory'),
    ({'rig_file': '/nowhere.yaml'}, '/nowhere.yaml: No such file or directory, want a readable'),
    ({'rig_file': ''}, "parameter rig_file: want a YAML file with the cameras, got ''"),
    ({'cameras': ['rear']}, 'parameter cameras: want names of'),
    ({'image_transport': ['raw'] * 3}, 'parameter image_transport: want 1 or 2 words, got 3'),
    ({'camera_info_topic': '{cam}/info'}, 'camera_info_topic: want a topic with {camera} and no'),
])
def test_configure_fails_naming_found_and_wanted(world, values, wanted):
    node, drive = world(connect=False, autostart=False, **values)
    assert node.trigger_configure() == FAILURE
    assert wanted in node.health.error
    drive.wait_status('node', ERROR, wanted)
    assert [name for name, _ in node.get_publisher_names_and_types_by_node(
        'world_model', '/') if name.startswith('/world_model/agents')] == []


def test_a_flipped_byte_in_the_model_is_found(world, artifact, tmp_path):
    copy = tmp_path / 'copy'
    copy.mkdir()
    from pathlib import Path
    for file in Path(artifact).iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    data = bytearray((copy / 'fold.onnx').read_bytes())
    data[len(data) // 2] ^= 1
    (copy / 'fold.onnx').write_bytes(data)
    node, _ = world(connect=False, autostart=False, artifact=str(copy))
    assert node.trigger_configure() == FAILURE
    assert 'fold.onnx: SHA-256' in node.health.error and 'want' in node.health.error


def test_every_transition_can_be_walked_again(world):
    node, drive = world(connect=False, autostart=False)
    for _ in range(3):
        assert node.trigger_configure() == SUCCESS
        assert node.trigger_activate() == SUCCESS
        drive.wait_connected(node)
        drive.diagnostics.clear()
        drive.calibrate()
        drive.run(2)
        assert node.trigger_deactivate() == SUCCESS
        assert node.trigger_activate() == SUCCESS
        stamps = drive.run(2)
        # Active again means an empty window, though the calibration is kept.
        assert drive.forecast(stamps[0]).info.window.frames_used == 1
        drive.send_set()    # in the middle of inference
        assert node.trigger_deactivate() == SUCCESS     # else its thread was not back in 1.5 s
        assert node.trigger_cleanup() == SUCCESS
        wait_for(lambda: not any(publisher.get_subscription_count() for publisher in (
            *drive.images.values(), *drive.infos.values(), drive.odometry)), PATIENCE_S,
            'its subscriptions to be gone')
    assert node.trigger_configure() == SUCCESS
    assert node.trigger_shutdown() == SUCCESS
    assert node.finalized


def test_a_transition_that_raises_fails_with_its_cause(world, monkeypatch):
    node, drive = world(connect=False, autostart=False)
    assert node.trigger_configure() == SUCCESS

    def broken():
        raise MemoryError('no room for the window')

    monkeypatch.setattr(node.pipeline, 'start', broken)
    assert node.trigger_activate() == FAILURE
    drive.wait_status('node', ERROR, 'on_activate: no room for the window')
    monkeypatch.undo()
    drive.diagnostics.clear()
    assert node.trigger_activate() == SUCCESS
    drive.wait_status('node', OK, 'active')


def test_failing_inference_is_reported_and_deactivates_the_node(world, monkeypatch):
    node, drive = world()

    def broken(frames, ego):
        raise RuntimeError('device lost')

    monkeypatch.setattr(node.pipeline.engine, 'encode', broken)

    def deactivated():      # five failures in a row; what is sent too fast is shed before it fails
        drive.run(1, 0.05)
        return node.health.state == 'inactive'

    wait_for(deactivated, PATIENCE_S, 'the node to deactivate itself')
    drive.wait_status('node', ERROR, 'deactivated itself: RuntimeError: device lost')
    monkeypatch.undo()
    drive.diagnostics.clear()
    assert node.trigger_activate() == SUCCESS
    drive.forecast(drive.run(2)[-1])
    drive.wait_status('node', OK, 'active')     # what is over is not told for ever


def test_incompatible_qos_reaches_diagnostics_with_both_profiles(world):
    _, drive = world(**{'qos_overrides./odometry.subscription.reliability': 'reliable'},
                     connect=False)
    drive.wait_status('node', WARN, '/odometry: incompatible QoS (RELIABILITY)')
    message = drive.status('node').message
    assert 'drive best_effort' in message and 'world_model reliable' in message


def test_parameters_set_while_inactive_hold_once_it_is_active(world):
    node, drive = world()
    assert node.trigger_deactivate() == SUCCESS
    assert node.set_parameters_atomically([Parameter('min_frames', value=3)]).successful
    assert node.trigger_activate() == SUCCESS
    stamps = drive.run(3)
    assert drive.forecast(stamps[-1]).info.valid


def test_a_warning_ends_with_what_it_warned_of(world, monkeypatch):
    node, drive = world()
    wrong = drive.node.create_subscription(
        OUTPUTS['agents'], 'world_model/agents', lambda msg: None,
        QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL))
    drive.wait_status('node', WARN, '/world_model/agents: incompatible QoS (DURABILITY)')
    drive.node.destroy_subscription(wrong)
    drive.diagnostics.clear()
    drive.wait_status('node', OK, 'active')

    def broken(messages):
        raise RuntimeError('no such axis')
    # The subscription calls the pipeline's method, which looks the monitor up.
    with monkeypatch.context() as patch:
        patch.setattr(node.pipeline._odometry, 'take', lambda *_: broken(_))
        drive.run(1)
        drive.wait_status('node', WARN, 'odometry: RuntimeError: no such axis')
    drive.diagnostics.clear()
    drive.run(1)
    drive.wait_status('node', OK, 'active')


def test_parameters_of_other_nodes_do_not_keep_it_from_starting(world):
    node, drive = world(wheel_radius=0.3)
    drive.wait_status('node', OK, 'active')
    assert drive.value('node', 'passed_over') == 'wheel_radius'
    drive.forecast(drive.run(2)[-1])
