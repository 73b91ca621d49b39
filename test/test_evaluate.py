"""`wm_ros evaluate` from end to end on simulated drives, with a tiny artifact."""

import json

import numpy as np
import pytest
from fakes import make_fake_artifact

from wm_ros.cli import main as cli
from wm_ros.data.simulator import SimulatedDrive
from wm_ros.evaluate.datasets import parse_seeds
from wm_ros.image import model_camera
from wm_ros.sim.rigs import rig

SHORT = ['--seconds', '2.2', '--rig', 'front']


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """Keep rendered drives out of the home folder."""
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))


@pytest.fixture(scope='module')
def artifact(tmp_path_factory):
    return str(make_fake_artifact(tmp_path_factory.mktemp('artifact'), score_threshold=0.5))


def test_a_drive_is_rendered_at_the_models_input_size():
    samples = list(SimulatedDrive(900_000, 0.4, 'sim', 'front').samples(2, 1))
    assert [s.truth is not None for s in samples] == [False, True, False, True]
    for i, sample in enumerate(samples):
        assert sample.frames.frames['front'].image.shape == (160, 400, 3)
        assert sample.frames.stamp_ns == sample.ego.stamp_ns == samples[0].ego.stamp_ns + i * 10**8
    truth = samples[1].truth
    assert truth.stamp_ns == samples[1].frames.stamp_ns
    assert np.isfinite(truth.futures).all()
    assert 0 < truth.visible.sum() < len(truth.ids)
    again = list(SimulatedDrive(900_000, 0.4, 'sim', 'front').samples(2, 1))
    np.testing.assert_array_equal(again[3].frames.frames['front'].image,
                                  samples[3].frames.frames['front'].image)


def test_the_smaller_camera_is_the_models_own():
    drive = SimulatedDrive(900_000, 0.1)
    for small, full in zip(drive.rig.cameras, rig('surround').cameras, strict=True):
        seen = model_camera(full)
        # Mapping it into the input once more moves it by less than a row.
        twice = model_camera(small)
        np.testing.assert_allclose(twice.k, seen.k, atol=1e-9)
        assert twice.rows == (0, 160)
    assert drive.rig.names == rig('surround').names


def test_a_rig_that_does_not_fill_the_input_keeps_its_size():
    assert SimulatedDrive(900_000, rig_name='kitti').rig.cameras[0].width == 1242
    assert SimulatedDrive(900_000, full_size=True).rig.cameras[0].width == 1600


def test_two_workers_report_what_one_reports(artifact, tmp_path, capsys):
    reports = []
    for workers in ('1', '2'):
        out = tmp_path / f'{workers}.json'
        assert cli.main(['evaluate', '--dataset', 'sim', '--seeds', '900000:900002', *SHORT,
                         '--artifact', artifact, '--workers', workers, '--json', str(out)]) == 0
        reports.append(json.loads(out.read_text()))
    assert reports[0] == reports[1]
    report = reports[0]
    # 22 frames: forecasts at frames 15 and 20 of both drives.
    assert (report['n_drives'], report['n_forecasts'], report['n_invalid']) == (2, 4, 0)
    assert report['n_agents'] > 4
    assert report['threshold'] == 0.5
    assert (report['dataset'], report['seeds'], report['rig']) == ('sim', '900000:900002', 'front')
    assert 0 < report['oracle_cv_spa'] <= 100
    assert report['oracles']['oracle_static']['spa_top1'] <= 100
    assert 'SPA top-6, 30 m' in capsys.readouterr().out


def test_nothing_is_chosen_where_no_threshold_is_precise(artifact, tmp_path, capsys):
    out = tmp_path / 'choices.json'
    code = cli.main(['evaluate', '--choose', str(out), '--seeds', '800000:800001', *SHORT,
                     '--artifact', artifact, '--workers', '1'])
    # A tiny artifact that sees nothing cannot be precise: that is said, not papered over.
    assert code == 1 and not out.exists()
    told = capsys.readouterr()
    assert 'want at least 0.85' in told.err
    assert told.out.split()[:2] == ['threshold', 'SPA']


@pytest.mark.parametrize('seeds', ['900000:900002', '799999:800002', '899999:900001'])
def test_nothing_is_chosen_on_drives_for_training_or_for_scores(artifact, tmp_path, capsys, seeds):
    out = tmp_path / 'choices.json'
    assert cli.main(['evaluate', '--choose', str(out), '--seeds', seeds, *SHORT, '--no-cache',
                     '--artifact', artifact, '--workers', '1']) == 1
    assert f'--choose on seeds {seeds}: want seeds from 800000 to 899999' in capsys.readouterr().err
    assert not out.exists()


def test_wrong_arguments_are_named(artifact, capsys):
    for wrong, code, message in (
            (['--seeds', '5:5'], 2, 'want A:B with A < B'), (['--seeds', '5'], 2, 'want A:B'),
            (['--dataset', 'moon'], 2, 'want sim, sim-hard'),
            (['--choose', 'x', '--dataset', 'moon'], 2, 'want sim, sim-hard'),
            (['--every', '0'], 2, '--every 0: want at least 1'),
            (['--workers', '-1'], 2, '--workers -1: want at least 1'),
            (['--seconds', 'nan'], 2, '--seconds nan: want more than 0'),
            (['--dataset', 'bag:/nowhere'], 1, '/nowhere'),
            (['--artifact', '/nowhere'], 1, '/nowhere')):
        assert cli.main(['evaluate', '--artifact', artifact, *SHORT, *wrong]) == code
        error = capsys.readouterr().err
        assert message in error and error.count('\n') == 1
    assert parse_seeds('900000:900003') == [900_000, 900_001, 900_002]


def test_rendered_once_scored_alike_and_shown(artifact, tmp_path, capsys, monkeypatch):
    cache, page = tmp_path / 'drives', tmp_path / 'page.html'
    one = ['evaluate', '--seeds', '900000:900001', *SHORT, '--workers', '1', '--cache', str(cache)]
    assert cli.main([*one, '--render-only']) == 0
    assert '1 drives' in capsys.readouterr().out
    files = list(cache.rglob('*.drive'))
    assert [path.name for path in files] == ['900000.drive']
    monkeypatch.setattr('wm_ros.data.render_cache.render', lambda *_: pytest.fail('again'))
    assert cli.main([*one, '--artifact', artifact, '--against', f'{artifact}@auto', '--json',
                     str(tmp_path / 'cached.json'), '--html', str(page)]) == 0
    monkeypatch.undo()
    assert 'against artifact' in capsys.readouterr().out
    assert page.read_text().startswith('<!doctype html>')
    assert cli.main([*one, '--artifact', artifact, '--no-plan', '--json',
                     str(tmp_path / 'unplanned.json')]) == 0
    assert 'without the ego plan' in capsys.readouterr().out
    one[-2:] = ['--no-cache']
    assert cli.main([*one, '--artifact', artifact, '--json', str(tmp_path / 'fresh.json')]) == 0
    cached, fresh, unplanned = (json.loads((tmp_path / f'{name}.json').read_text())
                                for name in ('cached', 'fresh', 'unplanned'))
    same = cached.pop('against')
    assert fresh.pop('against') == []
    assert cached == fresh
    assert same[0]['headline']['recall']['difference'] == 0.0
    assert unplanned['no_plan'] and not cached['no_plan']
    # The tiny model's scores move by a little of the plan.
    assert unplanned['existence_brier'] != cached['existence_brier']
    assert cached['benchmark'] is None  # one drive with one camera is not the benchmark
