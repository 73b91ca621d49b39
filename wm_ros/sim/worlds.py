"""What a world is populated with: kinds of road users, their sizes, and the mixes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from wm_ros.types import AGENT_CLASSES

STEP_S = 0.1
(CAR, VAN, TRUCK, BUS, MOTORCYCLE, BICYCLE, PEDESTRIAN, ANIMAL) = range(len(AGENT_CLASSES))
#: Reference point (rear axle) to box centre, as a share of the length.
AXLE_SHARE = 0.28


@dataclass(frozen=True)
class World:
    """How a world is populated. Rates are probabilities or means unless a unit is given."""

    gap_m: tuple[float, float] = (16.0, 48.0)     # between moving vehicles of a lane
    parked: tuple[float, float] = (0.3, 0.92)     # share of parking places taken
    car_park: tuple[float, float] = (0.3, 0.9)
    pull_out: float = 0.03                        # of parked vehicles at the kerb
    stop_in_lane: float = 0.08                    # of moving vehicles that stop for a while
    lane_change: float = 0.15                     # of moving vehicles that may
    turn: float = 0.4
    walkers: tuple[int, int] = (4, 26)
    standing: tuple[int, int] = (2, 12)           # groups who stand about
    crossers: tuple[int, int] = (0, 5)
    pause: float = 0.15                           # of walkers who stop on their way
    turn_back: float = 0.03                       # of walkers who turn round
    step_out: float = 0.05                        # of walkers who step onto the road
    cyclists: tuple[int, int] = (0, 6)
    speed_spread: float = 0.18
    brake_hard: float = 0.02
    ego_stop: float = 0.1
    start_stopped: float = 0.18                   # of moving vehicles, from standstill
    speed_change: float = 0.3                     # of moving vehicles that change their mind
    pace: float = 1.0                             # scales the speeds of vehicles
    place: str = ''                               # a layout of `layout.make_layout`, '' for any
    season: str = ''                              # 'snow', or '' for none in particular
    jumpers: tuple[int, int] = (0, 0)             # animals that jump out before the ego


WORLDS = {
    'sim': World(),
    'sim-hard': World(
        gap_m=(16.0, 46.0), parked=(0.0, 0.12), car_park=(0.0, 0.1), pull_out=0.2,
        stop_in_lane=0.14, lane_change=0.5, turn=0.75, walkers=(1, 9), standing=(0, 1),
        crossers=(6, 18), pause=0.8, turn_back=0.4,
        step_out=0.5, cyclists=(2, 9), speed_spread=0.25, brake_hard=0.2,
        ego_stop=0.2, start_stopped=0.25, speed_change=0.9),
    # Training draws none of these: they show what happens where the model has never been.
    'rural': World(
        gap_m=(26.0, 90.0), walkers=(0, 5), standing=(0, 2), crossers=(0, 0), cyclists=(0, 5),
        stop_in_lane=0.05, place='rural'),
    'snow': World(pace=0.75, season='snow'),
    'animal': World(jumpers=(1, 3)),
}

_SIZES = {  # length, width, height: mean and relative spread
    CAR: ((4.4, 1.82, 1.52), 0.07), VAN: ((5.3, 2.0, 2.2), 0.08), TRUCK: ((8.0, 2.45, 3.3), 0.14),
    BUS: ((11.8, 2.55, 3.1), 0.05), MOTORCYCLE: ((2.1, 0.8, 1.5), 0.06),
    BICYCLE: ((1.75, 0.62, 1.75), 0.05), PEDESTRIAN: ((0.55, 0.6, 1.72), 0.08),
    ANIMAL: ((0.9, 0.35, 0.65), 0.2)}


def sample_size(rng: np.random.Generator, kind: int) -> np.ndarray:
    mean, spread = _SIZES[kind]
    common = rng.normal(0, spread)
    return np.array(mean) * np.clip(1 + 0.7 * common + 0.5 * rng.normal(0, spread, 3), 0.72, 1.35)
