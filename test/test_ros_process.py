"""The executable as a process: no torch in it, and it ends when it is told to."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fakes import make_fake_artifact, make_rig

pytest.importorskip('rclpy')

from ros_drive import Drive, Ros, domain_id, wait_for, write_rig

from wm_ros.cli.environment import child_environment

#: Runs the node and, when it ends, says which heavy modules it had imported.
RUN = """
import os, sys
from wm_ros.ros.main import run
code = run()
print('imported:', sorted({'torch', 'onnx', 'rosbags', 'matplotlib'} & set(sys.modules)))
sys.stdout.flush()
os._exit(code)
"""


#: The same with a library that compiles for a minute, deaf to Python.
COMPILE = """
import ctypes
from wm_ros.ros import main
signals = main._stop_on_signals
def then():
    stop = signals()    # before any library starts a thread, as without this test
    import wm_ros.ros.loading as loading
    def create_backend(*args, **options):
        print('compiling', flush=True)
        ctypes.CDLL(None).sleep(60)
    loading.create_backend = create_backend
    return stop
main._stop_on_signals = then
main.main()
"""


@pytest.fixture
def process(tmp_path):
    """Yield a function that starts the node in a process of its own."""
    started = []

    def start(log, program=('-c', RUN), **values):
        values = {'autostart': True, 'threads': 1, 'rig_file': write_rig(make_rig(2), tmp_path),
                  **values}
        arguments = [part for name, value in values.items()
                     for part in ('-p', f'{name}:={str(value).lower()}' if isinstance(value, bool)
                                  else f'{name}:={value}')]
        child = subprocess.Popen(
            [sys.executable, *program, '--ros-args', *arguments], stdout=log,
            stderr=subprocess.STDOUT,
            env=child_environment(ROS_DOMAIN_ID=str(domain_id()), PYTHONUNBUFFERED='1'))
        started.append(child)
        return child

    yield start
    for child in started:
        if child.poll() is None:
            child.kill()
            child.wait()


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_it_ends_within_two_seconds_during_inference_and_without_torch(process, tmp_path, number):
    artifact = make_fake_artifact(tmp_path / 'artifact')
    path = tmp_path / 'log'
    with path.open('wb') as log, Ros() as outside:
        child = process(log, artifact=artifact)
        drive = Drive(outside, make_rig(2))
        drive.wait_connected(20.0)
        drive.calibrate()
        drive.run(3)
        for _ in range(3):
            drive.send_set()
        began = time.monotonic()
        os.kill(child.pid, number)
        assert child.wait(5.0) == 0
        assert time.monotonic() - began < 2.0
    assert 'imported: []' in path.read_text()


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_it_ends_within_two_seconds_while_the_model_compiles(process, tmp_path, number):
    path = tmp_path / 'log'
    with path.open('wb') as log:
        child = process(log, ['-c', COMPILE], artifact=make_fake_artifact(tmp_path / 'artifact'))
        wait_for(lambda: 'compiling' in path.read_text(), 30.0, 'the compilation')
        began = time.monotonic()
        child.send_signal(number)
        child.wait(10.0)
        assert time.monotonic() - began < 2.0


def test_bad_files_leave_a_process_that_says_so_and_still_ends(process, tmp_path):
    path = tmp_path / 'log'
    with path.open('wb') as log:
        child = process(log, ['-m', 'wm_ros.ros.main'], artifact=tmp_path / 'nothing')
        wait_for(lambda: 'manifest.json: No such file' in path.read_text(), 20.0, 'the cause')
        assert child.poll() is None
        child.send_signal(signal.SIGINT)
        assert child.wait(2.0) == 0


def test_only_this_folder_imports_ros():
    """Only wm_ros/ros imports ROS, so that replay and evaluation run without it."""
    import ast
    root = Path(__file__).resolve().parent.parent / 'wm_ros'
    ros = ('rclpy', 'sensor_msgs', 'nav_msgs', 'geometry_msgs', 'std_msgs', 'diagnostic_msgs',
           'visualization_msgs', 'builtin_interfaces', 'lifecycle_msgs', 'rcl_interfaces',
           'tf2_ros')
    found = []
    for path in root.rglob('*.py'):
        if path.relative_to(root).parts[0] in ('ros', 'msg'):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
            names = ([alias.name for alias in node.names] if isinstance(node, ast.Import)
                     else [node.module or ''] if isinstance(node, ast.ImportFrom) else [])
            found += [f'{path.name}: {name}' for name in names
                      if name.split('.')[0] in ros or name.startswith('wm_ros.msg')]
    assert found == []
