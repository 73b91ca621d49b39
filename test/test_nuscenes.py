"""The nuScenes adapter on a tiny set in the public layout, written here: geometry by hand."""

import json

import numpy as np
import pytest
from bags import jpeg

from wm_ros.cli.main import main
from wm_ros.data.bag import BagReader
from wm_ros.data.bag_drive import BagDrive
from wm_ros.data.nuscenes import CAMERAS, NuscenesError, load_scene
from wm_ros.evaluate.datasets import open_dataset
from wm_ros.geometry import project
from wm_ros.types import AGENT_CLASSES, EgoState

START_US = 1_532_402_927_600_000
SPEED_MPS = 6.0
SECONDS = 6.0
# When a camera fires after the lidar has passed the first one.
DELAY_US = {'CAM_FRONT_LEFT': 0, 'CAM_FRONT': 8_000, 'CAM_FRONT_RIGHT': 16_000,
            'CAM_BACK_RIGHT': 24_000, 'CAM_BACK': 33_000, 'CAM_BACK_LEFT': 43_000}
YAW = {'CAM_FRONT': 0, 'CAM_FRONT_LEFT': 55, 'CAM_FRONT_RIGHT': -55, 'CAM_BACK': 180,
       'CAM_BACK_LEFT': 110, 'CAM_BACK_RIGHT': -110}
NORTH = [np.cos(np.pi / 4), 0.0, 0.0, np.sin(np.pi / 4)]


def times(w, a):
    """Return the product of two quaternions (w, x, y, z)."""
    return [w[0] * a[0] - w[1] * a[1] - w[2] * a[2] - w[3] * a[3],
            w[0] * a[1] + w[1] * a[0] + w[2] * a[3] - w[3] * a[2],
            w[0] * a[2] - w[1] * a[3] + w[2] * a[0] + w[3] * a[1],
            w[0] * a[3] + w[1] * a[2] - w[2] * a[1] + w[3] * a[0]]


def place_at(time_us):
    """Return where a vehicle is that goes north at 6 m/s, 50 m above the map's zero."""
    return [1000.0, 2000.0 + SPEED_MPS * (time_us - START_US) * 1e-6, 50.0]


def write_tables(root, scenes=('scene-0001',)):
    """
    Write scenes of 6 s at 12 Hz, labelled twice a second, in the public layout.

    Before the vehicle stand a car (10 m ahead of its start, to the left) and a trailer; a
    pedestrian walks beside it at its own speed, and is not labelled any more after 3 s.
    """
    tables = {name: [] for name in (
        'scene', 'sample', 'sample_data', 'calibrated_sensor', 'sensor', 'ego_pose',
        'sample_annotation', 'instance', 'category')}
    tables['category'] = [{'token': f'c{i}', 'name': name} for i, name in enumerate(
        ('vehicle.car', 'human.pedestrian.adult', 'vehicle.trailer'))]
    for channel in (*YAW, 'LIDAR_TOP'):
        tables['sensor'].append({'token': f's_{channel}', 'channel': channel})
        turn = np.radians(YAW.get(channel, 0)) / 2
        # Optical axes in the vehicle: z ahead, x to the right, y down.
        tables['calibrated_sensor'].append({
            'token': f'k_{channel}', 'sensor_token': f's_{channel}', 'translation': [1.7, 0.0, 1.5],
            'rotation': times([np.cos(turn), 0, 0, np.sin(turn)], [0.5, -0.5, 0.5, -0.5]),
            'camera_intrinsic': [[126, 0, 80], [0, 126, 49], [0, 0, 1]] if channel in YAW else []})
    for scene in scenes:
        tables['scene'].append({'token': scene, 'name': scene})
        keys = [START_US + round(0.5e6 * i) for i in range(int(SECONDS * 2) + 1)]
        for i, time_us in enumerate(keys):
            tables['sample'].append({'token': f'{scene}_{i}', 'scene_token': scene,
                                     'timestamp': time_us})
        for channel in (*YAW, 'LIDAR_TOP'):
            for i in range(int(SECONDS * 12)):
                time_us = START_US + round(i * 1e6 / 12) + DELAY_US.get(channel, 0)
                name = f'{"samples" if i % 6 == 0 else "sweeps"}/{channel}/{scene}_{i}.jpg'
                if channel in YAW:
                    (root / name).parent.mkdir(parents=True, exist_ok=True)
                    (root / name).write_bytes(jpeg(160, 90, 60 + i))
                tables['ego_pose'].append({'token': f'{name}_p', 'timestamp': time_us,
                                           'translation': place_at(time_us), 'rotation': NORTH})
                tables['sample_data'].append({
                    'token': name, 'sample_token': f'{scene}_{min(i // 6, len(keys) - 1)}',
                    'ego_pose_token': f'{name}_p', 'calibrated_sensor_token': f'k_{channel}',
                    'timestamp': time_us, 'filename': name, 'is_key_frame': i % 6 == 0,
                    'width': 160 if channel in YAW else 0, 'height': 90 if channel in YAW else 0})
        for k, (category, size) in enumerate((('c0', [2.0, 4.5, 1.6]), ('c1', [0.6, 0.7, 1.8]),
                                              ('c2', [2.5, 8.0, 3.0]))):
            tables['instance'].append({'token': f'{scene}_a{k}', 'category_token': category})
            for i, time_us in enumerate(keys):
                x, y, z = place_at(START_US if k != 1 else time_us)
                centre = {0: [x - 3, y + 30, z + 0.8], 1: [x + 5, y + 8, z + 0.9],
                          2: [x + 4, y + 40, z + 1.5]}[k]
                if k != 1 or i <= 6:
                    tables['sample_annotation'].append({
                        'token': f'{scene}_{k}_{i}', 'sample_token': f'{scene}_{i}',
                        'instance_token': f'{scene}_a{k}', 'translation': centre, 'size': size,
                        'rotation': NORTH})
    (root / 'v1.0-mini').mkdir()
    for name, rows in tables.items():
        (root / 'v1.0-mini' / f'{name}.json').write_text(json.dumps(rows))
    return root


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return write_tables(tmp_path_factory.mktemp('nuscenes'), ('scene-0001', 'scene-0002'))


@pytest.fixture(scope='module')
def drive(folder):
    return load_scene(folder, 'scene-0001')


def test_cameras_stand_and_look_where_the_tables_say(drive):
    assert drive.rig.names == tuple(CAMERAS)
    for name, channel in CAMERAS.items():
        yaw = np.radians(YAW[channel])
        ahead = np.array([1.7, 0, 1.5]) + 10 * np.array([np.cos(yaw), np.sin(yaw), 0])
        below = ahead - (0, 0, 1)
        pixels, depth = project(drive.rig[name], np.array([ahead, below]))
        np.testing.assert_allclose(depth, 10, atol=1e-9)
        np.testing.assert_allclose(pixels, [[80, 49], [80, 49 + 12.6]], atol=1e-6)


def test_a_set_holds_what_was_taken_around_the_front_cameras_frame(drive):
    assert len(drive) == int(SECONDS * 12)
    stamps = [ego.stamp_ns for ego in drive.egos]
    # The newest is that of the back left camera, 43 ms after the first.
    assert stamps[0] == (START_US + 43_000) * 1000
    assert {len(files) for files in drive.pictures} == {6}
    assert all(path.name == 'scene-0001_7.jpg' for path in drive.pictures[7].values())


def test_the_vehicle_moves_as_its_poses_say(drive):
    ego = drive.egos[30]
    time_us = ego.stamp_ns // 1000
    np.testing.assert_allclose(ego.odom_from_base, [*place_at(time_us)[:2], np.pi / 2], atol=1e-6)
    assert ego.speed_mps == pytest.approx(SPEED_MPS)
    assert ego.yaw_rate_rps == pytest.approx(0, abs=1e-9)


def test_labels_become_truth_in_the_vehicles_frame(drive):
    i = 24      # 2.043 s after the start
    truth = drive.truth(i)
    gone = SPEED_MPS * (drive.egos[i].stamp_ns / 1000 - START_US) * 1e-6
    assert [AGENT_CLASSES[c] for c in truth.classes] == ['car', 'pedestrian']
    np.testing.assert_allclose(truth.poses[0], [30 - gone, 3, 0], atol=1e-4)
    np.testing.assert_allclose(truth.poses[1], [8, -5, 0], atol=1e-4)
    np.testing.assert_allclose(truth.sizes, [[4.5, 2.0, 1.6], [0.7, 0.6, 1.8]])
    np.testing.assert_allclose(truth.velocities, [[0, 0], [SPEED_MPS, 0]], atol=1e-4)
    np.testing.assert_allclose(truth.futures[0, :, 0], 30 - gone, atol=1e-4)
    # Labelled up to 3 s: known for 0.5 s, and not for longer.
    np.testing.assert_allclose(truth.futures[1, 0], [8 + 0.5 * SPEED_MPS, -5, 0], atol=1e-4)
    assert np.isnan(truth.futures[1, 1:]).all()
    assert truth.visible.tolist() == [True, True]


def test_the_command_writes_a_bag_that_gives_the_scene_back(folder, drive, tmp_path, capsys):
    assert main(['nuscenes', str(folder)]) == 0
    assert capsys.readouterr().out == 'scene-0001\nscene-0002\n'
    out = tmp_path / 'bag'
    assert main(['nuscenes', str(folder), '--scene', 'scene-0001', '--out', str(out),
                 '--rig-file', str(tmp_path / 'rig.yaml')]) == 0
    assert f'{len(drive)} sets of 6 cameras, {6 * len(drive)} pictures, 2 tracks with 20' in (
        capsys.readouterr().out)
    recorded = BagDrive(out)
    assert recorded.rig.names == tuple(CAMERAS)
    got, want = list(recorded.samples(40, 20)), list(drive.samples(40, 20))
    assert [s.frames.stamp_ns for s in got] == [s.frames.stamp_ns for s in want]
    assert {len(s.frames.frames) for s in got} == {6}
    np.testing.assert_allclose(got[20].truth.poses, want[20].truth.poses, atol=1e-6)
    with BagReader(out) as reader:
        egos = [value for _, value in reader.values() if isinstance(value, EgoState)]
    assert len(egos) == len(drive)


def test_a_data_set_is_all_scenes(folder):
    dataset = open_dataset(f'nuscenes:{folder}')
    assert dataset.keys == ['scene-0001', 'scene-0002']
    assert len(dataset.open_drive('scene-0002')) == int(SECONDS * 12)


def test_the_rig_of_all_scenes_is_none(folder, tmp_path, capsys):
    assert main(['nuscenes', str(folder), '--all', '--out', str(tmp_path / 'x'), '--rig-file',
                 str(tmp_path / 'rig.yaml')]) == 2
    assert 'want --scene' in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_what_is_missing_is_named(folder, tmp_path, capsys):
    with pytest.raises(NuscenesError, match="no scene 'x'; there are scene-0001, scene-0002"):
        load_scene(folder, 'x')
    with pytest.raises(NuscenesError, match='no scene.json'):
        load_scene(tmp_path, 'x')
    broken = write_tables(tmp_path / 'broken')
    (broken / 'sweeps' / 'CAM_BACK' / 'scene-0001_7.jpg').unlink()
    with pytest.raises(NuscenesError, match='CAM_BACK/scene-0001_7.jpg: named by .*1 of 432'):
        load_scene(broken, 'scene-0001')
    sensors = broken / 'v1.0-mini' / 'sensor.json'
    sensors.write_text(sensors.read_text().replace('s_CAM_FRONT"', 's_CAM_FRUNT"'))
    with pytest.raises(NuscenesError, match="scene-0001: no 's_CAM_FRONT' in the tables"):
        load_scene(broken, 'scene-0001')
    (broken / 'v1.0-mini' / 'ego_pose.json').unlink()
    assert main(['nuscenes', str(broken), '--scene', 'scene-0001', '--out', str(tmp_path)]) == 1
    assert 'ego_pose.json: No such file' in capsys.readouterr().err
