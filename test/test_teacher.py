"""The teacher sees everything, past the bottleneck too, and begins as the student it grew from."""

from dataclasses import replace

import pytest

torch = pytest.importorskip('torch', reason='training needs torch')

from wm_ros.model.config import PRESETS, ModelConfig  # noqa: E402
from wm_ros.model.quant import fold_batch_norms  # noqa: E402
from wm_ros.model.teacher import Teacher, build_model, draw_frames  # noqa: E402
from wm_ros.model.world_model import WorldModel  # noqa: E402
from wm_ros.runtime.contract import COMPANIONS, MAX_AGENTS  # noqa: E402
from wm_ros.train.grow import grown, refuse  # noqa: E402


def stirred(model):
    """Return a model none of whose weights is 0, with norms that do something."""
    random = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for value in model.parameters():
            value.add_(0.05 * torch.randn(value.shape, generator=random))
        for name, value in model.named_buffers():
            if name.endswith(('running_mean', 'running_var')):
                value.add_(0.05 * torch.rand(value.shape, generator=random))
    return model.eval()


@pytest.fixture(scope='module')
def teacher():
    torch.manual_seed(0)
    return stirred(Teacher(PRESETS['teacher-tiny']))


def window(teacher, seed=0):
    """Return random inputs of fold for a teacher."""
    random = torch.Generator().manual_seed(seed)
    return {'memory': torch.rand(1, 16, teacher.config.memory_channels, 80, 80, generator=random),
            'now_from_frame': torch.rand(1, 16, 3, generator=random) * 0.5,
            'age_s': torch.linspace(1.5, 0.0, 16)[None], 'frame_mask': torch.ones(1, 16),
            'odometry_mask': torch.ones(1, 1)}


def forecast(model, skip, motion):
    """Return the outputs of a random window with a newest map under a plan."""
    latent, past = model.fold(**window(model))
    return model.rollout(latent, skip, past, *motion)


def read(teacher, inputs, without_latent=False):
    """Return the states, and what the history adds to the newest frame's features."""
    with torch.no_grad():
        history, cells = teacher.fold(**inputs)
        if without_latent:
            history = history._replace(latent=torch.zeros_like(history.latent))
        states = teacher.dynamics(history, torch.zeros(1, 6, 3), torch.zeros(1, 2),
                                  inputs['odometry_mask'])
        return states, cells


def test_a_single_token_of_the_oldest_frame_reaches_every_token_past_the_bottleneck(teacher):
    inputs = window(teacher)
    states, cells = read(teacher, inputs, without_latent=True)
    assert states.shape == (1, 7, 256, teacher.config.dim)
    inputs['memory'][:, 0, :, 40:45, 40:45] += 2.0
    states_now, cells_now = read(teacher, inputs, without_latent=True)
    assert ((states_now - states).abs().amax(-1) > 0).all()
    # Cell by cell what changes lies around it, 7 cells at most and one that the warp touches.
    changed = (cells_now - cells).abs().amax(1)[0] > 0
    assert changed[42, 42] and not changed[:28].any() and not changed[:, 57:].any()


@pytest.mark.parametrize('dense_every', [1, 2])
def test_every_token_of_the_history_is_read_in_every_dense_layer(dense_every):
    model = Teacher(replace(PRESETS['teacher-tiny'], layers=4, dense_every=dense_every))
    shapes = []
    for layer in model.dynamics.dense.values():
        layer.register_forward_pre_hook(lambda layer, given: shapes.append(given[0].shape[1]))
    read(model.eval(), window(model))
    assert list(model.dynamics.dense) == (['3', '1'] if dense_every == 2 else ['3', '2', '1', '0'])
    assert shapes == [model.config.anchors + 256 + 16 * 256] * (4 // dense_every)


def test_a_masked_frame_has_no_influence_on_the_teacher(teacher):
    inputs = window(teacher)
    inputs['frame_mask'][:, 4] = 0.0
    before = read(teacher, inputs)
    inputs['memory'][:, 4] += 5.0
    for now, then in zip(read(teacher, inputs), before, strict=True):
        assert torch.equal(now, then)


def test_without_odometry_poses_have_no_influence_on_the_teacher(teacher):
    inputs = window(teacher)
    inputs['odometry_mask'] = torch.zeros(1, 1)
    before = read(teacher, inputs)
    inputs['now_from_frame'] = inputs['now_from_frame'] + 3.0
    for now, then in zip(read(teacher, inputs), before, strict=True):
        assert torch.equal(now, then)


def test_no_bottleneck_sixteen_times_the_tokens(teacher):
    assert teacher.fold(**window(teacher))[0].tokens.shape[1] == 16 * 256


def test_some_frames_stand_for_all_in_training_and_only_there():
    model = Teacher(PRESETS['teacher-tiny'])
    model.dense_frames = 4
    assert model.eval().fold(**window(model))[0].tokens.shape[1] == 16 * 256
    inputs = window(model)
    inputs['frame_mask'][0, :12] = 0.0      # whoever is drawn, no other than 12 to 15 is there
    history, _ = model.train().fold(**inputs)
    assert history.tokens.shape[1] == 4 * 256 and history.present[0, -256:].all()
    frames = draw_frames(200, 5)
    assert (frames[:, -1] == 15).all() and (frames.diff(dim=1) > 0).all()
    assert set(frames.unique().tolist()) == set(range(16))
    assert (history.present[0].sum() // 256).item() <= 4


def test_a_config_says_which_model_it_is():
    assert isinstance(build_model(PRESETS['teacher-tiny']), Teacher)
    assert type(build_model(PRESETS['tiny'])) is WorldModel
    assert not ModelConfig.from_dict({'dim': 64}).teacher   # as in every older checkpoint


def scene(seed=0):
    """Return images, lift tables and the rest that a rollout takes, for one camera."""
    random = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 255, (1, 1, 160, 400, 3), dtype=torch.uint8, generator=random)
    index = torch.randint(0, 1000, (1, 25600, 4), generator=random)
    weight = torch.rand(1, 25600, 4, generator=random) / 2
    plans = torch.rand(1, 6, 3, generator=random)
    return (images, index, weight), (plans, torch.tensor([[5.0, 0.1]]), torch.ones(1, 1))


def folded_student(seed=3):
    torch.manual_seed(seed)
    student = stirred(WorldModel(PRESETS['tiny']))
    fold_batch_norms(student)
    return student


@pytest.mark.parametrize('preset', ['teacher-tiny', 'wider'])
@torch.no_grad()
def test_a_grown_model_is_the_smaller_one_at_first(preset):
    config = PRESETS['teacher-tiny'] if preset == 'teacher-tiny' else replace(
        PRESETS['tiny'], encoder_channels=(12, 16, 24, 32), encoder_blocks=(2, 1, 3, 1))
    small = folded_student()
    large = grown(small, config)
    assert sum(p.numel() for p in large.encoder.parameters()) > \
        1.2 * sum(p.numel() for p in small.encoder.parameters())
    images, motion = scene()
    want = small.encode(*images)
    for got, value in zip(large.encode(*images), want, strict=True):
        torch.testing.assert_close(got, value, rtol=1e-4, atol=1e-5)    # sums in another order
        assert value.abs().amax() > 0.1
    # After the encoder not a bit differs.
    outputs = [forecast(model, want[1], motion) for model in (small, large)]
    assert set(outputs[0]) == set(outputs[1])
    for name, value in outputs[0].items():
        assert torch.equal(value, outputs[1][name]), name


def test_what_a_teacher_has_beside_learns_from_the_first_step():
    torch.manual_seed(0)
    model = grown(folded_student(), PRESETS['teacher-tiny'])
    history, past = model.fold(**window(model))
    states = model.dynamics(history, *scene()[1])
    (states.square().mean() + past.mean()).backward()
    for layer in (*model.dynamics.dense.values(), model.cells):
        assert layer.out.weight.grad.abs().sum() > 0


@pytest.mark.parametrize('without,begun', [
    ({'plan_in_agents': False}, lambda agents: [agents.from_plan[-1]]),
    ({'surroundings': 0}, lambda agents: [agents.surroundings.query, agents.surroundings.speed])])
def test_a_model_whose_agents_saw_less_begins_the_same_and_learns_to_see_more(without, begun):
    """Less is no ego plan, or nothing around them."""
    torch.manual_seed(0)
    blind = stirred(WorldModel(replace(PRESETS['tiny'], **without)))
    fold_batch_norms(blind)
    model = grown(blind, PRESETS['tiny'])
    skip, motion = torch.rand(1, blind.config.skip_channels, 80, 80), scene()[1]
    outputs = [forecast(each, skip, motion) for each in (blind, model)]
    for name, value in outputs[0].items():
        assert torch.equal(value, outputs[1][name]), name
    outputs[1]['trajectories'].square().mean().backward()
    for last in begun(model.agents):
        assert last.weight.grad.abs().sum() > 0


def test_a_model_without_companions_begins_with_the_same_peaks():
    torch.manual_seed(0)
    alone = stirred(WorldModel(replace(PRESETS['tiny'], companions=0)))
    fold_batch_norms(alone)
    model = grown(alone, PRESETS['tiny'])
    skip, motion = torch.rand(1, alone.config.skip_channels, 80, 80), scene()[1]
    outputs = [forecast(each, skip, motion) for each in (alone, model)]
    for name in ('centre', 'occupancy'):
        assert torch.equal(outputs[0][name], outputs[1][name]), name
    peaks = slice(MAX_AGENTS - COMPANIONS)
    torch.testing.assert_close(outputs[1]['agent_score'][:, peaks],
                               outputs[0]['agent_score'][:, peaks], atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize('small', ['base', 'small', 'tiny'])
def test_every_student_that_ships_has_a_teacher_to_grow_into(small):
    large = {'base': 'teacher', 'small': 'teacher-small', 'tiny': 'teacher-tiny'}[small]
    refuse(PRESETS[small], PRESETS[large])
    with pytest.raises(ValueError, match='to begin as a smaller model'):
        refuse(PRESETS[large], PRESETS[small])


def test_what_cannot_grow_is_refused():
    student = folded_student()
    for change, said in (({'dim': 64}, 'dim: want 32, got 64'),
                         ({'encoder_blocks': (1, 1, 0, 1)}, r'encoder_blocks.*or more'),
                         ({'memory_channels': 12}, 'memory_channels')):
        with pytest.raises(ValueError, match=said):
            grown(student, replace(PRESETS['tiny'], **change))
    teacher = grown(student, PRESETS['teacher-tiny'])
    with pytest.raises(ValueError, match='teacher: want True'):
        grown(teacher, replace(PRESETS['teacher-tiny'], teacher=False))
