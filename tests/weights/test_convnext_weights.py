"""ConvNeXt checkpoints of timm: the same numbers come out."""

import json
from pathlib import Path

import keras
import numpy as np
import pytest
from safetensors.numpy import save_file

from bigzoo import models

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "convnext.npz"
LOADED = np.load(GOLDEN)
IMAGE = LOADED["image"]
TOLERANCE = 2e-5


def tensors() -> dict[str, np.ndarray]:
    return {n.removeprefix("tensor/"): LOADED[n] for n in LOADED.files if n.startswith("tensor/")}


def write(folder: Path, change=dict, **more) -> Path:
    """A checkpoint as timm saves it; `change` may rename or drop tensors."""
    save_file(change(tensors()), folder / "model.safetensors")
    config = {**json.loads(str(LOADED["config"])), **more}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def load(folder: Path, **more):
    arguments = {"input_shape": (None, None, 3), "classifier_activation": None, **more}
    return models.convnext(weights=folder, **arguments)


def output(model, x=IMAGE) -> np.ndarray:
    return keras.ops.convert_to_numpy(model(x.astype("float32"), training=False))


def difference(ours: np.ndarray, theirs: np.ndarray) -> float:
    return float(np.abs(ours - theirs).max()) if ours.shape == theirs.shape else np.inf


@pytest.mark.parametrize("variant", [None, "micro"])
def test_outputs_equal_the_reference(variant, tmp_path):
    model = load(write(tmp_path), variant=variant)
    assert difference(output(model), LOADED["logits"]) < TOLERANCE


def test_features_equal_the_reference(tmp_path):
    model = load(write(tmp_path), num_classes=0)
    assert difference(output(model), LOADED["features"]) < TOLERANCE


def test_grey_images_equal_the_reference(tmp_path):
    model = load(write(tmp_path), input_shape=(None, None, 1))
    assert difference(output(model, IMAGE[..., :1]), LOADED["logits1"]) < TOLERANCE


def test_difference_sees_a_swap_and_a_shape():
    theirs = LOADED["logits"]
    assert difference(theirs, theirs) == 0
    assert difference(theirs[::-1], theirs) > 0.01
    assert difference(theirs[:1], theirs) == np.inf


def test_the_scale_of_a_branch_matters(tmp_path):
    """The reference is sensitive: LayerScale is a table of one row here, a vector there."""

    def rolled(state):
        name = "stages.2.blocks.1.gamma"
        return {**state, name: np.roll(state[name], 1)}

    assert difference(output(load(write(tmp_path, rolled))), LOADED["logits"]) > 1e-3


@pytest.mark.parametrize("num_classes", [None, 7])
def test_classifier_of_the_checkpoint_is_kept(num_classes, tmp_path):
    model = load(write(tmp_path), num_classes=num_classes)
    kernel = keras.ops.convert_to_numpy(model.get_layer("predictions").kernel)
    np.testing.assert_array_equal(kernel, tensors()["head.fc.weight"].T)


@pytest.mark.parametrize("arguments", [{"num_classes": 3}, {"num_outputs": 3}])
def test_another_number_of_classes_gets_a_new_layer(arguments, tmp_path):
    model = load(write(tmp_path), **arguments)
    assert model.output_shape == (None, 3)
    features = keras.Model(model.input, model.get_layer("head_norm").output)
    assert difference(output(features), LOADED["features"]) < TOLERANCE


@pytest.mark.parametrize("name", ["m.keras", "m.weights.h5"])
def test_own_formats_are_read(name, tmp_path):
    model = models.convnext("micro", num_classes=3, input_shape=(32, 32, 3))
    (model.save if name == "m.keras" else model.save_weights)(tmp_path / name)
    again = models.convnext("micro", input_shape=(32, 32, 3), weights=tmp_path / name)
    x = IMAGE[:, :32, :32]
    np.testing.assert_array_equal(output(again, x), output(model, x))


def without(part):
    return lambda state: {name: value for name, value in state.items() if part not in name}


def version2(state):
    """ConvNeXt V2 has a response normalisation instead of the scale of each branch."""
    more = {"stages.0.blocks.0.mlp.grn.weight": np.zeros(32, "float32")}
    return {**without(".gamma")(state), **more}


@pytest.mark.parametrize(
    ("change", "more", "arguments", "text"),
    [
        (version2, {}, {}, r"missing.*blocks\.0\.gamma for stage1_block0_gamma.*grn\.weight \(32,"),
        (without("stages.1.downsample.1.bias"), {}, {}, "for stage2_downsample_conv/bias"),
        (without("stages.0."), {}, {}, "doesn't fit the model 'convnext'"),
        (dict, {"architecture": "resnet18"}, {}, r"Use bz\.models\.resnet\(weights"),
        (dict, {}, {"variant": "base"}, "expected that of the checkpoint: variant 'micro'. Leave"),
    ],
)
def test_bad_checkpoint(change, more, arguments, text, tmp_path):
    folder = write(tmp_path, change, **more)
    with pytest.raises(ValueError, match=text):
        load(folder, **arguments)
