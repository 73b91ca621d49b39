"""Distillation: what is compared, that it teaches the student, and only the student."""

import numpy as np
import pytest

torch = pytest.importorskip('torch', reason='training needs torch')

from tiny_run import WINDOW_SEED, make_run  # noqa: E402

from wm_ros.model.config import PRESETS  # noqa: E402
from wm_ros.model.teacher import build_model  # noqa: E402
from wm_ros.train import encode, match, pipeline  # noqa: E402
from wm_ros.train.answers import answer_all, answer_store  # noqa: E402
from wm_ros.train.config import Settings  # noqa: E402
from wm_ros.train.distill import (  # noqa: E402
    AnsweredStore,
    DistillSettings,
    FrameDistiller,
    WindowDistiller,
    answered_sample,
    distill,
    window_distill,
)
from wm_ros.train.encode import calibration_frames  # noqa: E402
from wm_ros.train.loop import load_model  # noqa: E402
from wm_ros.train.stages import Batches, WindowTrainer  # noqa: E402
from wm_ros.train.store import ClipStore  # noqa: E402
from wm_ros.train.targets import frame_sample  # noqa: E402

CPU = torch.device('cpu')


@pytest.fixture(scope='module')
def folders(tmp_path_factory):
    """Return the folders of a student's and a teacher's run over the same drives, all answered."""
    folder = tmp_path_factory.mktemp('runs')
    teacher = make_run(folder / 'teacher', seed=2, preset='teacher-tiny')
    answer_all(teacher, range(WINDOW_SEED, WINDOW_SEED + 9), 'cpu', workers=0)
    return make_run(folder / 'student', seed=1), teacher


@pytest.fixture
def window(folders):
    """Return a student under its teacher and a batch of windows."""
    torch.manual_seed(0)
    student, teacher = (load_model(folder / 'model.safetensors') for folder in folders)
    store = AnsweredStore(folders[0] / 'windows', answer_store(folders[1]))
    return (WindowDistiller(student, teacher.config, DistillSettings()),
            Batches(store, answered_sample, 1, CPU, 0).take())


def test_an_answer_is_what_the_teacher_says_of_the_whole_window(window, folders):
    _, batch = window
    teacher = WindowTrainer(load_model(folders[1] / 'model.safetensors')).eval()
    given = {**batch, 'frame_mask': torch.ones(1, 16), 'odometry_mask': torch.ones(1, 1)}
    with torch.no_grad(), torch.autocast('cpu', torch.bfloat16):
        want = teacher.outputs(given)
    for name in ('states', 'occupancy', 'flow', 'centre', 'trajectories', 'agent_box'):
        got = batch[f'teacher_{name}']
        assert got.dtype == torch.float16
        expected = want[name][:, :got.shape[1]].float()
        torch.testing.assert_close(got.float(), expected, rtol=2e-2, atol=2e-2)


def test_who_is_answered_already_is_not_asked_again(folders):
    store = answer_store(folders[1])
    written = [path.stat().st_mtime_ns for path in store.paths()]
    assert len(written) == 3
    answer_all(folders[1], range(WINDOW_SEED, WINDOW_SEED + 9), 'cpu', workers=0)
    assert [path.stat().st_mtime_ns for path in store.paths()] == written


def test_nothing_is_to_learn_from_equal_outputs(window):
    distiller, batch = window
    with torch.no_grad():
        outputs = distiller.eval().outputs(batch)
    gaps = match.output_gaps(outputs, outputs, batch)
    assert set(gaps) == {'occupancy', 'flow', 'ground', 'centre', 'class', 'box', 'path',
                         'spread', 'mode'}
    for name, value in gaps.items():
        assert value.item() == pytest.approx(0.0, abs=1e-6), name
    assert match.map_gap(outputs['states'], outputs['states']) == 0.0


def test_divergence_is_that_of_the_probabilities():
    mine, theirs = torch.tensor([0.3, -1.0]), torch.tensor([2.0, -1.0])
    p, q = torch.sigmoid(theirs), torch.sigmoid(mine)
    want = p * torch.log(p / q) + (1 - p) * torch.log((1 - p) / (1 - q))
    torch.testing.assert_close(match.bernoulli_gap(mine, theirs), want)
    a, b = torch.tensor([[1.0, 2.0, 0.0]]), torch.tensor([[0.0, 0.5, 0.5]])
    want = torch.distributions.kl_divergence(torch.distributions.Categorical(logits=b),
                                             torch.distributions.Categorical(logits=a))
    torch.testing.assert_close(match.choice_gap(a, b), want)


def test_modes_are_matched_one_to_one(window):
    distiller, batch = window
    paths = torch.randn(5, 6, 6, 2) * 10
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    # Mode i of the shuffled is mode order[i] of the paths, a little off.
    shuffled = paths[:, order] + 0.01
    found = match.match_modes(shuffled, paths)
    torch.testing.assert_close(shuffled[:, found[0]], paths, atol=0.02, rtol=0)
    with torch.no_grad():
        teacher = distiller.eval().outputs(batch)
    student = dict(teacher)
    for name in ('mode_logits', 'trajectories', 'trajectory_spread'):
        student[name] = teacher[name][:, :, order]
    gaps = match.output_gaps(student, teacher, batch)
    assert max(gaps[name].item() for name in ('path', 'spread', 'mode')) < 1e-6


def test_gradients_reach_the_student_alone(window, folders):
    distiller, batch = window
    parts = distiller.train()(batch)
    sum(value for name, value in parts.items() if name.startswith('like_')).backward()
    for part in (distiller.model.bottleneck, distiller.model.dynamics, distiller.model.decoder,
                 distiller.model.agents, distiller.project):
        assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in part.parameters())
    assert all(p.grad is None for p in distiller.model.encoder.parameters())
    plain = WindowTrainer(load_model(folders[0] / 'model.safetensors'))
    assert set(distiller.state_dict()) - set(plain.state_dict()) == {'project.weight',
                                                                    'project.bias'}


def test_the_teacher_of_frames_goes_where_the_student_goes_and_learns_nothing(folders):
    distiller = FrameDistiller(PRESETS['tiny'], load_model(folders[1] / 'model.safetensors'),
                               DistillSettings())
    distiller.double()
    assert next(distiller.teacher.parameters()).dtype == torch.float64
    assert not any(p.requires_grad for p in distiller.teacher.parameters())
    assert not any(name.startswith('_teacher') for name in distiller.state_dict())


def test_a_student_that_is_its_teacher_has_nothing_to_learn_of_its_maps(folders):
    teacher = load_model(folders[0] / 'model.safetensors')
    distiller = FrameDistiller(PRESETS['tiny'], teacher, DistillSettings()).eval()
    distiller.model.load_state_dict(teacher.state_dict())
    batch = Batches(ClipStore(folders[0] / 'frames'), frame_sample, 1, CPU, 0).take()
    with torch.no_grad():
        parts = distiller(batch)
    assert {name for name in parts if name.startswith('like_')} == {
        'like_memory', 'like_skip', 'like_centre', 'like_ground'}
    for name, value in parts.items():
        if name.startswith('like_'):
            assert value.item() == pytest.approx(0.0, abs=1e-6), name


def test_a_few_steps_bring_the_student_nearer(window):
    distiller, batch = window
    optimiser = torch.optim.Adam([p for p in distiller.parameters() if p.requires_grad], 3e-3)
    torch.manual_seed(0)
    totals = []
    for _ in range(8):
        parts = distiller.train()(batch)
        total = sum(value for name, value in parts.items() if name.startswith('like_'))
        optimiser.zero_grad()
        total.backward()
        optimiser.step()
        totals.append(total.item())
    assert sum(totals[-2:]) < 0.7 * sum(totals[:2]), totals


def test_maps_are_learnt_in_stage_one(folders):
    torch.manual_seed(0)
    student, teacher = folders
    distiller = FrameDistiller(PRESETS['tiny'], load_model(teacher / 'model.safetensors'),
                               DistillSettings())
    batch = Batches(ClipStore(student / 'frames'), frame_sample, 1, CPU, 0).take()
    optimiser = torch.optim.Adam(distiller.parameters(), 5e-3)
    gaps = []
    for _ in range(12):
        parts = distiller.train()(batch)
        total = parts['like_memory'] + parts['like_skip']
        optimiser.zero_grad()
        total.backward()
        optimiser.step()
        gaps.append(total.item())
    assert gaps[-1] < 0.7 * gaps[0], gaps


def test_another_drive_under_the_same_number_is_refused(folders, tmp_path):
    store = AnsweredStore(folders[0] / 'windows', answer_store(folders[1]))
    clip = store.read(np.random.default_rng(0))
    clip['poses'] = clip['poses'] + 1.0
    with pytest.raises(ValueError, match='the drive of the student'):
        answered_sample(clip, np.random.default_rng(0))


def test_a_whole_distillation_leaves_a_student(folders, monkeypatch):
    monkeypatch.setattr(encode, 'calibration_frames', lambda run: calibration_frames(run, 2))
    student, teacher = folders
    for path in (*student.glob('*model.safetensors'), student / 'frame.safetensors',
                 student / 'window.safetensors'):
        path.unlink()
    settings = Settings(preset='tiny', workers=0, frame_clips=3, window_clips=3, frame_batch=1,
                        window_batch=1, steps=2, encode='torch')
    model = load_model(distill(student, teacher, settings, DistillSettings()))
    assert model.config == PRESETS['tiny']
    assert set(model.state_dict()) == set(build_model(PRESETS['tiny']).state_dict())


def test_stage_two_alone_goes_on_under_a_teacher(folders, tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline, 'calibration_frames', lambda run: calibration_frames(run, 2))
    start, teacher = make_run(tmp_path / 'start', seed=5), folders[1]
    settings = Settings(preset='tiny', start=str(start), clips=str(start), workers=0, frame_clips=3,
                        window_clips=3, window_batch=1, steps=1, encode='torch')
    path = window_distill(tmp_path / 'distilled', teacher, settings, DistillSettings())
    assert load_model(path).config == PRESETS['tiny']
    for name in ('windows', 'frame.safetensors'):
        assert (tmp_path / 'distilled' / name).resolve() == start / name


def test_a_teacher_without_the_drives_is_refused(folders, tmp_path):
    with pytest.raises(ValueError, match='450000 to 450003'):
        distill(tmp_path, folders[1], Settings(preset='tiny', seed=1, window_clips=3),
                DistillSettings())
    assert (folders[1] / 'windows' / f'clip_{WINDOW_SEED:07d}.npz').exists()


def test_a_teacher_that_is_not_there_leaves_nothing(tmp_path):
    with pytest.raises(ValueError, match='no model.safetensors; want the folder of a teacher'):
        distill(tmp_path / 'student', tmp_path / 'techer', Settings(preset='tiny'),
                DistillSettings())
    assert not list(tmp_path.iterdir())
