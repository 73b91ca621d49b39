"""An artifact's graphs give back the model that they were exported from."""

import numpy as np
import pytest
import torch

from wm_ros.choices import Choices
from wm_ros.export.artifact import write_artifact
from wm_ros.export.weights import load_artifact_model
from wm_ros.model.config import PRESETS
from wm_ros.model.quant import Quantizer, _QuantWeight, fold_batch_norms
from wm_ros.model.world_model import WorldModel
from wm_ros.share import share_path


@pytest.fixture(scope='module')
def exported(tmp_path_factory):
    torch.manual_seed(3)
    model = WorldModel(PRESETS['tiny']).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)  # no two alike, none of them zero
    fold_batch_norms(model)
    for name, module in model.named_modules():
        if isinstance(module, Quantizer) and name.startswith(('encoder', 'lift', 'dynamics')):
            module.scale.fill_(0.01 + 0.1 * torch.rand(()).item())
            module.enabled.fill_(True)
            module.active = True
        if isinstance(module, _QuantWeight):
            module.update_weight_scale()
    folder = tmp_path_factory.mktemp('artifact')
    write_artifact(model, folder, Choices(), {})
    return model, folder


def test_every_weight_and_scale_comes_back(exported):
    model, folder = exported
    back = load_artifact_model(folder).state_dict()
    assert back.keys() == model.state_dict().keys()
    for name, value in model.state_dict().items():
        value, found = value.float().numpy(), back[name].float().numpy()
        step = np.abs(value).max() / 127 if 'weight' in name else np.abs(value).max() / 1000
        np.testing.assert_allclose(found, value, atol=0.6 * step + 1e-6, err_msg=name)


def test_loading_twice_changes_nothing(exported, tmp_path):
    _, folder = exported
    once = load_artifact_model(folder)
    write_artifact(load_artifact_model(folder), tmp_path, Choices(), {})
    twice = load_artifact_model(tmp_path).state_dict()
    for name, value in once.state_dict().items():
        assert torch.equal(value, twice[name]), name


def test_the_shipped_artifact_is_quantised_where_it_says():
    model = load_artifact_model(share_path('models', 'world-model'))
    active = {name.split('.')[0] for name, module in model.named_modules()
              if isinstance(module, Quantizer) and module.active}
    assert active == {'encoder', 'lift', 'dynamics'}
