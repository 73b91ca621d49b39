"""The page in a real browser: it opens, plays, seeks, compares, with no error on the console."""

import os
import shutil

import cv2
import numpy as np
import pytest
from bags import PERIOD_NS, small_rig
from drives import forecasts

from wm_ros.evaluate.report_data import Report, encoded
from wm_ros.evaluate.report_judged import Judged, held_moments
from wm_ros.evaluate.report_page import write_page
from wm_ros.frame_predictor import FutureFrames
from wm_ros.types import CameraState

BROWSERS = ('chromium', 'chromium-browser', 'google-chrome', 'chrome')
WINDOWS = 45


@pytest.fixture(scope='module')
def page(tmp_path_factory):
    """Return the page of a drive of 4.5 s in which an agent jumps, with pictures."""
    drive = forecasts(WINDOWS * PERIOD_NS / 1e9, jump_at_s=3.5)
    rig = small_rig()
    ramp = np.linspace(0, 255, 800, dtype=np.uint8)[None].repeat(225, axis=0)
    mosaic = encoded(np.tile(cv2.merge([ramp, ramp // 2, 255 - ramp]), (2, 1, 1)), 50)
    report = Report(
        'drive', rig, drive, {}, {f.stamp_ns: mosaic for f in drive}, moments=held_moments(drive),
        judged={f.stamp_ns: Judged(3, 2, 1, 0) for f in drive[::5]},
        summary={'latency_ms': {str(f.stamp_ns): 30.0 for f in drive}})
    tiles = cv2.resize(ramp[:3, :, None].repeat(3, 2), (200, 80))[None].repeat(3, 0)
    stamp = drive[20].stamp_ns
    report.frames = {stamp: FutureFrames(stamp, (1.0, 2.0, 3.0), {
        name: tiles for name in rig.names}, {})}
    report.forecasts[0].window.cameras.update(
        {'front': CameraState.OK, 'back': CameraState.BLACK})
    path = tmp_path_factory.mktemp('browser') / 'page.html'
    write_page(report, path)
    return path


@pytest.fixture(scope='module')
def browser(tmp_path_factory):
    """Return a headless Chromium with its driver; skip where one of them is missing."""
    webdriver = pytest.importorskip('selenium.webdriver', reason='selenium is not installed')
    binary = next(filter(None, map(shutil.which, BROWSERS)), None)
    driver = shutil.which('chromedriver')
    if binary is None or driver is None:
        pytest.skip('no Chromium with its driver: apt-get install chromium chromium-driver')
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for argument in ('--headless=new', '--disable-gpu', '--disable-dev-shm-usage',
                     '--window-size=1400,1000', '--hide-scrollbars', '--no-first-run',
                     f'--user-data-dir={tmp_path_factory.mktemp("profile")}',
                     *(['--no-sandbox'] if os.geteuid() == 0 else [])):
        options.add_argument(argument)
    options.set_capability('goog:loggingPrefs', {'browser': 'ALL'})
    from selenium.webdriver.chrome.service import Service
    chromium = webdriver.Chrome(options=options, service=Service(driver))
    chromium.set_script_timeout(300)
    yield chromium
    chromium.quit()


def test_the_page_opens_plays_and_seeks_without_an_error(page, browser):
    def run(script, *arguments):
        return browser.execute_script(script, *arguments)

    def until(test):
        """Wait in the page, frame by frame, until an expression holds."""
        return browser.execute_async_script(
            'const done = arguments[0], begun = performance.now(); const look = () => '
            f'({test}) ? done(true) : performance.now() - begun > 240000 ? done(false) : '
            'requestAnimationFrame(look); look();')

    def key(name, **options):
        return run('document.dispatchEvent(new KeyboardEvent("keydown", {...arguments[1], '
                   'key: arguments[0]})); return wm.playing', name, options)

    def colours(element):
        return run('const c = document.getElementById(arguments[0]); return new Set(new '
                   'Uint32Array(c.getContext("2d").getImageData(0, 0, c.width, c.height)'
                   '.data.buffer)).size', element)

    browser.get(page.as_uri())
    assert until('wm.ready')
    run('wm.draw()')
    assert colours('bev') > 50 and colours('cams') > 100 and colours('strip') > 20
    run('wm.seek(3)')
    assert until('wm.ready') and run('return wm.at') == 3
    run('document.getElementById("next").click()')
    assert run('return wm.at') == 4
    key('ArrowLeft')
    key('ArrowRight', shiftKey=True)
    assert run('return wm.at') == 13
    key('Home')
    assert run('return wm.at') == 0
    assert 'black' in run('const s = document.getElementById("strip"), r = s.getBoundingClientRect'
                          '(); tell({clientX: r.left + 75}); return document.getElementById("tip")'
                          '.textContent')
    run('document.getElementById("speed").value = "2"')
    assert key(' ') and until('!wm.playing') and run('return wm.at') == WINDOWS - 1
    # The worst moment is the jump; a click shows it with the forecast that did not expect it.
    listed = run('return [...document.querySelectorAll("#moments button")].map(b => '
                 'b.textContent)')
    assert listed and 'nats' in listed[0]
    run('document.querySelector("#moments button").click()')
    assert until('wm.ready') and run('return wm.at') >= 35
    assert run('return wm.view.hindsight')
    run('wm.draw()')
    caption = run('return document.getElementById("caption").textContent')
    assert caption.startswith('Dashed') and 'road users' in caption
    run('wm.seek(5)')
    assert until('wm.ready')
    run('wm.draw()')
    shown = run('return [...document.querySelectorAll("#trio figcaption")].map(f => '
                'f.textContent)')
    assert all('m off' in text for text in shown) and shown[0].startswith('+1 s')
    # Predicted pictures: only where there are any, and one click away.
    drawn = ('const c = document.querySelector("canvas.drawn"); return c.hidden ? 0 : new Set(new '
             'Uint32Array(c.getContext("2d").getImageData(0, 0, c.width, c.height).data.buffer))'
             '.size')
    assert run(drawn) == 0
    run('document.querySelector("#drawn button").click()')
    assert run('return wm.at') == 20 and until('wm.ready')
    run('wm.draw()')
    assert run(drawn) > 50
    count = run('const all = document.querySelectorAll("#toggles button, #horizon button, #range '
                'button, #modes button, #kinds button, #theme"); for (const b of all) '
                '{ b.click(); wm.draw(); } return all.length')
    assert count > 15
    key('?')
    assert run('return document.getElementById("help").open')
    assert browser.get_log('browser') == []


def test_the_page_fits_a_phone_and_every_control_has_a_name(page, browser):
    browser.set_window_size(500, 900)
    browser.get(page.as_uri())
    assert browser.execute_script(
        'return document.documentElement.scrollWidth <= document.documentElement.clientWidth')
    assert browser.execute_script(
        'return [...document.querySelectorAll("button, select, [role=slider]")].filter(b => '
        '!(b.textContent.trim() || b.ariaLabel || b.labels && b.labels.length)).length') == 0


def test_text_and_colours_have_contrast(page, browser):
    """WCAG 2.1: 4.5 for text, 3 for what tells classes apart, in both themes."""
    browser.get(page.as_uri())
    low = browser.execute_script("""
      const parse = c => c.startsWith('#') ? [1, 3, 5].map(k => parseInt(c.slice(k, k + 2), 16))
        : c.match(/[\\d.]+/g).map(Number);
      const light = c => parse(c).slice(0, 3).map(v => v / 255).map(
        v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
        .reduce((sum, v, k) => sum + v * [.2126, .7152, .0722][k], 0);
      const ratio = (a, b) => (Math.max(light(a), light(b)) + .05) / (Math.min(light(a), light(b))
        + .05);
      const low = [];
      for (const name of ['dark', 'light']) {
        setTheme(name);
        const style = getComputedStyle(document.documentElement);
        const at = key => style.getPropertyValue('--' + key).trim();
        for (const [front, back] of [['text', 'panel'], ['muted', 'panel'], ['muted', 'button'],
          ['warn', 'button'], ['good', 'good-back'], ['bad', 'bad-back'],
          ['text', 'accent-back']]) {
          const r = ratio(at(front), at(back));
          if (r < 4.5) low.push([name, front, back, r]);
        }
        THEMES[name].classes.forEach((colour, k) => {
          const r = ratio(colour, THEMES[name].back);
          if (r < 3) low.push([name, CLASSES[k], r]);
        });
      }
      return low;""")
    assert low == []
