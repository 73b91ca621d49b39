"""What an artifact carries is chosen from forecasts whose answers are known beforehand."""

import hashlib
import json
import shutil
from dataclasses import fields

import numpy as np
import pytest
import test_decode
from fakes import make_fake_artifact
from truths import make_agent, make_forecast, make_truth

from wm_ros import decode, raster
from wm_ros.choices import Choices, existence_probability
from wm_ros.cli import main as cli
from wm_ros.evaluate import choose, threshold
from wm_ros.evaluate.agents import Detections, agent_scores, count_agents
from wm_ros.evaluate.fit_existence import existence_ece, fit_existence
from wm_ros.evaluate.fit_occupancy import OccupancyCounts, pack, unpack
from wm_ros.evaluate.fit_spread import fit_spread
from wm_ros.evaluate.occupancy import truth_occupancy
from wm_ros.runtime.artifact import load_artifact, rewrite
from wm_ros.runtime.frames import weights_hash


def test_the_chosen_threshold_is_the_lowest_that_is_precise_enough():
    # Scores 0.9 .. 0.5 find five cars; those of 0.3 are inventions, one for each car.
    truth = make_truth([[5 + 4 * i, 0, 0] for i in range(5)])
    found = [make_agent((5 + 4 * i, 0), score=0.9 - 0.1 * i) for i in range(5)]
    invented = [make_agent((-5 - 4 * i, 0), score=0.3) for i in range(5)]
    points = threshold.sweep(threshold.judge(
        Detections.of(make_forecast(found + invented)), truth))
    best = threshold.choose(points)
    assert (best.spa_top6, best.precision, best.threshold) == (100.0, 1.0, 0.5)
    at = {point.threshold: point for point in points}
    assert (at[0.3].precision, at[0.3].epa) == (0.5, 0.5)
    assert at[0.6].spa_top6 == 80.0
    with pytest.raises(ValueError, match='the best precision is 1.000, want at least 1.5'):
        threshold.choose(points, 1.5)
    nobody_knows = make_truth(truth.poses, futures=np.full((5, 6, 3), np.nan))
    with pytest.raises(ValueError, match='whole future is known, got none'):
        threshold.choose(threshold.sweep(threshold.judge(
            Detections.of(make_forecast(found)), nobody_knows)))


def test_a_sweep_says_what_the_benchmark_says():
    rng = np.random.default_rng(3)
    futures = np.cumsum(rng.normal(0, 1.5, (12, 6, 3)), 1)
    places = np.column_stack([rng.uniform(-33, 33, (12, 2)), np.zeros(12)])
    futures[..., :2] += places[:, None, :2]
    futures[::2, 2] = np.nan    # a gap: the end is known, the whole is not
    truth = make_truth(places, futures=futures, visible=rng.random(12) < 0.8)
    told = [make_agent(place.ravel()[:2] + rng.normal(0, 0.8, 2), score=rng.random(),
                       trajectories=path[:, :2] + rng.normal(0, 0.9, (6, 6, 2)))
            for place, path in [*zip(places, np.nan_to_num(futures), strict=True),
                                *((place, place) for place in rng.uniform(-33, 33, (8, 1, 2)))]]
    detections = Detections.of(make_forecast(told))
    judged = threshold.pooled([threshold.judge(detections, truth)])
    for point in threshold.sweep(judged, (0.0, 0.2, 0.5, 0.8)):
        want = agent_scores(count_agents(detections.above(point.threshold), truth))
        for key in ('spa_top6', 'precision', 'recall', 'epa'):
            assert getattr(point, key) == pytest.approx(float(want[key])), (key, point.threshold)


def test_scores_get_the_meaning_that_they_have():
    rng = np.random.default_rng(0)
    score = rng.uniform(0.02, 0.98, 40_000)
    meant = existence_probability(score, (2.5, 1.7))
    hit = rng.random(len(score)) < meant
    existence = fit_existence(score, hit)
    np.testing.assert_allclose(existence, (2.5, 1.7), atol=0.1)
    assert existence_ece(score, hit, existence, 0.3) < 0.01
    assert existence_ece(score, hit, (1.0, 0.0), 0.3) > 0.1
    # Ranking stays, and what is right already stays as it is.
    np.testing.assert_array_equal(np.argsort(meant), np.argsort(score))
    np.testing.assert_allclose(fit_existence(score, rng.random(len(score)) < score), (1, 0),
                               atol=0.06)
    # Nothing to learn from: the prior's word, and no error.
    assert fit_existence(np.zeros(0), np.zeros(0)) == (1.0, 0.0)
    assert fit_existence(np.array([0.5, 0.6]), np.array([1, 1]))[1] > 0


def test_regions_hold_what_they_say_after_the_choice():
    rng = np.random.default_rng(1)
    n = 400
    means = np.zeros((n, 2, 3, 2))
    means[:, 1, :, 0] = 8.0
    weights = np.tile([0.7, 0.3], (n, 1))
    mode = (rng.random(n) < 0.3).astype(int)
    outcomes = means[np.arange(n), mode] + np.array([1.5, 0.8, 1])[:, None] * rng.normal(
        size=(n, 3, 2))
    outcomes[:, 2] = np.nan
    covariances = np.tile(np.eye(2), (n, 2, 3, 1, 1))
    factors, coverage = fit_spread(means, covariances, weights, outcomes)
    np.testing.assert_allclose(factors, [1.5, 0.8, 1.0], rtol=0.12)
    np.testing.assert_allclose(coverage[:2], np.tile([0.5, 0.9], (2, 1)), atol=0.05)
    assert np.isnan(coverage[2]).all()


def test_the_better_occupancy_gets_the_weight():
    truth = make_truth([[5, 3, 0.3], [-8, 2, 0]], velocities=[[4, 0], [0, 0]])
    occupied, scored = truth_occupancy(truth)
    np.testing.assert_array_equal(unpack(pack(occupied)), occupied)
    right = np.where(occupied, 1, 0)
    wrong = np.roll(right, 7, axis=2)
    for head, boxes, better in ((right, wrong, 0), (wrong, right, 1)):
        counts = OccupancyCounts()
        counts.add((254 * head).astype(np.uint8), boxes.astype(np.float32), boxes > 0, occupied,
                   scored)
        alone = counts.weigh((1.0, 0.0))
        best = counts.choose()
        assert best.iou_far_to_2s == 100.0 and best.brier < 1e-4
        assert best.weights[better] >= 0.5 > best.weights[1 - better]
        assert (alone.iou_far_to_2s == 100.0) == (better == 0)
    # The head's cells on hidden ground are missed.
    counts = OccupancyCounts()
    codes = (254 * right).astype(np.uint8)
    codes[0][occupied[0]] = 255
    counts.add(codes, right.astype(np.float32), right > 0, occupied, scored)
    assert counts.weigh((1.0, 0.0)).iou_far_to_2s == pytest.approx(
        100 * (1 - occupied[0].sum() / occupied[:5].sum()))
    assert counts.weigh((1.0, 0.1)).iou_far_to_2s == 100.0      # but where a box surely stands
    counts = OccupancyCounts()                                  # two that are half sure do not
    counts.add(codes, right.astype(np.float32), right < 0, occupied, scored)
    assert counts.weigh((1.0, 0.1)).iou_far_to_2s == counts.weigh((1.0, 0.0)).iou_far_to_2s


def collected(rng, drives=2, forecasts=6):
    """Return collectors of forecasts whose scores lie: 0.2 is sure, and 0.08 is there by half."""
    out = []
    for _ in range(drives):
        collector = choose.Collector()
        for _ in range(forecasts):
            place = np.array([[-20 + 8.0 * i, 6.0 * j, 0] for i in range(5) for j in (-2, 1)])
            truth = make_truth(place)
            told = [make_agent(p[:2] + rng.normal(0, 0.2, 2), 0.2, trajectories=p[:2]
                               + rng.normal(0, 0.3, (6, 6, 2))) for p in place[:8]]
            told += [make_agent(place[8 + i, :2] if rng.random() < 0.5 else (0.0, 24.0 + 5 * i),
                                0.08) for i in range(2)]
            codes = np.full((7, 200, 200), 20, np.uint8)
            collector.add(make_forecast(told, codes), truth)
        collector.add(make_forecast([], valid=False), make_truth([[90, 0, 0]]))
        out.append(collector)
    return out


def test_boxes_are_drawn_as_the_decoder_will_give_them():
    rng = np.random.default_rng(2)
    raw = test_decode.outputs()
    raw['agent_score'][0, :3] = 0.9, 0.5, 0.2
    raw['agent_box'][0, :3, 0] = 0.0, 8.0, 16.0
    raw['trajectory_spread'][:] = rng.normal(0, 0.3, raw['trajectory_spread'].shape)
    chosen = Choices(existence=(1.3, 0.4), spread=(2.0, 1.5, 1.0, 0.5, 3.0, 2.5))
    want = decode.decode_agents(raw, 0, 0.1, chosen)
    got = choose.decoded(decode.decode_agents(raw, 0, 0.1), chosen.existence, chosen.spread)
    assert len(want.score) == 3
    for field in fields(want):
        np.testing.assert_allclose(getattr(got, field.name), getattr(want, field.name),
                                   rtol=1e-5, err_msg=field.name)


def test_everything_is_chosen_at_once_and_an_artifact_takes_it(tmp_path, capsys):
    drives = collected(np.random.default_rng(5))
    existence, points = choose.choose_existence(drives)
    meant = existence_probability(np.float32([0.2, 0.08]), existence)
    assert meant[0] > 0.95 and 0.3 < meant[1] < 0.7
    choices, reached = choose.choose_all(drives, existence, threshold.choose(points), -0.5)
    # At 0.5 precision of the doubtful ones, all of them stay within 0.85 in total.
    assert reached['at_threshold']['precision'] >= 0.85
    low, high = reached['at_threshold']['precision_ci']     # of two drives: one's to the other's
    assert 0.8 < low <= reached['at_threshold']['precision'] <= high <= 1.0
    assert reached['existence_ece']['existence'] < 0.1 < reached['existence_ece']['score']
    assert choices.occupancy_weights[1] >= 0.4          # a head that says nothing
    assert reached['occupancy']['chosen']['iou_far_to_2s'] > 60
    assert reached['occupancy']['head']['iou_far_to_2s'] == 0
    assert choices.observed_threshold == -0.5
    assert 'precision' in choose.table(choices, reached)

    file = tmp_path / 'choices.json'
    parent = make_fake_artifact(tmp_path / 'parent')
    chosen_on = {'seeds': '800000:800002', 'weights': weights_hash(load_artifact(parent))}
    file.write_text(json.dumps({'choices': choices.to_json(), 'reached': reached,
                                'chosen_on': chosen_on}))
    for out, extra in (('new', ['--choices', str(file)]), ('same', [])):
        assert cli.main(['export', str(tmp_path / out), '--from', str(parent), *extra]) == 0
        assert capsys.readouterr().out.strip() == load_artifact(tmp_path / out).hash
    new = load_artifact(tmp_path / 'new')
    assert new.choices == choices
    assert new.manifest['training']['chosen_on'] == chosen_on
    assert load_artifact(tmp_path / 'same').choices == Choices()


def test_choices_go_with_the_weights_that_they_were_made_on(tmp_path, capsys):
    parent = load_artifact(make_fake_artifact(tmp_path / 'parent'))
    other = Choices(score_threshold=0.44)
    rewrite(parent, tmp_path / 'chosen', Choices(score_threshold=0.55).to_json())
    weights, file = weights_hash(parent), tmp_path / 'choices.json'
    same = {'weights': weights, 'model_hash': 'f' * 64}     # of a manifest with other choices
    for source, chosen_on, code in (
            (parent.path, same, 0), (tmp_path / 'chosen', same, 0),
            (parent.path, {'weights': 'f' * 64, 'model_hash': parent.hash}, 1),
            (parent.path, {'model_hash': parent.hash}, 0),  # an older file
            (tmp_path / 'chosen', {'model_hash': parent.hash}, 1), (parent.path, {}, 1)):
        file.write_text(json.dumps({'choices': other.to_json(), 'chosen_on': chosen_on}))
        out = tmp_path / 'out'
        shutil.rmtree(out, ignore_errors=True)
        assert cli.main(['export', str(out), '--from', str(source), '--choices',
                         str(file)]) == code
        told = capsys.readouterr().err
        if code:
            assert 'choices.json: chosen on other weights' in told and not out.exists()
        else:
            assert load_artifact(out).choices == other


def test_a_choice_says_on_which_graphs_it_was_made(tmp_path):
    from wm_ros.cli.evaluate import _Model, _weights

    parent = load_artifact(make_fake_artifact(tmp_path / 'parent'))
    assert _weights(_Model(parent.path, 'auto', parent.hash, 0.3, None)) == {
        'weights': weights_hash(parent)}
    (tmp_path / 'run').mkdir()
    (tmp_path / 'run' / 'model.safetensors').touch()
    assert _weights(_Model(tmp_path / 'run', 'checkpoint', 'f' * 64, 0.3, None)) == {}


def test_choices_go_with_the_weights_of_a_run(tmp_path, capsys):
    pytest.importorskip('torch', reason='a run is exported with torch')
    pytest.importorskip('onnx', reason='export needs onnx')
    from tiny_run import make_run

    run, out = make_run(tmp_path / 'run'), tmp_path / 'out'
    file, choices = tmp_path / 'choices.json', Choices(score_threshold=0.44)
    export = ['export', str(out), '--folder', str(run), '--weights', 'float']
    assert cli.main(export) == 0
    neutral = load_artifact(out)
    checkpoint = hashlib.sha256((run / 'model.safetensors').read_bytes()).hexdigest()
    for chosen_on, code in (({'model_hash': 'f' * 64}, 1), ({'model_hash': checkpoint}, 0),
                            ({'weights': weights_hash(neutral)}, 0)):
        file.write_text(json.dumps({'choices': choices.to_json(), 'chosen_on': chosen_on}))
        assert cli.main([*export, '--choices', str(file)]) == code
        new = load_artifact(out)
        if code:
            assert 'other weights (ffffffffffff, here ' in capsys.readouterr().err
            assert new.hash == neutral.hash, 'what was there stays'
            continue
        assert new.choices == choices and weights_hash(new) == weights_hash(neutral)
        assert new.manifest['training'] == {**neutral.manifest['training'],
                                            'chosen_on': chosen_on}


def test_a_file_that_holds_no_choices_is_named(tmp_path, capsys):
    parent = make_fake_artifact(tmp_path / 'parent')
    file = tmp_path / 'choices.json'
    for text, wanted in (('{}', "'choices'"), ('[]', 'want a file of'), ('{', 'want a file of'),
                         ('{"choices": {"spread": [1]}, "chosen_on": {}}', 'spread [1]')):
        file.write_text(text)
        assert cli.main(['export', str(tmp_path / 'out'), '--from', str(parent), '--choices',
                         str(file)]) == 1
        told = capsys.readouterr().err
        assert wanted in told and 'choices.json' in told
    assert cli.main(['export', str(tmp_path / 'out'), '--from', str(parent), '--weights',
                     'float']) == 1
    assert '--weights' in capsys.readouterr().err


def test_boxes_of_the_truth_are_what_the_raster_draws():
    # What footprints call half covered is what the truth's raster calls the border of a box.
    from wm_ros.footprints import footprints
    truth = make_truth([[5.2, 3.3, 0.4]])
    agent = choose._table((make_agent((5.2, 3.3), 1.0, 0.4),))
    drawn = np.zeros((7, 200, 200), np.float32)
    footprints(agent).add_to(drawn, 1.0)
    assert ((drawn[0] > 0.5) != raster.agent_occupancy(truth, 0)).sum() <= 3
