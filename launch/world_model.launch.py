"""
Launch the world model node, which by default brings itself to the active state.

    ros2 launch wm_ros world_model.launch.py rig:=surround platform:=orin
"""

import os

from ament_index_python.packages import get_package_share_directory
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from launch import LaunchDescription

SHARE = get_package_share_directory('wm_ros')
YES_NO = ['true', 'false']
#: What names a profile to Fast DDS 3, and to Fast DDS 2.
PROFILE_NAMES = 'FASTDDS_DEFAULT_PROFILES_FILE', 'FASTRTPS_DEFAULT_PROFILES_FILE'

#: Name -> default, description and, where they are limited, the values that it takes.
ARGUMENTS = {
    'params_file': ('', 'Parameters of the node; empty: params/world_model.yaml of the package.'),
    'platform': ('', 'Overlay from params/ on top of params_file.',
                 ['', 'cpu', 'orin', 'orin_nx', 'thor', 'snapdragon']),
    'rig': ('', 'Cameras: surround, front, kitti, or the path of a rig file; empty: what '
            'params_file says.'),
    'backend': ('', 'Inference library; empty: what params_file says.'),
    'artifact': ('', 'Folder of the model; empty: what params_file says.'),
    'name': ('world_model', 'Name of the node.'),
    'namespace': ('', 'Namespace of the node and of its topics.'),
    'odometry_topic': ('odometry', 'Topic of nav_msgs/Odometry.'),
    'use_sim_time': ('false', 'Follow /clock.', YES_NO),
    'autostart': ('true', 'The node configures and activates itself; false: a lifecycle manager '
                  'does.', YES_NO),
    'respawn': ('false', 'Start the process again when it ends; one whose node did not become '
                'active has not ended.', YES_NO),
    'log_level': ('info', 'Level of the log: debug, info, warn, error or fatal.'),
    'fastdds_profile': ('true', 'The node uses params/fastdds_node.xml, unless the environment '
                        'names a profile of its own.', YES_NO),
}

#: Arguments that set a parameter; empty leaves what the parameter files say.
PARAMETERS = {'rig': 'rig_file', 'backend': 'backend', 'artifact': 'artifact'}


def rig_path(rig):
    """Return the path of a rig that comes with the package, or `rig` itself."""
    own = os.path.join(SHARE, 'params', 'rigs', f'{rig}.yaml')
    return own if os.path.isfile(own) else rig


def world_model(context):
    """Return the actions for the values that the arguments have."""
    value = {name: LaunchConfiguration(name).perform(context) for name in ARGUMENTS}
    value['rig'] = value['rig'] and rig_path(value['rig'])

    parameters = [value['params_file'] or os.path.join(SHARE, 'params', 'world_model.yaml')]
    if value['platform']:
        parameters.append(os.path.join(SHARE, 'params', f'{value["platform"]}.yaml'))
    parameters.append({parameter: value[argument] for argument, parameter in PARAMETERS.items()
                       if value[argument]})
    # The node drives its own lifecycle: a transition that this file asked for would be lost where
    # a respawned node is not yet told apart from the one that died.
    parameters.append({name: value[name] == 'true' for name in ('use_sim_time', 'autostart')})

    # Who publishes pictures beside it has the large one; the node's own segment is small.
    large = os.path.join(SHARE, 'params', 'fastdds_large_messages.xml')
    small = os.path.join(SHARE, 'params', 'fastdds_node.xml')
    others = {os.environ[name] for name in PROFILE_NAMES if name in os.environ} - {large}
    old = os.environ.get('ROS_DISTRO') in ('humble', 'iron', 'jazzy')   # Fast DDS 2
    profiled = value['fastdds_profile'] == 'true' and not others

    return [Node(
        package='wm_ros', executable='world_model', output='screen', emulate_tty=True,
        name=value['name'], namespace=value['namespace'], parameters=parameters,
        remappings=[('odometry', value['odometry_topic'])],
        respawn=value['respawn'] == 'true', respawn_delay=2.0,
        arguments=['--ros-args', '--log-level', value['log_level']],
        additional_env={PROFILE_NAMES[old]: small} if profiled else {})]


def generate_launch_description():
    """Return the launch description of the node."""
    return LaunchDescription([
        *(DeclareLaunchArgument(name, default_value=default, description=description,
                                choices=choices[0] if choices else None)
          for name, (default, description, *choices) in ARGUMENTS.items()),
        OpaqueFunction(function=world_model)])
