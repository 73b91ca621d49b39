"""
Where each ground cell looks into the images: the tables that lift image features to the ground.

For a fixed rig the projection is fixed, so the graph only gathers (Simple-BEV, Harley et al.
2022). Distortion and calibration live here, on the host, and the same weights serve any rig.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from wm_ros.geometry import project
from wm_ros.runtime.contract import FEATURE_STRIDE, IMAGE_HEIGHT, IMAGE_WIDTH, LIFT_HEIGHTS_M
from wm_ros.types import FEATURE_GRID, OUTPUT_GRID, BevGrid, CameraModel, CameraRig

FEATURE_ROWS = IMAGE_HEIGHT // FEATURE_STRIDE
FEATURE_COLS = IMAGE_WIDTH // FEATURE_STRIDE
#: Points nearer to the camera than this along its axis are not looked up.
MIN_DEPTH_M = 0.1
#: Places between two features are told apart in so many parts (a quarter of a pixel). Weights are
#: then so short that no sum of weighted features is rounded, in whatever order it is taken.
PARTS = 32


def _points(grid: BevGrid, heights_m: Sequence[float]) -> np.ndarray:
    """Return (heights * rows * cols, 3) points in `base_link`, heights outermost."""
    xy = grid.centres_m().reshape(-1, 2).astype(np.float64)
    return np.concatenate([np.column_stack([xy, np.full(len(xy), z)]) for z in heights_m])


def _look(camera: CameraModel, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return pixels (M, 2) and how deep each lies inside the picture (M,), <= 0 when outside."""
    if (camera.width, camera.height) != (IMAGE_WIDTH, IMAGE_HEIGHT):
        raise ValueError(f'{camera.name}: want a camera of {IMAGE_WIDTH}x{IMAGE_HEIGHT} '
                         f'(image.model_camera), got {camera.width}x{camera.height}')
    begin, end = getattr(camera, 'rows', (0, IMAGE_HEIGHT))
    pixels, depth = project(camera, points)
    u, v = pixels[:, 0] + 0.5, pixels[:, 1] + 0.5
    inside = np.minimum(np.minimum(u, IMAGE_WIDTH - u), np.minimum(v - begin, end - v))
    return pixels, np.where((depth > MIN_DEPTH_M) & np.isfinite(inside), inside, -1.0)


class LiftGeometry:
    """Projections of one rig, so that tables for another set of available cameras are cheap."""

    def __init__(self, rig: CameraRig) -> None:
        self.cameras = len(rig)
        points = _points(FEATURE_GRID, LIFT_HEIGHTS_M)
        looks = [_look(camera, points) for camera in rig.cameras]
        self._inside = np.stack([inside for _, inside in looks]).astype(np.float32)
        taps = [_taps(pixels, n) for n, (pixels, _) in enumerate(looks)]
        self._index = np.stack([index for index, _ in taps])
        self._weight = np.stack([weight for _, weight in taps])
        ground = _points(OUTPUT_GRID, (0.0,))
        self._seen = np.stack([_look(camera, ground)[1] > 0 for camera in rig.cameras])

    @property
    def blind(self) -> tuple[bool, ...]:
        """Tell which cameras have none of the points that are looked up in their picture."""
        return tuple(bool(inside.max() <= 0) for inside in self._inside)

    def tables(self, available: Sequence[bool]) -> tuple[np.ndarray, np.ndarray]:
        """Return the lift tables as `lift_tables` does."""
        mask = self._mask(available)
        inside = np.where(mask[:, None], self._inside, -1.0)
        best = inside.argmax(axis=0)  # the first of equals, so the same on every host
        cells = np.arange(len(best))
        seen = inside[best, cells] > 0
        index = np.where(seen[:, None], self._index[best, cells], 0)
        weight = np.where(seen[:, None], self._weight[best, cells], np.float32(0))
        return np.ascontiguousarray(index), np.ascontiguousarray(weight)

    def seen(self, available: Sequence[bool]) -> np.ndarray:
        """Return the mask as `seen_mask` does."""
        return self._seen[self._mask(available)].any(axis=0).reshape(OUTPUT_GRID.shape)

    def _mask(self, available: Sequence[bool]) -> np.ndarray:
        mask = np.asarray(available, dtype=bool)
        if mask.shape != (self.cameras,):
            raise ValueError(f'available: want {self.cameras} flags, got {mask.shape}')
        return mask


def _taps(pixels: np.ndarray, camera: int) -> tuple[np.ndarray, np.ndarray]:
    """Return bilinear taps (M, 4) int32 rows of the feature map and (M, 4) float32 weights."""
    # Far-off projections are clamped before they become integers; their weight is dropped later.
    place = np.rint(((pixels + 0.5) / FEATURE_STRIDE - 0.5) * PARTS) / PARTS
    fx = np.clip(place[:, 0], 0, FEATURE_COLS - 1)
    fy = np.clip(place[:, 1], 0, FEATURE_ROWS - 1)
    x0 = np.minimum(fx.astype(np.int32), FEATURE_COLS - 2)
    y0 = np.minimum(fy.astype(np.int32), FEATURE_ROWS - 2)
    ax, ay = fx - x0, fy - y0
    first = camera * FEATURE_ROWS * FEATURE_COLS + y0 * FEATURE_COLS + x0
    index = np.stack([first, first + 1, first + FEATURE_COLS, first + FEATURE_COLS + 1], axis=-1)
    weight = np.stack([(1 - ax) * (1 - ay), ax * (1 - ay), (1 - ax) * ay, ax * ay], axis=-1)
    return index.astype(np.int32), weight.astype(np.float32)


def lift_tables(rig: CameraRig, available: Sequence[bool]) -> tuple[np.ndarray, np.ndarray]:
    """
    Return where the cells of `FEATURE_GRID` look into the stride-8 features of a rig.

    `rig` holds model cameras (`image.model_camera`); `available` says which of them have a
    picture. Returns `index` (4 * 6400, 4) int32, rows of the flattened (N, 20, 50) feature map,
    and `weight` (4 * 6400, 4) float32, bilinear, all 0 where no available camera sees the point.
    Rows are ordered heights x rows x columns. Of several cameras the one in whose picture the
    point lies deepest inside the border is taken. Raises ValueError for a rig of other cameras.
    """
    return LiftGeometry(rig).tables(available)


def seen_mask(rig: CameraRig, available: Sequence[bool]) -> np.ndarray:
    """
    Return bool (200, 200) on `OUTPUT_GRID`: cells whose ground point some available camera sees.

    A matter of geometry alone; what hides behind an obstacle is for the model to say.
    """
    return LiftGeometry(rig).seen(available)
