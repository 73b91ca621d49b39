"""How a drive looks: light, weather, colours, the sky."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np


@dataclass(frozen=True)
class Style:
    """One look, drawn once a drive. Colours are RGB 0-255 in daylight, before `light`."""

    light: str                     # sun, overcast, dusk, night, rain
    sun: np.ndarray                # unit vector towards the sun
    sun_strength: float            # share of a lit face above the ambient light
    ambient: np.ndarray            # (3,) multiplies every colour
    fog_per_m: float
    fog: np.ndarray                # (3,) 0-255, final colour
    zenith: np.ndarray
    horizon: np.ndarray
    asphalt: np.ndarray
    pavement: np.ndarray
    terrain: np.ndarray
    marking: np.ndarray
    leaves: np.ndarray
    wet: float
    shadow: float                  # brightness left in a cast shadow
    gain: np.ndarray               # (3,) exposure and white balance
    gamma: float
    contrast: float
    noise: float
    blur: float
    vignette: float
    wobble: float                  # scale of the body's pitch and roll, radians
    lamplight: float = 0.0         # what street lamps add to the ground below, by night
    saturation: float = 1.0
    exposure_s: float = 0.0        # shutter, for motion blur
    auto_exposure: float = 0.0     # share of the way to an even brightness, in log
    hunting: float = 0.0           # slow changes of exposure, in log
    jpeg: int = 0                  # quality, 0 for none
    rain: float = 0.0              # density of falling rain (or snow)
    wind: float = 0.0
    streak_px: float = 16.0        # at 400 pixels width, like `flake_px`
    flake_px: float = 1.0
    flake: float = 0.35            # brightness
    drops: float = 0.0             # mean number on the glass
    drop_light: float = 1.0
    snow: float = 0.0              # share of the road that is white


def sample_style(rng: np.random.Generator, season: str = '') -> Style:
    """Draw a look; `season` is '' for green ones, or 'snow'."""
    look = _any_style(rng)
    if season == 'snow':
        return _snowy(look, rng)
    if season:
        raise ValueError(f"season: want '' or 'snow', got {season!r}")
    return look


def _snowy(look: Style, rng: np.random.Generator) -> Style:
    """Return the look with snow on the ground, mostly falling too: pale, flat, hazy."""
    white = np.array([226., 231., 238.])
    falling = rng.random() < .75
    bright = 1.0 if look.light == 'night' else rng.uniform(.8, 1.0)
    pale = np.array([205., 209., 214.]) * bright * (1 if look.light != 'night' else .16)
    dull = look.light != 'night' and (falling or rng.random() < .5)
    return replace(
        look, light='overcast' if dull else look.light,
        sun_strength=.05 if dull else look.sun_strength * .6,
        shadow=.93 if dull else look.shadow,
        ambient=np.array([.86, .88, .92]) * bright if dull else look.ambient,
        fog_per_m=rng.uniform(.003, .018) if falling else rng.uniform(.001, .005),
        fog=pale, horizon=pale, zenith=pale * .93 if dull else look.zenith,
        terrain=white * rng.uniform(.9, 1.0), pavement=white * rng.uniform(.8, .97),
        leaves=np.array([150., 146., 140.]) * rng.uniform(.7, 1.25), snow=rng.uniform(.25, 1.0),
        wet=0.0, contrast=rng.uniform(.75, 1.0), rain=rng.uniform(.8, 4.0) if falling else 0.0,
        streak_px=rng.uniform(1, 5), flake_px=rng.uniform(1.2, 3.0), flake=rng.uniform(.5, .9),
        drops=rng.uniform(0, 6) if falling else 0.0)


def _any_style(rng: np.random.Generator) -> Style:
    light = str(rng.choice(['sun', 'overcast', 'rain', 'dusk', 'night'],
                           p=[.46, .27, .09, .08, .10]))
    azimuth = rng.uniform(-np.pi, np.pi)
    elevation = np.deg2rad(rng.uniform(18, 65) if light != 'dusk' else rng.uniform(6, 16))
    sun = np.array([np.cos(azimuth) * np.cos(elevation), np.sin(azimuth) * np.cos(elevation),
                    np.sin(elevation)])
    tint = rng.normal(0, 0.03, 3)
    table = {   # sun strength, ambient, shadow, zenith, horizon
        'sun': (rng.uniform(.5, .95), np.array([.6, .65, .72]), rng.uniform(.28, .55),
                np.array([70, 125, 205]), np.array([190, 212, 235])),
        'overcast': (.1, np.array([.9, .92, .95]), .88, np.array([165, 172, 182]),
                     np.array([205, 210, 214])),
        'rain': (.05, np.array([.58, .6, .63]), .93, np.array([120, 126, 134]),
                 np.array([160, 166, 172])),
        'dusk': (rng.uniform(.25, .45), np.array([.46, .44, .5]), .6, np.array([70, 84, 130]),
                 np.array([230, 175, 130])),
        'night': (.0, np.array([.17, .17, .21]) * rng.uniform(.7, 1.6), 1.0,
                  np.array([10, 12, 22]), np.array([38, 34, 36]))}
    strength, ambient, shadow, zenith, horizon = table[light]
    horizon = np.clip(horizon * (1 + tint) * rng.uniform(.85, 1.1), 0, 255)
    zenith = np.clip(zenith * (1 + tint) * rng.uniform(.8, 1.15), 0, 255)
    fog = rng.uniform(.0004, .002) if rng.random() < .8 else rng.uniform(.003, .018)
    grey = rng.uniform(62, 122)
    look = Style(
        light, sun, strength, ambient * (1 + tint) * rng.uniform(.85, 1.12), fog, horizon,
        zenith, horizon, grey * (1 + rng.normal(0, .025, 3)),
        rng.uniform(120, 178) * (1 + rng.normal(0, .04, 3)),
        np.array([[96, 112, 62], [118, 112, 82], [84, 104, 54], [132, 124, 104]])[
            rng.integers(4)] * rng.uniform(.8, 1.2),
        np.array([225., 225., 218.]) * rng.uniform(.75, 1.02),
        np.array([[66, 92, 42], [84, 108, 50], [52, 76, 40], [128, 108, 48], [104, 74, 44]])[
            rng.integers(5)] * rng.uniform(.75, 1.25),
        float(light == 'rain') * rng.uniform(.3, .8), shadow,
        (1 + rng.normal(0, .035, 3)) * np.exp(rng.normal(.08, .16)),
        np.exp(rng.normal(-.06, .12)), rng.uniform(.85, 1.38),
        rng.uniform(1, 4) + (rng.uniform(2, 7) if light in ('night', 'dusk') else 0),
        max(0.0, rng.uniform(-.5, .75)), max(0.0, rng.uniform(-.3, .45)),
        rng.uniform(.2, 1.2) * np.deg2rad(.12))
    dark = light in ('night', 'dusk', 'rain')
    rain = rng.uniform(.3, 1.6) if light == 'rain' else 0.0
    dirt = rng.random() < .08
    return replace(
        look, lamplight=rng.uniform(.2, 1.4) if light == 'night' else 0.0,
        saturation=rng.uniform(.5, 1.1),
        exposure_s=rng.uniform(.004, .022) if dark else rng.uniform(.0, .009),
        auto_exposure=rng.uniform(0, .25 if light == 'night' else .6),
        hunting=max(0.0, rng.uniform(-.05, .08)),
        jpeg=int(rng.uniform(60, 96)) if rng.random() < .4 else 0,
        rain=rain, wind=rng.normal(0, .25), streak_px=rng.uniform(8, 26),
        flake=rng.uniform(.15, .5),
        drops=(rng.uniform(0, 14) if rain else rng.uniform(3, 10) if dirt else 0.0),
        drop_light=rng.uniform(.75, 1.15) if rain else rng.uniform(.45, .8))


def noise_tile(rng: np.random.Generator, size: int, octaves: int = 5) -> np.ndarray:
    """Return a periodic (size, size) float32 texture of mean 0 and deviation 1."""
    out = np.zeros((size, size), np.float32)
    for k in range(octaves):
        n = max(2, size >> (octaves - 1 - k))
        coarse = rng.standard_normal((n, n)).astype(np.float32)
        wide = np.pad(coarse, 2, mode='wrap')
        big = cv2.resize(wide, None, fx=size / n, fy=size / n, interpolation=cv2.INTER_CUBIC)
        a = int(round(2 * size / n))
        out += big[a:a + size, a:a + size] * 0.62**k
    return out / out.std()


def panorama(style: Style, rng: np.random.Generator, width: int) -> np.ndarray:
    """
    Return the sky as (width // 4, width, 4) uint8 RGB0: azimuth along x, -8 to 82 degrees up.

    Row r is elevation 82 - r * 90 / rows degrees.
    """
    rows = width // 4
    elevation = np.deg2rad(82 - (np.arange(rows) + .5) * 90 / rows)
    up = np.clip(np.sin(np.maximum(elevation, 0)), 0, 1)[:, None, None]**.55
    sky = style.horizon * (1 - up) + style.zenith * up
    sky = np.broadcast_to(sky, (rows, width, 3)).astype(np.float32).copy()
    cover = {'sun': rng.uniform(-1.2, .4), 'overcast': 1.2, 'rain': 1.5,
             'dusk': rng.uniform(-.8, .6), 'night': -.5}[style.light]
    clouds = noise_tile(rng, 512, 6)
    clouds = cv2.resize(clouds, (width, width // 2), interpolation=cv2.INTER_LINEAR)[:rows]
    alpha = np.clip((clouds + cover) * .6, 0, 1)[..., None] * (up > 0)
    white = np.minimum(style.horizon * 1.08 + 12, 255) * (
        1 if style.light != 'night' else .6)
    sky += alpha * ((white + 10 * clouds[..., None]) - sky) * .8
    azimuth = (np.arange(width) + .5) / width * 2 * np.pi - np.pi
    if style.light in ('sun', 'dusk'):
        direction = np.stack([np.cos(elevation)[:, None] * np.cos(azimuth),
                              np.cos(elevation)[:, None] * np.sin(azimuth),
                              np.broadcast_to(np.sin(elevation)[:, None], (rows, width))], -1)
        angle = direction @ style.sun
        glow = np.exp(-(1 - angle) * 28)[..., None] * .6 + (angle > .9994)[..., None] * 2.
        sky += glow * np.array([255., 244., 214.])
    # A skyline far away: trees and roofs.
    line = np.zeros(width, np.float32)
    base = noise_tile(rng, 512, 7)[0]
    line += np.interp(np.arange(width), np.linspace(0, width, 512), base) * rng.uniform(.4, 1.2)
    line += rng.uniform(.8, 2.6)
    for _ in range(rng.integers(0, 60)):
        a = int(rng.integers(width))
        b = a + int(rng.integers(width // 200, width // 60))
        line[a:b] = np.maximum(line[a:b], rng.uniform(2, 7))
    below = np.rad2deg(elevation)[:, None] < line[None]
    haze = rng.uniform(.35, .75)
    dark = (style.leaves * style.ambient * .8) * (1 - haze) + style.horizon * haze
    speck = 1 + .08 * cv2.resize(clouds, (width, rows))[..., None]
    sky = np.where(below[..., None], dark * speck, sky)
    sky = np.clip(sky, 0, 255).astype(np.uint8)
    return cv2.merge([*cv2.split(sky), np.zeros((rows, width), np.uint8)])
