"""The rollout in parts side by side: the same numbers, whatever the plans and threads."""

import os

import numpy as np
import pytest

from wm_ros.runtime.artifact import load_artifact
from wm_ros.runtime.openvino import OpenVinoBackend
from wm_ros.runtime.openvino_plans import plans_a_run
from wm_ros.runtime.openvino_rollout import STEPS_AT_A_TIME, rows_of
from wm_ros.share import share_path
from wm_ros.types import HORIZON_STEPS

ARTIFACT = load_artifact(share_path('models', 'world-model'))
#: What is in float32 is summed in another order where parts are cut apart.
CLOSE = {'rtol': 1e-3, 'atol': 2e-3}
RUNS = HORIZON_STEPS // STEPS_AT_A_TIME


def rollout(plans, threads=1, whole=False):
    """Return the rollout of the shipped model in f32, as one graph if `whole`."""
    backend = OpenVinoBackend(threads, {'rollout_precision': 'f32'})
    backend.prepare(ARTIFACT)
    with pytest.MonkeyPatch.context() as patch:
        if whole:
            patch.setattr('wm_ros.runtime.openvino_plans.split_rollout', lambda *graphs: None)
        return backend.open('rollout', ARTIFACT, {'N': 1, 'P': plans})


def outputs(graph, plans, seed=3):
    """Run on random features under so many plans; return copies of the outputs."""
    rng = np.random.default_rng(seed)
    paths = np.cumsum(rng.random((8, 6, 3), np.float32), axis=1)
    given = {item.name: rng.random(item.shape, np.float32) - np.float32(0.3)
             for item in ARTIFACT.specs['rollout'].inputs if item.name != 'plans'}
    given = {**given, 'plans': paths[:plans].copy(), 'odometry_mask': np.ones(1, np.float32)}
    graph.infer(given)
    return {name: array.copy() for name, array in graph.outputs.items()}


@pytest.fixture(scope='module')
def four():
    made = rollout(plans=4, threads=2)
    yield made
    made.close()


@pytest.fixture(scope='module')
def alone():
    made = rollout(plans=1)
    yield made
    made.close()


def test_it_is_cut_up_and_says_what_the_whole_graph_says(four):
    # Dynamics of two plans each; what is shared; agents, maps of two steps each, maps of now.
    assert [len(stage) for stage in four._stages] == [2, 1, 1 + 4 * RUNS + 1]
    whole = rollout(plans=4, whole=True)
    assert [len(stage) for stage in whole._stages] == [1]
    assert four.kernels['i8'] == whole.kernels['i8'] > 30
    found, wanted = outputs(four, 4), outputs(whole, 4)
    whole.close()
    for name in ('occupancy', 'flow', 'road', 'observed'):
        np.testing.assert_allclose(found[name], wanted[name], **CLOSE, err_msg=name)
    scores = (np.sort(each['agent_score']) for each in (found, wanted))     # equal ones may swap
    np.testing.assert_allclose(*scores, **CLOSE)
    assert np.abs(found['occupancy'][0, 3] - found['occupancy'][2, 3]).max() > 0.01   # plans count


def test_each_plan_says_what_it_says_alone(four, alone):
    together, first = outputs(four, 4), outputs(alone, 1)
    for name in ('occupancy', 'flow'):
        np.testing.assert_array_equal(together[name][0], first[name][0], name)


def test_the_library_s_choice_of_threads_is_all_there_are(alone):
    made = rollout(plans=1, threads=0)
    assert made._threads == len(os.sched_getaffinity(0))
    found, wanted = outputs(made, 1), outputs(alone, 1)
    made.close()
    for name in ('occupancy', 'flow', 'road', 'observed', 'agent_score'):
        np.testing.assert_allclose(found[name], wanted[name], **CLOSE, err_msg=name)


def test_a_run_again_is_equal_to_the_bit(four):
    before = outputs(four, 4)
    outputs(four, 4, seed=4)
    for name, array in outputs(four, 4).items():
        np.testing.assert_array_equal(array, before[name], name)


def test_rows_of_a_run():
    values = np.arange(12.0).reshape(6, 2)
    assert rows_of(values, (2, 2), 1).tolist() == [[4.0, 5.0], [6.0, 7.0]]
    assert rows_of(values, (2, 2), 4).tolist() == [[4.0, 5.0], [6.0, 7.0]]  # the next plan's
    assert rows_of(values, (6, 2), 1) is values
    assert rows_of(np.float32(3), (), 2) == 3


def test_plans_are_shared_out_among_threads():
    assert [plans_a_run(*given) for given in ((8, 2), (3, 2), (3, 1), (1, 1))] == [4, 1, 3, 1]
