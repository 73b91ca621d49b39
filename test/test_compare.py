"""Two sets of forecasts held against each other: by hand, and as a command."""

import dataclasses
import json

import numpy as np
import pytest
from bags import PERIOD_NS, START_NS, recording, rich_forecast, write_recording
from fakes import make_fake_artifact
from truths import make_agent, make_forecast, make_truth

from wm_ros.cli.main import main
from wm_ros.data.bag import TRUTH_TOPIC, BagWriter
from wm_ros.data.messages import bag_types
from wm_ros.data.truth import truth_message
from wm_ros.evaluate.compare import difference, paired
from wm_ros.replay import ForecastWriter


def test_a_forecast_is_identical_to_itself_whoever_made_it():
    a = rich_forecast()
    found = difference(a, dataclasses.replace(a, model_hash='cd' * 32, precision={}))
    assert found.identical and found.amount == 0
    agents = (dataclasses.replace(a.agents[0], score=np.nextafter(a.agents[0].score, 1)),
              *a.agents[1:])
    found = difference(a, dataclasses.replace(a, agents=agents))
    assert not found.identical and found.amount == 0


def test_differences_are_those_worked_out_by_hand():
    straight = np.zeros((6, 6, 2)) + (10.0, 0.0)
    a = make_forecast([make_agent((10, 0), trajectories=straight), make_agent((0, 9))])
    occupancy = a.occupancy_agents.copy()
    occupancy[:, :20, 0] = 254
    b = make_forecast([make_agent((10.6, 0.8), trajectories=straight + (3.0, 4.0))],
                      occupancy=occupancy, valid=False)
    found = difference(a, b)
    assert (found.agents, found.matched, found.valid) == ((2, 1), 1, (True, False))
    assert (found.place_m, found.path_m) == pytest.approx((1.0, 5.0))
    assert found.occupancy == pytest.approx(20 / 40_000)
    assert (found.occupied_iou, found.observed) == (0.0, 1.0)
    # Validity, one of three agents alone, paths beyond 2 m, no overlap, all observed alike.
    assert found.amount == pytest.approx(1 + 1 / 3 + 1 + 1 + 0)


def test_windows_are_paired_by_stamp():
    a, b = ([make_forecast(stamp_ns=stamp) for stamp in stamps] for stamps in (
        (1, 2, 4), (2, 3, 4, 5)))
    got = [tuple(side and side.stamp_ns for side in pair) for pair in paired(iter(a), iter(b))]
    assert got == [(1, None), (2, 2), (None, 3), (4, 4), (None, 5)]


def write_forecasts(path, shift, n=4, truth=False):
    """Write n windows with one agent, `shift` m further left in each window than in the last."""
    with BagWriter(path) as writer:
        out = ForecastWriter(writer, flow=False, grids=False)
        for i in range(n):
            stamp = START_NS + i * PERIOD_NS
            out.write(make_forecast([make_agent((10, shift * i))], stamp_ns=stamp))
            if truth:
                writer.write(TRUTH_TOPIC, stamp, truth_message(
                    bag_types(), make_truth([[10, 0, 0]], stamp_ns=stamp)))
    return str(path)


def test_bags_are_compared_and_the_worst_window_comes_first(tmp_path, capsys):
    a = write_forecasts(tmp_path / 'a', 0.0, truth=True)
    b = write_forecasts(tmp_path / 'b', 0.9)
    assert main(['compare', a, b, '--json', str(tmp_path / 'c.json'), '--top', '2', '--expect',
                 '20']) == 3
    report = json.loads((tmp_path / 'c.json').read_text())
    assert (report['windows'], report['identical'], report['agents']) == (4, 1, [4, 4])
    stamps = [window['stamp_ns'] for window in report['most_different']]
    assert stamps == [START_NS + i * PERIOD_NS for i in (3, 2, 1, 0)]
    assert report['most_different'][0]['matched'] == 0      # 2.7 m apart
    # Three of four stay within 2 m of the truth.
    assert report['scores']['spa_top6']['difference'] == pytest.approx(-25.0)
    out = capsys.readouterr().out
    assert 'spa_top6              100.000   75.000  -25.000' in out
    assert 'B is lower in spa_top6 by 25.00' in out


def test_a_recording_is_not_scored_against_the_truth_of_another(tmp_path):
    for side, shift in (('a', 0.0), ('b', 0.9)):
        for name in ('one', 'two'):
            write_forecasts(tmp_path / side / name, shift)
    truth = write_forecasts(tmp_path / 'in' / 'one', 0.0, truth=True)
    sides = ['compare', str(tmp_path / 'a'), str(tmp_path / 'b'), '--json', str(tmp_path / 'c')]
    assert main([*sides, '--bag', truth]) == 0
    report = json.loads((tmp_path / 'c').read_text())
    assert (report['windows'], report['scored_recordings']) == (8, 1)   # stamps are the same
    other = (tmp_path / 'in' / 'one').rename(tmp_path / 'in' / 'named_otherwise')
    assert main([*sides, '--bag', str(other)]) == 0
    assert json.loads((tmp_path / 'c').read_text())['scored_recordings'] == 0
    sides[1:3] = str(tmp_path / 'a' / 'one'), str(tmp_path / 'b' / 'one')
    assert main([*sides, '--bag', str(other)]) == 0
    assert json.loads((tmp_path / 'c').read_text())['scored_recordings'] == 1


def test_what_is_expected_decides_the_exit_code(tmp_path, capsys):
    a, b = (write_forecasts(tmp_path / name, shift) for name, shift in (('a', 0.0), ('b', 0.9)))
    assert main(['compare', a, a, '--expect', 'identical']) == 0
    assert main(['compare', a, b]) == 0
    assert main(['compare', a, b, '--expect', 'identical']) == 3
    assert main(['compare', a, b, '--expect', '1']) == 1
    assert 'no truth to score against' in capsys.readouterr().err
    assert main(['compare', a, str(tmp_path / 'none')]) == 1


def test_artifacts_are_run_over_bags(tmp_path, capsys):
    pytest.importorskip('openvino')
    artifact = make_fake_artifact(tmp_path / 'artifact')
    stricter = make_fake_artifact(tmp_path / 'stricter', score_threshold=0.8)
    bag = str(write_recording(tmp_path / 'in', recording(18)))
    assert main(['compare', str(artifact), f'{stricter}@openvino:rollout_precision=f32', '--bag',
                 bag, '--threads', '1', '--json', str(tmp_path / 'c.json')]) == 0
    report = json.loads((tmp_path / 'c.json').read_text())
    assert report['windows'] == 18 and report['scores'] is None
    assert report['agents'][0] > report['agents'][1] > 0
    assert report['agents_matched'] == report['agents'][1]
    assert 'no truth in these bags' in capsys.readouterr().out
    assert main(['compare', str(artifact), str(stricter)]) == 2
    assert 'want --bag BAG' in capsys.readouterr().err


def test_recordings_are_told_apart_by_their_whole_names(tmp_path, capsys):
    pytest.importorskip('openvino')
    artifact = str(make_fake_artifact(tmp_path / 'artifact'))
    for day in ('day.1', 'day.2'):
        write_recording(tmp_path / 'in' / day, recording(2))
    twice = write_recording(tmp_path / 'other' / 'day.1', recording(2))
    one = ['compare', artifact, artifact, '--threads', '1', '--bag', str(tmp_path / 'in')]
    assert main([*one, '--keep', str(tmp_path / 'kept')]) == 0
    assert {path.name for path in (tmp_path / 'kept').iterdir()} == {
        f'{side}_{day}' for side in 'ab' for day in ('day.1', 'day.2')}
    assert main([*one, str(twice)]) == 1
    assert 'two recordings named day.1' in capsys.readouterr().err


def test_one_name_in_two_forms_is_two_recordings(tmp_path, capsys):
    artifact = str(make_fake_artifact(tmp_path / 'artifact'))
    folder = write_recording(tmp_path / 'in' / 'day', recording(2))
    next(folder.glob('*.mcap')).rename(tmp_path / 'in' / 'day.mcap')
    write_recording(tmp_path / 'new', recording(2)).rename(tmp_path / 'in' / 'day2')
    (tmp_path / 'in' / 'day2' / 'new.mcap').rename(folder / 'day.mcap')
    assert main(['compare', artifact, artifact, '--bag', str(tmp_path / 'in')]) == 1
    assert 'two recordings named day, want names' in capsys.readouterr().err
