"""From messages to forecasts by a clock of the test's own: what waits for what, and how long."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest
from bags import jpeg, rich_forecast
from fakes import make_rig

pytest.importorskip('rclpy')

from nav_msgs.msg import Odometry
from ros_drive import info_of, set_stamp
from sensor_msgs.msg import CompressedImage

from wm_ros.ros.calibration import Calibration
from wm_ros.ros.monitor import PROBLEM_NS, Level
from wm_ros.ros.node import TICK_S
from wm_ros.ros.odometry import SILENT_NS
from wm_ros.ros.parameters import settings_from
from wm_ros.ros.pipeline import FIRST_WAIT_NS, MAX_FAILURES, Pipeline
from wm_ros.ros.worker import MAX_WAITING
from wm_ros.types import CameraState

MS = 1_000_000
PERIOD = 100 * MS
START = 1_700_000_000 * 1000 * MS


class Engine:
    """Notes the sets that it is given, each with the cameras that it may not use."""

    def __init__(self):
        self.sets, self.egos, self.problems, self.prepared = [], [], {}, []

    def reset(self, reason):
        pass

    def change(self, settings):
        self.settings = settings

    def calibrate(self, rig, problems):
        self.problems = dict(problems)

    def prepare(self, frame):
        self.prepared.append((frame.camera, frame.stamp_ns))

    def encode(self, frames, ego):
        self.sets.append((frames.stamp_ns, sorted(frames.frames), sorted(self.problems)))
        self.egos.append(ego)

    def forecast(self, plan=None):
        forecast = rich_forecast(self.sets[-1][0])
        cameras = {name: CameraState.OK if name in self.sets[-1][1] else CameraState.MISSING
                   for name in RIG.names}
        return replace(forecast, window=replace(forecast.window, cameras=cameras))


RIG = make_rig(3)


class Bench:
    """A pipeline with its clock: time passes when the test says so."""

    def __init__(self, calibrated=True, odometry='ignore', calibration=None):
        self.now = 0
        self.published = []
        self.engine = Engine()
        settings = settings_from({'odometry': odometry})
        self.pipeline = Pipeline(
            settings, calibration or Calibration(RIG, 'required', 'rig', None), self.engine,
            lambda: self.now, lambda: self.now, self._publish)
        self.pipeline.start()
        if calibrated:
            self.calibrate()

    def _publish(self, forecast):
        self.published.append(forecast.stamp_ns)
        return forecast

    def calibrate(self, *names):
        for camera in RIG.cameras:
            if not names or camera.name in names:
                self.pipeline.camera_info(camera.name, info_of(camera))

    def send(self, number, skip=(), offsets=None):
        """Deliver one set at its time."""
        self.now = round(number * PERIOD)
        for name in RIG.names:
            if name not in skip:
                self.deliver([name], START + self.now + (offsets or {}).get(name, 0))
        self.settle()

    def deliver(self, names, stamp_ns):
        """Deliver pictures of these cameras now."""
        for name in names:
            msg = CompressedImage(data=np.frombuffer(jpeg(), np.uint8))
            msg.header.frame_id = f'{name}_optical'
            set_stamp(msg, stamp_ns)
            self.pipeline.compressed(name, msg)

    def values(self, name):
        """Return the values of a diagnostic status."""
        return next({pair.key: pair.value for pair in entry.values}
                    for entry in self.pipeline.statuses() if entry.name == name)

    def wait(self, until_ns):
        """Let time pass in ticks of the node."""
        while self.now < until_ns:
            self.now = min(until_ns, self.now + round(TICK_S * 1e9))
            self.pipeline.tick()
        self.settle()

    def settle(self):
        done = threading.Event()
        self.pipeline._worker.call(done.set)
        assert done.wait(10.0)

    def level(self, camera):
        return self.pipeline.levels()[RIG.names.index(camera)]


@pytest.fixture
def bench():
    """Yield a function that starts a pipeline; all of them are stopped."""
    started = []

    def start(**options):
        started.append(Bench(**options))
        return started[-1]

    yield start
    for one in started:
        assert one.pipeline.stop()


def test_a_missing_camera_is_an_error_within_two_periods(bench):
    b = bench()
    for number in range(4):
        b.send(number)
    assert b.level('camera_1') is Level.OK
    last = b.now
    b.send(4, skip=['camera_1'])
    b.wait(last + 150 * MS)
    assert b.level('camera_1') is Level.OK
    b.wait(last + 176 * MS)
    assert b.level('camera_1') is Level.ERROR
    # The node looks every TICK_S and reports a change of level at once.
    assert 176 * MS + TICK_S * 1e9 < 2 * PERIOD
    b.wait(last + 2 * PERIOD)
    assert b.level('camera_0') is Level.OK
    assert b.engine.sets[-1][1] == ['camera_0', 'camera_2']
    for number in (6, 7):
        b.send(number)
    assert b.level('camera_1') is Level.OK


def test_a_pause_of_the_process_is_no_cameras_fault(bench):
    """After it the ticks come first, then the messages that came meanwhile."""
    b = bench()
    b.send(0)
    b.send(1, skip=['camera_2'])
    b.now += 1000 * MS
    b.pipeline.tick()
    b.deliver(['camera_2'], START + PERIOD)
    b.settle()
    assert b.engine.sets[-1][:2] == (START + PERIOD, list(RIG.names))
    b.send(12, skip=['camera_2'])   # while ticks go on, nobody is waited for that long
    b.wait(b.now + 100 * MS)
    assert b.engine.sets[-1][:2] == (START + 12 * PERIOD, ['camera_0', 'camera_1'])


def test_where_every_tick_is_late_a_set_still_goes_on(bench):
    b = bench()
    b.send(0)
    b.send(1, skip=['camera_2'])
    for _ in range(4):
        b.now += 60 * MS
        b.pipeline.tick()
    b.settle()
    assert b.engine.sets[-1][:2] == (START + PERIOD, ['camera_0', 'camera_1'])


def odometry(stamp_ns):
    msg = Odometry()
    set_stamp(msg, stamp_ns)
    msg.pose.pose.position.x = (stamp_ns - START) / 1e9
    return msg


def test_after_a_pause_the_sets_have_the_odometry_of_their_time(bench):
    """A set that waited when it began, and those that came meanwhile."""
    b = bench(odometry='optional')
    b.pipeline.odometry([odometry(START)])
    b.send(0)
    b.send(1)       # waits for its odometry
    assert len(b.engine.sets) == 1
    b.now += 1000 * MS
    b.pipeline.tick()
    assert len(b.engine.sets) == 1
    b.pipeline.odometry([odometry(START + number * 10 * MS) for number in range(1, 111)])
    for number in range(2, 12):
        b.deliver(RIG.names, START + number * PERIOD)
        b.settle()      # the worker keeps up: nothing is shed
    assert [ego.odom_from_base[0] for ego in b.engine.egos] == pytest.approx(
        [0.1 * number for number in range(12)])
    assert {ego.stamp_ns - START for ego in b.engine.egos} == {n * PERIOD for n in range(12)}


def test_bad_odometry_among_good_is_named_and_the_rest_is_used(bench):
    b = bench(odometry='required')
    assert b.pipeline._odometry.status(b.now).level == bytes([Level.ERROR])
    bad, wild = odometry(START + 20 * MS), odometry(START + 30 * MS)
    bad.pose.pose.orientation.w, wild.twist.twist.linear.x = float('nan'), 400.0
    b.pipeline.odometry([odometry(START), bad, wild, odometry(START + 40 * MS)])
    found = b.pipeline._odometry.status(b.now)
    assert found.level == bytes([Level.ERROR]) and '400 m/s' in found.message
    assert len(b.pipeline._odometry.history) == 2
    b.now += PROBLEM_NS
    b.pipeline.odometry([odometry(START + 60 * MS)])
    assert b.pipeline._odometry.status(b.now).message == 'ok'
    b.now += SILENT_NS + 1
    assert 'no odometry' in b.pipeline._odometry.status(b.now).message


@pytest.mark.parametrize(('wanted', 'level'), [('optional', Level.WARN), ('required', Level.ERROR)])
@pytest.mark.parametrize(('offset_s', 'says'), [
    (-0.4, '0.4 s behind the pictures'), (-3600, '3600.0 s behind'), (3600, '3600.0 s ahead of')])
def test_odometry_of_another_time_is_named(bench, wanted, level, offset_s, says):
    b = bench(odometry=wanted)
    for number in range(3):
        b.pipeline.odometry([odometry(START + round(number * PERIOD + offset_s * 1e9))])
        b.send(number)
        b.wait(b.now + 60 * MS)
    assert b.engine.egos == [None] * 3
    found = b.pipeline._odometry.status(b.now)
    assert found.level == bytes([level]) and says in found.message
    b.pipeline.odometry([odometry(START + 3 * PERIOD)])     # its clock is set right
    b.send(3)
    assert b.engine.egos[3] is not None
    assert b.pipeline._odometry.status(b.now).message == 'ok'


def test_a_driver_that_repeats_its_stamp_is_named(bench):
    """No set is formed, though pictures come at their rate: one that stamps with 0, for example."""
    b = bench()
    for number in range(5):
        b.now = number * PERIOD
        b.deliver(['camera_0'], 0)
    assert b.level('camera_0') is Level.WARN
    assert 'the same stamp again' in b.pipeline.cameras['camera_0'].judge(b.now, PERIOD)[1]


@pytest.mark.parametrize(('error', 'failures'), [(MemoryError('no room'), 1),
                                                 (RuntimeError('device lost'), MAX_FAILURES)])
def test_failures_that_end_it(bench, error, failures):
    b = bench()

    def broken(frames, ego):
        raise error

    b.engine.encode = broken
    for number in range(failures):
        assert not b.pipeline.fatal
        b.send(number)
    assert b.pipeline.fatal == f'{type(error).__name__}: {error}'
    assert b.values('inference')['failures'] == str(failures)


def test_diagnostics_count_every_set_that_is_not_forecast(bench):
    b = bench()
    for number in (0, 1, 2, 4, 5, 8, 9):
        b.send(number)
    found = b.values('window')
    assert (found['sets_formed'], found['sets_used'], found['sets_skipped']) == ('7', '7', '3')
    assert found['sets_flushed'] == found['sets_overtaken'] == '0'
    inference = b.values('inference')
    assert (inference['encoded'], inference['forecasts']) == ('7', '7')
    b.now = 10 * PERIOD
    b.deliver(['camera_0', 'camera_1'], START + b.now)
    b.pipeline.flush('the clock jumped')        # the set that waits for its third picture goes too
    b.settle()
    assert b.values('window')['sets_flushed'] == '1'
    assert b.values('inference')['encoded'] == '7'


def test_pictures_are_decoded_while_their_set_waits(bench):
    b = bench()
    b.send(0, skip=['camera_2'])
    assert [name for name, _ in b.engine.prepared] == ['camera_0', 'camera_1']
    assert not b.engine.sets
    b.send(0, skip=['camera_0', 'camera_1'])
    assert len(b.engine.prepared) == 3 and len(b.engine.sets) == 1
    b.send(0)       # once more: duplicates
    assert len(b.engine.prepared) == 3


def test_pictures_of_fast_cameras_are_not_decoded_ahead(bench):
    """Of 30 frames a second ten are used; nobody knows which when they come."""
    b = bench()
    for number in range(12):
        b.send(number / 3)
    before = len(b.engine.prepared)
    for number in range(12, 24):
        b.send(number / 3)
    assert len(b.engine.prepared) == before < 12 and len(b.engine.sets) > 6


def test_the_first_pictures_wait_for_their_camera_info(bench):
    b = bench(calibrated=False)
    b.send(0)
    b.calibrate('camera_0', 'camera_1')
    b.send(1)
    assert b.engine.sets == []
    b.calibrate('camera_2')
    b.settle()
    assert b.engine.sets == [(START + i * PERIOD, list(RIG.names), []) for i in range(2)]


def test_a_camera_info_that_never_comes_is_not_waited_for_again(bench):
    b = bench(calibrated=False)
    b.calibrate('camera_0', 'camera_1')
    b.send(0)
    b.wait(FIRST_WAIT_NS - 1)
    assert b.engine.sets == []
    b.wait(FIRST_WAIT_NS)
    assert b.engine.sets == [(START, list(RIG.names), ['camera_2'])]
    b.send(2)
    assert len(b.engine.sets) == 2 and b.published[-1] == START + 2 * PERIOD
    assert b.level('camera_2') is Level.ERROR
    # At 15 Hz no more sets have come by then than may wait.
    assert FIRST_WAIT_NS // (1000 * MS // 15) + 1 <= MAX_WAITING


def test_the_first_pictures_wait_for_the_first_odometry(bench):
    b = bench(odometry='optional')
    b.send(0)
    assert b.engine.sets == []
    b.pipeline.odometry([odometry(START - 10 * MS), odometry(START)])
    b.settle()
    assert [ego.odom_from_base[0] for ego in b.engine.egos] == [0.0]
    silent = bench(odometry='optional')
    silent.send(0)
    silent.wait(FIRST_WAIT_NS)
    silent.send(2)      # there is none: nothing waits any more
    assert silent.engine.egos == [None, None]


def test_tf_is_asked_by_the_frame_of_the_pictures_where_camera_info_is_ignored(bench):
    known = {f'{name}_optical': RIG[name].base_from_camera for name in RIG.names}
    b = bench(calibrated=False, calibration=Calibration(RIG, 'ignore', 'tf', known.get))
    b.send(0)
    assert b.engine.sets[-1][2] == list(RIG.names)      # left out
    b.pipeline.look_up_poses()
    b.send(1)
    assert b.engine.sets[-1][2] == []


def test_a_calibration_that_changes_is_named(bench):
    """Two who publish a CameraInfo begin the window anew with every set."""
    b = bench()
    b.send(0)
    assert b.level('camera_1') is Level.OK      # the first is no change
    other = info_of(RIG['camera_1'])
    other.k[0] += 10
    for number in (1, 2, 3):
        b.pipeline.camera_info('camera_1', other if number % 2 else info_of(RIG['camera_1']))
        b.send(number)
        assert b.pipeline.cameras['camera_1'].judge(b.now, PERIOD) == (
            Level.WARN, 'another calibration: the window begins anew')
    assert b.values('camera camera_1')['recalibrated'] == '3'
    assert b.level('camera_0') is Level.OK


@pytest.mark.parametrize('offset_ms', [-3600_000, 400, 3600_000])
def test_a_camera_with_a_wrong_clock_leaves_the_others_alone(bench, offset_ms):
    b = bench()
    for number in range(3):
        b.send(number)
    for number in range(3, 12):
        b.send(number, offsets={'camera_1': offset_ms * MS})
        b.wait(b.now + 95 * MS)
    level, text = b.pipeline.cameras['camera_1'].judge(b.now, PERIOD)
    if abs(offset_ms) > 1600:
        assert level is Level.ERROR and "far from the other cameras'" in text
    else:
        assert level is Level.OK    # its frames wait for those of the others
    b.wait(b.now + 95 * MS)
    others = [cameras for _, cameras, _ in b.engine.sets
              if {'camera_0', 'camera_2'} <= {*cameras}]
    assert len(others) == 12
