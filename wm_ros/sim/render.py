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

from wm_ros.geometry import wrap_angle
from wm_ros.sim import seeds
from wm_ros.sim.appearance import panorama, sample_style
from wm_ros.sim.backdrop import Backdrop
from wm_ros.sim.figures import draw_cycle, draw_person
from wm_ros.sim.ground import Ground
from wm_ros.sim.lens import Grain
from wm_ros.sim.panels import Panels
from wm_ros.sim.pieces import draw_static
from wm_ros.sim.roads import BUILDING, FENCE, HEDGE, TREE, WALL
from wm_ros.sim.scene import AgentMeshes, Sprites
from wm_ros.sim.view import NEAR_M, Camera, View
from wm_ros.sim.worlds import ANIMAL, BICYCLE, MOTORCYCLE, PEDESTRIAN, STEP_S, WORLDS
from wm_ros.types import CameraRig

#: Model input width, at which pixels are counted for the visibility rule.
MODEL_WIDTH = 400
_FAR_M = 110.0


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
        self.style = sample_style(rng, WORLDS[drive.world].season)
        wide = max(camera.width for camera in rig.cameras)
        fine = wide > 800
        layout = drive.layout
        first, last = drive.step_at(drive.time_s(0)), drive.step_at(drive.time_s(drive.n - 1))
        track = drive.recording.axle[first:last + 1, :2]
        reach = 75.0
        low = np.maximum(track.min(0) - reach, layout.origin)
        high = np.minimum(track.max(0) + reach,
                          layout.origin + np.array(layout.classes.shape[::-1]) * .25)
        self._backdrop = Backdrop(
            self.style, Ground(layout, self.style, rng, low, high, 0.05 if fine else 0.1),
            panorama(self.style, rng, 4096 if fine else 1024))
        self._agents = AgentMeshes(drive.recording, self.style, rng)
        self._sprites = Sprites(self.style, rng, 192 if fine else 80)
        middle = track.mean(0)
        span = np.hypot(*(track - middle).T).max() + _FAR_M
        near = np.hypot(layout.statics[:, 0] - middle[0], layout.statics[:, 1] - middle[1]) < span
        self._statics = layout.statics[near]
        self._static_seed = rng.integers(0, 2**31, len(self._statics))
        self._panels = Panels(self._statics, self._static_seed, layout.kind, self.style,
                              self._seed, 30.0 if fine else 10.0)
        faces = self._panels.faces
        up = np.array([0., 0., 1.])
        self._panel_table = (
            np.array([p[0] for p in faces]), np.array([p[5] for p in faces]),
            np.array([[p[1], p[1] + p[2] * p[3], p[1] + p[2] * p[3] + up * p[4],
                       p[1] + up * p[4]] for p in faces]).reshape(-1, 4, 3),
            np.array([p[6] != FENCE for p in faces], bool))
        loose = ~np.isin(self._statics[:, 6], (BUILDING, WALL, HEDGE, FENCE))
        self._loose = list(zip(self._statics[loose], self._static_seed[loose].tolist(),
                               strict=True))
        size = self._statics[loose]
        self._loose_reach = np.where(size[:, 5] > 3.5, _FAR_M, 60.0)
        self._loose_table = (size[:, :2], size[:, 5],
                             np.maximum(size[:, 3], np.where(size[:, 6] == TREE, .45, .3)
                                        * size[:, 5]))
        grain = Grain(self.style, rng)
        self._cameras = [Camera(camera, self.style, rng, grain) for camera in rig.cameras]
        self._phase = rng.uniform(0, 2 * np.pi, 4)

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
            seen = _count(tags)[1:len(rows) + 1]
            scale = (MODEL_WIDTH / (camera.width * item.sub))**2
            pixels += seen * scale
            if item.maps is not None:
                seen = _count(canvas_tags)[1:len(rows) + 1]
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

    def _shoot(self, item: Camera, layout_from_base, base, rows, poses, world, step, rng):
        layout_from_camera = layout_from_base @ item.camera.base_from_camera
        rotation = layout_from_camera[:3, :3].T
        position = layout_from_camera[:3, 3]
        matrix = item.k @ np.concatenate([rotation, -(rotation @ position)[:, None]], 1)
        style = self.style
        beam = style.light == 'night' and item.camera.base_from_camera[0, 2] > .5
        view = View(item.canvas, matrix, position, item.k[0, 0], style.fog_per_m, style.fog, beam)
        self._backdrop.draw(view, item, base[2])
        self._agents.shadows(view, world, style)
        full = np.zeros(len(rows))
        for draw, argument in self._uncovered(view, self._queue(view, rows, poses)):
            if draw == 'panel':
                self._panels.draw(view, argument)
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
        tags = canvas_tags = cv2.extractChannel(canvas, 3)
        picture = canvas
        w, h = item.camera.width, item.camera.height
        if item.maps is not None:
            tags = cv2.remap(canvas_tags, item.maps, None, cv2.INTER_NEAREST)
            picture = cv2.remap(picture, item.maps, None, cv2.INTER_LINEAR)
        if item.sub > 1:
            picture = cv2.resize(picture, (w, h), interpolation=cv2.INTER_AREA)
        ego = self.drive.recording.axle
        turn = float(wrap_angle(ego[min(step + 1, len(ego) - 1), 2] - ego[step, 2])) / STEP_S
        picture = item.lens.apply(cv2.cvtColor(picture, cv2.COLOR_BGRA2BGR), rng, step * STEP_S,
                                  float(ego[step, 3]), turn)
        return picture, tags, full, canvas_tags

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
        faces = self._panels.faces
        if faces:
            centre, normal, quads, opaque = self._panel_table
            facing = ((view.position - centre) * normal).sum(1) > 0
            near = np.flatnonzero(facing & (
                np.hypot(centre[:, 0] - view.position[0], centre[:, 1] - view.position[1])
                < _FAR_M + 20))
            pixels, z = view.project(quads[near])                        # (n, 4, 2), (n, 4)
            whole = z.min(1) >= NEAR_M
            low, high = pixels.min(1), pixels.max(1)
            seen = whole & (high[:, 0] > 0) & (low[:, 0] < width) & (high[:, 1] > 0) & (
                low[:, 1] < view.height)
            reach = np.hypot(*np.moveaxis(quads[near][..., :2] - view.position[:2], -1, 0))
            key = .5 * (reach.mean(1) + reach.max(1))
            edge = pixels[:, 2:, 1].max(1)
            for n, k in enumerate(near):
                if seen[n]:
                    yield (key[n], 'panel', (faces[k], pixels[n]), low[n, 0], high[n, 0],
                           low[n, 1], edge[n] if opaque[k] else None)
                elif not whole[n] and z[n].max() > NEAR_M:
                    shape = view.clipped(quads[k])
                    if shape is not None and shape[:, 0].max() > 0 and shape[:, 0].min() < width:
                        yield (key[n], 'panel', (faces[k], shape), -1e6, 1e6, -1e6, None)
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


def _count(tags: np.ndarray) -> np.ndarray:
    """Return how many pixels have each of the 256 ids."""
    return cv2.calcHist([tags], [0], None, [256], [0, 256]).ravel()
