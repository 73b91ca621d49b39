"""The fold in two parts, the first of them begun early: the same bytes whenever and however."""

import numpy as np
import pytest

from wm_ros.runtime.artifact import load_artifact
from wm_ros.runtime.openvino import OpenVinoBackend
from wm_ros.runtime.openvino_layout import channels_first, channels_last
from wm_ros.share import share_path

ARTIFACT = load_artifact(share_path('models', 'world-model'))


def fold(threads):
    """Return the fold of the shipped model, for one camera."""
    backend = OpenVinoBackend(threads, {})
    backend.prepare(ARTIFACT)
    return backend.open('fold', ARTIFACT, {'N': 1, 'P': 1})


@pytest.fixture(scope='module')
def beside():
    """Give a fold whose first part runs in a thread of its own."""
    made = fold(threads=2)
    yield made
    made.close()


@pytest.fixture
def values():
    rng = np.random.default_rng(7)
    found = {item.name: rng.random(item.shape, np.float32)
             for item in ARTIFACT.specs['fold'].inputs}
    found['now_from_frame'] *= np.float32([12.0, 0.5, 0.2])
    found['frame_mask'][:] = found['odometry_mask'][:] = 1
    found['frame_mask'][3] = 0
    found['memory'] = turned(found['memory'])
    return found


def turned(memory):
    """Return the same maps with channels innermost in memory."""
    return channels_first(np.ascontiguousarray(channels_last(memory)))


def latent(graph, values):
    graph.infer(values)
    return graph.outputs['latent'].copy()


def test_it_is_in_two_parts_and_every_frame_counts(beside, values):
    assert len(beside._stages) == 2
    before = latent(beside, values)
    for frame in (0, 14, 15):
        changed = {**values, 'memory': values['memory'].copy(order='K')}
        changed['memory'][frame] += 1
        assert np.abs(latent(beside, changed) - before).max() > 1e-3, frame
    np.testing.assert_array_equal(latent(beside, values), before)


def test_begun_or_not_and_on_any_number_of_threads_it_gives_the_same_bytes(beside, values):
    wanted = latent(beside, values)
    newest = values['memory'][15].copy()
    values['memory'][15] = 5.0                  # not known yet when the first part begins
    beside.begin(values)
    values['memory'][15] = newest
    np.testing.assert_array_equal(latent(beside, values), wanted)
    usual = {**values, 'memory': np.ascontiguousarray(values['memory'])}
    beside.begin(usual)                         # they would have to be copied: nothing begins
    assert beside._begun is None
    np.testing.assert_array_equal(latent(beside, usual), wanted)
    alone = fold(threads=1)
    alone.begin(values)                         # no thread to spare: nothing begins
    assert alone._begun is None
    np.testing.assert_array_equal(latent(alone, values), wanted)
    alone.close()


def test_what_was_begun_from_other_values_is_not_used(beside, values):
    for name, change in (('frame_mask', (5, 0)), ('age_s', (2, 9.0)), ('odometry_mask', (0, 0))):
        changed = {**values, name: values[name].copy()}
        changed[name][change[0]] = change[1]
        wanted = latent(beside, changed)
        beside.begin(values)
        np.testing.assert_array_equal(latent(beside, changed), wanted)
    held = values['age_s'].copy()
    wanted = latent(beside, values)
    beside.begin(values)
    values['age_s'][:] = 3.0                    # the caller's arrays are its own again
    values['age_s'][:] = held
    np.testing.assert_array_equal(latent(beside, values), wanted)


def test_what_the_past_adds_stays_as_it_is_until_the_next_window_is_folded(beside, values):
    latent(beside, values)
    held = beside.outputs['past'].copy()
    later = {**values, 'memory': turned(values['memory'] + np.float32(1))}
    beside.begin(later)
    beside._begun[1].result()                   # all that can be ahead is done
    np.testing.assert_array_equal(beside.outputs['past'], held)
    latent(beside, later)
    assert np.abs(beside.outputs['past'] - held).max() > 1e-3
    found = beside.outputs['past'].copy()
    alone = fold(threads=1)                     # nothing is ahead: it is made at once
    latent(alone, later)
    np.testing.assert_array_equal(alone.outputs['past'], found)
    alone.close()
