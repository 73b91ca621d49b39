"""One simulated drive: the ego's motion and the ground truth at every frame."""

from __future__ import annotations

import cv2
import numpy as np

from wm_ros.geometry import relative_pose, wrap_angle
from wm_ros.sim import seeds
from wm_ros.sim.layout import make_layout
from wm_ros.sim.observed import observed_cells
from wm_ros.sim.roads import DRIVABLE, RASTER_M, STATIC, WALKWAY, Layout
from wm_ros.sim.traffic import Recording, Simulation
from wm_ros.sim.worlds import STEP_S, WORLDS
from wm_ros.types import (
    HORIZON_STEPS,
    OUTPUT_GRID,
    TIME_STEP_S,
    CameraRig,
    EgoPlan,
    EgoState,
    PlanSource,
    Truth,
)

RANGE_M = 60.0
#: The benchmark's rule of visibility, at the model's input size of 400 pixels a row.
VISIBLE_PIXELS = 24.0
VISIBLE_SILHOUETTE = 0.2
FUTURE_S = HORIZON_STEPS * TIME_STEP_S


class Drive:
    """
    A recorded simulation.

    `stamps_ns[n]` are the frames; `world` names the mix. Agents keep their number (`Truth.ids`)
    over the whole drive; number 0 is the first agent that is not the ego vehicle.
    """

    def __init__(self, seed: int, world: str, layout: Layout, recording: Recording,
                 n: int, rate_hz: float, settle_s: float) -> None:
        self.seed, self.world, self.layout, self.recording = seed, world, layout, recording
        self.n, self.rate_hz, self.settle_s = n, rate_hz, settle_s
        start = 1_000_000_000_000
        self.stamps_ns = start + np.round(np.arange(n) * 1e9 / rate_hz).astype(np.int64)
        rng = seeds.generator(seed, 9)
        self._odom_from_layout = np.array([*rng.uniform(-500, 500, 2), rng.uniform(-np.pi, np.pi)])

    def time_s(self, i: int) -> float:
        """Return the simulation time of frame `i` (0 is the start of the settling phase)."""
        if not 0 <= i < self.n:
            raise IndexError(f'frame: want 0 to {self.n - 1}, got {i}')
        return self.settle_s + i / self.rate_hz

    def poses_at(self, t: float) -> np.ndarray:
        """Return box centre poses (A, 3) in the layout, ego first, at simulation time `t`."""
        return _interpolate(self.recording.poses, t)

    def base_at(self, t: float) -> np.ndarray:
        """Return `layout_from_base` (x, y, yaw) of the ego's rear axle at simulation time `t`."""
        return _interpolate(self.recording.axle[:, :3], t)

    def step_at(self, t: float) -> int:
        return int(np.clip(round(t / STEP_S), 0, len(self.recording.axle) - 1))

    def ego(self, i: int) -> EgoState:
        """Return the ego's state at frame `i`, in an odom frame of random origin."""
        t = self.time_s(i)
        a, b = self.base_at(t - 0.1), self.base_at(t + 0.1)
        step = relative_pose(a, b)
        return EgoState(
            int(self.stamps_ns[i]), compose(self._odom_from_layout, self.base_at(t)),
            float(np.hypot(step[0], step[1]) / 0.2), float(step[2] / 0.2))

    def ego_plan(self, i: int) -> EgoPlan:
        """Return where the ego really goes, poses (6, 3) in `base_link` at frame `i`."""
        t = self.time_s(i)
        now = self.base_at(t)
        later = [self.base_at(t + (k + 1) * TIME_STEP_S) for k in range(HORIZON_STEPS)]
        return EgoPlan(np.array([relative_pose(now, x) for x in later]), PlanSource.GIVEN)

    def near(self, i: int) -> np.ndarray:
        """Return the rows of the recording (never 0, the ego) within 60 m at frame `i`."""
        t = self.time_s(i)
        poses, base = self.poses_at(t), self.base_at(t)
        distance = np.hypot(poses[:, 0] - base[0], poses[:, 1] - base[1])
        rows = np.flatnonzero(distance < RANGE_M)
        rows = rows[rows > 0]
        if len(rows) > 250:                     # the id buffer has eight bits
            rows = np.sort(rows[np.argsort(distance[rows], kind='stable')[:250]])
        return rows

    def truth(self, i: int, rig: CameraRig, rendered=None) -> Truth:
        """
        Return the ground truth of frame `i`.

        With `rendered` (of this frame and rig) visibility follows its pixels; without, every
        agent within 60 m counts as visible and its pixels are NaN.
        """
        t = self.time_s(i)
        base = self.base_at(t)
        rows = self.near(i)
        now = self.poses_at(t)[rows]
        poses = relative_pose(base, now)
        before = relative_pose(base, self.poses_at(t - 0.1)[rows])
        after = relative_pose(base, self.poses_at(t + 0.1)[rows])
        futures = np.stack(
            [relative_pose(base, self.poses_at(t + (k + 1) * TIME_STEP_S)[rows])
             for k in range(HORIZON_STEPS)], axis=1)
        sizes = self.recording.sizes[rows]
        if rendered is None:
            pixels = np.full(len(rows), np.nan)
            silhouettes = np.full(len(rows), np.nan)
            visible = np.ones(len(rows), bool)
        else:
            pixels, silhouettes = rendered.pixels, rendered.silhouettes
            visible = (pixels >= VISIBLE_PIXELS) & (silhouettes >= VISIBLE_SILHOUETTE)
        bits, heights = self.ground(base)
        road = np.stack([(bits & b) > 0 for b in (DRIVABLE, WALKWAY, STATIC)])
        observed = observed_cells(rig, heights, poses, sizes)
        return Truth(
            int(self.stamps_ns[i]), self.ego(i), self.ego_plan(i), rows - 1,
            self.recording.classes[rows], poses, (after - before)[:, :2] / 0.2, sizes, futures,
            pixels, silhouettes, visible, road, observed)

    def ground(self, base: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return class bits and obstacle heights (m) on OUTPUT_GRID around a layout pose."""
        grid = OUTPUT_GRID
        c, s = np.cos(base[2]), np.sin(base[2])
        # grid cell (col, row) -> base xy -> layout xy -> raster cell
        x0, y0 = grid.x_min_m + grid.cell_m / 2, grid.y_min_m + grid.cell_m / 2
        k = grid.cell_m / RASTER_M
        ox = (base[0] + c * x0 - s * y0 - self.layout.origin[0]) / RASTER_M - 0.5
        oy = (base[1] + s * x0 + c * y0 - self.layout.origin[1]) / RASTER_M - 0.5
        matrix = np.array([[c * k, -s * k, ox], [s * k, c * k, oy]])
        flags = cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP
        bits = cv2.warpAffine(self.layout.classes, matrix, grid.shape[::-1], flags=flags)
        tall = cv2.warpAffine(self.layout.heights, matrix, grid.shape[::-1], flags=flags)
        return bits, tall.astype(np.float32) * RASTER_M


def compose(a_from_b: np.ndarray, b_from_c: np.ndarray) -> np.ndarray:
    """Return the planar pose `a_from_c` (x, y, yaw)."""
    c, s = np.cos(a_from_b[2]), np.sin(a_from_b[2])
    return np.array([a_from_b[0] + c * b_from_c[0] - s * b_from_c[1],
                     a_from_b[1] + s * b_from_c[0] + c * b_from_c[1],
                     float(wrap_angle(a_from_b[2] + b_from_c[2]))])


def _interpolate(track: np.ndarray, t: float) -> np.ndarray:
    at = np.clip(t / STEP_S, 0, len(track) - 1)
    i = min(int(at), len(track) - 2)
    f = at - i
    a, b = track[i], track[i + 1]
    if f < 1e-6:
        return a.copy()
    out = a + f * (b - a)
    out[..., 2] = a[..., 2] + f * wrap_angle(b[..., 2] - a[..., 2])
    return out


def simulate(seed: int, seconds: float, world: str = 'sim', rate_hz: float = 10.0,
             settle_s: float = 4.0, ego_stops_s: float | None = None) -> Drive:
    """
    Simulate a drive of `seconds` at `rate_hz`; the same arguments give the same drive anywhere.

    `world` is a key of `worlds.WORLDS`. The traffic runs `settle_s` before the first frame and
    3 s beyond the last, so every future is known. With `ego_stops_s` the ego brakes to a halt from
    that moment of the drive on, and all else begins as it would without.
    """
    if world not in WORLDS:
        raise ValueError(f'world: want one of {", ".join(WORLDS)}, got {world!r}')
    n = int(round(seconds * rate_hz))
    if n < 1:
        raise ValueError(f'seconds: want at least one frame at {rate_hz} Hz, got {seconds}')
    layout = make_layout(seeds.generator(seed, seeds.LAYOUT), WORLDS[world].place)
    total = settle_s + seconds + FUTURE_S + 0.3
    simulation = Simulation(layout, WORLDS[world], seeds.generator(seed, seeds.TRAFFIC), total,
                            None if ego_stops_s is None else settle_s + ego_stops_s)
    return Drive(seed, world, layout, simulation.run(), n, rate_hz, settle_s)
