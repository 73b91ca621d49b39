"""The paths through a layout: lanes, turns at junctions, speed limits, and who crosses whom."""

from __future__ import annotations

import numpy as np

from wm_ros.sim.roads import (
    PARKING_M,
    PATH_STEP_M,
    Junction,
    Paths,
    headings,
    resample,
)
from wm_ros.sim.roundabout import around, bezier


def _inside(junction: Junction, points: np.ndarray) -> np.ndarray:
    d = points - junction.xy
    um = np.array([np.cos(junction.main_heading), np.sin(junction.main_heading)])
    uc = np.array([np.cos(junction.cross_heading), np.sin(junction.cross_heading)])
    coords = d @ np.linalg.inv(np.stack([um, uc], 0))
    return (np.abs(coords[..., 0]) < junction.box[0]) & (np.abs(coords[..., 1]) < junction.box[1])


def paths_through(roads: list, junctions: list) -> Paths:
    lines, lane_of, road_of, kerb, left, right = [], [], [], [], [], []
    lanes: dict = {}
    for r, road in enumerate(roads):
        for side in (0, 1):
            for k in range(road.lanes[side]):
                d = (k + 0.5) * road.lane_m * (-1 if side == 0 else 1)
                line = road.offset(d)
                lanes[r, side, k] = len(lines)
                lines.append(resample(line if side == 0 else line[::-1], PATH_STEP_M))
                lane_of.append(len(lines) - 1)
                road_of.append(r)
                outer = k == road.lanes[side] - 1 and road.parking[side]
                kerb.append(-(0.5 * road.lane_m + 0.55 * PARKING_M) if outer else 0.0)
    for junction in junctions:
        if junction.radius_m:
            for i, line in enumerate(lines):
                if _inside(junction, line).any():
                    lines[i] = resample(around(junction, line, line), PATH_STEP_M)
    for (r, side, k) in lanes:
        left.append(lanes.get((r, side, k - 1), -1))
        right.append(lanes.get((r, side, k + 1), -1))
    # Turns: from the outermost lane to the right, from the innermost to the left.
    for j, junction in enumerate(junctions):
        cross = j + 1
        for source, target in ((0, cross), (cross, 0)):
            for side in (0, 1):
                for target_side in (0, 1):
                    n_in, n_out = roads[source].lanes[side], roads[target].lanes[target_side]
                    if not n_in or not n_out:
                        continue
                    probe_in, probe_out = lanes[source, side, 0], lanes[target, target_side, 0]
                    inside_in = np.flatnonzero(_inside(junction, lines[probe_in]))
                    inside_out = np.flatnonzero(_inside(junction, lines[probe_out]))
                    if not len(inside_in) or not len(inside_out):
                        continue
                    turn = np.angle(np.exp(1j * (
                        headings(lines[probe_out])[inside_out[-1]]
                        - headings(lines[probe_in])[inside_in[0]])))
                    a = lines[lanes[source, side, n_in - 1 if turn < 0 else 0]]
                    b = lines[lanes[target, target_side, n_out - 1 if turn < 0 else 0]]
                    ia = np.flatnonzero(_inside(junction, a))[0]
                    ib = np.flatnonzero(_inside(junction, b))[-1]
                    if junction.radius_m:
                        line = around(junction, a, b)
                    else:
                        curve = bezier(a[ia], headings(a)[ia], b[ib], headings(b)[ib])
                        line = np.concatenate([a[:ia], curve, b[ib + 1:]])
                    line = resample(line, PATH_STEP_M)
                    lane_of.append(lanes[source, side, n_in - 1 if turn < 0 else 0])
                    lines.append(line)
                    road_of.append(source)
                    kerb.append(kerb[lane_of[-1]])
                    left.append(-1)
                    right.append(-1)
    count, longest = len(lines), max(map(len, lines))
    points = np.zeros((count, longest, 2), np.float32)
    heading = np.zeros((count, longest), np.float32)
    limit = np.full((count, longest), 40.0, np.float32)
    shape = (count, 4)
    event = dict(line=np.full(shape, np.inf), exit=np.full(shape, np.inf),
                 junction=np.full(shape, -1), main=np.zeros(shape, bool),
                 turn=np.zeros(shape, int))
    for i, line in enumerate(lines):
        n = len(line)
        h = headings(line)
        points[i, :n], points[i, n:] = line, line[-1]
        heading[i, :n], heading[i, n:] = h, h[-1]
        bend = np.abs(np.gradient(np.convolve(np.pad(h, 2, 'edge'), np.ones(5) / 5, 'valid')))
        v = np.sqrt(2.2 / np.maximum(bend, 1e-3))
        for k in range(n - 2, -1, -1):            # brake in time at 1.6 m/s^2
            reach = (v[k + 1]**2 + 3.2)**0.5
            if v[k] > reach:
                v[k] = reach
        limit[i, :n] = v
        found = []
        for j, junction in enumerate(junctions):
            inside = np.flatnonzero(_inside(junction, line))
            if len(inside):
                found.append((inside[0] - 1.0, inside[-1] + 1.0, j))
        for e, (enter, leave, j) in enumerate(sorted(found)[:4]):
            a, b = int(max(enter, 0)), int(min(leave, n - 1))
            turn = h[b] - h[a]
            main = np.abs(np.cos(h[a] - junctions[j].main_heading)) > np.abs(
                np.cos(h[a] - junctions[j].cross_heading))
            event['line'][i, e], event['exit'][i, e] = enter, leave
            event['junction'][i, e], event['main'][i, e] = j, main
            event['turn'][i, e] = 0 if abs(turn) < 0.6 else (1 if turn > 0 else 2)
    conflict = []
    for j in range(len(junctions)):
        inside = []
        for i in range(count):
            e = np.flatnonzero(event['junction'][i] == j)
            if len(e):
                a, b = int(max(event['line'][i, e[0]], 0)), int(event['exit'][i, e[0]])
                inside.append(points[i, a:b + 1:2])
            else:
                inside.append(None)
        table = np.zeros((count, count), bool)
        for a in range(count):
            for b in range(a):
                if inside[a] is None or inside[b] is None or lane_of[a] == lane_of[b]:
                    continue
                gap = inside[a][:, None] - inside[b][None]
                table[a, b] = table[b, a] = (gap**2).sum(-1).min() < 2.3**2
        conflict.append(table)
    return Paths(points, heading, np.array([len(x) for x in lines], float), limit,
                 event['line'], event['exit'], event['junction'], event['main'], event['turn'],
                 np.array(lane_of), np.array(left), np.array(right), np.array(road_of),
                 np.array(kerb), conflict)
