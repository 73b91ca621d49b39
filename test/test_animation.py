"""The animation and what it is drawn with: right way up, the page's colours, within its budget."""


import cv2
import numpy as np
import pytest
from bags import small_rig
from drives import forecasts
from test_bag import write_inputs
from truths import make_agent, make_forecast

from wm_ros.cli.main import main
from wm_ros.data.bag import BagWriter
from wm_ros.evaluate import animation
from wm_ros.evaluate.scene_picture import COLOURS, GROUND_COLOURS, birds_eye
from wm_ros.replay import ForecastWriter

SECOND = 1_000_000_000


@pytest.fixture(scope='module')
def bag(tmp_path_factory):
    """Return a bag of forecasts, two seconds, that says where its pictures are."""
    folder = tmp_path_factory.mktemp('animation')
    write_inputs(folder / 'in', small_rig(), frames=20)
    with BagWriter(folder / 'out', compress=True) as writer:
        writer.note('replayed', str(folder / 'in'))
        out = ForecastWriter(writer, flow=False, grids=False)
        for forecast in forecasts(2.0):
            forecast.window.cameras.update({'front': 0, 'back': 0})
            out.write(forecast)
    return folder / 'out'


def test_the_command_writes_an_endless_animation(bag, tmp_path, capsys):
    path = tmp_path / 'images' / 'drive.webp'
    assert main(['report', str(bag), '--animation', str(path), '--animation-start', '1.2']) == 0
    assert '8 frames from 1.2 s on' in capsys.readouterr().out
    done, read = cv2.imreadanimation(str(path))
    assert done and read.loop_count == 0 and set(np.ravel(read.durations)) == {100}
    height, width = read.frames[0].shape[:2]
    assert width == animation.FRONT_WIDTH + animation.PLAN_WIDTH and height > animation.HEAD
    # Above is the picture of the camera ahead, a gradient; it is there in every frame.
    for frame in read.frames:
        assert frame[60:300, 150:590, :3].std() > 20
    assert path.stat().st_size < animation.MAX_BYTES


def test_a_start_beyond_the_bag_is_refused(bag, tmp_path, capsys):
    assert main(['report', str(bag), '--animation', str(tmp_path / 'x.webp'),
                 '--animation-start', '9']) == 1
    assert 'no forecast there' in capsys.readouterr().err


def test_quality_falls_to_the_budget_and_no_further():
    noise = [np.random.default_rng(i).integers(0, 255, (60, 80, 3)).astype(np.uint8)
             for i in range(6)]
    generous, best = animation.animated(noise, 100)
    tight, less = animation.animated(noise, 100, budget=len(generous) * 3 // 4)
    assert best == animation.QUALITIES[0] and less < best
    assert len(tight) <= len(generous) * 3 // 4
    with pytest.raises(RuntimeError, match='do not fit'):
        animation.animated(noise, 100, budget=500)


def test_the_liveliest_stretch_is_shown():
    fast = make_agent((5.0, 0.0), velocity=(6.0, 0.0))
    drive = [make_forecast([fast] if 20 <= i < 40 else [], stamp_ns=i * SECOND // 10)
             for i in range(80)]
    assert animation.stretch(drive, 2.0, None)[0].stamp_ns == 2 * SECOND
    shown = animation.stretch(drive, 2.0, 5 * SECOND)
    assert [shown[0].stamp_ns, shown[-1].stamp_ns] == [5 * SECOND, 69 * SECOND // 10]
    dense = [make_forecast(stamp_ns=i * SECOND // 30) for i in range(30)]
    assert len(animation.thinned(dense)) == 10


def test_the_view_has_ahead_up_and_left_left():
    car, walker = COLOURS[0], COLOURS[6]
    view = birds_eye(make_forecast([make_agent((10.0, 0.0)), make_agent((0.0, 8.0), label=6)]),
                     None, (300, 200), 20.0, ahead=0.75)
    # 200 pixels are 40 m: 5 pixels a metre, the vehicle at row 225, column 100.
    boxes = {}
    for name, colour in (('car', car), ('walker', walker)):
        found = np.argwhere(np.abs(view.astype(int) - colour).max(axis=2) < 30)
        boxes[name] = (found.min(axis=0) + found.max(axis=0)) / 2
    assert boxes['car'] == pytest.approx([225 - 50, 100], abs=8)
    assert boxes['walker'] == pytest.approx([225, 100 - 40], abs=8)


def test_unobserved_ground_is_drawn_as_such():
    occupancy = np.zeros((7, 200, 200), np.uint8)
    forecast = make_forecast(occupancy=occupancy)
    forecast.occupancy_static[:, :100] = 255        # everything behind
    forecast.occupancy_agents[6, 98:102, 130:134] = 254
    view = birds_eye(forecast, None, 200, 20.0).astype(int)
    assert np.abs(view[150:, 20:60] - GROUND_COLOURS[1]).max(axis=2).min() > 0
    assert np.median(view[40:60, 20:60], axis=(0, 1)).tolist() == list(GROUND_COLOURS[1])
    hot = view[20, 100]         # occupied in 3 s, 16 m ahead: red
    assert hot[2] > 200 and hot[0] < 90
