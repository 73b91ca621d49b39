"""The page: valid JSON, pictures that decode, right figures, and a browser that plays it."""

import base64
import dataclasses
import html
import json
import re
import shutil
import subprocess

import cv2
import numpy as np
import pytest
from bags import PERIOD_NS, START_NS, forecast_near, rich_forecast, small_rig
from test_bag import write_inputs
from truths import make_truth

from wm_ros.cli.main import main
from wm_ros.data.bag import BagError, BagReader, BagWriter
from wm_ros.data.messages import bag_types
from wm_ros.data.truth import truth_message
from wm_ros.evaluate import report_data
from wm_ros.evaluate.recorded import score, score_table
from wm_ros.evaluate.report_data import gather, ground_picture, mosaic_layout, occupancy_picture
from wm_ros.evaluate.report_page import write_page
from wm_ros.replay import ForecastWriter
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


def test_quality_falls_until_a_picture_fits():
    noise = np.random.default_rng(0).integers(0, 255, (180, 320, 3)).astype(np.uint8)
    generous = report_data.fitting_quality(noise, 10_000_000)
    tight = report_data.fitting_quality(noise, 10_000)
    assert generous == report_data.QUALITIES[0] and tight == report_data.QUALITIES[-1]


def test_a_bag_without_pictures_still_gives_a_page(bags, tmp_path):
    assert main(['report', str(bags[0]), '--out', str(tmp_path / 'page.html')]) == 0
    data = data_of(tmp_path / 'page.html')
    assert data['cameras'] == [] and data['scores'] == [] and len(data['windows']) == WINDOWS


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


CHECK = """
<script>
// Chromium's virtual time does not always draw frames; its timers always run.
window.requestAnimationFrame = action => setTimeout(() => action(performance.now()), 16);
const errors = [];
window.addEventListener('error', e => errors.push(e.message));
const complain = console.error;
console.error = (...a) => { errors.push(a.join(' ')); complain(...a); };
window.addEventListener('load', async () => {
  const pause = ms => new Promise(done => setTimeout(done, ms));
  const until = async test => { for (let i = 0; i < 200 && !test(); i++) await pause(50); };
  const seen = {};
  await until(() => wm.ready);
  await pause(200);
  const view = id => {
    const c = document.getElementById(id);
    return new Set(c.getContext('2d').getImageData(0, 0, c.width, c.height).data).size;
  };
  seen.bev = view('bev'); seen.cams = view('cams'); seen.strip = view('strip');
  wm.seek(1); await until(() => wm.ready); await pause(100); seen.seek = wm.at;
  document.getElementById('next').click(); seen.next = wm.at;
  document.dispatchEvent(new KeyboardEvent('keydown', {key: 'ArrowLeft'})); seen.left = wm.at;
  wm.seek(0); wm.play(true); seen.playing = wm.playing;
  await until(() => !wm.playing); seen.end = wm.at; seen.stopped = !wm.playing;
  for (const b of document.querySelectorAll('#toggles button, #horizon button, #range button')) {
    b.click(); await pause(30);
  }
  seen.rows = document.querySelectorAll('#scores tr').length;
  seen.errors = errors;
  const out = document.createElement('pre');
  out.id = 'outcome'; out.textContent = JSON.stringify(seen);
  document.body.append(out);
});
</script>
"""


def test_chromium_opens_plays_and_seeks_without_an_error(page, tmp_path):
    browser = next((path for name in ('chromium', 'chromium-browser', 'google-chrome')
                    if (path := shutil.which(name))), None)
    if browser is None:
        pytest.skip('no Chromium: apt-get install chromium')
    checked = tmp_path / 'checked.html'
    checked.write_text(page.read_text().replace('<head>', '<head>' + CHECK, 1))
    result = subprocess.run(
        [browser, '--headless=new', '--no-sandbox', '--disable-gpu', '--window-size=1600,1000',
         f'--user-data-dir={tmp_path / "profile"}', '--virtual-time-budget=30000', '--dump-dom',
         checked.as_uri()], capture_output=True, text=True, timeout=180)
    found = re.search(r'<pre id="outcome">(.*?)</pre>', result.stdout, re.S)
    assert found, result.stderr[-2000:]
    seen = json.loads(html.unescape(found.group(1)))
    assert seen['errors'] == []
    assert (seen['seek'], seen['next'], seen['left']) == (1, 2, 1)
    assert (seen['playing'], seen['stopped'], seen['end']) == (True, True, WINDOWS - 1)
    assert seen['bev'] > 40 and seen['cams'] > 100 and seen['strip'] > 20
    assert seen['rows'] > 5
