"""Bags that are whole, cut short or broken: what is readable is read, in the order of time."""

import resource
import shutil

import numpy as np
import pytest
from bags import PERIOD_NS, START_NS, noisy_jpeg, recording, rich_forecast, write_recording
from rosbags.rosbag2 import Reader

from wm_ros.data.bag import TRUTH_TOPIC, BagError, BagReader, BagWriter, DiskError
from wm_ros.data.bag_drive import BagDrive
from wm_ros.data.bag_files import is_bag
from wm_ros.data.bag_topics import Mapping, MappingError, guess_cameras, load_mapping, overlaid
from wm_ros.data.mcap_stream import zstd
from wm_ros.data.messages import bag_types, typestore
from wm_ros.messages import agents_message

SECOND = 1_000_000_000


def messages(path):
    with BagReader(path) as reader:
        return [(topic, time, bytes(data)) for topic, _, time, data in reader.raw()], (
            reader.problems)


@pytest.fixture(scope='module')
def bags(tmp_path_factory):
    folder = tmp_path_factory.mktemp('streams')
    items = list(recording(20, width=320, height=180, noise=True))
    return {(storage, compress): write_recording(folder / f'{storage}{compress}', items, storage,
                                                 compress)
            for storage, compress in (('mcap', False), ('mcap', True), ('sqlite3', False))}


def test_messages_come_as_rosbags_reads_them(bags):
    for path in bags.values():
        with Reader(path) as reader:
            wanted = [(c.topic, time, bytes(data)) for c, time, data in reader.messages()]
        assert messages(path) == (wanted, [])


def test_parts_of_a_bag_out_of_order_come_by_time(tmp_path):
    """Chunks that overlap in time, as several recorders' messages in one file do."""
    kind, blob = 'sensor_msgs/msg/CompressedImage', noisy_jpeg(1, 640, 480)
    image = typestore().types[kind](header=bag_types().header(0, 'x'), format='jpeg',
                                    data=np.frombuffer(blob, np.uint8))
    times = [*range(0, 90, 3), *range(1, 90, 3), *range(2, 90, 3)]
    with BagWriter(tmp_path / 'bag') as writer:
        for time in times:
            writer.write('/a/image', SECOND + time, image)
    got, _ = messages(tmp_path / 'bag')
    assert [time - SECOND for _, time, _ in got] == sorted(times)
    with BagReader(tmp_path / 'bag') as reader:
        some = [time for _, _, time, _ in reader.raw(None, SECOND + 10, SECOND + 20)]
    assert some == list(range(SECOND + 10, SECOND + 20))


@pytest.mark.parametrize('share', [0.02, 0.4, 0.77, 0.999])
@pytest.mark.parametrize('kind', [('mcap', False), ('mcap', True), ('sqlite3', False)])
def test_of_a_bag_cut_short_the_beginning_is_kept(bags, tmp_path, kind, share):
    whole, _ = messages(bags[kind])
    suffix = '.mcap' if kind[0] == 'mcap' else '.db3'
    content = (bags[kind] / f'{bags[kind].name}{suffix}').read_bytes()
    cut = tmp_path / f'cut{suffix}'
    cut.write_bytes(content[:round(len(content) * share)])
    try:
        got, problems = messages(cut)
    except BagError as err:     # not even the tables of a database
        assert share == 0.02 and 'cut' in str(err)
        return
    assert got == whole[:len(got)]
    assert problems and 'cut' in problems[0]
    # An mcap file loses what was cut off, and no more than a record; a database up to its end.
    if kind[0] == 'mcap':
        assert len(got) / len(whole) == pytest.approx(share, abs=0.1)
    with BagReader(cut) as reader:
        assert sum(topic.count for topic in reader.topics.values()) == len(got)


def test_a_flipped_byte_costs_its_chunk_alone(bags, tmp_path):
    shutil.copytree(bags['mcap', True], tmp_path / 'bag')
    file = next((tmp_path / 'bag').glob('*.mcap'))
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0xFF
    file.write_bytes(content)
    got, problems = messages(tmp_path / 'bag')
    whole, _ = messages(bags['mcap', True])
    if problems:    # zstd keeps no sum of its own; a picture may just be another one
        assert 'chunk at byte' in problems[0]
    assert len(whole) * 0.4 < len(got) <= len(whole)
    assert {got[0], got[-1]} <= set(whole)


def test_a_recorder_that_was_killed_leaves_a_bag_without_metadata(bags, tmp_path):
    shutil.copytree(bags['mcap', False], tmp_path / 'bag')
    (tmp_path / 'bag' / 'metadata.yaml').unlink()
    assert is_bag(tmp_path / 'bag')
    got, problems = messages(tmp_path / 'bag')
    assert got == messages(bags['mcap', False])[0]
    assert problems == ['no metadata.yaml: the recording was not ended']


def test_whichever_byte_is_wrong_an_mcap_file_ends_in_words(tmp_path):
    """One byte at a time, above all where the records of topics and the summary lie."""
    whole = write_recording(tmp_path / 'bag', recording(2, width=32, height=18))
    good, draw = next(whole.glob('*.mcap')).read_bytes(), np.random.default_rng(0)
    file, read = tmp_path / 'a.mcap', 0
    # Lengths of names and lists, in a chunk's first channel and in the summary.
    places = [good.index(b'/tf_static') - 4, good.rindex(b'/tf_static') - 4,
              good.rindex(b'offered_qos') - 3, *draw.integers(8, 600, 40),
              *(len(good) - draw.integers(1, 900, 80))]
    for place in places:
        bad = bytearray(good)
        bad[place] ^= 0x5A
        file.write_bytes(bad)
        try:
            read += len(messages(file)[0]) > 0
        except BagError:
            continue
    assert read > len(places) / 2


@pytest.mark.parametrize('name', ['run#1', 'what?', '50%20'])
def test_a_sqlite_bag_may_lie_anywhere(bags, tmp_path, name):
    shutil.copytree(bags['sqlite3', False], tmp_path / name)
    assert messages(tmp_path / name) == messages(bags['sqlite3', False])
    with pytest.raises(BagError, match="sqlite3 bag cannot be written to a path with '\\?'"):
        BagWriter(tmp_path / 'new' / name, 'sqlite3')
    assert {path.name for path in tmp_path.iterdir()} == {name}


def test_a_packed_file_that_is_cut_short_or_no_such_file_is_read_as_far_as_it_goes(bags, tmp_path):
    good = next(bags['mcap', False].glob('*.mcap')).read_bytes()
    packed = zstd.compress(good)
    (tmp_path / 'a.mcap.zstd').write_bytes(packed[:len(packed) // 2])
    got, problems = messages(tmp_path / 'a.mcap.zstd')
    all_of_it, _ = messages(bags['mcap', False])
    assert 0 < len(got) < len(all_of_it) and got == all_of_it[:len(got)]
    assert problems[0].startswith('a.mcap.zstd: ')
    (tmp_path / 'b.mcap.zstd').write_bytes(b'no such thing')
    with pytest.raises(BagError, match='b.mcap.zstd: .*'):
        BagReader(tmp_path / 'b.mcap.zstd')


@pytest.mark.parametrize('name', ['a.mcap', 'a.db3'])
def test_an_empty_file_is_named(tmp_path, name):
    (tmp_path / name).write_bytes(b'')
    with pytest.raises(BagError, match=f'{name}.*empty file'):
        BagReader(tmp_path / name)


def test_a_full_disk_leaves_a_whole_bag_up_to_there(tmp_path):
    kind = 'sensor_msgs/msg/CompressedImage'
    blob = np.random.default_rng(0).integers(0, 255, 200_000).astype(np.uint8)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3_000_000, hard))
    written = 0
    try:
        with pytest.raises(DiskError, match='/a/image at 1.000.*can be read'), BagWriter(
                tmp_path / 'bag') as writer:
            for i in range(40):
                writer.write('/a/image', SECOND + i, typestore().types[kind](
                    header=bag_types().header(i, 'x'), format='jpeg', data=blob))
                written = i
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    got, problems = messages(tmp_path / 'bag')
    assert problems == []
    assert [time - SECOND for _, time, _ in got] == list(range(len(got)))
    assert 8 <= len(got) <= written
    with Reader(tmp_path / 'bag') as reader:
        assert reader.message_count == len(list(reader.messages())) == len(got)


@pytest.mark.parametrize(('topics', 'names'), [
    (['/front/image_raw', '/left_image_raw'], {'front', 'left'}),
    (['/sensors/front/image_rect', '/sensors/rear/image_rect'], {'front', 'rear'}),
    (['/camera/front', '/camera/rear'], {'front', 'rear'}),
    (['/CAM_FRONT/image_rect_compressed', '/CAM_BACK/image_rect_compressed'],
     {'CAM_FRONT', 'CAM_BACK'}),
    (['/left/color/image_raw', '/left/depth/image_raw'], {'left'}),
    (['/a/left/image_raw', '/b/left/image_raw'], {'a_left', 'b_left'}),
    (['/image_raw'], {'image_raw'})])
def test_cameras_are_named_by_what_tells_them_apart(topics, names):
    assert set(guess_cameras([], topics, [])) == names


def test_of_two_forms_of_a_camera_the_compressed_one_is_taken():
    found = guess_cameras(['/front/image_raw/compressed'], ['/front/image_raw',
                                                            '/front/image_rect'],
                          ['/front/camera_info', '/other/camera_info'])
    assert list(found) == ['front']
    assert (found['front'].image, found['front'].info) == (
        '/front/image_raw/compressed', '/front/camera_info')


@pytest.mark.parametrize('field, value, message', [
    ('distortion_model', 'equidistant', "back: CameraInfo.distortion_model 'equidistant', want pl"),
    ('binning_x', 2, 'back: CameraInfo.binning 2x0, want none'),
    ('k', np.zeros(9), 'CameraInfo of back: k focal lengths 0, 0')])
def test_calibration_that_the_node_refuses_is_refused_of_a_bag(tmp_path, field, value, message):
    items = list(recording(1))
    for topic, _, msg, _ in items:
        if topic == '/back/camera_info':
            setattr(msg, field, value)
    write_recording(tmp_path / 'bag', items)
    with BagReader(tmp_path / 'bag') as reader, pytest.raises(BagError, match=message):
        reader.rig()


def test_a_mapping_says_what_names_do_not(tmp_path):
    items = [('/x/' + topic.strip('/').replace('/', '_') if 'tf' not in topic else topic, time, msg,
              latched) for topic, time, msg, latched in recording(12)]
    write_recording(tmp_path / 'bag', items)
    (tmp_path / 'map.yaml').write_text(
        'odometry: /x/odometry\ncameras:\n'
        '  f: {image: /x/front_image_raw_compressed, info: /x/front_camera_info, max_hz: 5}\n'
        '  b: /x/back_image_raw_compressed\n')
    mapping = overlaid(load_mapping(tmp_path / 'map.yaml'), {},
                       {'b': '/x/back_camera_info'}, stamps='receive')
    with BagReader(tmp_path / 'bag', mapping) as reader:
        assert reader.rig().names == ('f', 'b')
        assert reader.odometry_topic() == '/x/odometry'
        frames = [value.camera for _, value in reader.values() if hasattr(value, 'camera')]
    assert (frames.count('f'), frames.count('b')) == (6, 12)
    for wrong, message in (
            (Mapping(odometry='/nowhere'), 'no odometry on /nowhere.*: /x/odometry'),
            (overlaid(Mapping(), {'f': '/nowhere'}, {}), "'f': no images on /nowhere; image")):
        with BagReader(tmp_path / 'bag', wrong) as reader, pytest.raises(BagError, match=message):
            reader.rig()
            reader.odometry_topic()


@pytest.mark.parametrize('text, message', [
    ('camera: {}', 'camera, want some of base_frame'),
    ('tolerance_ms: forty', "tolerance_ms: 'forty', want a number from 0 on"),
    ('tolerance_ms: -1', 'tolerance_ms: -1, want a number from 0 on'),
    ('odometry: [/a, /b]', r"odometry: \['/a', '/b'\], want a name"),
    ('ego_plan: 5', 'ego_plan: 5, want a name'),
    ('stamps: arrival', "stamps: 'arrival', want header or receive"),
    ('cameras: {f: {image: /f, max_hz: fast}}', "cameras.f: max_hz: 'fast', want a number")])
def test_a_mapping_that_cannot_be_is_refused_by_key(tmp_path, text, message):
    (tmp_path / 'bad.yaml').write_text(text + '\n')
    with pytest.raises(MappingError, match=f'bad.yaml: {message}'):
        load_mapping(tmp_path / 'bad.yaml')


def test_a_bag_of_one_topic_is_read_without_opening_the_rest(bags):
    with BagReader(bags['mcap', False]) as reader:
        opened = []
        part = reader._files._parts[0]
        inner = part._open_chunk
        part._open_chunk = lambda offset: opened.append(offset) or inner(offset)
        assert [time for _, time, _ in reader.read(['/tf_static'])] == [START_NS]
        assert len(opened) == 1 < len(part._chunks.offsets)


def test_a_pose_that_is_none_does_not_end_an_evaluation(tmp_path):
    items = list(recording(6))
    for topic, time_ns, msg, _ in items:
        if topic == '/odometry' and time_ns == START_NS + 2 * PERIOD_NS:
            msg.pose.pose.position.x = float('nan')
    truth = agents_message(bag_types(), rich_forecast())
    write_recording(tmp_path / 'bag', [*items, (TRUTH_TOPIC, START_NS, truth, False)])
    samples = list(BagDrive(tmp_path / 'bag').samples(every=1, first=100))
    assert {sample.plan for sample in samples} == {None}
    assert [sample.ego.odom_from_base[0] for sample in samples] == pytest.approx(
        [0, 1, 1 + np.cos(0.5), 3, 4, 5], abs=0.1)      # carried on at 10 m/s from the one before
