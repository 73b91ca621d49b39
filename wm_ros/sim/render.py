"""
A painter's-algorithm renderer: pictures, and which pixel belongs to whom.

Every object is drawn from far to near into an RGB picture with a fourth channel, the id buffer
(1 + row of the agent, 0 for the rest). Right after an agent is drawn nothing hides it yet, so its
pixels then are its whole silhouette, and its pixels at the end what is visible of it.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from wm_ros.sim import seeds
from wm_ros.sim.appearance import Lens, panorama, sample_style
from wm_ros.sim.figures import draw_cycle, draw_person, draw_static
from wm_ros.sim.ground import Ground
from wm_ros.sim.layout import BUILDING, FENCE, HEDGE, TREE, WALL
from wm_ros.sim.meshes import facade, surface
from wm_ros.sim.scene import AgentMeshes, Sprites, light_on
from wm_ros.sim.traffic import ANIMAL, BICYCLE, MOTORCYCLE, PEDESTRIAN
from wm_ros.types import CameraModel, CameraRig

#: Model input width, at which pixels are counted for the visibility rule.
MODEL_WIDTH = 400
_FAR_M = 110.0
_ROOFS = np.array([[128., 66., 48.], [92., 52., 42.], [74., 74., 80.], [104., 84., 70.]])
_NEAR_M = 0.25


@dataclass(frozen=True)
class Rendered:
    """
    The pictures of one frame and what is visible in them.

    `images` maps camera names to (H, W, 3) uint8 RGB. `pixels[A]` counts the visible pixels of
    each agent of `Drive.truth`, scaled to pictures of 400 pixels width and summed over cameras;
    `silhouettes[A]` is the visible share of its silhouette in the best camera. `ids` maps camera
    names to (H, W) uint8: 1 + the agent's row, 0 elsewhere.
    """

    images: dict[str, np.ndarray]
    ids: dict[str, np.ndarray]
    pixels: np.ndarray
    silhouettes: np.ndarray


class View:
    """
    One camera at one instant: the canvas and the projection into it.

    `matrix` (3, 4) maps layout points to canvas pixels; `position` is the lens in the layout.
    """

    def __init__(self, canvas: np.ndarray, matrix: np.ndarray, position: np.ndarray,
                 focal: float, fog_per_m: float, fog: np.ndarray) -> None:
        self.canvas, self.matrix, self.position = canvas, matrix, position
        self.focal, self.fog_per_m, self.fog = focal, fog_per_m, fog
        self.height, self.width = canvas.shape[:2]

    def project(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return pixels (..., 2) and depth (...,) of layout points (..., 3)."""
        p = points @ self.matrix[:, :3].T + self.matrix[:, 3]
        z = p[..., 2]
        return p[..., :2] / np.where(np.abs(z) < 1e-6, 1e-6, z)[..., None], z

    def haze(self, depth: float) -> float:
        return 1.0 - float(np.exp(-self.fog_per_m * depth))

    def colour(self, rgb, depth: float, tag: int = 0) -> tuple:
        """Return a drawing colour through the haze, with the id in the fourth channel."""
        a = self.haze(depth)
        c = np.asarray(rgb) * (1 - a) + self.fog * a
        return (float(c[0]), float(c[1]), float(c[2]), float(tag))

    def polygon(self, pixels: np.ndarray, colour: tuple) -> None:
        cv2.fillConvexPoly(self.canvas, np.round(pixels * 8).astype(np.int32), colour,
                           cv2.LINE_8, 3)

    def clipped(self, quad: np.ndarray) -> np.ndarray | None:
        """Return the part of a layout polygon (n, 3) before the lens as pixels, or None."""
        z = quad @ self.matrix[2, :3] + self.matrix[2, 3]
        out = []
        for i in range(len(quad)):
            j = (i + 1) % len(quad)
            if z[i] >= _NEAR_M:
                out.append(quad[i])
            if (z[i] < _NEAR_M) != (z[j] < _NEAR_M):
                out.append(quad[i] + (quad[j] - quad[i]) * (_NEAR_M - z[i]) / (z[j] - z[i]))
        if len(out) < 3:
            return None
        return np.clip(self.project(np.array(out))[0], -16000, 16000)


class _Camera:
    """What stays the same for one camera over a drive."""

    def __init__(self, camera: CameraModel, style, rng) -> None:
        self.camera = camera
        self.sub = 2 if camera.width <= 640 else 1
        s = self.sub
        w, h = camera.width, camera.height
        k = camera.k.astype(float).copy()
        self.maps = None
        offset, size = np.zeros(2), np.array([w, h])
        if camera.distortion:
            # Draw a larger plain picture, then bend it.
            u, v = np.meshgrid((np.arange(w * s) + .5) / s - .5, (np.arange(h * s) + .5) / s - .5)
            flat = np.stack([u.ravel(), v.ravel()], -1)[:, None].astype(np.float64)
            plain = cv2.undistortPoints(flat, k, np.array(camera.distortion), P=k).reshape(-1, 2)
            low = np.clip(np.floor(plain.min(0)) - 1, -w, 0)
            high = np.clip(np.ceil(plain.max(0)) + 2, 0, 2 * w)
            offset, size = -low, (high - low).astype(int)
            canvas_px = ((plain + offset + .5) * s - .5).astype(np.float32)
            self.maps = canvas_px.reshape(h * s, w * s, 2)
        k[:2, 2] += offset
        k[:2] *= s
        k[:2, 2] += (s - 1) / 2
        self.k = k
        self.canvas = np.zeros((int(size[1]) * s, int(size[0]) * s, 4), np.uint8)
        self.lens = Lens(style, rng, w, h)
        # Directions of coarse sky pixels.
        self.sky_step = 2 if s == 2 else 4
        rows, cols = self.canvas.shape[0] // self.sky_step + 1, \
            self.canvas.shape[1] // self.sky_step + 1
        u, v = np.meshgrid(np.arange(cols) * self.sky_step, np.arange(rows) * self.sky_step)
        rays = np.stack([(u - k[0, 2]) / k[0, 0], (v - k[1, 2]) / k[1, 1], np.ones_like(u, float)],
                        -1) @ camera.base_from_camera[:3, :3].T
        self.azimuth = np.arctan2(rays[..., 1], rays[..., 0]).astype(np.float32)
        self.elevation = np.rad2deg(np.arctan2(rays[..., 2], np.hypot(
            rays[..., 0], rays[..., 1]))).astype(np.float32)


class Renderer:
    """
    Draws the frames of one drive for one rig; `seed` of the look is the drive's own by default.

    The size of the pictures is that of the rig's cameras. Making one costs tens of milliseconds
    (textures), a frame of 400x160 about 5 ms a camera.
    """

    def __init__(self, drive, rig: CameraRig, seed: int | None = None) -> None:
        self.drive, self.rig = drive, rig
        self._seed = drive.seed if seed is None else seed
        rng = seeds.generator(self._seed, seeds.APPEARANCE)
        self.style = sample_style(rng)
        wide = max(camera.width for camera in rig.cameras)
        fine = wide > 800
        layout = drive.layout
        first, last = drive.step_at(drive.time_s(0)), drive.step_at(drive.time_s(drive.n - 1))
        track = drive.recording.axle[first:last + 1, :2]
        reach = 75.0
        low = np.maximum(track.min(0) - reach, layout.origin)
        high = np.minimum(track.max(0) + reach,
                          layout.origin + np.array(layout.classes.shape[::-1]) * .25)
        self._ground = Ground(layout, self.style, rng, low, high, 0.05 if fine else 0.1)
        self._sky = panorama(self.style, rng, 4096 if fine else 1024)
        self._px_per_m = 30.0 if fine else 10.0
        self._agents = AgentMeshes(drive.recording, self.style, rng)
        self._sprites = Sprites(self.style, rng, 192 if fine else 80)
        middle = track.mean(0)
        span = np.hypot(*(track - middle).T).max() + _FAR_M
        near = np.hypot(layout.statics[:, 0] - middle[0], layout.statics[:, 1] - middle[1]) < span
        self._statics = layout.statics[near]
        self._static_seed = rng.integers(0, 2**31, len(self._statics))
        self._roofs: dict = {}
        self._panels = self._make_panels()
        up = np.array([0., 0., 1.])
        self._panel_table = (
            np.array([p[0] for p in self._panels]), np.array([p[5] for p in self._panels]),
            np.array([[p[1], p[1] + p[2] * p[3], p[1] + p[2] * p[3] + up * p[4],
                       p[1] + up * p[4]] for p in self._panels]).reshape(-1, 4, 3),
            np.array([p[6] != FENCE for p in self._panels], bool))
        loose = ~np.isin(self._statics[:, 6], (BUILDING, WALL, HEDGE, FENCE))
        self._loose = list(zip(self._statics[loose], self._static_seed[loose].tolist(),
                               strict=True))
        size = self._statics[loose]
        self._loose_reach = np.where(size[:, 5] > 3.5, _FAR_M, 60.0)
        self._loose_table = (size[:, :2], size[:, 5],
                             np.maximum(size[:, 3], np.where(size[:, 6] == TREE, .45, .3)
                                        * size[:, 5]))
        self._textures: dict = {}
        self._cameras = [_Camera(camera, self.style, rng) for camera in rig.cameras]
        self._phase = rng.uniform(0, 2 * np.pi, 4)

    # ---- still things ---------------------------------------------------------------------
    def _make_panels(self) -> list:
        """Return (centre, origin, along, width, height, normal, kind, seed) of upright faces."""
        panels = []
        pitched = {'street': 30, 'suburb': 85, 'arterial': 15}[self.drive.layout.kind]
        for row, seed in zip(self._statics, self._static_seed, strict=True):
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
                        tone = _ROOFS[seed % len(_ROOFS)] * light_on(
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

    def _draw_panel(self, view: View, argument) -> None:
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
        if haze > .02:
            patch = cv2.convertScaleAbs(patch, alpha=1 - haze)
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

    # ---- one frame ------------------------------------------------------------------------
    def render(self, i: int) -> Rendered:
        """Return the pictures of frame `i`."""
        drive = self.drive
        t = drive.time_s(i)
        base = drive.base_at(t)
        rows = drive.near(i)
        poses = drive.poses_at(t)
        rng = np.random.default_rng([self._seed % 2**63, 77, i])
        step = drive.step_at(t)
        world = self._agents.place(rows, poses, step)
        layout_from_base = np.eye(4)
        c, s = np.cos(base[2]), np.sin(base[2])
        layout_from_base[:2, :2] = [[c, -s], [s, c]]
        layout_from_base[:2, 3] = base[:2]
        sway = self._sway(t, step)
        images, ids = {}, {}
        pixels, shares = np.zeros(len(rows)), np.zeros(len(rows))
        for item in self._cameras:
            image, tags, full, canvas_tags = self._shoot(item, layout_from_base @ sway, base, rows,
                                                         poses, world, step, rng)
            camera = item.camera
            seen = np.bincount(tags.ravel(), minlength=256)[1:len(rows) + 1]
            scale = (MODEL_WIDTH / (camera.width * item.sub))**2
            pixels += seen * scale
            if item.maps is not None:
                seen = np.bincount(canvas_tags.ravel(), minlength=256)[1:len(rows) + 1]
            shares = np.maximum(shares, np.minimum(seen / np.maximum(full, 1), 1.0))
            images[camera.name] = image
            ids[camera.name] = tags[::item.sub, ::item.sub]
        shares[pixels == 0] = 0
        return Rendered(images, ids, pixels, shares)

    def _sway(self, t: float, step: int) -> np.ndarray:
        """Return the small turn of the body on its springs, which no sensor reports."""
        a = self.style.wobble
        speed = self.drive.recording.axle[:, 3]
        slow = (speed[min(step + 1, len(speed) - 1)] - speed[max(step - 1, 0)]) / .2
        move = min(1.0, speed[step] / 6)
        pitch = move * a * (np.sin(7.1 * t + self._phase[0])
                            + .7 * np.sin(11.7 * t + self._phase[1]))
        pitch -= .0016 * np.clip(slow, -5, 3)
        roll = move * a * .8 * np.sin(5.3 * t + self._phase[2])
        turn = np.eye(4)
        turn[0, 2], turn[2, 0] = pitch, -pitch
        turn[1, 2], turn[2, 1] = -roll, roll
        return turn

    def _shoot(self, item: _Camera, layout_from_base, base, rows, poses, world, step, rng):
        layout_from_camera = layout_from_base @ item.camera.base_from_camera
        rotation = layout_from_camera[:3, :3].T
        position = layout_from_camera[:3, 3]
        matrix = item.k @ np.concatenate([rotation, -(rotation @ position)[:, None]], 1)
        style = self.style
        view = View(item.canvas, matrix, position, item.k[0, 0], style.fog_per_m, style.fog)
        self._backdrop(view, item, base[2])
        self._agents.shadows(view, world, style)
        full = np.zeros(len(rows))
        for draw, argument in self._uncovered(view, self._queue(view, rows, poses)):
            if draw == 'panel':
                self._draw_panel(view, argument)
            elif draw == 'static':
                draw_static(view, argument, self.style, self._sprites, self._signals(step))
            else:
                tag = argument + 1
                box = self._draw_agent(view, world, poses, rows, argument, tag, step)
                if box is not None:
                    x0, y0, x1, y1 = box
                    roi = view.canvas[max(y0, 0):max(y1 + 2, 0), max(x0, 0):max(x1 + 2, 0), 3]
                    full[argument] = np.count_nonzero(roi == tag)
        canvas = view.canvas
        tags = canvas_tags = canvas[..., 3].copy()
        picture = canvas
        w, h = item.camera.width, item.camera.height
        if item.maps is not None:
            tags = cv2.remap(canvas_tags, item.maps, None, cv2.INTER_NEAREST)
            picture = cv2.remap(picture, item.maps, None, cv2.INTER_LINEAR)
        if item.sub > 1:
            picture = cv2.resize(picture, (w, h), interpolation=cv2.INTER_AREA)
        return item.lens.apply(np.ascontiguousarray(picture[..., :3]), rng), tags, full, canvas_tags

    def _signals(self, step: int):
        return self.drive.layout.junctions, self.drive.recording.green_main[step]

    def _queue(self, view: View, rows, poses):
        """
        Yield everything in the picture: (distance, how, what, left, right, top, edge).

        The last four are its columns, its top row, and, where it is opaque down to the ground,
        the lower end of its upper edge (else None).
        """
        m, width, focal = view.matrix, view.width, view.focal
        p0, p1 = m[:, :2], m[:, 2:3]

        def extent(xy, height, radius):
            foot = xy @ p0.T + m[:, 3]
            head = foot + height[:, None] * p1[:, 0]
            z = np.maximum(np.minimum(foot[:, 2], head[:, 2]), .3)
            deep = foot[:, 2]
            u = foot[:, 0] / np.maximum(deep, .3)
            v = np.minimum(head[:, 1] / np.maximum(head[:, 2], .3), foot[:, 1] / np.maximum(
                deep, .3))
            margin = np.where(deep > radius + .3, radius * focal / z * 1.1, 1e6)
            ok = (deep > -radius) & (u > -margin) & (u < width + margin)
            top = np.where(deep > radius + .3, v - .15 * radius * focal / z, -1e6)
            return ok, np.hypot(*(xy - view.position[:2]).T), u - margin, u + margin, top

        ok, distance, left, right, top = extent(*self._loose_table)
        for k in np.flatnonzero(ok & (distance < self._loose_reach) & (distance > .6)):
            yield distance[k], 'static', self._loose[k], left[k], right[k], top[k], None
        if len(self._panels):
            centre, normal, quads, opaque = self._panel_table
            facing = ((view.position - centre) * normal).sum(1) > 0
            near = np.flatnonzero(facing & (
                np.hypot(centre[:, 0] - view.position[0], centre[:, 1] - view.position[1])
                < _FAR_M + 20))
            pixels, z = view.project(quads[near])                        # (n, 4, 2), (n, 4)
            whole = z.min(1) >= _NEAR_M
            low, high = pixels.min(1), pixels.max(1)
            seen = whole & (high[:, 0] > 0) & (low[:, 0] < width) & (high[:, 1] > 0) & (
                low[:, 1] < view.height)
            reach = np.hypot(*np.moveaxis(quads[near][..., :2] - view.position[:2], -1, 0))
            key = .5 * (reach.mean(1) + reach.max(1))
            edge = pixels[:, 2:, 1].max(1)
            for n, k in enumerate(near):
                if seen[n]:
                    yield (key[n], 'panel', (self._panels[k], pixels[n]), low[n, 0], high[n, 0],
                           low[n, 1], edge[n] if opaque[k] else None)
                elif not whole[n] and z[n].max() > _NEAR_M:
                    shape = view.clipped(quads[k])
                    if shape is not None and shape[:, 0].max() > 0 and shape[:, 0].min() < width:
                        yield (key[n], 'panel', (self._panels[k], shape), -1e6, 1e6, -1e6, None)
        if len(rows):
            sizes = self.drive.recording.sizes[rows]
            ok, distance, left, right, top = extent(
                poses[rows, :2], sizes[:, 2], np.maximum(.62 * sizes[:, 0], .5))
            for k in np.flatnonzero(ok):
                yield distance[k], 'agent', int(k), left[k], right[k], top[k], None

    @staticmethod
    def _uncovered(view: View, queue) -> list:
        """
        Return (how, what) from far to near, without what house fronts hide.

        A front covers its columns from its upper edge down to the ground, and whatever stands
        farther off has its foot higher up in the picture.
        """
        step = 4
        cover = np.full(view.width // step + 2, 1e9)
        kept = []
        for _, how, what, left, right, top, edge in sorted(queue, key=lambda entry: entry[0]):
            a, b = max(int(left), 0) // step, min(max(int(right), 0) // step + 1, len(cover))
            if a >= b or top >= cover[a:b].max():
                continue
            kept.append((how, what))
            if edge is not None and b - a > 2:
                inner = cover[a + 1:b - 1]
                np.minimum(inner, edge, out=inner)
        return kept[::-1]

    def _draw_agent(self, view: View, world, poses, rows, k: int, tag: int, step: int):
        kind = self.drive.recording.classes[rows[k]]
        if kind in (PEDESTRIAN, ANIMAL):
            return draw_person(view, self._agents, rows[k], poses[rows[k]], tag, step)
        if kind in (BICYCLE, MOTORCYCLE):
            return draw_cycle(view, self._agents, rows[k], poses[rows[k]], tag, step)
        return self._agents.draw(view, world, k, tag)

    def _backdrop(self, view: View, item: _Camera, yaw: float) -> None:
        """Sky above the horizon, ground below."""
        canvas, m = view.canvas, view.matrix
        h, w = view.height, view.width
        # The horizon: points at infinity on the ground, a line a*u + b*v + c = 0.
        line = np.cross(m[:, 0], m[:, 1])
        line = line / (np.hypot(line[0], line[1]) + 1e-12)
        below = np.sign(line @ np.array([item.k[0, 2], 1e7, 1.]))
        line = line * (below if below else 1)
        at = [-(line[0] * u + line[2]) / (line[1] if abs(line[1]) > 1e-6 else 1e-6)
              for u in (0, w - 1)]
        top = int(np.clip(np.floor(min(at)), 0, h))
        bottom = int(np.clip(np.ceil(max(at)) + 2, 0, h))
        step = item.sky_step
        sky_rows = bottom // step + 2
        pano = self._sky
        columns = pano.shape[1] // 2
        px = item.azimuth[:sky_rows] * np.float32(columns / np.pi) + np.float32(
            (yaw / np.pi % 2.0) * columns)
        px[px >= 2 * columns] -= 2 * columns
        px[px < 0] += 2 * columns
        # Elevation counts from where the swaying horizon is now.
        drift = (np.mean(at) - self._still_horizon(item)) / item.k[1, 1]
        py = (np.float32(82 - np.rad2deg(drift)) - item.elevation[:sky_rows]) * np.float32(
            pano.shape[0] / 90)
        if bottom > 0:
            sky = cv2.remap(pano, px, py, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
            sky = cv2.resize(sky, (sky.shape[1] * step, sky.shape[0] * step))
            canvas[:bottom] = sky[:bottom, :w]
        if top >= h:
            return
        # Bands of ground: the farther, the coarser the raster.
        height = max(view.position[2], .3)
        edges = [h]
        for limit in (14.0, 30.0):
            row = int(np.mean(at) + item.k[1, 1] * height / limit)
            edges.append(int(np.clip(row, top, edges[-1])))
        edges.append(top)
        for level, (high, low) in enumerate(zip(edges[:-1], edges[1:], strict=True)):
            if high <= low:
                continue
            image, cell = self._ground.levels[level]
            a = np.array([[cell, 0, self._ground.origin[0] + cell / 2],
                          [0, cell, self._ground.origin[1] + cell / 2], [0, 0, 1.]])
            hom = np.array([[1, 0, 0], [0, 1, -low], [0, 0, 1.]]) @ m[:, [0, 1, 3]] @ a
            if low >= bottom:
                cv2.warpPerspective(image, hom, (w, high - low), canvas[low:high],
                                           cv2.INTER_LINEAR, cv2.BORDER_CONSTANT,
                                           self._ground.border)
                self._ground_light(canvas[low:high], low, at, item, height)
                continue
            band = cv2.warpPerspective(image, hom, (w, high - low), flags=cv2.INTER_LINEAR,
                                       borderMode=cv2.BORDER_CONSTANT,
                                       borderValue=self._ground.border)
            self._ground_light(band, low, at, item, height)
            mask = np.zeros((high - low, w), np.uint8)
            points = np.array([[0, at[0] - low + .5], [w - 1, at[1] - low + .5],
                               [w - 1, 4 * h], [0, 4 * h]])
            cv2.fillConvexPoly(mask, np.round(np.clip(points, -30000, 30000) * 8).astype(
                np.int32), 255, cv2.LINE_8, 3)
            cv2.copyTo(band, mask, canvas[low:high])

    def _still_horizon(self, item: _Camera) -> float:
        forward = item.camera.base_from_camera[:3, 2]
        return item.k[1, 2] + item.k[1, 1] * forward[2] / max(np.hypot(*forward[:2]), 1e-3)

    def _ground_light(self, band, low, at, item, height) -> None:
        """Haze by distance, and the ego's headlights at night, row by row."""
        rows = np.arange(low, low + len(band)) + .5 - np.mean(at)
        distance = np.minimum(item.k[1, 1] * height / np.maximum(rows, .3), 400.0)
        haze = 1 - np.exp(-self.style.fog_per_m * distance)
        gain = np.ones(len(band))
        if self.style.light == 'night' and item.camera.base_from_camera[0, 2] > .5:
            gain = 1 + 2.2 * np.exp(-((distance - 9) / 11)**2)
        far = haze > .012
        if gain.max() > 1.02:
            band[:] = np.clip(band * gain[:, None, None], 0, 255).astype(np.uint8)
        if far.any():
            n = int(np.flatnonzero(far)[-1]) + 1
            a = (haze[:n] * 256).astype(np.uint16)[:, None, None]
            fog = np.append(self.style.fog, 0).astype(np.uint16)
            band[:n] = ((band[:n] * (256 - a) + fog * a) >> 8).astype(np.uint8)
