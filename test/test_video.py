"""Plain video with a rig file as a bag: pictures, stamps, and what does not fit."""

import cv2
import numpy as np
import pytest
from bags import small_rig

from wm_ros.cli.main import main
from wm_ros.data.bag import BagReader
from wm_ros.rig import rig_to_yaml

RATE_HZ = 20.0


def write_clip(path, frames=30, size=(160, 90), first=0):
    """Write a clip whose brightness grows from frame to frame."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'MJPG'), RATE_HZ, size)
    if not writer.isOpened():
        pytest.skip('this OpenCV writes no video')
    for i in range(frames):
        writer.write(np.full((size[1], size[0], 3), first + 6 * i, np.uint8))
    writer.release()
    return path


@pytest.fixture
def rig(tmp_path):
    path = tmp_path / 'rig.yaml'
    path.write_text(rig_to_yaml(small_rig()))
    return str(path)


def test_two_videos_become_a_bag_with_stamps_at_their_rate(tmp_path, rig, capsys):
    files = [str(write_clip(tmp_path / f'{name}.avi', first=first))
             for name, first in (('a', 10), ('b', 40))]
    out = str(tmp_path / 'bag')
    assert main(['video', *files, '--rig', rig, '--out', out, '--start', '0.5', '--seconds', '0.5',
                 '--stamp', '100']) == 0
    assert '10 pictures of front, 10 pictures of back' in capsys.readouterr().out
    with BagReader(out) as reader:
        assert reader.rig().names == ('front', 'back')
        assert reader.odometry_topic() is None
        frames = [value for _, value in reader.values()]
    assert [(f.camera, f.stamp_ns) for f in frames] == [
        (name, 100_000_000_000 + i * 50_000_000) for i in range(10) for name in ('front', 'back')]
    shades = [cv2.imdecode(np.frombuffer(f.image, np.uint8), 0).mean() for f in frames]
    np.testing.assert_allclose(shades[::2], 10 + 6 * np.arange(10, 20), atol=2)
    np.testing.assert_allclose(shades[1::2], 40 + 6 * np.arange(10, 20), atol=2)


def test_what_does_not_fit_is_named(tmp_path, rig, capsys):
    good = str(write_clip(tmp_path / 'a.avi', 3))
    wide = str(write_clip(tmp_path / 'wide.avi', 3, (320, 180)))
    text = tmp_path / 'text.avi'
    text.write_text('no video')
    for files, message in (
            ([good], '1 videos for the cameras front, back: want one each'),
            ([good, wide], "wide.avi: 320x180, and the rig says 160x90 for camera 'back'"),
            ([good, str(text)], 'text.avi: not a video'),
            ([good, str(tmp_path / 'none.avi')], 'none.avi: not there')):
        assert main(['video', *files, '--rig', rig, '--out', str(tmp_path / 'bag')]) == 1
        assert message in capsys.readouterr().err
    assert not (tmp_path / 'bag').exists()


def test_a_bag_gives_way_to_one_that_is_whole_and_to_no_other(tmp_path, rig, capsys):
    good = [str(write_clip(tmp_path / f'{name}.avi', 3)) for name in 'ab']
    one = ['video', *good, '--rig', rig, '--out', str(tmp_path / 'bag')]
    assert main(one) == 0 and main(one) == 1            # it is there
    assert main([*one[:2], str(tmp_path / 'none.avi'), *one[3:], '--force']) == 1
    with BagReader(tmp_path / 'bag') as reader:
        assert len(list(reader.values())) == 6          # as it was
    assert main([*one, '--force', '--seconds', '0.1']) == 0
    with BagReader(tmp_path / 'bag') as reader:
        assert 0 < len(list(reader.values())) < 6
    assert not (tmp_path / 'bag.replaced').exists()
