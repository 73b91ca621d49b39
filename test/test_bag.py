"""Bags: what goes in comes out, in both storages, and what cannot be read is named."""

import dataclasses

import numpy as np
import pytest
from bags import PERIOD_NS, START_NS, jpeg, rich_forecast, small_rig
from truths import make_truth

from wm_ros.data.bag import BagError, BagReader, BagWriter, base_from_frame
from wm_ros.data.bag_calibration import static_transforms as transforms_in
from wm_ros.data.messages import bag_types, typestore
from wm_ros.data.sim_bag import (
    camera_info_message,
    odometry_message,
    optical_frame,
    scaled,
    static_transforms,
)
from wm_ros.data.truth import truth_from_message, truth_message
from wm_ros.messages import (
    FrameOfReference,
    agents_message,
    flow_message,
    grid_message,
    occupancy_message,
)
from wm_ros.received import forecast_from_messages
from wm_ros.types import EgoState, Frame


def assert_same(a, b, path='forecast'):
    """Compare nested dataclasses and arrays to float32 precision."""
    if dataclasses.is_dataclass(a):
        for entry in dataclasses.fields(a):
            if entry.name not in ('stages_ms',):
                assert_same(getattr(a, entry.name), getattr(b, entry.name), f'{path}.{entry.name}')
    elif isinstance(a, np.ndarray):
        np.testing.assert_allclose(b, a, rtol=1e-6, atol=1e-6, err_msg=path)
    elif isinstance(a, tuple):
        assert len(a) == len(b), path
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_same(x, y, f'{path}[{i}]')
    elif isinstance(a, float):
        assert b == pytest.approx(a, rel=1e-6), path
    else:
        assert a == b, path


@pytest.mark.parametrize('storage', ['mcap', 'sqlite3'])
@pytest.mark.parametrize('odometry', [True, False])
def test_a_forecast_comes_back_from_a_bag_field_by_field(tmp_path, storage, odometry):
    forecast = rich_forecast(odometry=odometry, valid=odometry)
    types = bag_types()
    with BagWriter(tmp_path / 'bag', storage) as writer:
        for topic, build in (('agents', agents_message), ('occupancy', occupancy_message),
                             ('flow', flow_message)):
            writer.write(f'/world_model/{topic}', START_NS, build(types, forecast))
    with BagReader(tmp_path / 'bag') as reader:
        found = {topic: msg for topic, _, msg in reader.read()}
    back = forecast_from_messages(found['/world_model/agents'], found['/world_model/occupancy'],
                                  found['/world_model/flow'])
    if not odometry:    # no plan is sent where there was none
        forecast = dataclasses.replace(forecast, ego_plan=dataclasses.replace(
            forecast.ego_plan, poses=np.zeros((6, 3))))
    assert_same(forecast, back)


def test_messages_hold_the_exact_fields():
    msg = agents_message(bag_types(), rich_forecast())
    assert (msg.header.stamp.sec, msg.header.stamp.nanosec) == (1_700_000_000, 0)
    assert msg.header.frame_id == 'base_link'
    assert msg.steps == 6 and msg.time_step_s == 0.5
    assert msg.info.precision == ['encode=i8', 'fold=f32', 'rollout=f32']
    assert msg.info.window.camera_states.tolist() == [0, 3]
    assert [(t.sec, t.nanosec) for t in msg.info.ego_plan.times_from_start][:3] == [
        (0, 500_000_000), (1, 0), (1, 500_000_000)]
    agent = msg.agents[0]
    assert agent.pose.covariance.reshape(6, 6)[0, 1] == 0.1
    assert agent.pose.covariance.reshape(6, 6)[5, 5] == 0.02
    assert agent.modes[0].probability == max(mode.probability for mode in agent.modes)
    assert len(agent.modes) == 6 and len(agent.modes[0].covariances) == 18
    assert agent.classification == 1 + int(np.argmax(agent.class_probabilities))


def test_modes_are_sent_most_probable_first():
    forecast = rich_forecast()
    agent = forecast.agents[0]
    turned = dataclasses.replace(agent, mode_probabilities=agent.mode_probabilities[::-1].copy())
    msg = agents_message(bag_types(), dataclasses.replace(forecast, agents=(turned,)))
    assert msg.agents[0].modes[0].waypoints.tolist() == pytest.approx(
        agent.trajectories_m[-1].reshape(-1).tolist())


def test_the_odom_frame_moves_points_and_turns_vectors_and_covariances():
    forecast = rich_forecast()
    quarter = np.array([10.0, 20.0, np.pi / 2])
    msg = agents_message(bag_types(), forecast, FrameOfReference('odom', quarter))
    agent, sent = forecast.agents[0], msg.agents[0]
    x, y = agent.pose[:2]
    assert (sent.pose.pose.position.x, sent.pose.pose.position.y) == pytest.approx(
        (10 - y, 20 + x))
    assert (sent.twist.twist.linear.x, sent.twist.twist.linear.y) == pytest.approx((0.5, 1.5))
    covariance = sent.pose.covariance.reshape(6, 6)
    assert (covariance[0, 0], covariance[1, 1], covariance[0, 1]) == pytest.approx(
        (0.3, 0.4, -0.1))
    assert msg.header.frame_id == 'odom'


def test_the_occupancy_grid_holds_percent_and_unknown():
    forecast = rich_forecast()
    codes = np.zeros_like(forecast.occupancy_agents)
    static = np.zeros_like(forecast.occupancy_static)
    codes[0, 0, 1], codes[3, 0, 2], static[0, 3] = 127, 254, 254
    codes[:, 5, 5] = static[5, 5] = 255
    forecast = dataclasses.replace(forecast, occupancy_agents=codes, occupancy_static=static)
    now = np.asarray(grid_message(bag_types(), forecast, horizon=False).data).reshape(200, 200)
    risk = np.asarray(grid_message(bag_types(), forecast, horizon=True).data).reshape(200, 200)
    assert now[0, :4].tolist() == [0, 50, 0, 100]
    assert risk[0, :4].tolist() == [0, 50, 100, 100]
    assert now[5, 5] == risk[5, 5] == -1


def test_flow_out_of_range_is_clipped_not_wrapped():
    forecast = rich_forecast()
    flow = np.full_like(forecast.flow, 40.0)
    msg = flow_message(bag_types(), dataclasses.replace(forecast, flow=flow))
    assert set(np.unique(msg.dx)) == {127}


def write_inputs(path, rig, storage='mcap', frames=3):
    types, known = bag_types(), typestore().types
    with BagWriter(path, storage) as writer:
        writer.note('cameras', ' '.join(rig.names))
        writer.write('/tf_static', START_NS, static_transforms(rig, START_NS), latched=True)
        for i in range(frames):
            stamp = START_NS + i * PERIOD_NS
            writer.write('/odometry', stamp, odometry_message(
                EgoState(stamp, np.array([1.0 * i, 2.0, 0.5]), 10.0, 0.1)))
            for camera in rig.cameras:
                header = types.header(stamp, optical_frame(camera.name))
                writer.write(f'/{camera.name}/camera_info', stamp,
                             camera_info_message(camera, header))
                writer.write(f'/{camera.name}/image_raw/compressed', stamp,
                             known['sensor_msgs/msg/CompressedImage'](
                                 header=header, format='jpeg',
                                 data=np.frombuffer(jpeg(), np.uint8)))


@pytest.mark.parametrize('storage', ['mcap', 'sqlite3'])
def test_inputs_come_back_as_the_packages_own_values(tmp_path, storage):
    rig = small_rig()
    write_inputs(tmp_path / 'bag', rig, storage)
    with BagReader(tmp_path / 'bag') as reader:
        back = reader.rig()
        values = [value for _, value in reader.values()]
        assert reader.notes['cameras'] == 'front back'
        assert (reader.start_ns, reader.end_ns) == (START_NS, START_NS + 2 * PERIOD_NS)
    assert back.names == ('front', 'back')
    for a, b in zip(rig.cameras, back.cameras, strict=True):
        np.testing.assert_allclose(b.base_from_camera, a.base_from_camera, atol=1e-12)
        np.testing.assert_array_equal(b.k, a.k)
        assert (b.width, b.height, b.distortion) == (a.width, a.height, a.distortion)
    frames = [value for value in values if isinstance(value, Frame)]
    egos = [value for value in values if isinstance(value, EgoState)]
    assert [(f.camera, f.stamp_ns) for f in frames] == [
        (name, START_NS + i * PERIOD_NS) for i in range(3) for name in rig.names]
    assert bytes(frames[0].image) == jpeg()
    assert egos[2].odom_from_base == pytest.approx([2.0, 2.0, 0.5])
    assert (egos[2].speed_mps, egos[2].yaw_rate_rps) == (10.0, 0.1)


@pytest.mark.parametrize('change', [{'rotation': {'x': 0.0, 'y': 0.0, 'z': 0.0, 'w': 0.0}},
                                    {'translation': {'x': np.nan}}])
def test_a_transform_that_is_none_refuses_only_what_needs_it(change):
    """As tf2 has it: of another link's a camera need not know."""
    msg = static_transforms(small_rig(), START_NS)
    name, other = (entry.child_frame_id for entry in msg.transforms)
    for part, values in change.items():
        for field, value in values.items():
            setattr(getattr(msg.transforms[1].transform, part), field, value)
    found = transforms_in([msg])
    assert np.isfinite(base_from_frame(found, name, 'base_link')).all()
    with pytest.raises(BagError, match=f"no transform from 'base_link' to '{other}'"):
        base_from_frame(found, other, 'base_link')


def test_raw_images_are_decoded_and_named_by_their_namespace(tmp_path):
    known, types = typestore().types, bag_types()
    picture = np.arange(2 * 4 * 3, dtype=np.uint8).reshape(2, 4, 3)
    padded = np.zeros((2, 16), np.uint8)
    padded[:, :12] = picture.reshape(2, 12)
    with BagWriter(tmp_path / 'bag') as writer:
        writer.write('/sensors/left/image_raw', START_NS, known['sensor_msgs/msg/Image'](
            header=types.header(START_NS, 'left'), height=2, width=4, encoding='bgr8',
            is_bigendian=0, step=16, data=padded.reshape(-1)))
    with BagReader(tmp_path / 'bag') as reader:
        (_, frame), = reader.values()
    assert frame.camera == 'left'
    np.testing.assert_array_equal(frame.image, picture[..., ::-1])


def test_bad_messages_are_values_that_say_so(tmp_path):
    known, types = typestore().types, bag_types()

    def image(encoding, data, step):
        return known['sensor_msgs/msg/Image'](
            header=types.header(START_NS, 'left'), height=2, width=4, encoding=encoding,
            is_bigendian=0, step=step, data=np.zeros(data, np.uint8))

    with BagWriter(tmp_path / 'bag') as writer:
        for message in (image('moon8', 24, 12), image('rgb8', 23, 12), image('rgb8', 25, 12)):
            writer.write('/left/image_raw', START_NS, message)
        writer.write('/odometry', START_NS, odometry_message(
            EgoState(START_NS, np.array([np.nan, 0.0, 0.0]), 1.0, 0.0)))
    with BagReader(tmp_path / 'bag') as reader:
        *frames, ego = [value for _, value in reader.values()]
    assert "left: image encoding 'moon8'; want one of rgb8" in str(frames[0].image)
    assert '24 in all, got step 12 and 23' in str(frames[1].image)
    assert '24 in all, got step 12 and 25' in str(frames[2].image)
    assert np.isnan(ego.odom_from_base).all()


def test_truth_comes_back_and_an_unknown_future_stays_unknown(tmp_path):
    futures = np.full((2, 6, 3), np.nan)
    futures[0] = [[5 + i, 0.5 * i, 0.4636] for i in range(1, 7)]
    truth = make_truth([[5, 0, 0.4636], [-3, 4, 1.0]], futures=futures, visible=[True, False],
                       classes=[0, 6], ids=[7, -9], stamp_ns=START_NS)
    with BagWriter(tmp_path / 'bag') as writer:
        writer.write('/truth/agents', START_NS, truth_message(bag_types(), truth, ('front',)))
    with BagReader(tmp_path / 'bag') as reader:
        (_, _, msg), = reader.read(['/truth/agents'])
    back = truth_from_message(msg)
    assert back.ids.tolist() == [7, -9]
    assert back.visible.tolist() == [True, False]
    assert back.classes.tolist() == [0, 6]
    np.testing.assert_allclose(back.poses, truth.poses, atol=1e-12)
    np.testing.assert_allclose(back.futures[0], futures[0], atol=1e-3)
    assert np.isnan(back.futures[1]).all()
    assert all(np.isfinite(mode.waypoints).all() for agent in msg.agents for mode in agent.modes)


def test_a_bag_that_is_none_is_named(tmp_path):
    with pytest.raises(BagError, match='nowhere'):
        BagReader(tmp_path / 'nowhere')
    (tmp_path / 'half').mkdir()
    (tmp_path / 'half' / 'metadata.yaml').write_text('rosbag2_bagfile_information: {version: 9}')
    with pytest.raises(BagError, match='half'):
        BagReader(tmp_path / 'half')
    with BagWriter(tmp_path / 'bag') as writer:
        writer.write('/odometry', 1, odometry_message(EgoState(1, np.zeros(3), 0.0, 0.0)))
    with pytest.raises(BagError, match='exists'):
        BagWriter(tmp_path / 'bag')
    with BagReader(tmp_path / 'bag') as reader, pytest.raises(BagError, match='no camera topic'):
        reader.rig()


def test_a_rig_without_transform_or_calibration_names_the_camera(tmp_path):
    types, known = bag_types(), typestore().types
    camera = small_rig().cameras[0]
    header = types.header(START_NS, 'front_optical_frame')
    image = known['sensor_msgs/msg/CompressedImage'](
        header=header, format='jpeg', data=np.frombuffer(jpeg(), np.uint8))
    with BagWriter(tmp_path / 'a') as writer:
        writer.write('/front/image_raw/compressed', START_NS, image)
    with BagReader(tmp_path / 'a') as reader, pytest.raises(BagError, match="'front'.*CameraInfo"):
        reader.rig()
    with BagWriter(tmp_path / 'b') as writer:
        writer.write('/front/image_raw/compressed', START_NS, image)
        writer.write('/front/camera_info', START_NS, camera_info_message(camera, header))
    with BagReader(tmp_path / 'b') as reader, pytest.raises(BagError, match='no transform'):
        reader.rig()


def test_a_loop_of_transforms_ends():
    transforms = {'a': ('b', np.eye(4)), 'b': ('a', np.eye(4))}
    with pytest.raises(BagError, match='loop'):
        base_from_frame(transforms, 'a', 'base_link')


def test_a_message_cut_short_is_named_with_topic_and_time(tmp_path):
    with BagWriter(tmp_path / 'bag') as writer:
        writer.write_raw('/odometry', 'nav_msgs/msg/Odometry', 2_500_000_000, b'\0\1\0\0abc')
    with BagReader(tmp_path / 'bag') as reader, pytest.raises(BagError, match='/odometry at 2.500'):
        list(reader.read())


def test_an_exception_while_writing_leaves_a_readable_bag(tmp_path):
    with pytest.raises(KeyError), BagWriter(tmp_path / 'bag') as writer:
        writer.write('/odometry', 1, odometry_message(EgoState(1, np.zeros(3), 0.0, 0.0)))
        raise KeyError('stop')
    with BagReader(tmp_path / 'bag') as reader:
        assert len(list(reader.read())) == 1


def test_a_scaled_rig_sees_the_same_directions():
    rig = small_rig()
    half = scaled(rig, 80)
    for a, b in zip(rig.cameras, half.cameras, strict=True):
        # The picture's border lies at -0.5 and width - 0.5 in both.
        for column, other in ((-0.5, -0.5), (a.width - 0.5, b.width - 0.5)):
            assert (column - a.k[0, 2]) / a.k[0, 0] == pytest.approx(
                (other - b.k[0, 2]) / b.k[0, 0])
