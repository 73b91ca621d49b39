"""Camera sets by stamps alone: every rate, jitter, order of arrival, loss and clock jump."""

import numpy as np
import pytest

from wm_ros.periods import period_of, skipped_between
from wm_ros.types import Frame
from wm_ros.window import FrameBuffer, PushResult

MS = 1_000_000
CAMERAS = ('front', 'left', 'right')


def frame(camera, stamp_ms):
    return Frame(camera, round(stamp_ms * MS), b'')


def stream(rate_hz, seconds=4.0, jitter_ms=0.0, seed=0, cameras=CAMERAS, start_ms=5000.0):
    """Return frames of all cameras in order of stamp; each camera has jitter of its own."""
    rng = np.random.default_rng(seed)
    frames = [frame(camera, start_ms + 1000.0 / rate_hz * i + rng.uniform(-1, 1) * jitter_ms)
              for i in range(int(seconds * rate_hz)) for camera in cameras]
    return sorted(frames, key=lambda item: item.stamp_ns)


def shuffle_keeping_cameras(frames, seed, depth_ms):
    """Delay each camera by its own drifting amount, as transports do; cameras stay in order."""
    rng = np.random.default_rng(seed)
    arrival = {}
    timed = []
    for item in frames:
        at = item.stamp_ns + rng.uniform(0, depth_ms) * MS
        at = max(at, arrival.get(item.camera, 0) + 1)
        arrival[item.camera] = at
        timed.append((at, item))
    return sorted(timed, key=lambda pair: pair[0])


def collect(frames, now=None, **settings):
    """Push frames (or (arrival, frame) pairs) and return the sets."""
    settings.setdefault('deadline_ns', 60 * MS)
    buffer = FrameBuffer(CAMERAS, **settings)
    out, at = [], 0
    for item in frames:
        at, item = item if isinstance(item, tuple) else (item.stamp_ns, item)
        buffer.push(item, int(at))
        out += buffer.ready(int(at))
    return out + buffer.ready(int(at) + 1000 * MS)


def summary(sets):
    return [(item.stamp_ns, item.skipped, sorted((f.camera, f.stamp_ns)
                                                 for f in item.frames.values())) for item in sets]


@pytest.mark.parametrize('jitter_ms', [0.0, 2.0, 5.0])
@pytest.mark.parametrize('rate_hz', [10, 12.5, 15])
def test_slow_cameras_give_every_frame(rate_hz, jitter_ms):
    for seed in range(5):
        sets = collect(stream(rate_hz, jitter_ms=jitter_ms, seed=seed))
        assert len(sets) == int(4.0 * rate_hz)
        assert all(len(item.frames) == 3 and item.skipped == 0 for item in sets)


@pytest.mark.parametrize('jitter_ms', [0.0, 1.0, 4.0])
@pytest.mark.parametrize('rate_hz', [20, 25, 30, 60])
def test_fast_cameras_give_the_first_set_of_each_slot(rate_hz, jitter_ms):
    for seed in range(5):
        frames = stream(rate_hz, jitter_ms=jitter_ms, seed=seed)
        sets = collect(frames, tolerance_ns=9 * MS)
        # The first set is taken before its rate is known; from then on one a slot.
        slots = [item.stamp_ns // (100 * MS) for item in sets[2:]]
        assert all(b - a == 1 for a, b in zip(slots, slots[1:], strict=False))
        assert 39 <= len(sets) <= 42
        assert all(item.skipped == 0 and len(item.frames) == 3 for item in sets)


@pytest.mark.parametrize('rate_hz', [20, 30, 60])
def test_the_set_taken_is_the_first_of_its_slot(rate_hz):
    # No jitter, a phase of 7 ms: the first stamp in each slot is known by hand.
    frames = stream(rate_hz, start_ms=5007.0)
    stamps = sorted({item.stamp_ns for item in frames})
    first = {}
    for stamp in stamps:
        first.setdefault(stamp // (100 * MS), stamp)
    sets = collect(frames, tolerance_ns=5 * MS)
    assert [item.stamp_ns for item in sets][-35:] == list(first.values())[-35:]


@pytest.mark.parametrize('rate_hz,jitter_ms', [
    (10, 5.0), (15, 4.0), (20, 3.0), (25, 3.0), (30, 3.0), (60, 2.0)])
def test_order_of_arrival_does_not_change_the_sets(rate_hz, jitter_ms):
    frames = stream(rate_hz, jitter_ms=jitter_ms, seed=3)
    settings = {'tolerance_ns': 7 * MS, 'deadline_ns': 80 * MS}
    wanted = summary(collect(frames, **settings))
    for seed in range(8):
        assert summary(collect(shuffle_keeping_cameras(frames, seed, 60.0), **settings)) == wanted


def test_losses_give_the_same_sets_in_any_order_too():
    rng = np.random.default_rng(7)
    frames = [item for item in stream(10, jitter_ms=4.0) if rng.uniform() > 0.15]
    wanted = summary(collect(frames))
    assert any(len(frames) < 3 for _, _, frames in wanted)
    for seed in range(8):
        assert summary(collect(shuffle_keeping_cameras(frames, seed, 40.0),
                               deadline_ns=60 * MS)) == wanted


def test_cameras_out_of_step_are_not_taken_for_fast_ones():
    # Three cameras at 10 Hz, a third of a period apart: sets of one camera each, none left out.
    frames = [frame(camera, 5000 + 100 * i + 33 * n)
              for i in range(20) for n, camera in enumerate(CAMERAS)]
    assert len(collect(frames)) == 60


@pytest.mark.parametrize('rate_hz', [30, 60])
def test_a_lost_frame_does_not_leave_a_camera_one_frame_behind(rate_hz):
    # The tolerance of 25 ms is longer than a period of 16.7 ms.
    rng = np.random.default_rng(2)
    frames = [item for item in stream(rate_hz, jitter_ms=1.0) if rng.uniform() > 0.1]
    for item in collect(frames)[3:]:
        stamps = [one.stamp_ns for one in item.frames.values()]
        assert max(stamps) - min(stamps) <= 2 * MS
    wanted = summary(collect(frames))
    for seed in range(4):
        assert summary(collect(shuffle_keeping_cameras(frames, seed, 40.0))) == wanted


def test_a_bag_that_loops_with_frames_in_flight_recovers():
    first = stream(10, seconds=3.0, jitter_ms=2.0)
    again = stream(10, seconds=3.0, jitter_ms=2.0, seed=1)
    mixed = first[:-3] + again[:1] + first[-3:-1] + again[1:2] + first[-1:] + again[2:]
    sets = [item for item in collect(enumerate_arrivals(mixed)) if len(item.frames) == 3]
    tail = sets[-26:]
    assert all(b.stamp_ns > a.stamp_ns for a, b in zip(tail, tail[1:], strict=False))
    assert tail[0].stamp_ns < 5500 * MS and not any(item.skipped for item in tail)


def enumerate_arrivals(frames):
    """Let frames arrive 33 ms apart, whatever their stamps say."""
    return [(33 * MS * i, item) for i, item in enumerate(frames)]


def test_a_set_is_ready_with_its_last_frame():
    buffer = FrameBuffer(CAMERAS)
    buffer.push(frame('front', 100), 0)
    buffer.push(frame('left', 104), 0)
    assert buffer.ready(0) == []
    buffer.push(frame('right', 97), 0)
    (ready,) = buffer.ready(0)
    assert ready.stamp_ns == 104 * MS          # the newest of its frames
    assert list(ready.frames) == list(CAMERAS)
    assert buffer.ready(0) == []


def test_frames_beyond_the_tolerance_are_other_sets():
    sets = collect([frame('front', 100), frame('left', 126), frame('right', 101),
                    frame('front', 200), frame('left', 200), frame('right', 200)])
    assert [sorted(item.frames) for item in sets] == [
        ['front', 'right'], ['left'], ['front', 'left', 'right']]


def test_a_later_frame_of_the_missing_camera_ends_the_wait():
    buffer = FrameBuffer(CAMERAS)
    for camera in ('front', 'left'):
        buffer.push(frame(camera, 100), 0)
    buffer.push(frame('front', 200), 0)
    buffer.push(frame('left', 200), 0)
    assert buffer.ready(0) == []                # right may still come: 200 < 100 + 25 + 90
    buffer.push(frame('right', 200), 0)
    sets = buffer.ready(0)
    assert [len(item.frames) for item in sets] == [2, 3]


def test_the_deadline_ends_the_wait_by_stamps_and_by_arrival():
    by_stamps = FrameBuffer(CAMERAS, deadline_ns=60 * MS)
    by_stamps.push(frame('front', 100), 0)
    by_stamps.push(frame('front', 200), 0)
    assert [item.stamp_ns for item in by_stamps.ready(0)] == [100 * MS]
    by_arrival = FrameBuffer(CAMERAS, deadline_ns=60 * MS)
    by_arrival.push(frame('front', 100), 5 * MS)
    assert by_arrival.ready(64 * MS) == []
    assert [item.stamp_ns for item in by_arrival.ready(65 * MS)] == [100 * MS]


def test_every_push_has_a_named_outcome():
    buffer = FrameBuffer(CAMERAS, deadline_ns=60 * MS)
    assert buffer.push(frame('front', 100), 0) is PushResult.ACCEPTED
    assert buffer.push(frame('front', 100), 0) is PushResult.DUPLICATE
    assert buffer.push(frame('front', 45), 0) is PushResult.OUT_OF_ORDER
    assert buffer.push(frame('roof', 100), 0) is PushResult.UNKNOWN_CAMERA
    assert len(buffer.ready(60 * MS)) == 2     # both wait no longer
    assert buffer.push(frame('left', 100), 61 * MS) is PushResult.LATE
    assert buffer.push(frame('front', 45), 61 * MS) is PushResult.DUPLICATE
    assert buffer.push(frame('front', 95), 61 * MS) is PushResult.LATE


def test_duplicates_change_nothing():
    frames = stream(10, seconds=2.0, jitter_ms=3.0)
    doubled = [item for item in frames for _ in range(2)]
    assert summary(collect(doubled)) == summary(collect(frames))


def test_skipped_counts_periods_without_a_set():
    frames = [item for item in stream(10, seconds=3.0)
              if not (5990 * MS < item.stamp_ns < 6210 * MS)]      # 6.0, 6.1, 6.2 s are lost
    sets = collect(frames)
    assert [item.skipped for item in sets if item.skipped] == [3]
    (gap,) = [item for item in sets if item.skipped]
    assert gap.stamp_ns == 6300 * MS


@pytest.mark.parametrize('rate_hz,lost,wanted', [(10, 1, 1), (15, 1, 1), (15, 3, 3), (12.5, 2, 2)])
def test_gaps_are_counted_in_periods_of_the_cameras(rate_hz, lost, wanted):
    stamps = [5000 + 1000 / rate_hz * i for i in range(30)]
    kept = stamps[:20] + stamps[20 + lost:]
    sets = collect([frame(camera, stamp) for stamp in kept for camera in CAMERAS])
    assert [item.skipped for item in sets if item.skipped] == [wanted]


def test_cameras_slower_than_ten_hertz_show_gaps():
    sets = collect(stream(5, seconds=6.0))
    assert all(item.skipped == 1 for item in sets[1:])


@pytest.mark.parametrize('back_ms', [1500, 4000])
def test_a_clock_that_goes_back_flushes(back_ms):
    buffer = FrameBuffer(CAMERAS)
    frames = stream(10, seconds=2.0)
    for item in frames:
        assert buffer.push(item, item.stamp_ns) is PushResult.ACCEPTED
    again = [Frame(item.camera, item.stamp_ns - back_ms * MS, b'') for item in frames]
    again = [item for item in again if item.stamp_ns > 0]
    results = [buffer.push(item, item.stamp_ns) for item in again]
    # One camera may be wrong; of the second it is known that the clock jumped.
    assert results[:2] == [PushResult.STRAY, PushResult.STAMP_JUMP]
    assert set(results[2:]) == {PushResult.ACCEPTED}
    assert buffer.flushes == 1
    assert len(buffer.ready(0)) == 20          # bounded: the newest of both runs


@pytest.mark.parametrize('rate_hz,back_ms', [(10, 430), (10, 980), (30, 250), (20, 910)])
def test_a_small_step_back_of_the_clock_flushes_once_most_cameras_show_it(rate_hz, back_ms):
    buffer = FrameBuffer(CAMERAS)
    frames = stream(rate_hz, seconds=2.0)
    for item in frames:
        buffer.push(item, item.stamp_ns)
    end = frames[-1].stamp_ns
    before = len(buffer.ready(end))
    later = end + round(1000 * MS / rate_hz) - frames[0].stamp_ns
    again = [Frame(item.camera, item.stamp_ns + later - back_ms * MS, b'') for item in frames]
    results = [buffer.push(item, item.stamp_ns + back_ms * MS) for item in again]
    # Two cameras of three have to give two frames each: until then they are late.
    assert results.index(PushResult.STAMP_JUMP) == 4
    assert results[:4] == [PushResult.LATE] * 4
    assert set(results[5:]) == {PushResult.ACCEPTED} and buffer.flushes == 1
    sets = buffer.ready(end + 4000 * MS)
    assert before and min(item.stamp_ns for item in sets) >= again[0].stamp_ns
    assert len(sets[1].frames) == 3


def test_one_camera_whose_clock_steps_back_a_little_is_late_and_flushes_nothing():
    buffer = FrameBuffer(CAMERAS)
    for item in stream(10, seconds=1.0):
        buffer.push(item, item.stamp_ns)
    results = []
    for item in stream(10, seconds=2.0):
        if item.stamp_ns >= 6000 * MS:
            back = 400 * MS if item.camera == 'left' else 0
            result = buffer.push(Frame(item.camera, item.stamp_ns - back - 3, b''), item.stamp_ns)
            results += [result] if item.camera == 'left' else []
    assert PushResult.LATE in results and PushResult.STAMP_JUMP not in results
    assert buffer.flushes == 0


def test_a_jump_ahead_flushes_and_loses_no_set():
    buffer = FrameBuffer(CAMERAS)
    frames = stream(10, seconds=1.0)
    for item in frames[:-1]:
        buffer.push(item, 0)
    assert buffer.push(frame('front', 12000), 0) is PushResult.STRAY
    assert buffer.push(frame('left', 12000), 0) is PushResult.STAMP_JUMP
    assert buffer.push(frame('right', 12000), 0) is PushResult.ACCEPTED
    sets = buffer.ready(0)
    assert [len(item.frames) for item in sets] == [3] * 9 + [2, 3]
    assert buffer.flushes == 1


def test_after_a_pause_the_first_camera_moves_the_clock_alone():
    buffer = FrameBuffer(CAMERAS)
    for item in stream(10, seconds=1.0):
        buffer.push(item, item.stamp_ns)
    # Nobody has delivered for a second: there is nobody to wait for.
    assert buffer.push(frame('front', 1000), 7000 * MS) is PushResult.STAMP_JUMP


def faulty_clock(offset_ms, from_ms=0.0, until_ms=1e9, rate_hz=10, seconds=4.0):
    """Return (arrival, frame) pairs of six cameras, one of which has a wrong clock for a while."""
    out = []
    for number, camera in enumerate(SIX):
        for i in range(int(seconds * rate_hz)):
            at = 5000 + 1000 / rate_hz * i
            wrong = camera == 'b' and from_ms <= at - 5000 < until_ms
            stamp = at + (offset_ms if wrong else 0)
            out.append(((at + number) * MS, frame(camera, stamp)))
    return sorted(out, key=lambda pair: pair[0])


SIX = ('a', 'b', 'c', 'd', 'e', 'f')


@pytest.mark.parametrize('from_ms', [0.0, 1000.0])
@pytest.mark.parametrize('offset_ms', [-4.9e6, -3000, -700, -200, 200, 700, 1500, 3000, 3.6e6])
def test_one_wrong_clock_takes_no_other_camera_down(offset_ms, from_ms):
    offset_ms = max(offset_ms, -4999)
    buffer = FrameBuffer(SIX)
    sets, results = [], []
    for at, item in faulty_clock(offset_ms, from_ms):
        results.append((item.camera, buffer.push(item, int(at))))
        sets += buffer.ready(int(at))
    # With two cameras seen, nobody can tell which of them is wrong; with four it is known.
    first = 12 if from_ms == 0 else 0
    assert {result for camera, result in results[first:] if camera != 'b'} == {PushResult.ACCEPTED}
    assert buffer.flushes <= (from_ms == 0)
    whole = {item.stamp_ns // MS for item in sets if len(item.frames) >= 5}
    assert whole >= {5100 + 100 * i for i in range(38)}
    if abs(offset_ms) >= 1600:
        assert [result for camera, result in results if camera == 'b'][-20:] == (
            [PushResult.STRAY] * 20)


@pytest.mark.parametrize('first', ['a', 'b'])
def test_a_wrong_clock_that_comes_first_is_voted_down(first):
    buffer = FrameBuffer(SIX)
    pushed = faulty_clock(3.6e6)
    if first == 'b':      # a second before all others
        pushed = [(at, item) for at, item in pushed if item.camera == 'b' or at >= 6000 * MS]
    sets = []
    for at, item in pushed:
        buffer.push(item, int(at))
        sets += buffer.ready(int(at))
    whole = [item for item in sets if len(item.frames) == 5]
    assert len(whole) >= 28
    assert all(b.stamp_ns - a.stamp_ns == 100 * MS
               for a, b in zip(whole, whole[1:], strict=False))


@pytest.mark.parametrize('offset_ms', [-3000, 700, 3000, 3.6e6])
def test_a_camera_whose_clock_is_set_right_is_back_with_the_next_set(offset_ms):
    buffer = FrameBuffer(SIX)
    sets = []
    for at, item in faulty_clock(offset_ms, until_ms=2000.0):
        buffer.push(item, int(at))
        sets += buffer.ready(int(at))
    whole = [item.stamp_ns for item in sets if len(item.frames) == 6]
    assert set(whole) >= {(7100 + 100 * i) * MS for i in range(18)}


def test_a_camera_that_lags_is_late_and_flushes_nothing():
    buffer = FrameBuffer(CAMERAS, deadline_ns=60 * MS)
    results = []
    for i in range(30):
        buffer.push(frame('front', 5000 + 100 * i), 100 * i * MS)
        buffer.push(frame('left', 5000 + 100 * i), 100 * i * MS)
        if i >= 8:
            results.append(buffer.push(frame('right', 5000 + 100 * (i - 8)), 100 * i * MS))
        buffer.ready(100 * i * MS)
    assert set(results) == {PushResult.LATE}
    assert buffer.flushes == 0


def test_a_dead_camera_leaves_partial_sets_that_keep_the_rate():
    frames = [item for item in stream(10, seconds=2.0) if item.camera != 'right']
    sets = collect(frames)
    assert len(sets) == 20
    assert all(sorted(item.frames) == ['front', 'left'] and not item.skipped for item in sets)


def test_a_slow_camera_among_fast_ones_is_found_in_its_slot():
    # Two cameras at 30 Hz, one at 10 Hz whose frames fall on the second of each slot.
    frames = stream(30, cameras=('front', 'left'), start_ms=5005.0)
    frames += [frame('right', 5005 + 100 / 3 + 100 * i) for i in range(40)]
    frames.sort(key=lambda item: item.stamp_ns)
    sets = collect(frames, tolerance_ns=10 * MS)
    assert all(len(item.frames) == 3 for item in sets[3:])
    assert len(sets) in (40, 41, 42, 43)


def test_ready_sets_are_bounded_and_the_loss_is_counted():
    buffer = FrameBuffer(CAMERAS, max_ready=4)
    for item in stream(10, seconds=2.0):
        buffer.push(item, 0)
    sets = buffer.ready(0)
    assert [item.stamp_ns for item in sets] == [6600 * MS, 6700 * MS, 6800 * MS, 6900 * MS]
    assert buffer.overruns == 16


def counts(buffer):
    return buffer.formed, buffer.used, buffer.skipped, buffer.overtaken


def test_every_set_is_counted_by_what_became_of_it():
    buffer = FrameBuffer(CAMERAS)
    for item in stream(10, seconds=2.0):
        if item.stamp_ns not in (5500 * MS, 5900 * MS, 6000 * MS):     # 1 and 2 sets lost
            buffer.push(item, 0)
    assert counts(buffer) == (17, 17, 3, 0)
    fast = FrameBuffer(CAMERAS)
    for item in stream(30, seconds=2.0):
        fast.push(item, 0)
    formed, used, skipped, overtaken = counts(fast)
    assert (formed, skipped, overtaken) == (60, 0, 0) and used in (20, 21)


def test_a_set_that_closes_after_a_newer_one_is_counted():
    buffer = FrameBuffer(('front', 'left'), tolerance_ns=40 * MS, deadline_ns=60 * MS)
    for i in range(5):      # left lies 30 ms behind
        buffer.push(frame('front', 5000 + 100 * i), 0)
        buffer.push(frame('left', 5030 + 100 * i), 0)
    buffer.push(frame('front', 5420), 0)    # alone, and older than the newest left
    for camera in ('left', 'front'):
        buffer.push(frame(camera, 5500), 0)
    assert [item.stamp_ns // MS for item in buffer.ready(0)] == [5030, 5130, 5230, 5330, 5430, 5500]
    assert counts(buffer) == (7, 6, 0, 1)


def test_pending_frames_are_bounded():
    buffer = FrameBuffer(CAMERAS, deadline_ns=10**12, jump_ahead_ns=10**13)
    results = [buffer.push(frame('front', 100 * i), 0) for i in range(200)]
    assert results.count(PushResult.OVERFLOW) == 200 - 32


def test_period_and_gap_by_hand():
    assert period_of([]) == 100 * MS
    assert period_of([67 * MS] * 2) == 100 * MS              # too few to tell
    assert period_of([66 * MS, 67 * MS, 68 * MS]) == 67 * MS
    assert period_of([500 * MS] * 9) == 110 * MS
    assert period_of([10 * MS] * 9) == 50 * MS
    assert period_of([67 * MS] * 7 + [1000 * MS] * 2) == 67 * MS
    assert skipped_between(175 * MS, 100 * MS) == 0
    assert skipped_between(176 * MS, 100 * MS) == 1
    assert skipped_between(300 * MS, 100 * MS) == 2
    assert skipped_between(250 * MS, 100 * MS) == 2
