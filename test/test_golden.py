"""The shipped model's forecasts are those that are stored, to the byte where the host is known."""

import importlib.util
import warnings

import golden
import numpy as np
import pytest

UPDATE = 'if this is meant: python test/golden.py --update'


@pytest.mark.parametrize('backend', golden.BACKENDS)
def test_forecasts_are_those_that_are_stored(backend):
    if importlib.util.find_spec(golden.BACKENDS[backend]) is None:
        pytest.skip(f'{backend} is not installed')
    content = golden.stored()
    assert content['model_hash'] == golden.model_hash(), f'another model; {UPDATE}'
    where = golden.host_class(backend)
    outcome = golden.run(backend)
    differences, exact = golden.compare(content['backends'][backend], outcome, where)
    if not exact:
        warnings.warn(f'{backend}: this class of host is not stored, so forecasts were held to '
                      f'summary and metrics within a tolerance, not to the byte: {where}',
                      stacklevel=1)
    assert differences == [], UPDATE


def test_a_changed_byte_and_a_changed_metric_are_found():
    known = {'metrics': dict.fromkeys(golden.METRICS, 1.0), 'summary': [[5, *[0.1] * 8]] * 2,
             'classes': {'here': ['a', 'b']}}
    same = golden.Outcome(['a', 'b'], known['summary'], known['metrics'])
    assert golden.compare(known, same, 'here') == ([], True)
    other = golden.Outcome(['a', 'c'], known['summary'], known['metrics'])
    assert golden.compare(known, other, 'here')[0] == [
        '1 of 2 forecasts have other bytes, the first is number 1']
    # Elsewhere other bytes are to be expected, other numbers are not.
    assert golden.compare(known, other, 'elsewhere') == ([], False)
    worse = golden.Outcome(['a', 'b'], known['summary'], known['metrics'] | {'recall': 0.9})
    assert golden.compare(known, worse, 'elsewhere')[0] == ['recall: 1, now 0.9']
    empty = golden.Outcome(['a', 'b'], [[5, *[0.1] * 8], [0, *np.zeros(8)]], known['metrics'])
    assert len(golden.compare(known, empty, 'elsewhere')[0]) == 2
    nan = golden.Outcome(['a', 'b'], known['summary'], known['metrics'] | {'epa': float('nan')})
    assert golden.compare(known, nan, 'elsewhere')[0]
