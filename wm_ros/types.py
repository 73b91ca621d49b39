"""
The values that travel through the package, from a camera image to a forecast.

Everything here is plain NumPy in frozen dataclasses: no ROS, no torch, no I/O. Frames follow
REP-103 (`base_link`: x forward, y left, z up; optical frames: z forward, x right, y down) and
REP-105. Stamps are integer nanoseconds of capture time, never wall clock.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np

WINDOW_FRAMES = 16
HORIZON_STEPS = 6
TIME_STEP_S = 0.5
MODES = 6

#: Agent classes in the order of the model's class logits; `AgentForecast.msg` numbers them from 1.
AGENT_CLASSES = (
    'car', 'van', 'truck', 'bus', 'motorcycle', 'bicycle', 'pedestrian', 'animal')

#: Channels of the road layout, in the order of the model's output.
ROAD_LAYERS = ('drivable', 'walkway', 'static_obstacle')


@dataclass(frozen=True)
class CameraModel:
    """
    One pinhole camera with its calibration, as a rig file or CameraInfo and TF give it.

    `k` is the 3x3 intrinsic matrix in pixels at (`width`, `height`); `distortion` holds the
    plumb_bob (5) or rational_polynomial (8) coefficients in OpenCV's order, empty for none;
    `base_from_camera` is the 4x4 pose of the optical frame in `base_link`.
    """

    name: str
    width: int
    height: int
    k: np.ndarray
    base_from_camera: np.ndarray
    distortion: tuple[float, ...] = ()


@dataclass(frozen=True)
class CameraRig:
    """The cameras of one vehicle, in the order in which the model sees them."""

    cameras: tuple[CameraModel, ...]
    name: str = ''

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(camera.name for camera in self.cameras)

    def __len__(self) -> int:
        return len(self.cameras)

    def __getitem__(self, name: str) -> CameraModel:
        for camera in self.cameras:
            if camera.name == name:
                return camera
        raise KeyError(f'camera {name!r}: this rig has {", ".join(self.names)}')


@dataclass(frozen=True)
class BevGrid:
    """
    A square-celled ground grid in `base_link`.

    Row index grows with y, column index with x (the order of `nav_msgs/OccupancyGrid`): cell
    (iy, ix) covers x in [x_min_m + ix * cell_m, +cell_m), y in [y_min_m + iy * cell_m, +cell_m).
    """

    x_min_m: float
    y_min_m: float
    cell_m: float
    rows: int
    cols: int

    @property
    def shape(self) -> tuple[int, int]:
        return self.rows, self.cols

    def centres_m(self) -> np.ndarray:
        """Return the cell centres, (rows, cols, 2) xy in metres."""
        x = self.x_min_m + (np.arange(self.cols) + 0.5) * self.cell_m
        y = self.y_min_m + (np.arange(self.rows) + 0.5) * self.cell_m
        return np.stack(np.meshgrid(x, y), axis=-1).astype(np.float32)


#: What is published: 100 m x 100 m around the vehicle in cells of 0.5 m.
OUTPUT_GRID = BevGrid(-50.0, -50.0, 0.5, 200, 200)
#: What the image features are lifted to and warped on: 1.25 m, finer than the 2 m limit.
FEATURE_GRID = BevGrid(-50.0, -50.0, 1.25, 80, 80)


def centre_grid(rows: int) -> BevGrid:
    """Return the grid of `rows` x `rows` cells over the feature grid's ground."""
    return BevGrid(FEATURE_GRID.x_min_m, FEATURE_GRID.y_min_m,
                   FEATURE_GRID.cell_m * FEATURE_GRID.rows / rows, rows, rows)


class ImageForm(IntEnum):
    """How the bytes of a `Frame` are to be read."""

    ARRAY = 0       # (H, W, 3) uint8 RGB, already decoded
    COMPRESSED = 1  # one JPEG or PNG file


@dataclass(frozen=True)
class Frame:
    """
    One camera image with its capture stamp.

    `image` is an (H, W, 3) uint8 RGB array, or the bytes of a JPEG or PNG file, which the
    predictor decodes at the scale that it needs, in its own thread, or the error (ImageError) for
    which whoever received it refused it.
    """

    camera: str
    stamp_ns: int
    image: np.ndarray | bytes | memoryview | ValueError

    @property
    def form(self) -> ImageForm:
        return ImageForm.ARRAY if isinstance(self.image, np.ndarray) else ImageForm.COMPRESSED


@dataclass(frozen=True)
class FrameSet:
    """
    The frames of all cameras for one instant, matched by stamp.

    `stamp_ns` is the stamp of the newest frame in it; a camera that is not in `frames` was
    missing. `skipped` counts the frame periods between the set before and this one that hold no
    set at all (0 when consecutive).
    """

    stamp_ns: int
    frames: dict[str, Frame]
    skipped: int = 0


@dataclass(frozen=True)
class EgoState:
    """
    Pose and motion of `base_link` in `odom` at one stamp, planar.

    `odom_from_base` is (x, y, yaw) in metres and radians, `speed_mps` along x of `base_link`,
    `yaw_rate_rps` counter-clockwise.
    """

    stamp_ns: int
    odom_from_base: np.ndarray
    speed_mps: float
    yaw_rate_rps: float


class PlanSource(IntEnum):
    """Where the ego plan of a forecast came from (`EgoPlan.msg` has the same numbers)."""

    NONE = 0               # no odometry and no plan: the trained mask was used
    CONSTANT_TURN_RATE = 1
    GIVEN = 2


@dataclass(frozen=True)
class EgoPlan:
    """Planned poses (6, 3) of x, y, yaw in `base_link` at the stamp, every 0.5 s from 0.5 s."""

    poses: np.ndarray
    source: PlanSource


class CameraState(IntEnum):
    """State of one camera in the newest set of a window (`WindowInfo.msg` has the same numbers)."""

    OK = 0
    MISSING = 1
    CORRUPT = 2
    BLACK = 3
    OVEREXPOSED = 4
    FROZEN = 5
    UNCALIBRATED = 6


@dataclass(frozen=True)
class WindowInfo:
    """
    The window contract: what a forecast was computed from.

    `frames_used` of 16 entries held a set; `frames_missing` were masked; `frames_partial` had a
    camera missing. `max_gap_periods` is the longest step between two sets in periods, `span_ns`
    the time from the oldest to the newest set. `cameras` gives the state of each camera in the
    newest set.
    """

    frames_used: int
    frames_missing: int
    frames_partial: int
    max_gap_periods: float
    period_ns: int
    span_ns: int
    odometry: bool
    cameras: dict[str, CameraState]


@dataclass(frozen=True)
class AgentForecast:
    """
    One road user and where it may go, in `base_link` frozen at the stamp.

    `class_probabilities` (8,) follows `AGENT_CLASSES`; `pose` is x, y, yaw; `pose_covariance`
    3x3 and `twist_covariance` 2x2 (vx, vy) belong to `pose` and `velocity_mps`; `size_m` is
    length, width, height; `trajectories_m` (6, 6, 2) holds K modes of T waypoints,
    `mode_probabilities` (6,) sums to 1, `covariances_m2` (6, 6, 2, 2) one matrix a waypoint.
    """

    track_id: bytes
    score: float
    class_probabilities: np.ndarray
    pose: np.ndarray
    pose_covariance: np.ndarray
    velocity_mps: np.ndarray
    twist_covariance: np.ndarray
    size_m: np.ndarray
    trajectories_m: np.ndarray
    mode_probabilities: np.ndarray
    covariances_m2: np.ndarray

    @property
    def label(self) -> str:
        return AGENT_CLASSES[int(np.argmax(self.class_probabilities))]


@dataclass(frozen=True)
class Forecast:
    """
    What the world model says for one window under one ego plan.

    Occupancy is `agents[T + 1, Y, X]` and `static[Y, X]`, probability 0-254 for 0-1 as uint8,
    255 where the ground is not observed (and no agent surely stands there); step 0 is now, then
    every 0.5 s. `flow[T + 1, 2, Y, X]` is backward flow in metres: a cell at step t came from
    cell + flow at step t - 1 (now: from 0.5 s earlier). `road[3, Y, X]` follows `ROAD_LAYERS` in
    the same uint8 coding. All on `OUTPUT_GRID`, row = y, column = x. `reasons` names why `valid` is
    false, empty otherwise.
    """

    stamp_ns: int
    valid: bool
    reasons: tuple[str, ...]
    window: WindowInfo
    ego_plan: EgoPlan
    odom_from_base: np.ndarray | None
    agents: tuple[AgentForecast, ...]
    occupancy_agents: np.ndarray
    occupancy_static: np.ndarray
    flow: np.ndarray
    road: np.ndarray
    model_hash: str = ''
    precision: dict[str, str] = field(default_factory=dict)
    stages_ms: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Truth:
    """
    Ground truth for one instant, in `base_link` at the stamp; agents are rows of equal order.

    `classes[A]` indexes `AGENT_CLASSES`; `poses[A, 3]` is x, y, yaw; `velocities[A, 2]` over
    ground in m/s; `sizes[A, 3]` length, width, height; `futures[A, 6, 3]` the pose every 0.5 s
    (NaN where unknown); `pixels[A]` and `silhouettes[A]` the rendered pixels at the model's
    input size, summed over cameras, and the share of the unoccluded silhouette that is visible
    in the best camera; `visible[A]` the benchmark's rule on them (24 pixels and 20 %).
    `road[3, Y, X]` and `observed[Y, X]` are boolean on `OUTPUT_GRID` (row = y, column = x), the
    latter true where some camera sees the ground or what stands on it.
    """

    stamp_ns: int
    ego: EgoState
    ego_plan: EgoPlan
    ids: np.ndarray
    classes: np.ndarray
    poses: np.ndarray
    velocities: np.ndarray
    sizes: np.ndarray
    futures: np.ndarray
    pixels: np.ndarray
    silhouettes: np.ndarray
    visible: np.ndarray
    road: np.ndarray
    observed: np.ndarray
