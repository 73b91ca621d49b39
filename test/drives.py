"""A short drive of forecasts that come true, but for what a test plants in it."""

import dataclasses

import numpy as np
from bags import PERIOD_NS, START_NS, forecast_near
from truths import make_truth

from wm_ros.geometry import relative_pose
from wm_ros.types import EgoPlan, PlanSource

EGO_MPS = 5.0


def forecasts(seconds, jump_at_s=None, jump_m=8.0, brake_at_s=None, period_ns=PERIOD_NS):
    """
    Return the forecasts of a node on a straight road: one car ahead at its speed, one parked.

    The parked car stands `jump_m` further left from `jump_at_s` on; the car ahead stops dead at
    `brake_at_s`. Nothing of that is in a forecast made before.
    """
    n = round(seconds * 1e9 / period_ns)
    out = []
    for i in range(n):
        t = i * period_ns / 1e9
        ego = np.array([EGO_MPS * t, 0.0, 0.0])
        stopped = brake_at_s is not None and t >= brake_at_s
        ahead = 10.0 + EGO_MPS * (brake_at_s if stopped else t)
        aside = 4.0 + (jump_m if jump_at_s is not None and t >= jump_at_s else 0.0)
        odom = np.array([[ahead, 0.0, 0.0], [18.0 + EGO_MPS * seconds / 2, aside, 0.0]])
        stamp = START_NS + i * period_ns
        truth = make_truth(relative_pose(ego, odom),
                           velocities=[[0.0 if stopped else EGO_MPS, 0.0], [0.0, 0.0]],
                           ids=[1, 2 + (aside > 4.0)], stamp_ns=stamp)
        # What lies ahead is in the frame of the stamp, which stays where it is.
        steps = 0.5 * np.arange(1, 7)
        plan = np.stack([EGO_MPS * steps, 0 * steps, 0 * steps], axis=1)
        truth = dataclasses.replace(
            truth, ego=dataclasses.replace(truth.ego, odom_from_base=ego, speed_mps=EGO_MPS),
            ego_plan=EgoPlan(plan, PlanSource.CONSTANT_TURN_RATE))
        # Even the road is grown over: no static layer hides the agents.
        truth.road[:] = False
        forecast = forecast_near(truth, np.random.default_rng(i))
        out.append(dataclasses.replace(forecast, agents=tuple(
            dataclasses.replace(agent, trajectories_m=agent.trajectories_m.astype(np.float32))
            for agent in forecast.agents)))
    return out
