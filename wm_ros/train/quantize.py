"""
Quantisation-aware training: what INT8 costs is learnt away, under the FP32 student.

Norms are folded and scales calibrated first. Then two short stages, as training has two, with
every weight and activation of the INT8 parts rounded in the forward pass:

*encoder*: encoder and lift on single frames. Their maps are held to those of the FP32 encoder;
heads as in stage one ask beside it what is there.
*dynamics*: everything after the encoder on windows. Outputs are held to those of the FP32 model,
beside the losses of stage two.

Weight scales follow the weights; activation scales are learnt. What is left in float is rounded
to half precision at the end, as it will be stored.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from wm_ros.export.artifact import calibrate_dynamics, calibrate_encoder
from wm_ros.model.quant import (
    QuantConv2d,
    QuantLinear,
    fold_batch_norms,
    learn_scales,
    settle_scales,
)
from wm_ros.model.world_model import WorldModel
from wm_ros.train.encode import calibration_frames, calibration_windows
from wm_ros.train.loop import Schedule, fit, load_model, notes_of, save_model, tensors_of
from wm_ros.train.match import map_gap, output_gaps
from wm_ros.train.stages import Batches, FrameTrainer, WindowTrainer
from wm_ros.train.store import ClipStore
from wm_ros.train.targets import frame_sample, window_sample

#: What the commands write into a run's folder, beside `model.safetensors`.
POST_TRAINING, QUANTIZED = 'post_training.safetensors', 'quantized.safetensors'
#: Learning rate of activation scales (of their logarithm) over that of the weights.
SCALE_RATE = 5.0
#: Learning rate of the dynamics over that of the encoder.
DYNAMICS_RATE = 0.5
#: How much the FP32 maps count beside the losses of what is there.
MAP_WEIGHT = 100.0


@dataclass(frozen=True)
class QuantizeSettings:
    """Minutes and sizes of the two stages; `steps` bounds each of them."""

    seed: int = 0
    steps: int = 1_000_000
    encoder_minutes: float = 5.0
    encoder_batch: int = 4
    dynamics_minutes: float = 4.0
    dynamics_batch: int = 6
    call_minutes: float = float('inf')
    rate: float = 4e-4
    device: str = 'cpu'


def post_training(folder: Path) -> Path:
    """
    Fold and calibrate the model of a run, if that is not done; return the checkpoint.

    It has its quantisers enabled. What was made of another model goes.
    """
    path = folder / POST_TRAINING
    if up_to_date(path):
        return path
    for old in folder.glob('quantize_*'):
        old.unlink()
    model = load_model(folder / 'model.safetensors')
    if model.config.teacher:
        raise ValueError(f'{folder}: a teacher is not quantised, nor exported')
    fold_batch_norms(model)
    torch.manual_seed(0)
    calibrate_encoder(model, calibration_frames(folder))
    calibrate_dynamics(model, calibration_windows(folder))
    save_model(model, path, {'stage': 'post-training', 'model': hash_of(folder)})
    return path


def up_to_date(path: Path) -> bool:
    """Return whether a checkpoint is there and was made of the folder's float model as it is."""
    return path.exists() and notes_of(path)['model'] == hash_of(path.parent)


def hash_of(folder: Path) -> str:
    """Return the SHA-256 of a run's float model."""
    return hashlib.sha256((folder / 'model.safetensors').read_bytes()).hexdigest()


def quantize(folder: Path, settings: QuantizeSettings) -> Path:
    """Run both stages on a run's folder, taken up where they stopped; return the checkpoint."""
    model = load_model(post_training(folder))
    teacher = load_model(folder / 'model.safetensors').eval().requires_grad_(False)
    fold_batch_norms(teacher)
    teacher.to(settings.device)
    torch.manual_seed(settings.seed)
    encoder_stage(folder, model, teacher, settings)
    dynamics_stage(folder, model, teacher, settings)
    settle_scales(model)
    round_half(model)
    path = folder / QUANTIZED
    save_model(model.cpu(), path, {'stage': 'quantized', 'model': hash_of(folder)})
    return path


def encoder_stage(folder: Path, model: WorldModel, teacher: WorldModel,
                  settings: QuantizeSettings) -> None:
    """Tune encoder and lift of `model` in place, on frames."""
    trainer = FrameTrainer(model.config)
    # A distilled student's checkpoint has projections beside, which are not needed any more.
    lacking = trainer.load_state_dict({name: value for name, value
                                       in tensors_of(folder / 'frame.safetensors').items()
                                       if not name.startswith('project_')}, strict=False)
    # A run may have begun as one that had less of what no single frame has or asks for.
    unknown = [name for name in (*lacking.missing_keys, *lacking.unexpected_keys)
               if not name.startswith(('model.past.', 'model.agents.from_plan.',
                                       'model.agents.companions.',
                                       'model.agents.surroundings.'))]
    if unknown:
        raise ValueError(f'{folder / "frame.safetensors"}: want the weights of stage one of this '
                         f'model, got others from {unknown[0]} on')
    fold_batch_norms(trainer)
    trainer.model.encoder, trainer.model.lift = model.encoder, model.lift
    trainer.to(settings.device, memory_format=torch.channels_last)
    teacher.to(memory_format=torch.channels_last)
    learn_scales(model.encoder)
    learn_scales(model.lift)
    trainer.model.bottleneck.requires_grad_(False)
    trainer.model.dynamics.requires_grad_(False)
    batches = Batches(ClipStore(folder / 'frames'), frame_sample, settings.encoder_batch,
                      torch.device(settings.device), settings.seed + 2)

    def step(_: float) -> dict[str, torch.Tensor]:
        trainer.train()
        batch = batches.take()
        given = batch['images'], batch['index'], batch['weight']
        with torch.no_grad():
            want = teacher.encode(*given)
        memory, skip = trainer.model.encode(*given)
        return {'memory_map': MAP_WEIGHT * map_gap(memory, want[0]),
                'skip_map': MAP_WEIGHT * map_gap(skip, want[1]),
                **trainer.losses_of(memory, skip, batch)}

    tune(trainer, step, settings, settings.encoder_minutes, folder, 'quantize_encoder')


def dynamics_stage(folder: Path, model: WorldModel, teacher: WorldModel,
                   settings: QuantizeSettings) -> None:
    """Tune what follows the encoder of `model` in place, on windows."""
    trainer = WindowTrainer(model).to(settings.device)
    reference = WindowTrainer(teacher)
    learn_scales(model.dynamics)
    batches = Batches(ClipStore(folder / 'windows'), window_sample, settings.dynamics_batch,
                      torch.device(settings.device), settings.seed + 3)

    def step(_: float) -> dict[str, torch.Tensor]:
        trainer.train()
        batch = batches.take()
        with torch.no_grad():
            want = reference.outputs(batch)
        outputs = trainer.outputs(batch, want)
        gaps = {f'like_{name}': value
                for name, value in output_gaps(outputs, want, batch).items()}
        parts = trainer.losses_of(outputs, batch)
        del parts['motion']     # its head belongs to stage two and is not kept
        return {**gaps, 'like_states': map_gap(outputs['states'], want['states']), **parts}

    tune(trainer, step, settings, settings.dynamics_minutes, folder, 'quantize_dynamics',
         DYNAMICS_RATE)


def tune(trainer: nn.Module, step: Callable[[float], dict[str, torch.Tensor]],
         settings: QuantizeSettings, minutes: float, folder: Path, stage: str,
         rate: float = 1.0) -> None:
    """Fit what requires gradients: activation scales at a rate of their own, without decay."""
    free = [(name, p) for name, p in trainer.named_parameters() if p.requires_grad]
    groups = [{'params': [p for name, p in free if not name.endswith('log_scale')]},
              {'params': [p for name, p in free if name.endswith('log_scale')],
               'scale': SCALE_RATE, 'weight_decay': 0.0}]
    schedule = Schedule(steps=settings.steps, minutes=minutes, call_minutes=settings.call_minutes,
                        rate=settings.rate * rate, warmup=20)
    fit(trainer, step, schedule, folder, stage, groups)


@torch.no_grad()
def round_half(model: WorldModel) -> None:
    """Round float weights of the stages after the encoder to what half precision holds."""
    integer = {id(module.weight) for module in model.modules()
               if isinstance(module, (QuantConv2d, QuantLinear))}
    for part in (model.bottleneck, model.past, model.dynamics, model.decoder, model.agents):
        for parameter in part.parameters() if part is not None else ():
            if id(parameter) not in integer:
                parameter.copy_(parameter.half().float())
