"""The page of scores: what it holds, and that a worst window is judged as the scores are."""

import base64
import re
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest
from test_protocol import FakeDrive, Oracle, scores_of, truth_at
from truths import make_agent, make_forecast, make_truth

from wm_ros.evaluate import plots, worst
from wm_ros.evaluate.outcome import judge
from wm_ros.evaluate.score_page import page
from wm_ros.evaluate.worst import worst_windows
from wm_ros.sim.rigs import rig
from wm_ros.types import Frame, FrameSet


class Pictured(FakeDrive):
    """A drive whose last window has a grey picture of two cameras; the third is lost."""

    def samples(self, every, first):
        for sample in super().samples(every, first):
            frames = {name: Frame(name, 0, np.full((160, 400, 3), 90, np.uint8))
                      for name in ('front', 'back')}
            object.__setattr__(sample, 'frames', FrameSet(sample.frames.stamp_ns, frames))
            yield sample


@pytest.fixture(scope='module')
def report():
    """Return a report of two drives, one with little found."""
    scores = scores_of([Oracle(0), Oracle(1, score=0.1)])
    return scores.report() | {
        'artifact': 'world <model>', 'dataset': 'sim', 'model_hash': '0' * 64,
        'benchmark': 'bench-v1', 'benchmark_hash': 'abc', 'against': [
            {'artifact': 'other', 'backend': 'auto', 'model_hash': '1', 'threshold': 0.5,
             'headline': scores.against(scores)}]}


@pytest.fixture(scope='module')
def window():
    """Return the worst window of a drive of three cameras."""
    cameras = rig('surround')
    drive = Pictured(0)
    drive.rig = type(cameras)(cameras.cameras[:2] + cameras.cameras[3:4], 'three')
    return next(worst_windows([0], lambda key: drive, lambda _: Oracle(0, score=0.4), 0.5, 5))


class Balanced(HTMLParser):
    """Holds that every tag that opens closes, in order."""

    VOID = {'meta', 'img'}

    def __init__(self):
        super().__init__()
        self.open = []

    def handle_starttag(self, tag, attrs):
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        """Leave out what closes itself."""

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_a_window_is_judged_by_its_six_paths():
    truth = truth_at(20, 0)
    oracle = Oracle(0)
    oracle.stamp_ns = truth.stamp_ns
    found = judge(oracle.forecast(None), truth)
    assert (found.right.tolist(), found.failed, len(found.invented)) == ([0, 1], 0, 0)
    # The first stands still where it turns, the second is not found, a third was invented.
    forecast = make_forecast([make_agent(truth.poses[0, :2]), make_agent((-20, 0))],
                             stamp_ns=truth.stamp_ns)
    found = judge(forecast, truth)
    assert (found.wrong.tolist(), found.missed.tolist(), found.invented.tolist()) == ([0], [1], [1])
    assert judge(make_forecast(), make_truth([[40, 0, 0]])).failed == 0  # beyond 30 m


def test_the_worst_window_comes_with_its_picture(window):
    # Every score is under the threshold: both agents are missed from the first window on.
    assert (window.visible, window.right, window.missed, window.invented) == (2, 0, 2, 0)
    assert window.seconds == 1.5
    picture = cv2.imdecode(np.frombuffer(window.picture, np.uint8), cv2.IMREAD_COLOR)
    # Two columns of cameras, and the view from above.
    assert picture.shape[1] == 2 * worst._TILE + worst._VIEW
    # Each missed agent has its red ring in the view.
    view = picture[:worst._VIEW, 2 * worst._TILE:].astype(int)
    red = (view[..., 2] > 180) & (view[..., 1] < 120) & (view[..., 0] < 120)
    x, y = truth_at(15, 0).poses[1, :2]
    scale = worst._VIEW / (2 * worst.RANGE_M)
    row, col = round(worst._VIEW / 2 - x * scale), round(worst._VIEW / 2 - y * scale)
    assert red[row - 16:row + 17, col - 16:col + 17].sum() > 40


def test_the_page_is_one_small_whole_file(report, window):
    text = page(report, [window])
    assert len(text) < 200_000
    assert 'world &lt;model&gt; on sim' in text and 'bench-v1 abc' in text
    assert text.count('<svg') >= 10
    assert not re.search(r'(src|href)="(?!data:)', text)  # nothing is fetched
    assert 'nan' not in re.sub('base64,[^"]+', '', text)
    code = re.search(r'data:image/webp;base64,([^"]+)', text)[1]
    assert base64.b64decode(code) == window.picture
    checker = Balanced()
    checker.feed(text)
    assert checker.open == []
    assert 'Against other on auto' in text


def test_a_line_runs_through_its_points():
    text = plots.lines('t', 'x', [plots.Series('a', [0, 1, 2], [0.0, None, 1.0], [None, None,
                                                                                 (0.5, 1.0)])],
                       (0, 2), (0, 1))
    # The origin is at (46, 240), the other corner at (408, 30); the unknown point is left out.
    assert 'M46.0 240.0L408.0 30.0' in text
    assert 'M408.0 135.0V30.0' in text
    assert text.count('<circle') == 2


def test_a_bar_is_as_high_as_its_value():
    text = plots.bars('t', ['one'], [plots.Series('a', [0], [50.0], [(40.0, 60.0)])])
    assert 'y="135.0"' in text and 'height="105.0"' in text
    assert 'V114.0' in text
