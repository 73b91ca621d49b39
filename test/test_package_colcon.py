"""The package built by colcon from a copy of its sources, as in a ROS workspace."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from wm_ros.cli.environment import child_environment

REPO = Path(__file__).resolve().parent.parent
SOURCES = ('package.xml', 'CMakeLists.txt', 'LICENSE', 'msg', 'wm_ros', 'scripts', 'launch',
           'params', 'rviz', 'foxglove', 'models')

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec('colcon_ros') is None, reason='colcon is not installed here')


@pytest.mark.parametrize('option', [(), ('--symlink-install',)], ids=['copy', 'symlink'])
def test_colcon_builds_a_workspace_that_runs(tmp_path, option):
    source = tmp_path / 'src' / 'wm_ros'
    for name in SOURCES:
        if (REPO / name).is_dir():
            shutil.copytree(REPO / name, source / name,
                            ignore=shutil.ignore_patterns('__pycache__'))
        elif (REPO / name).is_file():
            source.mkdir(parents=True, exist_ok=True)
            shutil.copy(REPO / name, source / name)
    environment = child_environment(COLCON_LOG_PATH=str(tmp_path / 'log'))
    environment.setdefault('CMAKE_PREFIX_PATH', sys.prefix)
    environment['PATH'] = f'{sys.prefix}/bin{os.pathsep}{environment["PATH"]}'
    build = subprocess.run(
        ['colcon', 'build', *option, '--cmake-args', '-DBUILD_TESTING=OFF',
         f'-DPython3_EXECUTABLE={sys.executable}'],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=1800)
    assert build.returncode == 0, build.stdout + build.stderr

    script = ('. install/setup.sh && exec "$0" -c "'
              'import rclpy, wm_ros.msg, wm_ros.types, wm_ros.share; '
              "print(wm_ros.types.__file__, wm_ros.share.share_path('params'), "
              'wm_ros.msg.EgoPlan().source)"')
    run = subprocess.run(['sh', '-c', script, sys.executable], cwd=tmp_path, env=environment,
                         capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    module, params, source = run.stdout.split()
    assert module.startswith(str(tmp_path / 'install'))
    assert params == str(tmp_path / 'install' / 'wm_ros' / 'share' / 'wm_ros' / 'params')
    assert source == '0'
    for wanted in ('train/runs.yaml', 'evaluate/bench_v1.json', 'evaluate/page/page.html'):
        assert (Path(module).parent / wanted).is_file()
    assert (Path(params).parent / 'foxglove' / 'world_model.json').is_file()
    assert os.access(tmp_path / 'install' / 'wm_ros' / 'lib' / 'wm_ros' / 'world_model', os.X_OK)
