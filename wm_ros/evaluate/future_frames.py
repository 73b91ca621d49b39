"""
Predicted camera frames for a few moments of a bag: the model is run over their windows once more.

Forecasts in a bag hold no pictures, and nothing on the vehicle draws any. For each chosen moment
the 16 camera sets up to it are encoded again, and `frames.onnx` draws what the cameras would see
under the very plan of the forecast.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from wm_ros.data.bag import BagReader
from wm_ros.frame_predictor import FramePredictor, FutureFrames
from wm_ros.predictor import Predictor
from wm_ros.replay import Replay
from wm_ros.replay_job import DEADLINE_NS
from wm_ros.runtime.artifact import Artifact
from wm_ros.runtime.backend import create_backend
from wm_ros.runtime.frames import FrameGraph
from wm_ros.types import CameraRig, Forecast, Frame
from wm_ros.window import FrameBuffer

#: More of the bag than the window itself is read before a moment, for sets that come late.
MARGIN_NS = 400_000_000


def draw_frames(source: Path, rig: CameraRig, artifact: Artifact, graph: FrameGraph,
                forecasts: Iterable[Forecast], threads: int = 2,
                progress: Callable[[int, int], None] | None = None) -> dict[int, FutureFrames]:
    """
    Return predicted frames by stamp for those of `forecasts` that can be made again.

    `source` is the bag with the pictures of `rig`. Left out are forecasts without odometry, and
    moments whose window does not come about again, such as where the bag was cut.
    """
    chosen = [forecast for forecast in forecasts if forecast.odom_from_base is not None]
    found: dict[int, FutureFrames] = {}
    if not chosen:
        return found
    backend = create_backend('auto', artifact, len(rig), threads=threads)
    try:
        predictor, draw = Predictor(artifact, backend, rig), FramePredictor(graph, rig)
        try:
            with BagReader(source) as reader:
                offset = _clock_offset(reader, rig)
                for done, forecast in enumerate(chosen, 1):
                    frames = _draw(reader, predictor, draw, forecast, offset)
                    if frames is not None:
                        found[forecast.stamp_ns] = frames
                    if progress is not None:
                        progress(done, len(chosen))
        finally:
            predictor.close()
    finally:
        backend.close()
    return found


def _clock_offset(reader: BagReader, rig: CameraRig) -> int:
    """Return by how much the bag's clock is ahead of the stamps of its pictures."""
    return next((time_ns - value.stamp_ns for time_ns, value in reader.values(rig.names)
                 if isinstance(value, Frame)), 0)


def _draw(reader: BagReader, predictor: Predictor, draw: FramePredictor, forecast: Forecast,
          offset: int) -> FutureFrames | None:
    """Bring the predictor to one moment and draw; None where it does not get there."""
    stamp, names = forecast.stamp_ns, draw.rig.names
    start_ns = stamp - forecast.window.span_ns - MARGIN_NS + offset
    predictor.reset('a moment to draw')
    replay = Replay(predictor, FrameBuffer(names, deadline_ns=DEADLINE_NS),
                    reader.odometry_topic() is not None)
    for again in replay.run(reader.values(names, start_ns), known_ns=stamp - 1):
        scene = predictor.scene()
        return (draw(scene, forecast.ego_plan.poses)
                if scene is not None and again.stamp_ns == stamp else None)
    return None
