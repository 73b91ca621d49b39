"""Launch files: against the parameters of the node always, and run where launch is installed."""

import ast
import importlib.util
import re
from pathlib import Path

import pytest
import yaml

from wm_ros.ros.parameters import BY_NAME
from wm_ros.share import share_path

LAUNCH = Path(__file__).resolve().parent.parent / 'launch'
#: What the issue of a fleet asks for; a rename would break somebody's scripts.
WANTED = {'params_file', 'rig', 'backend', 'namespace', 'use_sim_time', 'respawn', 'log_level',
          'autostart'}

needs_launch = pytest.mark.skipif(
    importlib.util.find_spec('launch_ros') is None,
    reason='launch_ros is not installed here (it is not on PyPI)')


def constants(name: str) -> dict:
    """Return the literal values that a launch file assigns at its top."""
    found: dict = {}
    for node in ast.parse((LAUNCH / name).read_text()).body:
        if isinstance(node, ast.Assign):
            target = node.targets[0].id
            try:
                value = eval(compile(ast.Expression(node.value), name, 'eval'), {}, found)
            except NameError:           # a call, such as the share folder
                continue
            found[target] = value
    return found


WORLD_MODEL = constants('world_model.launch.py')


def test_arguments_are_there_and_described():
    arguments = WORLD_MODEL['ARGUMENTS']
    assert arguments.keys() >= WANTED
    for name, (default, description, *choices) in arguments.items():
        assert description.endswith('.'), name
        assert not choices or default in choices[0], name


def test_arguments_set_parameters_that_the_node_has():
    assert WORLD_MODEL['PARAMETERS'].keys() <= WORLD_MODEL['ARGUMENTS'].keys()
    assert set(WORLD_MODEL['PARAMETERS'].values()) <= BY_NAME.keys()
    assert BY_NAME['autostart'].kind == 'boolean'
    # An argument named like a parameter is that parameter.
    for name in WORLD_MODEL['ARGUMENTS'].keys() & BY_NAME.keys():
        assert WORLD_MODEL['PARAMETERS'].get(name, name) == name


def test_platforms_are_the_overlays_in_params():
    platforms = set(WORLD_MODEL['ARGUMENTS']['platform'][2]) - {''}
    overlays = {path.stem for path in share_path('params').glob('*.yaml')} - {'world_model'}
    assert platforms == overlays


def test_files_and_topics_that_are_named_exist():
    source = (LAUNCH / 'world_model.launch.py').read_text()
    for name in re.findall(r"'params', '([\w.]+)'", source):
        assert share_path('params', name).exists()
    node = (LAUNCH.parent / 'wm_ros' / 'ros' / 'node.py').read_text()
    topics = re.findall(r"remappings=\[\('(\w+)'", source)
    assert topics and all(f"'{topic}'" in node for topic in topics)


def test_replay_does_not_take_names_of_the_launch_file_that_it_includes():
    assert not constants('replay.launch.py')['ARGUMENTS'].keys() & WORLD_MODEL['ARGUMENTS'].keys()


def node_of(**values: str):
    """Return the launch_ros node that the launch file makes for these arguments."""
    from launch.launch_description_sources import PythonLaunchDescriptionSource
    from launch_ros.actions import Node

    from launch import LaunchContext

    source = PythonLaunchDescriptionSource(str(LAUNCH / 'world_model.launch.py'))
    context = LaunchContext()
    context.launch_configurations.update(values)
    actions = []
    for entity in source.get_launch_description(context).entities:
        actions += entity.execute(context) or []
    return context, next(action for action in actions if isinstance(action, Node)), actions


@needs_launch
def test_defaults_start_the_node_with_its_own_parameters():
    context, node, actions = node_of()
    assert node.node_package == 'wm_ros' and node.node_executable == 'world_model'
    # What is launched after it keeps its own environment.
    assert {type(action).__name__ for action in actions} <= {'DeclareLaunchArgument', 'Node'}


@needs_launch
def test_arguments_reach_the_node():
    context, node, _ = node_of(rig='surround', backend='onnxruntime', namespace='car1',
                               platform='cpu', autostart='false')
    node._perform_substitutions(context)
    assert node.node_name == '/car1/world_model'
    values: dict = {}
    for parameters, is_file in node._Node__expanded_parameter_arguments:
        assert is_file
        for section in yaml.safe_load(Path(parameters).read_text()).values():
            values.update(section['ros__parameters'])
    assert values['backend'] == 'onnxruntime' and values['autostart'] is False
    assert Path(values['rig_file']).name == 'surround.yaml' and Path(values['rig_file']).is_file()


@needs_launch
def test_a_value_that_is_not_offered_is_refused():
    with pytest.raises(RuntimeError, match='respawn'):
        node_of(respawn='maybe')
