"""
One bag replayed from end to end: open, run, write, and say what was wrong with it.

A thread reads and decodes ahead of the model and another writes behind it; the order of messages,
and so every byte of a forecast, does not depend on them.
"""

from __future__ import annotations

import heapq
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from wm_ros.data.bag import EGO_PLAN, BagError, BagReader, BagWriter, DiskError, RawMessage
from wm_ros.data.bag_topics import Mapping
from wm_ros.data.messages import typestore
from wm_ros.data.replacing import replacing
from wm_ros.early import EarlyDecoding
from wm_ros.faults import when
from wm_ros.predictor import Predictor
from wm_ros.replay import Counts, ForecastWriter, Replay
from wm_ros.replay_resume import (
    Known,
    ResumeError,
    forecast_messages,
    known_forecasts,
    read_notes,
    write_notes,
)
from wm_ros.rig import load_rig
from wm_ros.runtime.artifact import Artifact, load_artifact
from wm_ros.runtime.backend import create_backend
from wm_ros.threads import Behind, ahead
from wm_ros.types import CameraRig, Frame
from wm_ros.window import FrameBuffer

NS = 1_000_000_000
MS = 1_000_000
#: A set waits this long, in the bag's time, for a camera that does not deliver.
DEADLINE_NS = 500 * MS
#: Two windows and more, so that nothing of how it began is left when the first forecast is made.
WARM_UP_NS = 5 * NS
#: What is written is handed to the system every so many forecasts: a killed process loses no more.
FLUSH_EVERY = 50


@dataclass(frozen=True)
class Settings:
    """
    What a replay is made with; pickles, so that several bags run in processes.

    `start_s` and `seconds` cut a piece out of the bag (0: all of it). `copy_inputs` writes the
    messages of the bag beside the forecasts. `options` are those of the backend.
    """

    artifact: Path
    backend: str = 'auto'
    threads: int = 2
    mapping: Mapping = field(default_factory=Mapping)
    rig: Path | None = None
    cameras: tuple[str, ...] = ()
    node: str = '/world_model'
    flow: bool = True
    copy_inputs: bool = False
    start_s: float = 0.0
    seconds: float = 0.0
    options: tuple[tuple[str, Any], ...] = ()


@dataclass
class Result:
    """
    How a replay went.

    `faults` says in words what was wrong with the bag; `resumed` forecasts were there already, of
    which `resumed_valid` are valid; `finished` is false where the disk became full, and `error`
    then says so.
    """

    bag: str
    out: str
    counts: Counts
    resumed: int = 0
    resumed_valid: int = 0
    faults: list[str] = field(default_factory=list)
    seconds: float = 0.0
    times_real_time: float = 0.0
    backend: str = ''
    precision: dict[str, str] = field(default_factory=dict)
    model_hash: str = ''
    finished: bool = True
    error: str = ''

    def report(self) -> dict[str, Any]:
        """Return it as one flat JSON object."""
        values = dict(vars(self))
        return {'bag': values.pop('out'), 'input': values.pop('bag'),
                **vars(values.pop('counts')), **values}


def open_rig(reader: BagReader, settings: Settings) -> CameraRig:
    """Return the cameras to use, calibrated by rig file or bag; raise BagError naming the lack."""
    order = reader.camera_order(settings.cameras)
    path = settings.rig or reader.mapping.rig
    if path is None:
        return reader.rig(cameras=order)
    rig = load_rig(path)
    wanted = order if settings.cameras or reader.mapping.cameras else list(rig.names)
    topics = reader.camera_topics()
    for name in wanted:
        if name not in topics:
            raise BagError(f'{reader.path}: no image topic of camera {name!r}; cameras found: '
                           f'{", ".join(sorted(topics))}')
        if name not in rig.names:
            raise BagError(f'{path}: no camera {name!r}; it has {", ".join(rig.names)}')
    return CameraRig(tuple(rig[name] for name in wanted), rig.name)


def replay_bag(bag: Path, out: Path, settings: Settings, resume: bool = False,
               force: bool = False,
               progress: Callable[[int, int], None] = lambda done, total: None) -> Result:
    """
    Replay one bag into another; return how it went.

    `resume` goes on with what is at `out`, `force` begins anew: what an earlier replay left there
    gives way once the new one runs. `progress` is told seconds of the bag, done and in all. Raises
    BagError, naming the cause, where nothing can be done at all, and where `out` is the recording
    or anything else that no replay has made.
    """
    _check_apart(bag, out)
    with BagReader(bag, settings.mapping) as reader:
        rig = open_rig(reader, settings)
        artifact = load_artifact(settings.artifact)
        made_from = _made_from(bag, rig, artifact, settings)
        part = out.with_name(f'{out.name}.part')
        if not resume:
            _remove(part)
            if force and out.exists() and not _ours(out):
                raise BagError(f'{out}: is there and no replay has made it; want another --out')
        else:
            notes = read_notes(out)
            if notes.get('result') and notes.get('made_from') == made_from:
                return _told(notes['result'])
        _set_aside(out, part, made_from, resume)
        job = _Job(reader, out, part, rig, artifact, settings, made_from, progress)
        try:
            with replacing(out, force and not resume):
                result = job.run()
        except ResumeError:
            # Such as stamps that go back: what is there cannot be told from what is to come.
            _remove(out)
            _remove(part)
            result = _Job(reader, out, part, rig, artifact, settings, made_from, progress).run()
        if result.finished:
            _remove(part)
            write_notes(out, {'made_from': made_from, 'result': result.report()})
        return result


def _made_from(bag: Path, rig: CameraRig, artifact: Artifact,
               settings: Settings) -> dict[str, Any]:
    """Return what forecasts depend on, to tell whether a replay can go on."""
    return {'bag': str(bag), 'model_hash': artifact.hash, 'cameras': list(rig.names),
            'backend': settings.backend, 'node': settings.node, 'flow': settings.flow,
            'copy_inputs': settings.copy_inputs, 'start_s': settings.start_s,
            'seconds': settings.seconds,
            'options': [list(pair) for pair in settings.options],
            'mapping': str(settings.mapping), 'rig': str(settings.rig or '')}


def _told(report: dict[str, Any]) -> Result:
    """Return the result that a report was made from."""
    values = dict(report)
    counts = Counts(**{key: values.pop(key) for key in vars(Counts())})
    return Result(bag=values.pop('input'), out=values.pop('bag'), counts=counts, **values)


def _check_apart(bag: Path, out: Path) -> None:
    """Raise BagError where a recording and what is to be written are one folder, or in another."""
    recorded, written = bag.resolve(), out.resolve()
    if recorded == written or recorded in written.parents or written in recorded.parents:
        raise BagError(f'{out}: is the recording {bag}, or in it, or around it; want another --out')


def _ours(path: Path) -> bool:
    """Tell whether a folder is what a replay has made, or empty."""
    return path.is_dir() and (bool(read_notes(path)) or not any(path.iterdir()))


def _remove(path: Path) -> None:
    if _ours(path):
        shutil.rmtree(path)


def _set_aside(out: Path, part: Path, made_from: dict[str, Any], resume: bool) -> None:
    """Move what a stopped replay left to `part`, where this one may go on with it."""
    if not resume or not out.exists():
        return
    found = read_notes(out).get('made_from')
    if found != made_from:
        differs = [key for key in made_from if (found or {}).get(key) != made_from[key]]
        raise BagError(f'{out}: cannot go on with it: made with another '
                       f'{", ".join(differs) if found else "program"}; want --force')
    if part.exists():       # stopped while it took over what was there
        shutil.rmtree(out)
    else:
        out.rename(part)


class _Job:
    """The run itself, with all that it needs at hand."""

    def __init__(self, reader: BagReader, out: Path, part: Path, rig: CameraRig,
                 artifact: Artifact, settings: Settings, made_from: dict[str, Any],
                 progress: Callable[[int, int], None]) -> None:
        self.reader, self.out, self.part = reader, out, part
        self.rig, self.artifact, self.settings = rig, artifact, settings
        self.made_from, self.progress = made_from, progress
        self.known: Known | None = None
        self.frames = {'base_frame': reader.mapping.base_frame,
                       'odom_frame': reader.odometry_frame()}
        self.first_ns = reader.start_ns + round(settings.start_s * NS)
        #: Up to here, on the bag's clock, everything is known.
        self.resume_ns = self.first_ns
        self.stop_ns = (self.first_ns + round(settings.seconds * NS) if settings.seconds
                        else reader.end_ns + 1)

    def run(self) -> Result:
        """Run the bag; a full disk ends it early."""
        settings = self.settings
        if self.part.exists():
            self.known = known_forecasts(self.part, settings.node)
        backend = create_backend(settings.backend, self.artifact, len(self.rig),
                                 threads=settings.threads, options=dict(settings.options),
                                 throughput=True)
        began = time.monotonic()
        result = Result(str(self.reader.path), str(self.out), Counts(), backend=backend.name,
                        model_hash=self.artifact.hash)
        try:
            predictor = Predictor(self.artifact, backend, self.rig)
            try:
                tolerance = self.reader.mapping.tolerance_ms
                buffer = FrameBuffer(self.rig.names, deadline_ns=DEADLINE_NS, **(
                    {} if tolerance is None else {'tolerance_ns': round(tolerance * MS)}))
                early = EarlyDecoding(predictor)
                replay = Replay(early, buffer, self.reader.odometry_topic() is not None,
                                **self.frames)
                result.counts = replay.counts
                if self.known:
                    result.resumed = self.known.forecasts
                    result.resumed_valid = self.known.valid
                self._write(replay, early, predictor)
                result.precision = dict(backend.precision)
            except DiskError as err:
                result.finished, result.error = False, str(err)
            finally:
                predictor.close()
        finally:
            backend.close()
        result.seconds = round(time.monotonic() - began, 3)
        length = (min(self.stop_ns, self.reader.end_ns) - self.resume_ns) / NS
        result.times_real_time = round(length / max(result.seconds, 1e-9), 2)
        result.faults = self._faults(replay)
        return result

    def _write(self, replay: Replay, early: EarlyDecoding, predictor: Predictor) -> None:
        with BagWriter(self.out, compress=True) as writer:
            write_notes(self.out, {'made_from': self.made_from, 'result': None})
            writer.note('replayed', str(self.reader.path))
            writer.note('cameras', ' '.join(self.rig.names))
            writer.note('model', self.artifact.hash)
            out = ForecastWriter(writer, self.settings.node, self.settings.flow, **self.frames)
            if self.known:
                self._take_over(writer)
            known_ns = self.known.newest_ns if self.known else None
            with Behind(4) as behind:
                values = ahead(early.offered(self._values(known_ns)), 2 * len(self.rig) + 8)
                try:
                    for i, forecast in enumerate(replay.run(
                            self._without_inputs(values, behind, writer), known_ns,
                            partial(self._take_tracks, predictor))):
                        behind.put(partial(out.write, forecast))
                        if i % FLUSH_EVERY == FLUSH_EVERY - 1:
                            behind.put(writer.flush)
                        self.progress((replay.now_ns - self.first_ns) // NS,
                                      max(1, (self.stop_ns - self.first_ns) // NS + 1))
                finally:
                    values.close()
            total = max(1, (self.stop_ns - self.first_ns) // NS + 1)
            self.progress(total, total)

    def _take_tracks(self, predictor: Predictor) -> None:
        if self.known:
            predictor.take_tracks(self.known.tracks)

    def _values(self, known_ns: int | None) -> Iterator[tuple[int, Any]]:
        """Yield what the bag holds from where the run has to begin."""
        names, start_ns = self.rig.names, self.first_ns
        if known_ns is not None:
            # Forecasts bear stamps, the bag its own clock: the first picture tells them apart.
            offset = next((time_ns - value.stamp_ns for time_ns, value in
                           self.reader.values(names, start_ns)
                           if isinstance(value, Frame)), 0)
            start_ns = max(start_ns, known_ns + offset - WARM_UP_NS)
            self.resume_ns = known_ns + offset
        return self.reader.values(names, start_ns, self.stop_ns,
                                  messages=self.settings.copy_inputs)

    def _without_inputs(self, values: Iterator[tuple[int, Any]], behind: Behind,
                        writer: BagWriter) -> Iterator[tuple[int, Any]]:
        """Have the bag's own messages written and pass the rest on."""
        for time_ns, value in values:
            if not isinstance(value, RawMessage):
                yield time_ns, value
            elif self.known is None or time_ns > self.resume_ns:
                self._copy(behind, writer, time_ns, value)

    def _copy(self, behind: Behind, writer: BagWriter, time_ns: int, value: RawMessage) -> None:
        if self._copied(value.topic):
            behind.put(partial(writer.write_raw, value.topic, value.type_name, time_ns,
                               value.data, value.latched))

    def _copied(self, topic: str) -> bool:
        """Tell whether a topic of the bag is written beside the forecasts."""
        kind = self.reader.topics[topic].type_name
        made_here = topic.startswith(f'{self.settings.node}/') and kind != EGO_PLAN
        return not made_here and kind in typestore().fielddefs

    def _take_over(self, writer: BagWriter) -> None:
        """Write the forecasts that are there and, beside them, the bag's messages up to then."""
        node, newest = self.settings.node, self.known.newest_ns
        streams = [((time_ns, 1, topic, kind, data, False) for topic, kind, time_ns, data in
                    forecast_messages(self.part, node, newest))]
        if self.settings.copy_inputs:
            self._values(newest)
            streams.append(((time_ns, 0, topic, kind, data, self.reader.topics[topic].latched)
                            for topic, kind, time_ns, data in self.reader.raw(
                                None, self.first_ns, self.resume_ns + 1)
                            if self._copied(topic)))
        for time_ns, _, topic, kind, data, latched in heapq.merge(
                *streams, key=lambda item: item[:2]):
            writer.write_raw(topic, kind, time_ns, data, latched)

    def _faults(self, replay: Replay) -> list[str]:
        """Say what was wrong with the bag."""
        topics = {name: f'camera {name} ({topic.image})'
                  for name, topic in self.reader.camera_topics().items()}
        topics['odometry'] = f'odometry ({self.reader.odometry_topic()})'
        start = self.reader.start_ns
        lines = [f'{self.reader.path}: {text}; readable up to {when(self.reader.end_ns, start)}'
                 for text in self.reader.problems]
        lines += self.reader.faults.lines(
            {text.partition('(')[2].rstrip(')'): text for text in topics.values()}, start)
        lines += replay.faults.lines(topics, start)
        if self.settings.copy_inputs:
            lines += [f'{topic.name}: not copied: the bag does not define {topic.type_name}'
                      for topic in self.reader.topics.values()
                      if topic.type_name not in typestore().fielddefs]
        never = [name for name in self.rig.names if name not in replay.faults.newest_ns]
        lines += [f'{topics[name]}: no picture' for name in never]
        return lines
