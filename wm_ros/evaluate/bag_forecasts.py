"""The forecasts of a bag: those that were recorded, or those that a model makes of its pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from wm_ros.data.bag import AGENTS, BagReader
from wm_ros.evaluate.recorded import forecasts_in
from wm_ros.share import share_path
from wm_ros.types import Forecast


def has_forecasts(reader: BagReader) -> bool:
    """Tell whether a bag holds what a node published."""
    return any(not topic.startswith('/truth/') for topic in reader.topics_of(AGENTS))


def made_of(path: Path, artifact: Path, backend: str = 'auto', threads: int = 2,
            progress: Callable[[int, int], None] | None = None) -> Iterator[Forecast]:
    """
    Run a model over the pictures of a bag, as `wm_ros replay` does, and yield its forecasts.

    Raises BagError for a bag without cameras or calibration, ArtifactError for a model that is
    none.
    """
    from wm_ros.predictor import Predictor
    from wm_ros.replay import Replay
    from wm_ros.replay_job import DEADLINE_NS
    from wm_ros.runtime.artifact import load_artifact
    from wm_ros.runtime.backend import create_backend
    from wm_ros.window import FrameBuffer

    with BagReader(path) as reader:
        rig = reader.rig()
        topics = reader.camera_topics()
        expected = max(reader.topics[topics[name].image].count for name in rig.names)
        model = load_artifact(artifact)
        library = create_backend(backend, model, len(rig), threads=threads)
        try:
            predictor = Predictor(model, library, rig)
            replay = Replay(predictor, FrameBuffer(rig.names, deadline_ns=DEADLINE_NS),
                            odometry=reader.odometry_topic() is not None,
                            odom_frame=reader.odometry_frame())
            for forecast in replay.run(reader.values(rig.names)):
                if progress:
                    progress(min(replay.counts.sets, expected), expected)
                yield forecast
            predictor.close()
        finally:
            library.close()


def forecasts_of(path: Path, artifact: Path | None = None, backend: str = 'auto',
                 threads: int = 2,
                 progress: Callable[[int, int], None] | None = None) -> Iterator[Forecast]:
    """
    Yield the forecasts that a bag holds; those of a model where it holds none or one is named.

    Without `artifact` the model is the one that is installed.
    """
    if artifact is None:
        with BagReader(path) as reader:
            if has_forecasts(reader):
                yield from forecasts_in(reader)
                return
    yield from made_of(path, artifact or share_path('models', 'world-model'), backend, threads,
                       progress)
