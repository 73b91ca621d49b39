"""What the node's own code costs: of sets that are formed and of messages that are whole."""

import json

import pytest

pytest.importorskip('rclpy')

from wm_ros.ros import cost


def test_every_part_has_its_price(capsys):
    assert cost.main(['--rounds', '4', '--json']) == 0
    costs = json.loads(capsys.readouterr().out)
    assert {'six JPEG messages', 'six CameraInfo', 'odometry', '~/agents', '~/occupancy', '~/flow',
            'both grids', '~/markers'} <= costs.keys()
    assert all(0 < entry['p50'] <= entry['p95'] for entry in costs.values())
    assert costs['six JPEG messages']['p50'] > costs['one JPEG, read alone']['p50']


def test_sets_that_are_not_formed_are_no_price(monkeypatch):
    monkeypatch.setattr(cost, 'PERIOD_NS', 0)     # all of one instant
    with pytest.raises(RuntimeError, match='1 sets were formed of 3'):
        cost.input_costs(3)
