"""The measurement of attention and of the bottleneck counts what it says it counts."""

import json

import pytest

torch = pytest.importorskip('torch', reason='the model is for training; the node runs without')

from wm_ros.model import attention_cost  # noqa: E402


def test_tables_have_every_layer_and_core(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(attention_cost, 'TOKENS', (64, 128))
    attention_cost.main(['--student', 'tiny', '--teacher', 'teacher-tiny', '--rounds', '1',
                         '--threads', '1', '--json', str(tmp_path / 'cost.json')])
    report = json.loads((tmp_path / 'cost.json').read_text())
    assert [row['slots'] for row in report['attention']] == [64 * 128, 128 * 128]
    assert all(row['sparse_ms'] > 0 and row['dense_ms'] > 0 for row in report['attention'])
    cores = report['cores']
    assert [core['tokens'] for core in cores.values()] == [256, 4096, 4096]
    # Over all frames the same sizes take more time and memory, whatever the machine.
    assert cores['tiny, all frames']['ms'] > 1.3 * cores['tiny']['ms']
    assert cores['tiny, all frames']['peak_mb'] > cores['tiny']['peak_mb'] > 0
    printed = capsys.readouterr().out
    assert 'slots' in printed and 'tiny, all frames' in printed


def test_longformer_is_optional():
    pytest.importorskip('transformers', reason='for a measurement only')
    layer = attention_cost.longformer(48, 4, 96, 32)
    with torch.no_grad():
        assert layer(torch.randn(1, 32 + 96, 48)).shape == (1, 192, 48)
