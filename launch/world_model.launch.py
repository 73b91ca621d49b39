"""
Launch the world model node and, by default, bring it to the active state.

    ros2 launch wm_ros world_model.launch.py rig:=surround platform:=orin
"""

import os

from ament_index_python.packages import get_package_share_directory
from launch import LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    EmitEvent,
    OpaqueFunction,
    RegisterEventHandler,
    SetEnvironmentVariable,
)
from launch.event_handlers import OnProcessStart
from launch.events import matches_action
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode
from launch_ros.event_handlers import OnStateTransition
from launch_ros.events.lifecycle import ChangeState
from lifecycle_msgs.msg import Transition

SHARE = get_package_share_directory('wm_ros')
YES_NO = ['true', 'false']
#: What names a profile to Fast DDS 3, and to Fast DDS 2.
PROFILE_NAMES = 'FASTDDS_DEFAULT_PROFILES_FILE', 'FASTRTPS_DEFAULT_PROFILES_FILE'

#: Name -> default, description and, where they are limited, the values that it takes.
ARGUMENTS = {
    'params_file': ('', 'Parameters of the node; empty: params/world_model.yaml of the package.'),
    'platform': ('', 'Overlay from params/ on top of params_file.',
                 ['', 'cpu', 'orin', 'orin_nx', 'thor', 'snapdragon']),
    'rig': ('', 'Cameras: surround, front, kitti, or the path of a rig file.'),
    'backend': ('', 'Inference library: openvino, onnxruntime, tensorrt or torch.'),
    'artifact': ('', 'Folder of the model.'),
    'name': ('world_model', 'Name of the node.'),
    'namespace': ('', 'Namespace of the node and of its topics.'),
    'odometry_topic': ('odometry', 'Topic of nav_msgs/Odometry.'),
    'use_sim_time': ('false', 'Follow /clock.', YES_NO),
    'autostart': ('true', 'Configure and activate the node; false: a lifecycle manager does.',
                  YES_NO),
    'respawn': ('false', 'Start the process again when it ends.', YES_NO),
    'log_level': ('info', 'Level of the log: debug, info, warn, error or fatal.'),
    'fastdds_profile': ('true', 'Use params/fastdds_large_messages.xml, unless the environment '
                        'names another profile.', YES_NO),
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
    # This file drives the node, or a lifecycle manager does; never both.
    parameters.append({'use_sim_time': value['use_sim_time'] == 'true', 'autostart': False})

    node = LifecycleNode(
        package='wm_ros', executable='world_model', output='screen', emulate_tty=True,
        name=value['name'], namespace=value['namespace'], parameters=parameters,
        remappings=[('odometry', value['odometry_topic'])],
        respawn=value['respawn'] == 'true', respawn_delay=2.0,
        arguments=['--ros-args', '--log-level', value['log_level']])
    actions = [node]

    if value['autostart'] == 'true':
        # At every start of the process, so that a respawned node comes back by itself.
        actions = [
            RegisterEventHandler(OnProcessStart(
                target_action=node,
                on_start=[change_state(node, Transition.TRANSITION_CONFIGURE)])),
            RegisterEventHandler(OnStateTransition(
                target_lifecycle_node=node, start_state='configuring', goal_state='inactive',
                entities=[change_state(node, Transition.TRANSITION_ACTIVATE)])),
            node]

    if value['fastdds_profile'] == 'true' and not any(name in os.environ for name in PROFILE_NAMES):
        old = os.environ.get('ROS_DISTRO') in ('humble', 'iron', 'jazzy')   # Fast DDS 2
        profile = os.path.join(SHARE, 'params', 'fastdds_large_messages.xml')
        actions.insert(0, SetEnvironmentVariable(PROFILE_NAMES[old], profile))
    return actions


def change_state(node, transition):
    """Return the action that asks `node` for a lifecycle transition."""
    return EmitEvent(event=ChangeState(
        lifecycle_node_matcher=matches_action(node), transition_id=transition))


def generate_launch_description():
    """Return the launch description of the node."""
    return LaunchDescription([
        *(DeclareLaunchArgument(name, default_value=default, description=description,
                                choices=choices[0] if choices else None)
          for name, (default, description, *choices) in ARGUMENTS.items()),
        OpaqueFunction(function=world_model)])
