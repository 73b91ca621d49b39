"""Lift tables: each tap against an independent projection, masks, and what is seen."""

import numpy as np
import pytest
from fakes import make_rig

from wm_ros.geometry import camera_pose, project
from wm_ros.image import model_camera
from wm_ros.lift import PARTS, LiftGeometry, lift_tables, seen_mask
from wm_ros.runtime.contract import LIFT_HEIGHTS_M
from wm_ros.types import FEATURE_GRID, OUTPUT_GRID, CameraModel, CameraRig


def model_rig(cameras=6, width=1600, height=900):
    rig = make_rig(cameras, width, height)
    return CameraRig(tuple(map(model_camera, rig.cameras)), rig.name)


def test_shapes_types_and_weights():
    index, weight = lift_tables(model_rig(), [True] * 6)
    assert index.shape == weight.shape == (len(LIFT_HEIGHTS_M) * 6400, 4)
    assert index.dtype == np.int32 and weight.dtype == np.float32
    assert index.min() >= 0 and index.max() < 6 * 20 * 50
    total = weight.sum(axis=1)
    assert set(np.unique(total.round(5))) == {0.0, 1.0}
    assert (weight >= 0).all()
    assert (index[total == 0] == 0).all()


def test_taps_meet_at_the_projected_pixel():
    rig = model_rig(3)
    index, weight = lift_tables(rig, [True] * 3)
    xy = FEATURE_GRID.centres_m()
    checked = 0
    for height in range(4):
        for row, col in ((40, 70), (10, 20), (60, 15), (45, 60), (79, 40)):
            cell = height * 6400 + row * 80 + col
            if not weight[cell].any():
                continue
            camera, place = np.divmod(index[cell], 1000)
            assert len(set(camera)) == 1
            # Undo feature = (pixel + 0.5) / 8 - 0.5.
            u = ((place % 50) @ weight[cell] + 0.5) * 8 - 0.5
            v = ((place // 50) @ weight[cell] + 0.5) * 8 - 0.5
            want, depth = project(rig.cameras[camera[0]],
                                  np.array([*xy[row, col], LIFT_HEIGHTS_M[height]]))
            assert depth > 0
            # At the border, where half a feature lies outside, the tap stays on the last one.
            if 4 <= want[0] <= 395 and 4 <= want[1] <= 155:
                np.testing.assert_allclose([u, v], want, atol=8 / PARTS / 2 + 1e-3)
                checked += 1
    assert checked >= 8


def test_by_hand_straight_ahead():
    # One camera at the origin, 1.6 m up, looking along x, f = 240 at 400 wide: the ground 20.625 m
    # ahead and 0.625 m to the left is at u = 199.5 - 240 * 0.625 / 20.625, v = 48 + 240 * 1.6 / x.
    k = np.array([[240.0, 0, 199.5], [0, 240.0, 48.0], [0, 0, 1]])
    camera = CameraModel('c', 400, 160, k, camera_pose(np.array([0, 0, 1.6]), 0.0))
    index, weight = lift_tables(CameraRig((camera,)), [True])
    cell = 40 * 80 + 56
    np.testing.assert_allclose(FEATURE_GRID.centres_m()[40, 56], [20.625, 0.625])
    fx = (199.5 - 240 * 0.625 / 20.625 + 0.5) / 8 - 0.5   # 23.59
    fy = (48 + 240 * 1.6 / 20.625 + 0.5) / 8 - 0.5        # 7.89
    assert list(index[cell]) == [7 * 50 + 23, 7 * 50 + 24, 8 * 50 + 23, 8 * 50 + 24]
    assert (round((fx - 23) * 32), round((fy - 7) * 32)) == (19, 28)     # in parts of a feature
    assert list(weight[cell] * 1024) == [13 * 4, 19 * 4, 13 * 28, 19 * 28]


def test_the_deepest_camera_wins_and_masks_pass_on():
    rig = model_rig(6)
    whole, _ = lift_tables(rig, [True] * 6)
    without, weight = lift_tables(rig, [False, True, True, True, True, True])
    assert (whole // 1000 == 0).any()
    assert not (without[weight.sum(axis=1) > 0] // 1000 == 0).any()
    _, none = lift_tables(rig, [False] * 6)
    assert not none.any()


def test_geometry_gives_what_the_function_gives():
    rig = model_rig(4)
    geometry = LiftGeometry(rig)
    for available in ([True] * 4, [True, False, True, False]):
        for a, b in zip(geometry.tables(available), lift_tables(rig, available), strict=True):
            np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(geometry.seen(available), seen_mask(rig, available))


def test_unseen_ground():
    rig = model_rig(1)   # looks ahead with 80 degrees
    seen = seen_mask(rig, [True])
    assert seen.shape == OUTPUT_GRID.shape and seen.dtype == bool
    assert seen[100, 150]            # 25 m ahead
    assert not seen[100, 50]         # 25 m behind
    assert not seen[150, 101]        # 25 m to the left
    assert not seen[100, 101]        # under the bumper, below the picture
    assert not seen_mask(rig, [False]).any()


def test_padded_rows_show_nothing():
    # The picture of a flat camera ends at row 114 of 160: the ground below it is not seen.
    k = np.array([[721.5, 0, 609.6], [0, 721.5, 172.9], [0, 0, 1]])
    camera = CameraModel('c', 1242, 375, k, camera_pose(np.array([0, 0, 1.65]), 0.0))
    seen = seen_mask(CameraRig((model_camera(camera),)), [True])
    # The last row looks down by (114 - 48) / 232.8: it meets the ground 5.9 m ahead.
    ahead = seen[100]
    assert not ahead[:111].any()
    assert ahead[113:].all()


def test_full_size_cameras_are_refused():
    with pytest.raises(ValueError, match='want a camera of 400x160'):
        lift_tables(make_rig(1), [True])


def test_a_wrong_mask_is_refused():
    with pytest.raises(ValueError, match='want 2 flags'):
        lift_tables(model_rig(2), [True])
