"""
Play a bag to the world model node, on the time of the bag.

    ros2 launch wm_ros replay.launch.py bag:=drive.mcap rig:=surround

Takes the arguments of world_model.launch.py too. For a run that gives the same forecasts every
time, whatever the load of the machine, use `wm_ros replay`. A bag that holds forecasts already
would play them between those of the node: `play_args:="--exclude-regex /world_model/.*"`, or what
`ros2 bag play --help` calls it on your distribution, leaves them out.
"""

import os
import shlex

from ament_index_python.packages import get_package_share_directory
from launch.actions import (
    DeclareLaunchArgument,
    ExecuteProcess,
    IncludeLaunchDescription,
    OpaqueFunction,
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
    'play_args': ('', 'More options of `ros2 bag play`, such as `--topics ...` or `--remap ...`.'),
}
#: What names a profile to Fast DDS 3, and to Fast DDS 2.
PROFILE_NAMES = 'FASTDDS_DEFAULT_PROFILES_FILE', 'FASTRTPS_DEFAULT_PROFILES_FILE'


def player(context):
    """Return the actions that play the bag, and end the launch with it."""
    value = {name: LaunchConfiguration(name).perform(context)
             for name in (*ARGUMENTS, 'fastdds_profile')}
    large = os.path.join(get_package_share_directory('wm_ros'), 'params',
                         'fastdds_large_messages.xml')
    old = os.environ.get('ROS_DISTRO') in ('humble', 'iron', 'jazzy')   # Fast DDS 2
    profiled = value['fastdds_profile'] == 'true' and not any(
        name in os.environ for name in PROFILE_NAMES)
    # It publishes the pictures, which overflow the shared memory of Fast DDS as it comes.
    play = ExecuteProcess(
        cmd=['ros2', 'bag', 'play', value['bag'], '--rate', value['rate'], '--delay',
             value['delay'], '--clock', value['clock_hz'], *shlex.split(value['play_args'])],
        additional_env={PROFILE_NAMES[old]: large} if profiled else {}, output='screen')
    return [play, RegisterEventHandler(OnProcessExit(
        target_action=play, on_exit=[Shutdown(reason='the bag has ended')]))]


def generate_launch_description():
    """Return the launch description of node and bag."""
    share = get_package_share_directory('wm_ros')
    return LaunchDescription([
        *(DeclareLaunchArgument(name, default_value=default, description=description)
          for name, (default, description) in ARGUMENTS.items()),
        IncludeLaunchDescription(
            PythonLaunchDescriptionSource(
                os.path.join(share, 'launch', 'world_model.launch.py')),
            launch_arguments={'use_sim_time': 'true'}.items()),
        # After the include, which declares `fastdds_profile`.
        OpaqueFunction(function=player)])
