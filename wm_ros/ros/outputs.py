"""The publishers of a forecast, and what goes out on each."""

from __future__ import annotations

from typing import Any

from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions

from wm_ros.messages import (
    FrameOfReference,
    agents_cdr,
    flow_message,
    grid_message,
    occupancy_message,
)
from wm_ros.ros.convert import frame_of_reference, message_types, within_horizon
from wm_ros.ros.markers import markers_message
from wm_ros.ros.parameters import Settings
from wm_ros.types import Forecast

try:
    from rclpy.event_handler import PublisherEventCallbacks
except ImportError:  # Humble
    from rclpy.qos_event import PublisherEventCallbacks


def output_qos(depth: int) -> QoSProfile:
    """Return the profile of the forecasts: reliable, volatile, the last `depth` kept."""
    return QoSProfile(depth=depth, history=HistoryPolicy.KEEP_LAST,
                      reliability=ReliabilityPolicy.RELIABLE,
                      durability=DurabilityPolicy.VOLATILE)


class Outputs:
    """
    The publishers of one node: created when it is configured, destroyed when it is cleaned up.

    `incompatible(topic, policy)` is called where a subscriber asks for a QoS that is not offered.
    """

    def __init__(self, node: Any, incompatible: Any) -> None:
        from nav_msgs.msg import OccupancyGrid
        from visualization_msgs.msg import MarkerArray

        from wm_ros.msg import AgentForecastArray, OccupancyFlow, OccupancyForecast

        self._node = node

        def publisher(message: type, topic: str, depth: int) -> Any:
            return node.create_publisher(
                message, topic, output_qos(depth),
                event_callbacks=PublisherEventCallbacks(
                    incompatible_qos=lambda event: incompatible(topic, event)),
                qos_overriding_options=QoSOverridingOptions.with_default_policies())

        self.agents = publisher(AgentForecastArray, '~/agents', 5)
        self.occupancy = publisher(OccupancyForecast, '~/occupancy', 2)
        self.flow = publisher(OccupancyFlow, '~/flow', 2)
        self.grid = publisher(OccupancyGrid, '~/occupancy_grid', 2)
        self.risk = publisher(OccupancyGrid, '~/risk_grid', 2)
        self.markers = publisher(MarkerArray, '~/markers', 2)

    def publish(self, forecast: Forecast, settings: Settings, odom_frame: str) -> Forecast:
        """
        Publish a forecast; return it as it went out. All but the agents only if somebody listens.

        The grids are published for valid forecasts alone: a nav_msgs/OccupancyGrid cannot say
        that it is not to be trusted.
        """
        types = message_types()
        forecast, frame = frame_of_reference(
            forecast, settings.output_frame, settings.base_frame, odom_frame)
        # Bytes are sent as they are.
        self.agents.publish(agents_cdr(types, forecast, frame, odom_frame))
        if settings.publish_occupancy and wanted(self.occupancy):
            self.occupancy.publish(occupancy_message(types, forecast, frame, odom_frame))
        if settings.publish_flow and wanted(self.flow):
            self.flow.publish(flow_message(types, forecast, frame, odom_frame))
        if settings.publish_grids and forecast.valid:
            if wanted(self.grid):
                self.grid.publish(grid_message(types, forecast, horizon=False, frame=frame))
            if wanted(self.risk):
                near = within_horizon(forecast, settings.risk_horizon_s)
                self.risk.publish(grid_message(types, near, horizon=True, frame=frame))
        if settings.publish_markers and wanted(self.markers):
            self.markers.publish(markers_message(forecast, frame))
        return forecast

    def destroy(self) -> None:
        """Destroy all publishers."""
        for publisher in (self.agents, self.occupancy, self.flow, self.grid, self.risk,
                          self.markers):
            self._node.destroy_publisher(publisher)


def serialised(forecast: Forecast) -> list[bytes]:
    """Return every message of a forecast as bytes: the work of publishing without a network."""
    types = message_types()
    frame = FrameOfReference()
    return [markers_message(forecast, frame), agents_cdr(types, forecast, frame), *(
        types.serialise(message) for message in (
            occupancy_message(types, forecast, frame), flow_message(types, forecast, frame),
            grid_message(types, forecast, horizon=False),
            grid_message(types, forecast, horizon=True)))]


def wanted(publisher: Any) -> bool:
    """Tell whether anybody subscribes: large messages are not built for nobody."""
    return publisher.get_subscription_count() > 0
