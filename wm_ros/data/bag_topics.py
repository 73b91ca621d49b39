"""
Which topic of a bag is what: guessed from names, and said where the guess is wrong.

A mapping comes from options or from a file:

    base_frame: base_footprint              # all keys may be left out
    odometry: /ekf/odom                     # or none
    ego_plan: /planner/ego_plan             # or none
    stamps: receive                         # header (default), or the time of recording
    rig: rig.yaml                           # beside this file; calibration without CameraInfo
    tolerance_ms: 40                        # how far the stamps of one set may lie apart
    cameras:                                # the cameras to use, in the model's order
      front: {image: /cam_f/image_raw, info: /cam_f/info, max_hz: 10}
      left: /cam_l/image_raw
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

#: What parts of a topic are called that say nothing of the camera; of two, the first is taken.
_PLAIN = ('image', 'image_raw', 'image_color', 'image_rect', 'image_rect_color', 'image_mono',
          'color', 'rgb', 'raw', 'rect')
#: The end of a part that says in which form its pictures are: front_image_raw is front.
_FORM = re.compile('_(image|compressed|color|rect|raw)(_.*)?$')
#: What is no picture for the model; left out of the guess while there is something else.
_OTHER = ('depth', 'disparity', 'mask', 'segmentation', 'debug', 'thermal', 'infra', 'confidence')


@dataclass(frozen=True)
class CameraTopics:
    """The topics of one camera: its images and, where there is one, its CameraInfo."""

    camera: str
    image: str
    compressed: bool
    info: str | None
    max_hz: float = 0.0


@dataclass(frozen=True)
class CameraMapping:
    """What was said about one camera: topics, and how many pictures a second to take at most."""

    image: str
    info: str | None = None
    max_hz: float = 0.0


@dataclass(frozen=True)
class Mapping:
    """
    What was said about a bag's topics; what is None is guessed.

    `odometry` and `ego_plan` '' mean that there is none; `stamps` is 'header' or 'receive'.
    """

    cameras: dict[str, CameraMapping] = field(default_factory=dict)
    odometry: str | None = None
    ego_plan: str | None = None
    base_frame: str = 'base_link'
    stamps: str = 'header'
    rig: Path | None = None
    tolerance_ms: float | None = None


class MappingError(ValueError):
    """A mapping that cannot be used: where, what was found and what was wanted."""


def load_mapping(path: Path) -> Mapping:
    """Read a mapping file; raise MappingError naming file, key, found and wanted."""
    try:
        content = yaml.safe_load(path.read_text(encoding='utf-8')) or {}
    except OSError as err:
        raise MappingError(f'{path}: {err.strerror}, want a mapping file') from err
    except (yaml.YAMLError, UnicodeDecodeError) as err:
        raise MappingError(f'{path}: {err}, want YAML') from err
    known = ('base_frame', 'odometry', 'ego_plan', 'stamps', 'rig', 'tolerance_ms', 'cameras')
    if not isinstance(content, dict) or set(content) - set(known):
        found = ', '.join(map(str, content)) if isinstance(content, dict) else repr(content)
        raise MappingError(f'{path}: {found}, want some of {", ".join(known)}')
    cameras = content.pop('cameras', None) or {}
    if not isinstance(cameras, dict):
        raise MappingError(f'{path}: cameras: {cameras!r}, want a topic for each name')
    rig = content.pop('rig', None)
    for name, value in content.items():
        number = isinstance(value, (int, float)) and not isinstance(value, bool) and value >= 0
        if name == 'tolerance_ms' and not number:
            raise MappingError(f'{path}: {name}: {value!r}, want a number from 0 on')
        if name != 'tolerance_ms' and not isinstance(value, str):
            raise MappingError(f'{path}: {name}: {value!r}, want a name')
    mapping = Mapping(
        cameras={str(name): _camera(value, f'{path}: cameras.{name}')
                 for name, value in cameras.items()},
        rig=path.parent / str(rig) if rig else None,
        **{name: '' if name in ('odometry', 'ego_plan') and value == 'none' else value
           for name, value in content.items()})
    if mapping.stamps not in ('header', 'receive'):
        raise MappingError(f'{path}: stamps: {mapping.stamps!r}, want header or receive')
    return mapping


def _camera(value: Any, where: str) -> CameraMapping:
    if isinstance(value, str):
        return CameraMapping(value)
    fields = ('image', 'info', 'max_hz')
    if not isinstance(value, dict) or 'image' not in value or set(value) - set(fields):
        raise MappingError(f'{where}: {value!r}, want a topic, or {", ".join(fields)}')
    rate = value.get('max_hz', 0.0)
    if not isinstance(rate, (int, float)) or isinstance(rate, bool) or not rate >= 0:
        raise MappingError(f'{where}: max_hz: {rate!r}, want a number from 0 on')
    return CameraMapping(str(value['image']), value.get('info'), float(rate))


def pairs(texts: Iterable[str], option: str) -> dict[str, str]:
    """Return {NAME: VALUE} of texts 'NAME=VALUE'; raise MappingError for another form."""
    found = {}
    for text in texts:
        name, separator, value = text.partition('=')
        if not (name and separator and value):
            raise MappingError(f'{option} {text}: want NAME=TOPIC')
        found[name] = value
    return found


def overlaid(mapping: Mapping, images: dict[str, str], infos: dict[str, str],
             **others: Any) -> Mapping:
    """Return the mapping with what options say laid over it; None says nothing."""
    cameras = dict(mapping.cameras)
    for name, topic in images.items():
        cameras[name] = replace(cameras.get(name, CameraMapping(topic)), image=topic)
    for name, topic in infos.items():
        if name not in cameras:
            raise MappingError(f'--info {name}={topic}: no camera {name!r} is mapped; want '
                               f'--camera {name}=TOPIC as well')
        cameras[name] = replace(cameras[name], info=topic)
    given = {key: value for key, value in others.items() if value is not None}
    return replace(mapping, cameras=cameras, **given)


def guess_cameras(compressed: Collection[str], raw: Collection[str],
                  infos: Collection[str]) -> dict[str, CameraTopics]:
    """
    Return cameras by name from the topics of CompressedImage, Image and CameraInfo.

    A camera is named by the part of its topic that tells it from the others:
    '/front/image_raw/compressed', '/sensors/front/image_rect' and '/cameras/front' are all
    'front'. Where a camera has both forms, the compressed one is used: it is what was recorded to
    be kept. Depth, masks and the like are left out while there is a picture.
    """
    parts: dict[str, tuple[list[str], bool]] = {}
    for topics, packed in ((compressed, True), (raw, False)):
        for topic in sorted(topics):
            path = [part for part in topic.split('/') if part]
            if packed and len(path) > 1 and path[-1] == 'compressed':
                path = path[:-1]
            if path not in [known for known, _ in parts.values()]:
                parts[topic] = path, packed
    pictures = {topic: value for topic, value in parts.items()
                if not any(word in part for part in value[0] for word in _OTHER)} or parts
    names = _names({topic: path for topic, (path, _) in pictures.items()})
    found: dict[str, CameraTopics] = {}
    for topic in sorted(pictures, key=lambda topic: _rank(topic, *pictures[topic])):
        path, packed = pictures[topic]
        name = names[topic]
        if name not in found:
            found[name] = CameraTopics(name, topic, packed, guess_info(path, name, infos))
    return found


def _plain(part: str) -> bool:
    return part in _PLAIN or part.startswith('image_')


def _rank(topic: str, path: list[str], packed: bool) -> tuple[bool, int, str]:
    last = _PLAIN.index(path[-1]) if path[-1] in _PLAIN else len(_PLAIN)
    return not packed, last, topic


def _names(paths: dict[str, list[str]]) -> dict[str, str]:
    """Return the shortest name that tells each topic's camera from the others."""
    words = {topic: [_FORM.sub('', part) for part in path if not _plain(part)] or path[-1:]
             for topic, path in paths.items()}
    names = {}
    for topic, mine in words.items():
        for count in range(1, len(mine) + 1):
            name = mine[-count:]
            # The same camera in another form (image_raw, image_rect) is the same camera.
            if not any(other[-count:] == name and other != mine for other in words.values()):
                break
        names[topic] = '_'.join(name)
    return names


def guess_info(path: list[str], name: str, infos: Collection[str]) -> str | None:
    """Return the CameraInfo topic that belongs to an image topic, None where none does."""
    beside = '/' + '/'.join([*path[:-1], 'camera_info'])
    below = '/' + '/'.join([*path, 'camera_info'])
    # 'camera_info' alone in the namespace of several cameras belongs to none of them.
    for topic in (below, beside):
        if topic in infos and (topic == below or _plain(path[-1])):
            return topic
    named = [topic for topic in infos
             if name in [part.removesuffix('_info').removesuffix('_camera')
                         for part in topic.split('/')]]
    if len(named) == 1:
        return named[0]
    return beside if beside in infos and len(infos) == 1 else None
