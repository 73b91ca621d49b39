"""A run that begins as another one: grown, with its norms back, with its heads and its streams."""

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip('torch', reason='training needs torch')

from safetensors.torch import load_file  # noqa: E402
from tiny_run import make_run  # noqa: E402

from wm_ros.model.config import PRESETS  # noqa: E402
from wm_ros.model.teacher import Teacher  # noqa: E402
from wm_ros.train import pipeline, step_cost  # noqa: E402
from wm_ros.train.config import Settings  # noqa: E402
from wm_ros.train.encode import calibration_frames  # noqa: E402
from wm_ros.train.loop import load_model  # noqa: E402
from wm_ros.train.stages import FrameTrainer  # noqa: E402
from wm_ros.train.store import ClipStore, complete  # noqa: E402
from wm_ros.train.warm import load_heads, load_start  # noqa: E402


@pytest.fixture
def student(tmp_path, monkeypatch):
    """Return the folder of a tiny student's run."""
    monkeypatch.setattr(pipeline, 'calibration_frames', lambda run: calibration_frames(run, 2))
    return make_run(tmp_path / 'student')


def settings(student, **given):
    return Settings(**{'preset': 'teacher-tiny', 'start': str(student), 'clips': str(student),
                       'workers': 0, 'frame_clips': 3, 'window_clips': 3, 'frame_batch': 1,
                       'window_batch': 1, 'steps': 2, 'encode': 'torch', **given})


def test_a_teacher_starts_as_a_run_of_its_student(student, tmp_path):
    folder = tmp_path / 'teacher'
    pipeline.begin(folder, settings(student), pipeline.World(), 'frame')
    teacher = pipeline.started(settings(student), folder).eval()
    assert isinstance(teacher, Teacher)
    assert any(name.endswith('running_mean') for name in teacher.state_dict())
    batch = next(calibration_frames(student, 1))
    given = batch['images'], batch['index'], batch['weight']
    small = load_model(student / 'model.safetensors').eval()
    with torch.no_grad():
        for got, want in zip(teacher.encode(*given), small.encode(*given), strict=True):
            torch.testing.assert_close(got, want, rtol=1e-3, atol=1e-3)
            assert want.abs().max() > 0.1


@pytest.mark.parametrize('whole', [True, False])
def test_after_stage_one_all_but_the_encoder_is_that_of_a_start_that_knows_time(student, tmp_path,
                                                                               whole):
    if not whole:
        (student / 'window.safetensors').unlink()
    given = settings(student, preset='tiny')
    pipeline.begin(tmp_path / 'run', given, pipeline.World(), 'frame')
    torch.manual_seed(3)
    model = FrameTrainer(PRESETS['tiny']).model             # as if stage one had changed it all
    got = pipeline.for_stage_two(model, given, tmp_path / 'run')
    start = pipeline.started(given, tmp_path / 'run')
    for name, value in got.state_dict().items():
        own = not whole or name.startswith(('encoder.', 'lift.'))
        torch.testing.assert_close(value, (model if own else start).state_dict()[name], msg=name)
    assert not torch.equal(model.decoder.centre.weight, start.decoder.centre.weight)
    assert pipeline.for_stage_two(model, Settings(preset='tiny'), tmp_path / 'run') is model


def test_heads_that_fit_are_taken_over(student):
    trainer = FrameTrainer(PRESETS['teacher-tiny'])
    load_heads(trainer, student, 'frame')
    want = load_file(student / 'frame.safetensors')
    assert torch.equal(trainer.memory_head.weight, want['memory_head.weight'])
    body = trainer.model.encoder.stages[0][0].conv.weight
    assert not torch.equal(body, want['model.encoder.stages.0.0.conv.weight'])
    load_heads(trainer, student, 'nothing')     # an artifact has none


def test_stage_two_alone_goes_on_with_the_streams_of_its_start(student, tmp_path, monkeypatch):
    drawn, fold = [], Teacher.fold

    def recorded(self, *given):
        drawn.append(self.dense_frames)
        return fold(self, *given)
    monkeypatch.setattr(Teacher, 'fold', recorded)
    folder = tmp_path / 'teacher'
    path = pipeline.window_stage(folder, settings(student, whole_share=0.5, dense_frames=3))
    assert isinstance(load_model(path), Teacher)
    assert (folder / 'windows').resolve() == student / 'windows'
    assert drawn == [3, 16]     # a few frames at first, all at the end
    assert not (folder / 'frame.safetensors').exists()      # its encoder is another


def test_stage_one_is_kept_where_only_the_agents_see_more(tmp_path, monkeypatch):
    """A run whose agents saw no ego plan goes on as one whose agents do: it encodes as before."""
    monkeypatch.setattr(pipeline, 'calibration_frames', lambda run: calibration_frames(run, 2))
    with monkeypatch.context() as before:
        before.setitem(PRESETS, 'tiny', replace(PRESETS['tiny'], plan_in_agents=False))
        blind = make_run(tmp_path / 'blind')
    folder, given = tmp_path / 'seeing', settings(blind, preset='tiny')
    pipeline.begin(folder, given, pipeline.World(), 'window')
    pipeline.adopt(folder, given)
    assert (folder / 'frame.safetensors').resolve() == blind / 'frame.safetensors'
    assert load_model(folder / 'frame_model.safetensors').config.plan_in_agents


def test_stage_two_alone_wants_streams(student, tmp_path):
    for path in (student / 'windows').iterdir():
        path.unlink()
    (student / 'windows').rmdir()
    with pytest.raises(ValueError, match='windows/'):
        pipeline.window_stage(tmp_path / 'teacher', settings(student))


@pytest.mark.parametrize('kept', [0, 100, 5000])
def test_a_checkpoint_that_was_cut_off_is_named(student, kept):
    path = student / 'model.safetensors'
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ValueError, match=r'model.safetensors: want a whole checkpoint'):
        load_start(student)


def test_a_run_without_clips_says_so(tmp_path):
    with pytest.raises(ValueError, match='frames: want clips to draw from'):
        ClipStore(tmp_path / 'frames').read(np.random.default_rng(0))


def test_what_lacks_is_made_and_a_worker_that_fails_is_told(tmp_path, capsys):
    store = ClipStore(tmp_path)
    made = []

    def setup():
        return lambda seed: made.append(seed) or {'seed': seed}
    complete(store, setup, range(3), 0, 'clips')
    complete(store, setup, range(4), 0, 'clips')
    assert made == [0, 1, 2, 3]
    complete(store, setup, range(4), 2, 'clips')    # nobody is started for nothing
    assert made == [0, 1, 2, 3]
    with pytest.raises(RuntimeError, match='worker has failed'):
        complete(store, int, range(4, 5), 1, 'clips')     # returns what nobody can call
    assert 'clips: 0 of 1 drives' in capsys.readouterr().err


def test_the_price_of_a_step_is_told_for_each_kind(student, capsys):
    step_cost.main(['--folder', str(student), '--preset', 'teacher-tiny', '--batch', '1',
                    '--frames', '2', '16', '--rounds', '1'])
    told = dict(line.rsplit(maxsplit=2)[:2] for line in capsys.readouterr().out.splitlines())
    assert {'answer', 'window, student', 'window, distilled', 'window, teacher, 2 frames',
            'window, teacher, 16 frames', 'frame, student', 'frame, distilled',
            'frame, teacher'} < set(told)
    assert min(float(seconds) for seconds in told.values()) > 0


@pytest.mark.parametrize('share', [0.0, 1.0])
def test_stage_two_sees_as_many_windows_in_a_mirror_as_it_is_told(student, tmp_path, monkeypatch,
                                                                  share):
    drawn = {}

    def learn(trainer, store, sample, *rest):
        clip = store.read(np.random.default_rng(0))
        drawn['clip'], drawn['sample'] = clip, sample(clip, np.random.default_rng(0))
    monkeypatch.setattr(pipeline, 'learn', learn)
    pipeline.window_stage(tmp_path / 'run', settings(student, preset='tiny', mirrored=share))
    rows = drawn['clip']['skip'][0]
    np.testing.assert_array_equal(drawn['sample']['skip'], rows[:, ::-1] if share else rows)
