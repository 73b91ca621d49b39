"""A bag that holds the ego vehicle's plans is replayed for them, in the frames of its odometry."""

import shutil

import numpy as np
import pytest
from bags import PERIOD_NS, START_NS, by_topic, recording, rich_forecast, write_recording
from fakes import make_fake_artifact
from test_replay import Recorder, stream

from wm_ros.cli.main import main
from wm_ros.data.bag import TRUTH_TOPIC, BagReader
from wm_ros.data.bag_drive import BagDrive
from wm_ros.data.bag_topics import Mapping
from wm_ros.data.messages import bag_types
from wm_ros.messages import agents_message
from wm_ros.replay import Replay
from wm_ros.replay_resume import read_notes, write_notes
from wm_ros.timed_plan import TimedPlan, plan_from_message
from wm_ros.types import PlanSource
from wm_ros.window import FrameBuffer

NS = 1_000_000_000
PLANS = '/world_model/ego_plan'


def plan(stamp_ns, speed_mps, frame='odom', origin=(0.0, 0.0, 0.0)):
    """Return poses straight on from `origin`, a second apart, for 4 s."""
    times = np.arange(1, 5)
    poses = np.array(origin) + np.outer(speed_mps * times, (1.0, 0.0, 0.0))
    return TimedPlan(frame, stamp_ns, stamp_ns + times * NS, poses)


def message(given):
    types = bag_types()
    return types.EgoPlan(
        header=types.header(given.stamp_ns, given.frame_id), source=0,
        times_from_start=[types.duration(int(t) - given.stamp_ns) for t in given.times_ns],
        poses=[types.pose(*pose) for pose in given.poses])


class Planned(Recorder):
    def __init__(self):
        super().__init__()
        self.plans = []

    def forecast(self, plan=None, following=None):
        self.plans.append(plan)
        return super().forecast(plan, following)


def test_a_set_has_the_plan_that_was_recorded_last_before_it():
    """The vehicle goes at 10 m/s; from the fourth set on it means to go at 5, until that is old."""
    values = list(stream(20))
    given = plan(START_NS + 2 * PERIOD_NS, 5.0, origin=(3.0, 0.0, 0.0))
    at = next(i for i, (time_ns, _) in enumerate(values) if time_ns == START_NS + 3 * PERIOD_NS)
    values.insert(at, (values[at][0], given))
    predictor = Planned()
    run = Replay(predictor, FrameBuffer(('front', 'back'), deadline_ns=NS // 2))
    assert len(list(run.run(values))) == 20
    used = [i for i, one in enumerate(predictor.plans) if one is not None]
    assert used == list(range(3, 13))           # a second after its stamp it is too old
    assert run.counts.planned == len(used)
    first = predictor.plans[3]
    assert first.source is PlanSource.GIVEN
    # 3 s after the fourth set is 3.1 s after the plan's stamp: x = 18.5 m, and the vehicle is at 3.
    np.testing.assert_allclose(first.poses[-1, :2], [15.5, 0.0], atol=1e-4)


def test_a_plan_of_another_frame_is_not_used():
    predictor = Planned()
    values = [(START_NS, plan(START_NS, 5.0, 'map')), *stream(3)]
    assert len(list(Replay(predictor, FrameBuffer(('front', 'back'), deadline_ns=NS // 2)).run(
        values))) == 3
    assert predictor.plans == [None] * 3


@pytest.fixture(scope='module')
def place(tmp_path_factory):
    """Return a folder with a bag of 20 sets with plans, odometry in 'local', and its replay."""
    folder = tmp_path_factory.mktemp('plans')
    make_fake_artifact(folder / 'artifact')
    items = []
    for topic, time_ns, msg, latched in recording(20):
        if topic == '/odometry':
            msg.header.frame_id = 'local'
        items.append((topic, time_ns, msg, latched))
        if topic == '/odometry':
            origin = (float(round((time_ns - START_NS) / PERIOD_NS)), 2.0, 0.5)
            items.append((PLANS, time_ns, message(plan(time_ns, 6.0, 'local', origin)), False))
    items.insert(9, (PLANS, START_NS, bag_types().EgoPlan(
        header=bag_types().header(START_NS, 'local'), source=0, times_from_start=[], poses=[]),
        False))
    write_recording(folder / 'in', items)
    assert replay(folder, 'whole', '--copy-inputs') == 3        # a plan without poses is a fault
    return folder


def replay(folder, out, *options):
    return main(['replay', str(folder / 'in'), '--out', str(folder / out), '--threads', '1',
                 '--artifact', str(folder / 'artifact'), *options])


def infos(path):
    with BagReader(path) as reader:
        return [(msg.header, msg.info) for _, _, msg in reader.read(['/world_model/agents'])]


def test_forecasts_are_made_for_the_plans_of_the_bag(place, capsys):
    header, info = infos(place / 'whole')[-1]
    assert info.ego_plan.source == PlanSource.GIVEN
    assert (header.frame_id, info.odom_frame) == ('base_link', 'local')
    ahead = [(pose.position.x, pose.position.y) for pose in info.ego_plan.poses]
    # 6 m/s along x of a frame in which the vehicle heads 0.5 rad to the left.
    np.testing.assert_allclose(ahead[-1], [18 * np.cos(0.5), -18 * np.sin(0.5)], atol=1e-3)
    assert replay(place, 'without', '--ego-plan', 'none') == 0
    assert {info.ego_plan.source for _, info in infos(place / 'without')} == {
        PlanSource.CONSTANT_TURN_RATE}
    capsys.readouterr()
    assert replay(place, 'never', '--ego-plan', '/other') == 1
    assert f'no ego plan on /other; wm_ros/EgoPlan topics: {PLANS}' in capsys.readouterr().err
    assert replay(place, 'never', '--dry-run') == 0
    assert f'ego plan: {PLANS}' in capsys.readouterr().out


def test_a_bag_is_scored_for_its_plans(place):
    with BagReader(place / 'in') as reader:
        items = [(topic, time_ns, msg, topic == '/tf_static')
                 for topic, time_ns, msg in reader.read()]
    truth = agents_message(bag_types(), rich_forecast())
    write_recording(place / 'scored', [*items, (TRUTH_TOPIC, START_NS, truth, False)])
    samples = list(BagDrive(place / 'scored').samples(every=1, first=100))
    ends = [sample.plan.poses[-1, :2] for sample in samples]
    assert len(ends) == 20
    np.testing.assert_allclose(ends, [[18 * np.cos(0.5), -18 * np.sin(0.5)]] * 20, atol=1e-3)


def test_plans_are_copied_once_and_a_stopped_replay_goes_on_with_them(place):
    whole = by_topic(place / 'whole')
    assert whole[PLANS] == by_topic(place / 'in')[PLANS] and len(whole[PLANS]) == 21
    out = place / 'stopped'
    shutil.copytree(place / 'whole', out)
    content = (out / 'whole.mcap').read_bytes()
    (out / 'whole.mcap').unlink()
    (out / 'stopped.mcap').write_bytes(content[:round(len(content) * 0.8)])
    (out / 'metadata.yaml').unlink()
    write_notes(out, {**read_notes(out), 'result': None})
    assert replay(place, 'stopped', '--copy-inputs', '--resume') in (0, 3)
    assert by_topic(out) == whole
    assert read_notes(out)['result']['resumed'] > 0


def test_with_the_time_of_recording_as_stamp_plans_move_along(tmp_path):
    given = message(plan(START_NS, 5.0))
    items = [item for item in recording(1)]
    write_recording(tmp_path / 'late', [*items, (PLANS, START_NS + 3 * NS, given, False)])
    with BagReader(tmp_path / 'late', Mapping(stamps='receive')) as reader:
        (found,) = [value for _, value in reader.values() if isinstance(value, TimedPlan)]
    told = plan_from_message(given)
    assert found.stamp_ns == START_NS + 3 * NS
    assert (found.times_ns - found.stamp_ns).tolist() == (told.times_ns - told.stamp_ns).tolist()


def test_the_vehicle_frame_is_named_as_it_is_called(tmp_path):
    write_recording(tmp_path / 'in', [
        (topic, time_ns, renamed(msg) if topic == '/tf_static' else msg, latched)
        for topic, time_ns, msg, latched in recording(2)])
    make_fake_artifact(tmp_path / 'artifact')
    replay(tmp_path, 'out', '--base-frame', 'base_footprint')
    assert {header.frame_id for header, _ in infos(tmp_path / 'out')} == {'base_footprint'}


def renamed(msg):
    for transform in msg.transforms:
        if transform.header.frame_id == 'base_link':
            transform.header.frame_id = 'base_footprint'
    return msg
