"""Clips are read as views of their files: the same arrays, whatever they are, and nothing more."""

import numpy as np
import pytest

torch = pytest.importorskip('torch', reason='clips are read by training')

from wm_ros.train.mapped import mapped  # noqa: E402
from wm_ros.train.store import ClipStore  # noqa: E402


def test_every_array_is_as_it_was_written(tmp_path):
    rng = np.random.default_rng(0)
    clip = {'bytes': rng.integers(0, 255, (3, 5, 7), np.uint8), 'number': np.array(2.5),
            'flag': np.array([True, False, True]), 'turned': np.asfortranarray(rng.random((3, 4))),
            'none': np.zeros((0, 4), np.float32), 'half': rng.random(5).astype(np.float16),
            'a long name' * 20: rng.random((2, 2)).astype(np.float32)}
    store = ClipStore(tmp_path)
    store.write(7, clip)
    found = mapped(store.path(7))
    assert set(found) == set(clip)
    for name, value in clip.items():
        assert found[name].dtype == value.dtype
        np.testing.assert_array_equal(found[name], value)
        assert not found[name].flags.writeable


def test_a_clip_that_is_written_anew_is_read_anew(tmp_path):
    store = ClipStore(tmp_path)
    for values in (np.arange(4), np.arange(9.0)):
        store.write(1, {'longer': np.zeros(len(values)), 'values': values})
        np.testing.assert_array_equal(store.read(np.random.default_rng(0))['values'], values)


def test_what_is_packed_or_no_number_is_refused_by_name(tmp_path):
    np.savez_compressed(tmp_path / 'clip_0000001.npz', values=np.arange(4))
    with pytest.raises(ValueError, match=r'clip_0000001.npz: values.npy: want it as numpy.savez'):
        mapped(tmp_path / 'clip_0000001.npz')
    np.savez(tmp_path / 'objects.npz', values=np.array([{}, None]))
    with pytest.raises(ValueError, match=r'objects.npz: values.npy: want numbers, got object'):
        mapped(tmp_path / 'objects.npz')
