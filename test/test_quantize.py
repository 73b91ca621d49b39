"""Quantisation-aware training: nothing is lost on the way, and rounding errors are learnt away."""

import numpy as np
import pytest

torch = pytest.importorskip('torch', reason='training needs torch')

from tiny_run import make_run  # noqa: E402

from wm_ros.model.quant import (  # noqa: E402
    QuantConv2d,
    Quantizer,
    QuantLinear,
    fold_batch_norms,
    learn_scales,
    settle_scales,
)
from wm_ros.train import quantize as quantizing  # noqa: E402
from wm_ros.train.encode import calibration_frames, calibration_windows  # noqa: E402
from wm_ros.train.loop import load_model, notes_of, save_model  # noqa: E402
from wm_ros.train.match import map_gap  # noqa: E402

SETTINGS = quantizing.QuantizeSettings(steps=30, encoder_batch=1, dynamics_batch=1, rate=2e-3)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    folder = make_run(tmp_path_factory.mktemp('run'))
    with pytest.MonkeyPatch.context() as patch:     # fewer batches than a real run observes
        patch.setattr(quantizing, 'calibration_frames', lambda run: calibration_frames(run, 3))
        patch.setattr(quantizing, 'calibration_windows', lambda run: calibration_windows(run, 2))
        # In a net that never learnt anything, what is there would drown what is lost.
        patch.setattr(quantizing, 'MAP_WEIGHT', 1e5)
        patch.setattr(quantizing, 'SCALE_RATE', 80.0)
        coarsen(quantizing.post_training(folder))
        quantizing.quantize(folder, SETTINGS)
        yield folder


def coarsen(path):
    """Make the activation scales of a calibrated checkpoint four times too large."""
    notes, model = notes_of(path), load_model(path)
    for part in (model.encoder, model.lift):
        for module in part.modules():
            if isinstance(module, Quantizer):
                module.scale.mul_(4.0)
    save_model(model, path, notes)


@torch.no_grad()
def gap(model, folder):
    """Return how far a model's skip maps are from those of the run's float model."""
    teacher = load_model(folder / 'model.safetensors').eval()
    gaps = []
    for batch in calibration_frames(folder, 2):
        given = batch['images'], batch['index'], batch['weight']
        gaps.append(float(map_gap(model.eval().encode(*given)[1], teacher.encode(*given)[1])))
    return np.mean(gaps)


def test_int8_parts_are_quantised_and_the_rest_is_half(folder):
    model = load_model(folder / quantizing.QUANTIZED)
    on = {name for name, module in model.named_modules()
          if isinstance(module, Quantizer) and module.active}
    every = {name for name, module in model.named_modules() if isinstance(module, Quantizer)}
    assert on == every and len(on) > 15
    assert {name.split('.')[0] for name in on} == {'encoder', 'lift', 'dynamics'}
    for part in (model.bottleneck, model.decoder, model.agents):
        assert not any(isinstance(module, (QuantConv2d, QuantLinear)) for module in part.modules())
        for parameter in part.parameters():
            assert torch.equal(parameter, parameter.half().float())
    weight = model.lift.mix[0].conv
    high = weight.weight.abs().flatten(1).amax(1)
    assert ((high / 127 <= weight.weight_scale) & (weight.weight_scale <= 1.125 * high / 127)).all()
    assert all(torch.frexp(module.scale)[0] == 0.5 for part in (model.encoder, model.lift)
               for module in part.modules() if isinstance(module, Quantizer))


def test_training_takes_rounding_errors_away(folder):
    before = gap(load_model(folder / quantizing.POST_TRAINING), folder)
    after = gap(load_model(folder / quantizing.QUANTIZED), folder)
    assert after < 0.7 * before, (before, after)


def test_a_finished_run_is_taken_up_and_a_new_model_begins_anew(folder, tmp_path):
    written = load_model(folder / quantizing.QUANTIZED).state_dict()
    quantizing.quantize(folder, SETTINGS)       # nothing is left to do
    for name, value in load_model(folder / quantizing.QUANTIZED).state_dict().items():
        assert torch.equal(value, written[name]), name
    model = load_model(folder / 'model.safetensors')
    with torch.no_grad():
        model.decoder.centre.bias.add_(1.0)
    save_model(model, folder / 'model.safetensors', {'stage': 'window'})
    quantizing.quantize(folder, quantizing.QuantizeSettings(steps=1, encoder_batch=1,
                                                            dynamics_batch=1))
    assert quantizing.up_to_date(folder / quantizing.QUANTIZED)
    again = load_model(folder / quantizing.QUANTIZED).state_dict()['decoder.centre.bias']
    assert (again - written['decoder.centre.bias'] > 0.5).all()


def test_learnt_scales_end_as_plain_ones():
    layer = torch.nn.Sequential(QuantLinear(4, 3))
    x = torch.randn(64, 4)
    layer[0].input.observing = True
    layer(x)
    layer[0].input.finish()
    names = list(layer.state_dict())
    high = layer[0].input.scale.clone()
    learn_scales(layer)
    layer.train()
    optimiser = torch.optim.SGD([layer[0].input.log_scale], lr=0.1)
    layer(x).square().sum().backward()
    optimiser.step()
    settle_scales(layer)
    assert list(layer.state_dict()) == names
    assert layer[0].input.scale != high and layer[0].input.scale > 0


def test_folding_keeps_the_function_in_a_reloaded_checkpoint(folder, tmp_path):
    model = load_model(folder / 'model.safetensors').eval()
    batch = next(iter(calibration_frames(folder, 1)))
    given = batch['images'], batch['index'], batch['weight']
    with torch.no_grad():
        before = model.encode(*given)[1]
        fold_batch_norms(model)
        save_model(model, tmp_path / 'folded.safetensors', {})
        again = load_model(tmp_path / 'folded.safetensors').eval()
        torch.testing.assert_close(again.encode(*given)[1], before, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize('weights', ['float', 'post-training', 'quantized'])
def test_all_three_precisions_are_exported_to_be_compared(folder, tmp_path, weights):
    pytest.importorskip('onnx', reason='export needs onnx')
    from wm_ros.cli.main import main
    from wm_ros.export.weights import load_artifact_model
    from wm_ros.runtime.artifact import load_artifact
    out = tmp_path / 'artifact'
    assert main(['export', str(out), '--folder', str(folder), '--weights', weights]) == 0
    artifact = load_artifact(out)
    assert artifact.manifest['training']['weights'] == weights
    assert artifact.precision['encode'] == ('float32' if weights == 'float' else 'int8')
    model = load_artifact_model(out)
    assert any(module.active for module in model.modules()
               if isinstance(module, Quantizer)) == (weights != 'float')
    want = load_model(folder / {'float': 'model.safetensors', 'quantized': quantizing.QUANTIZED,
                                'post-training': quantizing.POST_TRAINING}[weights]).eval()
    batch = next(iter(calibration_frames(folder, 1)))
    given = batch['images'], batch['index'], batch['weight']
    with torch.no_grad():
        assert map_gap(model.encode(*given)[1], want.encode(*given)[1]) < 2e-3
