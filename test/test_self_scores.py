"""Forecasts against what the node saw later: worked out by hand, and planted surprises found."""

import dataclasses
import json

import numpy as np
import pytest
from bags import PERIOD_NS, START_NS
from drives import forecasts
from truths import make_agent, make_forecast

from wm_ros.cli.main import main
from wm_ros.data.bag import BagWriter
from wm_ros.evaluate import self_report, self_scores
from wm_ros.evaluate.self_scores import FOUND_AGAIN, NEW_PER_M2, Said, SelfScorer, hold, warped
from wm_ros.replay import ForecastWriter
from wm_ros.types import OUTPUT_GRID

SECOND = 1_000_000_000


def said(agents=(), stamp_ns=0, pose=(0.0, 0.0, 0.0), occupancy=None):
    forecast = make_forecast(agents, occupancy, stamp_ns)
    return Said.of(dataclasses.replace(forecast, odom_from_base=np.array(pose)))


def one_second(earlier, now):
    return hold(earlier, now, 1, 2)


def test_an_agent_where_it_was_expected_costs_its_density_and_surprises_nobody():
    then = said([make_agent((10.0, 0.0), score=0.8, covariance_m2=0.3)])
    held = one_second(then, said([make_agent((10.0, 0.0), score=1.0)], SECOND))
    # Covariance 0.3 of the forecast and 0.1 of what was seen: density 1 / (2 pi 0.4).
    density = 1 / (2 * np.pi * 0.4)
    assert held.agent_nll == pytest.approx(-np.log(0.8 * FOUND_AGAIN * density))
    assert held.agent_surprise == 0.0 and held.agents == 1 and held.events == ()


def test_an_agent_two_deviations_off_surprises_by_two_nats():
    then = said([make_agent((10.0, 0.0), covariance_m2=0.3)])
    there = make_agent((10.0 + 2 * np.sqrt(0.4), 0.0), score=1.0)
    held = one_second(then, said([there], SECOND))
    assert held.agent_surprise == pytest.approx(2.0)      # 2^2 / 2
    event = held.events[0]
    assert (event.kind, event.label, event.expected_m) == ('moved', 'car', (10.0, 0.0))


def test_one_that_is_gone_and_one_that_is_new_cost_what_they_were_likely():
    then = said([make_agent((10.0, 0.0), score=0.8)])
    held = one_second(then, said([make_agent((-10.0, 5.0), score=0.9)], SECOND))
    gone, new = -np.log(1 - 0.8 * FOUND_AGAIN), -0.9 * np.log(NEW_PER_M2)
    assert held.agent_surprise == pytest.approx(gone + new)
    assert held.agent_nll == pytest.approx(gone + new) and held.agents == 2
    assert [event.kind for event in held.events] == ['appeared', 'vanished']


def test_what_could_not_be_seen_is_not_held_against_the_forecast():
    hidden = np.zeros((7, *OUTPUT_GRID.shape), np.uint8)
    hidden[:, :, :100] = 255      # everything behind
    behind = make_agent((-10.0, 0.0), score=0.9)
    gone = one_second(said([behind]), said([], SECOND, occupancy=hidden))
    assert gone.agent_surprise < 0.01 and gone.expected == 0
    new = one_second(said([], occupancy=hidden), said([behind], SECOND))
    assert new.agent_surprise == 0.0 and new.agents == 0
    far = make_agent((45.0, 0.0), score=0.9)
    assert one_second(said([far]), said([], SECOND)).agents == 0


def test_the_vehicles_own_motion_is_taken_out():
    then = said([make_agent((10.0, 5.0))], pose=(100.0, 50.0, 0.3))
    # Two metres ahead along its heading, turned left by a right angle: x' = y - ..., y' = -(x - 2).
    pose = (100.0 + 2 * np.cos(0.3), 50.0 + 2 * np.sin(0.3), 0.3 + np.pi / 2)
    held = one_second(then, said([make_agent((5.0, -8.0))], SECOND, pose))
    assert held.agent_surprise == pytest.approx(0.0, abs=1e-6)
    assert held.followed[0, :2] == pytest.approx([0.0, 0.0], abs=1e-6)


def test_displacements_follow_ids():
    paths = np.zeros((6, 6, 2)) + [10.0, 0.0]
    paths[1] += [0.0, 3.0]
    mover = make_agent((10.0, 0.0), velocity=(2.0, 0.0), trajectories=paths,
                       probabilities=[0.5, 0.3, 0.05, 0.05, 0.05, 0.05])
    held = one_second(said([mover]), said([make_agent((10.0, 4.0))], SECOND))
    # Likeliest path 4 m off, the second one 1 m, constant velocity hypot(2, 4), standing 4.
    assert held.followed[0, :4] == pytest.approx([4.0, 1.0, np.sqrt(20), 4.0])
    other = dataclasses.replace(make_agent((10.0, 4.0)), track_id=bytes([9] * 16))
    assert len(one_second(said([mover]), said([other], SECOND)).followed) == 0


def test_occupancy_costs_the_logarithm_of_what_was_given_to_it():
    forecast = np.zeros((7, *OUTPUT_GRID.shape), np.uint8)
    forecast[2, 100:102, 110:117] = 51      # 14 cells at 0.2
    seen = np.zeros_like(forecast)
    seen[0, 100:102, 110:117] = 254
    held = one_second(said(occupancy=forecast), said(stamp_ns=SECOND, occupancy=seen))
    p = 51 / 254
    assert held.occupancy_surprise == pytest.approx(14 * np.log((1 - p) / p) / 34)
    rest = -(held.cells - 14) * np.log(1 - 0.5 / 254)
    assert held.occupancy_log_loss == pytest.approx(-14 * np.log(p) + rest)
    agreed = one_second(said(occupancy=forecast), said(stamp_ns=SECOND, occupancy=forecast * 0))
    assert agreed.occupancy_surprise == 0.0


def test_occupancy_is_warped_into_the_frame_of_the_forecast():
    layer = np.zeros(OUTPUT_GRID.shape, np.uint8)
    layer[100, 120] = 200                   # centre at x 10.25, y 0.25 of the later vehicle
    moved = warped(layer, np.array([5.0, 1.0, 0.0]))
    assert np.argwhere(moved == 200).tolist() == [[102, 130]]
    assert (moved[:, :9] == 255).all()      # ground that the later vehicle does not reach
    turned = warped(layer, np.array([0.0, 0.0, np.pi / 2]))
    assert np.argwhere(turned == 200).tolist() == [[120, 99]]


def test_forecasts_are_held_at_one_two_and_three_seconds():
    scorer, held = SelfScorer(), []
    for i in range(31):
        forecast = make_forecast(stamp_ns=i * SECOND // 10)
        held.append([(h.horizon_s, h.made_ns) for h in scorer.add(forecast)])
    assert held[9] == [] and held[10] == [(1, 0)]
    assert held[30] == [(1, 2 * SECOND), (2, SECOND), (3, 0)]
    # An invalid one, or one without odometry, is neither held nor held against.
    assert scorer.add(make_forecast(stamp_ns=31 * SECOND // 10, valid=False)) == []
    lost = dataclasses.replace(make_forecast(stamp_ns=32 * SECOND // 10), odom_from_base=None)
    assert scorer.add(lost) == []
    # 3.1 s was lost, so 4.1 s finds nothing one second before it.
    late = scorer.add(make_forecast(stamp_ns=41 * SECOND // 10))
    assert [h.horizon_s for h in late] == [2, 3]


def surprise_at(forecasts_of_drive):
    scorer, series = SelfScorer(), {}
    for forecast in forecasts_of_drive:
        for one in scorer.add(forecast):
            series.setdefault((one.seen_ns - START_NS) / 1e9, []).append(one.surprise)
    return {t: float(np.mean(values)) for t, values in series.items()}


@pytest.mark.parametrize('planted, when', [({'jump_at_s': 3.0}, (3.0, 6.0)),
                                           ({'brake_at_s': 3.0}, (3.2, 6.0))])
def test_a_planted_surprise_stands_out(planted, when):
    calm = surprise_at(forecasts(6.0, period_ns=2 * PERIOD_NS))
    wild = surprise_at(forecasts(6.0, period_ns=2 * PERIOD_NS, **planted))
    worst = max(wild, key=wild.get)
    assert when[0] <= worst <= when[1]
    assert wild[worst] > 3 * max(calm.values())
    before = [value for t, value in wild.items() if t < 3.0]
    assert wild[worst] > 3 * max(before)


def test_the_report_of_a_bag_and_the_command(tmp_path, capsys):
    with BagWriter(tmp_path / 'bag', compress=True) as writer:
        out = ForecastWriter(writer, flow=False, grids=False)
        for forecast in forecasts(4.0, period_ns=2 * PERIOD_NS):
            out.write(forecast)
    assert main(['evaluate', '--dataset', f'bag:{tmp_path / "bag"}', '--json',
                 str(tmp_path / 'scores.json')]) == 0
    shown = capsys.readouterr().out
    assert 'no truth' in shown and 'displacement, likeliest (m)' in shown
    report = json.loads((tmp_path / 'scores.json').read_text())
    assert (report['n_forecasts'], report['n_pairs']) == (20, 15 + 10 + 5)
    one = report['by_horizon']['1']
    assert one['followed_share'] == 1.0
    # The road users do what was said: within the noise of path and box, unlike one that stands.
    assert one['displacement_likeliest_m'] < 0.8 < one['displacement_static_m']
    assert one['iou_near_forecast'] > one['iou_near_static']
    assert 0 <= one['covariance_coverage_50'] <= one['covariance_coverage_90'] <= 1
    window = report['windows'][0]
    assert window['stamp_ns'] == START_NS
    assert [held['horizon_s'] for held in window['held']] == [1, 2, 3]


@pytest.mark.parametrize('option', [['--html', 'x'], ['--against', 'x'], ['--no-plan'],
                                    ['--frames'], ['--threshold', '0']])
def test_what_needs_truth_is_refused_for_a_bag_without(tmp_path, capsys, option):
    with BagWriter(tmp_path / 'bag') as writer:
        ForecastWriter(writer, flow=False, grids=False).write(make_forecast([]))
    assert main(['evaluate', '--dataset', f'bag:{tmp_path / "bag"}', *option]) == 2
    assert f'{option[0]}: want truth, and there is none in ' in capsys.readouterr().err


def test_a_bag_that_cannot_be_scored_says_why():
    scores = self_report.SelfScores()
    for forecast in forecasts(0.4):
        scores.add(forecast)
    with pytest.raises(ValueError, match='at least 1 s apart, got 4 forecasts, 0 invalid'):
        scores.report()


def test_the_constants_are_the_documented_ones():
    from pathlib import Path
    text = (Path(__file__).resolve().parent.parent / 'docs' / 'evaluation.md').read_text()
    for value in (self_scores.FOUND_AGAIN, self_scores.NEW_PER_M2,
                  self_scores.FOOTPRINT_CELLS):
        assert f'{value:g}' in text
