"""Losses on drives that a run has learnt from beside losses on others."""

import pytest

torch = pytest.importorskip('torch', reason='training needs torch')

import numpy as np  # noqa: E402
from tiny_run import make_run, window_clip  # noqa: E402

from wm_ros.model.config import PRESETS  # noqa: E402
from wm_ros.sim.seeds import TRAIN_END  # noqa: E402
from wm_ros.train.held_out import compared, main  # noqa: E402
from wm_ros.train.store import ClipStore  # noqa: E402


@pytest.fixture
def run(tmp_path):
    """Return a run of two drives, with the same two, the other way round, as those held out."""
    folder = make_run(tmp_path, clips=2)
    (folder / 'encoder').mkdir()
    for i in range(2):
        ClipStore(folder / 'held_out').write(TRAIN_END - 1 - i, window_clip(i, PRESETS['tiny']))
    return folder


def test_the_same_drives_cost_the_same_and_others_do_not(run):
    torch.manual_seed(1)            # this run's checkpoint lacks a head of stage two
    both = compared(run, 2, 2)
    assert both['seen'].keys() == both['unseen'].keys() >= {'centre', 'path', 'total'}
    assert all(np.isfinite(values).all() for kind in both.values() for values in kind.values())
    # What is drawn (lost frames) moves flow little; which drive it is moves it much.
    np.testing.assert_allclose(both['seen']['flow'], both['unseen']['flow'][::-1], rtol=2e-2)
    assert abs(np.diff(both['seen']['flow'])[0]) > 0.1
    torch.manual_seed(1)
    again = compared(run, 2, 2)
    for name, values in both['seen'].items():
        assert np.array_equal(values, again['seen'][name]), name


def test_the_table_has_a_line_a_loss(run, capsys):
    assert main(['--folder', str(run), '--drives', '2']) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[-2:] == ['seen', 'unseen']
    assert {'centre', 'occupancy', 'path', 'total'} <= {line.split()[0] for line in lines[1:]}


def test_drives_that_were_learnt_from_are_not_held_out(run):
    ClipStore(run / 'windows').write(TRAIN_END - 2, window_clip(9, PRESETS['tiny']))
    with pytest.raises(ValueError, match=r'has not seen, got \[799998\]'):
        compared(run, 2, 2)


@pytest.mark.parametrize('missing', ['windows', 'model.safetensors'])
def test_a_folder_that_is_no_run_is_refused(run, missing, tmp_path, capsys):
    (run / missing).rename(tmp_path / 'elsewhere')
    with pytest.raises(SystemExit) as left:
        main(['--folder', str(run)])
    assert left.value.code == 2
    assert 'want the folder of a run' in capsys.readouterr().err
