"""Rig files: a round trip, and every refusal names field, found and wanted."""

import copy
from pathlib import Path

import numpy as np
import pytest
import yaml
from fakes import make_rig

from wm_ros.geometry import BODY_FROM_OPTICAL, camera_pose, rotation_from_quaternion
from wm_ros.rig import RigError, load_rig, quaternion_from_rotation, rig_from_dict, rig_to_yaml
from wm_ros.share import share_path


def test_round_trip(tmp_path):
    rig = make_rig(6, 1600, 900)
    path = tmp_path / 'rig.yaml'
    path.write_text(rig_to_yaml(rig))
    back = load_rig(path)
    assert back.names == rig.names and back.name == 'fake'
    for a, b in zip(back.cameras, rig.cameras, strict=True):
        assert (a.width, a.height, a.distortion) == (b.width, b.height, b.distortion)
        np.testing.assert_allclose(a.k, b.k)
        np.testing.assert_allclose(a.base_from_camera, b.base_from_camera, atol=1e-12)


def test_an_optical_frame_by_hand():
    # REP-103: the optical frame of a camera that looks ahead is turned by (-0.5, 0.5, -0.5, 0.5).
    np.testing.assert_allclose(quaternion_from_rotation(BODY_FROM_OPTICAL),
                               [-0.5, 0.5, -0.5, 0.5], atol=1e-12)


@pytest.mark.parametrize('yaw', np.linspace(-np.pi, np.pi, 9))
def test_quaternions_of_any_camera(yaw):
    rotation = camera_pose(np.zeros(3), yaw, 0.2, -0.1)[:3, :3]
    np.testing.assert_allclose(rotation_from_quaternion(quaternion_from_rotation(rotation)),
                               rotation, atol=1e-12)


def change(path, value):
    def apply(content):
        entry = content
        for key in path[:-1]:
            entry = entry[key]
        if value is None:
            del entry[path[-1]]
        else:
            entry[path[-1]] = value
    return apply


CASES = [
    (change(['cameras'], []), '0 cameras, want 1'),
    (change(['cameras'], 'x'), 'want `cameras:`'),
    (change(['kameras'], 1), 'unknown key kameras'),
    (change(['cameras', 0], 3), r'cameras\[0\]: int, want a mapping'),
    (change(['cameras', 1, 'name'], 'camera_0'), "'camera_0' 2 times"),
    (change(['cameras', 0, 'name'], ''), r'cameras\[0\].name'),
    (change(['cameras', 0, 'k'], None), r'cameras\[0\].k: missing'),
    (change(['cameras', 0, 'k'], [1, 2]), r'cameras\[0\].k: .*want a list of 9 numbers'),
    (change(['cameras', 0, 'k', 0], float('nan')), r'cameras\[0\].k: .*finite'),
    (change(['cameras', 0, 'k', 0], 'a'), r'cameras\[0\].k: .*numbers only'),
    (change(['cameras', 0, 'k', 0], 0.0), r'focal lengths 0'),
    (change(['cameras', 0, 'width'], 640.5), r'cameras\[0\].width: 640.5, want a whole'),
    (change(['cameras', 0, 'height'], 3), 'size 640x3'),
    (change(['cameras', 0, 'distortion'], [1, 2, 3]), r'distortion: .*0 or 4 or 5 or 8'),
    (change(['cameras', 0, 'translation'], [0, 1]), r'translation: .*3 numbers'),
    (change(['cameras', 0, 'rotation_xyzw'], [0, 0, 0, 0]), r'rotation_xyzw: quaternion'),
    (change(['cameras', 0, 'colour'], 'red'), r'cameras\[0\].colour: unknown field'),
]


@pytest.mark.parametrize('damage,wanted', CASES)
def test_errors_name_field_found_and_wanted(damage, wanted):
    content = copy.deepcopy(yaml.safe_load(rig_to_yaml(make_rig(2))))
    damage(content)
    with pytest.raises(RigError, match=wanted) as caught:
        rig_from_dict(content, 'some.yaml')
    assert str(caught.value).startswith('some.yaml')


@pytest.mark.parametrize('text,wanted', [('a: [', 'want YAML'), ('', 'want `cameras:`')])
def test_files_that_hold_no_rig(tmp_path, text, wanted):
    path = tmp_path / 'rig.yaml'
    path.write_text(text)
    with pytest.raises(RigError, match=wanted):
        load_rig(path)
    with pytest.raises(RigError, match='No such file'):
        load_rig(tmp_path / 'absent.yaml')


@pytest.mark.parametrize('name', ['surround', 'front', 'kitti'])
def test_rigs_of_the_package_load(name):
    assert len(load_rig(share_path('params', 'rigs', f'{name}.yaml'))) in (1, 6)


def test_the_rig_file_of_the_docs_is_one():
    page = Path(__file__).resolve().parent.parent / 'docs' / 'vehicle.md'
    if not page.is_file():
        pytest.skip('no docs in this checkout')
    text = page.read_text().partition('```yaml\n')[2].partition('```')[0]
    front = rig_from_dict(yaml.safe_load(text), 'docs')['front']
    # It looks ahead: what lies on its axis is in front of the vehicle.
    np.testing.assert_allclose(front.base_from_camera[:3, 2], [1.0, 0.0, 0.0], atol=1e-9)
