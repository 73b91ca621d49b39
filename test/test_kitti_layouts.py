"""KITTI's own two layouts, made up here, against the drive of test_kitti in the third one."""

import numpy as np
import pytest
from test_kitti import (
    CAM_TO_CAM,
    FRAMES,
    IMU_TO_VELO,
    SPEED_MPS,
    VELO_TO_CAM,
    write_drive,
)

from wm_ros.data.kitti import KittiError
from wm_ros.data.kitti_layouts import EARTH_M, load_any

N = 20


def oxts_line(i):
    """Return the line of a unit that goes north from 49 degrees at 5 m/s."""
    latitude = 49.0
    # One step of the inverse Mercator projection, scaled as the development kit does.
    scale = np.cos(np.radians(latitude))
    y = EARTH_M * np.log(np.tan(np.radians(90 + latitude) / 2)) + SPEED_MPS * 0.1 * i / scale
    latitude = np.degrees(2 * np.arctan(np.exp(y / EARTH_M))) - 90
    values = np.zeros(30)
    values[[0, 1, 5, 8]] = latitude, 8.0, np.pi / 2, SPEED_MPS
    return ' '.join(f'{value:.15f}' for value in values)


def boxes(i):
    """Return (track, type, x, y, z, yaw, l, w, h) in the Velodyne frame at frame i."""
    y = SPEED_MPS * 0.1 * i
    return [(0, 'Car', 20.0, 0.0, -1.73, 0.0, 4.0, 2.0, 1.5),
            (1, 'Van', 40.0 - y, 5.0, -1.73, 0.3, 5.0, 2.0, 2.0),
            (2, 'Misc', 15.0, 9.0, -1.73, 0.0, 3.0, 2.0, 2.0)]


@pytest.fixture(scope='module')
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp('kitti')
    csv = write_drive(root / 'csv')
    pictures = sorted((csv / 'image_02').glob('*.png'))[:N]
    raw = root / '2011_09_26' / '2011_09_26_drive_0005_sync'
    tracking = root / 'training'
    for folder in (raw / 'image_02' / 'data', raw / 'oxts' / 'data', tracking / 'image_02' / '0003',
                   tracking / 'oxts', tracking / 'label_02', tracking / 'calib'):
        folder.mkdir(parents=True)
    for name, text in (('calib_cam_to_cam.txt', CAM_TO_CAM), ('calib_velo_to_cam.txt', VELO_TO_CAM),
                       ('calib_imu_to_velo.txt', IMU_TO_VELO)):
        (raw.parent / name).write_text(text)
    labels, tracklets = [], {}
    for i, picture in enumerate(pictures):
        (raw / 'image_02' / 'data' / f'{i:010d}.png').write_bytes(picture.read_bytes())
        (tracking / 'image_02' / '0003' / f'{i:06d}.png').write_bytes(picture.read_bytes())
        (raw / 'oxts' / 'data' / f'{i:010d}.txt').write_text(oxts_line(i))
        for track, kind, x, y, z, yaw, *size in boxes(i):
            length, width, height = size
            # Camera axes: x right, y down, z ahead; rotation_y is 0 along x, positive downwards.
            labels.append(f'{i} {track} {kind} 0 0 0 0 0 0 0 {height} {width} {length} {-y} {-z} '
                          f'{x} {-yaw - np.pi / 2}')
            tracklets.setdefault((track, kind, *size), []).append((x, y, z, yaw))
    (raw / 'image_02' / 'timestamps.txt').write_text('\n'.join(
        f'2011-09-26 13:02:{25 + i // 10:02d}.{i % 10}00000000' for i in range(N)) + '\n')
    (tracking / 'oxts' / '0003.txt').write_text('\n'.join(oxts_line(i) for i in range(N)))
    (tracking / 'label_02' / '0003.txt').write_text(
        '\n'.join([*labels, '0 -1 DontCare -1 -1 -10 1 1 2 2 -1000 -1000 -1000 -10 -1 -1 -1']))
    (tracking / 'calib' / '0003.txt').write_text(
        'P2: 720 0 609 -43.2 0 720 172 0 0 0 1 0\nR_rect 1 0 0 0 1 0 0 0 1\n'
        'Tr_velo_cam 0 -1 0 0 0 0 -1 0 1 0 0 0\nTr_imu_velo 1 0 0 -0.8 0 1 0 0.3 0 0 1 -0.8\n')
    items = ''.join(
        f'<item><objectType>{kind}</objectType><h>{h}</h><w>{w}</w><l>{length}</l>'
        '<first_frame>0</first_frame><poses>' + ''.join(
            f'<item><tx>{x}</tx><ty>{y}</ty><tz>{z}</tz><rz>{yaw}</rz></item>'
            for x, y, z, yaw in poses) + '</poses></item>'
        for (_, kind, length, w, h), poses in tracklets.items())
    (raw / 'tracklet_labels.xml').write_text(f'<x><tracklets>{items}</tracklets></x>')
    return {'csv': csv, 'raw': raw, 'tracking': tracking / 'image_02' / '0003'}


@pytest.mark.parametrize('layout', ['raw', 'tracking'])
def test_both_layouts_give_the_same_drive(folders, layout):
    drive, wanted = load_any(folders[layout]), load_any(folders['csv'])
    assert (len(drive), len(wanted)) == (N, FRAMES)
    np.testing.assert_allclose(drive.rig['front'].k, wanted.rig['front'].k)
    np.testing.assert_allclose(drive.rig['front'].base_from_camera,
                               wanted.rig['front'].base_from_camera, atol=1e-9)
    first, last = drive.egos[0], drive.egos[-1]
    assert last.stamp_ns - first.stamp_ns == 1_900_000_000
    np.testing.assert_allclose(last.odom_from_base - first.odom_from_base, [0, 9.5, 0], atol=1e-4)
    assert last.speed_mps == SPEED_MPS
    truth, other = drive.truth(4), wanted.truth(4)
    assert len(truth.ids) == 2 and truth.classes.tolist() == other.classes[:2].tolist()
    # The unit is 0.8 m behind the Velodyne, and 0.3 m to its left.
    np.testing.assert_allclose(truth.poses, [[20.8, 0, 0], [40.8 - 2, 5, 0.3]], atol=1e-4)
    np.testing.assert_allclose(truth.sizes, [[4, 2, 1.5], [5, 2, 2]])
    np.testing.assert_allclose(truth.velocities, [[SPEED_MPS, 0], [0, 0]], atol=1e-3)


@pytest.mark.parametrize('layout, file, old, new, told', [
    ('raw', 'oxts/data/0000000002.txt', None, '1 2 3', '0000000002.txt: 3 numbers, want 9'),
    ('raw', 'oxts/data/0000000002.txt', None, 'a b', '0000000002.txt: could not convert'),
    ('raw', 'tracklet_labels.xml', '<h>1.5</h>', '', 'tracklet 0: .*want l, w, h'),
    ('raw', 'tracklet_labels.xml', '<tx>20.0</tx>', '<tx/>', 'tracklet 0: .*want l, w, h'),
    ('raw', '../calib_velo_to_cam.txt', 'T: 0 0 0', 'T: 0 0', 'velo_to_cam.txt: 2 numbers of T'),
    ('raw', '../calib_cam_to_cam.txt', 'P_rect_02', 'P_rect_20', 'cam_to_cam.txt: 0 numbers of P_'),
    ('tracking', '../../label_02/0003.txt', '0 0 Car 0 0', '0 0 Car', "0003.txt: 12 numbers in '0"),
    ('tracking', '../../oxts/0003.txt', None, '49.0 8.0', '0003.txt: 2 numbers, want 9')])
def test_what_is_broken_is_named(folders, layout, file, old, new, told):
    path = folders[layout] / file
    whole = path.read_text()
    assert old is None or old in whole
    path.write_text(new if old is None else whole.replace(old, new, 1))
    try:
        with pytest.raises(KittiError, match=told):
            load_any(folders[layout])
    finally:
        path.write_text(whole)


def test_what_is_missing_is_named(folders, tmp_path):
    with pytest.raises(KittiError, match='9999.txt: No such file'):
        (folders['tracking'].parent / '9999').mkdir()
        load_any(folders['tracking'].parent / '9999')
    (folders['raw'] / 'oxts' / 'data' / '0000000003.txt').unlink()
    with pytest.raises(KittiError, match='20 pictures of image_02, 20 times and 19 poses'):
        load_any(folders['raw'])
