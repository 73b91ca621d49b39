"""From parameters to a warm predictor, and the few things the node asks of it beside its work."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from wm_ros.predictor import Predictor, PredictorSettings
from wm_ros.rig import load_rig
from wm_ros.ros.parameters import Settings
from wm_ros.runtime.artifact import Artifact, load_artifact
from wm_ros.runtime.backend import Backend, create_backend
from wm_ros.share import share_path
from wm_ros.types import CameraModel, CameraRig, EgoPlan, EgoState, Forecast, Frame, FrameSet

#: The model that is installed with the package.
DEFAULT_MODEL = ('models', 'world-model')


def rig_of(settings: Settings) -> CameraRig:
    """Return the cameras in use; raise ValueError naming the parameter that is wrong."""
    if not settings.rig_file:
        raise ValueError("parameter rig_file: want a YAML file with the cameras, got ''")
    rig = load_rig(Path(settings.rig_file).expanduser())
    names = tuple(name for name in settings.cameras if name) or rig.names
    unknown = [name for name in names if name not in rig.names]
    if unknown or len(set(names)) != len(names):
        raise ValueError(f'parameter cameras: want names of {settings.rig_file} '
                         f'({", ".join(rig.names)}), each once, got {", ".join(names)}')
    if len(settings.image_transport) not in (1, len(names)):
        raise ValueError(f'parameter image_transport: want 1 or {len(names)} words, '
                         f'got {len(settings.image_transport)}')
    return CameraRig(tuple(rig[name] for name in names), rig.name)


def topics_of(settings: Settings, cameras: tuple[str, ...]) -> dict[str, dict[str, str]]:
    """
    Return by parameter which topic each camera has, of those that are listened to.

    Raises ValueError where a pattern cannot be filled in or gives two cameras one topic.
    """
    forms = {camera: settings.transport_of(camera, cameras) for camera in cameras}
    users = {
        'camera_info_topic': cameras if settings.camera_info != 'ignore' else (),
        'image_topic': [camera for camera in cameras if forms[camera] == 'raw'],
        'compressed_topic': [camera for camera in cameras if forms[camera] == 'compressed']}
    found = {}
    for name, those in users.items():
        pattern = getattr(settings, name)
        try:
            found[name] = {camera: pattern.format(camera=camera) for camera in those}
        except (LookupError, ValueError, AttributeError) as err:
            raise ValueError(f'parameter {name}: want a topic with {{camera}} and no other '
                             f'braces, got {pattern!r}') from err
        if len(set(found[name].values())) != len(those):
            raise ValueError(f'parameter {name}: want {{camera}} in it for {len(those)} cameras, '
                             f'got {pattern!r}')
    return found


def artifact_path(settings: Settings) -> Path:
    """Return the folder of the model: the parameter, or the installed one."""
    if settings.artifact:
        return Path(settings.artifact).expanduser()
    try:
        return share_path(*DEFAULT_MODEL)
    except FileNotFoundError as err:
        raise ValueError(f"parameter artifact: want a folder with manifest.json, got '', and no "
                         f'model is installed: {err}') from err


def backend_options(settings: Settings) -> dict[str, Any]:
    """Return the options of the backend; raise ValueError where they are none."""
    if not settings.backend_options:
        return {}
    if settings.backend == 'auto':
        raise ValueError("parameter backend_options: want a backend by name beside it, got 'auto'")
    try:
        options = yaml.safe_load(settings.backend_options)
    except yaml.YAMLError as err:
        raise ValueError(f'parameter backend_options: no YAML: {err}') from err
    if not isinstance(options, dict):
        raise ValueError('parameter backend_options: want YAML such as {cache: /data/engines}, '
                         f'got {settings.backend_options!r}')
    return options


def predictor_settings(settings: Settings) -> PredictorSettings:
    """Return the parameters that are the predictor's."""
    score = settings.score_threshold
    return PredictorSettings(min_frames=settings.min_frames,
                             max_gap_periods=settings.max_gap_periods,
                             score_threshold=None if score < 0 else score)


class Engine:
    """
    A predictor with its backend: what one worker thread owns between configure and cleanup.

    Raises what `load_artifact`, `create_backend` and `Predictor` raise, naming found and wanted.
    """

    def __init__(self, settings: Settings, rig: CameraRig, clock_ns: Callable[[], int],
                 log: Callable[[str], None]) -> None:
        path = artifact_path(settings)
        log(f'loading {path}')
        self.artifact: Artifact = load_artifact(path)
        log(f'artifact {self.artifact.hash[:12]} is whole; compiling for {len(rig)} cameras')
        began = clock_ns()
        self.backend: Backend = create_backend(
            settings.backend, self.artifact, len(rig), threads=settings.threads,
            options=backend_options(settings), log=log)
        try:
            log(f'compiled and warm after {(clock_ns() - began) / 1e6:.0f} ms')
            self._predictor = Predictor(self.artifact, self.backend, rig,
                                        predictor_settings(settings), clock_ns=clock_ns)
        except BaseException:
            self.backend.close()
            raise
        self._settings = settings

    def encode(self, frames: FrameSet, ego: EgoState | None) -> None:
        """Make a camera set the newest of the window."""
        self._predictor.encode(frames, ego)

    def prepare(self, frame: Frame) -> None:
        """Begin to decode a frame that will come in a set; called from the executor's thread."""
        self._predictor.prepare(frame)

    def forecast(self, plan: EgoPlan | None = None) -> Forecast:
        """Return the forecast of the window; invalid without odometry where that is required."""
        forecast = self._predictor.forecast(plan)
        if self._settings.odometry == 'required' and not forecast.window.odometry:
            reasons = (*forecast.reasons, 'odometry: missing in the window, and it is required')
            forecast = replace(forecast, valid=False, reasons=reasons)
        return forecast

    def reset(self, reason: str) -> None:
        """Begin the window anew."""
        self._predictor.reset(reason)

    def change(self, settings: Settings) -> None:
        """Take new values of the parameters that may change."""
        self._settings = settings
        self._predictor.settings = predictor_settings(settings)

    def calibrate(self, rig: CameraRig, problems: Mapping[str, str]) -> None:
        """Take a calibration; the window begins anew only where a camera's has changed."""
        if not all(same_camera(a, b) for a, b in
                   zip(rig.cameras, self._predictor.rig.cameras, strict=True)):
            self._predictor.set_rig(rig)
        self._predictor.set_uncalibrated(problems)

    def close(self) -> None:
        """Free the decoding threads and the graphs."""
        self._predictor.close()
        self.backend.close()


def same_camera(a: CameraModel, b: CameraModel) -> bool:
    """Tell whether two calibrations of one camera are equal."""
    return ((a.width, a.height, tuple(a.distortion)) == (b.width, b.height, tuple(b.distortion))
            and np.array_equal(a.k, b.k)
            and np.array_equal(a.base_from_camera, b.base_from_camera))
