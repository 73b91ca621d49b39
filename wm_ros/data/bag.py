"""
Reading rosbag2 (mcap and sqlite3) without ROS.

`BagReader` yields messages as they are, or as the values that the package works with: `Frame`,
`EgoState`, `TimedPlan` and the camera rig. It streams, and takes what is readable of a broken bag.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from rosbags.serde import SerdeError
from rosbags.typesys import TypesysError, get_types_from_msg

from wm_ros.data.bag_calibration import base_from_frame, camera_model, static_transforms
from wm_ros.data.bag_files import BagFiles, Topic
from wm_ros.data.bag_topics import CameraTopics, Mapping, guess_cameras
from wm_ros.data.bag_writer import BagError, BagWriter, DiskError
from wm_ros.data.messages import typestore
from wm_ros.data.stored import StorageError
from wm_ros.encodings import rgb_from_image
from wm_ros.faults import Faults
from wm_ros.image import ImageError
from wm_ros.messages import ego_state_from_odometry, stamp_ns
from wm_ros.timed_plan import PlanError, TimedPlan, plan_from_message
from wm_ros.types import CameraRig, EgoState, Frame

__all__ = ['BagError', 'BagReader', 'BagWriter', 'CameraTopics', 'DiskError', 'Topic']

IMAGE = 'sensor_msgs/msg/Image'
COMPRESSED = 'sensor_msgs/msg/CompressedImage'
CAMERA_INFO = 'sensor_msgs/msg/CameraInfo'
ODOMETRY = 'nav_msgs/msg/Odometry'
AGENTS = 'wm_ros/msg/AgentForecastArray'
EGO_PLAN = 'wm_ros/msg/EgoPlan'

TRUTH_TOPIC = '/truth/agents'


@dataclass(frozen=True)
class RawMessage:
    """A message of a bag as it is: topic, type, CDR bytes, and whether it is latched."""

    topic: str
    type_name: str
    data: bytes
    latched: bool


class BagReader:
    """
    Read a rosbag2 folder or a single .mcap or .db3 file; a context manager.

    `mapping` says which topic is what where names do not tell. Types that ROS 2 and this package
    do not define are taken from the definitions in the bag. `faults` counts, by topic, messages
    that could not be used and changes of encoding, as `values` meets them. Raises BagError for a
    bag that is missing, empty, or in a form that cannot be read.
    """

    def __init__(self, path: Path | str, mapping: Mapping | None = None) -> None:
        self.path = Path(path)
        self.mapping = mapping or Mapping()
        self.faults = Faults()
        self._forms: dict[str, str] = {}
        try:
            self._files = BagFiles(self.path)
        except (StorageError, OSError) as err:
            cause = err.strerror if isinstance(err, OSError) and err.strerror else err
            raise BagError(f'{path}: not a bag that can be read: {cause}') from err
        #: The topics by name.
        self.topics: dict[str, Topic] = self._files.topics
        #: The lines that `BagWriter.note` stored.
        self.notes: dict[str, str] = self._files.notes
        self._store = typestore()
        for channel in self._files.channels:
            self._learn(channel.type_name, channel.definition)

    def _learn(self, type_name: str, definition: str) -> None:
        if type_name in self._store.fielddefs or not definition:
            return
        try:
            found = get_types_from_msg(definition, type_name)
        except TypesysError:
            return      # such as IDL: its messages cannot be decoded, and nothing here needs to
        self._store.register({name: value for name, value in found.items()
                              if name not in self._store.fielddefs})

    def __enter__(self) -> BagReader:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the files."""
        self._files.close()

    @property
    def problems(self) -> list[str]:
        """What was wrong with the files so far, in words; all of it once the bag was read."""
        return self._files.problems

    @property
    def start_ns(self) -> int:
        """Time of the first message."""
        return self._files.start_ns

    @property
    def end_ns(self) -> int:
        """Time of the last message."""
        return self._files.end_ns

    def topics_of(self, type_name: str) -> list[str]:
        """Return the topics of one message type, in order of name."""
        return sorted(t.name for t in self.topics.values() if t.type_name == type_name)

    def raw(self, topics: Iterable[str] | None = None, start_ns: int | None = None,
            stop_ns: int | None = None) -> Iterator[tuple[str, str, int, bytes]]:
        """Yield (topic, type, time in ns, CDR bytes) in order of time."""
        try:
            yield from self._files.messages(topics, start_ns, stop_ns)
        except OSError as err:
            raise BagError(f'{self.path}: cannot be read any further: {err}') from err

    def read(self, topics: Iterable[str] | None = None, start_ns: int | None = None,
             stop_ns: int | None = None) -> Iterator[tuple[str, int, Any]]:
        """Yield (topic, time in ns, message) in order of time; raise BagError where one is bad."""
        for topic, type_name, time_ns, data in self.raw(topics, start_ns, stop_ns):
            yield topic, time_ns, self.decode(topic, type_name, time_ns, data)

    def decode(self, topic: str, type_name: str, time_ns: int, data: bytes) -> Any:
        """Return the message of CDR bytes; raise BagError naming topic and time where it is bad."""
        try:
            return self._store.deserialize_cdr(data, type_name)
        except (SerdeError, KeyError) as err:
            raise BagError(
                f'{self.path}: {topic} at {time_ns / 1e9:.3f} s: not a {type_name}: {err}') from err

    def camera_topics(self) -> dict[str, CameraTopics]:
        """
        Return the cameras by name: those of the mapping, else guessed (`guess_cameras`).

        Raises BagError where the mapping names a topic that holds no images.
        """
        infos = self.topics_of(CAMERA_INFO)
        packed, raw = self.topics_of(COMPRESSED), self.topics_of(IMAGE)
        guessed = guess_cameras(packed, raw, infos)
        if not self.mapping.cameras:
            return guessed
        beside = {camera.image: camera.info for camera in guess_cameras(
            [camera.image for camera in self.mapping.cameras.values()], [], infos).values()}
        found = {}
        for name, camera in self.mapping.cameras.items():
            if camera.image not in (*packed, *raw):
                raise BagError(f'{self.path}: camera {name!r}: no images on {camera.image}; image '
                               f'topics: {", ".join([*packed, *raw]) or "none"}')
            if camera.info is not None and camera.info not in infos:
                raise BagError(f'{self.path}: camera {name!r}: no CameraInfo on {camera.info}; '
                               f'there is {", ".join(infos) or "none"}')
            found[name] = CameraTopics(name, camera.image, camera.image in packed,
                                       camera.info or beside.get(camera.image), camera.max_hz)
        return found

    def odometry_topic(self) -> str | None:
        """
        Return the topic of the odometry: the mapping's, else the one with most messages.

        Raises BagError where the mapping's is none.
        """
        return self._one_topic('odometry', ODOMETRY, self.mapping.odometry)

    def odometry_frame(self) -> str:
        """Return the frame that the first odometry is given in, 'odom' where nobody says."""
        topic = self.odometry_topic()
        for name, kind, time_ns, data in self.raw([topic] if topic else []):
            try:
                return self.decode(name, kind, time_ns, data).header.frame_id or 'odom'
            except BagError:
                continue
        return 'odom'

    def plan_topic(self) -> str | None:
        """Return the topic of the ego vehicle's plan, chosen as that of the odometry is."""
        return self._one_topic('ego plan', EGO_PLAN, self.mapping.ego_plan)

    def _one_topic(self, what: str, type_name: str, wanted: str | None) -> str | None:
        topics = self.topics_of(type_name)
        if wanted is None:
            return max(topics, key=lambda t: self.topics[t].count) if topics else None
        if wanted and wanted not in topics:
            raise BagError(f'{self.path}: no {what} on {wanted}; {type_name.replace("/msg", "")} '
                           f'topics: {", ".join(topics) or "none"}')
        return wanted or None

    def rig(self, base_frame: str | None = None,
            cameras: Iterable[str] | None = None) -> CameraRig:
        """
        Return the camera rig from CameraInfo and /tf_static.

        Cameras come in the order of `cameras`, else as the mapping, the bag's notes or names order
        them. Raises BagError naming the camera and what it lacks.
        """
        found = self.camera_topics()
        base = base_frame or self.mapping.base_frame
        order = self.camera_order(cameras)
        transforms = static_transforms(
            msg for _, _, msg in self.read(t for t in self.topics if t.endswith('/tf_static')))
        models = []
        for name in order:
            topics = found[name]
            if topics.info is None:
                raise BagError(
                    f'{self.path}: camera {name!r}: no CameraInfo for {topics.image}; CameraInfo '
                    f'topics: {", ".join(self.topics_of(CAMERA_INFO)) or "none"}; want one, or a '
                    'rig file')
            for _, _, info in self.read([topics.info]):
                models.append(camera_model(
                    name, info, base_from_frame(transforms, info.header.frame_id, base,
                                                f'{self.path}: camera {name!r}')))
                break
            else:
                raise BagError(f'{self.path}: camera {name!r}: {topics.info} is empty')
        return CameraRig(tuple(models), name=self.path.name)

    def camera_order(self, cameras: Iterable[str] | None = None) -> list[str]:
        """Return the cameras to use, in the model's order; raise BagError where there is none."""
        found = self.camera_topics()
        if not self.end_ns and not any(topic.count for topic in self.topics.values()):
            raise BagError(f'{self.path}: an empty bag: no messages'
                           + ''.join(f'; {text}' for text in self.problems))
        if not found:
            there = ', '.join(f'{t.name} ({t.type_name})' for t in self.topics.values())
            raise BagError(f'{self.path}: no camera topic; want sensor_msgs/Image or '
                           f'CompressedImage, topics: {there or "none"}')
        order = list(cameras or self.mapping.cameras or self.notes.get('cameras', '').split()
                     or sorted(found))
        for name in order:
            if name not in found:
                raise BagError(f'{self.path}: no image topic of camera {name!r}; '
                               f'cameras found: {", ".join(sorted(found))}')
        return order

    def values(self, cameras: Iterable[str] | None = None, start_ns: int | None = None,
               stop_ns: int | None = None,
               messages: bool = False
               ) -> Iterator[tuple[int, Frame | EgoState | TimedPlan | RawMessage]]:
        """
        Yield (time in ns, value) for images, odometry and ego plans in the order of the recording.

        An image or pose that cannot be used is a value too, as in the node: the frame holds the
        ImageError, the pose is NaN. Broken bytes and plans that are none are left out. `faults`
        counts all of them. With `messages`, every message of the bag is a value too, before what
        is made of it.
        """
        found = self.camera_topics()
        wanted = {found[name].image: found[name] for name in (cameras or found)}
        odometry, plan = self.odometry_topic(), self.plan_topic()
        topics = [*wanted, *(topic for topic in (odometry, plan) if topic)]
        received = self.mapping.stamps == 'receive'
        slots: dict[str, int] = {}
        for topic, kind, time_ns, data in self.raw(
                None if messages else topics, start_ns, stop_ns):
            if messages:
                yield time_ns, RawMessage(topic, kind, data, self.topics[topic].latched)
                if topic not in topics:
                    continue
            try:
                msg = self.decode(topic, kind, time_ns, data)
            except BagError:
                self.faults.add(topic, f'broken message, not a {kind}', time_ns)
                continue
            stamp = time_ns if received else stamp_ns(msg.header)
            if topic == odometry:
                yield time_ns, self._ego_state(topic, msg, stamp, time_ns)
                continue
            if topic == plan:
                try:
                    given = plan_from_message(msg)
                except PlanError as err:
                    self.faults.add(topic, str(err), time_ns)
                    continue
                yield time_ns, replace(given, stamp_ns=stamp,
                                       times_ns=given.times_ns + (stamp - given.stamp_ns))
                continue
            camera = wanted[topic]
            if camera.max_hz:
                slot = int(stamp * camera.max_hz // 1_000_000_000)
                if slots.get(topic) == slot:
                    continue
                slots[topic] = slot
            yield time_ns, self._frame(camera, msg, stamp, time_ns)

    def _frame(self, camera: CameraTopics, msg: Any, stamp: int, time_ns: int) -> Frame:
        form = msg.format if camera.compressed else msg.encoding
        before = self._forms.setdefault(camera.image, form)
        if form != before:
            self.faults.add(camera.image, f'its encoding changes from {before!r} to {form!r}',
                            time_ns)
            self._forms[camera.image] = form
        try:
            return Frame(camera.camera, stamp, frame_of(camera, msg).image)
        except ValueError as err:
            self.faults.add(camera.image, str(err), time_ns)
            return Frame(camera.camera, stamp, ImageError(f'{camera.camera}: {err}'))

    def _ego_state(self, topic: str, msg: Any, stamp: int, time_ns: int) -> EgoState:
        try:
            state = ego_state_from_odometry(msg)
            return EgoState(stamp, state.odom_from_base, state.speed_mps, state.yaw_rate_rps)
        except ValueError as err:
            self.faults.add(topic, str(err).partition(', got')[0], time_ns)
            return EgoState(stamp, np.full(3, np.nan), np.nan, np.nan)


def frame_of(topics: CameraTopics, msg: Any) -> Frame:
    """Return the frame of an Image or CompressedImage; raise ValueError for an encoding unknown."""
    if topics.compressed:
        return Frame(topics.camera, stamp_ns(msg.header), memoryview(msg.data))
    return Frame(topics.camera, stamp_ns(msg.header), rgb_from_image(
        msg.data, msg.encoding, msg.height, msg.width, msg.step))
