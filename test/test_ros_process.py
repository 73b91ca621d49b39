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

from ros_drive import PATIENCE_S, Drive, Ros, wait_for, write_rig

from wm_ros.cli.environment import child_environment
from wm_ros.ros.main import EXIT_S

#: Runs the node, without the alarm that ends it after two seconds on a busy machine as well, and
#: says in the end which heavy modules it had imported.
RUN = """
import os, sys
from wm_ros.ros import main
main.EXIT_S = 600
code = main.run()
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
        ctypes.CDLL(None).sleep(100)
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
            env=child_environment(PYTHONUNBUFFERED='1'))
        started.append(child)
        return child

    yield start
    for child in started:
        if child.poll() is None:
            child.kill()
            child.wait()


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_it_ends_by_itself_during_inference_and_without_torch(process, tmp_path, number):
    """In a tenth of a second on a quiet machine, and much sooner than it starts on any."""
    artifact = make_fake_artifact(tmp_path / 'artifact')
    path = tmp_path / 'log'
    with path.open('wb') as log, Ros() as outside:
        began = time.monotonic()
        child = process(log, artifact=artifact, set_deadline_ms=2000.0)
        drive = Drive(outside, make_rig(2))
        drive.wait_connected()
        start_s = time.monotonic() - began
        drive.calibrate()
        drive.prime()
        for _ in range(3):
            drive.send_set()
        began = time.monotonic()
        os.kill(child.pid, number)
        assert child.wait(PATIENCE_S) == 0
        assert time.monotonic() - began < max(EXIT_S, start_s / 2)
    assert 'imported: []' in path.read_text()


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_its_alarm_ends_it_within_two_seconds_while_the_model_compiles(process, tmp_path, number):
    """The kernel's alarm, set as soon as the signal comes: no library can hold it up."""
    path = tmp_path / 'log'
    with path.open('wb') as log:
        child = process(log, ['-c', COMPILE], artifact=make_fake_artifact(tmp_path / 'artifact'))
        wait_for(lambda: 'compiling' in path.read_text(), PATIENCE_S, 'the compilation')
        began = time.monotonic()
        child.send_signal(number)
        assert child.wait(PATIENCE_S) == -signal.SIGALRM
        assert EXIT_S < 2.0
        assert time.monotonic() - began < PATIENCE_S / 2     # not the minute that it compiles for


def test_bad_files_leave_a_process_that_says_so_and_still_ends(process, tmp_path):
    path = tmp_path / 'log'
    with path.open('wb') as log:
        child = process(log, artifact=tmp_path / 'nothing')
        wait_for(lambda: 'manifest.json: No such file' in path.read_text(), PATIENCE_S, 'the cause')
        assert child.poll() is None
        child.send_signal(signal.SIGINT)
        assert child.wait(PATIENCE_S) == 0


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
