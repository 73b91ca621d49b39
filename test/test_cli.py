"""The command line: what it lists, how it fails, and how soon it answers."""

import json
import subprocess
import sys
import time

import pytest

from wm_ros.cli import main as cli
from wm_ros.cli.environment import child_environment


def run(*arguments):
    return subprocess.run([sys.executable, '-m', 'wm_ros.cli.main', *arguments], text=True,
                          capture_output=True, timeout=300, env=child_environment())


def test_help_lists_the_commands_that_are_there_and_no_other():
    result = run('--help')
    assert result.returncode == 0
    listed = {line.split()[0] for line in result.stdout.split('commands:')[1].splitlines()
              if line.startswith('  ')}
    assert listed == set(cli.available())
    assert {'demo', 'sim', 'replay', 'report', 'params', 'evaluate'} <= listed


def test_a_command_without_its_module_is_not_listed(monkeypatch):
    monkeypatch.setitem(cli.COMMANDS, 'no_such_command', 'nothing')
    assert 'no_such_command' not in cli.available()


def test_help_imports_nothing_heavy():
    code = ('import sys; from wm_ros.cli.main import main; main(["--help"]); '
            'print([m for m in ("numpy", "cv2", "torch", "rclpy", "rosbags") if m in sys.modules])')
    result = subprocess.run([sys.executable, '-c', code], text=True, capture_output=True,
                            timeout=300, env=child_environment())
    assert result.stdout.splitlines()[-1] == '[]'


def test_help_costs_little_processor_time():
    def spent(code):
        program = f'import time; {code}; print(time.process_time())'
        return float(subprocess.run(
            [sys.executable, '-c', program], text=True, capture_output=True, timeout=300,
            env=child_environment()).stdout.splitlines()[-1])

    assert spent('from wm_ros.cli.main import main; main(["--help"])') < 0.3


@pytest.mark.parametrize('command', sorted(cli.available()))
def test_every_command_has_help(command):
    result = run(command, '--help')
    assert result.returncode == 0, result.stderr
    assert f'wm_ros {command}' in result.stdout


def test_wrong_usage_is_2(capsys):
    assert cli.main([]) == 2
    assert cli.main(['nonsense']) == 2
    assert "no command 'nonsense'" in capsys.readouterr().err
    assert cli.main(['sim', 'x', '--seed', 'many']) == 2
    assert cli.main(['replay', 'bag']) == 2


@pytest.mark.parametrize('arguments, named', [
    (['report', 'nowhere'], 'nowhere'),
    (['replay', 'nowhere', '--out', 'x'], 'nowhere'),
    (['demo', '--artifact', 'nothing-here'], 'nothing-here')])
def test_a_failure_is_one_line_and_1(arguments, named, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(arguments) == 1
    error = capsys.readouterr().err
    assert named in error and error.count('\n') == 1 and error.startswith('wm_ros ')


@pytest.mark.parametrize('arguments, named', [
    (['sim', 'x', '--seed', '1', '--seconds', '0'], 'seconds'),
    (['sim', 'x', '--seed', '1', '--quality', '0'], 'quality'),
    (['sim', 'x', '--seed', '1', '--seconds', 'nan'], 'seconds > 0'),
    (['sim', 'x', '--seed', '1', '--width', '-5'], 'width of 0'),
    (['sim', 'x', '--seed', '1', '--world', 'mars'], 'want one of sim, sim-hard'),
    (['kitti', 'nowhere'], 'want OUT_BAG'),
    (['mine', 'nowhere', '--out', 'x', '--top', '0'], '--top of at least 1'),
    (['mine', 'nowhere', '--out', 'x', '--after', 'nan'], '--after of 0 or more'),
    (['video', 'a', '--rig', 'r', '--out', 'x', '--start', '-5'], '--start -5: want 0 or more'),
    (['video', 'a', '--rig', 'r', '--out', 'x', '--seconds', 'nan'], '--seconds nan: want 0'),
    (['video', 'a', '--rig', 'r', '--out', 'x', '--stamp', 'inf'], '--stamp inf: want 0'),
    (['compare', 'a', 'b', '--expect', 'nan'], '--expect nan: want'),
    (['compare', 'a', 'b', '--expect', 'same'], '--expect same: want'),
    (['compare', 'a', 'b', '--top', '-1'], '--top -1: want 0')])
def test_wrong_options_are_one_line_and_2(arguments, named, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(arguments) == 2
    error = capsys.readouterr().err
    assert named in error and error.count('\n') == 1 and error.startswith('wm_ros ')


def test_params_prints_the_declarations(capsys):
    assert cli.main(['params', '--json']) == 0
    names = [entry['name'] for entry in json.loads(capsys.readouterr().out)]
    assert 'rig_file' in names and 'min_frames' in names
    assert cli.main(['params']) == 0
    shown = capsys.readouterr().out
    assert all(f'{name} (' in shown for name in names)


def test_progress_says_how_much_is_left(capsys, monkeypatch):
    from wm_ros.cli.progress import Progress
    clock = iter([0.0, 10.0, 40.0, 40.0])
    monkeypatch.setattr(time, 'monotonic', lambda: next(clock))
    progress = Progress('work', 'sets')
    progress(5, 20)
    progress(20, 20)
    assert capsys.readouterr().err.splitlines() == [
        'work: 5/20 sets, 30 s left', 'work: 20/20 sets, 40 s']
