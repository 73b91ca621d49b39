"""
Two world models and a node of your own in one process.

    python docs/examples/compose.py /path/to/rig.yaml [/path/to/artifact]

Each instance has its own namespace, so its own cameras: `/left/front/image_raw/compressed`,
`/right/front/image_raw/compressed`. The planner stands for your own code: it takes the forecasts
of both, and uses only those that say that they are valid.
"""

from __future__ import annotations

import sys

import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter

from wm_ros.msg import AgentForecastArray
from wm_ros.ros.node import WorldModelNode

SIDES = ('left', 'right')


class Planner(Node):
    """Counts the road users that each side may meet."""

    def __init__(self, **kwargs) -> None:
        super().__init__('planner', **kwargs)
        self.agents: dict[str, int] = {}
        for side in SIDES:
            self.create_subscription(
                AgentForecastArray, f'/{side}/world_model/agents',
                lambda msg, side=side: self._take(side, msg), 5)

    def _take(self, side: str, msg: AgentForecastArray) -> None:
        if not msg.info.valid:
            self.get_logger().info(f'{side}: {"; ".join(msg.info.invalid_reasons)}',
                                   throttle_duration_sec=1.0)
            return
        self.agents[side] = len(msg.agents)


def world_model(side: str, rig_file: str, artifact: str, **kwargs) -> WorldModelNode:
    """Return the world model of one side; it configures and activates itself once spun."""
    values = {'autostart': True, 'rig_file': rig_file, 'artifact': artifact, 'threads': 1}
    return WorldModelNode(
        namespace=side, parameter_overrides=[Parameter(name, value=value)
                                             for name, value in values.items()], **kwargs)


def main() -> None:
    """Spin all three in one executor until interrupted."""
    rig_file = sys.argv[1]
    artifact = sys.argv[2] if len(sys.argv) > 2 else ''
    rclpy.init()
    nodes = [Planner(), *(world_model(side, rig_file, artifact) for side in SIDES)]
    executor = SingleThreadedExecutor()
    for node in nodes:
        executor.add_node(node)
    try:
        executor.spin()
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        for node in nodes:
            node.destroy_node()    # joins the inference threads
        rclpy.try_shutdown()


if __name__ == '__main__':
    main()
