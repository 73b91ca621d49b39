"""The model that ships runs, is whole, and knows more than that everybody stands still."""

import json

import pytest

from wm_ros.cli import main as cli
from wm_ros.evaluate import reaction
from wm_ros.evaluate.predictors import PredictorSource
from wm_ros.runtime.artifact import load_artifact
from wm_ros.share import share_path

MEGABYTE = 1_000_000


@pytest.fixture(scope='module')
def model():
    return share_path('models', 'world-model')


def test_it_is_whole_small_and_says_what_it_was_trained_on(model):
    artifact = load_artifact(model)
    size = sum(path.stat().st_size for path in model.iterdir())
    assert size < 40 * MEGABYTE
    assert {path.suffix for path in model.iterdir()} == {'.onnx', '.json'}   # no pickle
    training = artifact.manifest['training']
    assert training['window']['steps'] > 0 and training['frame']['steps'] > 0
    assert artifact.manifest['parameters'] > 1_000_000


def test_on_held_out_drives_it_finds_road_users_and_beats_its_baselines(model, tmp_path):
    """Three short drives: far below what it reaches, far above what a broken one would."""
    out = tmp_path / 'scores.json'
    assert cli.main(['evaluate', '--dataset', 'sim-hard', '--seeds', '900000:900003', '--seconds',
                     '3', '--artifact', str(model), '--no-cache', '--json', str(out)]) == 0
    scores = json.loads(out.read_text())
    assert scores['n_agents'] >= 20
    assert scores['recall'] > 0.5
    assert scores['precision'] > 0.5
    for baseline in ('static', 'constant_velocity'):
        assert scores['spa_top6'] > scores['baselines'][baseline]['spa_top1']


#: Validation drives in which somebody who is found does otherwise where the ego vehicle brakes.
REACTING = (800033, 800036, 800038, 800048, 800078)


def test_who_follows_the_ego_vehicle_is_forecast_to_do_as_it_does(model):
    """Each drive is told twice, the ego vehicle goes on or brakes: far below what is learnt."""
    if not load_artifact(model).manifest['model'].get('plan_in_agents'):
        pytest.skip('these weights were trained before agents saw the ego plan')
    source = PredictorSource(str(model), threads=2)
    found = [one for seed in REACTING
             for one in reaction.reactions(reaction.tell_twice(seed, 'sim'), source)]
    scores = reaction.summary(found)
    assert scores['n_influenced'] >= 3
    assert scores['reaction'] > 0.1
    assert scores['untouched_m'] < 0.5
