"""Clips: the planted surprise first, none overlapping, each ready to replay, with its reason."""

import json

import cv2
import numpy as np
import pytest
import test_bag
from bags import PERIOD_NS, START_NS, small_rig
from drives import forecasts
from fakes import make_fake_artifact

from wm_ros.cli.main import main
from wm_ros.data.bag import BagReader, BagWriter
from wm_ros.data.clip import cut, recorded_after_ns
from wm_ros.evaluate.bag_forecasts import has_forecasts
from wm_ros.evaluate.mining import find
from wm_ros.evaluate.moments import Moment, worst
from wm_ros.evaluate.recorded import forecasts_in
from wm_ros.replay import ForecastWriter

SECOND = 1_000_000_000
RIG = small_rig(('front', 'back'))


def write_forecasts(path, drive, notes=()):
    with BagWriter(path, compress=True) as writer:
        for key, value in notes:
            writer.note(key, value)
        out = ForecastWriter(writer, flow=False, grids=False)
        for forecast in drive:
            out.write(forecast)


@pytest.fixture(scope='module')
def bags(tmp_path_factory):
    """Return a bag of pictures and one of its forecasts, with an agent that jumps at 5.2 s."""
    folder = tmp_path_factory.mktemp('mine')
    # A picture that never changes is a camera that froze.
    with pytest.MonkeyPatch.context() as patch:
        noise = np.random.default_rng(0)
        patch.setattr(test_bag, 'jpeg', lambda: cv2.imencode(
            '.jpg', noise.integers(0, 255, (90, 160, 3)).astype(np.uint8))[1].tobytes())
        test_bag.write_inputs(folder / 'in', RIG, frames=90)
    write_forecasts(folder / 'out', forecasts(9.0, jump_at_s=5.2, period_ns=2 * PERIOD_NS),
                    [('replayed', str(folder / 'in'))])
    return folder / 'out', folder / 'in'


def moment(seconds, nats, horizons=(1, 2, 3)):
    return Moment(round(seconds * SECOND), nats, 0.0, dict.fromkeys(horizons, nats), ())


def test_the_worst_moments_do_not_overlap():
    found = worst([moment(1, 5), moment(1.5, 9), moment(4, 7), moment(8, 1), moment(8.5, 2)], 3,
                  2 * SECOND)
    assert [(m.stamp_ns / SECOND, m.surprise) for m in found] == [(1.5, 9), (4, 7), (8.5, 2)]


def test_moments_of_fewer_forecasts_are_not_ranked_beside_others():
    found = worst([moment(1, 9, (1,)), moment(5, 2)], 2, SECOND)
    assert [m.surprise for m in found] == [2]
    assert len(worst([moment(1, 9, (1,)), moment(5, 2, (1,))], 2, SECOND)) == 2


def test_the_planted_surprise_comes_first_with_its_pictures(bags, tmp_path, capsys):
    out = tmp_path / 'clips'
    assert main(['mine', str(bags[0]), '--top', '2', '--before', '2', '--after', '1', '--out',
                 str(out)]) == 0
    index = json.loads((out / 'clips.json').read_text())
    first, second = index['clips']
    assert 5.2 <= first['at_s'] <= 8.2
    assert first['surprise_nats'] > 2 * second['surprise_nats']
    assert {event['kind'] for event in first['events']} >= {'appeared', 'vanished'}
    assert 'car that nobody expected' in ' '.join(first['reasons'])
    assert json.loads((out / 'clip_01.json').read_text()) == first
    assert (first['stop_ns'] < second['start_ns']) or (second['stop_ns'] < first['start_ns'])
    readme = (out / 'README.md').read_text()
    assert readme.index('clip_01') < readme.index('clip_02') and first['reasons'][0] in readme
    assert 'clip_01' in capsys.readouterr().out
    with BagReader(out / 'clip_01') as reader:
        assert reader.rig().names == RIG.names      # CameraInfo and /tf_static came along
        pictures = reader.topics['/front/image_raw/compressed'].count
        assert pictures == (first['stop_ns'] - first['start_ns']) // PERIOD_NS + 1
        stamps = [forecast.stamp_ns for forecast in forecasts_in(reader)]
        assert first['start_ns'] <= stamps[0] and stamps[-1] <= first['stop_ns']
        assert reader.notes['reason'] == first['reasons'][0]
    assert not (out / '.forecasts').exists()


def test_a_bag_of_pictures_is_forecast_first(bags, tmp_path, capsys):
    artifact = make_fake_artifact(tmp_path / 'artifact')
    assert main(['mine', str(bags[1]), '--top', '1', '--before', '1', '--after', '0.5', '--out',
                 str(tmp_path / 'clips'), '--artifact', str(artifact), '--backend',
                 'onnxruntime', '--json']) == 0
    clip = json.loads(capsys.readouterr().out)['clips'][0]
    assert clip['model_hash']
    with BagReader(tmp_path / 'clips' / 'clip_01') as reader:
        assert has_forecasts(reader) and set(reader.camera_topics()) == {'front', 'back'}


def test_the_pictures_are_taken_from_where_it_is_told(bags, tmp_path):
    """A recording with pictures of its own, beside the one that is named."""
    both = tmp_path / 'both'
    with BagReader(bags[1]) as pictures, BagReader(bags[0]) as told, BagWriter(both) as writer:
        for reader in (pictures, told):
            for topic, type_name, stamp, data in reader.raw():
                writer.write_raw(topic, type_name, stamp, data)
    assert find(both, None, tmp_path / 'a').sources == (both,)
    assert find(both, bags[1], tmp_path / 'b').sources == (both, bags[1])


def test_what_cannot_be_mined_is_named(bags, tmp_path, capsys):
    alone = tmp_path / 'alone'
    write_forecasts(alone, forecasts(0.4))
    assert main(['mine', str(alone), '--out', str(tmp_path / 'a')]) == 1
    assert '--input' in capsys.readouterr().err
    assert main(['mine', str(alone), '--input', str(bags[1]), '--out', str(tmp_path / 'b')]) == 1
    assert 'no moment to rank' in capsys.readouterr().err
    (tmp_path / 'full').mkdir()
    (tmp_path / 'full' / 'file').touch()
    assert main(['mine', str(bags[0]), '--out', str(tmp_path / 'full')]) == 1
    assert 'not empty' in capsys.readouterr().err


def test_a_recorders_clock_is_told_from_the_stamps(tmp_path):
    """A bag that a live node was recorded into has recording times of another day."""
    drive = forecasts(1.0)
    with BagWriter(tmp_path / 'live') as writer:
        out = ForecastWriter(_Later(writer, 500 * SECOND), flow=False, grids=False)
        for forecast in drive:
            out.write(forecast)
    with BagReader(tmp_path / 'live') as reader:
        assert recorded_after_ns(reader) == 500 * SECOND
        cut([reader], tmp_path / 'clip', START_NS + 2 * PERIOD_NS, START_NS + 4 * PERIOD_NS, {})
    with BagReader(tmp_path / 'clip') as reader:
        assert [f.stamp_ns for f in forecasts_in(reader)] == [
            START_NS + i * PERIOD_NS for i in (2, 3, 4)]
        assert recorded_after_ns(reader) == 0


class _Later:
    """A recorder that is late."""

    def __init__(self, writer, delay_ns):
        self._writer, self._delay_ns = writer, delay_ns

    def write(self, topic, stamp, msg):
        self._writer.write(topic, stamp + self._delay_ns, msg)

    def write_raw(self, topic, type_name, stamp, cdr):
        self._writer.write_raw(topic, type_name, stamp + self._delay_ns, cdr)
