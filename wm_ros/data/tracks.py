"""
From tracks in a world frame to a `Truth`: for sources that hold labels rather than a simulator.

Poses between two labels are interpolated where the labels lie close enough together, and unknown
(NaN) elsewhere; a track that ends has no future.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from wm_ros import image
from wm_ros.geometry import project, relative_pose, wrap_angle
from wm_ros.types import (
    HORIZON_STEPS,
    OUTPUT_GRID,
    ROAD_LAYERS,
    TIME_STEP_S,
    CameraRig,
    EgoPlan,
    EgoState,
    PlanSource,
    Truth,
)

#: The benchmark's rule: pixels at the model's input size, share of the silhouette.
MIN_PIXELS = 24
MIN_SILHOUETTE = 0.2
#: Labels further apart than this are not interpolated between.
MAX_GAP_S = 0.35
#: Velocity comes from labels this far before and after.
VELOCITY_SPAN_S = 0.25
NEAR_PLANE_M = 0.3


@dataclass(frozen=True)
class Track:
    """
    One labelled agent: `stamps_ns` (N,) ascending, `poses` (N, 3) in the world, `size` l, w, h.

    `z_m` (N,) is the height of the box's bottom over the ground of the vehicle. Labels further
    apart than `max_gap_s` are not interpolated between; velocity comes from those up to
    `velocity_span_s` before and after.
    """

    track_id: int
    label: int
    stamps_ns: np.ndarray
    poses: np.ndarray
    size_m: np.ndarray
    z_m: np.ndarray
    max_gap_s: float = MAX_GAP_S
    velocity_span_s: float = VELOCITY_SPAN_S


def poses_between(stamps_ns: np.ndarray, poses: np.ndarray, at_ns: np.ndarray,
                  max_gap_s: float = MAX_GAP_S) -> np.ndarray:
    """Return poses (M, 3) at `at_ns`, linear between neighbours; NaN beyond ends and in gaps."""
    right = np.clip(np.searchsorted(stamps_ns, at_ns), 1, max(len(stamps_ns) - 1, 1))
    if len(stamps_ns) == 1:
        return np.where((at_ns == stamps_ns[0])[:, None], poses[0], np.nan)
    left = right - 1
    gap_s = (stamps_ns[right] - stamps_ns[left]) * 1e-9
    share = ((at_ns - stamps_ns[left]) * 1e-9 / gap_s)[:, None]
    step = poses[right] - poses[left]
    step[:, 2] = wrap_angle(step[:, 2])
    out = poses[left] + share * step
    out[:, 2] = wrap_angle(out[:, 2])
    exact = (at_ns == stamps_ns[left]) | (at_ns == stamps_ns[right])
    inside = (at_ns >= stamps_ns[0]) & (at_ns <= stamps_ns[-1])
    out[~(inside & (exact | (gap_s <= max_gap_s)))] = np.nan
    return out


def velocity_at(track: Track, stamp_ns: int) -> np.ndarray:
    """Return the world velocity (2,) from the labels shortly before and after."""
    span = round(track.velocity_span_s * 1e9)
    close = np.flatnonzero(np.abs(track.stamps_ns - stamp_ns) <= span)
    if len(close) < 2:
        return np.zeros(2)
    first, last = close[0], close[-1]
    elapsed_s = (track.stamps_ns[last] - track.stamps_ns[first]) * 1e-9
    return (track.poses[last, :2] - track.poses[first, :2]) / elapsed_s


def truth_at(ego: EgoState, egos: list[EgoState], tracks: list[Track],
             rig: CameraRig) -> Truth:
    """
    Return the truth at an ego state; world poses of `egos` and `tracks` are in one frame.

    Visibility follows from the boxes alone: see `visible_share`. The road is not known and is all
    false; `observed` says which ground lies in a picture.
    """
    stamp = ego.stamp_ns
    later = stamp + np.round(TIME_STEP_S * 1e9 * np.arange(HORIZON_STEPS + 1)).astype(np.int64)
    present, world = [], []
    for track in tracks:
        poses = poses_between(track.stamps_ns, track.poses, later, track.max_gap_s)
        if np.isfinite(poses[0]).all():
            present.append(track)
            world.append(poses)
    n = len(present)
    poses = relative_pose(ego.odom_from_base, np.reshape(world, (n, HORIZON_STEPS + 1, 3)))
    velocity = np.reshape([velocity_at(track, stamp) for track in present], (n, 2))
    c, s = np.cos(ego.odom_from_base[2]), np.sin(ego.odom_from_base[2])
    sizes = np.reshape([track.size_m for track in present], (n, 3))
    bottoms = np.array([np.interp(stamp, track.stamps_ns, track.z_m) for track in present])
    pixels, silhouettes = visible_share(rig, poses[:, 0], sizes, bottoms)
    plan = poses_between(np.array([e.stamp_ns for e in egos]),
                         np.array([e.odom_from_base for e in egos]), later[1:])
    known = bool(np.isfinite(plan).all())
    return Truth(
        stamp_ns=stamp, ego=ego,
        ego_plan=EgoPlan(relative_pose(ego.odom_from_base, plan) if known
                         else np.zeros((HORIZON_STEPS, 3)),
                         PlanSource.GIVEN if known else PlanSource.NONE),
        ids=np.array([track.track_id for track in present], dtype=np.int64),
        classes=np.array([track.label for track in present], dtype=np.int64),
        poses=poses[:, 0], sizes=sizes, futures=poses[:, 1:],
        velocities=velocity @ np.array([[c, -s], [s, c]]),
        pixels=pixels, silhouettes=silhouettes,
        visible=(pixels >= MIN_PIXELS) & (silhouettes >= MIN_SILHOUETTE),
        road=np.zeros((len(ROAD_LAYERS), *OUTPUT_GRID.shape), dtype=bool),
        observed=ground_in_picture(rig))


def visible_share(rig: CameraRig, poses: np.ndarray, sizes: np.ndarray,
                  bottoms: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """
    Return pixels (A,) summed over cameras and the best camera's share of the silhouette (A,).

    Boxes stand for agents: the upright rectangle around each projected box is painted at the
    model's input size, far ones first, and what is left of it is counted. So only labelled
    agents hide each other, and a rectangle is some 20 % larger than what it holds.
    """
    pixels = np.zeros(len(poses), dtype=np.int64)
    shares = np.zeros(len(poses))
    for camera in rig.cameras:
        seen = image.model_camera(camera)
        first_row, end_row = seen.rows
        owner = np.full((seen.height, seen.width), -1, dtype=np.int64)
        areas = np.zeros(len(poses))
        rectangles = [_rectangle(seen, *box) for box in zip(poses, sizes, bottoms, strict=True)]
        for i in np.argsort(-np.linalg.norm(poses[:, :2], axis=1), kind='stable'):
            if rectangles[i] is None:
                continue
            u0, v0, u1, v1 = rectangles[i]
            areas[i] = max((u1 - u0) * (v1 - v0), 1e-9)
            rows = slice(*np.clip(np.rint([v0 + 0.5, v1 + 0.5]), first_row, end_row).astype(int))
            cols = slice(*np.clip(np.rint([u0 + 0.5, u1 + 0.5]), 0, seen.width).astype(int))
            owner[rows, cols] = i
        mine = np.bincount(owner[owner >= 0], minlength=len(poses))
        pixels += mine
        share = np.divide(mine, areas, out=np.zeros(len(poses)), where=areas > 0)
        shares = np.maximum(shares, np.minimum(share, 1.0))
    return pixels, shares


def _rectangle(camera: image.ModelCamera, pose: np.ndarray, size: np.ndarray,
               bottom: float) -> np.ndarray | None:
    """Return u0, v0, u1, v1 around a projected box; None where no corner lies before the camera."""
    length, width, height = size
    signs = np.array([[x, y, z] for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (0.0, 1.0)])
    local = signs * (length, width, height)
    c, s = np.cos(pose[2]), np.sin(pose[2])
    corners = np.column_stack([c * local[:, 0] - s * local[:, 1] + pose[0],
                               s * local[:, 0] + c * local[:, 1] + pose[1],
                               local[:, 2] + bottom])
    uv, depth = project(camera, corners)
    ahead = depth > NEAR_PLANE_M
    if not ahead.any():
        return None
    return np.concatenate([uv[ahead].min(axis=0), uv[ahead].max(axis=0)])


def ground_in_picture(rig: CameraRig) -> np.ndarray:
    """Say which cells of `OUTPUT_GRID` have their centre on flat ground in some picture."""
    centres = OUTPUT_GRID.centres_m()
    points = np.concatenate([centres, np.zeros((*OUTPUT_GRID.shape, 1))], axis=-1)
    observed = np.zeros(OUTPUT_GRID.shape, dtype=bool)
    for camera in rig.cameras:
        seen = image.model_camera(camera)
        uv, depth = project(seen, points)
        observed |= ((depth > NEAR_PLANE_M) & (uv[..., 0] >= 0) & (uv[..., 0] <= seen.width - 1)
                     & (uv[..., 1] >= seen.rows[0]) & (uv[..., 1] <= seen.rows[1] - 1))
    return observed
