"""Two world models and a node of somebody else's in one executor: docs/examples/compose.py."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from fakes import make_fake_artifact, make_rig

pytest.importorskip('rclpy')

from ros_drive import PATIENCE_S, Drive, Ros, wait_for, wait_matched, write_rig

EXAMPLE = Path(__file__).resolve().parent.parent / 'docs' / 'examples' / 'compose.py'


def test_two_instances_and_a_planner_share_one_executor(tmp_path):
    spec = importlib.util.spec_from_file_location('compose', EXAMPLE)
    compose = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(compose)
    rig = make_rig(1)
    artifact = str(make_fake_artifact(tmp_path / 'artifact'))
    with Ros() as inside, Ros() as outside:
        planner = inside.add(compose.Planner(context=inside.context))
        models = [inside.add(compose.world_model(
            side, write_rig(rig, tmp_path), artifact, context=inside.context))
            for side in compose.SIDES]
        drives = [Drive(outside, rig, namespace=side) for side in compose.SIDES]
        for drive, model, side in zip(drives, models, compose.SIDES, strict=True):
            drive.wait_connected(model)
            wait_matched(model, planner)
            drive.calibrate(f'{side}/world_model')
        for drive in drives:
            drive.run(14)
        # Each answers its own cameras alone.
        assert [len(drive.got['agents']) for drive in drives] == [14, 14]
        wait_for(lambda: set(planner.agents) == {'left', 'right'}, PATIENCE_S, 'the planner')
        assert min(planner.agents.values()) > 0
