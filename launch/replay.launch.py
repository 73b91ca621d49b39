"""
Play a bag to the world model node, on the time of the bag.

    ros2 launch wm_ros replay.launch.py bag:=drive.mcap rig:=surround

Takes the arguments of world_model.launch.py too. For a run that gives the same forecasts every
time, whatever the load of the machine, use `wm_ros replay`.
"""

import os

from ament_index_python.packages import get_package_share_directory
from launch.actions import (
    DeclareLaunchArgument,
    ExecuteProcess,
    IncludeLaunchDescription,
    RegisterEventHandler,
    Shutdown,
)
from launch.event_handlers import OnProcessExit
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration

from launch import LaunchDescription

ARGUMENTS = {
    'bag': (None, 'The bag to play.'),
    'rate': ('1.0', 'Speed, 1.0 is that of the recording.'),
    'delay': ('5.0', 'Seconds before the bag starts, in which the node becomes active.'),
    'clock_hz': ('100', 'Rate of /clock.'),
}


def generate_launch_description():
    """Return the launch description of node and bag."""
    share = get_package_share_directory('wm_ros')
    player = ExecuteProcess(
        cmd=['ros2', 'bag', 'play', LaunchConfiguration('bag'),
             '--rate', LaunchConfiguration('rate'), '--delay', LaunchConfiguration('delay'),
             '--clock', LaunchConfiguration('clock_hz')],
        output='screen')
    return LaunchDescription([
        *(DeclareLaunchArgument(name, default_value=default, description=description)
          for name, (default, description) in ARGUMENTS.items()),
        IncludeLaunchDescription(
            PythonLaunchDescriptionSource(
                os.path.join(share, 'launch', 'world_model.launch.py')),
            launch_arguments={'use_sim_time': 'true'}.items()),
        # After the include: the player, which publishes the images, has the profile set there.
        player,
        RegisterEventHandler(OnProcessExit(
            target_action=player, on_exit=[Shutdown(reason='the bag has ended')]))])
