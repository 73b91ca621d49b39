"""
Roundabouts: one circulating lane, driven counter-clockwise; who is inside goes first.

Angles are those of the layout, seen from the centre. `radius_m` is that of the circulating
lane's middle.
"""

from __future__ import annotations

import numpy as np

#: Asphalt beyond the middle of the circulating lane, outwards and inwards.
OUTER_M, INNER_M = 3.2, 2.9
#: Where an approach starts to bend, beyond the junction's box.
BEND_M = 6.0
_MERGE = np.deg2rad(27.0)           # from the axis of an arm to where its lane joins the circle


def circle(xy: np.ndarray, radius_m: float, points: int = 48) -> np.ndarray:
    """Return a circle as a polygon (points, 2)."""
    angle = np.linspace(0, 2 * np.pi, points, endpoint=False)
    return xy + radius_m * np.stack([np.cos(angle), np.sin(angle)], -1)


def bezier(p0, h0, p1, h1, points: int = 24) -> np.ndarray:
    """Return a cubic curve from a point and heading to another, (points, 2)."""
    reach = 0.45 * np.hypot(*(p1 - p0))
    a = p0 + reach * np.array([np.cos(h0), np.sin(h0)])
    b = p1 - reach * np.array([np.cos(h1), np.sin(h1)])
    t = np.linspace(0, 1, points)[:, None]
    return (1 - t)**3 * p0 + 3 * (1 - t)**2 * t * a + 3 * (1 - t) * t * t * b + t**3 * p1


def around(junction, source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return the way in on line `source`, round the island, and out on line `target`, (n, 2)."""
    reach = junction.box[0] + BEND_M
    i = np.flatnonzero(np.hypot(*(source - junction.xy).T) < reach)[0]
    o = np.flatnonzero(np.hypot(*(target - junction.xy).T) < reach)[-1]
    inward, outward = source[i + 1] - source[i], target[o] - target[o - 1]
    h_in, h_out = np.arctan2(*inward[::-1]), np.arctan2(*outward[::-1])
    enter = h_in + np.pi + _MERGE
    leave = enter + (h_out - _MERGE - enter) % (2 * np.pi)
    angle = np.arange(enter, leave, 1.0 / junction.radius_m)
    arc = junction.xy + junction.radius_m * np.stack([np.cos(angle), np.sin(angle)], -1)
    last = junction.xy + junction.radius_m * np.array([np.cos(leave), np.sin(leave)])
    return np.concatenate([
        source[:i], bezier(source[i], h_in, arc[0], enter + np.pi / 2), arc[1:],
        bezier(last, leave + np.pi / 2, target[o], h_out), target[o + 1:]])


def areas(junction, main, cross) -> list[np.ndarray]:
    """Return the polygons of asphalt: the disc, and where each arm widens towards it."""
    out = [circle(junction.xy, junction.radius_m + OUTER_M)]
    for road, heading in ((main, junction.main_heading), (cross, junction.cross_heading)):
        for turn in (0.0, np.pi):
            u = np.array([np.cos(heading + turn), np.sin(heading + turn)])
            v = np.array([-u[1], u[0]])
            left, right = (road.half_m(1), road.half_m(0)) if turn == 0.0 else (
                road.half_m(0), road.half_m(1))
            far, near = junction.box[0] + BEND_M, junction.radius_m + 1.0
            out.append(np.array([junction.xy + a * u + b * v for a, b in (
                (far, -right), (far, left), (near, max(left, 3.4) + 3.2),
                (near, -max(right, 3.4) - 3.2))]))
    return out


def walk_round(junction, line: np.ndarray, room_m: float) -> np.ndarray:
    """Return a pavement's line pushed out of the disc by `room_m`."""
    away = line - junction.xy
    distance = np.hypot(*away.T)[:, None]
    radius = junction.radius_m + OUTER_M + room_m
    return np.where(distance < radius, junction.xy + away / np.maximum(distance, .1) * radius,
                    line)


def has_room(paths, veh, i: int, line_s: float, inside: np.ndarray) -> bool:
    """
    Return whether vehicle `i`, whose yield line is at arc length `line_s`, may drive in.

    It may not while one of `inside` (vehicles in the roundabout) comes by the place where it
    would join the circle within about two seconds.
    """
    points, length = paths.points, paths.length
    join = points[veh.path[i], np.clip(int(line_s) + np.arange(4, 11, 2), 0,
                                       int(length[veh.path[i]]) - 1)]          # (4, 2)
    for other in inside:
        reach = 6.0 + 2.2 * veh.v[other]
        ahead = np.arange(veh.s[other] - 1.0, veh.s[other] + reach).astype(int)
        path = points[veh.path[other], np.clip(ahead, 0, int(length[veh.path[other]]) - 1)]
        if ((path[:, None] - join[None])**2).sum(-1).min() < 2.4**2:
            return False
    return True
