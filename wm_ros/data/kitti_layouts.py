"""
KITTI as it is downloaded: drives of the raw data, and sequences of the tracking benchmark.

Raw (`..._drive_0005_sync`): image_02/data and timestamps.txt, oxts/data, tracklet_labels.xml,
velodyne_points/data; calib_*.txt in the folder of the day above it. Tracking: image_02/NNNN,
oxts/NNNN.txt, label_02/NNNN.txt, calib/NNNN.txt, velodyne/NNNN under `training`; it has no
timestamps and runs at 10 Hz. Formats: the development kits' readme files; Geiger et al. (2013).
"""

from __future__ import annotations

import calendar
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from wm_ros.data import kitti
from wm_ros.data.kitti import CALIBRATION_FILES, CLASS_OF_TYPE, KittiDrive, KittiError
from wm_ros.data.tracks import Track
from wm_ros.geometry import invert, wrap_angle
from wm_ros.types import AGENT_CLASSES, CameraRig, EgoState

EARTH_M = 6_378_137.0
#: Columns of an oxts line: latitude, longitude, yaw, forward speed.
_LAT, _LON, _YAW, _FORWARD = 0, 1, 5, 8
TRACKING_START_S, TRACKING_PERIOD_S = 1.0, 0.1


def load_any(folder: Path | str, calibration: Path | str | None = None) -> KittiDrive:
    """Read a drive in whichever of the three layouts it is; raise KittiError naming the file."""
    folder = Path(folder)
    if (folder / 'oxts' / 'data').is_dir():
        return load_raw(folder, calibration)
    if folder.parent.name == 'image_02':
        return load_tracking(folder.parent.parent, folder.name)
    return kitti.load_drive(folder, calibration)


def load_raw(folder: Path, calibration: Path | str | None = None) -> KittiDrive:
    """Read a drive of the raw data ("synced+rectified")."""
    images = tuple(sorted((folder / 'image_02' / 'data').glob('*.png')))
    times = _times(folder / 'image_02' / 'timestamps.txt')
    oxts = [_pose(' '.join(_lines(path)), path)
            for path in sorted((folder / 'oxts' / 'data').glob('*.txt'))]
    places = [Path(calibration)] if calibration else [folder, folder.parent]
    place = next((p for p in places if all((p / f).is_file() for f in CALIBRATION_FILES)), None)
    if place is None:
        raise KittiError(f'{folder}: no {", ".join(CALIBRATION_FILES)} in '
                         f'{", ".join(map(str, places))}')
    files = {name: kitti._calibration_file(place / name) for name in CALIBRATION_FILES}
    drive = _drive(folder, folder.name, images, times, oxts, files,
                   sorted((folder / 'velodyne_points' / 'data').glob('*.bin')))
    labels = folder / 'tracklet_labels.xml'
    boxes = _tracklets(labels) if labels.is_file() else iter(())
    return _with_tracks(drive, boxes, labels)


def load_tracking(root: Path, name: str) -> KittiDrive:
    """Read a sequence of the tracking data; `root` is the folder `training`."""
    images = tuple(sorted((root / 'image_02' / name).glob('*.png')))
    path = root / 'oxts' / f'{name}.txt'
    oxts = [_pose(line, path) for line in _lines(path)]
    times = TRACKING_START_S + TRACKING_PERIOD_S * np.arange(len(images))
    entries = {}
    for line in _lines(root / 'calib' / f'{name}.txt'):
        key, *values = line.replace(':', ' ').split()
        entries[key] = np.array(values, float)
    try:
        velo_to_cam, imu_to_velo = (entries[key].reshape(3, 4) for key in (
            'Tr_velo_cam', 'Tr_imu_velo'))
        rectified = entries['R_rect']
        files = {
            'calib_cam_to_cam.txt': {'P_rect_02': entries['P2'], 'R_rect_00': rectified},
            'calib_velo_to_cam.txt': {'R': velo_to_cam[:, :3], 'T': velo_to_cam[:, 3]},
            'calib_imu_to_velo.txt': {'R': imu_to_velo[:, :3], 'T': imu_to_velo[:, 3]}}
    except (KeyError, ValueError) as err:
        raise KittiError(f'{root / "calib" / name}.txt: {err}, want P2, R_rect, Tr_velo_cam and '
                         'Tr_imu_velo') from err
    drive = _drive(root, name, images, times, oxts, files,
                   sorted((root / 'velodyne' / name).glob('*.bin')))
    labels = root / 'label_02' / f'{name}.txt'
    rectified_from_velo = np.eye(4)
    rectified_from_velo[:3, :3] = rectified.reshape(3, 3)
    rectified_from_velo = rectified_from_velo @ kitti._rigid(files['calib_velo_to_cam.txt'], 'R',
                                                             'T')
    boxes = _labels(labels, invert(rectified_from_velo)) if labels.is_file() else iter(())
    return _with_tracks(drive, boxes, labels)


def _drive(folder: Path, name: str, images: tuple[Path, ...], times: np.ndarray,
           oxts: list[np.ndarray], files: dict[str, dict[str, np.ndarray]],
           sweeps: list[Path]) -> KittiDrive:
    if not images or not len(images) == len(times) == len(oxts):
        raise KittiError(f'{folder}: {len(images)} pictures of image_02, {len(times)} times and '
                         f'{len(oxts)} poses of oxts, want as many of each and at least one')
    scale = np.cos(np.radians(oxts[0][_LAT]))
    rows = []
    for time_s, values in zip(times, oxts, strict=True):
        # Mercator, as in the development kit.
        x = scale * EARTH_M * np.radians(values[_LON])
        y = scale * EARTH_M * np.log(np.tan(np.radians(90 + values[_LAT]) / 2))
        rows.append({'frame': str(len(rows)), 'timestamp': time_s, 'x': x, 'y': y,
                     'yaw': values[_YAW], 'speed_mps': values[_FORWARD]})
    for row in reversed(rows):      # from where the drive begins, so that numbers stay small
        row['x'] -= rows[0]['x']
        row['y'] -= rows[0]['y']
    imu_from_velo = invert(kitti._rigid(files['calib_imu_to_velo.txt'], 'R', 'T'))
    return KittiDrive(
        name, CameraRig((kitti._camera(files, images[0]),), 'kitti'), images,
        tuple(kitti._ego_states(rows, imu_from_velo)), (),
        tuple(sweeps) if len(sweeps) == len(images) else (),
        kitti._base_from_velo(files['calib_imu_to_velo.txt']))


#: One labelled box: track, type, frame, x, y, z of its bottom's centre and yaw in the Velodyne
#: frame, length, width, height.
_Box = tuple[int, str, int, np.ndarray, float, tuple[float, float, float]]


def _with_tracks(drive: KittiDrive, boxes: Iterator[_Box], source: Path) -> KittiDrive:
    """Return the drive with the boxes as tracks in the frame of its poses."""
    by_id: dict[int, list[_Box]] = defaultdict(list)
    for box in boxes:
        if not 0 <= box[2] < len(drive):
            raise KittiError(f'{source}: frame {box[2]}, want 0 to {len(drive) - 1}')
        if box[1] in CLASS_OF_TYPE:
            by_id[box[0]].append(box)
    offset, tracks = drive.base_from_velo[:3, 3], []
    for number, found in sorted(by_id.items()):
        found.sort(key=lambda box: box[2])
        egos = [drive.egos[box[2]] for box in found]
        tracks.append(Track(
            number, AGENT_CLASSES.index(CLASS_OF_TYPE[found[0][1]]),
            np.array([ego.stamp_ns for ego in egos]),
            np.array([_in_world(ego, box[3] + offset, box[4])
                      for ego, box in zip(egos, found, strict=True)]),
            np.median([box[5] for box in found], axis=0),
            np.array([box[3][2] + offset[2] for box in found])))
    return KittiDrive(drive.name, drive.rig, drive.images, drive.egos, tuple(tracks), drive.sweeps,
                      drive.base_from_velo)


def _in_world(ego: EgoState, place: np.ndarray, yaw: float) -> np.ndarray:
    x, y, turned = ego.odom_from_base
    c, s = np.cos(turned), np.sin(turned)
    return np.array([x + c * place[0] - s * place[1], y + s * place[0] + c * place[1],
                     float(wrap_angle(turned + yaw))])


def _labels(path: Path, velo_from_rectified: np.ndarray) -> Iterator[_Box]:
    """Yield the boxes of a label file of the tracking data."""
    for line in _lines(path):
        try:
            frame, track, kind, *values = line.split()
            numbers = np.array(values, float)
            height, width, length = numbers[7:10]
            if len(numbers) < 14:
                raise ValueError(f'{len(numbers)} numbers')
        except ValueError as err:
            raise KittiError(f'{path}: {err} in {line[:40]!r}, want frame, track, type and 14 '
                             'numbers') from err
        if kind == 'DontCare':
            continue
        place = velo_from_rectified @ np.array([*numbers[10:13], 1.0])
        # rotation_y turns about the camera's y, which points down: 0 is along its x.
        ahead = velo_from_rectified[:3, :3] @ np.array([np.cos(numbers[13]), 0.0,
                                                        -np.sin(numbers[13])])
        yield (int(track), kind, int(frame), place[:3], float(np.arctan2(ahead[1], ahead[0])),
               (length, width, height))


def _tracklets(path: Path) -> Iterator[_Box]:
    """Yield the boxes of tracklet_labels.xml of the raw data."""
    number = 'none'
    try:
        items = ElementTree.parse(path).getroot().find('tracklets').findall('item')
        for number, item in enumerate(items):
            size = tuple(float(item.find(key).text) for key in ('l', 'w', 'h'))
            first = int(item.find('first_frame').text)
            kind = item.find('objectType').text.replace(' ', '_').replace('(', '').replace(')', '')
            for i, pose in enumerate(item.find('poses').findall('item')):
                place = np.array([float(pose.find(key).text) for key in ('tx', 'ty', 'tz')])
                yield number, kind, first + i, place, float(pose.find('rz').text), size
    except (ElementTree.ParseError, AttributeError, TypeError, ValueError) as err:
        # What is not there is None, and None has no text.
        raise KittiError(f'{path}: tracklet {number}: {err}; want l, w, h, objectType, first_frame '
                         'and poses of each') from err


def _times(path: Path) -> np.ndarray:
    """Return the seconds since 1970 of a timestamps.txt, which has nanoseconds and no zone."""
    seconds = []
    for line in _lines(path):
        whole, _, part = line.partition('.')
        seconds.append(calendar.timegm(time.strptime(whole, '%Y-%m-%d %H:%M:%S'))
                       + float(f'0.{part or 0}'))
    return np.array(seconds)


def _pose(line: str, path: Path) -> np.ndarray:
    """Return the numbers of a line of oxts; raise KittiError where there are too few."""
    try:
        values = np.array(line.split(), float)
    except ValueError as err:
        raise KittiError(f'{path}: {err}, want numbers') from err
    if len(values) <= _FORWARD:
        raise KittiError(f'{path}: {len(values)} numbers, want {_FORWARD + 1} and more')
    return values


def _lines(path: Path) -> list[str]:
    try:
        return [line for line in path.read_text(encoding='utf-8').splitlines() if line.strip()]
    except OSError as err:
        raise KittiError(f'{path}: {err.strerror}, want it') from err
