"""Upright faces of what stands still: house fronts with their roofs, walls, hedges, fences."""

from __future__ import annotations

import cv2
import numpy as np

from wm_ros.sim.roads import BUILDING, FENCE, HEDGE, WALL
from wm_ros.sim.scene import light_on
from wm_ros.sim.textures import facade, surface
from wm_ros.sim.view import View

_ROOFS = np.array([[128., 66., 48.], [92., 52., 42.], [74., 74., 80.], [104., 84., 70.]])


class Panels:
    """
    The faces of one drive, in `faces`; textures are made when a face is first drawn.

    `statics` are rows of `Layout.statics`, `seeds` one number each.
    """

    def __init__(self, statics: np.ndarray, seeds: np.ndarray, kind_of_place: str, style,
                 seed: int, px_per_m: float) -> None:
        self.style = style
        self._seed = seed
        self._px_per_m = px_per_m
        self._roofs: dict = {}
        self._textures: dict = {}
        self.faces = self._make(statics, seeds, kind_of_place)

    def _make(self, statics, seeds, kind_of_place: str) -> list:
        """Return (centre, origin, along, width, height, normal, kind, seed) of upright faces."""
        panels = []
        pitched = {'street': 30, 'suburb': 85, 'arterial': 15, 'rural': 100}[kind_of_place]
        for row, seed in zip(statics, seeds, strict=True):
            x, y, yaw, length, width, height, kind = row
            if kind not in (BUILDING, WALL, HEDGE, FENCE):
                continue
            u = np.array([np.cos(yaw), np.sin(yaw), 0.])
            v = np.array([-np.sin(yaw), np.cos(yaw), 0.])
            c = np.array([x, y, 0.])
            faces = [(c - u * length / 2 - v * width / 2, u, length, -v),
                     (c + u * length / 2 + v * width / 2, -u, length, v),
                     (c + u * length / 2 - v * width / 2, v, width, u),
                     (c - u * length / 2 + v * width / 2, -v, width, -u)]
            for f, (origin, along, size, normal) in enumerate(faces):
                panels.append((origin + along * size / 2, origin, along, size, height, normal,
                               int(kind), (int(seed), f)))
                if kind == BUILDING and seed % 100 < pitched:
                    # Long sides carry a slope up to the ridge, short sides a gable.
                    ridge, depth = .28 * min(length, width) + .6, width if f < 2 else length
                    up = np.array([0., 0., height])
                    a, b = origin + up, origin + along * size + up
                    inward = -normal * depth / 2 + np.array([0., 0., ridge])
                    if (f < 2) == (length >= width):
                        quad = np.array([a - along * .3, b + along * .3, b + inward, a + inward])
                        tiles = _ROOFS[seed % len(_ROOFS)]
                        if self.style.snow:
                            tiles = self.style.terrain
                        tone = tiles * light_on(
                            self.style, normal * .6 + np.array([0., 0., .8]))
                    else:
                        top = (a + b) / 2 + np.array([0., 0., ridge])
                        quad = np.array([a, b, top, top])
                        tone = np.array([168., 156., 140.]) * light_on(self.style, normal)
                    self._roofs[int(seed), f] = quad, tone
        return panels

    def _texture(self, panel, scale: float):
        """Return the lit texture of a panel no finer than `scale` px a metre needs, its mask."""
        _, _, _, size, height, normal, kind, key = panel
        if key not in self._textures:
            rng = np.random.default_rng([self._seed % 2**63, *key])
            light = light_on(self.style, normal)
            mask = None
            if kind == BUILDING:
                rng = np.random.default_rng([self._seed % 2**63, key[0]])
                px = self._px_per_m * min(1.0, 24 / max(height, 1))
                image = facade(rng, self.style, size, height, px, light)
            else:
                px = self._px_per_m
                name = {WALL: 'wall', HEDGE: 'hedge', FENCE: 'fence'}[kind]
                image, mask = surface(rng, self.style, name, size, height, px)
                image = np.clip(image * light, 0, 255).astype(np.uint8)
            image = cv2.merge([*cv2.split(image), np.zeros(image.shape[:2], np.uint8)])
            chain = [(image, mask)]
            while min(image.shape[:2]) > 8 and len(chain) < 5:
                size_half = (image.shape[1] // 2, image.shape[0] // 2)
                image = cv2.resize(image, size_half, interpolation=cv2.INTER_AREA)
                mask = None if mask is None else cv2.resize(mask, size_half,
                                                            interpolation=cv2.INTER_AREA)
                chain.append((image, mask))
            self._textures[key] = (px, chain)
        px, chain = self._textures[key]
        level = int(np.clip(np.floor(np.log2(max(px / max(scale, 1e-3), 1.0)) + .3), 0,
                            len(chain) - 1))
        return chain[level]

    def draw(self, view: View, argument) -> None:
        panel, pixels = argument
        roof = self._roofs.get(panel[7])
        if roof is not None:
            shape = view.clipped(roof[0])
            if shape is not None:
                depth = float(panel[0] @ view.matrix[2, :3] + view.matrix[2, 3])
                view.polygon(shape, view.colour(roof[1], max(depth, 1.)))
        centre, origin, along, size, height, normal, kind, _ = panel
        up = np.array([0., 0., height])
        corners = pixels.tolist()
        us, vs = [c[0] for c in corners], [c[1] for c in corners]
        low = (int(max(min(us), 0)), int(max(min(vs), 0)))
        high = (int(min(max(us), view.width - 1)) + 1, int(min(max(vs), view.height - 1)) + 1)
        w, h = high[0] - low[0], high[1] - low[1]
        if w < 1 or h < 1 or high[0] < 1 or high[1] < 1:
            return
        depth = max(float(centre @ view.matrix[2, :3] + view.matrix[2, 3]), 1.0)
        texture, mask = self._texture(panel, view.focal / depth)
        if w * h < 90 or w < 3:
            if mask is None:
                view.polygon(pixels, view.colour(texture.mean((0, 1))[:3], depth))
            return
        th, tw = texture.shape[:2]
        # texture (u, v) -> layout: origin + along * size * u / tw + up * (1 - v / th)
        axes = np.zeros((4, 3))
        axes[:3, 0], axes[2, 1] = along * (size / tw), -height / th
        axes[:3, 2] = origin + up
        axes[3, 2] = 1.0
        home = view.matrix @ axes
        home[:, 2] += .5 * (home[:, 0] + home[:, 1])
        home[0] -= low[0] * home[2]
        home[1] -= low[1] * home[2]
        patch = cv2.warpPerspective(texture, home, (w, h),
                                    flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        haze = view.haze(depth)
        if haze > .02 or view.beam:
            patch = cv2.convertScaleAbs(patch, alpha=(1 - haze) * view.headlights(depth))
            patch = cv2.add(patch, (*(view.fog * haze), 0.))
        stencil = np.zeros((h, w), np.uint8)
        cv2.fillConvexPoly(stencil, np.round((pixels - low) * 8).astype(np.int32), 255,
                           cv2.LINE_8, 3)
        if mask is not None:
            holes = cv2.warpPerspective(mask, home, (w, h))
            stencil = cv2.bitwise_and(stencil, holes)
            stencil = cv2.threshold(stencil, 100, 255, cv2.THRESH_BINARY)[1]
        roi = view.canvas[low[1]:high[1], low[0]:high[0]]
        cv2.copyTo(patch, stencil, roi)
