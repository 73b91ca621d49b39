"""The offline run: one forecast a camera set, in the bag's time, whatever is missing."""

import dataclasses
import json
from types import SimpleNamespace

import numpy as np
import pytest
from bags import PERIOD_NS, START_NS, rich_forecast, small_rig
from fakes import make_fake_artifact
from test_bag import write_inputs

from wm_ros.data.bag import BagReader, BagWriter
from wm_ros.data.sim_bag import DriveSettings, write_drive
from wm_ros.evaluate.recorded import forecasts_in
from wm_ros.image import ImageError
from wm_ros.replay import ForecastWriter, Replay
from wm_ros.types import EgoState, Frame
from wm_ros.window import FrameBuffer


class Recorder:
    """A predictor that notes what it was given."""

    def __init__(self):
        self.sets = []
        self.following = []

    def encode(self, frame_set, ego):
        self.sets.append((frame_set.stamp_ns, sorted(frame_set.frames), ego))
        return SimpleNamespace(cameras={}, problems=())

    def forecast(self, plan=None, following=None):
        self.following.append(following and following[0].stamp_ns)
        return rich_forecast(self.sets[-1][0], seed=len(self.sets), valid=len(self.sets) > 2)


def replay(values, cameras=('front', 'back')):
    predictor = Recorder()
    run = Replay(predictor, FrameBuffer(cameras, deadline_ns=500_000_000))
    return predictor, run, list(run.run(values))


def stream(n, cameras=('front', 'back'), without=(), ego=True):
    for i in range(n):
        stamp = START_NS + i * PERIOD_NS
        for camera in cameras:
            if (i, camera) not in without:
                yield stamp, Frame(camera, stamp, b'x')
        if ego:
            yield stamp, EgoState(stamp, np.array([i, 0.0, 0.0]), 10.0, 0.0)


def test_every_set_of_a_bag_has_a_forecast(tmp_path):
    write_inputs(tmp_path / 'in', small_rig(), frames=5)
    with BagReader(tmp_path / 'in') as reader:
        predictor, run, forecasts = replay(reader.values(['front', 'back']))
    assert [f.stamp_ns for f in forecasts] == [START_NS + i * PERIOD_NS for i in range(5)]
    assert predictor.following == [*(f.stamp_ns for f in forecasts[1:]), None]
    assert (run.counts.sets, run.counts.valid, run.counts.partial_sets) == (5, 3, 0)
    assert all(cameras == ['back', 'front'] for _, cameras, _ in predictor.sets)


def test_odometry_that_comes_after_the_pictures_is_waited_for():
    predictor, _, _ = replay(stream(4))
    assert [ego.odom_from_base[0] for _, _, ego in predictor.sets] == [0, 1, 2, 3]


def test_without_odometry_nothing_is_waited_for():
    predictor, _, forecasts = replay(stream(4, ego=False))
    assert len(forecasts) == 4
    assert all(ego is None for _, _, ego in predictor.sets)


def test_odometry_that_ends_does_not_end_the_forecasts():
    values = [v for v in stream(8) if not (isinstance(v[1], EgoState) and v[0] > START_NS)]
    predictor, _, forecasts = replay(values)
    assert len(forecasts) == 8
    assert predictor.sets[-1][2] is None


def test_a_missing_camera_gives_a_partial_set_and_is_counted():
    predictor, run, forecasts = replay(stream(6, without={(2, 'back')}))
    assert len(forecasts) == 6 and run.counts.partial_sets == 1
    assert predictor.sets[2][1] == ['front']


def test_order_within_a_set_does_not_matter():
    values = list(stream(5))
    turned = [v for i in range(0, len(values), 3) for v in (values[i + 1], values[i],
                                                            values[i + 2])]
    assert replay(values)[0].sets[0][1] == replay(turned)[0].sets[0][1]
    assert [s[0] for s in replay(values)[0].sets] == [s[0] for s in replay(turned)[0].sets]


def test_duplicates_are_refused_and_counted():
    values = [v for value in stream(3) for v in ([value, value] if isinstance(value[1], Frame)
                                                 else [value])]
    _, run, forecasts = replay(values)
    assert len(forecasts) == 3
    assert run.counts.refused == {'duplicate': 6} or sum(run.counts.refused.values()) == 6


def test_bad_images_and_odometry_are_counted_and_end_nothing():
    values = list(stream(4))
    values[3] = (values[3][0], Frame('front', values[3][1].stamp_ns, ImageError('front: bad')))
    values[5] = (values[5][0], EgoState(values[5][1].stamp_ns, np.full(3, np.nan), np.nan, 0.0))
    predictor, run, forecasts = replay(values)
    assert len(forecasts) == 4 and predictor.sets[1][1] == ['back', 'front']
    assert run.counts.refused == {'bad_image': 1, 'odometry': 1}


def test_what_is_written_is_what_the_node_would_publish(tmp_path):
    with BagWriter(tmp_path / 'out', compress=True) as writer:
        out = ForecastWriter(writer)
        for i, valid in enumerate((False, True)):
            out.write(dataclasses.replace(rich_forecast(START_NS + i, valid=valid)))
    with BagReader(tmp_path / 'out') as reader:
        topics = {t.name: (t.type_name, t.count) for t in reader.topics.values()}
        forecasts = list(forecasts_in(reader))
    assert topics == {
        '/world_model/agents': ('wm_ros/msg/AgentForecastArray', 2),
        '/world_model/occupancy': ('wm_ros/msg/OccupancyForecast', 2),
        '/world_model/flow': ('wm_ros/msg/OccupancyFlow', 2),
        # An OccupancyGrid cannot say that it is invalid.
        '/world_model/occupancy_grid': ('nav_msgs/msg/OccupancyGrid', 1),
        '/world_model/risk_grid': ('nav_msgs/msg/OccupancyGrid', 1)}
    assert [f.valid for f in forecasts] == [False, True]
    assert [f.stamp_ns for f in forecasts] == [START_NS, START_NS + 1]


def test_the_command_forecasts_every_complete_window(tmp_path, capsys):
    """A bag of a whole window and four sets more, through the graphs of the fake artifact."""
    main = pytest.importorskip('wm_ros.cli.main').main
    pytest.importorskip('openvino')
    artifact = make_fake_artifact(tmp_path / 'artifact')
    settings = DriveSettings(seed=11, seconds=2.0, rig='front', width=320)
    write_drive(tmp_path / 'in', settings, workers=1)
    for name in ('a', 'b'):
        assert main(['replay', str(tmp_path / 'in'), '--out', str(tmp_path / name), '--artifact',
                     str(artifact), '--backend', 'openvino', '--threads', '1', '--json']) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (result['frames'], result['sets'], result['partial_sets']) == (20, 20, 0)
    # Fourteen of sixteen frames are enough.
    assert result['valid'] == 20 - 13
    runs = []
    for name in ('a', 'b'):
        with BagReader(tmp_path / name) as reader:
            runs.append([(topic, stamp, data) for topic, _, stamp, data in reader.raw()])
    assert runs[0] == runs[1]
    assert len({stamp for topic, stamp, _ in runs[0] if topic.endswith('/agents')}) == 20
