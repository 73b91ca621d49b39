"""bench-v1 is frozen: a change of the simulator has to be meant."""

import copy

import pytest

from wm_ros.evaluate import benchmark


@pytest.fixture(scope='module')
def stored():
    """Return what is frozen."""
    return benchmark.frozen()


def test_the_simulator_draws_what_was_frozen(stored):
    probes = tuple(f'{world}:{seeds[0]}' for world, seeds in benchmark._PROBES.items())
    assert benchmark.check(stored, probes) == [], (
        'the simulator changed: if that is meant, run python -m wm_ros.evaluate.benchmark --freeze '
        'and score again')


def test_data_sets_are_as_promised(stored):
    sets = stored['definition']['datasets']
    assert set(sets) == {'sim', 'sim-hard', *benchmark.UNSEEN}
    for name, entry in sets.items():
        first, end = entry['seeds']
        assert first >= 900_000
        assert end - first >= (40 if name in benchmark.UNSEEN else 200)
        assert (entry['seconds'], entry['every'], len(entry['rig'])) == (10.0, 5, 6)
    assert len(stored['hash']) == 64


def test_a_shifted_part_and_a_moved_agent_are_told(stored):
    key = next(iter(stored['content']))
    frozen = {key: stored['content'][key]}
    assert benchmark.differences(frozen, copy.deepcopy(frozen), exact=True) == []
    found = copy.deepcopy(frozen)
    found[key][0]['grey'][2][5] += 2.0
    assert benchmark.differences(frozen, found, exact=False) == [
        f'{key} frame 15: pictures differ by 2.0 grey levels']
    found = copy.deepcopy(frozen)
    found[key][1]['truth'][3] *= 1.01
    assert 'frame 70: truth differs by 1.0 %' in benchmark.differences(frozen, found, False)[0]
    found = copy.deepcopy(frozen)
    found[key][1]['exact'] = '0' * 32
    # The last bits are asked for only where the machine computes as the one that froze it.
    assert benchmark.differences(frozen, found, exact=False) == []
    assert 'last places' in benchmark.differences(frozen, found, exact=True)[0]
    assert benchmark.differences(frozen, {}, exact=True) == [f'{key}: not in both']


def test_only_the_whole_set_is_called_the_benchmark(monkeypatch, stored):
    monkeypatch.setattr(benchmark, 'code_version', lambda: stored['code'])
    whole = list(range(900_000, 900_200))
    assert benchmark.name_of_run('sim', whole, 10.0, 'surround', 5) == 'bench-v1'
    assert benchmark.name_of_run('sim', whole[:-1], 10.0, 'surround', 5) is None
    assert benchmark.name_of_run('sim', whole, 9.0, 'surround', 5) is None
    assert benchmark.name_of_run('sim', whole, 10.0, 'front', 5) is None
    assert benchmark.name_of_run('snow', whole, 10.0, 'surround', 5) is None
    assert benchmark.simulator_version().startswith(stored['hash'])
    monkeypatch.setattr(benchmark, 'code_version', lambda: 'another')
    assert benchmark.name_of_run('sim', whole, 10.0, 'surround', 5) is None
    assert benchmark.simulator_version().startswith('another')
