"""
What a layout is made of: roads, junctions, paths, and the rasters of what lies where.

Everything lies in the layout's own plane (metres).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np

DRIVABLE, WALKWAY, STATIC = 1, 2, 4          # bits of the class raster
(BUILDING, TREE, POLE, WALL, HEDGE, SIGN, SIGNAL, BOLLARD, SHELTER, BIN, BUSH, LAMP,
 FENCE, CONE, COLUMN, PARASOL, BARRIER, PLANTER, BENCH, CABINET) = range(20)
RASTER_M = 0.25                              # cell of the class and height rasters
PARKING_M = 2.2
PATH_STEP_M = 1.0


@dataclass(frozen=True)
class Road:
    """A road along `centre` (n, 2); lanes to the right go with it, lanes to the left against."""

    centre: np.ndarray
    heading: np.ndarray
    lanes: tuple[int, int]          # right, left
    lane_m: float
    parking: tuple[bool, bool]      # right, left
    pavement_m: float

    def half_m(self, side: int) -> float:
        """Return the distance from the centre line to the kerb; side 0 right, 1 left."""
        return self.lanes[side] * self.lane_m + (PARKING_M if self.parking[side] else 0.0) + 0.2

    def offset(self, d: float) -> np.ndarray:
        """Return the line at lateral offset `d` (left positive), (n, 2)."""
        normal = np.stack([-np.sin(self.heading), np.cos(self.heading)], -1)
        return self.centre + d * normal


@dataclass(frozen=True)
class Junction:
    """
    Two roads crossing: `control` is 'signal', 'priority' (main road), 'all_way' or 'roundabout'.

    `radius_m` is that of a roundabout's circulating lane, else 0.
    """

    xy: np.ndarray
    main_heading: float
    cross_heading: float
    box: tuple[float, float]        # half extents along the main road and along the cross road
    control: str
    cycle_s: float
    offset_s: float
    main_share: float
    radius_m: float = 0.0


@dataclass
class Paths:
    """All lines that a vehicle may drive, padded to one length; index by path number."""

    points: np.ndarray              # (R, L, 2)
    heading: np.ndarray             # (R, L) unwrapped
    length: np.ndarray              # (R,)
    limit: np.ndarray               # (R, L) speed that curves allow
    event_line: np.ndarray          # (R, E) arc length of the stop line, inf where none
    event_exit: np.ndarray          # (R, E)
    event_junction: np.ndarray      # (R, E)
    event_main: np.ndarray          # (R, E) approached on the main road
    event_turn: np.ndarray          # (R, E) 0 straight, 1 left, 2 right
    lane: np.ndarray                # (R,) the through path that this one starts on
    left: np.ndarray                # (R,) neighbouring through path or -1
    right: np.ndarray
    road: np.ndarray                # (R,) road that it starts on
    kerb_m: np.ndarray              # (R,) offset from the line to parked cars, 0 where none
    conflict: list                  # per junction: (R, R) bool


@dataclass
class Layout:
    """A whole place. Polygons and lines are in layout metres."""

    kind: str
    roads: list
    junctions: list
    paths: Paths
    car_parks: list = field(default_factory=list)        # corner polygons (4, 2)
    slots: list = field(default_factory=list)            # (x, y, yaw) of car park bays
    crossings: list = field(default_factory=list)        # (centre xy, heading along walk, length)
    pavements: list = field(default_factory=list)        # lines to walk on (n, 2)
    junction_polygons: list = field(default_factory=list)
    islands: list = field(default_factory=list)          # (centre xy, radius) of roundabouts
    statics: np.ndarray = None                           # (S, 7) x, y, yaw, l, w, h, kind
    origin: np.ndarray = None                            # layout xy of raster cell (0, 0)
    classes: np.ndarray = None                           # (rows, cols) uint8 bits
    heights: np.ndarray = None                           # (rows, cols) uint8, 0.25 m units


def resample(line: np.ndarray, step: float) -> np.ndarray:
    """Return the line with a point every `step` metres of arc."""
    seg = np.hypot(*np.diff(line, axis=0).T)
    s = np.concatenate([[0.0], np.cumsum(seg)])
    t = np.arange(0.0, s[-1], step)
    return np.stack([np.interp(t, s, line[:, 0]), np.interp(t, s, line[:, 1])], -1)


def headings(line: np.ndarray) -> np.ndarray:
    d = np.gradient(line, axis=0)
    return np.unwrap(np.arctan2(d[:, 1], d[:, 0]))


def to_cells(layout: Layout, points: np.ndarray) -> np.ndarray:
    """Return raster (col, row) of layout points as float."""
    return (points - layout.origin) / RASTER_M - 0.5


def fill(mask: np.ndarray, layout: Layout, polygon: np.ndarray, value: int) -> None:
    cells = np.round(to_cells(layout, polygon) * 16).astype(np.int32)
    cv2.fillPoly(mask, [cells], value, shift=4)


def strip(road: Road, inner: float, outer: float) -> np.ndarray:
    """Return the polygon between two lateral offsets of a road."""
    return np.concatenate([road.offset(inner), road.offset(outer)[::-1]])
