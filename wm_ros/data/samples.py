"""What every data source yields: one instant of a drive as the vehicle saw it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol

from wm_ros.types import CameraRig, EgoPlan, EgoState, FrameSet, Truth


@dataclass(frozen=True)
class Sample:
    """
    One instant: the camera set, the ego state (None without odometry) and, where asked, the truth.

    `plan` is where the ego vehicle means to go from here, None where a source does not know it.
    """

    frames: FrameSet
    ego: EgoState | None
    truth: Truth | None
    plan: EgoPlan | None


class Drive(Protocol):
    """One recorded or simulated drive: its name, its rig and its samples in order."""

    name: str
    rig: CameraRig

    def samples(self, every: int, first: int) -> Iterator[Sample]:
        """Yield all instants; those numbered first, first + every, ... carry their truth."""


@dataclass(frozen=True)
class Unplanned:
    """A drive of which nobody knows where the ego vehicle means to go."""

    drive: Drive

    @property
    def name(self) -> str:
        return self.drive.name

    @property
    def rig(self) -> CameraRig:
        return self.drive.rig

    def samples(self, every: int, first: int) -> Iterator[Sample]:
        """Yield the samples of the drive without their plans."""
        for sample in self.drive.samples(every, first):
            yield replace(sample, plan=None)


def unplanned(open_drive: Callable[[Any], Drive], key: Any) -> Unplanned:
    """Open a drive of which nobody knows the ego vehicle's plan."""
    return Unplanned(open_drive(key))
