"""A window in a mirror is the window that the mirrored world would have given."""

from dataclasses import replace

import numpy as np
import pytest

from wm_ros.geometry import relative_pose
from wm_ros.raster import box_cells
from wm_ros.sim.drive import simulate
from wm_ros.sim.render import Renderer
from wm_ros.sim.rigs import rig as named_rig
from wm_ros.train.clips import truth_arrays
from wm_ros.types import FEATURE_GRID, OUTPUT_GRID

pytest.importorskip('torch', reason='training needs torch')

from wm_ros.train.mirror import maybe_mirrored, mirrored  # noqa: E402
from wm_ros.train.targets import window_sample  # noqa: E402

OVER = np.array([1.0, -1.0, -1.0])


@pytest.fixture(scope='module')
def drive():
    """Return a drive of two seconds, and the truth of its last frame in a rig's pictures."""
    drive = simulate(14, 2.0, 'sim-hard', rate_hz=10.0)
    rig = named_rig('surround')
    return drive, drive.truth(17, rig, Renderer(drive, rig, 14).render(17))


def clip_of(drive, truth, over):
    """Return a window clip of a truth, its path under odometry times `over`; maps are numbered."""
    poses = np.stack([drive.ego(i).odom_from_base for i in range(18)])
    ego = drive.ego(17)
    cells = np.arange(OUTPUT_GRID.rows // 2)[:FEATURE_GRID.rows]
    memory = np.broadcast_to(cells[:, None].astype(np.uint8), (18, 2, *FEATURE_GRID.shape))
    return {'ends': np.array([17]), 'memory': memory, 'skip': memory[None, 0],
            'poses': relative_pose(poses[0][None], poses) * over,
            'plans': (truth.ego_plan.poses * over).astype(np.float32)[None],
            'motion': np.array([[ego.speed_mps, ego.yaw_rate_rps * over[1]]], np.float32),
            **{f'{key}_0': value for key, value in truth_arrays(truth).items()}}


def turned_over(truth):
    return replace(truth, poses=truth.poses * OVER, futures=truth.futures * OVER,
                   velocities=truth.velocities * OVER[:2], road=truth.road[:, ::-1],
                   observed=truth.observed[::-1])


def test_it_is_the_window_of_the_mirrored_world(drive):
    path, truth = drive
    seen = window_sample(clip_of(path, truth, np.ones(3)), np.random.default_rng(0))
    wanted = window_sample(clip_of(path, turned_over(truth), OVER), np.random.default_rng(0))
    found = mirrored(seen)
    assert sorted(found) == sorted(wanted)
    # Nothing of what changes its sign is 0: the ego vehicle turns, and others move across it.
    for name, least in (('plans', 0.1), ('now_from_frame', 0.1), ('ego_motion', 0.1)):
        assert np.abs(seen[name][..., 1:]).max() > least, name
    for column in (1, 2, 7, 21):
        assert np.abs(seen['agents'][:, column]).max() > 1, column
    assert np.abs(seen['flow'][:, 1]).max() > 0.2 and seen['hidden'].any()
    for name in ('agents', 'now_from_frame', 'plans', 'ego_motion', 'age_s', 'frame_mask',
                 'odometry_mask', 'stress'):
        np.testing.assert_allclose(found[name], wanted[name], atol=2e-4, err_msg=name)
        assert found[name].dtype == wanted[name].dtype, name
    for name in ('road', 'observed'):
        np.testing.assert_array_equal(found[name], wanted[name])
    # A cell whose middle lies on the edge of a box may fall to either side.
    for name in ('occupancy', 'hidden'):
        assert wanted[name].sum() == 0 or (found[name] != wanted[name]).sum() \
            <= 0.01 * wanted[name].sum() + 1, name
    both = found['occupancy'] & wanted['occupancy']
    assert both.any()
    apart = np.abs(found['flow'] - wanted['flow']).transpose(0, 2, 3, 1)[both]
    assert np.quantile(apart, 0.99) < 1e-3
    np.testing.assert_array_equal(found['memory'][:, :, 0], seen['memory'][:, :, -1])
    np.testing.assert_array_equal(found['skip'][:, 0], seen['skip'][:, -1])


def test_boxes_lie_on_their_occupancy_still(drive):
    path, truth = drive
    found = mirrored(window_sample(clip_of(path, truth, np.ones(3)), np.random.default_rng(0)))
    agents = found['agents'][found['agents'][:, 9] > 0]
    cells = box_cells(agents[:, :3], agents[:, 3], agents[:, 4])
    drawn = np.zeros(OUTPUT_GRID.shape, bool)
    drawn[cells.row, cells.col] = True
    assert drawn.any() and (drawn != found['occupancy'][0]).sum() <= 0.02 * drawn.sum() + 1


def test_twice_mirrored_is_as_before_and_the_share_is_kept(drive):
    clip = clip_of(*drive, np.ones(3))
    seen = window_sample(clip, np.random.default_rng(0))
    for name, value in mirrored(mirrored(seen)).items():
        np.testing.assert_array_equal(value, seen[name], err_msg=name)
    rng, first = np.random.default_rng(1), seen['memory'][0, 0, 0, 0]
    turned = sum(maybe_mirrored(clip, rng, 0.25)['memory'][0, 0, 0, 0] != first
                 for _ in range(200))
    assert 25 < turned < 75
    assert maybe_mirrored(clip, rng, 0.0)['memory'][0, 0, 0, 0] == first
