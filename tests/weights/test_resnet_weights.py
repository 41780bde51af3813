"""ResNet checkpoints of timm: the same numbers come out, for both kinds of block."""

import json
from pathlib import Path

import keras
import numpy as np
import pytest
from safetensors.numpy import save_file

from bigzoo import models

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "resnet.npz"
LOADED = np.load(GOLDEN)
IMAGE = LOADED["image"]
FORMS = ("basic", "bottleneck")
TOLERANCE = 2e-5


def tensors(form: str) -> dict[str, np.ndarray]:
    start = f"{form}/tensor/"
    return {name.removeprefix(start): LOADED[name] for name in LOADED.files if start in name}


def config(form: str) -> dict:
    return json.loads(str(LOADED[f"{form}/config"]))


def write(folder: Path, form: str, change=dict, **more) -> Path:
    """A checkpoint as timm saves it; `change` may rename or drop tensors."""
    save_file(change(tensors(form)), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({**config(form), **more}), encoding="utf-8")
    return folder


def load(folder: Path, **more):
    arguments = {"input_shape": (None, None, 3), "classifier_activation": None, **more}
    return models.resnet(weights=folder, **arguments)


def output(model, x=IMAGE) -> np.ndarray:
    return keras.ops.convert_to_numpy(model(x.astype("float32"), training=False))


def difference(ours: np.ndarray, theirs: np.ndarray) -> float:
    return float(np.abs(ours - theirs).max()) if ours.shape == theirs.shape else np.inf


@pytest.mark.parametrize("form", FORMS)
def test_outputs_equal_the_reference(form, tmp_path):
    assert difference(output(load(write(tmp_path, form))), LOADED[f"{form}/logits"]) < TOLERANCE


@pytest.mark.parametrize("form", FORMS)
def test_features_equal_the_reference(form, tmp_path):
    model = load(write(tmp_path, form), num_classes=0)
    assert difference(output(model), LOADED[f"{form}/features"]) < TOLERANCE


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("channels", [1, 4])
def test_other_channels_equal_the_reference(form, channels, tmp_path):
    model = load(write(tmp_path, form), input_shape=(None, None, channels))
    pixels = np.concatenate([IMAGE, IMAGE], axis=-1)[..., :channels]
    assert difference(output(model, pixels), LOADED[f"{form}/logits{channels}"]) < TOLERANCE


def test_difference_sees_a_swap_and_a_shape():
    theirs = LOADED["basic/logits"]
    assert difference(theirs, theirs) == 0
    assert difference(theirs[::-1], theirs) > 0.01
    assert difference(theirs[:1], theirs) == np.inf


@pytest.mark.parametrize("form", FORMS)
def test_every_tensor_matters(form, tmp_path):
    """The reference is sensitive: a changed statistic of the last normalisation shows."""

    def shift(state):
        name = "layer4.0.downsample.1.running_mean"
        return {**state, name: state[name] + 0.1}

    assert difference(output(load(write(tmp_path, form, shift))), LOADED[f"{form}/logits"]) > 1e-3


def test_a_file_without_config_takes_imagenets_pixels(tmp_path):
    file = tmp_path / "x.safetensors"
    save_file(tensors("basic"), file)
    model = load(file)
    scaled = keras.Model(model.input, model.get_layer("preprocess").output)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    np.testing.assert_allclose(output(scaled), (IMAGE / 255 - mean) / std, atol=1e-5)


@pytest.mark.parametrize("num_classes", [None, 7])
def test_classifier_of_the_checkpoint_is_kept(num_classes, tmp_path):
    model = load(write(tmp_path, "basic"), num_classes=num_classes, classifier_activation="softmax")
    logits = LOADED["basic/logits"]
    wanted = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    assert difference(output(model), wanted) < TOLERANCE


@pytest.mark.parametrize("arguments", [{"num_classes": 3}, {"num_outputs": 3}])
def test_another_number_of_classes_gets_a_new_layer(arguments, tmp_path):
    model = load(write(tmp_path, "basic"), **arguments)
    assert model.output_shape == (None, 3)
    features = keras.Model(model.input, model.get_layer("global_pool").output)
    assert difference(output(features), LOADED["basic/features"]) < TOLERANCE


def test_a_checkpoint_without_a_classifier_is_read(tmp_path):
    def headless(state):
        return {name: value for name, value in state.items() if not name.startswith("fc.")}

    model = load(write(tmp_path, "basic", headless))
    assert model.output_shape == (None, 1000)
    features = keras.Model(model.input, model.get_layer("global_pool").output)
    assert difference(output(features), LOADED["basic/features"]) < TOLERANCE


@pytest.mark.parametrize("name", ["m.keras", "m.weights.h5"])
def test_own_formats_are_read(name, tmp_path):
    model = models.resnet("tiny", num_classes=3, input_shape=(32, 32, 3))
    (model.save if name == "m.keras" else model.save_weights)(tmp_path / name)
    again = models.resnet("tiny", input_shape=(32, 32, 3), weights=tmp_path / name)
    x = IMAGE[:, :32, :32]
    np.testing.assert_array_equal(output(again, x), output(model, x))


# --- bad checkpoints -------------------------------------------------------------------------


def without(part):
    return lambda state: {name: value for name, value in state.items() if part not in name}


def squeeze(state):
    return {**state, "layer1.0.se.fc1.weight": np.zeros((2, 8, 1, 1), "float32")}


def transposed(state):
    name = "layer3.0.conv1.weight"
    return {**state, name: np.ascontiguousarray(state[name].transpose(1, 0, 2, 3))}


@pytest.mark.parametrize(
    ("change", "more", "arguments", "text"),
    [
        (without("layer1.0.bn1.bias"), {}, {}, r"missing.*layer1\.0\.bn1\.bias for stage1_block0_"),
        (squeeze, {}, {}, r"no weight for: layer1\.0\.se\.fc1\.weight \(2, 8, 1, 1\)"),
        (transposed, {}, {}, r"layer3\.0\.conv1\.weight .*doesn't fit stage3_block0_1_conv"),
        (without("conv1."), {}, {}, "doesn't fit the model 'resnet'"),
        (dict, {"architecture": "convnext_tiny"}, {}, r"Use bz\.models\.convnext\(weights"),
        (dict, {"architecture": "resnet50d"}, {}, "'resnet50d'; expected one for 'resnet'"),
        (
            dict,
            {},
            {"variant": "18"},
            r"`variant` is '18'; expected that of the checkpoint: sizes of its own, block=basic",
        ),
        (dict, {}, {"variant": "51"}, "`variant` is '51'.*Did you mean '50'"),
        (dict, {"pretrained_cfg": {"mean": "0.5"}}, {}, "'mean' is '0.5'; expected a number per"),
    ],
)
def test_bad_checkpoint(change, more, arguments, text, tmp_path):
    folder = write(tmp_path, "basic", change, **more)
    with pytest.raises(ValueError, match=text):
        load(folder, **arguments)
