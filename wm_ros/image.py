"""
From a camera's picture to the model's input: checks, decoding at reduced scale, resize, crop.

The picture is scaled to the input's width and shifted so that the principal point lies in row
`HORIZON_ROW`: what is cut or padded is sky, never the ground near the horizon. Lens distortion
stays in the pixels; the lift tables project through it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from wm_ros.runtime.contract import IMAGE_HEIGHT, IMAGE_WIDTH
from wm_ros.types import CameraModel, CameraState, Frame, ImageForm

#: Row of the input in which the principal point lies.
HORIZON_ROW = 48
#: A file may hold this many bytes a pixel of the calibrated size; beyond that it is not decoded.
MAX_BYTES_PER_PIXEL = 4
MAX_HEADER_BYTES = 1 << 16
MAX_HEIGHT_PER_WIDTH = 4

_REDUCED = {1: cv2.IMREAD_COLOR, 2: cv2.IMREAD_REDUCED_COLOR_2, 4: cv2.IMREAD_REDUCED_COLOR_4,
            8: cv2.IMREAD_REDUCED_COLOR_8}
_PNG_START, _PNG_END = b'\x89PNG\r\n\x1a\n', b'IEND\xaeB`\x82'


class ImageError(ValueError):
    """A picture that must not reach the model; `state` is how diagnostics shall show its camera."""

    def __init__(self, message: str, state: CameraState = CameraState.CORRUPT) -> None:
        super().__init__(message)
        self.state = state


@dataclass(frozen=True)
class ModelCamera(CameraModel):
    """A camera after mapping into the input; rows [begin, end) of `rows` hold its picture."""

    rows: tuple[int, int] = (0, IMAGE_HEIGHT)


@dataclass(frozen=True)
class _Placement:
    """Where the scaled picture of `height` rows lies: its row `top` is the input's row 0."""

    height: int
    top: int


def _placement(camera: CameraModel) -> _Placement:
    height = max(1, round(camera.height * IMAGE_WIDTH / camera.width))
    principal_row = (camera.k[1, 2] + 0.5) * height / camera.height - 0.5
    return _Placement(height, round(float(principal_row)) - HORIZON_ROW)


def check_camera(camera: CameraModel) -> None:
    """Raise ImageError (UNCALIBRATED) where a calibration cannot be used, naming the field."""
    def refuse(field: str, found: object, wanted: str) -> None:
        raise ImageError(f'{camera.name}: {field} {found}, want {wanted}',
                         CameraState.UNCALIBRATED)

    if not (16 <= camera.width <= 16384 and 16 <= camera.height <= 16384):
        refuse('size', f'{camera.width}x{camera.height}', '16 to 16384 pixels a side')
    # A strip is scaled to the input's width before it is cut: 16x16384 would take 0.5 GB.
    if camera.height > MAX_HEIGHT_PER_WIDTH * camera.width:
        refuse('size', f'{camera.width}x{camera.height}',
               f'a height of at most {MAX_HEIGHT_PER_WIDTH} times the width')
    k = np.asarray(camera.k)
    if k.shape != (3, 3) or not np.isfinite(k).all():
        refuse('k', k.tolist(), '3x3 finite numbers')
    if not (0.05 * camera.width <= k[0, 0] <= 50 * camera.width
            and 0.05 * camera.width <= k[1, 1] <= 50 * camera.width):
        refuse('k', f'focal lengths {k[0, 0]:g}, {k[1, 1]:g}',
               f'0.05 to 50 times the width of {camera.width}')
    # Of a transposed one the principal point would be read as 0, 0.
    if k[1, 0] or (k[2] != (0, 0, 1)).any():
        refuse('k', k.tolist(), 'fx, skew, cx, 0, fy, cy, 0, 0, 1 row by row')
    if not (0 <= k[0, 2] <= camera.width and 0 <= k[1, 2] <= camera.height):
        refuse('k', f'principal point {k[0, 2]:g}, {k[1, 2]:g}', 'a point in the picture')
    if len(camera.distortion) not in (0, 4, 5, 8) or not np.isfinite(camera.distortion).all():
        refuse('distortion', list(camera.distortion), '0, 4, 5 or 8 finite numbers')
    pose = np.asarray(camera.base_from_camera)
    if pose.shape != (4, 4) or not np.isfinite(pose).all():
        refuse('base_from_camera', pose.tolist(), '4x4 finite numbers')
    if np.abs(pose[:3, :3] @ pose[:3, :3].T - np.eye(3)).max() > 1e-3:
        refuse('base_from_camera', pose[:3, :3].tolist(), 'a rotation')


def model_camera(camera: CameraModel) -> ModelCamera:
    """
    Return the camera as the model sees it: 400x160 pixels, `k` to match, distortion kept.

    Pixel centres lie at integers (OpenCV), so that u' = s * (u + 0.5) - 0.5.
    """
    check_camera(camera)
    placement = _placement(camera)
    sx, sy = IMAGE_WIDTH / camera.width, placement.height / camera.height
    k = np.asarray(camera.k, dtype=np.float64).copy()
    k[0] *= sx
    k[1] *= sy
    k[0, 2] += 0.5 * sx - 0.5
    k[1, 2] += 0.5 * sy - 0.5 - placement.top
    rows = (max(0, -placement.top), min(IMAGE_HEIGHT, placement.height - placement.top))
    return ModelCamera(camera.name, IMAGE_WIDTH, IMAGE_HEIGHT, k, camera.base_from_camera,
                       camera.distortion, rows)


class ImageMap:
    """Maps the pictures of one camera, at full or reduced size, into the model's input."""

    def __init__(self, camera: CameraModel) -> None:
        self.camera = camera
        self.reduction = _reduction(camera)
        self._placement = _placement(camera)
        self.rows = model_camera(camera).rows

    def apply(self, image: np.ndarray, out: np.ndarray, bgr: bool = False) -> None:
        """
        Write `image` (H, W, 3) uint8 into `out` (160, 400, 3) uint8 RGB; padded rows are 0.

        `image` may have any size of the camera's shape, reduced or whole. `bgr` says that its
        channels are in OpenCV's order.
        """
        begin, end = self.rows
        top = self._placement.top
        size = (IMAGE_WIDTH, self._placement.height)
        if image.shape[1::-1] != size:
            smaller = image.shape[1] > size[0]
            image = cv2.resize(image, size,
                               interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR)
        part = image[begin + top:end + top]
        if bgr:
            cv2.cvtColor(part, cv2.COLOR_BGR2RGB, dst=out[begin:end])
        else:
            out[begin:end] = part
        out[:begin] = 0
        out[end:] = 0


def _reduction(camera: CameraModel) -> int:
    """Return the largest reduction (1, 2, 4, 8) that keeps 400 columns and divides both sides."""
    for factor in (8, 4, 2):
        # Where it does not divide, decoders round up and the picture would no longer fit `k`.
        divides = camera.width % factor == 0 and camera.height % factor == 0
        if divides and camera.width // factor >= IMAGE_WIDTH:
            return factor
    return 1


def decode(frame: Frame, camera: CameraModel) -> np.ndarray:
    """
    Return the frame's picture as (H, W, 3) uint8 RGB, at a reduced scale where that is exact.

    Raises ImageError for whatever `check_file` and `check_array` refuse, and the one that stands
    in for a picture refused before.
    """
    if isinstance(frame.image, ImageError):
        raise frame.image
    if frame.form is ImageForm.ARRAY:
        check_array(frame.image, camera)
        return frame.image
    return cv2.cvtColor(decode_bgr(frame.image, camera, _reduction(camera)), cv2.COLOR_BGR2RGB)


def decode_bgr(data: bytes | memoryview, camera: CameraModel, reduction: int) -> np.ndarray:
    """Check and decode a JPEG or PNG file to (H, W, 3) uint8 BGR at 1/`reduction` of its size."""
    check_file(data, camera)
    flags = _REDUCED[reduction] | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        image = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), flags)
    except cv2.error as err:
        raise ImageError(f'{camera.name}: the decoder refused the file: {err.err}') from err
    if image is None:
        raise ImageError(f'{camera.name}: {len(data)} bytes that do not decode, want an image')
    want = (camera.height // reduction, camera.width // reduction, 3)
    if image.shape != want:
        raise ImageError(f'{camera.name}: decoded to {image.shape}, want {want}')
    return image


def check_array(image: np.ndarray, camera: CameraModel) -> None:
    """Raise ImageError where a decoded picture has not the calibrated size and type."""
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ImageError(f'{camera.name}: a picture of {image.dtype} {image.shape}, '
                         f'want uint8 ({camera.height}, {camera.width}, 3)')
    _check_size(image.shape[1], image.shape[0], camera)


def check_file(data: bytes | memoryview, camera: CameraModel) -> None:
    """
    Raise ImageError where a file is not a whole JPEG or PNG of the calibrated size.

    Runs before decoding: OpenCV takes almost every damaged file, and a file may claim any size.
    """
    cap = camera.width * camera.height * MAX_BYTES_PER_PIXEL + MAX_HEADER_BYTES
    if len(data) > cap:
        raise ImageError(f'{camera.name}: {len(data)} bytes, want at most {cap}')
    head = bytes(data[:8])
    if head[:3] == b'\xff\xd8\xff':
        _check_jpeg(np.frombuffer(data, dtype=np.uint8), camera)
    elif head == _PNG_START:
        _check_png(bytes(data[:24]), bytes(data[-8:]), camera)
    else:
        raise ImageError(f'{camera.name}: {len(data)} bytes that start with '
                         f'{head[:4].hex() or "nothing"}, want JPEG (ffd8ff) or PNG (89504e47)')


def _check_png(head: bytes, tail: bytes, camera: CameraModel) -> None:
    if len(head) < 24 or head[12:16] != b'IHDR':
        raise ImageError(f'{camera.name}: a PNG without its header, want IHDR first')
    if tail != _PNG_END:
        raise ImageError(f'{camera.name}: a PNG that ends in {tail.hex()}, want IEND: truncated')
    _check_size(int.from_bytes(head[16:20], 'big'), int.from_bytes(head[20:24], 'big'), camera)


def _check_jpeg(data: np.ndarray, camera: CameraModel) -> None:
    """Walk the segments up to the scan for the size, then the scan's markers (ITU-T T.81, B)."""
    at, size = 2, len(data)
    while True:
        if at + 4 > size or data[at] != 0xFF:
            raise ImageError(f'{camera.name}: a JPEG of {size} bytes with no marker at byte {at}, '
                             'want one: truncated or damaged')
        marker = int(data[at + 1])
        if marker == 0xFF:  # fill bytes may precede a marker
            at += 1
            continue
        length = int(data[at + 2]) << 8 | int(data[at + 3])
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            if at + 9 > size:
                raise ImageError(f'{camera.name}: a JPEG cut in its frame header')
            _check_size(int(data[at + 7]) << 8 | int(data[at + 8]),
                        int(data[at + 5]) << 8 | int(data[at + 6]), camera)
        at += 2 + length
        if marker == 0xDA:
            break
    scan = data[at:]
    marks = np.flatnonzero(scan[:-1] == 0xFF)
    codes = scan[marks + 1]
    ends = np.flatnonzero(codes == 0xD9)
    # What follows EOI must be padding only.
    if not len(ends) or scan[marks[ends[-1]] + 2:].any():
        raise ImageError(f'{camera.name}: a JPEG of {size} bytes without its end marker '
                         '(ffd9): truncated')
    bad = codes[~_SCAN_CODES[codes]]
    if len(bad):
        raise ImageError(f'{camera.name}: marker ff{int(bad[0]):02x} inside a JPEG scan: damaged')


#: What may follow 0xFF in and between scans: stuffing, fill, restarts, tables, scans, COM, EOI.
_SCAN_CODES = np.zeros(256, dtype=bool)
_SCAN_CODES[[0x00, 0xFF, *range(0xD0, 0xD8), 0xC4, 0xD9, 0xDA, 0xDB, 0xDC, 0xDD, 0xFE]] = True


def _check_size(width: int, height: int, camera: CameraModel) -> None:
    if (width, height) != (camera.width, camera.height):
        raise ImageError(f'{camera.name}: a picture of {width}x{height}, want '
                         f'{camera.width}x{camera.height} as calibrated', CameraState.UNCALIBRATED)


def inspect(image: np.ndarray) -> CameraState:
    """
    Judge a picture (H, W, 3) uint8 by its statistics: OK, BLACK, OVEREXPOSED or CORRUPT.

    Black: all but a few pixels under 16. Overexposed: 9 in 10 at 250 or more. Corrupt: the lowest
    rows are the mid grey that libjpeg fills in where the data ended too soon.
    """
    green = image[::4, ::4, 1]
    pixels = green.size
    if np.count_nonzero(green < 16) > 0.998 * pixels:
        return CameraState.BLACK
    if np.count_nonzero(green >= 250) > 0.9 * pixels:
        return CameraState.OVEREXPOSED
    low = image[-max(1, image.shape[0] // 16):]
    if low.min() >= 127 and low.max() <= 129:
        return CameraState.CORRUPT
    return CameraState.OK


def checksum(image: np.ndarray) -> int:
    """Return a checksum of a contiguous picture; the same twice in a row hints at a frozen one."""
    # Sums of 8-byte words, plain and weighted by place: 20 times cheaper than CRC-32.
    words = np.ascontiguousarray(image).reshape(-1)[:image.size // 8 * 8].view(np.uint64)
    return int(words.sum(dtype=np.uint64)) ^ int((words[::2] >> np.uint64(1)).sum(dtype=np.uint64))


def calibrated(camera: CameraModel, k: np.ndarray, distortion: tuple[float, ...],
               width: int, height: int) -> CameraModel:
    """Return `camera` with the intrinsics that its driver sends; raise ImageError for bad ones."""
    changed = replace(camera, k=np.asarray(k, dtype=np.float64).reshape(3, 3), width=width,
                      height=height, distortion=tuple(float(value) for value in distortion))
    check_camera(changed)
    return changed
