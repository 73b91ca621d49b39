"""Future camera frames: rays, what is looked up, what moves, and the graph beside an artifact."""

import dataclasses
import json

import cv2
import numpy as np
import pytest
import torch
from tiny_frames import frames_artifact

from wm_ros.frame_predictor import FramePredictor
from wm_ros.frames import HEIGHT, WIDTH, ViewGeometry, empty_world, lens, rays
from wm_ros.geometry import camera_pose, project
from wm_ros.image import model_camera
from wm_ros.model.config import PRESETS
from wm_ros.model.decoder import to_output_grid
from wm_ros.model.frames import (
    FrameDecoder,
    before,
    drift_of,
    look_up,
    map_channels,
    projected,
    scene_maps,
)
from wm_ros.model.world_model import WorldModel
from wm_ros.predictor import Scene
from wm_ros.runtime.artifact import ArtifactError
from wm_ros.runtime.frames import find_frames, frames_path, load_frames
from wm_ros.types import CameraModel, CameraRig

DISTORTION = (-0.3, 0.1, 0.001, -0.0005, 0.02)


def camera(name='front', yaw=0.0, distortion=(), x=1.5):
    """Return a camera at the model's input size, 1.6 m above the ground."""
    k = np.array([[320.0, 0, 199.5], [0, 320.0, 48.0], [0, 0, 1]])
    return model_camera(CameraModel(name, 400, 160, k, camera_pose([x, 0.2, 1.6], yaw, 0.02),
                                    distortion))


RIG = CameraRig((camera(), camera('left', 1.0)), 'two')


def texture(points):
    """Return the colour (..., 3) of the ground at points (..., 2): smooth, and never the same."""
    x, y = points[..., 0], points[..., 1]
    return np.clip(np.stack([120 + 90 * np.sin(0.45 * x), 120 + 90 * np.cos(0.6 * y),
                             120 + 60 * np.sin(0.3 * (x + y))], -1), 0, 255)


def picture_of_ground(seen_by, pose=(0.0, 0.0, 0.0)):
    """Return what a camera (160, 400, 3) sees of the texture from a pose; the sky is black."""
    directions = rays(seen_by, 160, 400).astype(np.float64)
    points = empty_world(seen_by.base_from_camera[:3, 3], directions)
    c, s = np.cos(pose[2]), np.sin(pose[2])
    ground = np.stack([c * points[..., 0] - s * points[..., 1] + pose[0],
                       s * points[..., 0] + c * points[..., 1] + pose[1]], -1)
    near = (points[..., 2] < 0.01)[..., None]
    return np.where(near, texture(ground), 0).round().astype(np.uint8)


def views_of(plan, images, views=((0, 2), (1, 6)), rig=RIG):
    """Return the arrays of some views as tensors."""
    arrays = ViewGeometry(rig).arrays(views, plan, images, [True] * len(rig))
    return {key: torch.from_numpy(np.ascontiguousarray(value)) for key, value in arrays.items()}


def fresh(plan, images, views=((0, 2), (1, 6)), rig=RIG):
    """Return what an untrained decoder makes of views over an empty scene."""
    torch.manual_seed(0)
    decoder = FrameDecoder(4).eval()
    poses = torch.from_numpy(plan[[step - 1 for _, step in views]].astype(np.float32))
    with torch.no_grad():
        return decoder(torch.zeros(len(views), 4, 80, 80), torch.zeros(len(views), 2, 160, 160),
                       poses, views_of(plan, images, views, rig))


@pytest.mark.parametrize('distortion', [(), DISTORTION])
def test_rays_lead_back_to_their_pixels(distortion):
    seen_by = camera(distortion=distortion)
    points = seen_by.base_from_camera[:3, 3] + 7.0 * rays(seen_by)
    pixels, depth = project(seen_by, points)
    u, v = np.meshgrid(np.arange(WIDTH) * 2 + 0.5, np.arange(HEIGHT) * 2 + 0.5)
    np.testing.assert_allclose(pixels, np.stack([u, v], -1), atol=1e-3)
    assert (depth > 0).all()


@pytest.mark.parametrize('distortion', [(), DISTORTION])
def test_the_decoder_projects_as_the_geometry_does(distortion):
    seen_by = camera(distortion=distortion)
    points = np.random.default_rng(0).uniform([-5, -15, -1], [30, 15, 4], (8, 50, 3))
    where, inside = projected(torch.from_numpy(lens(seen_by)[None]),
                              torch.from_numpy(points.astype(np.float32)).permute(2, 0, 1)[None])
    pixels, depth = project(seen_by, points)
    want = ((depth > 0.1) & (pixels > -0.5).all(-1) & (pixels[..., 0] < 399.5)
            & (pixels[..., 1] < 159.5))
    assert want.sum() > 50
    np.testing.assert_array_equal(inside[0, 0].numpy(), want)
    found = (where[0].numpy() + 1) / 2 * [400, 160] - 0.5
    np.testing.assert_allclose(found[want], pixels[want], atol=2e-2)


def test_a_camera_without_a_picture_is_not_looked_into():
    place = torch.tensor([10.0, 0.0, 0.0]).reshape(1, 3, 1, 1)
    for available in (True, False):
        _, there = look_up(torch.zeros(1, 1, 3, 8, 20),
                           torch.from_numpy(lens(camera(), available))[None, None], place)
        assert there.item() == available


def test_nothing_moves_and_the_picture_stays():
    images = np.random.default_rng(0).integers(0, 255, (2, 160, 400, 3), dtype=np.uint8)
    picture, moved = fresh(np.zeros((6, 3)), images)
    for i in (0, 1):
        want = cv2.resize(images[i], (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA) / 255
        np.testing.assert_allclose(moved[i].numpy(), want, atol=0.006)
        # What an untrained decoder paints has a weight of a hundredth.
        np.testing.assert_allclose(picture[i].numpy(), want, atol=0.02)


@pytest.mark.parametrize('pose', [(6.0, 0.0, 0.0), (3.0, 0.6, 0.25)])
def test_the_ground_moves_as_the_ego_vehicle_drives(pose):
    images = np.stack([picture_of_ground(seen_by) for seen_by in RIG.cameras])
    _, moved = fresh(np.tile(pose, (6, 1)), images, ((0, 1), (0, 6)))
    want = cv2.resize(picture_of_ground(RIG.cameras[0], pose), (WIDTH, HEIGHT),
                      interpolation=cv2.INTER_AREA)
    # Of the ground as near as the newest picture has it: the lowest rows were under the bonnet.
    off = np.abs(255 * moved[0].numpy() - want)[40:60, 40:160]
    assert off.mean() < 4.0
    still = cv2.resize(images[0], (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)
    assert np.abs(still.astype(float) - want)[40:60, 40:160].mean() > 4 * off.mean()


def test_another_camera_helps_where_the_own_one_saw_nothing():
    images = np.stack([picture_of_ground(seen_by) for seen_by in RIG.cameras])
    turned = np.tile([0.0, 0.0, -0.6], (6, 1))      # what the left camera will see, front sees now
    arrays = ViewGeometry(RIG).arrays([(1, 1)], turned, images, [True, True])
    np.testing.assert_array_equal(arrays['sources'][0, 1], images[0])
    _, moved = fresh(turned, images, ((1, 1),))
    want = cv2.resize(picture_of_ground(RIG.cameras[1], turned[0]), (WIDTH, HEIGHT),
                      interpolation=cv2.INTER_AREA)
    # A column that the left camera itself does not have yet.
    assert np.abs(255 * moved[0].numpy() - want)[40:60, 170:].mean() < 4.0
    alone = ViewGeometry(RIG).arrays([(1, 1)], turned, images, [False, True])
    assert alone['lens'][0, 1, -1] == 0


def test_drift_adds_up_what_flow_says_of_each_step():
    flow = torch.zeros(1, 6, 2, 160, 160)
    flow[0, :, 0] = -2.0                                # everything came from 2 m behind
    drift = drift_of(flow)
    assert drift[0, :, 0, 80, 80].tolist() == pytest.approx([-2, -4, -6, -8, -10, -12])
    # What has come to x = 10.31 was at 6.56 one step before and at 1.56 two steps before.
    flow = torch.zeros(1, 2, 2, 160, 160)
    flow[0, 1, 0, :, 96], flow[0, 0, 0, :, 90] = -3.75, -5.0
    drift = drift_of(flow)
    place = torch.tensor([10.3125, 0.0, 1.0]).reshape(1, 3, 1, 1)
    assert before(place, drift[:, 1])[0, :, 0, 0].tolist() == pytest.approx([1.5625, 0, 1],
                                                                            abs=0.01)


def test_the_scene_is_that_of_the_forecast():
    torch.manual_seed(0)
    model = WorldModel(PRESETS['tiny']).eval()
    config = model.config
    given = (torch.rand(2, 256, config.latent_dim), torch.rand(2, config.skip_channels, 80, 80),
             torch.rand(2, 6, 3), torch.rand(2, 2), torch.ones(2, 1))
    latent, skip, *plan = given
    maps, drift = scene_maps(model, *given)
    with torch.no_grad():
        want = model.decoder(model.dynamics(latent, *plan), skip)
    dense = maps[:, :, config.decoder_channels:config.decoder_channels + 12]
    found = to_output_grid(dense.flatten(0, 1)).unflatten(0, (2, 6))
    assert torch.allclose(found[:, :, 0], want['occupancy'][:, 1:], atol=1e-5)
    assert torch.equal(maps[:, 3, -config.skip_channels:], skip)
    assert maps.shape[2] == map_channels(config) and drift.shape == (2, 6, 2, 160, 160)


def test_what_moves_is_looked_up_where_it_is_now():
    images = np.stack([picture_of_ground(seen_by) for seen_by in RIG.cameras])
    decoder = FrameDecoder(4).eval()
    with torch.no_grad():
        decoder.weigh[-1].bias.copy_(torch.tensor([-9.0, -9.0, 9.0, -9.0]))
        drift = torch.zeros(1, 2, 160, 160)
        drift[:, 0] = 3.0                               # all of the ground will have come 3 m back
        picture, _ = decoder(torch.zeros(1, 4, 80, 80), drift, torch.zeros(1, 3),
                             views_of(np.zeros((6, 3)), images, ((0, 1),)))
    want = cv2.resize(picture_of_ground(RIG.cameras[0], (3.0, 0.0, 0.0)), (WIDTH, HEIGHT),
                      interpolation=cv2.INTER_AREA)
    assert np.abs(255 * picture[0].numpy() - want)[40:60, 40:160].mean() < 4.0


@pytest.fixture(scope='module')
def artifact(tmp_path_factory):
    """Return a tiny artifact with frames beside it."""
    return frames_artifact(tmp_path_factory)


def scene_of(artifact, images, available):
    rng = np.random.default_rng(1)
    specs = artifact.specs['rollout'].inputs
    latent, skip = (rng.random(spec.shape).astype(np.float32) for spec in specs[:2])
    return Scene(7, images, available, latent, skip, np.array([4.0, 0.0], np.float32))


def test_the_graph_draws_any_cameras_and_steps(artifact):
    images = np.stack([picture_of_ground(seen_by) for seen_by in RIG.cameras])
    plan = np.stack([[2.0 * step, 0, 0] for step in range(1, 7)])
    draw = FramePredictor(find_frames(artifact, threads=1), RIG)
    frames = draw(scene_of(artifact, images, (True, True)), plan, (1, 2, 6))
    assert frames.seconds == (0.5, 1.0, 3.0) and list(frames.pictures) == ['front', 'left']
    assert frames.pictures['front'].shape == (3, HEIGHT, WIDTH, 3)
    # The graph does what the torch module does.
    _, moved = fresh(plan, images, ((0, 1), (1, 6)))
    for name, i, want in (('front', 0, moved[0]), ('left', 2, moved[1])):
        off = np.abs(frames.moved[name][i] - 255 * want.numpy())
        assert off.mean() < 0.5
    # A camera without a picture has no future either, and the others no longer look into it.
    alone = draw(scene_of(artifact, images, (False, True)), plan)
    assert list(alone.pictures) == ['left'] and alone.seconds == (1.0, 2.0, 3.0)
    with pytest.raises(ValueError, match='want some of 1 to 6'):
        draw(scene_of(artifact, images, (True, True)), plan, (0,))


def test_both_libraries_draw_the_same(artifact):
    from wm_ros.runtime.frames import _onnxruntime

    pytest.importorskip('onnxruntime')
    images = np.stack([picture_of_ground(seen_by) for seen_by in RIG.cameras])
    plan = np.stack([[2.0 * step, 0, 0] for step in range(1, 7)])
    graph = find_frames(artifact, threads=1)
    draw = FramePredictor(graph, RIG)
    first = draw(scene_of(artifact, images, (True, True)), plan)
    graph._run = _onnxruntime((frames_path(artifact.path) / 'frames.onnx').read_bytes(), 1)
    second = draw(scene_of(artifact, images, (True, True)), plan)
    for name in first.pictures:
        assert np.abs(first.pictures[name].astype(int) - second.pictures[name]).mean() < 0.2


def test_frames_of_other_weights_or_damaged_ones_are_refused(artifact, tmp_path):
    folder = frames_path(artifact.path)
    other = dataclasses.replace(artifact, manifest={**artifact.manifest, 'files': {
        name: {**entry, 'sha256': '0' * 64} for name, entry in
        artifact.manifest['files'].items()}})
    with pytest.raises(ArtifactError, match='learnt on weights'):
        load_frames(folder, other)
    data = bytearray((folder / 'frames.onnx').read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / 'frames.onnx').write_bytes(bytes(data))
    (tmp_path / 'manifest.json').write_bytes((folder / 'manifest.json').read_bytes())
    with pytest.raises(ArtifactError, match='SHA-256'):
        load_frames(tmp_path, artifact)
    (tmp_path / 'manifest.json').write_text(json.dumps({'format': 'wm_ros-frames'}))
    with pytest.raises(ArtifactError, match='want a manifest'):
        load_frames(tmp_path, artifact)


def test_what_a_vehicle_loads_does_not_look_at_the_frames(artifact):
    from wm_ros.runtime.artifact import load_artifact

    manifest = frames_path(artifact.path) / 'manifest.json'
    kept = manifest.read_bytes()
    manifest.write_text('damaged')
    assert load_artifact(artifact.path).hash == artifact.hash
    manifest.write_bytes(kept)
