"""
Every parameter of the node, declared once as data.

The declarations in `PARAMETERS` give the ROS descriptors with their ranges, the checks, the
`Settings` that the node works with, the table in the README and `params/world_model.yaml`. Nothing
here imports ROS except the function that declares them on a node.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from wm_ros.window import TOLERANCE_NS

#: ROS has no typed empty string array in YAML; this stands for "not given".
NOT_GIVEN = ('',)


@dataclass(frozen=True)
class Declaration:
    """
    One parameter: its default fixes the type, `minimum` and `maximum` are inclusive bounds.

    `choices` are the words that a string (or each entry of a string array) may take. A parameter
    that is not `dynamic` is read-only once the node has started.
    """

    name: str
    default: bool | int | float | str | tuple[str, ...]
    text: str
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()
    dynamic: bool = False

    @property
    def kind(self) -> str:
        """Return the type as `ros2 param describe` words it."""
        return {bool: 'boolean', int: 'integer', float: 'double', str: 'string',
                tuple: 'string array'}[type(self.default)]

    def problem(self, value: Any) -> str | None:
        """Return why `value` is refused, naming bound and value, or None when it is good."""
        want = {bool: bool, int: int, float: float, str: str, tuple: (list, tuple)}[
            type(self.default)]
        if not isinstance(value, want) or isinstance(value, bool) != (self.kind == 'boolean'):
            return f'parameter {self.name}: want {self.kind}, got {value!r}'
        if self.kind == 'double' and not math.isfinite(value):
            return f'parameter {self.name}: want a finite number, got {value!r}'
        if self.kind == 'string array' and not all(isinstance(entry, str) for entry in value):
            return f'parameter {self.name}: want an array of strings, got {value!r}'
        if self.minimum is not None and value < self.minimum:
            return f'parameter {self.name}: want at least {self.minimum}, got {value!r}'
        if self.maximum is not None and value > self.maximum:
            return f'parameter {self.name}: want at most {self.maximum}, got {value!r}'
        entries = value if isinstance(value, (list, tuple)) else (value,)
        if self.choices and not set(entries) <= set(self.choices):
            return (f'parameter {self.name}: want one of {", ".join(self.choices)}, '
                    f'got {value!r}')
        return None


PARAMETERS = (
    Declaration('autostart', False,
                'Configure and activate without a lifecycle manager.'),
    # What runs.
    Declaration('artifact', '',
                'Folder of the model: manifest.json and three graphs. Empty: the model that is '
                'installed with the package.'),
    Declaration('backend', 'auto',
                'Inference library; auto takes the best one installed.',
                choices=('auto', 'openvino', 'onnxruntime', 'tensorrt', 'pytorch')),
    Declaration('backend_options', '',
                'Options of the backend that is named, as YAML: docs/backends.md lists them.'),
    Declaration('threads', 2,
                'Threads of the inference library; 0 lets it choose.', minimum=0, maximum=256),
    # Cameras.
    Declaration('rig_file', '',
                'YAML with the cameras, their poses in the base frame and their intrinsics.'),
    Declaration('cameras', NOT_GIVEN,
                "Cameras to use, in the model's order; [''] means all of the rig."),
    Declaration('image_transport', ('compressed',),
                'How images arrive: one word for all cameras, or one for each of `cameras`.',
                choices=('compressed', 'raw')),
    Declaration('image_topic', '{camera}/image_raw',
                'Topic of a raw image; {camera} is replaced.'),
    Declaration('compressed_topic', '{camera}/image_raw/compressed',
                'Topic of a compressed image; {camera} is replaced.'),
    Declaration('camera_info_topic', '{camera}/camera_info',
                'Topic of CameraInfo; {camera} is replaced.'),
    Declaration('camera_info', 'required',
                'Where intrinsics come from. required: CameraInfo alone, a camera without it stays '
                "out; optional: the rig's until CameraInfo comes; ignore: the rig's.",
                choices=('required', 'optional', 'ignore')),
    Declaration('extrinsics', 'auto',
                'Where camera poses come from. tf: TF; rig: the rig file; auto: TF where tf2_ros '
                'is installed and knows the camera, else the rig file.',
                choices=('auto', 'tf', 'rig')),
    Declaration('max_image_bytes', 33_554_432,
                'An image message with more bytes is refused before it is decoded.',
                minimum=1024, maximum=1_073_741_824),
    # Time.
    Declaration('sync_tolerance_ms', TOLERANCE_NS / 1e6,
                'Images of one set lie at most this far apart by stamp.', minimum=0.0,
                maximum=500.0),
    Declaration('set_deadline_ms', 60.0,
                'A set waits at most this long (steady clock, from its first image) for cameras '
                'that are missing; what comes later is dropped and counted.', minimum=1.0,
                maximum=2000.0),
    Declaration('odometry', 'optional',
                'required: no valid forecast without odometry; optional: a trained mask stands in '
                'for it; ignore: not subscribed.', choices=('required', 'optional', 'ignore')),
    Declaration('odometry_wait_ms', 20.0,
                'A complete set waits at most this long for odometry that reaches its stamp.',
                minimum=0.0, maximum=500.0),
    Declaration('plan_timeout_s', 1.0,
                'An ego plan whose stamp is older than this is not used.', minimum=0.0,
                maximum=60.0, dynamic=True),
    # Validity.
    Declaration('min_frames', 14,
                'A forecast with fewer of its 16 camera sets is invalid.', minimum=1, maximum=16,
                dynamic=True),
    Declaration('max_gap_periods', 2.0,
                'A forecast whose window has a longer step between two sets is invalid.',
                minimum=1.0, maximum=15.0, dynamic=True),
    # Output.
    Declaration('base_frame', 'base_link', 'Name of the vehicle frame.'),
    Declaration('odom_frame', 'odom', 'Name of the odometry frame, until odometry names it.'),
    Declaration('output_frame', 'base',
                'Frame of the forecasts: the vehicle frame frozen at the stamp, or odometry.',
                choices=('base', 'odom'), dynamic=True),
    Declaration('score_threshold', -1.0,
                "Agents below this existence probability are left out; -1 takes the artifact's.",
                minimum=-1.0, maximum=1.0, dynamic=True),
    Declaration('risk_horizon_s', 3.0,
                '~/risk_grid holds the highest risk from now to this time.', minimum=0.0,
                maximum=3.0, dynamic=True),
    Declaration('publish_occupancy', True, 'Publish ~/occupancy.', dynamic=True),
    Declaration('publish_flow', True, 'Publish ~/flow.', dynamic=True),
    Declaration('publish_grids', True, 'Publish ~/occupancy_grid and ~/risk_grid.', dynamic=True),
    Declaration('publish_markers', True, 'Publish ~/markers.', dynamic=True),
    Declaration('diagnostics_period_s', 1.0,
                'Time between two messages on /diagnostics; a change of level of a camera is sent '
                'at once.',
                minimum=0.1, maximum=60.0, dynamic=True),
)

BY_NAME: Mapping[str, Declaration] = {entry.name: entry for entry in PARAMETERS}

#: A name so near to one of ours (difflib's ratio) is a slip of it.
SLIP = 0.8
#: Parameters of a ROS node that are not ours.
FOREIGN_PREFIXES = ('qos_overrides.', 'use_sim_time', 'start_type_description_service')


@dataclass(frozen=True)
class Settings:
    """The values of all parameters at one instant, one field a declaration."""

    autostart: bool
    artifact: str
    backend: str
    backend_options: str
    threads: int
    rig_file: str
    cameras: tuple[str, ...]
    image_transport: tuple[str, ...]
    image_topic: str
    compressed_topic: str
    camera_info_topic: str
    camera_info: str
    extrinsics: str
    max_image_bytes: int
    sync_tolerance_ms: float
    set_deadline_ms: float
    odometry: str
    odometry_wait_ms: float
    plan_timeout_s: float
    min_frames: int
    max_gap_periods: float
    base_frame: str
    odom_frame: str
    output_frame: str
    score_threshold: float
    risk_horizon_s: float
    publish_occupancy: bool
    publish_flow: bool
    publish_grids: bool
    publish_markers: bool
    diagnostics_period_s: float

    def transport_of(self, camera: str, cameras: tuple[str, ...]) -> str:
        """Return 'compressed' or 'raw' for one of the `cameras` in use."""
        if len(self.image_transport) == 1:
            return self.image_transport[0]
        return self.image_transport[cameras.index(camera)]


def settings_from(values: Mapping[str, Any]) -> Settings:
    """
    Return the settings for `values`, defaults for what is not in it.

    Raises ValueError for an unknown name or a value out of bounds, naming all of them.
    """
    problems = problems_of(values) + [f'parameter {name}: unknown' for name in unknown(values)]
    if problems:
        raise ValueError('; '.join(problems))
    merged = {entry.name: values.get(entry.name, entry.default) for entry in PARAMETERS}
    return Settings(**{name: tuple(value) if isinstance(value, (list, tuple)) else value
                       for name, value in merged.items()})


def problems_of(values: Mapping[str, Any]) -> list[str]:
    """
    Return what is wrong with a set of values: one sentence for each name or value refused.

    A name that is none of ours is refused where it is nearly one of them. Others are left to
    `unknown`: parameters for all nodes of a stack reach this one too.
    """
    found = []
    for name, value in values.items():
        close = _close_to(name)
        if name in BY_NAME:
            found.append(BY_NAME[name].problem(value))
        elif close:
            found.append(f'parameter {name}: unknown; did you mean {close}?')
    return [problem for problem in found if problem]


def unknown(values: Mapping[str, Any]) -> list[str]:
    """Return the names that are neither ours nor ROS's own, nor nearly one of ours."""
    return [name for name in values if name not in BY_NAME
            and not name.startswith(FOREIGN_PREFIXES) and not _close_to(name)]


def _close_to(name: str) -> str:
    """Return the parameter that a name is a slip of, '' for none."""
    if name in BY_NAME or name.startswith(FOREIGN_PREFIXES):
        return ''
    return next(iter(difflib.get_close_matches(name, BY_NAME, n=1, cutoff=SLIP)), '')


def declare(node: Any) -> tuple[list[str], list[str]]:
    """
    Declare all parameters on a ROS node and return what was wrong with the values it was given.

    That is `problems_of` them, and the `unknown` names, which are passed over.

    A bad value never raises here: the default is declared in its place, and the caller refuses to
    configure with the sentences returned. A whole number is taken for a double.
    """
    from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
    from rclpy.parameter import Parameter

    given = getattr(node, '_parameter_overrides', {})
    for name, parameter in given.items():
        if name in BY_NAME and BY_NAME[name].kind == 'double' and type(parameter.value) is int:
            given[name] = Parameter(name, Parameter.Type.DOUBLE, float(parameter.value))
    overrides = {name: parameter.value for name, parameter in given.items()}
    for entry in PARAMETERS:
        bounds = entry.text
        if entry.choices:
            bounds += f' One of: {", ".join(entry.choices)}.'
        descriptor = ParameterDescriptor(description=bounds, read_only=not entry.dynamic)
        if entry.kind == 'integer' and entry.minimum is not None:
            descriptor.integer_range = [IntegerRange(
                from_value=int(entry.minimum), to_value=int(entry.maximum), step=0)]
        elif entry.kind == 'double' and entry.minimum is not None:
            descriptor.floating_point_range = [FloatingPointRange(
                from_value=entry.minimum, to_value=entry.maximum, step=0.0)]
        default = list(entry.default) if entry.kind == 'string array' else entry.default
        refused = entry.name in overrides and entry.problem(overrides[entry.name]) is not None
        node.declare_parameter(entry.name, default, descriptor, ignore_override=refused)
    return problems_of(overrides), unknown(overrides)


def read(node: Any) -> Settings:
    """Return the present settings of a node on which `declare` was called."""
    return settings_from({entry.name: node.get_parameter(entry.name).value
                          for entry in PARAMETERS})


def changed(settings: Settings, values: Mapping[str, Any]) -> Settings:
    """Return `settings` with new values, which have been checked before."""
    return replace(settings, **{name: tuple(value) if isinstance(value, list) else value
                                for name, value in values.items()})


def _bounds(entry: Declaration) -> str:
    if entry.choices:
        return ', '.join(entry.choices)
    if entry.minimum is not None:
        return f'{entry.minimum:g} to {entry.maximum:g}'
    return ''


def _yaml_value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return '[' + ', '.join(f"'{entry}'" for entry in value) + ']'
    return f"'{value}'" if isinstance(value, str) else repr(value)


def markdown_table() -> str:
    """Return the parameter table of the README, one row a declaration."""
    rows = ['| Parameter | Type | Default | Bounds | Changes while running | Meaning |',
            '|---|---|---|---|---|---|']
    for entry in PARAMETERS:
        rows.append(f'| `{entry.name}` | {entry.kind} | `{_yaml_value(entry.default)}` '
                    f'| {_bounds(entry)} | {"yes" if entry.dynamic else "no"} | {entry.text} |')
    return '\n'.join(rows) + '\n'


def default_yaml() -> str:
    """Return `params/world_model.yaml`: every parameter with its default and meaning."""
    lines = ['# Generated by `wm_ros params --yaml` from wm_ros/ros/parameters.py.',
             '/**:', '  ros__parameters:']
    for entry in PARAMETERS:
        bounds = _bounds(entry)
        lines.append(f'    # {entry.text}' + (f' ({bounds})' if bounds else ''))
        lines.append(f'    {entry.name}: {_yaml_value(entry.default)}')
    return '\n'.join(lines) + '\n'


# The dataclass gives the node typed attributes; it has to name exactly what is declared.
if tuple(field.name for field in fields(Settings)) != tuple(BY_NAME):
    raise TypeError('Settings and PARAMETERS differ: '
                    f'{sorted({field.name for field in fields(Settings)} ^ set(BY_NAME))}')
