"""Twenty stored windows through every backend and precision of this machine, and out of it."""

import json
import re

import numpy as np
import pytest

pytest.importorskip('torch', reason='the reference is PyTorch')
pytest.importorskip('onnx', reason='weights are read from the graphs with it')

import windows  # noqa: E402

from wm_ros.choices import Choices  # noqa: E402
from wm_ros.cli import main as cli  # noqa: E402
from wm_ros.export import parity, parity_cases  # noqa: E402
from wm_ros.export.parity import Tee, judge  # noqa: E402
from wm_ros.predictor import Predictor, PredictorSettings  # noqa: E402
from wm_ros.runtime.artifact import load_artifact  # noqa: E402
from wm_ros.runtime.backend import create_backend  # noqa: E402
from wm_ros.share import share_path  # noqa: E402

CASES = parity_cases.cases()
PRESENT = [case for case in CASES if not case.absent and case.name != parity_cases.REFERENCE]


class Replayed:
    """A backend that says what was recorded, in order, and may have a defect."""

    channels_last = frozenset()

    def __init__(self, said, defect=lambda outputs: None):
        self._said, self._defect = iter(said), defect
        self.precision = {'encode': 'i8', 'fold': 'f32', 'rollout': 'i8+f32'}

    def run(self, graph, inputs):
        outputs = {name: array.copy() for name, array in next(self._said)[1].items()}
        self._defect(outputs)
        return outputs


def a_channel_is_lost(outputs):
    if 'memory' in outputs:
        busiest = outputs['memory'].std(axis=(1, 2)).argmax()
        outputs['memory'][busiest] = outputs['memory'][busiest].mean()


def tokens_are_shifted(outputs):
    if 'latent' in outputs:
        outputs['latent'][:] = np.roll(outputs['latent'], 1, axis=0)


def a_step_is_repeated(outputs):
    if 'flow' in outputs:
        outputs['flow'][:, 6] = outputs['flow'][:, 5]


def cells_are_shifted(outputs):
    if 'occupancy' in outputs:
        outputs['occupancy'][:] = np.roll(outputs['occupancy'], 1, axis=-1)


def everything_is_small_noise_off(outputs):
    if 'skip' in outputs:
        skip = outputs['skip']
        skip += np.random.default_rng(0).normal(0, 0.1 * skip.std(), skip.shape).astype(np.float32)


def paths_are_mirrored(outputs):
    if 'trajectories' in outputs:
        outputs['trajectories'][..., 1] *= -1


def modes_are_turned_round(outputs):
    if 'mode_logits' in outputs:
        outputs['mode_logits'][:] = outputs['mode_logits'][..., ::-1].copy()


def agents_drive_backwards(outputs):
    if 'agent_box' in outputs:
        outputs['agent_box'][..., 7:9] *= -1


DEFECTS = {a_channel_is_lost: 'memory: p999', tokens_are_shifted: 'latent: mean',
           a_step_is_repeated: 'flow: ', cells_are_shifted: 'occupancy: ',
           everything_is_small_noise_off: 'skip: mean', paths_are_mirrored: 'agents: .* path_m',
           modes_are_turned_round: 'agents: .* mode_logits',
           agents_drive_backwards: 'agents: .* agent_box'}


@pytest.fixture(scope='module')
def gate():
    """Return what 20 windows showed: the Tee, all precisions, what the reference said at first."""
    artifact, rig = load_artifact(share_path('models', 'world-model')), windows.rig()
    # One thread each: those of torch spin while they wait, which a busy machine pays for.
    opened = {case.name: create_backend(case.backend, artifact, len(rig), threads=1,
                                        options=dict(case.options))
              for case in (CASES[0], *PRESENT)}
    reference, said = opened.pop(parity_cases.REFERENCE), []
    tee = Tee(artifact, reference, opened)
    predictor = Predictor(artifact, tee, rig, PredictorSettings(decode_threads=1))
    run = tee.run

    def remember(graph, inputs):
        outputs = run(graph, inputs)
        if sum(known == graph for known, _ in said) < 3:
            said.append((graph, {name: array.copy() for name, array in outputs.items()}))
        return outputs

    tee.run = remember
    for count, (frames, ego) in enumerate(windows.frames()):
        predictor.encode(frames, ego)
        if count >= 14:
            predictor.forecast()
    predictor.close()
    yield tee, {name: backend.precision for name, backend in opened.items()}, (artifact, said)
    for backend in (reference, *opened.values()):
        backend.close()


def test_it_is_twenty_windows_and_sees_road_users(gate):
    tee, _, _ = gate
    assert tee.runs == {'encode': 34, 'fold': 20, 'rollout': 20}
    assert tee.result('openvino')['agents']['wanted'] >= 40


@pytest.mark.parametrize('name', [case.name for case in PRESENT])
def test_a_backend_says_what_the_reference_says(gate, name):
    tee, precision, _ = gate
    assert judge(tee.result(name), precision[name]) == []


@pytest.mark.parametrize(('defect', 'named'), DEFECTS.items())
def test_a_defect_is_out_of_parity(gate, defect, named):
    artifact, said = gate[2]
    backend = Replayed(said, defect)
    tee = Tee(artifact, Replayed(said), {'spoiled': backend})
    for graph, _ in said:
        tee.run(graph, {})
    failures = [failure for failure in judge(tee.result('spoiled'), backend.precision)
                if 'another window' not in failure]     # three frames lie close together
    assert all(failure.startswith(named.split(':')[0]) for failure in failures), failures
    assert any(re.match(named, failure) for failure in failures), failures


def test_a_backend_that_says_the_same_whatever_it_sees_is_found(gate):
    """Another window must differ: errors may be small where nothing ever changes."""
    tee, precision, _ = gate
    result = tee.result('openvino')
    for output in result:
        result[output] = {**result[output], 'contrast': 1e-6}
    assert any('another window' in text for text in judge(result, precision['openvino']))


def test_errors_by_hand():
    errors = parity.Errors()
    wanted = np.array([0.0, 0, 2, 2], np.float32)       # spread 1
    errors.add(wanted + np.float32(0.5), wanted, wanted + 4)
    errors.add(wanted, wanted, None)
    assert errors.result() == {'mean': 0.25, 'p999': 0.5, 'contrast': 3.5}


def test_agents_are_paired_by_place():
    def rollout(places, ends, scores):
        sizes = {'agent_box': (9,), 'agent_class': (8,), 'agent_log_sigma': (5,),
                 'mode_logits': (6,), 'trajectories': (6, 6, 2), 'trajectory_spread': (6, 6, 3)}
        out = {name: np.zeros((1, len(scores), *size)) for name, size in sizes.items()}
        out['agent_score'] = np.array([scores])
        out['agent_box'][0, :, :2] = places
        out['agent_class'][0, :, 0] = ends
        out['trajectories'][0, ..., 0] = np.array(ends)[:, None, None]
        return out

    wanted = rollout([[0, 0], [10, 0], [20, 0]], [1.0, 2.0, 3.0], [0.9, 0.8, 0.1])
    found = rollout([[10.1, 0], [0, 5], [20, 0]], [2.5, 1.0, 9.0], [0.7, 0.9, 0.1])
    errors = parity.AgentErrors()
    errors.add(found, wanted, Choices(score_threshold=0.5))
    # One of eight logits is 0.5 off, one of nine numbers of the box 0.1; deviations of three rows.
    assert errors.result() == pytest.approx(
        {'wanted': 2, 'found': 0.5, 'score': 0.1, 'path_m': 0.5, 'agent_log_sigma': 0,
         'agent_class': 0.5 / (2 / 3) ** 0.5 / 8, 'agent_box': 0.1 / (200 / 3) ** 0.5 / 9,
         'mode_logits': 0, 'trajectory_spread': 0})


@pytest.mark.parametrize(('executed', 'kind'), [
    ('i8', 'f32'), ('i8+f32', 'f32'), ('none', 'f32'), ('i8+bf16', 'bf16'), ('f32+f16', 'f16'),
    ('f16+bf16', 'bf16')])
def test_the_tolerance_follows_what_is_executed(executed, kind):
    assert parity.precision_class(executed) == kind


def test_every_backend_is_listed_present_or_absent_with_its_reason(monkeypatch):
    names = [case.name for case in CASES]
    assert names[0] == parity_cases.REFERENCE and len(set(names)) == len(names)
    assert {case.backend for case in CASES} == {'pytorch', 'openvino', 'onnxruntime', 'tensorrt'}
    monkeypatch.setattr(parity_cases, 'missing', lambda name: 'no module it')
    assert all(case.absent == 'no module it' for case in parity_cases.cases()
               if not case.name.startswith('onnxruntime-'))


@pytest.fixture
def quick(monkeypatch):
    """Let the command run without drives: raw outputs agree, figures are those given."""
    figures = {}
    monkeypatch.setattr(cli.importlib.import_module('wm_ros.cli.parity'), '_raw',
                        lambda artifact, drive, present, threads: {})
    monkeypatch.setattr('wm_ros.cli.parity._headline',
                        lambda folder, artifact, dataset, case, arguments: figures[case.name])
    monkeypatch.setattr('wm_ros.data.render_cache.RenderedDrives.__call__', lambda self, seed: None)
    return figures


@pytest.mark.parametrize(('apart', 'code'), [(0.19, 0), (0.21, 1)])
def test_headline_figures_have_to_lie_within_two_tenths_of_a_point(quick, tmp_path, capsys, apart,
                                                                   code):
    from wm_ros.cli.parity import FIGURES

    quick['pytorch-cpu'] = dict.fromkeys(FIGURES, 50.0)
    quick['openvino'] = {**quick['pytorch-cpu'], 'epa': 50.0 + apart}
    out = tmp_path / 'parity.json'
    assert cli.main(['parity', '--only', 'openvino', '--only', 'tensorrt', '--seeds',
                     '900000:900001', '--no-cache', '--json', str(out)]) == code
    report = json.loads(out.read_text())
    assert report['spread']['epa'] == pytest.approx(apart) and report['spread']['spa_top6'] == 0
    assert set(report['absent']) <= {'tensorrt'}
    said = capsys.readouterr()
    assert ('epa: 0.21 points between backends' in said.err) == bool(code)
    assert all(f'absent: {name}' in said.out for name in report['absent'])


def test_an_unknown_backend_is_refused(capsys):
    assert cli.main(['parity', '--only', 'tvm']) == 1
    assert 'want some of pytorch-cpu, openvino' in capsys.readouterr().err
