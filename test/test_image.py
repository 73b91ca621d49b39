"""Pictures into the model's input: geometry by hand, damage refused with its name."""

import cv2
import numpy as np
import pytest
from fakes import picture

from wm_ros import image
from wm_ros.geometry import camera_pose, project
from wm_ros.image import ImageError, ImageMap, model_camera
from wm_ros.types import CameraModel, CameraState, Frame


def camera(width=1600, height=900, cx=None, cy=None, fx=None, distortion=()):
    k = np.array([[fx or width * 0.8, 0, width / 2 if cx is None else cx],
                  [0, fx or width * 0.8, height / 2 if cy is None else cy], [0, 0, 1.0]])
    return CameraModel('front', width, height, k, camera_pose(np.array([1.5, 0, 1.5]), 0.0),
                       distortion)


def jpeg(array, quality=90):
    return cv2.imencode('.jpg', array[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()


def png(array):
    return cv2.imencode('.png', array[..., ::-1])[1].tobytes()


def test_intrinsics_by_hand():
    # 1600 -> 400 is a quarter: f = 1280 / 4; cx' = (800 + 0.5) / 4 - 0.5 = 199.625;
    # the principal row (450.5 / 4 - 0.5 = 112.125) lies in row 112, which becomes row 48.
    mapped = model_camera(camera())
    assert (mapped.width, mapped.height) == (400, 160)
    np.testing.assert_allclose(mapped.k, [[320, 0, 199.625], [0, 320, 48.125], [0, 0, 1]])
    assert mapped.rows == (0, 160)
    assert mapped.distortion == ()


def test_a_short_picture_is_padded_and_says_so():
    # 1242x375 -> 400x121, principal row (172.9 + 0.5) * 121 / 375 - 0.5 = 55.45 -> top = 55 - 48.
    short = camera(1242, 375, cx=609.6, cy=172.9, fx=721.5)
    assert model_camera(short).rows == (0, 114)
    out = np.full((160, 400, 3), 7, dtype=np.uint8)
    ImageMap(short).apply(np.full((375, 1242, 3), 100, dtype=np.uint8), out)
    assert (out[:114] == 100).all()
    assert (out[114:] == 0).all()


def test_a_low_principal_point_pads_the_top():
    high = camera(1600, 900, cy=100)  # (100.5 / 4 - 0.5) = 24.6 -> row 25; 25 - 48 = -23
    assert model_camera(high).rows == (23, 160)


@pytest.mark.parametrize('width,height,reduction', [
    (1600, 900, 4), (800, 448, 2), (640, 480, 1), (1242, 375, 1), (3840, 2160, 8), (400, 160, 1)])
def test_a_dot_lands_where_the_new_intrinsics_project_it(width, height, reduction):
    model = camera(width, height)
    assert ImageMap(model).reduction == reduction
    point = np.array([12.0, 1.0, 0.6])
    pixel, _ = project(model, point)
    scale = width / 400
    rows, cols = np.mgrid[:height, :width]
    blob = np.exp(-((cols - pixel[0]) ** 2 + (rows - pixel[1]) ** 2) / (2 * (4 * scale) ** 2))
    array = np.repeat((255 * blob)[..., None], 3, axis=2).astype(np.uint8)
    out = np.empty((160, 400, 3), dtype=np.uint8)
    ImageMap(model).apply(image.decode(Frame('front', 0, png(array)), model), out)
    weights = out[..., 0].astype(float)
    v, u = (np.indices(weights.shape) * weights).sum(axis=(1, 2)) / weights.sum()
    want, _ = project(model_camera(model), point)
    np.testing.assert_allclose([u, v], want, atol=0.06)


@pytest.mark.parametrize('encode', [jpeg, png])
def test_files_and_arrays_give_the_same_input(encode):
    smooth = cv2.GaussianBlur(picture(3, 1600, 900), (0, 0), 8)
    outs = []
    for frame in (Frame('front', 0, smooth), Frame('front', 0, encode(smooth)),
                  Frame('front', 0, memoryview(encode(smooth)))):
        out = np.empty((160, 400, 3), dtype=np.uint8)
        decoded = image.decode(frame, camera())
        ImageMap(camera()).apply(decoded, out)
        outs.append(out.astype(int))
    assert np.abs(outs[0] - outs[1]).mean() < 1.5   # also fails where red and blue are swapped
    np.testing.assert_array_equal(outs[1], outs[2])


def test_exif_orientation_is_ignored():
    data = jpeg(picture(1, 800, 448))
    # An EXIF segment with orientation 6 (rotate by 90 degrees).
    tiff = b'MM\x00*\x00\x00\x00\x08\x00\x01\x01\x12\x00\x03\x00\x00\x00\x01\x00\x06\x00\x00' \
           b'\x00\x00\x00\x00'
    body = b'Exif\x00\x00' + tiff
    turned = data[:2] + b'\xff\xe1' + (len(body) + 2).to_bytes(2, 'big') + body + data[2:]
    model = camera(800, 448)
    np.testing.assert_array_equal(image.decode(Frame('front', 0, turned), model),
                                  image.decode(Frame('front', 0, data), model))


@pytest.mark.parametrize('damage,wanted', [
    (lambda data: b'', 'nothing, want JPEG'),
    (lambda data: data[:2], 'want JPEG'),
    (lambda data: data[:400], 'truncated'),
    (lambda data: data[:len(data) // 2], 'truncated'),
    (lambda data: data[:-2], 'truncated'),
    (lambda data: b'\x00' + data[1:], 'want JPEG'),
    (lambda data: data + b'tail', 'truncated'),
    (lambda data: data[:-2] + b'\xff\x05' + data[-2:], 'marker ff05'),
    (lambda data: data + bytes(7_000_000), 'bytes, want at most'),
])
def test_damaged_jpegs_are_refused_by_name(damage, wanted):
    data = damage(jpeg(picture(1, 1600, 900)))
    with pytest.raises(ImageError, match=wanted) as caught:
        image.decode(Frame('front', 0, data), camera())
    assert caught.value.state is CameraState.CORRUPT
    assert str(caught.value).startswith('front: ')


def test_padding_after_the_end_marker_is_fine():
    data = jpeg(picture(1, 1600, 900)) + b'\x00' * 16
    assert image.decode(Frame('front', 0, data), camera()).shape == (225, 400, 3)


def test_every_truncation_is_refused():
    data = jpeg(picture(1, 800, 448), 60)
    for size in range(0, len(data) - 1, 97):
        with pytest.raises(ImageError):
            image.check_file(data[:size], camera(800, 448))


def test_random_flips_never_raise_anything_else():
    data = jpeg(picture(1, 800, 448), 60)
    rng = np.random.default_rng(0)
    for _ in range(200):
        flipped = bytearray(data)
        flipped[rng.integers(len(data))] ^= 1 << rng.integers(8)
        try:
            decoded = image.decode(Frame('front', 0, bytes(flipped)), camera(800, 448))
        except ImageError:
            continue
        assert decoded.shape == (224, 400, 3)


def test_a_png_cut_short_is_refused():
    data = png(picture(1, 800, 448))
    with pytest.raises(ImageError, match='want IEND'):
        image.decode(Frame('front', 0, data[:-5]), camera(800, 448))


@pytest.mark.parametrize('frame_image', [jpeg(picture(1, 640, 480)), png(picture(1, 640, 480)),
                                         picture(1, 640, 480)])
def test_another_size_names_both(frame_image):
    with pytest.raises(ImageError, match='640x480, want 1600x900') as caught:
        image.decode(Frame('front', 0, frame_image), camera())
    assert caught.value.state is CameraState.UNCALIBRATED


@pytest.mark.parametrize('array', [np.zeros((900, 1600), np.uint8),
                                   np.zeros((900, 1600, 4), np.uint8),
                                   np.zeros((900, 1600, 3), np.float32)])
def test_another_kind_of_array_is_refused(array):
    with pytest.raises(ImageError, match=r'want uint8 \(900, 1600, 3\)'):
        image.decode(Frame('front', 0, array), camera())


@pytest.mark.parametrize('make,state', [
    (lambda: picture(2), CameraState.OK),
    (lambda: np.zeros((360, 640, 3), np.uint8), CameraState.BLACK),
    (lambda: np.random.default_rng(0).integers(0, 12, (360, 640, 3), dtype=np.uint8),
     CameraState.BLACK),
    (lambda: np.full((360, 640, 3), 255, np.uint8), CameraState.OVEREXPOSED),
    (lambda: np.full((360, 640, 3), 180, np.uint8), CameraState.OK),
])
def test_statistics(make, state):
    assert image.inspect(make()) is state


def test_a_dark_street_with_lamps_is_not_black():
    night = np.full((160, 400, 3), 5, np.uint8)
    night[20:40, 50:60] = 200
    assert image.inspect(night) is CameraState.OK


def test_a_jpeg_whose_data_ends_too_soon_is_seen_by_its_grey():
    data = jpeg(cv2.GaussianBlur(picture(4, 1600, 900), (0, 0), 3))
    # The end marker is there, so only what the decoder makes of it tells.
    cut = image.decode(Frame('front', 0, data[:len(data) // 2] + b'\xff\xd9'), camera())
    assert image.inspect(cut) is CameraState.CORRUPT


def test_checksum_tells_pictures_apart():
    one = picture(5, 400, 160)
    other = one.copy()
    other[80, 200, 1] ^= 1
    swapped = one[:, ::-1].copy()
    assert image.checksum(one) == image.checksum(one.copy())
    assert len({image.checksum(array) for array in (one, other, swapped)}) == 3


@pytest.mark.parametrize('change,field', [
    ({'k': np.full((3, 3), np.nan)}, 'k'), ({'k': np.eye(3)}, 'focal'),
    ({'k': np.array([[900, 0, -5], [0, 900, 450], [0, 0, 1.0]])}, 'principal point'),
    ({'k': camera().k.T}, 'row by row'), ({'k': camera().k + np.diag([0, 0, 1.0])}, 'row by row'),
    ({'width': 16, 'height': 16384}, 'at most 4 times the width'),
    ({'width': 0}, 'size'), ({'distortion': (0.1, 0.2)}, 'distortion'),
    ({'base_from_camera': np.diag([1.0, 1, 2, 1])}, 'base_from_camera')])
def test_a_bad_calibration_names_its_field(change, field):
    with pytest.raises(ImageError, match=field) as caught:
        model_camera(CameraModel(**{**camera().__dict__, **change}))
    assert caught.value.state is CameraState.UNCALIBRATED
