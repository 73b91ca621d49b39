"""Agents as drawable things: vehicle meshes placed a frame, colours, shadows, tree sprites."""

from __future__ import annotations

import cv2
import numpy as np

from wm_ros.sim.appearance import Style
from wm_ros.sim.meshes import (
    CARGO,
    GLASS,
    HEADLIGHT,
    HUB,
    PAINT,
    PLATE,
    SHOULDER,
    SILL,
    TAILLIGHT,
    TRIM,
    TYRE,
    crown,
    normals_of,
    paint,
    vehicle_mesh,
)
from wm_ros.sim.traffic import Recording
from wm_ros.sim.worlds import BUS, CAR, TRUCK, VAN


def light_on(style: Style, normal: np.ndarray) -> np.ndarray:
    """Return the light (..., 3) on faces of unit normal (..., 3)."""
    sun = np.maximum(normal @ style.sun, 0)[..., None]
    up = .86 + .14 * normal[..., 2:3]                 # the sky lights what faces it
    return style.ambient * up + style.sun_strength * sun * np.array([1., .97, .9])


def _own_shape(mesh: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return a unit mesh bent a little within its box: belt higher or lower, cabin shifted."""
    out = mesh.copy()
    out[..., 2] = np.clip(mesh[..., 2], 0, None)**rng.uniform(.9, 1.12)
    x = np.clip(mesh[..., 0], -.5, .5)
    # The ends stay; what lies between moves most in the middle, and more the higher it is.
    shift = rng.uniform(-.05, .05) * (1 - 4 * x * x) * np.clip(mesh[..., 2] - .35, 0, 1)
    out[..., 0] = mesh[..., 0] + shift
    return out


class Sprites:
    """A few tree crowns to be placed again and again."""

    def __init__(self, style: Style, rng: np.random.Generator, size: int) -> None:
        light = style.ambient + .5 * style.sun_strength
        self.items = []
        for _ in range(8):
            image, mask = crown(rng, style, size)
            image = np.clip(image * light * rng.uniform(.8, 1.2), 0, 255).astype(np.uint8)
            image = cv2.merge([*cv2.split(image), np.zeros_like(mask)])
            small = cv2.resize(image, None, fx=.35, fy=.35, interpolation=cv2.INTER_AREA)
            small_mask = cv2.resize(mask, None, fx=.35, fy=.35, interpolation=cv2.INTER_AREA)
            self.items.append(((image, mask), (small, small_mask)))


class AgentMeshes:
    """Meshes and colours of all agents of a recording."""

    def __init__(self, recording: Recording, style: Style, rng: np.random.Generator) -> None:
        self.recording, self.style = recording, style
        count = len(recording.classes)
        self.colours = np.zeros((count, 4, 3))        # paint/top, trousers/cargo, skin, hair/extra
        quads, normals, colours, materials, details = [], [], [], [], []
        self.start = np.zeros(count + 1, int)
        for a in range(count):
            kind = recording.classes[a]
            self.colours[a] = self._person(rng)
            if kind in (CAR, VAN, TRUCK, BUS):
                name = {VAN: 'van', TRUCK: 'truck', BUS: 'bus'}.get(int(kind))
                if name is None:
                    name = str(rng.choice(['sedan', 'hatch', 'suv', 'pickup'],
                                          p=[.32, .32, .3, .06]))
                mesh, material, detail = vehicle_mesh(name)
                body = paint(rng)
                cargo = paint(rng) if rng.random() < .5 else np.array([225., 225., 220.])
                glass = np.array([34., 42., 50.]) * rng.uniform(.35, 1.7)
                table = np.zeros((12, 3))
                table[PAINT], table[GLASS], table[CARGO] = body, glass, cargo
                table[TYRE], table[TRIM], table[PLATE] = 22., 36., (226, 222, 200)
                table[HUB] = rng.uniform(60, 170)
                table[HEADLIGHT], table[TAILLIGHT] = (226, 228, 224), (150, 14, 18)
                table[SHOULDER], table[SILL] = np.minimum(body * 1.1 + 8, 250), body * .74
                scaled = _own_shape(mesh, rng) * recording.sizes[a]
                quads.append(scaled)
                normals.append(normals_of(scaled))
                colours.append(table[material])
                if style.snow:                      # on roofs and bonnets
                    flat = normals[-1][:, 2:] > .6
                    share = .75 * style.snow * rng.random()
                    colours[-1] = np.where(flat, colours[-1] * (1 - share)
                                           + style.terrain * share, colours[-1])
                materials.append(material)
                details.append(detail)
                self.start[a + 1] = self.start[a] + len(mesh)
            else:
                self.start[a + 1] = self.start[a]
        empty = [np.zeros((0, 4, 3))]
        self.quads = np.concatenate(quads or empty)
        self.normals = np.concatenate(normals or [np.zeros((0, 3))])
        self.base_colours = np.concatenate(colours or [np.zeros((0, 3))])
        self.materials = np.concatenate(materials or [np.zeros(0, int)])
        self.details = np.concatenate(details or [np.zeros(0, bool)])
        moved = np.hypot(*np.moveaxis(np.diff(recording.poses[..., :2], axis=0), -1, 0))
        self.walked = np.concatenate([np.zeros((1, count)), np.cumsum(moved, 0)])
        self.offset = rng.uniform(0, 2 * np.pi, count)
        self.variant = rng.integers(0, 1000, count)

    @staticmethod
    def _person(rng) -> np.ndarray:
        top = np.clip(rng.choice([rng.uniform(15, 70), rng.uniform(60, 235)])
                      * (1 + rng.normal(0, .25, 3)), 8, 245)
        legs = np.clip(rng.uniform(18, 120) * (1 + rng.normal(0, .12, 3)), 8, 230)
        skin = np.array([224., 178., 146.]) * rng.uniform(.35, 1.05)
        hair = np.array([70., 52., 36.]) * rng.uniform(.2, 2.4)
        return np.stack([top, legs, skin, hair])

    def shade(self, colour, normal=(0., 0., 0.)) -> np.ndarray:
        """Return the lit colour of a round thing, or of a face of `normal`."""
        normal = np.asarray(normal)
        if not normal.any():
            return np.asarray(colour) * (self.style.ambient + .45 * self.style.sun_strength)
        return np.asarray(colour) * light_on(self.style, normal)

    def place(self, rows, poses, step: int) -> dict:
        """Return the meshes of `rows` in the layout, lit, for one instant."""
        index = [np.arange(self.start[r], self.start[r + 1]) for r in rows]
        counts = np.array([len(x) for x in index], int)
        pick = np.concatenate(index) if len(index) else np.zeros(0, int)
        owner = np.repeat(np.arange(len(rows)), counts)
        pose = poses[rows][owner] if len(rows) else np.zeros((0, 3))
        c, s = np.cos(pose[:, 2]), np.sin(pose[:, 2])
        local = self.quads[pick]
        points = np.empty_like(local)
        points[..., 0] = c[:, None] * local[..., 0] - s[:, None] * local[..., 1] + pose[:, :1]
        points[..., 1] = s[:, None] * local[..., 0] + c[:, None] * local[..., 1] + pose[:, 1:2]
        points[..., 2] = local[..., 2]
        n = self.normals[pick]
        normal = np.stack([c * n[:, 0] - s * n[:, 1], s * n[:, 0] + c * n[:, 1], n[:, 2]], -1)
        material = self.materials[pick]
        light = light_on(self.style, normal)
        colour = self.base_colours[pick] * light
        # Glass and paint mirror some sky.
        shine = np.where(material == GLASS, .22, np.where(material == PAINT, .05, 0.))[:, None]
        shine = shine * np.clip(.35 + normal[:, 2:3], 0, 1)
        colour = colour * (1 - shine) + self.style.horizon * shine
        dark = self.style.light in ('night', 'dusk', 'rain')
        head = material == HEADLIGHT
        tail = material == TAILLIGHT
        running = self.recording.braking[step][rows][owner] if len(rows) else np.zeros(0, bool)
        moving = (self.walked[min(step + 3, len(self.walked) - 1)]
                  - self.walked[max(step - 30, 0)] > .3)[rows][owner] if len(rows) else running
        if dark:
            colour[head & moving] = (255, 252, 235)
            colour[tail & moving] = (190, 16, 16)
        colour[tail & running] = (255, 40, 32)
        return {'rows': rows, 'starts': np.concatenate([[0], np.cumsum(counts)]).astype(int),
                'points': points, 'normals': normal, 'colours': np.clip(colour, 0, 255),
                'details': self.details[pick], 'poses': poses[rows],
                'sizes': self.recording.sizes[rows]}

    def draw(self, view, world, k: int, tag: int):
        """Draw the vehicle of row `k`; return its bounding box in pixels or None."""
        a, b = world['starts'][k], world['starts'][k + 1]
        points = world['points'][a:b]
        facing = ((view.position - points[:, 0]) * world['normals'][a:b]).sum(1) > 0
        depth = float(np.hypot(*(world['poses'][k, :2] - view.position[:2])))
        if world['sizes'][k, 2] * view.focal / max(depth, 1) < 15:
            facing &= ~world['details'][a:b]
        pick = np.flatnonzero(facing)
        pixels, z = view.project(points[pick])
        haze = view.haze(depth)
        colours = world['colours'][a:b][pick] * ((1 - haze) * view.headlights(depth))
        colours = np.minimum(colours + view.fog * haze, 255)
        colours = colours.tolist()
        near = z.min(1) < .25
        if near.any():
            low, high = np.array([1e9, 1e9]), np.array([-1e9, -1e9])
            for q in range(len(pick)):
                shape = view.clipped(points[pick[q]]) if near[q] else pixels[q]
                if shape is not None:
                    view.polygon(shape, (*colours[q], tag))
                    low, high = np.minimum(low, shape.min(0)), np.maximum(high, shape.max(0))
        elif len(pick):
            fixed = np.round(pixels * 8).astype(np.int32)
            canvas = view.canvas
            for q, shape in enumerate(fixed):
                cv2.fillConvexPoly(canvas, shape, (*colours[q], tag), 8, 3)
            low, high = pixels.min((0, 1)), pixels.max((0, 1))
        else:
            return None
        if high[0] < 0 or high[1] < 0 or low[0] > view.width or low[1] > view.height:
            return None
        low, high = np.clip(low, -2, 1e5).astype(int) - 1, np.clip(high, -2, 1e5).astype(int) + 1
        return low[0], low[1], high[0], high[1]

    def shadows(self, view, world, style: Style) -> None:
        """Darken the ground under and beside the agents."""
        if not len(world['poses']):
            return
        pose, size = world['poses'], world['sizes']
        c, s = np.cos(pose[:, 2]), np.sin(pose[:, 2])
        half = size[:, :2] / 2 * np.where(size[:, :1] < 1.0, .55, 1.0)
        corners = np.stack([
            np.stack([pose[:, 0] + c * a * half[:, 0] - s * b * half[:, 1],
                      pose[:, 1] + s * a * half[:, 0] + c * b * half[:, 1],
                      np.zeros(len(pose))], -1)
            for a, b in ((1, 1), (-1, 1), (-1, -1), (1, -1))], 1)            # (A, 4, 3)
        contact, z0 = view.project(corners)
        shade = None
        ok = (z0.min(1) > .4) & (z0.min(1) < 70)
        inside = (contact[..., 0].max(1) > -200) & (contact[..., 0].min(1) < view.width + 200)
        cast = style.sun_strength > .15
        if cast:
            drift = -style.sun[:2] / max(style.sun[2], .15)
            top = corners.copy()
            top[..., :2] += drift * np.minimum(size[:, 2], 6)[:, None, None]
            far, z1 = view.project(top)
            ok_cast = ok & (z1.min(1) > .4)
        for k in np.flatnonzero(ok & inside):
            if shade is None:
                shade = np.full((view.height, view.width), 255, np.uint8)
            if cast and ok_cast[k]:
                points = np.round(np.concatenate([contact[k], far[k]]) * 8).astype(np.int32)
                cv2.fillConvexPoly(shade, cv2.convexHull(points), int(255 * style.shadow),
                                   cv2.LINE_8, 3)
            if size[k, 0] > 1.2:
                cv2.fillConvexPoly(shade, np.round(contact[k] * 8).astype(np.int32),
                                   int(255 * min(style.shadow, .42)), cv2.LINE_8, 3)
        if shade is None:
            return
        row = max(0, int(min(contact[ok & inside][..., 1].min(), view.height - 1)) - 2)
        if cast and (ok_cast & inside).any():
            row = max(0, min(row, int(min(far[ok_cast & inside][..., 1].min(), view.height)) - 2))
        part = shade[row:]
        if view.width > 1000:
            part = cv2.blur(part, (5, 5))
        if part.size:
            region = view.canvas[row:]
            view.canvas[row:] = cv2.multiply(region, cv2.merge([part] * 4), scale=1 / 255)
