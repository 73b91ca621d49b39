"""The predictor: what the graphs are given, when a forecast is valid, that nothing else counts."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
from fakes import AGENTS, make_fake_artifact, make_rig, picture

from wm_ros.image import ImageError, ImageMap, decode, model_camera
from wm_ros.lift import seen_mask
from wm_ros.predictor import Predictor, PredictorSettings
from wm_ros.runtime.artifact import load_artifact
from wm_ros.runtime.backend import create_backend
from wm_ros.types import CameraRig, CameraState, EgoPlan, EgoState, Frame, FrameSet, PlanSource

MS = 1_000_000
RIG = make_rig(2)
PLANS = 2


class Spy:
    """A backend that remembers copies of its inputs and lets a test change its outputs."""

    def __init__(self, backend):
        self._backend = backend
        self.calls = []
        self.change = {}

    @property
    def precision(self):
        return self._backend.precision

    def run(self, graph, inputs):
        self.calls.append((graph, {key: value.copy() for key, value in inputs.items()}))
        outputs = self._backend.run(graph, inputs)
        return self.change[graph](outputs) if graph in self.change else outputs

    def last(self, graph):
        return [inputs for name, inputs in self.calls if name == graph][-1]

    def count(self, graph):
        return sum(name == graph for name, _ in self.calls)


@pytest.fixture(scope='module')
def loaded(tmp_path_factory):
    artifact = load_artifact(make_fake_artifact(tmp_path_factory.mktemp('artifact') / 'fake'))
    backend = create_backend('auto', artifact, cameras=len(RIG), plans=PLANS, threads=1)
    yield artifact, backend
    backend.close()


@pytest.fixture
def make(loaded):
    made = []

    def predictor(settings=None, spy=None, **others):
        made.append(Predictor(loaded[0], spy or loaded[1], RIG, settings, PLANS, **others))
        return made[-1]
    yield predictor
    for item in made:
        item.close()


def jpeg(array):
    return cv2.imencode('.jpg', array[..., ::-1])[1].tobytes()


PICTURES = {(i, n): jpeg(picture(10 * i + n)) for i in range(8) for n in range(2)}


def frame_set(i, cameras=RIG.names, period_ms=100, skipped=0, **replaced):
    """Return set number i; `replaced` gives other images for some cameras."""
    stamp = 1000 * MS + i * period_ms * MS
    return FrameSet(stamp, {
        name: Frame(name, stamp, replaced.get(name, PICTURES[i % 8, RIG.names.index(name)]))
        for name in cameras}, skipped)


def ego(i, speed=10.0, rate=0.1, period_ms=100):
    seconds = i * period_ms / 1000
    return EgoState(1000 * MS + i * period_ms * MS, np.array([speed * seconds, 1.0, 0.02 * i]),
                    speed, rate)


def drive(predictor, numbers, **options):
    for i in numbers:
        info = predictor.encode(frame_set(i, **options), ego(i))
    return info


def content(forecast, ids=True):
    """Return everything that a forecast says, as comparable bytes."""
    parts = [forecast.stamp_ns, forecast.valid, forecast.reasons, repr(forecast.window),
             forecast.ego_plan.poses.tobytes(), forecast.ego_plan.source,
             forecast.occupancy_agents.tobytes(), forecast.occupancy_static.tobytes(),
             forecast.flow.tobytes(), forecast.road.tobytes()]
    for agent in forecast.agents:
        parts += [getattr(agent, name).tobytes() for name in (
            'class_probabilities', 'pose', 'pose_covariance', 'velocity_mps', 'twist_covariance',
            'size_m', 'trajectories_m', 'mode_probabilities', 'covariances_m2')]
        parts += [agent.score, agent.track_id if ids else None]
    return parts


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
