"""
Contact sheets of the simulator: many drives in one picture, to look at.

`python -m wm_ros.sim.gallery sheet.jpg --world sim snow --seeds 0:6` writes one row a world;
`--help` tells the rest.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np

from wm_ros.geometry import project
from wm_ros.image import model_camera
from wm_ros.sim import seeds as streams
from wm_ros.sim.appearance import sample_style
from wm_ros.sim.drive import Drive, simulate
from wm_ros.sim.render import Rendered, Renderer
from wm_ros.sim.rigs import rig as named_rig
from wm_ros.sim.worlds import WORLDS
from wm_ros.types import CameraModel, CameraRig, Truth

LIGHTS = ('sun', 'overcast', 'rain', 'dusk', 'night')
#: A box is the floor, the roof and four posts: corners by number.
_EDGES = ((0, 1), (1, 2), (2, 3), (3, 0), (4, 5), (5, 6), (6, 7), (7, 4), (0, 4), (1, 5), (2, 6),
          (3, 7))


def sized(rig: CameraRig, width: int, cameras: list[str] | None = None) -> CameraRig:
    """Return the cameras asked for, in that order, as the model sees them but `width` wide."""
    names = cameras or list(rig.names)
    unknown = [name for name in names if name not in rig.names]
    if unknown:
        raise ValueError(f'cameras: want some of {", ".join(rig.names)}, got {unknown[0]}')
    out = []
    for name in names:
        seen = model_camera(rig.cameras[rig.names.index(name)])
        s = width / seen.width
        k = seen.k.copy()
        k[:2] *= s
        k[:2, 2] += (s - 1) / 2
        out.append(CameraModel(seen.name, width, round(seen.height * s), k,
                               seen.base_from_camera, seen.distortion))
    return CameraRig(tuple(out), rig.name)


def with_light(light: str, world: str, first: int) -> int:
    """Return the first seed from `first` on whose look has this light."""
    if light not in LIGHTS:
        raise ValueError(f'light: want one of {", ".join(LIGHTS)}, got {light!r}')
    for seed in range(first, first + 2000):
        style = sample_style(streams.generator(seed, streams.APPEARANCE), WORLDS[world].season)
        if style.light == light:
            return seed
    raise ValueError(f'light: {world} has no {light} from seed {first} on')


def tiles(drive: Drive, cameras: CameraRig, at_s: float, boxes: bool = False) -> list[np.ndarray]:
    """Return the labelled pictures of one instant, in the order of the cameras."""
    i = int(np.clip(round(at_s * drive.rate_hz), 0, drive.n - 1))
    renderer = Renderer(drive, cameras)
    rendered = renderer.render(i)
    truth = drive.truth(i, cameras, rendered)
    out = []
    for camera in cameras.cameras:
        picture = rendered.images[camera.name].copy()
        if boxes:
            _draw_boxes(picture, camera, truth, rendered)
        label = camera.name if len(cameras) > 1 else \
            f'{drive.world} {drive.seed}: {drive.layout.kind}, {renderer.style.light}'
        size = cv2.getTextSize(label, cv2.FONT_HERSHEY_SIMPLEX, .36, 1)[0]
        cv2.rectangle(picture, (0, 0), (size[0] + 7, 15), (0, 0, 0), -1)
        cv2.putText(picture, label, (4, 11), cv2.FONT_HERSHEY_SIMPLEX, .36, (255, 255, 255), 1,
                    cv2.LINE_AA)
        out.append(picture)
    return out


def _draw_boxes(picture: np.ndarray, camera: CameraModel, truth: Truth,
                rendered: Rendered) -> None:
    for a in np.flatnonzero(truth.visible):
        if not np.any(rendered.ids[camera.name] == a + 1):
            continue
        flat = np.array([[.5, .5], [.5, -.5], [-.5, -.5], [-.5, .5]])
        corners = np.concatenate([np.c_[flat, np.zeros(4)], np.c_[flat, np.ones(4)]])
        corners = corners * truth.sizes[a]
        c, s = np.cos(truth.poses[a, 2]), np.sin(truth.poses[a, 2])
        points = np.stack([c * corners[:, 0] - s * corners[:, 1] + truth.poses[a, 0],
                           s * corners[:, 0] + c * corners[:, 1] + truth.poses[a, 1],
                           corners[:, 2]], -1)
        pixels, depth = project(camera, points)
        if depth.min() > .5:
            pixels = np.round(np.clip(pixels, -4000, 4000)).astype(int).tolist()
            for p, q in _EDGES:
                cv2.line(picture, pixels[p], pixels[q], (255, 210, 0), 1, cv2.LINE_AA)


def sheet(pictures: list[np.ndarray], columns: int) -> np.ndarray:
    """Return pictures of one size in rows of `columns`; black where the last row ends early."""
    missing = -len(pictures) % columns
    pictures = pictures + [np.zeros_like(pictures[0])] * missing
    return np.vstack([np.hstack(pictures[i:i + columns])
                      for i in range(0, len(pictures), columns)])


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog='python -m wm_ros.sim.gallery', description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('out', type=Path, help='.jpg or .png file to write')
    parser.add_argument('--world', nargs='+', default=['sim'], choices=list(WORLDS), metavar='W',
                        help=f'some of {", ".join(WORLDS)} (default: sim)')
    parser.add_argument('--seeds', default='0:6', metavar='A:B', help='B left out (default: 0:6)')
    parser.add_argument('--light', nargs='+', choices=LIGHTS, metavar='L',
                        help=f'instead of all seeds the first from A on with each of these: '
                             f'{", ".join(LIGHTS)}')
    parser.add_argument('--rig', default='surround', help='surround, front or kitti')
    parser.add_argument('--cameras', nargs='+', default=['front'], metavar='NAME',
                        help="of the rig, or 'all' (default: front)")
    parser.add_argument('--at', type=float, default=1.0, help='seconds into the drive (default: 1)')
    parser.add_argument('--width', type=int, default=400, help='of a picture (default: 400)')
    parser.add_argument('--columns', type=int, default=3, help='pictures a row (default: 3)')
    parser.add_argument('--boxes', action='store_true', help='draw the boxes of what is visible')
    parser.add_argument('--quality', type=int, default=85, help='of a JPEG (default: 85)')
    options = parser.parse_args(arguments)
    first, _, end = options.seeds.partition(':')
    if not first.isdecimal() or not end.isdecimal() or int(end) <= int(first):
        parser.error(f'--seeds {options.seeds}: want A:B with A < B')
    rig = named_rig(options.rig)
    chosen = list(rig.names) if options.cameras == ['all'] or len(rig) == 1 else options.cameras
    cameras = sized(rig, options.width, chosen)
    pictures = []
    for world in options.world:
        numbers = list(range(int(first), int(end)))
        if options.light:
            numbers = [with_light(light, world, int(first)) for light in options.light]
        for seed in numbers:
            drive = simulate(seed, max(10.0, options.at + .1), world)     # as in the benchmark
            pictures += tiles(drive, cameras, options.at, options.boxes)
    picture = sheet(pictures, options.columns)
    form = [cv2.IMWRITE_JPEG_QUALITY, options.quality] if options.out.suffix in (
        '.jpg', '.jpeg') else []
    if not cv2.imwrite(str(options.out), picture[..., ::-1], form):
        raise OSError(f'{options.out}: could not be written')
    print(f'{options.out}: {len(pictures)} pictures, {options.out.stat().st_size // 1024} KB')
    return 0


if __name__ == '__main__':
    sys.exit(main())
