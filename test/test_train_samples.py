"""Rendered drives become encoded windows without losing what they showed."""

import numpy as np

from wm_ros.data.two_plans import INFLUENCED_M, influenced_drive
from wm_ros.train import samples
from wm_ros.train.targets import window_sample
from wm_ros.types import FEATURE_GRID


def test_an_encoded_drive_is_the_rendered_one():
    drive = samples.drive_clip(5, frames=17, windows=1)
    seen = []

    def encode(images, index, weight):
        assert index.shape[1:] == weight.shape[1:] == (4,)
        seen.append(images)
        level = images.mean() / 64.0
        return (np.full((2, *FEATURE_GRID.shape), level, np.float32),
                np.full((3, *FEATURE_GRID.shape), 2 * level, np.float32))

    clip = samples.window_clip(drive, encode)
    assert len(seen) == 17 and seen[0].shape[1:] == (160, 400, 3)
    assert seen[3].shape[0] == drive['jpeg_bytes'].shape[1]
    assert clip['memory'].shape == (17, 2, *FEATURE_GRID.shape)
    assert clip['skip'].shape == (1, 3, *FEATURE_GRID.shape)
    np.testing.assert_allclose(clip['memory'][:, 0, 0, 0] / 32.0,
                               [image.mean() / 64.0 for image in seen], atol=0.02)
    assert 'jpeg' not in clip and clip['agents_0'].shape == drive['agents_0'].shape
    assert list(clip['ends']) == [16]


def test_a_jpeg_keeps_the_colours_in_order():
    image = np.zeros((160, 400, 3), np.uint8)
    image[..., 0], image[..., 2] = 200, 40
    data = samples.to_jpeg(image)
    back = next(samples.pictures_of({'jpeg': data, 'jpeg_bytes': np.array([[len(data)]])}))
    np.testing.assert_allclose(back[0].mean((0, 1)), [200, 0, 40], atol=4)


def test_the_same_pictures_under_another_plan_have_another_future():
    drive = next(drive for drive in (samples.drive_clip(seed, frames=16, windows=1)
                                     for seed in range(0, 20, 2)) if len(drive['ends']) > 1)
    assert list(drive['ends']) == [15, 15]
    np.testing.assert_allclose(drive['agents_1'][:, :6], drive['agents_0'][:, :6], atol=1e-3)
    np.testing.assert_array_equal(drive['agents_1'][:, 9], drive['agents_0'][:, 9])
    went, braked = np.hypot(*drive['plans'][:, -1, :2].T)
    assert braked < went - 1.0
    blank = np.zeros((1, *FEATURE_GRID.shape), np.float32)
    clip = samples.window_clip(drive, lambda *_: (blank, blank))
    assert clip['skip'].shape[0] == 2
    # Who does another thing because of it counts more than who does not.
    clip['agents_1'][3, 20] = clip['agents_0'][3, 20] - 4.0
    clip['agents_1'][4:, 10:22] = clip['agents_0'][4:, 10:22]
    stress = window_sample(clip, np.random.default_rng(0))['stress']
    assert stress[3] > 1 and (stress[4:] == 1).all()


def test_every_fourth_drive_is_one_in_which_somebody_reacts_to_the_ego_vehicle():
    assert [samples.traffic_seed(seed, 16, 'sim') for seed in (4, 5, 6)] == [4, 5, 6]
    drive = samples.drive_clip(7, frames=16, windows=1)
    assert len(drive['ends']) == 2 and drive['jpeg_bytes'].shape == (16, 6)
    goes, stops = drive['agents_0'], drive['agents_1']
    near = (goes[:, 28] > 0) & (np.hypot(goes[:, 0], goes[:, 1]) < samples.NEAR_M)
    apart_m = np.hypot(*(goes[:, 20:22] - stops[:, 20:22]).T)
    assert apart_m[near].max() > INFLUENCED_M
    assert apart_m[near].min() < 0.1, 'and others do not'


def test_a_drive_matters_as_far_as_one_looks_and_where_the_ego_is_fast_enough():
    traffic = samples.traffic_seed(7, 16, 'sim')
    goes, brakes = influenced_drive(traffic, 'sim', 16, samples.WHAT_IF_MPS, samples.NEAR_M)
    np.testing.assert_array_equal(goes.base_at(goes.time_s(15)), brakes.base_at(goes.time_s(15)))
    speed = goes.ego(15).speed_mps
    assert influenced_drive(traffic, 'sim', 16, speed + 0.1, samples.NEAR_M) is None
    assert influenced_drive(traffic, 'sim', 16, samples.WHAT_IF_MPS, 1.0) is None
