"""The rollout in three parts side by side: the same numbers, whatever the plans and threads."""

import os
import threading
import time

import numpy as np
import pytest

from wm_ros.runtime.artifact import load_artifact
from wm_ros.runtime.openvino import OpenVinoBackend
from wm_ros.runtime.openvino_rollout import of_plan
from wm_ros.share import share_path

ARTIFACT = load_artifact(share_path('models', 'world-model'))
#: What is in float32 is summed in another order where parts are cut apart.
CLOSE = {'rtol': 1e-3, 'atol': 2e-3}


def rollout(plans, threads=1, whole=False):
    """Return the rollout of the shipped model in f32, as one graph if `whole`."""
    backend = OpenVinoBackend(threads, {'rollout_precision': 'f32'})
    backend.prepare(ARTIFACT)
    with pytest.MonkeyPatch.context() as patch:
        if whole:
            patch.setattr('wm_ros.runtime.openvino.split_rollout', lambda model, single: None)
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
def three():
    made = rollout(plans=3, threads=2)
    yield made
    made.close()


def test_it_is_cut_in_three_and_says_what_the_whole_graph_says(three):
    assert len(three._steps) == 1 and len(three._branches) == 1 + 3
    whole = rollout(plans=3, whole=True)
    assert len(whole._steps) == 1 and not whole._branches
    assert three.kernels['i8'] == whole.kernels['i8'] > 30
    found, wanted = outputs(three, 3), outputs(whole, 3)
    whole.close()
    for name in ('occupancy', 'flow', 'road', 'observed'):
        np.testing.assert_allclose(found[name], wanted[name], **CLOSE, err_msg=name)
    scores = (np.sort(each['agent_score']) for each in (found, wanted))     # equal ones may swap
    np.testing.assert_allclose(*scores, **CLOSE)
    assert np.abs(found['occupancy'][0, 3] - found['occupancy'][2, 3]).max() > 0.01   # plans count


def test_each_plan_says_what_it_says_alone(three):
    together = outputs(three, 3)
    alone = rollout(plans=1)
    first = outputs(alone, 1)
    alone.close()
    for name in ('occupancy', 'flow'):
        np.testing.assert_allclose(together[name][0], first[name][0], **CLOSE, err_msg=name)


def test_the_library_s_choice_of_threads_is_all_there_are():
    made = rollout(plans=1, threads=0)
    assert made._threads == len(os.sched_getaffinity(0))
    assert outputs(made, 1)['flow'].std() > 0
    made.close()


def test_a_run_again_is_equal_to_the_bit(three):
    before = outputs(three, 3)
    outputs(three, 3, seed=4)
    for name, array in outputs(three, 3).items():
        np.testing.assert_array_equal(array, before[name], name)


def test_an_error_of_a_branch_is_not_lost(three, monkeypatch):
    def fail(given):
        raise RuntimeError('out of memory')

    monkeypatch.setattr(three, '_branches', [*three._branches[:3],
                                             type('Failing', (), {'run': staticmethod(fail)})()])
    with pytest.raises(RuntimeError, match='out of memory'):
        outputs(three, 3)


def test_after_an_error_nothing_is_under_way_any_more(three, monkeypatch):
    both, left = threading.Barrier(2), []

    class Branch:
        def run(self, given):
            both.wait(10)
            if threading.current_thread() is threading.main_thread():
                raise RuntimeError('out of memory')
            time.sleep(0.05)
            left.append(True)

    monkeypatch.setattr(three, '_branches', [Branch(), Branch()])
    with pytest.raises(RuntimeError, match='out of memory'):
        outputs(three, 3)
    assert left == [True]


def test_rows_of_a_plan():
    values = np.arange(12.0).reshape(6, 2)
    assert of_plan(values, (2, 2), 1).tolist() == [[4.0, 5.0], [6.0, 7.0]]
    assert of_plan(values, (6, 2), 0) is values
    assert of_plan(np.float32(3), (), 2) == 3
