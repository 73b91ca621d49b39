"""Pictures against truth: what the renderer draws is where the truth says it is."""

import dataclasses

import cv2
import numpy as np
import pytest

from wm_ros.geometry import project
from wm_ros.sim.drive import VISIBLE_PIXELS, VISIBLE_SILHOUETTE, compose, simulate
from wm_ros.sim.render import Renderer
from wm_ros.sim.rigs import rig
from wm_ros.types import AGENT_CLASSES, CameraRig


def scaled(cameras: CameraRig, width: int, height: int) -> CameraRig:
    """Return the rig with pictures of another size and the horizon at 30 % of the height."""
    out = []
    for camera in cameras.cameras:
        s = width / camera.width
        k = camera.k.copy()
        k[:2] *= s
        k[:2, 2] += (s - 1) / 2
        k[1, 2] = 0.3 * height
        out.append(dataclasses.replace(camera, width=width, height=height, k=k))
    return CameraRig(tuple(out), cameras.name)


def box_pixels(camera, pose, size):
    corners = np.array([[x, y, z] for x in (-.5, .5) for y in (-.5, .5) for z in (0, 1)]) * size
    c, s = np.cos(pose[2]), np.sin(pose[2])
    points = np.stack([c * corners[:, 0] - s * corners[:, 1] + pose[0],
                       s * corners[:, 0] + c * corners[:, 1] + pose[1], corners[:, 2]], -1)
    return project(camera, points)


def overlaps(renderer, cameras, frames):
    """Return for every well seen agent the IoU of drawn and projected bounding boxes."""
    out = []
    for i in frames:
        rendered = renderer.render(i)
        truth = renderer.drive.truth(i, cameras, rendered)
        for camera in cameras.cameras:
            tags = rendered.ids[camera.name]
            for a in np.flatnonzero((rendered.silhouettes > .97) & (rendered.pixels > 60)):
                pixels, depth = box_pixels(camera, truth.poses[a], truth.sizes[a])
                low, high = pixels.min(0), pixels.max(0)
                if depth.min() < 1 or low.min() < 2 or high[0] > camera.width - 3 \
                        or high[1] > camera.height - 3:
                    continue
                v, u = np.nonzero(tags == a + 1)
                # Its silhouette is that of its best camera: another may see it behind a pole.
                seen_by = sum(np.any(other == a + 1) for other in rendered.ids.values())
                if not len(u) or seen_by > 1:
                    continue
                drawn_low, drawn_high = np.array([u.min(), v.min()]), np.array([u.max(), v.max()])
                inner = np.prod(np.maximum(np.minimum(high, drawn_high + .5)
                                           - np.maximum(low, drawn_low - .5), 0))
                outer = np.prod(high - low) + np.prod(drawn_high - drawn_low + 1) - inner
                out.append((inner / outer, truth.classes[a]))
    return np.array(out)


@pytest.fixture(scope='module')
def small():
    cameras = scaled(rig('surround'), 400, 160)
    return cameras, [Renderer(simulate(seed, 3.0), cameras) for seed in (1, 2, 21)]


def test_boxes_land_on_their_pixels(small):
    cameras, renderers = small
    found = np.concatenate([overlaps(r, cameras, (3, 14, 25)) for r in renderers])
    vehicles, people = found[found[:, 1] < 4], found[found[:, 1] == 6]
    assert len(vehicles) > 10 and len(people) > 5
    assert np.median(vehicles[:, 0]) > 0.8 and vehicles[:, 0].min() > 0.4
    assert np.median(people[:, 0]) > 0.5


def test_a_distorted_lens_bends_picture_and_projection_alike():
    plain = scaled(rig('surround'), 400, 160)
    bent = CameraRig(tuple(dataclasses.replace(c, distortion=(-.12, .02, .0004, -.0003, 0.))
                           for c in plain.cameras if c.name != 'back'), 'bent')
    found = np.concatenate([overlaps(Renderer(simulate(seed, 2.0), bent), bent, (2, 12))
                            for seed in (1, 2, 21)])
    vehicles = found[found[:, 1] < 4]
    assert len(vehicles) > 4
    assert np.median(vehicles[:, 0]) > 0.75


def test_visibility_follows_pixels_and_silhouettes(small):
    cameras, renderers = small
    rendered = renderers[0].render(10)
    truth = renderers[0].drive.truth(10, cameras, rendered)
    assert np.array_equal(truth.visible, (truth.pixels >= VISIBLE_PIXELS)
                          & (truth.silhouettes >= VISIBLE_SILHOUETTE))
    assert 0 < truth.visible.sum() < len(truth.visible)
    assert np.all((truth.silhouettes >= 0) & (truth.silhouettes <= 1))
    for name, tags in rendered.ids.items():
        assert tags.max() <= len(truth.ids)
        assert rendered.images[name].shape == (160, 400, 3)
        assert rendered.images[name].dtype == np.uint8


def test_pixels_count_at_the_model_size(small):
    cameras, renderers = small
    drive = renderers[0].drive
    large = scaled(rig('surround'), 800, 320)
    a, b = renderers[0].render(5).pixels, Renderer(drive, large).render(5).pixels
    seen = a > 100
    assert seen.sum() > 3
    np.testing.assert_allclose(b[seen] / a[seen], 1.0, atol=0.25)


def test_the_same_frame_twice_is_the_same_picture(small):
    cameras, renderers = small
    again = Renderer(simulate(1, 3.0), cameras)
    first, second = renderers[0].render(9), again.render(9)
    for name in cameras.names:
        assert np.array_equal(first.images[name], second.images[name])
    other = Renderer(simulate(1, 3.0), cameras, seed=77).render(9)
    assert any(not np.array_equal(first.images[n], other.images[n]) for n in cameras.names)


def test_pictures_show_something(small):
    cameras, renderers = small
    for renderer in renderers:
        for image in renderer.render(0).images.values():
            assert 15 < image.mean() < 235
            assert image.std() > 10
            assert cv2.Laplacian(image, cv2.CV_32F).std() > 4


def test_who_stands_behind_a_truck_is_not_visible_and_beside_it_is():
    cameras = rig('front')
    drive = simulate(4, 2.0)
    there = drive.recording
    car = int(np.flatnonzero(there.classes[1:] == AGENT_CLASSES.index('car'))[0]) + 1
    truck = int(np.flatnonzero(there.sizes[1:, 2] > 2.2)[0]) + 1
    t = drive.time_s(5)
    for row in range(1, len(there.classes)):        # everybody far away, but the two
        there.poses[:, row] = compose(drive.base_at(t), np.array([500.0, 3.0 * row, 0.0]))

    def seen(aside_m):
        for row, pose in ((truck, [9.0, 0.0, np.pi / 2]), (car, [20.0, aside_m, 0.0])):
            there.poses[:, row] = compose(drive.base_at(t), np.array(pose))
        truth = drive.truth(5, cameras, Renderer(drive, cameras).render(5))
        return {int(number): (share, visible) for number, share, visible in zip(
            truth.ids, truth.silhouettes, truth.visible, strict=True)}
    hidden, beside = seen(0.0), seen(9.0)
    assert hidden[truck - 1][0] > 0.8 and hidden[truck - 1][1]
    assert hidden[car - 1][0] < 0.2 and not hidden[car - 1][1]
    assert beside[car - 1][0] > 0.8 and beside[car - 1][1]
