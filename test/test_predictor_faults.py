"""The predictor on broken input and output: what is masked, named, refused, and comes back."""

from dataclasses import replace

import numpy as np
import pytest
from driven import (
    MS,
    PICTURES,
    RIG,
    Spy,
    content,
    drive,
    ego,
    frame_set,
    jpeg,
    loaded_backend,
    predictors,
)
from fakes import AGENTS, picture

from wm_ros.geometry import camera_pose
from wm_ros.image import ImageError, model_camera
from wm_ros.lift import seen_mask
from wm_ros.predictor import PredictorSettings
from wm_ros.types import CameraRig, CameraState, EgoPlan, EgoState, PlanSource


@pytest.fixture(scope='module')
def loaded(tmp_path_factory):
    with loaded_backend(tmp_path_factory.mktemp('artifact')) as pair:
        yield pair


@pytest.fixture
def make(loaded):
    with predictors(loaded) as new:
        yield new


def test_a_dropped_frame_is_masked_and_counted(make, loaded):
    spy = Spy(loaded[1])
    predictor = make(spy=spy)
    drive(predictor, range(10))
    info = drive(predictor, range(11, 17))
    assert info.skipped == 0
    forecast = predictor.forecast()
    assert forecast.valid
    assert (forecast.window.frames_used, forecast.window.frames_missing) == (15, 1)
    assert forecast.window.max_gap_periods == 2.0
    fold = spy.last('fold')
    np.testing.assert_array_equal(np.flatnonzero(fold['frame_mask'] == 0), [9])
    assert not fold['memory'][9].any()      # never a silent repeat
    np.testing.assert_allclose(fold['age_s'], 0.1 * np.arange(15, -1, -1), atol=1e-6)


@pytest.mark.parametrize('lost,valid', [(1, True), (2, False), (3, False)])
def test_gaps_beyond_the_rule_are_invalid(make, lost, valid):
    predictor = make()
    drive(predictor, range(12))
    drive(predictor, range(12 + lost, 18))
    forecast = predictor.forecast()
    assert forecast.valid == valid
    if lost == 2:
        assert forecast.reasons == ('window: a gap of 3 periods, want at most 2',)
    if lost == 3:
        assert forecast.reasons == ('window: 13 of 16 frames, want at least 14',
                                    'window: a gap of 4 periods, want at most 2')
    # It heals in the first frame in which the rule holds.
    for i in range(18, 40):
        predictor.encode(frame_set(i), ego(i))
        if predictor.forecast().valid:
            break
    assert predictor.forecast().valid and i < 12 + 16 + lost


def test_the_gap_that_the_buffer_told_counts_too(make):
    predictor = make()
    drive(predictor, range(15))
    info = predictor.encode(frame_set(15, skipped=2), ego(15))
    assert info.skipped == 2


@pytest.mark.parametrize('damage,state,wanted', [
    (None, CameraState.MISSING, 'camera camera_1: no frame in the set'),
    (b'no picture', CameraState.CORRUPT, 'camera camera_1: 10 bytes that start with'),
    (PICTURES[0, 1][:3000], CameraState.CORRUPT, 'truncated'),
    (np.zeros((360, 640, 3), np.uint8), CameraState.BLACK, 'camera camera_1: picture is BLACK'),
    (np.full((360, 640, 3), 255, np.uint8), CameraState.OVEREXPOSED, 'OVEREXPOSED'),
    (ImageError('camera_1: encoding bayer, want rgb8'), CameraState.CORRUPT,
     'camera camera_1: encoding bayer'),
    (picture(1, 320, 180), CameraState.UNCALIBRATED, '320x180, want 640x360'),
    (jpeg(picture(1, 320, 180)), CameraState.UNCALIBRATED, '320x180, want 640x360'),
])
def test_a_bad_camera_is_masked_named_and_comes_back(make, loaded, damage, state, wanted):
    spy = Spy(loaded[1])
    predictor = make(spy=spy)
    drive(predictor, range(16))
    bad = (frame_set(16, cameras=('camera_0',)) if damage is None
           else frame_set(16, camera_1=damage))
    info = predictor.encode(bad, ego(16))
    assert info.cameras == {'camera_0': CameraState.OK, 'camera_1': state}
    forecast = predictor.forecast()
    assert not forecast.valid and len(forecast.reasons) == 1 and wanted in forecast.reasons[0]
    assert forecast.window.cameras['camera_1'] is state and forecast.window.frames_partial == 1
    assert len(forecast.agents) == AGENTS          # made with the trained camera mask, and said so
    given = spy.last('encode')
    assert not given['images'][1].any()
    used = given['lift_weight'].any(axis=1)
    assert used.any() and (given['lift_index'][used] < 1000).all()
    # What only the lost camera saw is not observed now.
    rig = CameraRig(tuple(map(model_camera, RIG.cameras)))
    seen = seen_mask(rig, [True, False])
    assert (forecast.occupancy_static[~seen] == 255).all()
    assert (forecast.occupancy_agents[:, ~seen] == 255).all()
    assert (forecast.occupancy_static[seen] < 255).all()
    predictor.encode(frame_set(17), ego(17))
    again = predictor.forecast()
    assert again.valid and again.window.frames_partial == 1


@pytest.mark.parametrize('change', [
    {'distortion': (1e30, 0.0, 0.0, 0.0, 0.0)},
    {'base_from_camera': camera_pose(np.array([0.0, 0.0, 1e6]), 0.0)}])
def test_a_camera_that_sees_no_place_is_left_out_by_name(make, change):
    """Its pictures would count, and forecasts without anybody in view of it be valid."""
    predictor = make()
    predictor.set_rig(CameraRig((RIG.cameras[0], replace(RIG.cameras[1], **change))))
    info = drive(predictor, range(16))
    assert list(info.cameras.values()) == [CameraState.OK, CameraState.UNCALIBRATED]
    assert predictor.forecast().reasons == (
        'camera camera_1: as calibrated it sees no place within 50 m; want k, distortion and pose '
        'of this camera',)
    predictor.set_rig(RIG)
    drive(predictor, range(16, 30))
    assert predictor.forecast().valid


def test_all_cameras_lost_is_a_masked_frame(make, loaded):
    spy = Spy(loaded[1])
    predictor = make(spy=spy)
    drive(predictor, range(16))
    predictor.encode(frame_set(16, cameras=()), ego(16))
    forecast = predictor.forecast()
    assert not forecast.valid and forecast.agents == () and len(forecast.reasons) == 2
    assert (forecast.occupancy_static == 255).all()
    assert spy.count('encode') == 16
    predictor.encode(frame_set(17), ego(17))
    again = predictor.forecast()
    assert again.valid and again.window.frames_used == 15 and again.window.max_gap_periods == 2


def test_a_frozen_camera_is_found_and_comes_back(make):
    predictor = make(PredictorSettings(frozen_after=4))
    drive(predictor, range(16))
    states = [predictor.encode(frame_set(i, camera_0=PICTURES[3, 0]), ego(i)).cameras['camera_0']
              for i in range(16, 22)]
    assert states == [CameraState.OK] * 4 + [CameraState.FROZEN] * 2
    assert 'FROZEN' in predictor.forecast().reasons[0]
    assert predictor.encode(frame_set(22), ego(22)).cameras['camera_0'] is CameraState.OK
    never = make(PredictorSettings(frozen_after=0))
    for i in range(10):
        assert never.encode(frame_set(i, camera_0=PICTURES[3, 0]), ego(i)).problems == ()


def test_a_clock_that_goes_back_begins_a_new_window(make):
    predictor = make()
    drive(predictor, range(30))
    info = predictor.encode(frame_set(2), ego(2))
    assert info.reset.startswith('stamp 1200000000 after')
    assert predictor.forecast().reasons == ('window: 1 of 16 frames, want at least 14',)
    drive(predictor, range(3, 18))
    fresh = make()
    drive(fresh, range(2, 18))
    assert content(predictor.forecast(), ids=False) == content(fresh.forecast(), ids=False)


def test_a_gap_of_a_window_begins_a_new_one(make):
    predictor = make()
    drive(predictor, range(16))
    assert predictor.encode(frame_set(40), ego(40)).reset == 'gap of 2.5 s'
    assert predictor.forecast().window.frames_used == 1


def test_without_odometry_the_mask_stands_in_and_it_is_said(make, loaded):
    spy = Spy(loaded[1])
    predictor = make(spy=spy)
    for i in range(16):
        predictor.encode(frame_set(i), None)
    forecast = predictor.forecast(EgoPlan(np.ones((6, 3)), PlanSource.GIVEN))
    assert forecast.valid and not forecast.window.odometry and forecast.odom_from_base is None
    assert forecast.ego_plan.source is PlanSource.NONE and not forecast.ego_plan.poses.any()
    assert spy.last('fold')['odometry_mask'].tolist() == [0]
    assert not spy.last('fold')['now_from_frame'].any()
    assert not spy.last('rollout')['ego_motion'].any()


@pytest.mark.parametrize('bad', [
    EgoState(1500 * MS, np.array([5.0, 1.0, np.nan]), 10.0, 0.1),
    EgoState(1500 * MS, np.array([5.0, 1.0, 0.1]), np.inf, 0.1),
    EgoState(1200 * MS, np.array([2.0, 1.0, 0.04]), 10.0, 0.1),      # 0.3 s old
    EgoState(1500 * MS, np.array([500.0, 1.0, 0.1]), 10.0, 0.1),     # 450 m in 0.1 s
    None])
def test_bad_odometry_never_reaches_the_model(make, loaded, bad):
    spy = Spy(loaded[1])
    predictor = make(spy=spy)
    for i in range(16):
        predictor.encode(frame_set(i), bad if i == 5 else ego(i))
    assert not predictor.forecast().window.odometry
    assert all(np.isfinite(value).all() for value in spy.last('fold').values())
    assert spy.last('fold')['odometry_mask'].tolist() == [0]
    drive(predictor, range(16, 22))                  # set 5 has left the window
    assert predictor.forecast().window.odometry


def test_an_ego_state_of_another_stamp_is_moved_to_the_frame(make, loaded):
    spy = Spy(loaded[1])
    predictor = make(spy=spy)
    for i in range(16):
        early = EgoState(1000 * MS + i * 100 * MS - 50 * MS, np.array([i - 0.5, 0.0, 0.0]), 10.0,
                         0.0)
        predictor.encode(frame_set(i), early)
    np.testing.assert_allclose(predictor.forecast().odom_from_base, [15.0, 0, 0])


@pytest.mark.parametrize('poses', [np.full((6, 3), np.nan), np.zeros((5, 3)),
                                   np.full((6, 3), 1e6)])
def test_a_bad_plan_is_named_and_replaced(make, loaded, poses):
    spy = Spy(loaded[1])
    predictor = make(spy=spy)
    drive(predictor, range(16))
    forecast = predictor.forecast(EgoPlan(poses, PlanSource.GIVEN))
    assert not forecast.valid and forecast.reasons[0].startswith('ego plan: ')
    assert forecast.ego_plan.source is PlanSource.CONSTANT_TURN_RATE
    assert np.isfinite(spy.last('rollout')['plans']).all()
    assert predictor.forecast().valid


@pytest.mark.parametrize('name', ['agent_box', 'flow', 'occupancy', 'road', 'agent_score'])
def test_an_output_that_is_not_finite_is_invalid(make, loaded, name):
    spy = Spy(loaded[1])
    predictor = make(spy=spy)
    drive(predictor, range(16))

    def poison(outputs):
        out = {key: value.copy() for key, value in outputs.items()}
        out[name].reshape(-1)[3] = np.nan
        return out
    spy.change['rollout'] = poison
    forecast = predictor.forecast()
    assert not forecast.valid and forecast.reasons[0].startswith(f'output {name}: nan')
    assert forecast.agents == () and (forecast.occupancy_agents == 255).all()
    assert np.isfinite(forecast.flow).all()
    spy.change.clear()
    assert predictor.forecast().valid


def test_features_that_are_not_finite_do_not_stay_in_the_window(make, loaded):
    spy = Spy(loaded[1])
    predictor = make(spy=spy)
    drive(predictor, range(16))
    spy.change['encode'] = lambda out: {**out, 'memory': np.full_like(out['memory'], np.inf)}
    predictor.encode(frame_set(16), ego(16))
    bad = predictor.forecast()
    assert not bad.valid and bad.reasons[0].startswith('encode: output memory: inf')
    spy.change.clear()
    predictor.encode(frame_set(17), ego(17))
    assert predictor.forecast().valid
    assert np.isfinite(spy.last('fold')['memory']).all()


@pytest.mark.parametrize('name', ['latent', 'past'])
def test_a_fold_that_is_not_finite_is_told_and_not_kept(make, loaded, name):
    """Behind it the latent is rounded to INT8, and every output would be finite."""
    spy = Spy(loaded[1])
    predictor = make(spy=spy)
    drive(predictor, range(16))
    spy.change['fold'] = lambda out: {**out, name: np.full_like(out[name], np.inf)}
    bad = predictor.forecast()
    assert not bad.valid and bad.reasons[0].startswith(f'fold: output {name}: inf')
    assert bad.agents == () and predictor.scene() is None
    spy.change.clear()
    assert predictor.forecast().valid
