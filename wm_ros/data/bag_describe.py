"""What a replay would take from a bag, and as what: the answer of `wm_ros replay --dry-run`."""

from __future__ import annotations

from itertools import islice, pairwise
from statistics import median
from typing import Any

from wm_ros.data.bag import BagError, BagReader
from wm_ros.messages import stamp_ns

NS = 1_000_000_000
#: How many pictures of a camera are looked at.
LOOK = 8


def describe(reader: BagReader) -> dict[str, Any]:
    """Return length, cameras with size, rate and encoding, odometry, plan, all topics of a bag."""
    cameras = {}
    for name, found in reader.camera_topics().items():
        cameras[name] = {
            'image': found.image, 'info': found.info,
            'pictures': reader.topics[found.image].count} | _looked_at(reader, found.image)
    return {
        'bag': str(reader.path), 'seconds': round((reader.end_ns - reader.start_ns) / NS, 3),
        'start_ns': reader.start_ns, 'cameras': cameras, 'odometry': reader.odometry_topic(),
        'ego_plan': reader.plan_topic(),
        'tf_static': [name for name in reader.topics if name.endswith('/tf_static')],
        'notes': reader.notes, 'problems': reader.problems,
        'topics': {topic.name: {'type': topic.type_name, 'messages': topic.count}
                   for topic in reader.topics.values()}}


def _looked_at(reader: BagReader, topic: str) -> dict[str, Any]:
    """Return size, encoding, rate and clock offset from the first pictures."""
    stamps, sizes, forms, offset = [], [], [], 0.0
    try:
        for _, time_ns, msg in islice(reader.read([topic]), LOOK):
            stamps.append(stamp_ns(msg.header))
            offset = (time_ns - stamps[-1]) / NS
            forms.append(getattr(msg, 'format', None) or getattr(msg, 'encoding', ''))
            if hasattr(msg, 'width'):
                sizes.append(f'{msg.width}x{msg.height}')
    except BagError as err:
        forms.append(str(err))
    steps = [b - a for a, b in pairwise(stamps)]
    return {'encoding': ', '.join(dict.fromkeys(forms)), 'size': ', '.join(dict.fromkeys(sizes)),
            'hz': round(NS / median(steps), 1) if steps and median(steps) > 0 else None,
            'recorded_after_stamp_s': round(offset, 3)}


def lines(found: dict[str, Any]) -> list[str]:
    """Return a description as text: a line a camera, and what may be wrong."""
    out = [f'{found["bag"]}: {found["seconds"]:.1f} s']
    for name, camera in found['cameras'].items():
        size = f' {camera["size"]}' if camera['size'] else ''
        rate = f' at {camera["hz"]:g} Hz' if camera['hz'] else ''
        out.append(f'  camera {name}: {camera["image"]}, {camera["pictures"]} pictures{size}{rate} '
                   f'({camera["encoding"] or "no encoding"}), calibration: '
                   f'{camera["info"] or "none"}')
        if abs(camera['recorded_after_stamp_s']) > 10:
            out.append(f'    its stamps lie {camera["recorded_after_stamp_s"]:.0f} s before the '
                       'time of recording: two clocks, or no stamps (--stamps receive)')
    out.append(f'  odometry: {found["odometry"] or "none: the trained mask stands in"}')
    out.append(f'  ego plan: {found["ego_plan"] or "none: constant turn rate and velocity"}')
    out.append(f'  /tf_static: {", ".join(found["tf_static"]) or "none"}')
    used = {camera['image'] for camera in found['cameras'].values()} | {
        found['odometry'], found['ego_plan']}
    used |= {camera['info'] for camera in found['cameras'].values()} | set(found['tf_static'])
    others = [f'{name} ({topic["type"].rsplit("/", 1)[-1]}, {topic["messages"]})'
              for name, topic in found['topics'].items() if name not in used]
    if others:
        out.append(f'  not used: {", ".join(others)}')
    out += [f'  wrong: {text}' for text in found['problems']]
    if 'lacks' in found:
        out.append(f'  cannot be replayed like this: {found["lacks"]}')
    else:
        out.append(f'  order of the cameras: {" ".join(found["rig"])}')
    return out
