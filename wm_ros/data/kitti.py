"""
A KITTI raw drive as camera sets, ego states and truth.

The folder holds `image_02/%06d.png` (any size), `ego_local.csv` (pose of the GPS/IMU unit in a
local metric frame, x east, y north) and `tracks.csv` (boxes in the Velodyne frame with their place
in that frame); where there is a lidar, `lidar/%06d.npz` (`xyz_5cm`, int16 (3, N), metres times 20,
Velodyne frame). The calibration of the day (`calib_cam_to_cam.txt`, `calib_velo_to_cam.txt`,
`calib_imu_to_velo.txt`) lies in the folder itself, or in `../kitti_labels_calib/raw_calib_<day>`;
of several days it is the one that the folder's name begins with.
The layouts in which KITTI itself comes are read by `wm_ros.data.kitti_layouts`.

`base_link` here has the axes of the Velodyne and lies on the road, 1.73 m below it, as far ahead as
the GPS/IMU unit (0.81 m behind the Velodyne, close to the rear axle), on the car's centre line. On
the road that the recordings show, those axes are level within 0.3 degrees. KITTI's frames and
heights: Geiger et al., Vision meets Robotics (2013), and its sensor setup page.

KITTI labels what its camera sees and its lidar reached. Agents without a label, all those beside
and behind the car among them, are unknown to the truth: a detection of one counts as a false
positive.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from wm_ros.data.samples import Sample
from wm_ros.data.tracks import Track, truth_at
from wm_ros.geometry import invert, relative_pose, wrap_angle
from wm_ros.types import AGENT_CLASSES, CameraModel, CameraRig, EgoState, Frame, FrameSet, Truth

CAMERA = 'front'
VELODYNE_HEIGHT_M = 1.73
#: KITTI's types by our classes. Trams are long like buses; 'Misc' (trailers and the like) and
#: 'DontCare' have none, and are left out.
CLASS_OF_TYPE = {'Car': 'car', 'Van': 'van', 'Truck': 'truck', 'Tram': 'bus', 'Cyclist': 'bicycle',
                 'Pedestrian': 'pedestrian', 'Person_sitting': 'pedestrian', 'Person': 'pedestrian'}
#: The files of a calibration: what of each is read, and how many numbers that has.
CALIBRATION_FILES = {'calib_cam_to_cam.txt': {'P_rect_02': 12, 'R_rect_00': 9},
                     'calib_velo_to_cam.txt': {'R': 9, 'T': 3},
                     'calib_imu_to_velo.txt': {'R': 9, 'T': 3}}
#: The sizes of rectified pictures; each recording day of KITTI has one. What a calibration does not
#: say (that of the tracking data) is told by the pictures, where they are as they were recorded.
FULL_SIZES = ((1242, 375), (1224, 370), (1226, 370), (1238, 374), (1241, 376))


class KittiError(ValueError):
    """A folder that is not such a drive: which file, what was found and what was wanted."""


@dataclass(frozen=True)
class KittiDrive:
    """One drive; `images`, `egos` and stamps are in equal order. `ego.odom_from_base` is local."""

    name: str
    rig: CameraRig
    images: tuple[Path, ...]
    egos: tuple[EgoState, ...]
    tracks: tuple[Track, ...]
    sweeps: tuple[Path, ...] = ()
    base_from_velo: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.images)

    def frame_set(self, i: int) -> FrameSet:
        """Return the set of instant `i`: the bytes of its PNG file."""
        stamp = self.egos[i].stamp_ns
        return FrameSet(stamp, {CAMERA: Frame(CAMERA, stamp, self.images[i].read_bytes())})

    def points(self, i: int) -> np.ndarray:
        """Return the lidar's points (N, 3) at instant `i` in `base_link`."""
        path = self.sweeps[i]
        if path.suffix == '.npz':       # metres times 20
            points = np.load(path)['xyz_5cm'].T / 20.0
        else:                           # the raw data's own files: x, y, z, reflectance
            points = np.fromfile(path, np.float32).reshape(-1, 4)[:, :3].astype(np.float64)
        return points + self.base_from_velo[:3, 3]

    def truth(self, i: int) -> Truth:
        """Return the labels at instant `i` with their futures, NaN after a track's end."""
        return truth_at(self.egos[i], list(self.egos), list(self.tracks), self.rig)

    def samples(self, every: int = 1, first: int = 0) -> Iterator[Sample]:
        """Yield all instants; no plan, because a recording does not say what was meant."""
        for i in range(len(self)):
            scored = i >= first and (i - first) % every == 0
            yield Sample(self.frame_set(i), self.egos[i], self.truth(i) if scored else None, None)


def load_drive(folder: Path | str, calibration: Path | str | None = None) -> KittiDrive:
    """Read a drive; raise KittiError naming the file, what was found and what was wanted."""
    folder = Path(folder)
    images = tuple(sorted((folder / 'image_02').glob('*.png')))
    rows = _rows(folder / 'ego_local.csv', ('frame', 'timestamp', 'x', 'y', 'yaw', 'speed_mps'))
    if not images or len(images) != len(rows):
        raise KittiError(f'{folder}: {len(images)} pictures in image_02 and {len(rows)} rows in '
                         'ego_local.csv, want as many of each and at least one')
    calibrated = _calibration(folder, calibration)
    imu_from_velo = invert(_rigid(calibrated['calib_imu_to_velo.txt'], 'R', 'T'))
    egos = tuple(_ego_states(rows, imu_from_velo))
    return KittiDrive(
        name=folder.name, rig=CameraRig((_camera(calibrated, images[0]),), 'kitti'),
        images=images, egos=egos, tracks=tuple(_tracks(folder / 'tracks.csv', egos)),
        sweeps=_sweeps(folder, len(egos)),
        base_from_velo=_base_from_velo(calibrated['calib_imu_to_velo.txt']))


def _sweeps(folder: Path, count: int) -> tuple[Path, ...]:
    """Return the lidar's files, none where there are not as many as pictures."""
    for pattern in ('lidar/*.npz', 'velodyne_points/data/*.bin'):
        found = tuple(sorted(folder.glob(pattern)))
        if len(found) == count:
            return found
    return ()


def _rows(path: Path, columns: tuple[str, ...]) -> list[dict[str, str]]:
    try:
        with path.open(newline='', encoding='utf-8') as file:
            reader = csv.DictReader(file)
            missing = [name for name in columns if name not in (reader.fieldnames or ())]
            if missing:
                raise KittiError(f'{path}: no column {", ".join(missing)}; '
                                 f'found {", ".join(reader.fieldnames or ("nothing",))}')
            return list(reader)
    except OSError as err:
        raise KittiError(f'{path}: {err.strerror}, want a table') from err


def _calibration(folder: Path, given: Path | str | None) -> dict[str, dict[str, np.ndarray]]:
    """Read the three calibration files from the first place that has them."""
    beside = sorted((folder.resolve().parent / 'kitti_labels_calib').glob('raw_calib_*'))
    day = [place for place in beside
           if folder.resolve().name.startswith(place.name.removeprefix('raw_calib_'))]
    if len(beside) > 1 and not day and not given and not any(
            (folder / name).is_file() for name in CALIBRATION_FILES):
        raise KittiError(f'{folder}: calibrations of several days beside it, '
                         f'{", ".join(place.name for place in beside)}; want the folder of one: '
                         '--calibration DIR')
    places = [Path(given)] if given else [folder, *(day or beside)]
    for place in places:
        if all((place / name).is_file() for name in CALIBRATION_FILES):
            return {name: _calibration_file(place / name) for name in CALIBRATION_FILES}
    raise KittiError(f'{folder}: no {", ".join(CALIBRATION_FILES)} in '
                     f'{", ".join(map(str, places))}')


def _calibration_file(path: Path) -> dict[str, np.ndarray]:
    entries = {}
    for line in path.read_text(encoding='utf-8').splitlines():
        key, _, values = line.partition(':')
        try:
            entries[key.strip()] = np.array(values.split(), dtype=np.float64)
        except ValueError:
            continue  # dates
    for key, count in CALIBRATION_FILES[path.name].items():
        if len(entries.get(key, ())) != count:
            raise KittiError(f'{path}: {len(entries.get(key, ()))} numbers of {key}, want {count}')
    return entries


def _rigid(entries: dict[str, np.ndarray], rotation: str, translation: str) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3] = entries[rotation].reshape(3, 3)
    matrix[:3, 3] = entries[translation]
    return matrix


def _camera(calibrated: dict[str, dict[str, np.ndarray]], picture: Path) -> CameraModel:
    """Return the rectified left colour camera for pictures of the given file's size."""
    image = cv2.imread(str(picture))
    if image is None:
        raise KittiError(f'{picture}: not a picture, want a PNG file')
    height, width = image.shape[:2]
    projection = calibrated['calib_cam_to_cam.txt']['P_rect_02'].reshape(3, 4)
    k = projection[:, :3].copy()
    # P = K [I | t]: where the rectified camera 2 lies in the rectified frame of camera 0.
    camera_from_rectified = np.eye(4)
    camera_from_rectified[:3, 3] = np.linalg.solve(k, projection[:, 3])
    rectified_from_camera_0 = np.eye(4)
    rectified_from_camera_0[:3, :3] = calibrated['calib_cam_to_cam.txt']['R_rect_00'].reshape(3, 3)
    camera_0_from_velo = _rigid(calibrated['calib_velo_to_cam.txt'], 'R', 'T')
    velo_from_camera = invert(camera_from_rectified @ rectified_from_camera_0
                              @ camera_0_from_velo)
    full_size = calibrated['calib_cam_to_cam.txt'].get('S_rect_02')
    if full_size is None:
        full_size = (width, height) if (width, height) in FULL_SIZES else FULL_SIZES[0]
    for axis, (size, full) in enumerate(zip((width, height), full_size, strict=True)):
        scale = size / full
        k[axis] *= scale
        k[axis, 2] += 0.5 * scale - 0.5  # pixel centres at integers, in both sizes
    return CameraModel(CAMERA, width, height, k,
                       _base_from_velo(calibrated['calib_imu_to_velo.txt']) @ velo_from_camera)


def _base_from_velo(imu_to_velo: dict[str, np.ndarray]) -> np.ndarray:
    imu_from_velo = invert(_rigid(imu_to_velo, 'R', 'T'))
    matrix = np.eye(4)
    matrix[:3, 3] = imu_from_velo[0, 3], 0.0, VELODYNE_HEIGHT_M
    return matrix


def _ego_states(rows: list[dict[str, str]], imu_from_velo: np.ndarray) -> Iterator[EgoState]:
    """Yield states of `base_link`; the yaw rate is the turn since the row before."""
    offset = imu_from_velo[1, 3]
    turned = float(np.arctan2(imu_from_velo[1, 0], imu_from_velo[0, 0]))
    before = None
    for row in rows:
        stamp = round(float(row['timestamp']) * 1000) * 1_000_000  # stated to the millisecond
        yaw = float(row['yaw'])
        pose = np.array([float(row['x']) - offset * np.sin(yaw),
                         float(row['y']) + offset * np.cos(yaw), wrap_angle(yaw + turned)])
        rate = 0.0
        if before is not None:
            if stamp <= before.stamp_ns:
                raise KittiError(f'ego_local.csv: frame {row["frame"]} at {stamp} ns, want it '
                                 f'after {before.stamp_ns} ns')
            rate = (float(wrap_angle(pose[2] - before.odom_from_base[2]))
                    / ((stamp - before.stamp_ns) * 1e-9))
        before = EgoState(stamp, pose, float(row['speed_mps']), rate)
        yield before


def _tracks(path: Path, egos: tuple[EgoState, ...]) -> Iterator[Track]:
    """Yield the tracks of the classes that we have, placed by the ego pose of their frame."""
    columns = ('frame', 'track_id', 'type', 'z_velo_bottom', 'length', 'width', 'height',
               'x_world', 'y_world', 'yaw_world')
    by_id = defaultdict(list)
    for row in _rows(path, columns):
        if row['type'] in CLASS_OF_TYPE:
            if not 0 <= int(row['frame']) < len(egos):
                raise KittiError(f'{path}: frame {row["frame"]}, want 0 to {len(egos) - 1}')
            by_id[int(row['track_id'])].append(row)
    for track_id, rows in sorted(by_id.items()):
        rows.sort(key=lambda row: int(row['frame']))

        yield Track(
            track_id=track_id,
            label=AGENT_CLASSES.index(CLASS_OF_TYPE[rows[0]['type']]),
            stamps_ns=np.array([egos[int(row['frame'])].stamp_ns for row in rows]),
            poses=_values(rows, 'x_world', 'y_world', 'yaw_world'),
            size_m=np.median(_values(rows, 'length', 'width', 'height'), axis=0),
            z_m=_values(rows, 'z_velo_bottom')[:, 0] + VELODYNE_HEIGHT_M)


def _values(rows: list[dict[str, str]], *names: str) -> np.ndarray:
    return np.array([[float(row[name]) for name in names] for row in rows])


def place_in_base(drive: KittiDrive, track: Track, i: int) -> np.ndarray | None:
    """Return the pose (3,) of a track's label at instant `i` in `base_link`, None without one."""
    at = np.flatnonzero(track.stamps_ns == drive.egos[i].stamp_ns)
    return relative_pose(drive.egos[i].odom_from_base, track.poses[at[0]]) if len(at) else None
