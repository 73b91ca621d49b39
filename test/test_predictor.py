"""The predictor: what the graphs are given, when a forecast is valid, that nothing else counts."""

from dataclasses import replace

import numpy as np
import pytest
from driven import (
    MS,
    PICTURES,
    PLANS,
    RIG,
    Spy,
    content,
    drive,
    ego,
    frame_set,
    loaded_backend,
    predictors,
)
from fakes import AGENTS, make_rig

from wm_ros.image import ImageMap, decode
from wm_ros.predictor import PredictorSettings
from wm_ros.types import CameraRig, CameraState, EgoPlan, Frame, FrameSet, PlanSource


@pytest.fixture(scope='module')
def loaded(tmp_path_factory):
    with loaded_backend(tmp_path_factory.mktemp('artifact')) as pair:
        yield pair


@pytest.fixture
def make(loaded):
    with predictors(loaded) as new:
        yield new


def test_valid_with_the_fourteenth_frame(make):
    predictor = make()
    for i in range(16):
        info = predictor.encode(frame_set(i), ego(i))
        forecast = predictor.forecast()
        assert info.reset == ('start' if i == 0 else '') and info.problems == ()
        assert forecast.window.frames_used == i + 1
        assert forecast.window.frames_missing == 15 - i
        assert forecast.valid == (i >= 13)
        if i < 13:
            assert forecast.reasons == (f'window: {i + 1} of 16 frames, want at least 14',)
            assert forecast.agents == () and (forecast.occupancy_agents == 255).all()
        else:
            assert forecast.reasons == () and len(forecast.agents) == AGENTS
        assert forecast.occupancy_agents.shape == (7, 200, 200)
        assert forecast.occupancy_static.shape == (200, 200)
        assert forecast.flow.shape == (7, 2, 200, 200) and forecast.road.shape == (3, 200, 200)
    assert forecast.window.span_ns == 1500 * MS and forecast.window.period_ns == 100 * MS
    assert forecast.window.max_gap_periods == 1.0 and forecast.window.odometry
    assert forecast.window.cameras == dict.fromkeys(RIG.names, CameraState.OK)
    assert len(forecast.model_hash) == 64 and set(forecast.precision) == {'encode', 'fold',
                                                                          'rollout'}


def test_the_model_does_not_run_on_too_few_frames(make, loaded):
    spy = Spy(loaded[1])
    predictor = make(spy=spy)
    drive(predictor, range(13))
    predictor.forecast()
    assert spy.count('fold') == spy.count('rollout') == 0 and spy.count('encode') == 13


def test_no_forecast_before_the_first_set(make):
    with pytest.raises(ValueError, match='0 sets'):
        make().forecast()


def test_only_the_sixteen_frames_count(make):
    long, short = make(), make()
    drive(long, range(40))
    drive(short, range(24, 40))
    assert content(long.forecast(), ids=False) == content(short.forecast(), ids=False)
    # Asking in between changes nothing either.
    asked = make()
    for i in range(24, 40):
        asked.encode(frame_set(i), ego(i))
        asked.forecast()
        asked.forecast_plans([EgoPlan(np.ones((6, 3)), PlanSource.GIVEN)])
    assert content(asked.forecast(), ids=False) == content(short.forecast(), ids=False)


def test_an_older_frame_counts(make):
    one, other = make(), make()
    drive(one, range(16))
    for i in range(16):
        other.encode(frame_set(i, camera_0=PICTURES[6, 0]) if i == 3 else frame_set(i), ego(i))
    assert content(one.forecast(), ids=False) != content(other.forecast(), ids=False)


@pytest.mark.parametrize('threads', [1, 4])
def test_threads_do_not_change_results(make, threads):
    predictor, wanted = make(PredictorSettings(decode_threads=threads)), make()
    drive(predictor, range(16))
    drive(wanted, range(16))
    assert content(predictor.forecast()) == content(wanted.forecast())


def test_pictures_decoded_as_they_arrive_change_nothing(make):
    """In any order of arrival, with a bad file, a frozen camera, and a set that never comes."""
    early, plain = make(), make()
    last = PICTURES[7, 1]
    for i in range(18):
        changes = {}
        if i == 9:
            changes = {'camera_0': PICTURES[1, 0][:900]}
        elif i > 11:
            changes = {'camera_1': last}
        frames = frame_set(i, **changes)
        for frame in reversed(frames.frames.values()):
            early.prepare(frame)
        if i == 5:      # of another set, given up while it waited
            early.prepare(frame_set(6).frames['camera_0'])
        infos = [predictor.encode(frames, ego(i)) for predictor in (early, plain)]
        assert infos[0] == infos[1]
        assert content(early.forecast()) == content(plain.forecast())
    assert infos[0].cameras['camera_1'] is CameraState.FROZEN


def test_what_was_decoded_for_another_calibration_is_not_used(make, loaded):
    spy = Spy(loaded[1])
    predictor = make(spy=spy)
    frames = frame_set(0)
    for frame in frames.frames.values():
        predictor.prepare(frame)
    k = RIG.cameras[0].k.copy()
    k[1, 2] += 40       # another principal point: other rows of the picture are used
    moved = CameraRig((replace(RIG.cameras[0], k=k), RIG.cameras[1]), 'moved')
    predictor.set_rig(moved)
    predictor.encode(frames, ego(0))
    for n, camera in enumerate(moved.cameras):
        wanted = np.empty((160, 400, 3), dtype=np.uint8)
        ImageMap(camera).apply(decode(frames.frames[camera.name], camera), wanted)
        np.testing.assert_array_equal(spy.last('encode')['images'][n], wanted)


def test_the_fold_is_begun_with_what_it_is_then_run_with(make, loaded):
    spy = Spy(loaded[1])
    predictor = make(spy=spy)
    drive(predictor, [*range(16), 17, 19])      # two sets are lost
    predictor.forecast()
    begun, ran = spy.begun[-1], spy.last('fold')
    assert begun.pop('memory')[:15].tobytes() == ran.pop('memory')[:15].tobytes()
    assert ran['frame_mask'].tolist() == [1] * 12 + [0, 1, 0, 1]
    for name, array in ran.items():
        np.testing.assert_array_equal(begun[name], array)
    drive(predictor, [40])                      # a gap of a whole window: nothing to begin with
    assert spy.begun[-1]['age_s'][15] == 0 and len(spy.begun) == 5


def test_the_fold_of_a_set_that_is_known_beforehand_is_begun_once_and_changes_nothing(make, loaded):
    spy = Spy(loaded[1])
    one, other = make(spy=spy), make()
    drive(one, range(16))
    drive(other, range(16))
    before = len(spy.begun)
    told = one.forecast(following=(frame_set(16), ego(16)))
    assert content(told) == content(other.forecast())
    one.encode(frame_set(16), ego(16))
    other.encode(frame_set(16), ego(16))
    assert len(spy.begun) == before + 1         # encode found it begun
    ahead = spy.begun[-1]
    assert content(one.forecast(following=(frame_set(18), ego(18)))) == content(other.forecast())
    for name, array in spy.last('fold').items():
        np.testing.assert_array_equal(ahead[name][:15], array[:15])
    assert len(spy.begun) == before + 1         # set 17 is lost: nothing begins on 18 yet
    one.encode(frame_set(17), None)
    assert spy.begun[-1]['odometry_mask'] == [0] and len(spy.begun) == before + 2


def test_what_the_graphs_are_given(make, loaded):
    spy = Spy(loaded[1])
    memories = []
    spy.change['encode'] = lambda out: memories.append(out['memory'].copy()) or out
    predictor = make(spy=spy)
    drive(predictor, range(21))
    predictor.forecast()
    fold = spy.last('fold')
    for i in range(16):
        np.testing.assert_array_equal(fold['memory'][i], memories[5 + i])
    np.testing.assert_allclose(fold['age_s'], 0.1 * np.arange(15, -1, -1), atol=1e-6)
    np.testing.assert_array_equal(fold['frame_mask'], 1)
    assert fold['odometry_mask'].tolist() == [1]
    # The newest pose is (20, 1, 0.4), the oldest (5, 1, 0.1): 15 m behind, seen at yaw -0.4.
    np.testing.assert_allclose(
        fold['now_from_frame'][0], [-15 * np.cos(0.4), 15 * np.sin(0.4), -0.3], atol=1e-5)
    np.testing.assert_array_equal(fold['now_from_frame'][15], 0)
    rollout = spy.last('rollout')
    np.testing.assert_allclose(rollout['ego_motion'], [10.0, 0.1])
    assert rollout['plans'].shape == (PLANS, 6, 3)
    # 10 m/s at 0.1 rad/s is a circle of 100 m radius.
    np.testing.assert_allclose(
        rollout['plans'][0, 0], [100 * np.sin(0.05), 100 * (1 - np.cos(0.05)), 0.05], atol=1e-5)
    for n, camera in enumerate(RIG.cameras):
        wanted = np.empty((160, 400, 3), dtype=np.uint8)
        ImageMap(camera).apply(decode(frame_set(20).frames[camera.name], camera), wanted)
        np.testing.assert_array_equal(spy.last('encode')['images'][n], wanted)


def plan(speed):
    return EgoPlan(np.array([[speed * 0.5 * i, 0, 0] for i in range(1, 7)], dtype=np.float32),
                   PlanSource.GIVEN)


def test_what_if_plans_share_one_encoding_and_ids(make, loaded):
    spy = Spy(loaded[1])
    predictor = make(spy=spy)
    drive(predictor, range(16))
    main = predictor.forecast(plan(2.0))
    several = predictor.forecast_plans([plan(2.0), plan(20.0), plan(0.0)])
    assert spy.count('encode') == 16 and spy.count('fold') == 1
    assert spy.count('rollout') == 1 + 2             # three plans, two a run
    assert content(several[0]) == content(main)
    assert content(several[1], ids=False) != content(main, ids=False)
    assert [item.ego_plan.poses[0, 0] for item in several] == [1.0, 10.0, 0.0]
    for item in several:
        assert [agent.track_id for agent in item.agents] == [
            agent.track_id for agent in main.agents]
    assert content(predictor.forecast(plan(2.0))) == content(main)


def test_fifteen_hertz_spans_less_time(make):
    predictor = make()
    for i in range(20):
        stamp = 1000 * MS + i * 66_666_667
        frames = {name: Frame(name, stamp, PICTURES[i % 8, n]) for n, name in enumerate(RIG.names)}
        predictor.encode(FrameSet(stamp, frames), None)
    window = predictor.forecast().window
    assert window.period_ns == 66_666_667 and window.span_ns == 15 * 66_666_667
    assert window.frames_missing == 0


def test_one_set_a_slot_of_a_fast_camera_shows_no_gaps(make):
    # 20 Hz on the edge of the slots: steps of 50, 100 and 150 ms.
    rng = np.random.default_rng(0)
    predictor = make()
    stamps = [1000 * MS + 100 * MS * i + int(rng.integers(0, 2)) * 50 * MS for i in range(60)]
    for i, stamp in enumerate(stamps):
        frames = {name: Frame(name, stamp, PICTURES[i % 8, n]) for n, name in enumerate(RIG.names)}
        assert predictor.encode(FrameSet(stamp, frames), None).skipped == 0
    assert predictor.forecast().valid


def test_a_new_calibration_begins_a_new_window(make):
    predictor = make()
    drive(predictor, range(16))
    predictor.set_rig(make_rig(2, 320, 180))
    info = predictor.encode(frame_set(16), ego(16))
    assert info.reset == 'calibration'
    assert set(info.cameras.values()) == {CameraState.UNCALIBRATED}
    with pytest.raises(ValueError, match='3 cameras, want 2'):
        predictor.set_rig(make_rig(3))


def test_a_camera_without_calibration_is_left_out_and_the_window_goes_on(make):
    predictor = make()
    drive(predictor, range(16))
    predictor.set_uncalibrated({'camera_0': 'camera_0: no CameraInfo yet'})
    info = predictor.encode(frame_set(16), ego(16))
    assert info.cameras['camera_0'] is CameraState.UNCALIBRATED and info.reset == ''
    assert predictor.forecast().reasons == ('camera camera_0: no CameraInfo yet',)
    predictor.set_uncalibrated({})
    predictor.encode(frame_set(17), ego(17))
    assert predictor.forecast().valid


def test_settings_may_change_between_sets(make):
    predictor = make()
    drive(predictor, range(12))
    assert not predictor.forecast().valid
    predictor.settings = PredictorSettings(min_frames=12, frozen_after=1, score_threshold=0.8)
    forecast = predictor.forecast()
    assert forecast.valid and 0 < len(forecast.agents) < AGENTS
    predictor.encode(frame_set(12, camera_0=PICTURES[3, 0]), ego(12))
    info = predictor.encode(frame_set(13, camera_0=PICTURES[3, 0]), ego(13))
    assert info.cameras['camera_0'] is CameraState.FROZEN


def test_stage_times_come_from_the_clock_handed_in(make):
    ticks = iter(range(0, 10**12, 1_000_000))
    timed, still = make(PredictorSettings(decode_threads=1), clock_ns=lambda: next(ticks)), make()
    drive(timed, range(16))
    drive(still, range(16))
    forecast = timed.forecast()
    assert set(forecast.stages_ms) == {'decode', 'resize', 'lift', 'encode', 'fold', 'rollout',
                                       'parse'}
    assert forecast.stages_ms['lift'] == forecast.stages_ms['rollout'] == 1.0
    assert set(still.forecast().stages_ms.values()) == {0.0}
    assert content(forecast) == content(timed.forecast())
    assert content(still.forecast()) == content(forecast)
