"""ResNet and ConvNeXt against timm itself: real sizes, random weights."""

import json

import keras
import numpy as np
import pytest
from safetensors.numpy import save_file

from bigzoo import models

torch = pytest.importorskip("torch")
timm = pytest.importorskip("timm")

# Architecture -> (our function, parameters as timm counts them).
ARCHITECTURES = {
    "resnet18": (models.resnet, 11_689_512),
    "resnet50": (models.resnet, 25_557_032),
    "convnext_tiny": (models.convnext, 28_589_128),
}


def randomize(model) -> None:
    """Statistics and scales too; the last normalisation of a block small, so that depth is tame."""
    generator = torch.Generator().manual_seed(0)
    for name, tensor in model.state_dict().items():
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 1.5, generator=generator)
        elif name.endswith("gamma") or (tensor.ndim == 1 and name.endswith("weight")):
            tensor.uniform_(0.2, 0.8, generator=generator)
        elif tensor.ndim == 1:
            tensor.normal_(0, 0.1, generator=generator)


def count(model) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_outputs_and_parameters_equal_timms(architecture, tmp_path):
    function, parameters = ARCHITECTURES[architecture]
    torch.manual_seed(0)  # of the kernels, which `randomize` leaves
    theirs = timm.create_model(architecture).eval()
    assert count(theirs) == parameters
    randomize(theirs)
    state = {name: tensor.numpy() for name, tensor in theirs.state_dict().items()}
    save_file(state, tmp_path / "model.safetensors")
    config = {"architecture": architecture, "pretrained_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3}}
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    ours = function(weights=tmp_path, input_shape=(None, None, 3), classifier_activation=None)

    x = np.random.default_rng(0).integers(0, 256, (2, 63, 80, 3)).astype("float32")
    x[1] *= np.linspace(0, 1, 80)[:, None]
    with torch.no_grad():
        wanted = theirs(torch.from_numpy((x / 127.5 - 1).transpose(0, 3, 1, 2))).numpy()
    found = keras.ops.convert_to_numpy(ours(x, training=False))
    assert np.abs(wanted).max() < 10  # an absolute tolerance says something
    np.testing.assert_allclose(found, wanted, rtol=0, atol=2e-5)
    assert np.abs(wanted[0] - wanted[1]).max() > 1e-3
    assert sum(int(np.prod(w.shape)) for w in ours.trainable_weights) == parameters
