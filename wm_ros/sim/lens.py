"""What a camera does to a clean picture: motion blur, rain, exposure, noise, compression."""

from __future__ import annotations

import cv2
import numpy as np

from wm_ros.sim.appearance import Style
from wm_ros.types import CameraModel

#: Without ground below, things are taken to be this far off (motion blur alone).
_DEPTH_M = 14.0
#: The field of image motion is computed at every so many pixels.
_COARSE = 4
#: Drops on the glass stay for this long.
_WIPE_S = 2.5


class MotionBlur:
    """
    Smears a picture along the image motion of what stands still, by the vehicle's own motion.

    Motion is that of points on the ground plane below the horizon and of points at 14 m above
    it, linear in speed and yaw rate (Longuet-Higgins and Prazdny 1980).
    """

    def __init__(self, camera: CameraModel, exposure_s: float) -> None:
        self._exposure_s = exposure_s
        k, pose = camera.k, camera.base_from_camera
        v, u = np.mgrid[:camera.height:_COARSE, :camera.width:_COARSE] + (_COARSE - 1) / 2
        rays = np.stack([(u - k[0, 2]) / k[0, 0], (v - k[1, 2]) / k[1, 1],
                         np.ones(u.shape)], -1)                         # camera frame, z = 1
        down = rays @ pose[:3, :3].T[:, 2]
        depth = np.where(down < -1e-3, pose[2, 3] / np.maximum(-down, 1e-3), _DEPTH_M)
        depth = np.clip(depth, 1.5, _DEPTH_M * 4)
        ahead = pose[:3, :3].T @ [1., 0., 0.]        # the vehicle's forward axis, camera frame
        up = pose[:3, :3].T @ [0., 0., 1.]
        moves = []
        for velocity in (-np.broadcast_to(ahead, rays.shape) / depth[..., None],
                         -np.cross(up, rays)):
            moves.append(np.stack([(velocity[..., 0] - rays[..., 0] * velocity[..., 2]) * k[0, 0],
                                   (velocity[..., 1] - rays[..., 1] * velocity[..., 2]) * k[1, 1]],
                                  -1).astype(np.float32))
        size = (camera.width, camera.height)
        self._by_speed, self._by_turn = (cv2.resize(m, size) for m in moves)   # (H, W, 2) px
        v, u = np.mgrid[:camera.height, :camera.width]
        self._still = np.stack([u, v], -1).astype(np.float32)
        self._reach = [float(np.percentile(np.abs(m), 90)) for m in moves]

    def apply(self, image: np.ndarray, speed_mps: float, yaw_rate_rps: float) -> np.ndarray:
        a = np.float32(speed_mps * self._exposure_s)
        b = np.float32(yaw_rate_rps * self._exposure_s)
        length = abs(a) * self._reach[0] + abs(b) * self._reach[1]
        if length < .8:
            return image
        # Halves of halves: n rounds make 2^n samples of the path.
        for n in range(1, 2 + (length > 2.5) + (length > 6)):
            share = np.float32(.5**n)
            maps = cv2.addWeighted(self._by_speed, float(a * share), self._by_turn,
                                   float(b * share), 0)
            maps = cv2.add(maps, self._still)
            moved = cv2.remap(image, maps, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
            image = cv2.addWeighted(image, .5, moved, .5, 0)
        return image


class Grain:
    """The noise of a drive: one tile, which every picture takes from another place on."""

    def __init__(self, style: Style, rng: np.random.Generator) -> None:
        tile = rng.normal(0, style.noise, (256, 256, 3))
        tile = np.clip(np.round(tile), -60, 60).astype(np.int8)
        self._tiles = (np.maximum(tile, 0).astype(np.uint8), np.maximum(-tile, 0).astype(np.uint8))
        self._wide: dict = {}

    def of_size(self, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        """Return what to add and what to subtract, 256 pixels larger than the picture."""
        repeat = (height // 256 + 2, width // 256 + 2, 1)
        if repeat not in self._wide:
            self._wide[repeat] = tuple(np.tile(tile, repeat) for tile in self._tiles)
        return self._wide[repeat]


class Lens:
    """One camera's optics and electronics over a drive."""

    def __init__(self, style: Style, rng: np.random.Generator, camera: CameraModel,
                 grain: Grain) -> None:
        width, height = camera.width, camera.height
        self._style, self._width, self._height = style, width, height
        self._motion = MotionBlur(camera, style.exposure_s)
        x = np.arange(256) / 255.0
        curve = np.clip((x - .45) * style.contrast + .45, 0, 1)
        own = style.gain * (1 + rng.normal(0, .015, 3)) * (1 + rng.normal(0, .03))
        self._stops = np.exp(np.linspace(-.7, .7, 29))
        tables = 255 * np.clip(curve[None, :, None] * own * self._stops[:, None, None], 0,
                               1)**style.gamma
        self._tables = np.clip(np.round(tables), 0, 255).astype(np.uint8)
        self._blur = style.blur * width / 400
        self._plus, self._minus = grain.of_size(height, width)
        v, u = np.mgrid[:height, :width]
        r2 = ((u / width - .5)**2 + (v / height - .5)**2) * 2
        fall = np.round(255 * (1 - style.vignette * r2)).astype(np.uint8)
        self._vignette = cv2.merge([fall] * 3) if style.vignette > .02 else None
        grey = np.array([.3, .59, .11])
        self._mix = (style.saturation * np.eye(3) + (1 - style.saturation) * grey).astype(
            np.float32) if abs(style.saturation - 1) > .04 else None
        self._seed = int(rng.integers(2**31))
        self._drops: tuple[int, np.ndarray | None] = (-1, None)

    def apply(self, image: np.ndarray, rng: np.random.Generator, t: float, speed_mps: float,
              yaw_rate_rps: float) -> np.ndarray:
        """Return the picture (H, W, 3) RGB that the camera gives of the clean one at time `t`."""
        height, width = image.shape[:2]
        style = self._style
        image = self._motion.apply(image, speed_mps, yaw_rate_rps)
        if style.rain > 0:
            image = self._streaks(image, rng)
        drops = self._drops_at(t)
        if drops is not None:
            size = max(3, width // 44)
            soft = cv2.convertScaleAbs(cv2.blur(image, (size, size)), alpha=style.drop_light)
            image = cv2.blendLinear(image, soft, 1 - drops, drops)
        if self._blur > .25:
            image = cv2.GaussianBlur(image, (0, 0), self._blur * .8)
        if self._vignette is not None:
            image = cv2.multiply(image, self._vignette, scale=1 / 255)
        if self._mix is not None:
            image = cv2.transform(image, self._mix)
        image = cv2.LUT(np.ascontiguousarray(image), self._tables[self._stop(image, t)][None])
        a, b = rng.integers(0, 256), rng.integers(0, 256)
        image = cv2.add(image, self._plus[a:a + height, b:b + width])
        image = cv2.subtract(image, self._minus[a:a + height, b:b + width])
        if style.jpeg:
            code = cv2.imencode('.jpg', image, [cv2.IMWRITE_JPEG_QUALITY, style.jpeg])[1]
            image = cv2.imdecode(code, cv2.IMREAD_COLOR)
        return image

    def _stop(self, image: np.ndarray, t: float) -> int:
        """Return the row of the tables: exposure follows the scene, and hunts a little."""
        mean = max(float(image[::8, ::8].mean()), 4.0)
        want = self._style.auto_exposure * np.log(105 / mean)
        want += self._style.hunting * np.sin(.9 * t + self._seed % 7)
        return int(np.argmin(np.abs(np.log(self._stops) - want)))

    def _streaks(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Draw falling rain (or snow flakes) near the lens."""
        style, scale = self._style, self._width / 400
        count = int(60 * style.rain)
        layer = np.zeros(image.shape[:2], np.uint8)
        start = np.stack([rng.uniform(0, self._width, count),
                          rng.uniform(-10, self._height, count)], -1)
        near = rng.uniform(.3, 1, count)
        fall = np.stack([.12 * rng.normal(0, 1, count) + style.wind, np.ones(count)], -1)
        end = start + fall * (near * style.streak_px * scale)[:, None]
        lines = np.round(np.stack([start, end], 1) * 8).astype(np.int32)
        for line, strength in zip(lines, near, strict=True):
            cv2.line(layer, line[0].tolist(), line[1].tolist(), int(120 * strength),
                     max(1, int(round(style.flake_px * scale * strength))), cv2.LINE_AA, 3)
        white = style.horizon * .9 + 20
        shine = cv2.merge([cv2.convertScaleAbs(layer, alpha=float(c) / 255 * style.flake)
                           for c in white])
        return cv2.add(cv2.multiply(image, cv2.merge([255 - layer // 3] * 3), scale=1 / 255),
                       shine)

    def _drops_at(self, t: float) -> np.ndarray | None:
        """Return the share (H, W) of drops and dirt on the glass; the wiper renews the drops."""
        style = self._style
        if style.drops <= 0:
            return None
        number = int(t // _WIPE_S) if style.rain > 0 else 0
        if self._drops[0] != number:
            rng = np.random.default_rng([self._seed, number])
            mask = np.zeros((self._height, self._width), np.uint8)
            for _ in range(rng.poisson(style.drops)):
                radius = self._width * rng.uniform(.004, .02)
                cv2.ellipse(mask, (int(rng.uniform(0, self._width)),
                                   int(rng.uniform(0, self._height))),
                            (max(1, int(radius)), max(1, int(radius * rng.uniform(.9, 1.6)))), 0,
                            0, 360, 255, -1)
            soft = cv2.GaussianBlur(mask, (0, 0), max(self._width / 400, .5))
            self._drops = number, soft.astype(np.float32) / 255
        return self._drops[1]
