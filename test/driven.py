"""A predictor over a fake artifact, driven with small pictures; what its tests share."""

from contextlib import contextmanager

import cv2
import numpy as np
from fakes import make_fake_artifact, make_rig, picture

from wm_ros.predictor import Predictor
from wm_ros.runtime.artifact import load_artifact
from wm_ros.runtime.backend import create_backend
from wm_ros.types import EgoState, Frame, FrameSet

MS = 1_000_000
RIG = make_rig(2)
PLANS = 2


class Spy:
    """A backend that remembers copies of its inputs and lets a test change its outputs."""

    def __init__(self, backend):
        self._backend = backend
        self.calls = []
        self.begun = []
        self.change = {}

    @property
    def precision(self):
        return self._backend.precision

    @property
    def channels_last(self):
        return self._backend.channels_last

    def begin(self, graph, inputs):
        self.begun.append({key: value.copy() for key, value in inputs.items()})
        self._backend.begin(graph, inputs)

    def run(self, graph, inputs):
        self.calls.append((graph, {key: value.copy() for key, value in inputs.items()}))
        outputs = self._backend.run(graph, inputs)
        return self.change[graph](outputs) if graph in self.change else outputs

    def last(self, graph):
        return [inputs for name, inputs in self.calls if name == graph][-1]

    def count(self, graph):
        return sum(name == graph for name, _ in self.calls)


@contextmanager
def loaded_backend(folder):
    """Load a fake artifact; give it with its backend, which closes at the end."""
    artifact = load_artifact(make_fake_artifact(folder / 'fake'))
    backend = create_backend('auto', artifact, cameras=len(RIG), plans=PLANS, threads=1)
    try:
        yield artifact, backend
    finally:
        backend.close()


@contextmanager
def predictors(loaded):
    """Give what makes predictors over a loaded backend; all of them close at the end."""
    made = []

    def predictor(settings=None, spy=None, **others):
        made.append(Predictor(loaded[0], spy or loaded[1], RIG, settings, PLANS, **others))
        return made[-1]
    try:
        yield predictor
    finally:
        for item in made:
            item.close()


def jpeg(array):
    return cv2.imencode('.jpg', array[..., ::-1])[1].tobytes()


PICTURES = {(i, n): jpeg(picture(10 * i + n)) for i in range(8) for n in range(2)}


def frame_set(i, cameras=RIG.names, period_ms=100, skipped=0, **replaced):
    """Return set number i; `replaced` gives other images for some cameras."""
    stamp = 1000 * MS + i * period_ms * MS
    return FrameSet(stamp, {
        name: Frame(name, stamp, replaced.get(name, PICTURES[i % 8, RIG.names.index(name)]))
        for name in cameras}, skipped)


def ego(i, speed=10.0, rate=0.1, period_ms=100):
    seconds = i * period_ms / 1000
    return EgoState(1000 * MS + i * period_ms * MS, np.array([speed * seconds, 1.0, 0.02 * i]),
                    speed, rate)


def drive(predictor, numbers, **options):
    for i in numbers:
        info = predictor.encode(frame_set(i, **options), ego(i))
    return info


def content(forecast, ids=True):
    """Return everything that a forecast says, as comparable bytes."""
    parts = [forecast.stamp_ns, forecast.valid, forecast.reasons, repr(forecast.window),
             forecast.ego_plan.poses.tobytes(), forecast.ego_plan.source,
             forecast.occupancy_agents.tobytes(), forecast.occupancy_static.tobytes(),
             forecast.flow.tobytes(), forecast.road.tobytes()]
    for agent in forecast.agents:
        parts += [getattr(agent, name).tobytes() for name in (
            'class_probabilities', 'pose', 'pose_covariance', 'velocity_mps', 'twist_covariance',
            'size_m', 'trajectories_m', 'mode_probabilities', 'covariances_m2')]
        parts += [agent.score, agent.track_id if ids else None]
    return parts
