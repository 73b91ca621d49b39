"""
Rigid transforms, camera projection and the grid, in NumPy.

Transforms are named destination first, so that they cancel:
`odom_from_camera = odom_from_base @ base_from_camera`.
"""

from __future__ import annotations

import numpy as np

from wm_ros.types import BevGrid, CameraModel


def se2(x: float, y: float, yaw: float) -> np.ndarray:
    """Return the 3x3 homogeneous matrix of a planar pose (metres, radians)."""
    c, s = np.cos(yaw), np.sin(yaw)
    return np.array([[c, -s, x], [s, c, y], [0.0, 0.0, 1.0]])


def pose_of_se2(matrix: np.ndarray) -> np.ndarray:
    """Return x, y, yaw of 3x3 planar matrices (..., 3, 3) -> (..., 3)."""
    yaw = np.arctan2(matrix[..., 1, 0], matrix[..., 0, 0])
    return np.stack([matrix[..., 0, 2], matrix[..., 1, 2], yaw], axis=-1)


def relative_pose(odom_from_a: np.ndarray, odom_from_b: np.ndarray) -> np.ndarray:
    """Return `a_from_b` as x, y, yaw for planar poses (..., 3) given in one frame."""
    dx = odom_from_b[..., 0] - odom_from_a[..., 0]
    dy = odom_from_b[..., 1] - odom_from_a[..., 1]
    c, s = np.cos(odom_from_a[..., 2]), np.sin(odom_from_a[..., 2])
    yaw = wrap_angle(odom_from_b[..., 2] - odom_from_a[..., 2])
    return np.stack([c * dx + s * dy, -s * dx + c * dy, yaw], axis=-1)


def transform_points(a_from_b: np.ndarray, points_b: np.ndarray) -> np.ndarray:
    """Apply a planar pose (3,) x, y, yaw to points (..., 2): points of frame b in frame a."""
    c, s = np.cos(a_from_b[2]), np.sin(a_from_b[2])
    x, y = points_b[..., 0], points_b[..., 1]
    return np.stack([c * x - s * y + a_from_b[0], s * x + c * y + a_from_b[1]], axis=-1)


def wrap_angle(angle: np.ndarray) -> np.ndarray:
    """Wrap radians into (-pi, pi]."""
    return -((np.pi - np.asarray(angle)) % (2 * np.pi) - np.pi)


def rotation_from_quaternion(xyzw: np.ndarray) -> np.ndarray:
    """Return the 3x3 rotation of a ROS quaternion (x, y, z, w); it is normalised first."""
    norm = float(np.linalg.norm(xyzw))
    if not np.isfinite(norm) or norm < 1e-6:
        raise ValueError(f'quaternion: want a finite one of length 1, got {list(xyzw)}')
    x, y, z, w = np.asarray(xyzw, dtype=np.float64) / norm
    return np.array([
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)]])


def quaternion_from_yaw(yaw: float) -> tuple[float, float, float, float]:
    """Return the ROS quaternion (x, y, z, w) of a turn about z."""
    return 0.0, 0.0, float(np.sin(yaw / 2)), float(np.cos(yaw / 2))


def yaw_from_quaternion(xyzw: np.ndarray) -> float:
    """Return the heading of a ROS quaternion (x, y, z, w) in radians."""
    rotation = rotation_from_quaternion(xyzw)
    return float(np.arctan2(rotation[1, 0], rotation[0, 0]))


#: Rotation of an optical frame (z forward, x right, y down) in a body frame (x forward, y left).
BODY_FROM_OPTICAL = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])


def camera_pose(xyz_m: np.ndarray, yaw: float, pitch: float = 0.0, roll: float = 0.0) -> np.ndarray:
    """
    Return `base_from_camera` (4x4) of a camera at `xyz_m` that looks along `yaw`.

    Angles in radians by REP-103: positive pitch looks down, positive roll tilts clockwise.
    """
    cy, sy = np.cos(yaw), np.sin(yaw)
    cp, sp = np.cos(pitch), np.sin(pitch)
    cr, sr = np.cos(roll), np.sin(roll)
    rz = np.array([[cy, -sy, 0], [sy, cy, 0], [0, 0, 1.0]])
    ry = np.array([[cp, 0, sp], [0, 1.0, 0], [-sp, 0, cp]])
    rx = np.array([[1.0, 0, 0], [0, cr, -sr], [0, sr, cr]])
    pose = np.eye(4)
    pose[:3, :3] = rz @ ry @ rx @ BODY_FROM_OPTICAL
    pose[:3, 3] = xyz_m
    return pose


def invert(a_from_b: np.ndarray) -> np.ndarray:
    """Return `b_from_a` of a rigid 4x4 transform."""
    b_from_a = np.eye(4)
    rotation = a_from_b[:3, :3].T
    b_from_a[:3, :3] = rotation
    b_from_a[:3, 3] = -rotation @ a_from_b[:3, 3]
    return b_from_a


def project(camera: CameraModel, points_base: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """
    Project points (..., 3) in `base_link` to pixels.

    Returns pixels (..., 2) as u, v (OpenCV's convention: u = fx * x / z + cx) and depth (...,)
    along the optical axis in metres; pixels are meaningful only where depth > 0. Distortion follows
    OpenCV's plumb_bob and rational_polynomial models; a point whose distortion folds back (outside
    the monotonic range of the radial polynomial) gets a depth of -1.
    """
    camera_from_base = invert(camera.base_from_camera)
    points = points_base @ camera_from_base[:3, :3].T + camera_from_base[:3, 3]
    depth = points[..., 2]
    z = np.where(depth > 1e-6, depth, 1.0)
    x, y = points[..., 0] / z, points[..., 1] / z
    if camera.distortion:
        d = np.zeros(8)
        d[:len(camera.distortion)] = camera.distortion
        k1, k2, p1, p2, k3, k4, k5, k6 = d
        r2 = x * x + y * y
        radial = (1 + r2 * (k1 + r2 * (k2 + r2 * k3))) / (1 + r2 * (k4 + r2 * (k5 + r2 * k6)))
        xd = x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x)
        yd = y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y
        # Wide points of a barrel model come back towards the centre; they are not in the picture.
        radius = np.sqrt(r2)
        limit = monotonic_radius(camera.distortion)
        depth = np.where(radius < limit, depth, -1.0)
        x, y = xd, yd
    u = camera.k[0, 0] * x + camera.k[0, 1] * y + camera.k[0, 2]
    v = camera.k[1, 1] * y + camera.k[1, 2]
    return np.stack([u, v], axis=-1), depth


def monotonic_radius(distortion: tuple[float, ...]) -> float:
    """Return the largest normalised radius up to which distorted radius still grows."""
    k1, k2, _, _, k3, k4, k5, k6 = (*distortion, *[0.0] * (8 - len(distortion)))
    r = np.linspace(0.0, 4.0, 801)
    r2 = r * r
    denominator = 1 + r2 * (k4 + r2 * (k5 + r2 * k6))
    distorted = r * (1 + r2 * (k1 + r2 * (k2 + r2 * k3))) / denominator
    falling = np.flatnonzero((np.diff(distorted) <= 0) | (denominator[1:] <= 0))
    return float(r[falling[0]]) if len(falling) else float('inf')


def cells_of(grid: BevGrid, points_m: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return integer (row, col) of points (..., 2) xy; they may lie outside the grid."""
    col = np.floor((points_m[..., 0] - grid.x_min_m) / grid.cell_m).astype(np.int64)
    row = np.floor((points_m[..., 1] - grid.y_min_m) / grid.cell_m).astype(np.int64)
    return row, col


def box_corners(xy: np.ndarray, yaw: np.ndarray, length: np.ndarray,
                width: np.ndarray) -> np.ndarray:
    """Return the four ground corners (..., 4, 2) of boxes, counter-clockwise from front left."""
    lx = np.stack([length, -length, -length, length], axis=-1) / 2
    wy = np.stack([width, width, -width, -width], axis=-1) / 2
    c, s = np.cos(yaw)[..., None], np.sin(yaw)[..., None]
    return np.stack([c * lx - s * wy + xy[..., :1], s * lx + c * wy + xy[..., 1:2]], axis=-1)
