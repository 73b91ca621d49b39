"""
Reading and writing rosbag2 (mcap and sqlite3) without ROS.

`BagReader` yields messages as they are, or as the values that the package works with: `Frame`,
`EgoState`, `Truth` and the camera rig. `BagWriter` writes what `ros2 bag` and Foxglove read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from rosbags.interfaces import (
    Qos,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)
from rosbags.rosbag2 import (
    CompressionFormat,
    CompressionMode,
    Reader,
    ReaderError,
    StoragePlugin,
    Writer,
    WriterError,
)
from rosbags.serde import SerdeError
from rosbags.typesys import get_types_from_msg

from wm_ros.data.messages import typestore
from wm_ros.encodings import rgb_from_image
from wm_ros.geometry import rotation_from_quaternion
from wm_ros.image import ImageError
from wm_ros.messages import ego_state_from_odometry, stamp_ns
from wm_ros.types import CameraModel, CameraRig, EgoState, Frame

IMAGE = 'sensor_msgs/msg/Image'
COMPRESSED = 'sensor_msgs/msg/CompressedImage'
CAMERA_INFO = 'sensor_msgs/msg/CameraInfo'
ODOMETRY = 'nav_msgs/msg/Odometry'
TRANSFORMS = 'tf2_msgs/msg/TFMessage'
AGENTS = 'wm_ros/msg/AgentForecastArray'

TRUTH_TOPIC = '/truth/agents'

STORAGE = {'mcap': StoragePlugin.MCAP, 'sqlite3': StoragePlugin.SQLITE3}


class BagError(RuntimeError):
    """A bag that cannot be read or written; the message names the bag and the cause."""


def _transient_local() -> Qos:
    return Qos(QosHistory.KEEP_LAST, 1, QosReliability.RELIABLE, QosDurability.TRANSIENT_LOCAL,
               QosTime(0, 0), QosTime(0, 0), QosLiveliness.AUTOMATIC, QosTime(0, 0), False)


class BagWriter:
    """
    Write a rosbag2 folder; a context manager that leaves a readable bag even after an error.

    `storage` is 'mcap' or 'sqlite3'; `compress` packs the chunks of an mcap file with zstd. Topics
    are added on first use. Raises BagError where the folder exists or cannot be written.
    """

    def __init__(self, path: Path | str, storage: str = 'mcap', compress: bool = False) -> None:
        if storage not in STORAGE:
            raise BagError(f'{path}: storage {storage!r}; want one of {", ".join(STORAGE)}')
        self.path = Path(path)
        self._store = typestore()
        self._connections: dict[tuple[str, str], Any] = {}
        try:
            self._writer = Writer(self.path, version=8, storage_plugin=STORAGE[storage])
            if compress and storage == 'mcap':
                self._writer.set_compression(CompressionMode.STORAGE, CompressionFormat.ZSTD)
            self._writer.open()
        except (WriterError, OSError) as err:
            raise BagError(f'{path}: cannot write a bag: {err}') from err

    def __enter__(self) -> BagWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()

    def note(self, key: str, value: str) -> None:
        """Store a line of text in the bag's metadata (`custom_data`)."""
        self._writer.set_custom_data(key, value)

    def write(self, topic: str, stamp: int, msg: Any, latched: bool = False) -> None:
        """Serialise and write one message at `stamp` (ns); `latched` records that QoS."""
        name = msg.__msgtype__
        self.write_raw(topic, name, stamp, self._store.serialize_cdr(msg, name), latched)

    def write_raw(self, topic: str, type_name: str, stamp: int, cdr: bytes | memoryview,
                  latched: bool = False) -> None:
        """Write the CDR bytes of one message of type `type_name` ('std_msgs/msg/Header')."""
        connection = self._connections.get((topic, type_name))
        try:
            if connection is None:
                if type_name not in self._store.fielddefs:
                    raise BagError(f'{self.path}: topic {topic}: unknown type {type_name}')
                connection = self._writer.add_connection(
                    topic, type_name, typestore=self._store,
                    offered_qos_profiles=[_transient_local()] if latched else [])
                self._connections[topic, type_name] = connection
            self._writer.write(connection, stamp, cdr)
        except (WriterError, OSError) as err:
            raise BagError(f'{self.path}: {topic}: {err}') from err

    def close(self) -> None:
        """Write the index and metadata.yaml; harmless when called again."""
        if self._writer.storage is None:
            return
        try:
            self._writer.close()
        except OSError as err:
            raise BagError(f'{self.path}: cannot finish the bag: {err}') from err


@dataclass(frozen=True)
class Topic:
    """One topic of a bag: its message type and how many messages it holds."""

    name: str
    type_name: str
    count: int


@dataclass(frozen=True)
class CameraTopics:
    """The topics of one camera: its images and, where there is one, its CameraInfo."""

    camera: str
    image: str
    compressed: bool
    info: str | None


class BagReader:
    """
    Read a rosbag2 folder or a single .mcap or .db3 file; a context manager.

    Types that ROS 2 and this package do not define are taken from the definitions in the bag.
    Raises BagError for a bag that is missing, broken or in a form that cannot be read.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        try:
            self._reader = Reader(self.path)
            self._reader.open()
        except (ReaderError, OSError, AssertionError) as err:
            raise BagError(f'{path}: not a bag that can be read: {err}') from err
        self._store = typestore()
        for connection in self._reader.connections:
            if connection.msgtype not in self._store.fielddefs and connection.msgdef.data:
                self._store.register(
                    get_types_from_msg(connection.msgdef.data, connection.msgtype))

    def __enter__(self) -> BagReader:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the files."""
        if self._reader.is_open:
            self._reader.close()

    @property
    def topics(self) -> dict[str, Topic]:
        """The topics by name."""
        return {c.topic: Topic(c.topic, c.msgtype, c.msgcount) for c in self._reader.connections}

    @property
    def notes(self) -> dict[str, str]:
        """The lines that `BagWriter.note` stored."""
        return dict(getattr(self._reader.storage.metadata, 'custom', None) or {})

    @property
    def start_ns(self) -> int:
        """Time of the first message."""
        return self._reader.start_time

    @property
    def end_ns(self) -> int:
        """Time of the last message."""
        return max(self._reader.start_time, self._reader.end_time - 1)

    def topics_of(self, type_name: str) -> list[str]:
        """Return the topics of one message type, in order of name."""
        return sorted(t.name for t in self.topics.values() if t.type_name == type_name)

    def raw(self, topics: Iterable[str] | None = None, start_ns: int | None = None,
            stop_ns: int | None = None) -> Iterator[tuple[str, str, int, bytes]]:
        """Yield (topic, type, time in ns, CDR bytes) in order of time."""
        wanted = None if topics is None else set(topics)
        connections = [c for c in self._reader.connections
                       if wanted is None or c.topic in wanted]
        if not connections:
            return
        try:
            for connection, time_ns, data in self._reader.messages(
                    connections, start=start_ns, stop=stop_ns):
                yield connection.topic, connection.msgtype, time_ns, data
        except (ReaderError, OSError) as err:
            raise BagError(f'{self.path}: broken bag: {err}') from err

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
        Return the cameras by name, guessed from the image topics.

        A camera is named by the namespace of its image topic: '/front/image_raw/compressed' and
        '/sensors/front/image_rect' are both 'front'. Where a camera has both forms, the
        compressed one is used: it is what was recorded to be kept.
        """
        infos = set(self.topics_of(CAMERA_INFO))
        cameras: dict[str, CameraTopics] = {}
        for compressed, type_name in ((True, COMPRESSED), (False, IMAGE)):
            for topic in self.topics_of(type_name):
                parts = [part for part in topic.split('/') if part]
                if compressed and parts[-1] == 'compressed':
                    parts = parts[:-1]
                namespace = parts[:-1] or parts
                info = '/' + '/'.join([*parts[:-1], 'camera_info'])
                camera = namespace[-1]
                if camera not in cameras:
                    cameras[camera] = CameraTopics(
                        camera, topic, compressed, info if info in infos else None)
        return cameras

    def odometry_topic(self) -> str | None:
        """Return the topic of the odometry, the one with most messages where there are several."""
        topics = [t for t in self.topics.values() if t.type_name == ODOMETRY]
        return max(topics, key=lambda t: t.count).name if topics else None

    def rig(self, base_frame: str = 'base_link', cameras: Iterable[str] | None = None) -> CameraRig:
        """
        Return the camera rig from CameraInfo and /tf_static.

        Cameras come in the order of `cameras`, else as the bag's notes or names order them.
        Raises BagError naming the camera and what it lacks.
        """
        found = self.camera_topics()
        order = list(cameras or self.notes.get('cameras', '').split() or sorted(found))
        transforms = self._static_transforms()
        models = []
        for name in order:
            topics = found.get(name)
            if topics is None:
                raise BagError(f'{self.path}: no image topic of camera {name!r}; '
                               f'cameras found: {", ".join(sorted(found)) or "none"}')
            if topics.info is None:
                raise BagError(f'{self.path}: camera {name!r}: no CameraInfo beside {topics.image}')
            for _, _, info in self.read([topics.info]):
                models.append(camera_model(name, info, base_from_frame(
                    transforms, info.header.frame_id, base_frame, f'{self.path}: camera {name!r}')))
                break
            else:
                raise BagError(f'{self.path}: camera {name!r}: {topics.info} is empty')
        if not models:
            raise BagError(f'{self.path}: no camera topic; topics: {", ".join(self.topics)}')
        return CameraRig(tuple(models), name=self.path.name)

    def _static_transforms(self) -> dict[str, tuple[str, np.ndarray]]:
        """Return child frame -> (parent frame, 4x4 parent_from_child) of /tf_static."""
        transforms: dict[str, tuple[str, np.ndarray]] = {}
        for _, _, msg in self.read(t for t in self.topics if t.endswith('/tf_static')):
            for t in msg.transforms:
                matrix = np.eye(4)
                q, p = t.transform.rotation, t.transform.translation
                matrix[:3, :3] = rotation_from_quaternion(np.array([q.x, q.y, q.z, q.w]))
                matrix[:3, 3] = p.x, p.y, p.z
                transforms[t.child_frame_id] = (t.header.frame_id, matrix)
        return transforms

    def values(self, cameras: Iterable[str] | None = None, start_ns: int | None = None,
               stop_ns: int | None = None) -> Iterator[tuple[int, Frame | EgoState]]:
        """
        Yield (time in ns, value) for images and odometry in the order in which they were recorded.

        An image or pose that cannot be used is a value too, as in the node: the frame holds the
        ImageError, the pose is NaN. Raises BagError, naming topic and time, for broken bytes.
        """
        found = self.camera_topics()
        wanted = {found[name].image: found[name] for name in (cameras or found)}
        odometry = self.odometry_topic()
        topics = [*wanted, *([odometry] if odometry else [])]
        for topic, time_ns, msg in self.read(topics, start_ns, stop_ns):
            try:
                yield time_ns, (ego_state_from_odometry(msg) if topic == odometry
                                else frame_of(wanted[topic], msg))
            except ValueError as err:
                stamp = stamp_ns(msg.header)
                if topic == odometry:
                    yield time_ns, EgoState(stamp, np.full(3, np.nan), np.nan, np.nan)
                else:
                    camera = wanted[topic].camera
                    yield time_ns, Frame(camera, stamp, ImageError(f'{camera}: {err}'))


def frame_of(topics: CameraTopics, msg: Any) -> Frame:
    """Return the frame of an Image or CompressedImage; raise ValueError for an encoding unknown."""
    if topics.compressed:
        return Frame(topics.camera, stamp_ns(msg.header), memoryview(msg.data))
    return Frame(topics.camera, stamp_ns(msg.header), rgb_from_image(
        msg.data, msg.encoding, msg.height, msg.width, msg.step))


def camera_model(name: str, info: Any, base_from_camera: np.ndarray) -> CameraModel:
    """Return the camera of a CameraInfo; raise BagError where K or the size is no calibration."""
    k = np.asarray(info.k, dtype=np.float64).reshape(3, 3)
    if not np.isfinite(k).all() or k[0, 0] <= 0 or k[1, 1] <= 0 or not info.width * info.height:
        raise BagError(f'camera {name!r}: CameraInfo holds no calibration: k={k.tolist()}, '
                       f'size {info.width}x{info.height}')
    distortion = tuple(float(value) for value in info.d)
    return CameraModel(name, int(info.width), int(info.height), k, base_from_camera,
                       distortion if any(distortion) else ())


def base_from_frame(transforms: dict[str, tuple[str, np.ndarray]], frame: str, base: str,
                    where: str = 'tf_static') -> np.ndarray:
    """Return 4x4 base_from_frame by following parents; raise BagError where the chain ends."""
    matrix, here, seen = np.eye(4), frame, [frame]
    while here != base:
        if here not in transforms:
            raise BagError(f'{where}: no transform from {base!r} to {frame!r} in /tf_static '
                           f'(the chain {" <- ".join(seen)} ends at {here!r})')
        here, parent_from_child = transforms[here]
        matrix = parent_from_child @ matrix
        if here in seen:
            raise BagError(f'{where}: /tf_static has a loop: {" <- ".join([*seen, here])}')
        seen.append(here)
    return matrix
