"""
Training samples from the simulator, as dictionaries of arrays that go into one file each.

A *frame clip* is one short drive seen by a few cameras, a handful of single frames. A *window
clip* is one drive seen by a whole rig, already encoded: cached maps of every frame, and the
truth of a few windows, so that time is learnt on streams that are encoded once. A *drive clip* is
what it is made from: rendering needs no weights, so it can be done before the encoder is there.
No torch here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import cv2
import numpy as np

from wm_ros.data.two_plans import influenced_drive, stop_s
from wm_ros.geometry import camera_pose
from wm_ros.image import model_camera
from wm_ros.lift import lift_tables
from wm_ros.sim.drive import Drive, simulate
from wm_ros.sim.render import Renderer
from wm_ros.sim.rigs import random_rig
from wm_ros.sim.rigs import rig as named_rig
from wm_ros.sim.seeds import TRAIN_END
from wm_ros.train.clips import to_bytes, truth_arrays
from wm_ros.types import WINDOW_FRAMES, CameraModel, CameraRig

#: Worlds and their shares in training.
WORLDS = (('sim', 0.5), ('sim-hard', 0.5))
#: An ego vehicle at least so fast, m/s, is told a second time from the newest frame on: it brakes.
WHAT_IF_MPS = 2.0
#: One drive in so many is one in which somebody then does another thing: left to chance it is one
#: in twenty, too few to learn from. It is looked for in the traffic of so many seeds.
FOLLOWED_EVERY, LOOKED_AT = 4, 40
#: Who does another thing counts if it is so near.
NEAR_M = 30.0


def jittered_rig(rng: np.random.Generator, base: CameraRig, keep: int) -> CameraRig:
    """Return `keep` cameras of a rig, each mounted and focused a little differently."""
    chosen = np.sort(rng.choice(len(base), size=min(keep, len(base)), replace=False))
    lift_m, zoom = rng.uniform(-0.25, 0.5), rng.uniform(0.92, 1.1)
    cameras = []
    for camera in (base.cameras[i] for i in chosen):
        turn = camera_pose(np.zeros(3), *rng.normal(0.0, 0.012, 3))
        # The small turn happens in the body frame of the camera, so undo the optical axes of both.
        pose = np.array(camera.base_from_camera)
        pose[:3, :3] = pose[:3, :3] @ camera_pose(np.zeros(3), 0.0)[:3, :3].T @ turn[:3, :3]
        pose[:3, 3] += np.array([rng.normal(0, 0.1), rng.normal(0, 0.05), lift_m])
        k = np.array(camera.k)
        k[[0, 1], [0, 1]] *= zoom
        cameras.append(CameraModel(camera.name, camera.width, camera.height, k, pose,
                                   camera.distortion))
    return CameraRig(tuple(cameras), base.name)


def draw_rig(rng: np.random.Generator, cameras: int) -> CameraRig:
    """Draw a rig for training: part of the surround rig, or cameras anywhere."""
    if rng.random() < 0.65:
        return jittered_rig(rng, named_rig('surround'), cameras)
    return random_rig(rng, cameras)


def model_rig(rig: CameraRig) -> CameraRig:
    """Return the rig as the model sees it: every camera at the model's input size."""
    return CameraRig(tuple(model_camera(camera) for camera in rig.cameras), rig.name)


def draw_world(rng: np.random.Generator) -> str:
    names, shares = zip(*WORLDS, strict=True)
    return str(rng.choice(names, p=shares))


def frame_clip(seed: int, cameras: int = 3, frames: int = 6) -> dict[str, np.ndarray]:
    """Render single frames, one a second, of one drive through `cameras` cameras."""
    rng = np.random.default_rng([1, seed])
    rig = model_rig(draw_rig(rng, cameras))
    drive = simulate(seed, float(frames), draw_world(rng), rate_hz=2.0)
    renderer = Renderer(drive, rig, seed)
    index, weight = lift_tables(rig, [True] * len(rig))
    picked = range(int(rng.integers(2)), drive.n, 2)
    out: dict[str, np.ndarray] = {'index': index.astype(np.uint16),
                                  'weight': weight.astype(np.float16)}
    images = []
    for count, i in enumerate(picked):
        rendered = renderer.render(i)
        images.append(np.stack([rendered.images[name] for name in rig.names]))
        for key, value in truth_arrays(drive.truth(i, rig, rendered)).items():
            out[f'{key}_{count}'] = value
    out['images'] = np.stack(images)                        # (F, N, 160, 400, 3)
    return out


#: Encodes images (N, 160, 400, 3) by lift tables into memory and skip maps (C, R, R).
Encode = Callable[[np.ndarray, np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


def drive_clip(seed: int, frames: int = 20, windows: int = 2) -> dict[str, np.ndarray]:
    """
    Render a drive of the surround rig at 10 Hz; windows end at the last frame and 0.4 s apart.

    `jpeg` holds all pictures one after another, `jpeg_bytes` (F, N) their sizes; `index` and
    `weight` are the lift tables; `poses` (F, 3) odometry; `ends` (W,) the newest frame of each
    window, ascending; `plans` (W, 6, 3), `motion` (W, 2); truth arrays are suffixed with the
    window's number.
    """
    rig, world = drive_setting(seed)
    traffic = traffic_seed(seed, frames, world)
    drive: Drive = simulate(traffic, frames / 10.0, world, rate_hz=10.0)
    frames = min(frames, drive.n)
    renderer = Renderer(drive, rig, seed)
    index, weight = lift_tables(rig, [True] * len(rig))
    ends = sorted(frames - 1 - 4 * i for i in range(windows)
                  if frames - 1 - 4 * i >= WINDOW_FRAMES - 1)
    out: dict[str, np.ndarray] = {'index': index, 'weight': weight, 'ends': np.array(ends)}
    pictures, plans, motion = [], [], []
    for i in range(frames):
        rendered = renderer.render(i)
        pictures += [to_jpeg(rendered.images[name]) for name in rig.names]
        if i in ends:
            ego = drive.ego(i)
            for key, value in truth_arrays(drive.truth(i, rig, rendered)).items():
                out[f'{key}_{len(plans)}'] = value
            plans.append(drive.ego_plan(i).poses)
            motion.append([ego.speed_mps, ego.yaw_rate_rps])
    poses = np.stack([drive.ego(i).odom_from_base for i in range(frames)])
    out |= {'poses': poses.astype(np.float64), 'jpeg': np.concatenate(pictures),
            'jpeg_bytes': np.array([len(p) for p in pictures]).reshape(frames, len(rig)),
            'plans': np.array(plans, np.float32), 'motion': np.array(motion, np.float32)}
    return out | what_if(traffic, rig, world, out)


def drive_setting(seed: int) -> tuple[CameraRig, str]:
    """Return the rig and the world of a drive clip; who follows is seen by all cameras."""
    rng = np.random.default_rng([2, seed])
    keep = 6 if rng.random() < 0.8 else int(rng.integers(1, 6))
    keep = 6 if followed(seed) else keep
    return model_rig(jittered_rig(rng, named_rig('surround'), keep)), draw_world(rng)


def followed(seed: int) -> bool:
    """Return whether a drive clip is to be one in which the ego plan matters to somebody."""
    return seed % FOLLOWED_EVERY == FOLLOWED_EVERY - 1


def traffic_seed(seed: int, frames: int, world: str) -> int:
    """
    Return the seed of a drive clip's traffic: its own, or where it is to be followed another.

    That one is the first of LOOKED_AT whose ego vehicle makes a difference to somebody near if it
    brakes after the last frame; its own where it makes none in any.
    """
    if not followed(seed):
        return seed
    for look in range(LOOKED_AT):
        other = (seed + 9973 * look) % TRAIN_END
        if influenced_drive(other, world, frames, WHAT_IF_MPS, NEAR_M) is not None:
            return other
    return seed


def what_if(traffic: int, rig: CameraRig, world: str,
            clip: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """
    Return a clip's arrays with one more window: the newest again, but the ego vehicle brakes.

    The same pictures under another plan have another future, and a model that has only seen what
    the ego did takes no notice of the plan. Nothing is returned where the ego stands anyway.
    """
    newest = len(clip['ends']) - 1
    end, seen = int(clip['ends'][newest]), clip[f'agents_{newest}']
    if clip['motion'][newest][0] < WHAT_IF_MPS:
        return {}
    drive = simulate(traffic, len(clip['poses']) / 10.0, world, rate_hz=10.0,
                     ego_stops_s=stop_s(end))
    truth = drive.truth(end, rig)
    order = np.argsort(np.hypot(truth.poses[:, 0], truth.poses[:, 1]))[:len(seen)]
    visible = np.zeros(len(truth.poses), bool)
    visible[order] = seen[:len(order), 9] > 0               # who is visible, by the pictures
    braking = truth_arrays(replace(truth, visible=visible))
    if not np.allclose(braking['agents'][:, :6], seen[:, :6], atol=1e-3):
        raise ValueError(f'drive {traffic}: want the same road users at frame {end} when the ego '
                         'brakes after it')
    # Ground is as it was: what is observed is known from the pictures' truth.
    braking |= {key: clip[f'{key}_{newest}'] for key in ('road', 'observed')}
    plan = drive.ego_plan(end).poses.astype(np.float32)
    return {**{f'{key}_{newest + 1}': value for key, value in braking.items()},
            'ends': np.append(clip['ends'], end),
            'plans': np.concatenate([clip['plans'], plan[None]]),
            'motion': np.concatenate([clip['motion'], clip['motion'][newest:]])}


def to_jpeg(image: np.ndarray) -> np.ndarray:
    """Return an RGB picture as the bytes of a JPEG: clips are kept, and cameras send JPEG too."""
    ok, data = cv2.imencode('.jpg', image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])
    if not ok:
        raise ValueError(f'no JPEG of an array {image.shape} {image.dtype}')
    return data.reshape(-1)


def pictures_of(clip: dict[str, np.ndarray]) -> Iterator[np.ndarray]:
    """Yield the camera pictures (N, 160, 400, 3) RGB of every frame of a drive clip."""
    ends = np.cumsum(clip['jpeg_bytes'])
    starts = (ends - clip['jpeg_bytes'].reshape(-1)).reshape(clip['jpeg_bytes'].shape)
    for first, sizes in zip(starts, clip['jpeg_bytes'], strict=True):
        yield np.stack([cv2.imdecode(clip['jpeg'][at:at + size], cv2.IMREAD_COLOR)[..., ::-1]
                        for at, size in zip(first, sizes, strict=True)])


def window_clip(drive: dict[str, np.ndarray], encode: Encode) -> dict[str, np.ndarray]:
    """
    Encode a drive clip: `memory` (F, C, R, R) and, of each window's newest frame, `skip`.

    Both are uint8 in steps of `FEATURE_STEP`; what else the drive clip holds, but the pictures
    and lift tables, is kept.
    """
    memory, skips = [], {}
    for i, images in enumerate(pictures_of(drive)):
        frame_memory, skip = encode(images, drive['index'], drive['weight'])
        memory.append(to_bytes(frame_memory))
        if i in drive['ends']:
            skips[i] = to_bytes(skip)
    kept = {key: value for key, value in drive.items()
            if key not in ('jpeg', 'jpeg_bytes', 'index', 'weight')}
    return {**kept, 'memory': np.stack(memory),
            'skip': np.stack([skips[end] for end in drive['ends']])}
