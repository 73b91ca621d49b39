"""The package as it is described, and as it is installed."""

import ast
import importlib.metadata
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
import yaml

import wm_ros.msg
from wm_ros.cli.environment import child_environment, prepare
from wm_ros.ros.parameters import BY_NAME
from wm_ros.share import share_path

REPO = Path(__file__).resolve().parent.parent
PACKAGE = ElementTree.parse(REPO / 'package.xml').getroot()
MESSAGES = sorted((REPO / 'msg').glob('*.msg'))
CMAKE = (REPO / 'CMakeLists.txt').read_text()
#: Where the messages, and with them everything else, are installed.
PREFIX = next(folder for folder in Path(wm_ros.msg.__file__).parents
              if (folder / 'share' / 'wm_ros' / 'package.xml').is_file())
#: The Python module of a ROS package, where it has another name.
PACKAGE_OF = {'tf2_ros': 'tf2_ros_py', 'ament_index_python': 'launch'}


def declared(*kinds: str) -> set[str]:
    """Return what package.xml depends on in the given ways."""
    return {element.text for kind in kinds for element in PACKAGE.findall(kind)}


def requirements(name: str) -> dict[str, str]:
    """Return package -> version of one requirements file; every line has to be exact."""
    found = {}
    for line in (REPO / 'requirements' / name).read_text().splitlines():
        if line and not line.startswith(('#', '-c ', '-r ')):
            match = re.fullmatch(r'([\w.-]+)(?:\[\w+\])?==([\w.+]+)', line)
            assert match, f'{name}: {line!r} is not an exact version'
            found[match[1].lower().replace('_', '-')] = match[2]
    return found


def test_package_xml_is_complete():
    assert PACKAGE.get('format') == '3'
    assert PACKAGE.findtext('name') == 'wm_ros'
    assert PACKAGE.findtext('license') == 'Apache-2.0'
    assert re.fullmatch(r'\d+\.\d+\.\d+', PACKAGE.findtext('version'))
    assert PACKAGE.findtext('export/build_type') == 'ament_cmake'
    assert PACKAGE.findtext('member_of_group') == 'rosidl_interface_packages'
    keys = [element.text for element in PACKAGE if element.tag.endswith('depend')]
    assert all(re.fullmatch(r'[a-z][a-z0-9_-]+', key) for key in keys)
    assert len(keys) == len(set(keys))


def test_the_licence_is_the_text_that_is_named():
    text = (REPO / PACKAGE.find('license').get('file')).read_text()
    assert 'Apache License' in text and 'END OF TERMS AND CONDITIONS' in text


def test_the_installed_version_is_that_of_package_xml():
    installed = ElementTree.parse(PREFIX / 'share' / 'wm_ros' / 'package.xml').getroot()
    assert installed.findtext('version') == PACKAGE.findtext('version')
    assert importlib.metadata.version('wm_ros') == PACKAGE.findtext('version')


def test_every_message_is_generated_and_importable():
    listed = re.findall(r'msg/(\w+)\.msg', CMAKE)
    assert listed == [path.stem for path in MESSAGES]
    for name in listed:
        assert hasattr(wm_ros.msg, name)


def test_what_messages_are_made_of_is_declared():
    used = {match for path in MESSAGES
            for match in re.findall(r'^(\w+)/\w+', path.read_text(), flags=re.MULTILINE)}
    generated_from = CMAKE.partition('DEPENDENCIES')[2].partition(')')[0].split()
    assert used <= set(generated_from)
    assert set(generated_from) <= declared('depend')
    assert all(f'find_package({name} REQUIRED)' in CMAKE for name in generated_from)


def test_ros_packages_that_are_imported_are_declared():
    imported = set()
    for path in [*(REPO / 'wm_ros').rglob('*.py'), *(REPO / 'launch').glob('*.py')]:
        for node in ast.walk(ast.parse(path.read_text())):
            names = ([alias.name for alias in node.names] if isinstance(node, ast.Import)
                     else [node.module] if isinstance(node, ast.ImportFrom) else [])
            imported |= {name.split('.')[0] for name in names}
    ros = {name for name in imported
           if name.startswith(('rclpy', 'tf2_', 'launch', 'ament_', 'cv_bridge'))
           or name.endswith(('_msgs', '_interfaces'))}
    assert 'rclpy' in ros
    missing = {PACKAGE_OF.get(name, name) for name in ros} - declared('depend', 'exec_depend')
    assert missing == set()


def test_requirements_are_exact_and_named_once():
    files = {name: requirements(name) for name in ('run.txt', 'train.txt', 'test.txt',
                                                   'constraints.txt')}
    names = [package for file in files.values() for package in file]
    assert sorted(names) == sorted(set(names))
    assert not {'torch', 'onnxruntime'} & set(files['run.txt'])


def test_this_environment_has_the_pinned_versions():
    pinned = requirements('run.txt')
    installed = {found.name.lower().replace('_', '-'): found.version
                 for found in importlib.metadata.distributions()}
    if installed.get('ros-rclpy') != pinned['ros-rclpy']:
        pytest.skip('this environment has another ROS, with its own versions')
    assert {name: installed.get(name) for name in pinned} == pinned


@pytest.mark.parametrize('path', sorted((REPO / 'params').glob('*.yaml')), ids=lambda p: p.stem)
def test_parameter_files_hold_parameters_of_the_node(path):
    values = yaml.safe_load(path.read_text())['/**']['ros__parameters']
    assert values
    for name, value in values.items():
        assert name in BY_NAME, f'{path.name}: {name}'
        assert BY_NAME[name].problem(value) is None


def test_rig_files_are_the_rigs_of_the_simulator():
    import numpy as np

    from wm_ros.rig import load_rig
    from wm_ros.sim.rigs import rig

    paths = sorted((REPO / 'params' / 'rigs').glob('*.yaml'))
    assert [path.stem for path in paths] == ['front', 'kitti', 'surround']
    for path in paths:
        found, wanted = load_rig(path), rig(path.stem)
        assert found.names == wanted.names
        for a, b in zip(found.cameras, wanted.cameras, strict=True):
            assert (a.width, a.height, a.distortion) == (b.width, b.height, b.distortion)
            np.testing.assert_allclose(a.k, b.k, atol=1e-5)
            np.testing.assert_allclose(a.base_from_camera, b.base_from_camera, atol=2e-6)


def test_files_are_found_and_a_missing_one_is_named():
    assert share_path('msg', 'EgoPlan.msg').is_file()
    assert share_path('params', 'world_model.yaml').is_file()
    with pytest.raises(FileNotFoundError, match='no_such_file'):
        share_path('params', 'no_such_file')


def test_the_installation_is_whole():
    """What launch files, `ros2 run` and the node look for, whoever installed it."""
    for wanted in ('share/wm_ros/launch/world_model.launch.py',
                   'share/wm_ros/params/rigs/surround.yaml',
                   'share/wm_ros/params/fastdds_large_messages.xml',
                   'share/wm_ros/models/world-model/manifest.json',
                   'share/wm_ros/rviz/world_model.rviz', 'share/wm_ros/foxglove/world_model.json',
                   'share/ament_index/resource_index/packages/wm_ros',
                   'lib/wm_ros/world_model', 'bin/wm_ros'):
        assert (PREFIX / wanted).is_file()


def test_files_beside_the_modules_are_installed():
    """What Python files read from their own folder: pages, the frozen benchmark, training runs."""
    files = [path.relative_to(REPO / 'wm_ros') for path in (REPO / 'wm_ros').rglob('*')
             if path.suffix in ('.css', '.html', '.js', '.json', '.yaml')]
    assert {'page.html', 'bench_v1.json', 'runs.yaml'} <= {path.name for path in files}
    missing = [path for path in files
               if not any(Path(folder, path).is_file() for folder in wm_ros.__path__)]
    assert missing == []


def test_the_executable_starts_without_an_activated_environment(tmp_path):
    environment = {'HOME': str(tmp_path), 'PATH': '/usr/bin:/bin'}
    if 'ROS_DISTRO' in os.environ:      # a sourced ROS is needed where it is not in the prefix
        environment = dict(os.environ)
    run = subprocess.run(
        [PREFIX / 'lib' / 'wm_ros' / 'world_model', '--ros-args', '-p', 'mixed:=[1, a]'],
        env=environment, capture_output=True, text=True, timeout=300)
    # The arguments of ROS are parsed by rclpy itself, so it was imported.
    assert run.returncode != 0 and 'mixed' in run.stderr


def test_a_child_finds_rclpy_without_the_library_path_of_its_parent(tmp_path):
    """The wheels' own restart does not happen in a child that inherits its flag."""
    environment = child_environment(LD_LIBRARY_PATH='')
    assert '_ROS_WHEELS_BOOTSTRAP_COMPLETE' not in environment
    run = subprocess.run([sys.executable, '-c', 'import rclpy, wm_ros.msg; print("in")'],
                         env=environment, cwd=REPO, capture_output=True, text=True, timeout=300)
    assert run.stdout == 'in\n', run.stderr


def test_a_sourced_ros_is_left_alone(monkeypatch):
    monkeypatch.setenv('AMENT_PREFIX_PATH', '/somewhere')
    prepare()
    assert os.environ['AMENT_PREFIX_PATH'] == '/somewhere'


def test_the_command_line_knows_its_commands():
    run = subprocess.run([sys.executable, '-m', 'wm_ros.cli.main', '--help'],
                         env=child_environment(), capture_output=True, text=True, timeout=300)
    assert run.returncode == 0
    assert 'demo' in run.stdout and 'replay' in run.stdout
