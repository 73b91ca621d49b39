"""Future camera frames of a scene, by `frames.onnx`: for people, not for the vehicle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from wm_ros.frames import ViewGeometry
from wm_ros.image import model_camera
from wm_ros.predictor import Scene
from wm_ros.runtime.frames import FrameGraph
from wm_ros.types import HORIZON_STEPS, TIME_STEP_S, CameraRig

#: Steps of the horizon that are drawn unless others are asked for: 1, 2 and 3 s.
SHOWN_STEPS = (2, 4, 6)


@dataclass(frozen=True)
class FutureFrames:
    """
    Pictures as the cameras are thought to take them, if the ego vehicle follows the plan.

    `pictures` and `moved` map camera names to (T, 80, 200, 3) uint8 RGB at `seconds` (T,) after the
    stamp; `moved` are the newest pictures moved by the ego vehicle's motion over flat ground.
    """

    stamp_ns: int
    seconds: tuple[float, ...]
    pictures: dict[str, np.ndarray]
    moved: dict[str, np.ndarray]


class FramePredictor:
    """Draws future frames for one rig; cameras that give no picture now are left out."""

    def __init__(self, graph: FrameGraph, rig: CameraRig) -> None:
        self.rig = rig
        self._graph = graph
        self._geometry = ViewGeometry(
            CameraRig(tuple(model_camera(camera) for camera in rig.cameras), rig.name))

    def __call__(self, scene: Scene, plan: np.ndarray,
                 steps: Sequence[int] = SHOWN_STEPS) -> FutureFrames:
        """Draw the frames of a scene at steps 1-6 under planned poses (6, 3)."""
        if not steps or not all(1 <= step <= HORIZON_STEPS for step in steps):
            raise ValueError(f'steps {list(steps)}, want some of 1 to {HORIZON_STEPS}')
        cameras = [i for i, there in enumerate(scene.available) if there]
        plan = np.asarray(plan, np.float32)
        views = self._geometry.arrays([(camera, step) for camera in cameras for step in steps],
                                      plan, scene.images, scene.available)
        out = self._graph.run({
            **views, 'plan': plan, 'latent': np.ascontiguousarray(scene.latent),
            'skip': np.ascontiguousarray(scene.skip),
            'ego_motion': scene.ego_motion, 'odometry_mask': np.ones(1, np.float32)})
        drawn = {key: np.rint(255 * np.clip(value, 0, 1)).astype(np.uint8)
                 .reshape(len(cameras), len(steps), *value.shape[1:])
                 for key, value in out.items()}
        names = [self.rig.names[camera] for camera in cameras]
        return FutureFrames(scene.stamp_ns, tuple(TIME_STEP_S * step for step in steps),
                            dict(zip(names, drawn['frames'], strict=True)),
                            dict(zip(names, drawn['moved'], strict=True)))
