"""Forecasts and truth as bags hold them: paired by stamp, and scored."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from wm_ros.data.bag import AGENTS, TRUTH_TOPIC, BagError, BagReader
from wm_ros.data.truth import truth_from_message
from wm_ros.evaluate.scores import DriveCounter, Scores
from wm_ros.geometry import relative_pose
from wm_ros.messages import FrameOfReference, stamp_ns
from wm_ros.received import forecast_from_messages
from wm_ros.types import Forecast, Truth

OCCUPANCY = 'wm_ros/msg/OccupancyForecast'


def forecast_topics(reader: BagReader) -> tuple[str, str]:
    """
    Return the topics of agents and occupancy of one node; raise BagError where there is none.

    Where several nodes were recorded, the first by name is taken.
    """
    agents = {t.rsplit('/', 1)[0]: t for t in reader.topics_of(AGENTS)
              if not t.startswith('/truth/')}
    occupancy = {t.rsplit('/', 1)[0]: t for t in reader.topics_of(OCCUPANCY)}
    both = sorted(set(agents) & set(occupancy))
    if not both:
        raise BagError(f'{reader.path}: no forecasts; want an AgentForecastArray and an '
                       f'OccupancyForecast topic, found {", ".join(reader.topics) or "nothing"}')
    return agents[both[0]], occupancy[both[0]]


def forecasts_in(reader: BagReader) -> Iterator[Forecast]:
    """
    Yield the forecasts of a bag, oldest stamp first as they were published, without flow.

    They are in `base_link` at the stamp, also where the node published them in odometry.
    """
    topics = forecast_topics(reader)
    waiting: dict[int, dict[str, Any]] = {}
    for topic, _, msg in reader.read(topics):
        parts = waiting.setdefault(stamp_ns(msg.header), {})
        parts[topic] = msg
        if len(parts) == 2:
            stamp = stamp_ns(msg.header)
            agents = parts[topics[0]]
            forecast = forecast_from_messages(agents, parts[topics[1]])
            in_odom = agents.info.odom_known and agents.header.frame_id == agents.info.odom_frame
            yield in_base_link(forecast) if in_odom else forecast
            # What is older will not be completed any more: topics are published in order.
            for old in [key for key in waiting if key <= stamp]:
                del waiting[old]


def in_base_link(forecast: Forecast) -> Forecast:
    """Return a forecast that was published in odometry in `base_link` at its stamp."""
    frame = FrameOfReference('base_link', relative_pose(forecast.odom_from_base, np.zeros(3)))
    turn = np.eye(3)
    turn[:2, :2] = frame.rotation
    agents = tuple(replace(
        agent, pose=frame.pose(agent.pose), velocity_mps=frame.vectors(agent.velocity_mps),
        pose_covariance=turn @ agent.pose_covariance @ turn.T,
        twist_covariance=frame.covariances(agent.twist_covariance),
        trajectories_m=frame.points(agent.trajectories_m),
        covariances_m2=frame.covariances(agent.covariances_m2)) for agent in forecast.agents)
    # Cells need nothing: their grid was laid around the vehicle in either frame.
    plan = replace(forecast.ego_plan, poses=frame.pose(forecast.ego_plan.poses))
    return replace(forecast, agents=agents, ego_plan=plan)


def replayed_from(reader: BagReader) -> Path | None:
    """Return the bag from which a bag of forecasts was made: where it says, or beside it."""
    noted = reader.notes.get('replayed', '')
    places = (Path(noted), reader.path.parent / Path(noted).name) if noted else ()
    return next((place for place in places if place.exists()), None)


def truths_in(reader: BagReader) -> dict[int, Truth]:
    """Return the truths of a bag by stamp; empty where it holds none."""
    if TRUTH_TOPIC not in reader.topics:
        return {}
    return {stamp_ns(msg.header): truth_from_message(msg)
            for _, _, msg in reader.read([TRUTH_TOPIC])}


def score(forecasts: list[Forecast], truths: dict[int, Truth]) -> dict[str, Any] | None:
    """
    Return the report of `Scores` over the forecasts that have a truth, None where none has.

    Scored is what was published from the first valid forecast on: before it the window fills. An
    invalid one after that counts, as one that misses every agent. The node has applied its score
    threshold already.
    """
    counter = DriveCounter(threshold=0.0)
    running = False
    for forecast in forecasts:
        running |= forecast.valid
        truth = truths.get(forecast.stamp_ns)
        if running and truth is not None:
            counter.add(forecast, truth)
    if not counter.forecasts:
        return None
    return Scores([counter]).report()


#: Rows of the score table: name shown, key of the report, digits, unit.
SCORE_ROWS = (
    ('recall (30 m)', 'recall', 2, ''), ('precision', 'precision', 2, ''),
    ('SPA top-6', 'spa_top6', 1, '%'), ('SPA top-1', 'spa_top1', 1, '%'),
    ('minADE-6', 'min_ade_6', 2, 'm'), ('minFDE-6', 'min_fde_6', 2, 'm'))


def score_table(report: dict[str, Any]) -> list[list[str]]:
    """
    Return the score table as text: a header, then one row a metric.

    Columns: the model, the baselines on the model's own boxes, and constant velocity from truth,
    for which only SPA means something.
    """
    columns = [('model', report)]
    columns += [(name.replace('_', ' '), report['baselines'].get(name, {}))
                for name in ('static', 'constant_velocity')]
    columns.append(('oracle: constant velocity from truth',
                    report['oracles'].get('oracle_constant_velocity', {})))
    table = [['', *(name for name, _ in columns)]]
    for label, key, digits, unit in SCORE_ROWS:
        row = [label]
        for name, values in columns:
            # A baseline has one path, so its top 6 are its top 1.
            value = values.get(key) if name == 'model' or key != 'spa_top6' else None
            row.append('–' if value is None else f'{value:.{digits}f} {unit}'.rstrip())
        table.append(row)
    near = report.get('iou_near') or {}
    static = (report['baselines'].get('static', {}).get('iou_near') or {})
    moving = (report['baselines'].get('constant_velocity', {}).get('iou_near') or {})
    for step in ('0', '1', '2', '3'):
        values = [source.get(step) for source in (near, static, moving)]
        if values[0] is not None:
            table.append([f'IoU near, {step} s', *(
                '–' if v is None else f'{v:.1f} %' for v in values), '–'])
    return table
