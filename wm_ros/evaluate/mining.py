"""From a bag to its most surprising moments, and from those to clips with their reasons."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wm_ros.data.bag import BagError, BagReader, BagWriter
from wm_ros.data.clip import cut
from wm_ros.evaluate.bag_forecasts import forecasts_of, has_forecasts
from wm_ros.evaluate.moments import Moment, moment_of, worst
from wm_ros.evaluate.recorded import replayed_from
from wm_ros.evaluate.self_scores import SelfScorer
from wm_ros.replay import ForecastWriter

_NS = 1_000_000_000


@dataclass(frozen=True)
class Found:
    """
    What was found in a bag: the moments, and the bags of which clips are cut, forecasts first.

    `start_ns` and `end_ns` are the stamps of the first and the last forecast.
    """

    bag: Path
    sources: tuple[Path, ...]
    moments: tuple[Moment, ...]
    model_hash: str
    start_ns: int
    end_ns: int


def find(bag: Path, source: Path | None, work: Path, artifact: Path | None = None,
         backend: str = 'auto', threads: int = 2,
         progress: Callable[[int, int], None] | None = None) -> Found:
    """
    Score every moment of a bag; forecasts that had to be made are written to the bag `work`.

    `source` is the bag with the pictures; without it that is `bag`, or where it has none, the one
    that it says it was replayed from. Raises BagError where there are neither pictures nor where
    to find them.
    """
    with BagReader(bag) as reader:
        fresh = artifact is not None or not has_forecasts(reader)
        inputs = source or (bag if reader.camera_topics() else replayed_from(reader))
    if inputs is None:
        raise BagError(f'{bag}: no camera topic in it; name the bag with the pictures: --input')
    scorer = SelfScorer()
    moments: list[Moment] = []
    stamps: list[int] = []
    model_hash = ''
    with ExitStack() as stack:
        out = None
        if fresh:
            writer = stack.enter_context(BagWriter(work, compress=True))
            out = ForecastWriter(writer, flow=False)
        for forecast in forecasts_of(inputs if fresh else bag, artifact, backend, threads,
                                     progress):
            if out is not None:
                out.write(forecast)
            moment = moment_of(scorer.add(forecast))
            if moment is not None:
                moments.append(moment)
            stamps.append(forecast.stamp_ns)
            model_hash = forecast.model_hash
    if not moments:
        raise BagError(f'{bag}: no moment to rank: want valid forecasts with odometry at least '
                       f'1 s apart, got {len(stamps)} forecasts')
    sources = (work, inputs) if fresh else tuple(dict.fromkeys((bag, inputs)))
    return Found(bag, sources, tuple(moments), model_hash, min(stamps), max(stamps))


def write_clips(found: Found, out: Path, top: int, before_s: float,
                after_s: float) -> dict[str, Any]:
    """
    Cut the `top` most surprising moments into `out`; return the index that is written beside.

    Clips do not overlap. Each is a bag clip_NN with clip_NN.json; README.md and clips.json rank
    them.
    """
    before, after = round(before_s * _NS), round(after_s * _NS)
    chosen = worst(found.moments, top, before + after + 1)
    clips = []
    with ExitStack() as stack:
        readers = [stack.enter_context(BagReader(path)) for path in found.sources]
        for rank, moment in enumerate(chosen, 1):
            name = f'clip_{rank:02d}'
            first, last = moment.stamp_ns - before, moment.stamp_ns + after
            reasons = moment.reasons()
            messages = cut(readers, out / name, first, last, {
                'cut_from': str(found.bag), 'surprise': f'{moment.surprise:.2f} nats',
                'reason': reasons[0], **_cameras(readers)})
            clip = {'clip': name, 'rank': rank, 'bag': str(found.bag),
                    'at_s': round((moment.stamp_ns - found.start_ns) / _NS, 3),
                    'start_ns': max(first, found.start_ns), 'stop_ns': min(last, found.end_ns),
                    'messages': messages, 'model_hash': found.model_hash, **moment.json()}
            (out / f'{name}.json').write_text(json.dumps(clip, indent=1) + '\n')
            clips.append(clip)
    index = {'bag': str(found.bag), 'moments': len(found.moments), 'before_s': before_s,
             'after_s': after_s, 'model_hash': found.model_hash, 'clips': clips}
    (out / 'clips.json').write_text(json.dumps(index, indent=1) + '\n')
    (out / 'README.md').write_text(readme(index))
    return index


def _cameras(readers: list[BagReader]) -> dict[str, str]:
    """Return the order of the cameras, where a source tells it."""
    noted = [reader.notes['cameras'] for reader in readers if 'cameras' in reader.notes]
    return {'cameras': noted[-1]} if noted else {}


def clip_names(index: dict[str, Any]) -> list[str]:
    """Return the names of an index's clips, in order of rank."""
    return [clip['clip'] for clip in index['clips']]


def readme(index: dict[str, Any]) -> str:
    """Return the page that ranks the clips, in Markdown."""
    lines = [f'# The most surprising moments of {index["bag"]}', '',
             f'{len(index["clips"])} clips out of {index["moments"]} moments, each from '
             f'{index["before_s"]:g} s before to {index["after_s"]:g} s after, none overlapping. '
             f'Forecasts by model {index["model_hash"][:12] or "unknown"}. Surprise is the '
             'logarithm of how much likelier the likeliest outcome was than the one that came, '
             'in nats.', '']
    for clip in index['clips']:
        lines += [f'## {clip["clip"]}: {clip["surprise_nats"]:.1f} nats at {clip["at_s"]:.1f} s',
                  '',
                  f'Road users {clip["agents_nats"]:.1f}, occupancy {clip["occupancy_nats"]:.1f}.',
                  '', *(f'- {reason}' for reason in clip['reasons']), '',
                  f'`wm_ros report {clip["clip"]}` shows it, `wm_ros replay {clip["clip"]} --out '
                  f'NEW` runs another version over it.', '']
    return '\n'.join(lines)
