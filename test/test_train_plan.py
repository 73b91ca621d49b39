"""Stage three: futures learn to read the ego plan, and nothing else moves."""

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip('torch', reason='training needs torch')

from safetensors.torch import load_file  # noqa: E402
from tiny_run import WINDOW_SEED, make_run, window_clip  # noqa: E402

from wm_ros.model.config import PRESETS  # noqa: E402
from wm_ros.train import plan  # noqa: E402
from wm_ros.train.config import RUNS  # noqa: E402
from wm_ros.train.loop import load_model, save_model  # noqa: E402
from wm_ros.train.store import ClipStore  # noqa: E402

SETTINGS = replace(RUNS['rehearsal'], plan_steps=300)


def told_twice(seed):
    """Return a clip told twice: one road user does as the ego vehicle does, goes on or stands."""
    clip = window_clip(seed, PRESETS['tiny'])
    plans = np.zeros((2, 6, 3), np.float32)
    plans[0, :, 0] = np.linspace(3, 18, 6)
    for key in [key for key in clip if key.endswith('_0')]:
        clip[key.replace('_0', '_1')] = clip[key].copy()
    for i, far_m in ((0, 6.0), (1, 0.0)):
        clip[f'agents_{i}'][1:, 22:28] = 0.0        # nobody else's future is known
        clip[f'agents_{i}'][0, 10:22:2] = np.linspace(far_m / 6, far_m, 6)
        clip[f'agents_{i}'][0, 11:22:2] = 0.0
    return {**clip, 'ends': np.array([15, 15]), 'plans': plans,
            'skip': clip['skip'].repeat(2, 0), 'motion': clip['motion'].repeat(2, 0)}


@pytest.fixture
def folder(tmp_path):
    make_run(tmp_path, clips=1)
    model = load_model(tmp_path / 'model.safetensors')
    head = model.agents.mode[-1].weight     # begun, it hardly answers
    with torch.no_grad():                   # now all that is along a heading follows one direction
        head[1::5] = 0.3 * torch.randn(head.shape[1])
    save_model(model, tmp_path / 'model.safetensors', {'stage': 'window'})
    for i in range(plan.ENOUGH):
        ClipStore(tmp_path / 'windows').write(WINDOW_SEED + i, told_twice(i))
    return tmp_path


def reaction_m(folder):
    """Return how far the influenced ones' expected ends are apart along x, on average."""
    model = load_model(folder / 'model.safetensors').eval()
    table, _ = plan.tables_of(model, ClipStore(folder / 'windows'), torch.device('cpu'))
    known = torch.ones(len(table['plans']), 1)
    with torch.no_grad():
        out = model.agents.futures(table['queries'], table['ahead'], table['boxes'],
                                   (table['plans'], known))
    ends = (out['mode_logits'].softmax(-1)[..., None] * out['trajectories'][..., -1, :]).sum(2)
    return float((ends[0::2, 0, 0] - ends[1::2, 0, 0]).mean())


def test_futures_learn_to_read_the_plan_and_nothing_else_moves(folder):
    assert abs(reaction_m(folder)) < 1.0
    before = load_file(folder / 'model.safetensors')
    path = plan.plan_stage(folder, SETTINGS)
    assert reaction_m(folder) > 2.0, 'of 6'
    after = load_file(path)
    assert set(after) == set(before)
    moved = {name for name in after if not torch.equal(after[name], before[name])}
    assert moved and all(name.startswith('agents.from_plan.') for name in moved)
    # The same command again changes nothing; in front of other weights it begins anew.
    assert torch.equal(load_file(plan.plan_stage(folder, SETTINGS))['agents.from_plan.2.weight'],
                       after['agents.from_plan.2.weight'])


def test_other_weights_before_it_begin_it_anew(folder):
    plan.plan_stage(folder, SETTINGS)
    learnt = load_file(folder / 'plan.safetensors')['from_plan.2.weight']
    make_run(folder / 'other', clips=1, seed=1)
    (folder / 'other' / 'model.safetensors').replace(folder / 'model.safetensors')
    plan.plan_stage(folder, replace(SETTINGS, plan_steps=2))
    assert not torch.equal(load_file(folder / 'plan.safetensors')['from_plan.2.weight'], learnt)


def test_where_nobody_reacts_the_model_stays_as_it_is(tmp_path, capsys):
    make_run(tmp_path, clips=3)
    before = (tmp_path / 'model.safetensors').read_bytes()
    assert plan.plan_stage(tmp_path, SETTINGS).read_bytes() == before
    assert 'plan: 0 windows' in capsys.readouterr().err
