"""The inference thread: what is shed first, what is counted, and that it always ends."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

pytest.importorskip('rclpy')

from ros_drive import PATIENCE_S, wait_for

from wm_ros.image import ImageError
from wm_ros.ros.convert import RawImage
from wm_ros.ros.worker import MAX_SHED_IN_A_ROW, MAX_WAITING, Job, Worker
from wm_ros.types import Frame, FrameSet


class SlowPredictor:
    """Encodes when its gate is open; remembers what it was asked for."""

    def __init__(self):
        self.encoded, self.gate = [], threading.Event()
        self.gate.set()
        self.entered = threading.Event()

    def encode(self, frames, ego):
        self.entered.set()
        self.gate.wait(PATIENCE_S)
        self.encoded.append(frames.stamp_ns)

    def forecast(self, plan=None):
        return self.encoded[-1]


class Bench:
    """A worker with everything it reports."""

    def __init__(self, predictor):
        self.predictor = predictor
        self.published, self.refused, self.failed = [], [], []
        self.worker = Worker(predictor, time.monotonic_ns, self._publish,
                             lambda camera, error: self.refused.append((camera, str(error))),
                             self.failed.append)

    def _publish(self, forecast, job, timing):
        self.published.append(forecast)

    def submit(self, stamp, frames=None):
        self.worker.submit(Job(FrameSet(stamp, frames or {}), None, None, time.monotonic_ns()))

    def __enter__(self):
        self.worker.start()
        return self

    def __exit__(self, *raised):
        assert self.worker.stop(PATIENCE_S)


def settle(bench):
    """Wait until everything that was submitted is done."""
    done = threading.Event()
    bench.worker.call(done.set)
    assert done.wait(PATIENCE_S)


def test_every_set_is_forecast_while_the_thread_keeps_up():
    with Bench(SlowPredictor()) as bench:
        for stamp in range(5):
            bench.submit(stamp)
            settle(bench)
    assert bench.published == [0, 1, 2, 3, 4]
    counters = bench.worker.counters
    assert (counters.encoded, counters.forecasts, counters.shed_forecasts,
            counters.shed_encodes) == (5, 5, 0, 0)


def test_forecasts_are_shed_before_encodes_and_the_newest_wins():
    predictor = SlowPredictor()
    with Bench(predictor) as bench:
        predictor.gate.clear()
        bench.submit(0)
        assert predictor.entered.wait(PATIENCE_S)   # set 0 is being encoded
        bench.submit(1)
        bench.submit(2)
        predictor.gate.set()
        settle(bench)
    assert predictor.encoded == [0, 1, 2]
    assert bench.published == [2]
    assert bench.worker.counters.shed_forecasts == 2
    assert bench.worker.counters.shed_encodes == 0


def test_after_a_stall_the_sets_that_wait_are_all_encoded():
    predictor = SlowPredictor()
    with Bench(predictor) as bench:
        predictor.gate.clear()
        bench.submit(0)
        assert predictor.entered.wait(PATIENCE_S)
        for stamp in range(1, MAX_WAITING + 1):
            bench.submit(stamp)
        predictor.gate.set()
        settle(bench)
    assert predictor.encoded == [0, 1, 2, 3]
    assert bench.published == [3]


def test_after_a_long_stall_only_the_newest_set_counts():
    predictor = SlowPredictor()
    with Bench(predictor) as bench:
        predictor.gate.clear()
        bench.submit(0)
        assert predictor.entered.wait(PATIENCE_S)
        for stamp in range(1, MAX_WAITING + 3):
            bench.submit(stamp)
        predictor.gate.set()
        settle(bench)
    assert predictor.encoded == [0, 5]
    assert bench.published == [5]
    assert bench.worker.counters.shed_encodes == 4


def test_a_forecast_is_never_shed_more_than_seven_times_in_a_row():
    predictor = SlowPredictor()
    with Bench(predictor) as bench:
        def encode(frames, ego):    # the next set is always there before this one is done
            predictor.encoded.append(frames.stamp_ns)
            if frames.stamp_ns < 40:
                bench.submit(frames.stamp_ns + 1)
        predictor.encode = encode
        bench.submit(0)
        wait_for(lambda: len(predictor.encoded) == 41, PATIENCE_S, 'the sets')
        settle(bench)
    assert bench.published == [MAX_SHED_IN_A_ROW, 15, 23, 31, 39, 40]
    assert bench.worker.counters.shed_encodes == 0


class Overload:
    """
    Sets that come every 40 ms to a predictor whose work takes a given time.

    Time is the test's own: it passes while the predictor works, and to the next set when nothing is
    left to do. All of it happens in the worker's thread, so that the outcome is always the same.
    """

    PERIOD, SETS = 40, 40    # ms

    def __init__(self, encode_ms, forecast_ms):
        self.encode_ms, self.forecast_ms = encode_ms, forecast_ms
        self.now = self.sent = 0
        self.encoded, self.published, self.ages = [], [], []
        self.worker = Worker(self, lambda: self.now * 1_000_000, self._publish, None, None)

    def run(self):
        self.worker.start()
        self.worker.call(self._arrive)
        counters = self.worker.counters
        wait_for(lambda: counters.encoded + counters.shed_encodes == self.SETS, PATIENCE_S,
                 'the sets')
        settle(self)
        assert self.worker.stop(PATIENCE_S)

    def _arrive(self):
        while self.sent < self.SETS and self.sent * self.PERIOD <= self.now:
            stamp = self.sent
            self.sent += 1
            self.worker.submit(Job(FrameSet(stamp, {}), None, None,
                                   stamp * self.PERIOD * 1_000_000))

    def _work(self, duration):
        for _ in range(duration):
            self.now += 1
            self._arrive()

    def encode(self, frames, ego):
        self._work(self.encode_ms)
        self.encoded.append(frames.stamp_ns)

    def forecast(self, plan=None):
        self._work(self.forecast_ms)
        return self.encoded[-1]

    def _publish(self, forecast, job, timing):
        self.published.append(forecast)
        self.ages.append(self.now - job.ready_ns // 1_000_000)
        if not self.worker.waiting and self.sent < self.SETS:
            self.now = max(self.now, self.sent * self.PERIOD)
            self._arrive()


@pytest.mark.parametrize(('encode_ms', 'forecast_ms'), [(20, 60), (38, 42), (50, 30), (70, 10)])
def test_at_twice_the_rate_it_can_do_the_output_stays_fresh(encode_ms, forecast_ms):
    """One set takes 80 ms, sets come every 40 ms: age <= inference + one period."""
    load = Overload(encode_ms, forecast_ms)
    load.run()
    counters = load.worker.counters
    assert load.published == sorted(set(load.published)) and load.published[-1] == 39
    assert len(load.published) >= counters.encoded // (MAX_SHED_IN_A_ROW + 1)
    assert counters.encoded + counters.shed_encodes == 40
    assert counters.forecasts + counters.shed_forecasts == counters.encoded
    if encode_ms < load.PERIOD:     # then every window stays valid: 14 of its 16 frames are there
        assert all(sum(first <= stamp < first + 16 for stamp in load.encoded) >= 14
                   for first in range(load.SETS - 15))
    fresh = encode_ms + forecast_ms + load.PERIOD
    assert max(load.ages[1:]) <= fresh
    # Only until it is known that the thread is behind do more sets wait than one.
    assert load.ages[0] <= fresh + (MAX_WAITING - 1) * load.PERIOD


def test_commands_run_between_sets_in_order():
    predictor = SlowPredictor()
    with Bench(predictor) as bench:
        predictor.gate.clear()
        bench.submit(0)
        assert predictor.entered.wait(PATIENCE_S)
        seen = []
        bench.submit(1)
        bench.worker.call(lambda: seen.extend(predictor.encoded))
        predictor.gate.set()
        settle(bench)
    assert seen == [0, 1]


def test_commands_outlive_sets_that_are_dropped():
    predictor = SlowPredictor()
    with Bench(predictor) as bench:
        predictor.gate.clear()
        bench.submit(0)
        assert predictor.entered.wait(PATIENCE_S)
        ran = threading.Event()
        bench.worker.call(ran.set)
        for stamp in range(1, 6):
            bench.submit(stamp)
        predictor.gate.set()
        assert ran.wait(PATIENCE_S)


def test_a_command_that_came_after_the_newest_set_runs_after_it():
    bench, seen = Bench(SlowPredictor()), []
    for stamp in (1, 2):
        bench.submit(stamp)
        bench.worker.call(lambda: seen.append(list(bench.predictor.encoded)))
    bench.worker._fall_behind()
    with bench:
        settle(bench)
    assert seen == [[], [2]]


def test_failures_are_reported_and_do_not_end_the_thread():
    predictor = SlowPredictor()
    with Bench(predictor) as bench:
        predictor.forecast = lambda plan: (_ for _ in ()).throw(MemoryError('no room'))
        bench.submit(0)
        settle(bench)
        del predictor.forecast
        bench.submit(1)
        settle(bench)
    assert [str(error) for error in bench.failed] == ['no room']
    assert bench.published == [1]
    assert bench.worker.counters.failures == 1


def test_images_are_decoded_in_the_thread_and_bad_ones_are_named():
    bad = RawImage('front', memoryview(b'1234'), 'rgb8', 1, 2, 4)
    good = RawImage('rear', memoryview(b'123456'), 'rgb8', 1, 2, 6)
    given = {}
    predictor = SlowPredictor()
    predictor.encode = lambda frames, ego: given.update(frames.frames)
    predictor.encoded = [7]
    with Bench(predictor) as bench:
        bench.submit(7, {'front': Frame('front', 7, bad), 'rear': Frame('rear', 7, good)})
        settle(bench)
    assert isinstance(given['rear'].image, np.ndarray)
    assert isinstance(given['front'].image, ImageError)
    assert bench.refused[0][0] == 'front' and 'want 6 bytes' in bench.refused[0][1]


def test_stop_in_the_middle_of_inference_publishes_nothing_more():
    bench = Bench(SlowPredictor())
    bench.predictor.gate.clear()
    bench.worker.start()
    bench.submit(0)
    bench.submit(1)
    assert bench.predictor.entered.wait(PATIENCE_S)
    assert not bench.worker.stop(0.0)   # it is told, and in the middle of the first set
    bench.predictor.gate.set()
    bench.worker._thread.join(PATIENCE_S)
    assert bench.worker.stop(0.0)
    assert bench.published == [] and bench.predictor.encoded == [0]


def test_a_library_that_hangs_is_waited_for_once():
    predictor = SlowPredictor()
    predictor.gate.clear()
    bench = Bench(predictor)
    bench.worker.start()
    bench.submit(0)
    assert predictor.entered.wait(PATIENCE_S)
    began = time.monotonic()
    assert not bench.worker.stop(0.2)
    assert not bench.worker.stop(2 * PATIENCE_S)
    assert time.monotonic() - began < PATIENCE_S / 2
    predictor.gate.set()
