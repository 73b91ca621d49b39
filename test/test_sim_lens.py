"""The lens against geometry: motion blur along the image motion, exposure, rain; contact sheets."""

import dataclasses
import itertools
import time

import cv2
import numpy as np
import pytest

from wm_ros.geometry import project
from wm_ros.sim import gallery, throughput
from wm_ros.sim.appearance import sample_style
from wm_ros.sim.lens import Grain, Lens, MotionBlur
from wm_ros.sim.rigs import rig
from wm_ros.train.samples import model_rig

CAMERAS = {camera.name: camera for camera in model_rig(rig('surround')).cameras}


def clear_style(**changes):
    """Return a look whose lens changes nothing but what is asked for."""
    style = sample_style(np.random.default_rng(0))
    plain = dict(gain=np.ones(3), gamma=1.0, contrast=1.0, noise=0.0, blur=0.0, vignette=0.0,
                 saturation=1.0, exposure_s=0.0, auto_exposure=0.0, hunting=0.0, jpeg=0, rain=0.0,
                 drops=0.0)
    return dataclasses.replace(style, **{**plain, **changes})


def lens(style):
    rng = np.random.default_rng(1)
    return Lens(style, rng, CAMERAS['front'], Grain(style, rng))


@pytest.mark.parametrize('name, point, speed, turn', [
    ('front_left', (5.0, 4.0, 0.0), 14.0, 0.0), ('back_right', (-1.5, -5.0, 0.0), 14.0, 0.0),
    ('front', (7.0, 1.5, 0.0), 25.0, 0.0), ('front', (12.0, 1.0, 0.0), 0.0, 0.8)])
def test_a_spot_on_the_road_smears_along_its_way(name, point, speed, turn):
    camera, exposure = CAMERAS[name], 0.03
    spot = np.array(point)
    c, s = np.cos(turn * exposure), np.sin(turn * exposure)   # the base, one exposure earlier
    before = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ spot + [speed * exposure, 0, 0]
    (now, then), depth = project(camera, np.array([spot, before]))
    assert depth.min() > 0
    picture = np.zeros((camera.height, camera.width, 3), np.uint8)
    cv2.circle(picture, np.round(now * 8).astype(int).tolist(), 20, (255, 255, 255), -1,
               cv2.LINE_AA, 3)
    smeared = MotionBlur(camera, exposure).apply(picture, speed, turn)[..., 0].astype(float)
    v, u = np.nonzero(smeared > 12)
    weight = smeared[v, u]
    centre = np.array([np.average(u, weights=weight), np.average(v, weights=weight)])
    way = then - now
    length = np.hypot(*way)
    assert length > 2
    along, aside = (centre - now) @ way / length, (
        way[0] * (centre - now)[1] - way[1] * (centre - now)[0]) / length
    assert 0.2 * length < along < 0.8 * length, 'its middle is half way'
    assert abs(aside) < 0.25 * length + 0.3


def test_a_standing_vehicle_blurs_nothing():
    picture = np.random.default_rng(0).integers(0, 255, (160, 400, 3), dtype=np.uint8)
    blur = MotionBlur(CAMERAS['front_left'], 0.02)
    assert np.array_equal(blur.apply(picture, 0.0, 0.0), picture)
    assert not np.array_equal(blur.apply(picture, 15.0, 0.0), picture)


def test_exposure_follows_the_scene():
    dark = np.full((160, 400, 3), 40, np.uint8)
    still = lens(clear_style()).apply(dark, np.random.default_rng(0), 0.0, 0.0, 0.0)
    adapted = lens(clear_style(auto_exposure=0.6)).apply(dark, np.random.default_rng(0), 0.0, 0.0,
                                                          0.0)
    assert abs(still.mean() - 40) < 4
    assert 60 < adapted.mean() < 100


def test_rain_falls_anew_in_each_frame_and_drops_stay():
    grey = np.full((160, 400, 3), 90, np.uint8)
    rain, drops = lens(clear_style(rain=1.0)), lens(clear_style(drops=8.0, drop_light=0.5))
    plain = lens(clear_style()).apply(grey, np.random.default_rng(1), 0.1, 0.0, 0.0)
    frames = [[one.apply(grey, np.random.default_rng(n), 0.1 * n, 0.0, 0.0) for n in (1, 2)]
              for one in (rain, drops)]
    assert 0.002 < np.mean(frames[0][0] != plain) < 0.2
    assert not np.array_equal(*frames[0])
    assert np.array_equal(*frames[1])
    assert 0.0005 < np.mean(frames[1][0] != plain) < 0.2


def test_a_strong_jpeg_shows_its_blocks():
    edges = np.random.default_rng(0).integers(0, 255, (160, 400, 3), dtype=np.uint8)
    plain, fine, coarse = (lens(clear_style(jpeg=quality)).apply(
        edges, np.random.default_rng(0), 0.0, 0.0, 0.0).astype(int) for quality in (0, 95, 60))
    assert 0 < np.abs(fine - plain).mean() < np.abs(coarse - plain).mean()


def test_a_contact_sheet_is_written(tmp_path):
    out = tmp_path / 'sheet.jpg'
    assert gallery.main([str(out), '--world', 'sim', 'rural', '--seeds', '3:4', '--columns', '2',
                         '--light', 'sun', 'night', '--width', '200', '--boxes']) == 0
    assert cv2.imread(str(out)).shape == (160, 400, 3)
    with pytest.raises(SystemExit):
        gallery.main([str(out), '--seeds', '4:4'])
    with pytest.raises(ValueError, match='want some of front'):
        gallery.main([str(out), '--cameras', 'roof'])


def test_throughput_counts_sets_and_where_the_time_goes(monkeypatch):
    # Time goes on by one whenever it is asked for: before the first drive and after each set.
    monkeypatch.setattr(time, 'monotonic', itertools.count().__next__)
    found = throughput.work(3, 'sim', throughput.rig_of('front', False), 1.0, until=3)
    assert found['sets'] == 3
    assert all(found[part] > 0 for part in ('simulate', 'set up', 'render', 'truth'))
