"""Worlds apart from the training mixes, and what an ego that stops does to others."""

import numpy as np
import pytest

from wm_ros.geometry import relative_pose
from wm_ros.sim import seeds
from wm_ros.sim.drive import simulate
from wm_ros.sim.layout import make_layout
from wm_ros.sim.render import Renderer
from wm_ros.sim.rigs import rig
from wm_ros.sim.roads import LAMP, WALKWAY
from wm_ros.sim.worlds import ANIMAL, WORLDS
from wm_ros.train.samples import WORLDS as TRAINED
from wm_ros.train.samples import model_rig


def test_training_draws_only_the_two_mixes():
    assert {name for name, _ in TRAINED} == {'sim', 'sim-hard'}
    assert {'rural', 'snow', 'animal'} <= set(WORLDS)


def test_a_rural_road_is_narrow_and_has_no_pavement():
    bends = []
    for seed in range(4):
        layout = make_layout(seeds.generator(seed, seeds.LAYOUT), 'rural')
        assert layout.kind == 'rural' and not layout.crossings and not layout.slots
        assert not np.any(layout.classes & WALKWAY)
        assert not np.any(layout.statics[:, 6] == LAMP)
        assert all(road.half_m(0) < 3.5 for road in layout.roads)
        bends.append(np.ptp(layout.roads[0].heading))
    assert np.median(bends) > np.deg2rad(30)
    with pytest.raises(ValueError, match='want'):
        make_layout(seeds.generator(0, seeds.LAYOUT), 'moon')


def test_snow_whitens_the_ground():
    cameras = model_rig(rig('front'))
    ground = {}
    for world in ('sim', 'snow'):
        for seed in (0, 1):                    # by day
            picture = Renderer(simulate(seed, 1.0, world), cameras).render(2).images['front']
            low = picture[100:].astype(float)
            ground.setdefault(world, []).append([low.mean(), np.ptp(low, axis=-1).mean()])
    assert np.mean(ground['snow'], 0)[0] > np.mean(ground['sim'], 0)[0] + 15


def test_an_animal_runs_across_before_the_ego_and_is_not_hit():
    jumped = 0
    for seed in (27, 33, 38, 0, 1):            # in the first three a careless one would be hit
        recording = simulate(seed, 8.0, 'animal').recording
        animals = np.flatnonzero(recording.classes == ANIMAL)
        poses, ego = recording.poses[:, animals], recording.poses[:, :1]
        speed = np.hypot(*np.moveaxis(np.diff(poses[..., :2], axis=0), -1, 0)) / 0.1
        away = np.stack([relative_pose(ego[t, 0], poses[t]) for t in range(len(poses))])[1:]
        ahead = (speed > 3) & (away[..., 0] > 0) & (away[..., 0] < 40) & (
            np.abs(away[..., 1]) < 8)
        jumped += bool(ahead.any())
        running = away[speed > 3]
        assert not np.any((np.abs(running[:, 0]) < 2.3) & (np.abs(running[:, 1]) < 0.9))
    assert jumped >= 3


@pytest.mark.parametrize('seed', [9, 47, 48])
def test_a_follower_does_as_the_ego_does(seed):
    """The same drive twice, the ego braking or not: one who follows it stops or does not."""
    free, stopped = simulate(seed, 4.0), simulate(seed, 4.0, ego_stops_s=0.5)
    t = free.step_at(free.time_s(5))
    assert np.array_equal(free.recording.poses[:t], stopped.recording.poses[:t])
    speeds = [drive.recording.axle[t + 30, 3] for drive in (free, stopped)]
    assert speeds[1] < speeds[0] - 2
    truths = [drive.truth(5, rig('front')) for drive in (free, stopped)]
    before = truths[0]
    follows = (before.poses[:, 0] < -4) & (before.poses[:, 0] > -26) & (
        np.abs(before.poses[:, 1]) < 1) & (before.velocities[:, 0] > 4)
    row = int(np.flatnonzero(follows)[0])
    assert np.array_equal(before.ids, truths[1].ids)
    far = [truth.futures[row, -1, 0] for truth in truths]
    assert far[1] < far[0] - 2.0, 'who follows one that stops gets less far'
    others = ~follows & (np.abs(before.poses[:, 1]) > 6) & (before.poses[:, 0] > 10)
    moved = np.hypot(*(truths[1].futures[others, :, :2] - before.futures[others, :, :2]).T)
    assert np.median(moved) < 0.01, 'most others do not care'
