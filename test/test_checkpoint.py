"""Checkpoints of training are scored as artifacts are, a teacher's among them."""

import json

import numpy as np
import pytest
import torch
from fakes import make_fake_artifact
from tiny_run import make_run

from wm_ros.choices import Choices
from wm_ros.cli import main as cli
from wm_ros.evaluate.checkpoint import CheckpointBackend, as_artifact
from wm_ros.evaluate.predictors import checkpoint_path
from wm_ros.model.config import PRESETS
from wm_ros.model.parts import PARTS
from wm_ros.model.teacher import build_model
from wm_ros.train.loop import save_model


def run_folder(folder, preset):
    """Write a run's folder with the checkpoint of an untrained model; return folder and model."""
    torch.manual_seed(1)
    model = build_model(PRESETS[preset]).eval()
    folder.mkdir()
    save_model(model, folder / 'model.safetensors',
               {'config': json.dumps(PRESETS[preset].to_dict())})
    return folder, model


def inputs(spec, plans=2):
    """Return plausible inputs of a graph for one camera."""
    rng = np.random.default_rng(0)
    return {item.name: (rng.integers(0, 80, item.resolve(N=1, P=plans)).astype(item.dtype)
                        if 'int' in item.dtype else
                        rng.uniform(0, 1, item.resolve(N=1, P=plans)).astype(item.dtype))
            for item in spec.inputs}


def test_a_student_runs_as_its_graphs_do(tmp_path):
    folder, model = run_folder(tmp_path / 'run', 'tiny')
    backend = CheckpointBackend(model)
    for graph, spec in as_artifact(folder / 'model.safetensors').specs.items():
        given = inputs(spec)
        with torch.inference_mode():
            want = PARTS[graph](model, spec)(*(torch.from_numpy(v) for v in given.values()))
        if graph == 'rollout':
            given['latent'] = torch.from_numpy(given['latent'])[None]  # as `fold` leaves it
        got = backend.run(graph, given)
        assert set(got) == {item.name for item in spec.outputs}
        for item, value in zip(spec.outputs, want, strict=True):
            found = got[item.name][0] if graph == 'fold' else got[item.name]
            np.testing.assert_allclose(found, value, rtol=1e-3, atol=2e-3, err_msg=item.name)


def test_an_artifact_is_no_checkpoint_and_a_run_is(tmp_path):
    folder, _ = run_folder(tmp_path / 'run', 'tiny')
    path = folder / 'model.safetensors'
    assert checkpoint_path(folder) == checkpoint_path(path) == path
    assert checkpoint_path(make_fake_artifact(tmp_path / 'artifact')) is None
    assert checkpoint_path(tmp_path / 'nowhere') is None


def test_a_teacher_stands_beside_its_student(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    teacher, _ = run_folder(tmp_path / 'teacher', 'teacher-tiny')
    student, _ = run_folder(tmp_path / 'student', 'tiny')
    out = tmp_path / 'report.json'
    assert cli.main(['evaluate', '--seeds', '900000:900001', '--seconds', '1.6', '--rig', 'front',
                     '--workers', '1', '--artifact', str(student), '--against',
                     f'{teacher}=0.01', '--json', str(out)]) == 0
    report = json.loads(out.read_text())
    assert (report['artifact'], report['threshold'], report['n_invalid']) == ('student', 0.3, 0)
    other = report['against'][0]
    assert (other['artifact'], other['threshold']) == ('teacher', 0.01)
    assert report['backend'] == other['backend'] == 'checkpoint'
    assert other['model_hash'] != report['model_hash']
    # Untrained and from so low a score on, it says something, unlike the other.
    assert other['headline']['precision']['other'] is not None
    assert 'against teacher' in capsys.readouterr().out


def test_what_was_chosen_for_a_checkpoint_is_taken_with_it_and_with_no_other(tmp_path):
    folder, _ = run_folder(tmp_path / 'run', 'tiny')
    path = folder / 'model.safetensors'
    neutral = as_artifact(path)
    assert neutral.choices == Choices()
    chosen = {'choices': Choices(score_threshold=0.42, existence=(2.0, 1.0)).to_json(),
              'chosen_on': {'model_hash': neutral.hash}}
    (folder / 'choices.json').write_text(json.dumps(chosen))
    assert as_artifact(path).choices == Choices(score_threshold=0.42, existence=(2.0, 1.0))
    chosen['chosen_on']['model_hash'] = 'f' * 64
    (folder / 'choices.json').write_text(json.dumps(chosen))
    assert as_artifact(path).choices == neutral.choices


@pytest.mark.parametrize('weights', ['float', 'post-training'])
def test_a_teacher_is_scored_and_not_exported(tmp_path, capsys, weights):
    folder = make_run(tmp_path / 'teacher', preset='teacher-tiny')
    assert cli.main(['export', str(tmp_path / 'out'), '--folder', str(folder), '--weights',
                     weights]) == 1
    assert 'a teacher is not' in capsys.readouterr().err
    assert not (tmp_path / 'out').exists()


def test_a_checkpoint_without_a_config_is_refused(tmp_path, capsys):
    save_model(torch.nn.Linear(1, 1), tmp_path / 'model.safetensors', {})
    assert cli.main(['evaluate', '--artifact', str(tmp_path)]) == 1
    assert 'want a checkpoint with a model config' in capsys.readouterr().err
