"""`wm_ros replay` from end to end: stopped and resumed, faulty bags, folders, memory, order."""

import json
import resource
import shutil
import subprocess
import sys

import golden
import numpy as np
import pytest
from bags import PERIOD_NS, START_NS, by_topic, differences, recording, write_recording
from fakes import make_fake_artifact

from wm_ros.cli.main import main
from wm_ros.data.bag import BagReader
from wm_ros.data.messages import typestore
from wm_ros.messages import stamp_ns
from wm_ros.replay_job import Settings, replay_bag
from wm_ros.replay_resume import read_notes, write_notes
from wm_ros.share import share_path
from wm_ros.threads import Behind, ahead

pytest.importorskip('openvino')
OUTPUTS = '/world_model/'


@pytest.fixture(scope='module')
def place(tmp_path_factory):
    """Return a folder with a bag, the fake artifact, and the bag replayed with its inputs."""
    folder = tmp_path_factory.mktemp('replay')
    make_fake_artifact(folder / 'artifact')
    write_recording(folder / 'in', recording(30, width=640, height=360, noise=True))
    assert replay(folder, 'in', 'whole', '--copy-inputs') == 0
    return folder


def replay(folder, bag, out, *options):
    return main(['replay', str(folder / bag), '--out', str(folder / out), '--threads', '1',
                 '--artifact', str(folder / 'artifact'), *options])


def test_inputs_are_copied_beside_the_forecasts(place):
    whole, inputs = by_topic(place / 'whole'), by_topic(place / 'in')
    assert {topic: whole[topic] for topic in inputs} == inputs
    assert len(whole['/world_model/agents']) == 30
    with BagReader(place / 'whole') as reader:
        assert reader.topics['/tf_static'].latched
        assert reader.notes['cameras'] == 'back front'


@pytest.mark.parametrize('share', [0.04, 0.8])
def test_a_replay_that_was_killed_goes_on_to_the_same_bytes(place, share):
    """Half a file without an end and without metadata.yaml, as SIGKILL leaves it."""
    out = place / f'killed{share}'
    shutil.copytree(place / 'whole', out)
    content = (out / 'whole.mcap').read_bytes()
    (out / 'whole.mcap').rename(out / f'{out.name}.mcap')
    (out / f'{out.name}.mcap').write_bytes(content[:round(len(content) * share)])
    (out / 'metadata.yaml').unlink()
    notes = read_notes(out)
    write_notes(out, {**notes, 'result': None})
    assert replay(place, 'in', out.name, '--copy-inputs', '--resume') == 0
    assert by_topic(out) == by_topic(place / 'whole')
    result = read_notes(out)['result']
    assert result['resumed'] + result['forecasts'] == 30
    assert (result['resumed'] > 0) == (share == 0.8)
    assert not (place / f'{out.name}.part').exists()


def test_what_is_done_is_not_done_again_and_another_model_is_refused(place, tmp_path, capsys):
    before = (place / 'whole' / 'whole.mcap').stat().st_mtime_ns
    assert replay(place, 'in', 'whole', '--copy-inputs', '--resume') == 0
    assert (place / 'whole' / 'whole.mcap').stat().st_mtime_ns == before
    assert replay(place, 'in', 'whole', '--resume') == 1
    assert 'made with another copy_inputs; want --force' in capsys.readouterr().err
    assert replay(place, 'in', 'whole') == 1
    assert 'exists already' in capsys.readouterr().err


def test_a_full_disk_loses_nothing_that_was_written(place, capsys):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3_000_000, hard))
    try:
        assert replay(place, 'in', 'full', '--copy-inputs') == 4
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    error = capsys.readouterr().err
    assert 'make room and go on with --resume' in error
    assert ' at 17000000' in error and 'full: /' in error       # topic and time
    got, whole = by_topic(place / 'full'), by_topic(place / 'whole')
    assert got and all(got[topic] == whole[topic][:len(got[topic])] for topic in got)
    assert replay(place, 'in', 'full', '--copy-inputs', '--resume') == 0
    assert by_topic(place / 'full') == whole


def test_a_faulty_bag_is_replayed_and_its_faults_are_named(place, capsys):
    """One topic stops, one message is broken, one encoding changes, one pose is not a number."""
    items = []
    for topic, time_ns, msg, latched in recording(30, ('front', 'back', 'left')):
        i = (time_ns - START_NS) // PERIOD_NS
        if topic.startswith('/back/image') and i >= 12:
            continue
        if topic.startswith('/left/image') and i == 5:
            msg.format = 'png'
        if topic == '/odometry' and i == 20:
            msg.pose.pose.position.x = np.nan
        items.append((topic, time_ns, msg, latched))
    write_recording(place / 'faulty', items)
    with_broken(place / 'faulty', '/front/image_raw/compressed', START_NS + 3 * PERIOD_NS)
    assert replay(place, 'faulty', 'faulty_out', '--json') == 3
    out, error = capsys.readouterr()
    start = START_NS / 1e9
    for text in (
            'camera back (/back/image_raw/compressed): stops at '
            f'{start + 1.1:.3f} s (+1.1 s), 1.8 s before the others',
            "camera left (/left/image_raw/compressed): its encoding changes from 'jpeg' to 'png': "
            f'1 times, first at {start + 0.5:.3f} s (+0.5 s)',
            'camera front (/front/image_raw/compressed): broken message, not a '
            f'sensor_msgs/msg/CompressedImage: 1 times, first at {start + 0.3:.3f} s (+0.3 s)',
            'odometry (/odometry): '):
        assert text in error
    assert json.loads(out)['sets'] == 30


def with_broken(path, topic, time_ns):
    """Cut one message of a bag short, in place."""
    from wm_ros.data.bag import BagWriter
    part = path.with_name(path.name + '_whole')
    path.rename(part)
    with BagReader(part) as reader, BagWriter(path) as writer:
        for name, kind, time, data in reader.raw():
            writer.write_raw(name, kind, time, data[:20] if (name, time) == (topic, time_ns)
                             else data, reader.topics[name].latched)


def test_stamps_that_go_back_are_named(place, capsys):
    items = [item for item in recording(40) if item[0] != '/odometry']
    for topic, time_ns, msg, _ in items:
        if topic != '/tf_static' and time_ns >= START_NS + 20 * PERIOD_NS:
            seconds, nanoseconds = divmod(stamp_ns(msg.header) - 15 * PERIOD_NS, 1_000_000_000)
            msg.header.stamp.sec, msg.header.stamp.nanosec = seconds, nanoseconds
    write_recording(place / 'back', items)
    assert replay(place, 'back', 'back_out') == 3
    error = capsys.readouterr().err
    assert 'camera front (/front/image_raw/compressed): its stamps jump, and the window begins' in (
        error) or 'camera back (/back/image_raw/compressed): its stamps jump' in error
    assert f'first at {START_NS / 1e9 + 2:.3f} s (+2.0 s)' in error


@pytest.mark.parametrize(('keep', 'message'), [
    (lambda topic: 'image' not in topic, 'no camera topic; want sensor_msgs/Image or'),
    (lambda topic: 'camera_info' not in topic, "camera 'back': no CameraInfo for /back/image_raw"),
    (lambda topic: topic != '/tf_static', "no transform from 'base_link' to 'back_optical_frame'"),
    (lambda topic: False, 'an empty bag: no messages')])
def test_a_bag_that_cannot_be_replayed_says_what_it_lacks(tmp_path, capsys, keep, message):
    write_recording(tmp_path / 'in', [item for item in recording(3) if keep(item[0])])
    assert main(['replay', str(tmp_path / 'in'), '--out', str(tmp_path / 'out')]) == 1
    error = capsys.readouterr().err
    assert message in error and error.count('\n') == 1
    assert not (tmp_path / 'out').exists()


def test_a_half_written_bag_is_replayed_as_far_as_it_goes(place, capsys):
    content = (place / 'in' / 'in.mcap').read_bytes()
    (place / 'half.mcap').write_bytes(content[:round(len(content) * 0.7)])
    assert replay(place, 'half.mcap', 'half_out', '--json') == 3
    out, error = capsys.readouterr()
    assert 'the end of the file is missing: it was cut short or is still written; readable' in error
    assert 18 <= json.loads(out)['sets'] <= 22


def test_a_dry_run_says_what_was_found(place, capsys):
    assert main(['replay', str(place / 'in'), '--dry-run']) == 0
    out = capsys.readouterr().out
    assert 'camera back: /back/image_raw/compressed, 30 pictures at 10 Hz (jpeg), calibr' in out
    assert 'order of the cameras: back front' in out
    assert main(['replay', str(place / 'in'), '--dry-run', '--odometry', '/none']) == 1
    assert main(['replay', str(place / 'in')]) == 2


def test_a_folder_of_bags_is_replayed_and_a_bad_one_does_not_end_it(place, capsys):
    folder = place / 'many'
    folder.mkdir()
    shutil.copytree(place / 'in', folder / 'a')
    (folder / 'b.mcap').write_bytes(b'')
    shutil.copy(place / 'in' / 'in.mcap', folder / 'day.1.mcap')     # names may have points in them
    shutil.copy(place / 'in' / 'in.mcap', folder / 'day.2.mcap')
    assert replay(place, 'many', 'many_out', '--jobs', '2', '--json') == 3
    out, error = capsys.readouterr()
    assert [json.loads(line)['forecasts'] for line in out.splitlines()] == [30] * 3
    assert 'b.mcap: not a bag' in error
    assert {path.name for path in (place / 'many_out').iterdir()} == {'a', 'day.1', 'day.2'}
    whole = by_topic(place / 'whole')
    for topic, messages in by_topic(place / 'many_out' / 'a').items():
        assert messages == whole[topic]


def test_memory_does_not_grow_with_the_bag(place, tmp_path):
    """Fifteen pictures of 200 KB, and ten times as many: 27 MB more would show."""
    peaks = []
    for frames in (15, 150):
        write_recording(tmp_path / 'long', recording(frames, ('front',), 640, 360, noise=True))
        code = ('import resource, sys; from wm_ros.cli.main import main; code = main(sys.argv[1:]);'
                'print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024); sys.exit(code)')
        out = subprocess.run(
            [sys.executable, '-c', code, 'replay', str(tmp_path / 'long'), '--out',
             str(tmp_path / 'out'), '--force', '--no-flow', '--threads', '1', '--artifact',
             str(place / 'artifact')], capture_output=True, text=True, check=True).stdout
        peaks.append(int(out.splitlines()[-1]))
        shutil.rmtree(tmp_path / 'long')
    assert peaks[1] - peaks[0] < 15, f'{peaks[0]} MB, then {peaks[1]} MB'


def forecasts(path):
    kinds = {}
    with BagReader(path) as reader:
        for topic, kind, time_ns, data in reader.raw():
            kinds.setdefault(topic, {})[time_ns] = typestore().deserialize_cdr(data, kind)
    return kinds


def test_threads_and_the_place_where_it_begins_change_no_byte(tmp_path):
    """The shipped model: other threads, and from 0.4 s on, once a window is full."""
    artifact = share_path('models', 'world-model')
    a = replay_bag(golden.DRIVE, tmp_path / 'a', Settings(artifact, 'openvino', threads=2))
    b = replay_bag(golden.DRIVE, tmp_path / 'b', Settings(artifact, 'openvino', 1,
                                                           start_s=0.4))
    assert (a.counts.sets, b.counts.sets) == (24, 20)
    whole, later = forecasts(tmp_path / 'a'), forecasts(tmp_path / 'b')
    assert golden.run('openvino').hashes == [
        golden.message_hash([whole[OUTPUTS + name][stamp] for name in
                             ('agents', 'occupancy', 'flow')])
        for stamp in sorted(whole[OUTPUTS + 'agents'])]
    stamps = sorted(later[OUTPUTS + 'agents'])[15:]
    assert len(stamps) == 5
    for topic in later:
        for stamp in stamps:
            one, other = whole[topic][stamp], later[topic][stamp]
            for msg in (one, other):
                for agent in getattr(msg, 'agents', []) if topic.endswith('agents') else []:
                    agent.uuid = np.zeros(16, np.uint8)
            assert differences(one, other) == []


def test_what_a_thread_raises_arrives_and_ends_it():
    def items():
        yield from range(3)
        raise ValueError('three')

    got = []
    with pytest.raises(ValueError, match='three'):
        got.extend(ahead(items(), 2))
    stopped = ahead(iter(range(100)), 2)
    assert next(stopped) == 0
    stopped.close()
    done = []
    with pytest.raises(ZeroDivisionError), Behind(1) as behind:
        behind.put(lambda: done.append(1))
        behind.put(lambda: 1 / 0)
        behind.put(lambda: done.append(2))
    assert done == [1]


def test_force_takes_nothing_but_an_earlier_replay_and_only_once_the_new_one_runs(place, tmp_path,
                                                                                 capsys):
    recording_bytes = sorted((path.name, path.read_bytes()) for path in (place / 'in').iterdir())
    for out in ('in', 'in/deeper', '.'):
        assert replay(place, 'in', out, '--force') == 1
        assert 'is the recording' in capsys.readouterr().err
    other = tmp_path / 'other'
    shutil.copytree(place / 'in', other)
    assert replay(place, 'in', str(other), '--force') == 1
    assert 'no replay has made it' in capsys.readouterr().err
    done = tmp_path / 'done'
    assert replay(place, 'in', str(done), '--copy-inputs') == 0
    before = by_topic(done)
    assert replay(place, 'in', str(done), '--force', '--backend', 'nosuch') == 1
    assert by_topic(done) == before and not done.with_name('done.replaced').exists()
    assert replay(place, 'in', str(done), '--force', '--copy-inputs') == 0
    assert by_topic(done) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ['done', 'other']
    assert by_topic(other) and recording_bytes == sorted(
        (path.name, path.read_bytes()) for path in (place / 'in').iterdir())
