"""Parameters are declared once: checks, settings, YAML and the README's table all follow."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from wm_ros.predictor import PredictorSettings
from wm_ros.ros import loading, parameters
from wm_ros.runtime.backend import BACKENDS
from wm_ros.share import share_path
from wm_ros.timed_plan import TIMEOUT_NS
from wm_ros.window import FrameBuffer

REPO = Path(__file__).resolve().parent.parent


def test_defaults_pass_their_own_checks():
    settings = parameters.settings_from({})
    assert settings.min_frames == 14
    assert settings.cameras == ('',)
    assert [entry.problem(entry.default) for entry in parameters.PARAMETERS
            if entry.problem(entry.default)] == []


@pytest.mark.parametrize(('name', 'value', 'wanted'), [
    ('min_frames', 0, 'parameter min_frames: want at least 1, got 0'),
    ('min_frames', 17, 'parameter min_frames: want at most 16, got 17'),
    ('min_frames', True, 'parameter min_frames: want integer, got True'),
    ('autostart', 1, 'parameter autostart: want boolean, got 1'),
    ('risk_horizon_s', float('nan'), 'parameter risk_horizon_s: want a finite number, got nan'),
    ('output_frame', 'map', "parameter output_frame: want one of base, odom, got 'map'"),
    ('cameras', ['a', 1], "parameter cameras: want an array of strings, got ['a', 1]"),
    ('image_transport', ['theora'], 'parameter image_transport: want one of compressed, raw'),
    ('min_frame', 14, 'parameter min_frame: unknown; did you mean min_frames?'),
])
def test_what_is_refused_is_named_with_its_bound(name, value, wanted):
    assert parameters.problems_of({name: value})[0].startswith(wanted)
    with pytest.raises(ValueError, match='parameter'):
        parameters.settings_from({name: value})


def test_parameters_of_a_whole_stack_are_passed_over_and_slips_are_not():
    """Autoware's and others' global parameter files reach every node."""
    stack = {'wheel_radius': 0.3, 'diagnostic_updater.period': 1.0, 'map_frame': 'map'}
    assert parameters.problems_of(stack) == []
    assert parameters.unknown({**stack, 'min_frames': 3, 'use_sim_time': True}) == list(stack)
    for slip in ('min_frame', 'max_gap_period', 'rig_files', 'sync_tolerance_mss'):
        assert 'did you mean' in parameters.problems_of({slip: 1})[0]
        assert parameters.unknown({slip: 1}) == []


def test_parameters_of_ros_itself_are_left_alone():
    assert parameters.problems_of({
        'use_sim_time': True, 'qos_overrides./odometry.subscription.depth': 3}) == []


def test_a_whole_number_is_a_double_where_one_is_wanted():
    """`sync_tolerance_ms: 40` in a file is an integer to ROS."""
    rclpy = pytest.importorskip('rclpy')
    from rclpy.node import Node
    from rclpy.parameter import Parameter

    with rclpy.init():
        node = Node('whole', parameter_overrides=[
            Parameter('sync_tolerance_ms', value=40), Parameter('odometry_wait_ms', value=501),
            Parameter('min_frames', value=12), Parameter('publish_flow', value=1)])
        assert parameters.declare(node)[0] == [
            'parameter odometry_wait_ms: want at most 500.0, got 501.0',
            'parameter publish_flow: want boolean, got 1']
        settings = parameters.read(node)
        node.destroy_node()
    assert settings.sync_tolerance_ms == 40.0 and settings.min_frames == 12


def test_changes_are_taken_together():
    settings = parameters.settings_from({})
    changed = parameters.changed(settings, {'min_frames': 15, 'publish_flow': False})
    assert changed == replace(settings, min_frames=15, publish_flow=False)


def test_a_live_node_begins_with_what_a_replay_has():
    """With another tolerance a rig that fires its cameras in turn would be replayed otherwise."""
    settings = parameters.settings_from({})
    assert settings.sync_tolerance_ms * 1e6 == FrameBuffer(('front',)).tolerance_ns
    assert settings.plan_timeout_s * 1e9 == TIMEOUT_NS
    assert loading.predictor_settings(settings) == PredictorSettings()


def test_the_yaml_of_the_package_is_the_declarations():
    text = share_path('params', 'world_model.yaml').read_text(encoding='utf-8')
    assert text == parameters.default_yaml(), 'run: wm_ros params --yaml > params/world_model.yaml'
    values = yaml.safe_load(text)['/**']['ros__parameters']
    assert parameters.settings_from(values) == parameters.settings_from({})


def test_platform_overlays_name_parameters_that_exist():
    overlays = [path for path in share_path('params').glob('*.yaml')]
    assert overlays
    for path in overlays:
        values = yaml.safe_load(path.read_text(encoding='utf-8'))['/**']['ros__parameters']
        assert parameters.problems_of(values) == [], path


def test_the_readme_holds_the_table():
    readme = REPO / 'README.md'
    if not readme.exists():
        pytest.skip('no README.md in this checkout')
    assert parameters.markdown_table() in readme.read_text(encoding='utf-8')


def test_backends_are_those_that_can_be_created():
    assert parameters.BY_NAME['backend'].choices == ('auto', *BACKENDS)


def test_options_of_a_backend_are_yaml_beside_its_name():
    def options(backend, text):
        return loading.backend_options(parameters.settings_from(
            {'backend': backend, 'backend_options': text}))

    assert options('auto', '') == {}
    assert options('tensorrt', '{cache: /data/engines, build: false}') == {
        'cache': '/data/engines', 'build': False}
    for backend, text, found in (('auto', '{device: CPU}', "by name beside it, got 'auto'"),
                                 ('openvino', 'device', "got 'device'"),
                                 ('openvino', '{device: ', 'no YAML')):
        with pytest.raises(ValueError, match=f'^parameter backend_options: .*{found}'):
            options(backend, text)


def test_options_of_the_overlays_are_of_their_backends():
    seen = 0
    for path in share_path('params').glob('*.yaml'):
        values = yaml.safe_load(path.read_text(encoding='utf-8'))['/**']['ros__parameters']
        options = loading.backend_options(parameters.settings_from(values))
        if options:
            choice = BACKENDS[values['backend']]
            known = getattr(pytest.importorskip(choice.module), choice.cls).OPTIONS
            assert set(options) <= set(known), path
            seen += 1
    assert seen


def test_topics_of_those_that_are_listened_to():
    found = loading.topics_of(parameters.settings_from({
        'camera_info': 'ignore', 'image_transport': ['raw', 'compressed'],
        'compressed_topic': '/{camera}/jpeg'}), ('front', 'left'))
    assert found == {'camera_info_topic': {}, 'image_topic': {'front': 'front/image_raw'},
                     'compressed_topic': {'left': '/left/jpeg'}}
    one = loading.topics_of(parameters.settings_from({
        'compressed_topic': 'jpeg', 'camera_info_topic': 'info'}), ('front',))
    assert one['compressed_topic'] == {'front': 'jpeg'}


@pytest.mark.parametrize(('pattern', 'wanted'), [
    ('/jpeg', "want {camera} in it for 2 cameras, got '/jpeg'"),
    ('/{name}/jpeg', 'no other braces'), ('/{camera/jpeg', 'no other braces'),
    ('/{}/jpeg', 'no other braces'), ('/{camera.x}/jpeg', 'no other braces')])
def test_a_pattern_that_is_none_or_gives_cameras_one_topic_is_refused(pattern, wanted):
    """All cameras would be given the pictures of one, and the forecasts would be valid."""
    settings = parameters.settings_from({'compressed_topic': pattern})
    with pytest.raises(ValueError, match=re.escape(wanted)) as caught:
        loading.topics_of(settings, ('front', 'left'))
    assert str(caught.value).startswith('parameter compressed_topic: ')


def test_one_transport_for_all_or_one_each():
    settings = parameters.settings_from({'image_transport': ['raw', 'compressed']})
    assert settings.transport_of('b', ('a', 'b')) == 'compressed'
    assert parameters.settings_from({}).transport_of('b', ('a', 'b')) == 'compressed'
