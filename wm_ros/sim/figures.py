"""People, two-wheelers and animals: thick lines, discs and polygons."""

from __future__ import annotations

import cv2
import numpy as np

from wm_ros.sim.worlds import ANIMAL, MOTORCYCLE


class _Pen:
    """Draws limbs of one figure in its own frame (x forward, y left, z up)."""

    def __init__(self, view, pose, tag: int) -> None:
        self.view, self.tag = view, tag
        c, s = np.cos(pose[2]), np.sin(pose[2])
        self.home = np.array([[c, -s, 0, pose[0]], [s, c, 0, pose[1]], [0, 0, 1, 0.]])
        self.depth = float(view.matrix[2, :3] @ [pose[0], pose[1], .8] + view.matrix[2, 3])
        self.matrix = view.matrix[:, :3] @ self.home[:, :3]
        self.shift = view.matrix[:, :3] @ self.home[:, 3] + view.matrix[:, 3]
        self.low, self.high = np.array([1e9, 1e9]), np.array([-1e9, -1e9])

    def pixels(self, points) -> np.ndarray:
        p = np.asarray(points, float) @ self.matrix.T + self.shift
        return p[:, :2] / np.maximum(p[:, 2:], .2)

    def _note(self, q, radius) -> None:
        self.low = np.minimum(self.low, q.min(0) - radius)
        self.high = np.maximum(self.high, q.max(0) + radius)

    def limb(self, points, width_m, rgb) -> None:
        q = np.clip(self.pixels(points), -8000, 8000)
        thick = max(1, int(round(width_m * self.view.focal / max(self.depth, .3))))
        cv2.polylines(self.view.canvas, [np.round(q * 8).astype(np.int32)], False,
                      self.view.colour(rgb, self.depth, self.tag), thick, cv2.LINE_8, 3)
        self._note(q, thick)

    def disc(self, point, radius_m, rgb) -> None:
        q = np.clip(self.pixels([point]), -8000, 8000)
        radius = max(.6, radius_m * self.view.focal / max(self.depth, .3))
        cv2.circle(self.view.canvas, np.round(q[0] * 8).astype(int).tolist(), int(radius * 8),
                   self.view.colour(rgb, self.depth, self.tag), -1, cv2.LINE_8, 3)
        self._note(q, radius)

    def patch(self, points, rgb) -> None:
        q = np.clip(self.pixels(points), -8000, 8000)
        hull = cv2.convexHull(np.round(q * 8).astype(np.int32))
        cv2.fillConvexPoly(self.view.canvas, hull, self.view.colour(rgb, self.depth, self.tag),
                           cv2.LINE_8, 3)
        self._note(q, 1)

    def box(self):
        if self.high[0] < 0 or self.high[1] < 0 or self.low[0] > self.view.width \
                or self.low[1] > self.view.height:
            return None
        low = np.clip(self.low, -2, 1e5).astype(int) - 1
        high = np.clip(self.high, -2, 1e5).astype(int) + 1
        return low[0], low[1], high[0], high[1]


def draw_person(view, agents, row: int, pose, tag: int, step: int):
    """Draw a pedestrian or an animal; return its bounding box in pixels or None."""
    pen = _Pen(view, pose, tag)
    if pen.depth < .5:
        return None
    length, _, height = agents.recording.sizes[row]
    top, legs, skin, hair = (agents.shade(c) for c in agents.colours[row])
    walked = agents.walked[step, row]
    pace = agents.walked[min(step + 2, len(agents.walked) - 1), row] - agents.walked[
        max(step - 2, 0), row]
    swing = np.sin(walked / .72 * np.pi + agents.offset[row]) * min(1.0, pace / .3)
    if agents.recording.classes[row] == ANIMAL:
        coat = hair * 1.6
        for x, phase in ((.3, 1), (.3, -1), (-.3, 1), (-.3, -1)):
            pen.limb([(x * length, .08 * phase, .5 * height),
                      (x * length + .1 * swing * phase, .08 * phase, .03)], .06, coat * .8)
        pen.limb([(-.35 * length, 0, .62 * height), (.32 * length, 0, .66 * height)],
                 .38 * height, coat)
        pen.limb([(.3 * length, 0, .75 * height), (.5 * length, 0, .9 * height)], .25 * height,
                 coat)
        pen.limb([(-.4 * length, 0, .7 * height), (-.55 * length, 0, .95 * height)], .05, coat)
        return pen.box()
    h = height / 1.72
    stride = .32 * swing * h
    variant = agents.variant[row]
    side = .09 * h
    skirt = variant % 7 == 0
    for sign in (1, -1):
        foot = sign * stride
        knee = (.5 * foot + .08 * abs(swing), sign * side, .47 * h)
        pen.limb([(0, sign * side, .86 * h), knee, (foot, sign * side, .07 * h)], .15 * h,
                 legs if sign > 0 else legs * .85)
        pen.limb([(foot - .03, sign * side, .04), (foot + .16, sign * side, .04)], .08, legs * .45)
    if skirt:
        pen.patch([(.12, .16 * h, .9 * h), (.12, -.16 * h, .9 * h), (.16, .24 * h, .5 * h),
                   (-.16, -.24 * h, .5 * h), (-.16, .24 * h, .5 * h), (.16, -.24 * h, .5 * h)],
                  legs)
    if variant % 5 == 0:        # a bag on the back
        pen.limb([(-.17 * h, 0, 1.08 * h), (-.17 * h, 0, 1.36 * h)], .26 * h, hair)
    pen.limb([(0, -.21 * h, 1.38 * h), (-.25 * stride, -.25 * h, 1.1 * h),
              (-.9 * stride + .08, -.24 * h, .86 * h)], .1 * h, top * .85)
    pen.patch([(x, y * h, z * h) for x, y, z in (
        (.1, .2, 1.42), (.1, -.2, 1.42), (-.1, .2, 1.42), (-.1, -.2, 1.42), (.1, .16, .84),
        (.1, -.16, .84), (-.1, .16, .84), (-.1, -.16, .84), (0, .23, 1.34), (0, -.23, 1.34))], top)
    pen.limb([(0, .21 * h, 1.38 * h), (.25 * stride, .25 * h, 1.1 * h),
              (.9 * stride + .08, .24 * h, .86 * h)], .1 * h, top * .92)
    pen.limb([(0, 0, 1.42 * h), (.02, 0, 1.5 * h)], .1 * h, skin)
    pen.disc((.02, 0, 1.6 * h), .115 * h, hair)
    if np.cos(pose[2]) * (view.position[0] - pose[0]) + np.sin(pose[2]) * (
            view.position[1] - pose[1]) > 0:
        pen.disc((.06, 0, 1.58 * h), .095 * h, skin)
    return pen.box()


def draw_cycle(view, agents, row: int, pose, tag: int, step: int):
    """Draw a bicycle or motorcycle with its rider (parked ones have none)."""
    pen = _Pen(view, pose, tag)
    if pen.depth < .5:
        return None
    motor = agents.recording.classes[row] == MOTORCYCLE
    length, _, height = agents.recording.sizes[row]
    top, legs, skin, hair = (agents.shade(c) for c in agents.colours[row])
    frame = agents.shade(np.array(agents.colours[row][3]) * 1.5 + 20)
    black = agents.shade((26, 26, 28))
    r = (.19 if motor else .2) * length
    tyre = .11 if motor else .045
    ring = np.linspace(0, 2 * np.pi, 15)
    ridden = agents.walked[-1, row] > 1.0
    for x in (-.5 * length + r, .5 * length - r):
        points = np.stack([x + r * np.cos(ring), np.zeros(15), r + r * np.sin(ring)], -1)
        if motor:
            pen.patch(points, black)
        else:
            pen.limb(points, tyre, black)
    if motor:
        pen.limb([(-.38 * length, 0, .62), (-.1 * length, 0, .62), (.14 * length, 0, .72)], .3,
                 frame)
        pen.limb([(-.15 * length, 0, .4), (.12 * length, 0, .4)], .34, black)
        pen.limb([(.18 * length, 0, .8), (.5 * length - r, 0, r)], .09, black)
        pen.limb([(.2 * length, .3, .95), (.2 * length, -.3, .95)], .06, black)
        pen.disc((.27 * length, 0, .8), .1, (235, 235, 220) if ridden else frame)
    else:
        hub_b, hub_f = (-.5 * length + r, 0, r), (.5 * length - r, 0, r)
        pen.limb([hub_b, (-.14 * length, 0, .82), (.2 * length, 0, .84), (-.04 * length, 0, .3),
                  hub_b], .05, frame)
        pen.limb([(-.14 * length, 0, .82), (-.04 * length, 0, .3)], .05, frame)
        pen.limb([hub_f, (.2 * length, 0, .95)], .05, frame)
        pen.limb([(.2 * length, .26, 1.), (.2 * length, -.26, 1.)], .05, black)
        pen.limb([(-.2 * length, 0, .92), (-.08 * length, 0, .92)], .1, black)
    if ridden:
        seat = .78 if motor else .95
        turn = agents.walked[step, row] * (0. if motor else 1.1) + agents.offset[row]
        for sign in (1, -1):
            pedal = (-.04 * length + .15 * np.cos(turn) * sign, sign * .1,
                     .32 + .15 * np.sin(turn) * sign)
            pen.limb([(-.14 * length, sign * .1, seat), (.1 * length, sign * .13,
                     .62 + .12 * np.sin(turn) * sign), pedal], .14, legs)
        lean = .16 if motor else .1
        shoulder = (lean * length, 0, seat + .5)
        pen.patch([(-.18 * length, .17, seat), (-.18 * length, -.17, seat),
                   (-.06 * length, .17, seat), (-.06 * length, -.17, seat),
                   (shoulder[0] - .1, .21, shoulder[2]), (shoulder[0] - .1, -.21, shoulder[2]),
                   (shoulder[0] + .08, .2, shoulder[2] - .03),
                   (shoulder[0] + .08, -.2, shoulder[2] - .03)], top)
        for sign in (1, -1):
            pen.limb([(shoulder[0], sign * .2, shoulder[2] - .05),
                      (.2 * length, sign * .25, 1.02)], .1, top * .9)
        head = min(height - .13, seat + .72)
        helmet = motor or agents.variant[row] % 2
        pen.disc((shoulder[0] + .05, 0, head), .13 if helmet else .115,
                 agents.shade(agents.colours[row][0][::-1]) if helmet else hair)
        pen.disc((shoulder[0] + .12, 0, head - .03), .08, skin if not motor else black)
    return pen.box()
