"""The KITTI adapter on a made-up drive in KITTI's layout: geometry by hand, never real pictures."""

import csv
import json

import cv2
import numpy as np
import pytest
from fakes import make_fake_artifact, picture

from wm_ros.cli import main as cli
from wm_ros.data.bag_drive import BagDrive
from wm_ros.data.kitti import KittiError, load_drive, place_in_base
from wm_ros.data.kitti_bag import write_bag
from wm_ros.data.tracks import poses_between, visible_share
from wm_ros.geometry import project
from wm_ros.types import AGENT_CLASSES, PlanSource

WIDTH, HEIGHT = 414, 125  # a third of 1242 x 375
FRAMES = 60
SPEED_MPS = 5.0
START_S = 1_317_042_272.0
# Rectified camera 2 is 6 cm right of camera 0, which sits in the Velodyne; axes swap only.
CAM_TO_CAM = """calib_time: 09-Jan-2012 13:57:47
R_rect_00: 1 0 0 0 1 0 0 0 1
P_rect_02: 720 0 609 -43.2 0 720 172 0 0 0 1 0
"""
VELO_TO_CAM = 'calib_time: x\nR: 0 -1 0 0 0 -1 1 0 0\nT: 0 0 0\n'
IMU_TO_VELO = 'R: 1 0 0 0 1 0 0 0 1\nT: -0.8 0.3 -0.8\n'


def write_drive(folder, frames=FRAMES, size=(WIDTH, HEIGHT)):
    """
    Write a drive that goes north at 5 m/s, with four labelled agents.

    A car (0) keeps 20 m ahead and turns around at frame 50 (label ends); a van (1) stands; a
    pedestrian (2) stands behind the car; a trailer (3) is 'Misc'.
    """
    (folder / 'image_02').mkdir(parents=True)
    for name, text in (('calib_cam_to_cam.txt', CAM_TO_CAM), ('calib_velo_to_cam.txt', VELO_TO_CAM),
                       ('calib_imu_to_velo.txt', IMU_TO_VELO)):
        (folder / name).write_text(text)
    egos, tracks = [], []
    for i in range(frames):
        cv2.imwrite(str(folder / 'image_02' / f'{i:06d}.png'), picture(i, *size))
        y = SPEED_MPS * 0.1 * i
        egos.append([i, f'{START_S + 0.1 * i:.3f}', 0.0, y, 0.0, np.pi / 2, SPEED_MPS])
        # Velodyne 0.8 m ahead and 0.3 m right of the unit: at x = 0.3, y + 0.8, looking north.
        places = {0: ('Car', 20.0, 0.0, 4.0, 2.0, 1.5), 1: ('Van', 40.0 - y, 5.0, 5.0, 2.0, 2.0),
                  2: ('Pedestrian', 26.0, 0.0, 0.6, 0.6, 1.7), 3: ('Misc', 15.0, 9.0, 3, 2, 2)}
        for track, (kind, x, left, *box) in places.items():
            if track == 0 and i >= 50:
                continue
            tracks.append([i, f'{START_S + 0.1 * i:.3f}', track, kind, x, left, -1.73, 0.0, *box,
                           0.3 - left, y + 0.8 + x, np.pi / 2])
    for name, head, rows in (
            ('ego_local.csv', 'frame,timestamp,x,y,z,yaw,speed_mps', egos),
            ('tracks.csv', 'frame,timestamp,track_id,type,x_velo,y_velo,z_velo_bottom,yaw_velo,'
             'length,width,height,x_world,y_world,yaw_world', tracks)):
        with (folder / name).open('w', newline='') as file:
            writer = csv.writer(file)
            writer.writerow(head.split(','))
            writer.writerows(rows)
    return folder


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return write_drive(tmp_path_factory.mktemp('kitti') / 'drive_0001')


@pytest.fixture(scope='module')
def drive(folder):
    return load_drive(folder)


@pytest.mark.parametrize('size, said, scale', [
    ((612, 185), 'S_rect_02: 1.224e+03 3.70e+02', 0.5),     # 2011_09_28, halved
    ((1224, 370), 'S_rect_02: 1.224e+03 3.70e+02', 1.0),
    ((1224, 370), '', 1.0),                                 # as recorded; nobody says so
    ((621, 188), '', 0.5)])
def test_the_size_that_a_calibration_is_for_is_the_days_own(tmp_path, size, said, scale):
    folder = write_drive(tmp_path / 'drive', frames=1, size=size)
    (folder / 'calib_cam_to_cam.txt').write_text(f'{CAM_TO_CAM}{said}\n')
    k = load_drive(folder).rig['front'].k
    assert (k[0, 0], k[0, 2]) == pytest.approx((720 * scale, (609 + 0.5) * scale - 0.5))


def test_of_several_days_the_calibration_is_the_drives_own(tmp_path):
    folder = write_drive(tmp_path / '2011_09_28_drive_0001', frames=1)
    beside = tmp_path / 'kitti_labels_calib'
    for day, focal in (('2011_09_26', 720), ('2011_09_28', 700)):
        (beside / f'raw_calib_{day}').mkdir(parents=True)
        for name in ('calib_velo_to_cam.txt', 'calib_imu_to_velo.txt'):
            (beside / f'raw_calib_{day}' / name).write_bytes((folder / name).read_bytes())
        (beside / f'raw_calib_{day}' / 'calib_cam_to_cam.txt').write_text(
            CAM_TO_CAM.replace('720', str(focal)))
    for path in folder.glob('calib_*.txt'):
        path.unlink()
    assert load_drive(folder).rig['front'].k[0, 0] == pytest.approx(700 / 3)
    other = folder.rename(tmp_path / 'drive_0001')
    with pytest.raises(KittiError, match='several days beside it, raw_calib_2011_09_26, raw_cal'):
        load_drive(other)
    assert load_drive(other, beside / 'raw_calib_2011_09_26').rig['front'].k[0, 0] == (
        pytest.approx(720 / 3))


def test_the_camera_is_scaled_with_the_pictures(drive):
    camera = drive.rig['front']
    assert (camera.width, camera.height) == (WIDTH, HEIGHT)
    # Pixel centres at integers: (609 + 0.5) / 3 - 0.5.
    np.testing.assert_allclose(camera.k, [[240, 0, 202.6666667], [0, 240, 57], [0, 0, 1]])


def test_the_camera_stands_where_the_calibration_says(drive):
    camera = drive.rig['front']
    # 0.8 m ahead of the unit, 0.06 m to the right of the Velodyne, 1.73 m up, level.
    np.testing.assert_allclose(camera.base_from_camera[:3, 3], [0.8, -0.06, 1.73], atol=1e-9)
    pixels, depth = project(camera, np.array([[10.8, -0.06, 1.73], [10.8, 0.94, 0.73]]))
    np.testing.assert_allclose(depth, 10.0)
    # A metre left and down at 10 m is 24 pixels.
    np.testing.assert_allclose(pixels, [[202.6666667, 57], [178.6666667, 81]], atol=1e-6)


def test_base_link_is_on_the_centre_line(drive):
    ego = drive.egos[10]
    # The unit at (0, 5) looks north and sits 0.3 m left of the centre line.
    np.testing.assert_allclose(ego.odom_from_base, [0.3, 5.0, np.pi / 2], atol=1e-9)
    assert ego.stamp_ns == 1_317_042_273_000_000_000
    assert (ego.speed_mps, ego.yaw_rate_rps) == (SPEED_MPS, 0.0)


def test_labels_lie_as_far_ahead_as_in_the_velodyne_plus_its_own_place(drive):
    np.testing.assert_allclose(place_in_base(drive, drive.tracks[0], 7), [20.8, 0, 0], atol=1e-9)
    assert place_in_base(drive, drive.tracks[0], 55) is None


def test_truth_by_hand(drive):
    truth = drive.truth(10)
    assert truth.ids.tolist() == [0, 1, 2]  # 'Misc' has no class here
    assert [AGENT_CLASSES[c] for c in truth.classes] == ['car', 'van', 'pedestrian']
    np.testing.assert_allclose(truth.poses, [[20.8, 0, 0], [35.8, 5, 0], [26.8, 0, 0]], atol=1e-9)
    np.testing.assert_allclose(truth.velocities, [[5, 0], [0, 0], [5, 0]], atol=1e-6)
    # In base_link frozen now, the car is 2.5 m further on every half second.
    np.testing.assert_allclose(truth.futures[0, :, 0], 20.8 + 2.5 * np.arange(1, 7), atol=1e-6)
    np.testing.assert_allclose(truth.futures[1, :, 0], 35.8, atol=1e-6)
    assert truth.ego_plan.source == PlanSource.GIVEN
    np.testing.assert_allclose(truth.ego_plan.poses[:, 0], 2.5 * np.arange(1, 7), atol=1e-6)


def test_a_track_that_ends_has_no_future_after_it(drive):
    truth = drive.truth(30)
    known = np.isfinite(truth.futures).all(axis=-1)
    # The car's last label is 1.9 s ahead, those of the others 2.9 s.
    assert known.tolist() == [[1, 1, 1, 0, 0, 0], [1] * 5 + [0], [1] * 5 + [0]]
    assert truth.ego_plan.source == PlanSource.NONE


def test_visibility_by_pixels_and_by_what_stands_before(drive):
    truth = drive.truth(0)
    # At the input size the focal length is 231.9. The car's nearest face is 18 m ahead of the
    # camera: 2 m are 25.8 columns, 1.5 m are 19.3 rows.
    assert truth.pixels[0] == pytest.approx(25.8 * 19.3, rel=0.06)
    assert truth.silhouettes[0] == pytest.approx(1.0, abs=0.06)
    # Over the car's roof the pedestrian's head shows: 5 % or so.
    assert truth.silhouettes[2] < 0.2
    assert truth.visible.tolist() == [True, True, False]


def test_what_lies_behind_or_beside_the_picture_is_not_visible(drive):
    pixels, shares = visible_share(
        drive.rig, np.array([[-10.0, 0, 0], [5.0, 30.0, 0], [10.0, 8.6, 0]]),
        np.tile([4.0, 2.0, 1.5], (3, 1)), np.zeros(3))
    assert pixels[:2].tolist() == [0, 0]
    assert pixels[2] > 0
    assert 0 < shares[2] < 1


def test_observed_ground_is_ahead(drive):
    observed = drive.truth(0).observed
    assert observed[100, 140]          # (20, 0)
    assert not observed[:, :100].any()  # behind
    assert not observed[180, 110]      # far to the left


def test_poses_are_not_interpolated_over_long_gaps():
    stamps = np.array([0, 100, 200, 700]) * 1_000_000
    poses = np.array([[0, 0, 3.1], [1, 0, -3.1], [2, 0, -3.1], [7, 0, -3.1]], float)
    at = poses_between(stamps, poses, np.array([50, 100, 300, 700, 800]) * 1_000_000)
    np.testing.assert_allclose(at[0, 0], 0.5)
    assert abs(at[0, 2]) > 3.1  # the short way round
    np.testing.assert_allclose(at[[1, 3]], poses[[1, 3]])
    assert np.isnan(at[[2, 4]]).all()


def test_samples_carry_truth_where_it_is_asked_for(drive):
    samples = list(drive.samples(5, 15))
    assert len(samples) == FRAMES
    assert [i for i, s in enumerate(samples) if s.truth] == list(range(15, FRAMES, 5))
    assert samples[3].frames.frames['front'].image[:4] == b'\x89PNG'


def test_a_bag_gives_back_the_drive(drive, tmp_path):
    assert write_bag(tmp_path / 'bag', drive) == FRAMES
    recorded = BagDrive(tmp_path / 'bag')
    camera, wanted = recorded.rig['front'], drive.rig['front']
    np.testing.assert_allclose(camera.k, wanted.k)
    np.testing.assert_allclose(camera.base_from_camera, wanted.base_from_camera, atol=1e-9)
    for got, want in zip(recorded.samples(5, 15), drive.samples(5, 15), strict=True):
        assert got.frames.stamp_ns == want.frames.stamp_ns
        assert bytes(got.frames.frames['front'].image) == want.frames.frames['front'].image
        np.testing.assert_allclose(got.ego.odom_from_base, want.ego.odom_from_base, atol=1e-9)
        assert (got.truth is None) == (want.truth is None)
        if want.truth:
            np.testing.assert_array_equal(got.truth.visible, want.truth.visible)
            np.testing.assert_allclose(got.truth.poses, want.truth.poses, atol=1e-9)


def test_commands_turn_a_drive_into_a_bag_and_score_both_alike(folder, tmp_path, capsys):
    artifact = str(make_fake_artifact(tmp_path / 'artifact'))
    bag = str(tmp_path / 'bag')
    assert cli.main(['kitti', str(folder), bag, '--rig-file', str(tmp_path / 'rig.yaml')]) == 0
    assert '60 pictures, 3 tracks with 170 labels' in capsys.readouterr().out
    assert (tmp_path / 'rig.yaml').is_file()
    reports = {}
    for dataset in (f'kitti:{folder}', f'bag:{bag}'):
        out = tmp_path / 'report.json'
        assert cli.main(['evaluate', '--dataset', dataset, '--artifact', artifact, '--json',
                         str(out)]) == 0
        reports[dataset[:3]] = json.loads(out.read_text())
    for report in reports.values():
        assert (report['n_forecasts'], report['n_invalid']) == (9, 0)
        # Within 30 m: the car at frames 15 to 45, the van from 25 on, the pedestrian once the car
        # is gone. Whole futures: the car at 15, the van at 25.
        assert report['n_agents'] == 7 + 7 + 2
        assert report['n_agents_with_future'] == 2
        assert report['oracle_cv_spa'] == 100.0
        assert report['oracles']['oracle_static']['spa_top1'] == 50.0
    # A bag's truth holds whole futures only, so occupancy is scored at fewer steps there.
    for key in ('oracles', 'mix', 'precision', 'epa', 'recall_by_group', 'existence_brier'):
        assert reports['kit'][key] == reports['bag'][key]
    assert reports['kit']['iou_far']['0'] == reports['bag']['iou_far']['0']


@pytest.mark.parametrize(('spoil', 'message'), [
    (lambda f: (f / 'image_02' / '000001.png').unlink(), '2 pictures in image_02 and 3 rows'),
    (lambda f: (f / 'calib_velo_to_cam.txt').unlink(), 'no calib_cam_to_cam.txt'),
    (lambda f: (f / 'tracks.csv').unlink(), 'tracks.csv: No such file'),
    (lambda f: (f / 'tracks.csv').write_text('frame,type\n'), 'no column track_id'),
    (lambda f: (f / 'image_02' / '000000.png').write_bytes(b'no'), '000000.png: not a picture')])
def test_a_broken_folder_is_named(tmp_path, spoil, message):
    folder = write_drive(tmp_path / 'drive', frames=3)
    spoil(folder)
    with pytest.raises(KittiError, match=message):
        load_drive(folder)
