"""Drives that are rendered once: the same samples again, whatever happened to the file."""

import errno
from pathlib import Path

import cv2
import numpy as np
import pytest

from wm_ros.data import render_cache
from wm_ros.data.render_cache import CacheError, RenderedDrives, bare_code
from wm_ros.data.rendered import _ROWS, RenderedDrive, RenderedFileError
from wm_ros.data.simulator import SimulatedDrive
from wm_ros.types import Frame

SEED = 900_000


@pytest.fixture(scope='module')
def filled(tmp_path_factory):
    """Return drives of 1.8 s with one camera, of which one is in the cache."""
    drives = RenderedDrives('sim', 1.8, 'front', folder=tmp_path_factory.mktemp('cache'),
                            version='1')
    drives(SEED)
    return drives


@pytest.fixture
def drives(filled, tmp_path):
    """Return a copy of the filled cache."""
    path = filled.path(SEED)
    copy = RenderedDrives('sim', 1.8, 'front', folder=tmp_path, version='1')
    copy.path(SEED).parent.mkdir(parents=True)
    copy.path(SEED).write_bytes(path.read_bytes())
    return copy


@pytest.fixture
def rendered_again(drives, monkeypatch):
    """Let rendering give the drive of the file without drawing it, and note when it is asked to."""
    good, asked = RenderedDrive.load(drives.path(SEED), drives.key), []
    monkeypatch.setattr(render_cache, 'render', lambda *_: asked.append(1) or good)
    return asked


@pytest.fixture
def no_renderer(monkeypatch):
    """Let rendering fail."""
    monkeypatch.setattr(render_cache, 'render', lambda *_: pytest.fail('was rendered again'))


def test_what_is_read_is_what_was_rendered(drives, no_renderer):
    drive = drives(SEED)
    plain = SimulatedDrive(SEED, 1.8, 'sim', 'front')
    assert drive.name == plain.name == 'sim:900000'
    assert drive.rig.names == ('front',)
    np.testing.assert_array_equal(drive.rig['front'].k, plain.rig['front'].k)
    np.testing.assert_array_equal(drive.rig['front'].base_from_camera,
                                  plain.rig['front'].base_from_camera)
    want = list(plain.samples(5, 15))
    got = list(drive.samples(5, 15))
    assert len(got) == len(want) == 18
    assert [s.truth is not None for s in got] == [i == 15 for i in range(18)]
    for a, b in zip(got, want, strict=True):
        assert a.frames.stamp_ns == b.frames.stamp_ns == a.ego.stamp_ns
        np.testing.assert_array_equal(a.ego.odom_from_base, b.ego.odom_from_base)
        assert (a.ego.speed_mps, a.ego.yaw_rate_rps) == (b.ego.speed_mps, b.ego.yaw_rate_rps)
        picture = decode(a.frames.frames['front'])
        # The difference is what JPEG does to sensor noise.
        assert np.abs(picture.astype(int) - b.frames.frames['front'].image).mean() < 6
    for name in vars(want[15].truth):
        if name not in ('ego', 'ego_plan'):
            np.testing.assert_array_equal(getattr(got[15].truth, name),
                                          getattr(want[15].truth, name), err_msg=name)
    np.testing.assert_array_equal(got[15].plan.poses, want[15].plan.poses)
    assert got[15].plan.source == got[15].truth.ego_plan.source == want[15].plan.source


def decode(frame: Frame) -> np.ndarray:
    """Return the picture of a frame as RGB."""
    return cv2.imdecode(np.frombuffer(frame.image, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]


def test_with_and_without_a_cache_the_bytes_are_the_same(drives):
    assert RenderedDrives('sim', 1.8, 'front', version='1')(SEED).to_bytes() == drives.path(
        SEED).read_bytes()


@pytest.mark.parametrize('place', [100, 20_000, -3000])
def test_a_flipped_byte_is_noticed_and_the_drive_rendered_again(drives, place, rendered_again,
                                                                capsys):
    path = drives.path(SEED)
    good = path.read_bytes()
    bad = bytearray(good)
    bad[place] ^= 0x10
    path.write_bytes(bad)
    try:
        # A bit of the zip's own book-keeping, such as a date, changes nothing that is read.
        assert RenderedDrive.load(path, drives.key).to_bytes() == good
    except RenderedFileError:
        assert drives(SEED).to_bytes() == path.read_bytes() == good
        assert rendered_again == [1]
        assert 'rendering anew' in capsys.readouterr().err


def test_whichever_byte_is_wrong_a_file_is_refused_or_says_the_same(tmp_path):
    """Of packed arrays as of pictures: a wrong bit can end in the unpacker, before any sum."""
    numbers = np.random.default_rng(0).integers(0, 9, 40)
    names = ('stamps_ns', 'ego', 'ends', 'scored', 'plans', 'agents', 'road', 'observed',
             'pictures', *_ROWS)
    good = RenderedDrive({'name': 'x', 'key': 'k'}, dict.fromkeys(names, numbers)).to_bytes()
    path, refused = tmp_path / 'drive', 0
    for place in range(0, len(good), 23):
        bad = bytearray(good)
        bad[place] ^= 0x10
        path.write_bytes(bad)
        try:
            assert RenderedDrive.load(path, 'k').to_bytes() == good
        except RenderedFileError:
            refused += 1
    assert refused > len(good) / 23 / 2


def test_a_truncated_file_and_another_drives_are_rendered_again(drives, rendered_again):
    path = drives.path(SEED)
    good = path.read_bytes()
    for bad in (good[:len(good) // 2], b'', b'PK'):
        path.write_bytes(bad)
        assert drives(SEED).to_bytes() == good
        assert path.read_bytes() == good
    assert rendered_again == [1, 1, 1]
    with pytest.raises(RenderedFileError, match='want other'):
        RenderedDrive.load(path, 'other')


def test_the_key_follows_everything_a_drive_follows_from(tmp_path):
    def key(*arguments, version='1', **choice):
        return RenderedDrives(*arguments, folder=tmp_path, version=version, **choice).key

    keys = [key('sim'), key('sim-hard'), key('sim', 9.0), key('sim', rig_name='front'),
            key('sim', every=4), key('sim', first=10), key('sim', version='2')]
    assert len(set(keys)) == len(keys)
    assert key('sim') == keys[0]


def test_comments_and_layout_are_no_other_version_of_the_simulator():
    one = 'def f(x):\n    """Double."""\n    return 2 * x  # twice\n'
    assert bare_code(one) == bare_code('def f(x):\n    return (2 *\n            x)\n')
    assert bare_code(one) != bare_code('def f(x):\n    return 3 * x\n')


def test_other_instants_than_rendered_are_refused(drives):
    with pytest.raises(RenderedFileError, match='want every 1 from 15'):
        next(drives(SEED).samples(1, 15))


def test_a_full_disk_is_named_and_leaves_nothing_behind(tmp_path, monkeypatch):
    drives = RenderedDrives('sim', 0.1, 'front', folder=tmp_path, version='1')

    def full(self, target):
        raise OSError(errno.ENOSPC, 'No space left on device')

    monkeypatch.setattr(Path, 'replace', full)
    with pytest.raises(CacheError, match=r'900000.drive: the disk is full, want \d+\.\d MB .*--no-'
                                         'cache'):
        drives.ensure(SEED)
    assert [path for path in tmp_path.rglob('*') if path.is_file()] == []


def test_rendering_ahead_does_it_once(drives, no_renderer):
    assert drives.ensure(SEED) == drives.path(SEED).stat().st_size


def test_the_version_is_of_the_modules_that_draw_and_of_no_other():
    modules = set(render_cache._modules())
    assert {'wm_ros.sim.render', 'wm_ros.sim.traffic', 'wm_ros.sim.seeds', 'wm_ros.sim.lens',
            'wm_ros.geometry', 'wm_ros.types'} <= modules
    assert not modules & {'wm_ros.sim.throughput', 'wm_ros.image', 'wm_ros.predictor'}
    assert len(render_cache.code_version()) == 64
