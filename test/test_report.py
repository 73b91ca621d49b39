"""The page: valid JSON, pictures that decode, right figures, and a browser that plays it."""

import base64
import dataclasses
import json
import re
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from bags import PERIOD_NS, START_NS, forecast_near, rich_forecast, small_rig
from drives import forecasts
from fakes import make_fake_artifact
from test_bag import write_inputs
from truths import make_agent, make_forecast, make_truth

from wm_ros.cli.main import main
from wm_ros.cli.report import add_frames
from wm_ros.data.bag import BagError, BagReader, BagWriter
from wm_ros.data.messages import bag_types, typestore
from wm_ros.data.truth import truth_message
from wm_ros.evaluate import report_data
from wm_ros.evaluate.recorded import forecasts_in, score, score_table
from wm_ros.evaluate.report_data import (
    gather,
    ground_picture,
    mosaic_layout,
    occupancy_picture,
    window_json,
)
from wm_ros.evaluate.report_health import health
from wm_ros.evaluate.report_judged import Judged, held_moments, judged, moments_to_look_at
from wm_ros.evaluate.report_page import write_page
from wm_ros.messages import FrameOfReference, agents_message, occupancy_message
from wm_ros.replay import ForecastWriter
from wm_ros.runtime.artifact import load_artifact
from wm_ros.types import OUTPUT_GRID, CameraState

RIG = small_rig(('front', 'back'))
WINDOWS = 4


def truth_at(i):
    return make_truth([[8.0 + i, 2.0, 0.1], [-6.0, -4.0, 1.5]], velocities=[[10.0, 0.0], [0, 0]],
                      classes=[0, 6], stamp_ns=START_NS + i * PERIOD_NS)


def forecast_at(i):
    forecast = forecast_near(truth_at(i), np.random.default_rng(i))
    window = dataclasses.replace(forecast.window, cameras={
        'front': CameraState.OK, 'back': CameraState.BLACK if i == 2 else CameraState.OK})
    if i == 0:
        return dataclasses.replace(forecast, valid=False, agents=(), window=window,
                                   reasons=('window: 1 of 16 frames </script>',))
    return dataclasses.replace(forecast, window=window)


@pytest.fixture(scope='module')
def bags(tmp_path_factory):
    """Return a bag of forecasts and the bag of its input with the truth."""
    folder = tmp_path_factory.mktemp('report')
    write_inputs(folder / 'pictures', RIG, frames=WINDOWS)
    with BagReader(folder / 'pictures') as reader, BagWriter(folder / 'in') as writer:
        for topic, kind, stamp, data in reader.raw():
            writer.write_raw(topic, kind, stamp, data)
        for i in range(WINDOWS):
            writer.write('/truth/agents', START_NS + i * PERIOD_NS,
                         truth_message(bag_types(), truth_at(i), RIG.names))
    with BagWriter(folder / 'out', compress=True) as writer:
        out = ForecastWriter(writer)
        for i in range(WINDOWS):
            out.write(forecast_at(i))
    return folder / 'out', folder / 'in'


@pytest.fixture(scope='module')
def page(bags):
    """Return the path of a page."""
    report = gather(*bags, {'latency_ms': {str(START_NS + PERIOD_NS): 31.5}})
    path = bags[0].parent / 'page.html'
    write_page(report, path)
    return path


def data_of(page):
    text = page.read_text()
    found = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)
    assert len(found) == 1
    return json.loads(found[0])


def picture(text):
    return cv2.imdecode(np.frombuffer(base64.b64decode(text), np.uint8), cv2.IMREAD_UNCHANGED)


def test_the_page_holds_every_window_with_pictures_that_decode(page):
    data = data_of(page)
    assert len(data['windows']) == WINDOWS
    for window in data['windows']:
        assert picture(window['g']).shape == OUTPUT_GRID.shape
        assert picture(window['o']).shape == (4 * OUTPUT_GRID.rows, OUTPUT_GRID.cols)
        assert picture(window['cam']).shape[:2] == (data['mosaic'][1], data['mosaic'][0])
    assert data['windows'][1]['lat'] == 31.5 and data['windows'][2]['lat'] is None


def test_the_page_needs_nothing_from_elsewhere(page):
    text = page.read_text()
    assert not re.findall(r'(?:src|href)\s*=\s*["\']', text)
    assert "default-src 'none'" in text      # and the browser would not load anything
    assert not re.findall(r'https?://', text)


def test_text_from_a_bag_cannot_end_the_script(page):
    assert page.read_text().count('</script>') == 2
    assert data_of(page)['windows'][0]['why'] == ['window: 1 of 16 frames </script>']


def test_windows_carry_agents_truth_and_states(page):
    window = data_of(page)['windows'][2]
    car, person = window['a']
    assert (car['c'], person['c']) == (0, 6)
    assert car['p'][0] == pytest.approx(100, abs=15)      # decimetres
    assert car['v'] == [100, 0]
    assert sum(car['m']) >= 95 and len(car['t'][0]) == 12
    assert window['truth'][0]['p'][:2] == [100, 20]
    assert window['truth'][0]['t'][-2:] == [400, 20]
    assert window['cams'] == [0, 3]
    # Two standard deviations at 1, 2 and 3 s of the likeliest path; right for 3 s, none invented.
    assert [round(e[0], 2) for e in car['e']] == [0.8, 1.6, 2.4] and car['m'][car['b']] == 50
    assert window['jud'] == [2, 2, 0]


def test_cameras_project_points_where_the_geometry_does(page):
    from wm_ros.geometry import project
    for entry in data_of(page)['cameras']:
        camera = dataclasses.replace(RIG[entry['name']], distortion=())
        ahead = camera.base_from_camera @ np.array([0.5, 0.3, 6.0, 1.0])
        q = np.array(entry['p']).reshape(3, 4) @ ahead
        pixel, depth = project(camera, ahead[:3])
        np.testing.assert_allclose(q[:2] / q[2], pixel, atol=1e-2)
        assert depth > 0


def test_ground_tells_unobserved_from_free():
    forecast = rich_forecast()
    shape = OUTPUT_GRID.shape
    road = np.zeros((3, *shape), np.uint8)
    static = np.zeros(shape, np.uint8)
    static[0, 0], road[0, 0, 1], road[1, 0, 2], static[0, 3] = 255, 254, 254, 254
    road[:, 0, 0] = 255
    ground = ground_picture(dataclasses.replace(forecast, road=road, occupancy_static=static))
    assert ground[0, :5].tolist() == [0, 2, 3, 4, 1]


def test_occupancy_keeps_four_steps_and_shows_no_unobserved_ground():
    codes = np.zeros((7, *OUTPUT_GRID.shape), np.uint8)
    codes[4, 10, 20], codes[0, 3, 3], codes[6, 1, 1] = 200, 255, 20
    shown = occupancy_picture(dataclasses.replace(rich_forecast(), occupancy_agents=codes))
    assert np.argwhere(shown).tolist() == [[2 * OUTPUT_GRID.rows + 10, 20]]
    assert shown[2 * OUTPUT_GRID.rows + 10, 20] == 192


def test_six_cameras_stand_as_a_driver_looks():
    from wm_ros.sim.rigs import rig
    assert mosaic_layout(rig('surround')) == [
        ['front_left', 'front', 'front_right'], ['back_left', 'back', 'back_right']]
    assert mosaic_layout(rig('front')) == [['front']]


def test_scores_begin_with_the_first_valid_forecast():
    truths = {truth_at(i).stamp_ns: truth_at(i) for i in range(WINDOWS)}
    forecasts = [forecast_at(i) for i in range(WINDOWS)]
    report = score(forecasts, truths)
    assert report['n_forecasts'] == WINDOWS - 1
    assert report['recall'] == 1.0
    lost = dataclasses.replace(forecasts[2], valid=False)
    assert score([*forecasts[:2], lost, forecasts[3]], truths)['recall'] == pytest.approx(2 / 3)
    assert score(forecasts, {}) is None
    assert score_table(report)[1][:2] == ['recall (30 m)', '1.00']


def test_a_picture_that_does_not_decode_leaves_its_place_black(tmp_path, bags, monkeypatch):
    monkeypatch.setattr(report_data.cv2, 'imdecode', lambda *_: None)
    report = gather(*bags)
    monkeypatch.undo()
    # WebP loses a little.
    assert picture(base64.b64encode(report.mosaics[START_NS]).decode()).max() < 4


def test_a_camera_that_is_lost_broken_or_faster_spoils_no_other_picture(tmp_path, bags,
                                                                        monkeypatch):
    """Of 40 sets: the other camera comes first once, broken twice, then 16 ms early, then not."""
    wanted, n = set(), 40
    types, store = bag_types(), typestore()
    kind = 'sensor_msgs/msg/CompressedImage'

    def image(stamp, shade):
        blob = cv2.imencode('.jpg', np.full((90, 160, 3), shade, np.uint8))[1].reshape(-1)
        return store.types[kind](header=types.header(stamp, 'x'), format='jpeg',
                                 data=blob if shade else np.zeros(0, np.uint8))

    with BagWriter(tmp_path / 'in') as writer:
        for i in range(n):
            stamp = START_NS + i * PERIOD_NS
            wanted.add(stamp)
            if i == 3:
                writer.write_raw('/back/image', kind, stamp - 20_000_000, b'broken')
            if i == 4:
                writer.write('/back/image', stamp - 20_000_000, image(stamp - 20_000_000, 0))
            if i < 8:
                writer.write('/back/image', stamp - 16_000_000, image(stamp - 16_000_000, 60))
            writer.write('/front/image', stamp, image(stamp, 240))
            if i < 4:
                writer.write('/back/image', stamp, image(stamp, 120))
    most = []
    zeros = np.zeros
    monkeypatch.setattr(report_data.np, 'zeros', lambda *a: most.append(1) or zeros(*a))
    with BagReader(tmp_path / 'in') as reader:
        done = []
        found = report_data._mosaics(reader, RIG, wanted, lambda i, _: done.append(len(most) - i))
    assert sorted(found) == sorted(wanted)
    assert max(done) <= 11, 'canvases of more than a second are held'
    for i, (_, data) in enumerate(sorted(found.items())):
        shown = picture(base64.b64encode(data).decode()).astype(int)
        front, back = (half.mean() for half in np.split(shown, 2))
        assert front == pytest.approx(240, abs=8), i
        assert back == pytest.approx(120 if i < 4 else 60 if i < 8 else 0, abs=8), i


def test_quality_falls_until_a_picture_fits():
    noise = np.random.default_rng(0).integers(0, 255, (180, 320, 3)).astype(np.uint8)
    generous = report_data.fitting_quality(noise, 10_000_000)
    tight = report_data.fitting_quality(noise, 10_000)
    assert generous == report_data.QUALITIES[0] and tight == report_data.QUALITIES[-1]


def test_a_bag_without_pictures_still_gives_a_page(bags, tmp_path):
    assert main(['report', str(bags[0]), '--out', str(tmp_path / 'page.html')]) == 0
    data = data_of(tmp_path / 'page.html')
    assert data['cameras'] == [] and data['scores'] == [] and len(data['windows']) == WINDOWS


def test_two_whose_ids_begin_alike_are_two():
    ids = [bytes([7] * 4 + [i] * 12) for i in range(2)]
    forecast = make_forecast([dataclasses.replace(make_agent((5 * i, 0)), track_id=track)
                              for i, track in enumerate(ids)])
    agents = window_json(forecast, None, 0, None)['a']
    assert len({agent['i'] for agent in agents}) == 2


def test_whose_the_predicted_frames_are_is_said(tmp_path, monkeypatch, capsys):
    artifact = load_artifact(make_fake_artifact(tmp_path / 'model'))
    report = SimpleNamespace(rig=RIG, source=None, forecasts=[forecast_at(1)], frames={})
    add_frames(report, 1, artifact.path)
    assert f'none beside {artifact.path}' in capsys.readouterr().err
    monkeypatch.setattr('wm_ros.runtime.frames.find_frames', lambda _: 'graph')
    monkeypatch.setattr('wm_ros.evaluate.report_page.drawn_moments', lambda *_: [])
    monkeypatch.setattr('wm_ros.evaluate.future_frames.draw_frames', lambda *_, **__: {1: 'drawn'})
    add_frames(report, 1, artifact.path)
    told = capsys.readouterr().err
    assert f'those of model {artifact.hash[:12]}, the forecasts of ' in told
    assert report.frames == {1: 'drawn'}
    report.forecasts = [dataclasses.replace(forecast_at(1), model_hash=artifact.hash)]
    add_frames(report, 1, artifact.path)
    assert capsys.readouterr().err == ''


def test_a_bag_without_forecasts_is_named(bags):
    with pytest.raises(BagError, match='no forecasts'):
        gather(bags[1], None)


def test_the_command_writes_page_and_preview(bags, tmp_path, capsys):
    assert main(['report', str(bags[0]), '--input', str(bags[1]), '--out',
                 str(tmp_path / 'a' / 'page.html'), '--preview', str(tmp_path / 'b.png'),
                 '--json']) == 0
    result = json.loads(capsys.readouterr().out)
    assert result['windows'] == WINDOWS
    image = cv2.imread(str(tmp_path / 'b.png'))
    assert image.shape[0] == 1080 and image.std() > 10


def test_a_forecast_is_judged_by_the_rules_of_the_benchmark():
    truth = make_truth([[8.0, 2.0, 0.1], [-6.0, -4.0, 1.5], [20.0, 0.0, 0.0], [40.0, 0.0, 0.0]],
                       velocities=[[10.0, 0.0], [0, 0], [0, 0], [0, 0]])
    found, late, nobody = (make_agent(xy) for xy in ((-6.5, -4.0), (8.5, 2.0), (0.0, 15.0)))
    one = judged(make_forecast([found, late, nobody]), truth)
    # One right, one found whose paths stand still, one missed, one beyond 30 m, one invented.
    assert (one.visible, one.found, one.right, one.invented, one.wrong) == (3, 2, 1, 1, 3)


def test_the_moments_to_look_at_are_listed_by_kind():
    drive = forecasts(6.0, jump_at_s=4.0)
    drive[45] = dataclasses.replace(drive[45], valid=False, reasons=('camera back: missing',))
    drive[0] = dataclasses.replace(drive[0], valid=False)     # not yet running
    against = {drive[20].stamp_ns: Judged(4, 3, 1, 0), drive[30].stamp_ns: Judged(4, 4, 4, 0)}
    entries = moments_to_look_at(drive, held_moments(drive), against)
    by_kind = {kind: [e for e in entries if e['kind'] == kind]
               for kind in ('surprise', 'truth', 'health')}
    assert 40 <= by_kind['surprise'][0]['i'] <= 59
    assert [e['i'] for e in by_kind['truth']] == [20] and by_kind['truth'][0]['value'] == 3
    assert by_kind['health'] == [{'kind': 'health', 'i': 45, 'value': 1, 'unit': 'windows',
                                  'title': 'camera back: missing', 'lines': []}]


def test_health_comes_from_diagnostics_and_recording_times(tmp_path):
    known = typestore().types
    status, value = (known[f'diagnostic_msgs/msg/{name}']
                     for name in ('DiagnosticStatus', 'DiagnosticArray'))
    types = bag_types()
    late = 40_000_000
    with BagWriter(tmp_path / 'live') as writer:
        for i in range(3):
            forecast, stamp = forecast_at(i), START_NS + i * PERIOD_NS
            for name, msg in (('agents', agents_message(types, forecast)),
                              ('occupancy', occupancy_message(types, forecast))):
                writer.write(f'/world_model/{name}', stamp + late, msg)
            writer.write('/diagnostics', stamp + late + 1, value(
                header=types.header(stamp, ''), status=[
                    status(level=2 * (i == 1), name='world_model: camera back',
                           message='no picture', hardware_id='', values=[])]))
    with BagReader(tmp_path / 'live') as reader:
        found = health(reader)
    assert list(found.latency_ms.values()) == [40.0, 40.0, 40.0]
    assert [level for _, level, _ in found.reports] == [0, 2, 0]
    assert found.reports[1][2] == ['camera back: no picture']


def test_a_replayed_bag_leads_to_its_pictures(bags, tmp_path):
    with BagReader(bags[0]) as reader, BagWriter(tmp_path / 'out') as writer:
        writer.note('replayed', str(bags[1]))
        for topic, kind, stamp, data in reader.raw():
            writer.write_raw(topic, kind, stamp, data)
    assert gather(tmp_path / 'out', None).rig is not None


def test_forecasts_that_were_published_in_odometry_come_back_in_base_link(tmp_path):
    here, frame = forecast_at(1), FrameOfReference('odom', np.array([100.0, -20.0, 1.2]))
    here = dataclasses.replace(here, odom_from_base=frame.frame_from_base)
    with BagWriter(tmp_path / 'odom') as writer:
        for name, message in (('agents', agents_message), ('occupancy', occupancy_message)):
            writer.write(f'/world_model/{name}', here.stamp_ns,
                         message(bag_types(), here, frame, 'odom'))
    with BagReader(tmp_path / 'odom') as reader:
        back, = forecasts_in(reader)
    np.testing.assert_allclose(back.ego_plan.poses, here.ego_plan.poses, atol=1e-9)
    for a, b in zip(back.agents, here.agents, strict=True):
        for name in ('pose', 'velocity_mps', 'pose_covariance', 'trajectories_m',
                     'covariances_m2'):
            np.testing.assert_allclose(getattr(a, name), getattr(b, name), atol=1e-4)
