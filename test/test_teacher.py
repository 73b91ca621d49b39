"""The teacher sees everything, and what it knows reaches the student alone."""

import pytest

torch = pytest.importorskip('torch', reason='training needs torch')

from wm_ros.model.config import PRESETS, ModelConfig  # noqa: E402
from wm_ros.model.teacher import Teacher, build_model  # noqa: E402
from wm_ros.model.world_model import WorldModel  # noqa: E402


@pytest.fixture(scope='module')
def teacher():
    torch.manual_seed(0)
    return Teacher(PRESETS['teacher-tiny']).eval()


def window(teacher, seed=0):
    """Return random inputs of fold for a teacher."""
    random = torch.Generator().manual_seed(seed)
    return {'memory': torch.rand(1, 16, teacher.config.memory_channels, 80, 80, generator=random),
            'now_from_frame': torch.rand(1, 16, 3, generator=random) * 0.5,
            'age_s': torch.linspace(1.5, 0.0, 16)[None], 'frame_mask': torch.ones(1, 16),
            'odometry_mask': torch.ones(1, 1)}


def states(teacher, inputs):
    with torch.no_grad():
        return teacher.dynamics(teacher.fold(**inputs), torch.zeros(1, 6, 3), torch.zeros(1, 2),
                                inputs['odometry_mask'])


def test_a_single_token_of_the_oldest_frame_reaches_every_token(teacher):
    inputs = window(teacher)
    before = states(teacher, inputs)
    assert before.shape == (1, 7, 256, teacher.config.dim)
    inputs['memory'][:, 0, :, 40:45, 40:45] += 2.0
    changed = (states(teacher, inputs) - before).abs().amax(-1)[0]    # (7, 256)
    assert (changed > 0).all()


def test_a_masked_frame_has_no_influence_on_the_teacher(teacher):
    inputs = window(teacher)
    inputs['frame_mask'][:, 4] = 0.0
    before = states(teacher, inputs)
    inputs['memory'][:, 4] += 5.0
    assert torch.equal(states(teacher, inputs), before)


def test_without_odometry_poses_have_no_influence_on_the_teacher(teacher):
    inputs = window(teacher)
    inputs['odometry_mask'] = torch.zeros(1, 1)
    before = states(teacher, inputs)
    inputs['now_from_frame'] = inputs['now_from_frame'] + 3.0
    assert torch.equal(states(teacher, inputs), before)


def test_no_bottleneck_sixteen_times_the_tokens(teacher):
    assert teacher.fold(**window(teacher)).tokens.shape[1] == 16 * 256


def test_a_config_says_which_model_it_is():
    assert isinstance(build_model(PRESETS['teacher-tiny']), Teacher)
    assert type(build_model(PRESETS['tiny'])) is WorldModel
    assert not ModelConfig.from_dict({'dim': 64}).teacher   # as in every older checkpoint
