"""Future camera frames in use: learnt, scored, and shown on the page beside what came."""

import base64
import json
import re

import cv2
import numpy as np
import pytest
import torch
from bags import PERIOD_NS, START_NS, small_rig
from tiny_frames import frames_artifact

from wm_ros.cli.main import main
from wm_ros.data.bag import BagWriter
from wm_ros.data.messages import bag_types, typestore
from wm_ros.data.sim_bag import (
    camera_info_message,
    odometry_message,
    optical_frame,
    static_transforms,
)
from wm_ros.evaluate.frame_scores import FrameCounter, FrameTask, report, table
from wm_ros.evaluate.pictures import psnr, ssim
from wm_ros.evaluate.predictors import PredictorSource
from wm_ros.frame_predictor import FutureFrames
from wm_ros.frames import HEIGHT, WIDTH
from wm_ros.runtime.frames import frames_path
from wm_ros.types import EgoState

RIG = small_rig(('front', 'back'))


@pytest.fixture(scope='module')
def artifact(tmp_path_factory):
    """Return a tiny artifact with frames beside it."""
    return frames_artifact(tmp_path_factory)


def write_pictures(path, frames=18):
    """Write a bag of two cameras that turn over a coarse world of noise, with odometry."""
    types, known = bag_types(), typestore().types
    size = (RIG.cameras[0].width, RIG.cameras[0].height)
    world = np.random.default_rng(0).integers(0, 255, (5, 40, 3), dtype=np.uint8)
    with BagWriter(path) as writer:
        writer.note('cameras', ' '.join(RIG.names))
        writer.write('/tf_static', START_NS, static_transforms(RIG, START_NS), latched=True)
        for i in range(frames):
            stamp = START_NS + i * PERIOD_NS
            writer.write('/odometry', stamp, odometry_message(
                EgoState(stamp, np.array([1.0 * i, 2.0, 0.0]), 10.0, 0.0)))
            for camera in RIG.cameras:
                header = types.header(stamp, optical_frame(camera.name))
                writer.write(f'/{camera.name}/camera_info', stamp,
                             camera_info_message(camera, header))
                seen = cv2.resize(world[:, i:i + 10], size, interpolation=cv2.INTER_CUBIC)
                data = np.frombuffer(cv2.imencode('.jpg', seen)[1].tobytes(), np.uint8)
                writer.write(f'/{camera.name}/image_raw/compressed', stamp,
                             known['sensor_msgs/msg/CompressedImage'](
                                 header=header, format='jpeg', data=data))


@pytest.fixture(scope='module')
def bags(tmp_path_factory, artifact):
    """Return a folder with a bag of pictures and one of the forecasts of the tiny model."""
    folder = tmp_path_factory.mktemp('bags')
    write_pictures(folder / 'in')
    assert main(['replay', str(folder / 'in'), '--out', str(folder / 'out'), '--artifact',
                 str(artifact.path)]) == 0
    return folder


def test_psnr_by_hand():
    a = np.full((20, 30, 3), 100, np.uint8)
    assert psnr(a, a) == 59.0
    assert psnr(a, a + 5) == pytest.approx(10 * np.log10(255 ** 2 / 25))
    half = a.copy()
    half[:10] += 10
    assert psnr(a, half) == pytest.approx(10 * np.log10(255 ** 2 / 50))


def test_ssim_by_hand():
    a = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    assert ssim(a, a) == pytest.approx(1.0)
    flat, light = np.full((40, 60, 3), 100, np.uint8), np.full((40, 60, 3), 130, np.uint8)
    c1 = (0.01 * 255) ** 2      # of two flat pictures only the brightness says anything
    assert ssim(flat, light) == pytest.approx((2 * 100 * 130 + c1) / (100 ** 2 + 130 ** 2 + c1))
    assert ssim(a, 255 - a) < 0


def picture(level):
    return np.full((160, 400, 3), level, np.uint8)


def test_what_was_predicted_is_held_against_what_came():
    counter = FrameCounter()

    def frames(level):
        return {'front': np.full((2, HEIGHT, WIDTH, 3), level, np.uint8)}

    predicted = FutureFrames(0, (1.0, 2.0), frames(100), frames(90))
    counter.predicted(predicted, {'front': picture(80)}, moving=True)
    counter.came(500_000_000, {'front': picture(0)})                # nobody asked for that one
    counter.came(1_010_000_000, {'front': picture(101), 'left': picture(7)})
    counter.came(2_000_000_000, {})                                 # the camera has failed
    scores = report([counter, FrameCounter()])
    assert list(scores) == ['1']
    row = scores['1']['moving']
    assert row['n_pictures'] == scores['1']['all']['n_pictures'] == 1
    assert row['psnr'] == pytest.approx(10 * np.log10(255 ** 2))
    assert row['psnr_newest'] == pytest.approx(10 * np.log10(255 ** 2 / 21 ** 2))
    assert row['psnr_moved'] == pytest.approx(10 * np.log10(255 ** 2 / 11 ** 2))
    assert row['lead_psnr_moved'][0] == pytest.approx(row['psnr'] - row['psnr_moved'])
    assert row['ssim'] > row['ssim_moved'] > row['ssim_newest']
    assert 'moving, 1 s' in table(scores)


def test_a_drive_is_scored_by_the_graph_beside_the_artifact(artifact):
    from wm_ros.data.simulator import SimulatedDrive
    task = FrameTask(lambda seed: SimulatedDrive(seed, 2.7, rig_name='front'),
                     PredictorSource(str(artifact.path), threads=1), every=5)
    counter = task(900_003)
    counts = {second: count.tolist() for second, count in counter.counts.items()}
    assert list(counts) == [1.0] and counts[1.0][0] == 1     # of one window at 1.5 s; 2.0 + 1 ends
    sums = counter.sums[1.0][0]
    # A fresh decoder is the newest picture moved, so it is as good as that.
    assert sums[0] == pytest.approx(sums[2], rel=0.1)


def test_the_page_shows_predicted_frames(bags, artifact, tmp_path, capsys):
    page = tmp_path / 'page.html'
    assert main(['report', str(bags / 'out'), '--out', str(page), '--artifact',
                 str(artifact.path), '--frames', '2', '--json']) == 0
    drawn = json.loads(capsys.readouterr().out)['drawn']
    data = json.loads(re.findall(r'id="data">(.*?)</script>', page.read_text(), re.S)[0])
    shown = [window['fut'] for window in data['windows'] if 'fut' in window]
    assert drawn == len(shown) >= 1 and 'fut' in data['windows'][data['start']]
    tiles = cv2.imdecode(np.frombuffer(base64.b64decode(shown[0]), np.uint8), cv2.IMREAD_COLOR)
    assert tiles.shape == (3 * HEIGHT, len(data['cameras']) * WIDTH, 3)
    assert data['future'] == [WIDTH, HEIGHT] and tiles.std() > 5


def test_a_page_without_frames_says_why(bags, artifact, tmp_path, capsys):
    manifest = frames_path(artifact.path) / 'manifest.json'
    kept = manifest.read_text()
    manifest.write_text(kept.replace('"weights": "', '"weights": "0'))
    try:
        assert main(['report', str(bags / 'out'), '--out', str(tmp_path / 'page.html'),
                     '--artifact', str(artifact.path)]) == 0
    finally:
        manifest.write_text(kept)
    assert 'no predicted camera frames' in capsys.readouterr().err
    assert '"fut"' not in (tmp_path / 'page.html').read_text()


def future_clip(seed):
    """Return a future clip of one camera in a world of noise, with the rays of the test's rig."""
    from wm_ros.image import model_camera
    from wm_ros.train.future import rig_arrays
    from wm_ros.train.samples import to_jpeg
    from wm_ros.types import CameraRig
    rng = np.random.default_rng(seed)
    rig = CameraRig((model_camera(RIG.cameras[0]),), 'one')
    coarse = rng.integers(0, 255, (22, 8, 20, 3), dtype=np.uint8).repeat(20, 1).repeat(20, 2)
    files = [to_jpeg(image) for image in coarse]
    return {'index': rng.integers(0, 1000, (25600, 4)).astype(np.int32),
            'weight': np.full((25600, 4), 0.1, np.float32), 'jpeg': np.concatenate(files),
            'jpeg_bytes': np.array([len(file) for file in files]).reshape(22, 1),
            'poses': np.cumsum(np.full((16, 3), [0.5, 0.0, 0.01]), 0),
            'plan': rng.normal(0, 2, (6, 3)).astype(np.float32),
            'motion': np.array([5.0, 0.1], np.float32), **rig_arrays(rig)}


@pytest.fixture(scope='module')
def run(artifact, tmp_path_factory):
    """Return the folder of a run with the scenes of two clips, made by the artifact."""
    from wm_ros.runtime.frames import weights_hash
    from wm_ros.train.frames import scene_setup
    from wm_ros.train.store import ClipStore

    folder = tmp_path_factory.mktemp('run')
    futures = ClipStore(folder / 'futures')
    scenes = ClipStore(folder / f'scenes-{weights_hash(artifact)[:12]}')
    make = scene_setup(artifact.path, futures.folder)
    for i in range(2):
        futures.write(425_000 + i, future_clip(i))
        scenes.write(425_000 + i, make(425_000 + i))
    return folder


def test_a_scene_keeps_what_will_come(run):
    from wm_ros.train.frames import scene_sample

    with np.load(next(run.glob('scenes-*/clip_0425001.npz'))) as stored:
        scene = dict(stored)
    assert scene['later'].shape == (6, 1, HEIGHT, WIDTH, 3)
    clip = future_clip(1)
    last = np.split(clip['jpeg'], np.cumsum(clip['jpeg_bytes'])[:-1])[21]
    want = cv2.resize(cv2.imdecode(last, cv2.IMREAD_COLOR)[..., ::-1], (WIDTH, HEIGHT),
                      interpolation=cv2.INTER_AREA)
    np.testing.assert_array_equal(scene['later'][5, 0], want)
    sample = scene_sample(scene, np.random.default_rng(0), views=5)
    for target, pose, step in zip(sample['target'], sample['pose'], sample['step'], strict=True):
        np.testing.assert_array_equal(target, scene['later'][step - 1, 0])
        np.testing.assert_array_equal(pose, scene['plan'][step - 1])


def test_the_stage_learns_on_an_artifact_and_goes_on(artifact, run, capsys, monkeypatch):
    from wm_ros.train import frames as stage

    before = {path.name: path.read_bytes() for path in artifact.path.iterdir()}
    command = ['train', '--stage', 'frames', '--run', 'rehearsal', '--folder', str(run),
               '--start', str(artifact.path), '--frames-clips', '2', '--frames-batch', '1',
               '--workers', '0']
    assert main([*command, '--steps', '2']) == 0
    first = stage.load_decoder(run / 'frames.safetensors')
    assert main([*command, '--steps', '3']) == 0        # one step more, not three
    curve = [json.loads(line) for line in (run / 'frames.jsonl').read_text().splitlines()]
    assert [row['step'] for row in curve] == [2, 3]
    second = stage.load_decoder(run / 'frames.safetensors')
    assert any(not torch.equal(first[name], second[name]) for name in first)
    # The artifact has not changed by a bit, and what was learnt on it fits no other.
    assert {path.name: path.read_bytes() for path in artifact.path.iterdir()} == before
    capsys.readouterr()
    monkeypatch.setattr(stage, 'weights_hash', lambda _: '0' * 64)
    assert main([*command, '--steps', '4']) == 1
    assert 'learnt on other weights' in capsys.readouterr().err


def test_another_checkpoint_is_no_decoder_of_frames(tmp_path):
    from safetensors.torch import save_file

    from wm_ros.train.frames import learnt_on

    save_file({'encoder.w': torch.zeros(1)}, tmp_path / 'model.safetensors')
    with pytest.raises(ValueError, match='model.safetensors: want .*--stage frames.*encoder.w'):
        learnt_on(tmp_path / 'model.safetensors')
