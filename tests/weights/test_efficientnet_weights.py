"""EfficientNet checkpoints of timm: the same numbers come out, for both kinds of padding."""

import dataclasses
import json
from pathlib import Path

import keras
import numpy as np
import pytest
from safetensors.numpy import save_file

from bigzoo import models
from bigzoo.models.efficientnet import TINY, VARIANTS
from bigzoo.weights import open_checkpoint
from bigzoo.weights._efficientnet import with_timm_names

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "efficientnet.npz"
LOADED = np.load(GOLDEN)
IMAGE = LOADED["image"]
FORMS = ("tf", "torch", "tf_lite")
TOLERANCE = 5e-5
ANY_SIZE = (None, None, 3)


@pytest.fixture(autouse=True)
def lite_variant(monkeypatch):
    """The published "lite" sizes are too large for a stored checkpoint."""
    lite = dataclasses.replace(VARIANTS["tiny"], lite=True)
    monkeypatch.setitem(VARIANTS, "tiny_lite", lite)


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
    arguments = {"input_shape": ANY_SIZE, "classifier_activation": None, "weights": folder, **more}
    return models.efficientnet(**arguments)


def output(model, x=IMAGE) -> np.ndarray:
    return keras.ops.convert_to_numpy(model(x.astype("float32"), training=False))


def difference(ours: np.ndarray, theirs: np.ndarray) -> float:
    return float(np.abs(ours - theirs).max()) if ours.shape == theirs.shape else np.inf


@pytest.mark.parametrize("form", FORMS)
def test_outputs_equal_the_reference(form, tmp_path):
    folder = write(tmp_path, form)
    assert difference(output(load(folder)), LOADED[f"{form}/logits"]) < TOLERANCE


@pytest.mark.parametrize("form", FORMS)
def test_features_equal_the_reference(form, tmp_path):
    model = load(write(tmp_path, form), num_classes=0)
    assert model.output_shape == (None, 32)
    assert difference(output(model), LOADED[f"{form}/features"]) < TOLERANCE


@pytest.mark.parametrize("form", FORMS)
def test_grey_images_equal_the_reference(form, tmp_path):
    model = load(write(tmp_path, form), input_shape=(None, None, 1))
    assert difference(output(model, IMAGE[..., :1]), LOADED[f"{form}/grey_logits"]) < TOLERANCE


def test_difference_sees_a_swap_and_a_shape():
    theirs = LOADED["tf/logits"]
    assert difference(theirs, theirs) == 0
    assert difference(theirs[::-1], theirs) > 0.01
    assert difference(theirs[:1], theirs) == np.inf


@pytest.mark.parametrize(
    ("form", "padding"), [("tf", "symmetric"), ("torch", "same"), ("tf_lite", "symmetric")]
)
def test_the_other_padding_gives_other_numbers(form, padding, tmp_path):
    """Otherwise the tests above wouldn't tell whether the right one was chosen."""
    model = load(write(tmp_path, form), padding=padding)
    assert difference(output(model), LOADED[f"{form}/logits"]) > 100 * TOLERANCE


def test_without_an_architecture_the_padding_must_be_given(tmp_path):
    folder = write(tmp_path, "torch", architecture=None)
    text = "`padding` is None; expected 'same' or 'symmetric'.*tf_efficientnet_"
    with pytest.raises(ValueError, match=text):
        load(folder)
    model = load(folder, padding="symmetric")
    assert difference(output(model), LOADED["torch/logits"]) < TOLERANCE


@pytest.mark.parametrize("form", FORMS)
def test_mean_and_deviation_come_from_the_config(form, tmp_path):
    model = load(write(tmp_path, form))
    scaled = keras.Model(model.input, model.get_layer("preprocess").output)
    said = config(form)["pretrained_cfg"]
    wanted = (IMAGE / 255 - said["mean"]) / said["std"]
    np.testing.assert_allclose(output(scaled), wanted, atol=1e-5)


# --- the names of efficientnet_pytorch -------------------------------------------------------

OLD_NAMES = {
    "conv_stem": "_conv_stem",
    "bn1": "_bn0",
    "conv_head": "_conv_head",
    "bn2": "_bn1",
    "classifier": "_fc",
}
OLD_PARTS = [
    {"conv_dw": "_depthwise_conv", "bn1": "_bn1", "conv_pw": "_project_conv", "bn2": "_bn2"},
    *[
        {
            "conv_pw": "_expand_conv",
            "bn1": "_bn0",
            "conv_dw": "_depthwise_conv",
            "bn2": "_bn1",
            "conv_pwl": "_project_conv",
            "bn3": "_bn2",
        }
    ]
    * 2,
]
SQUEEZE = {"se.conv_reduce": "_se_reduce", "se.conv_expand": "_se_expand"}


def old_names(state: dict) -> dict:
    """As the package efficientnet_pytorch saves it: blocks counted through the stages."""
    blocks = ["blocks.0.0.", "blocks.1.0.", "blocks.1.1."]
    changed = {}
    for name, value in state.items():
        module, _, kind = name.rpartition(".")
        for number, start in enumerate(blocks):
            if name.startswith(start):
                parts = {**OLD_PARTS[number], **SQUEEZE}
                changed[f"_blocks.{number}.{parts[module.removeprefix(start)]}.{kind}"] = value
                break
        else:
            changed[f"{OLD_NAMES[module]}.{kind}"] = value
    return changed


@pytest.mark.parametrize("form", ["tf", "tf_lite"])
def test_old_names_are_read(form, tmp_path):
    """Without a config.json: the sizes and the padding come from the tensors."""
    file = tmp_path / "old.safetensors"
    save_file(old_names(tensors(form)), file)
    model = load(file)
    scaled = keras.Model(model.get_layer("preprocess").output, model.output)
    said = config(form)["pretrained_cfg"]
    x = (IMAGE / 255 - said["mean"]) / said["std"]
    assert difference(output(scaled, x), LOADED[f"{form}/logits"]) < TOLERANCE
    checkpoint = with_timm_names(open_checkpoint(file), [stage.depth for stage in TINY])
    assert set(checkpoint.tensors) == set(tensors(form))


# --- heads -----------------------------------------------------------------------------------


@pytest.mark.parametrize("num_classes", [None, 7])
def test_classifier_of_the_checkpoint_is_kept(num_classes, tmp_path):
    model = load(write(tmp_path, "tf"), num_classes=num_classes, classifier_activation="softmax")
    kernel = keras.ops.convert_to_numpy(model.get_layer("predictions").kernel)
    np.testing.assert_array_equal(kernel, tensors("tf")["classifier.weight"].T)
    logits = LOADED["tf/logits"]
    wanted = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    assert difference(output(model), wanted) < TOLERANCE


@pytest.mark.parametrize("arguments", [{"num_classes": 3}, {"num_outputs": 3}])
def test_another_number_of_classes_gets_a_new_layer(arguments, tmp_path):
    folder = write(tmp_path, "tf")
    model = load(folder, **arguments)
    assert model.output_shape == (None, 3)
    features = keras.Model(model.input, model.get_layer("global_pool").output)
    assert difference(output(features), LOADED["tf/features"]) < TOLERANCE


def test_own_formats_are_read(tmp_path):
    model = models.efficientnet("tiny", num_classes=3, input_shape=ANY_SIZE)
    model.save(tmp_path / "m.keras")
    model.save_weights(tmp_path / "m.weights.h5")
    for name in ("m.keras", "m.weights.h5"):
        again = models.efficientnet(
            "tiny", num_classes=3, input_shape=ANY_SIZE, weights=tmp_path / name
        )
        np.testing.assert_array_equal(output(again), output(model))


# --- bad checkpoints -------------------------------------------------------------------------


def without(name):
    return lambda state: {key: value for key, value in state.items() if name not in key}


def deeper(state):
    more = {
        name.replace("blocks.1.1", "blocks.1.2"): value
        for name, value in state.items()
        if "blocks.1.1" in name
    }
    return {**state, **more}


def transposed(state):
    name = "blocks.1.0.se.conv_reduce.weight"
    return {**state, name: np.ascontiguousarray(state[name].transpose(1, 0, 2, 3))}


@pytest.mark.parametrize(
    ("change", "more", "arguments", "text"),
    [
        (without("blocks.1.1.bn2.bias"), {}, {}, r"missing.*blocks\.1\.1\.bn2\.bias for stage2_"),
        (
            lambda state: {**state, "aux.weight": np.zeros((2, 3), "float32")},
            {},
            {},
            r"no weight for: aux\.weight \(2, 3\)",
        ),
        (transposed, {}, {}, r"of another shape: blocks\.1\.0\.se\.conv_reduce"),
        (deeper, {}, {}, r"expected a checkpoint of lite0, .*It has 4 blocks, and 8 first"),
        (without("conv_stem"), {}, {}, r"names of timm's tensors. It has no conv_stem\.weight"),
        (dict, {"architecture": "vit_tiny_patch16_224"}, {}, r"Use bz\.models\.vit"),
        (dict, {}, {"variant": "b0"}, r"`variant` is 'b0'; expected 'tiny', which the checkpoint"),
        (dict, {"pretrained_cfg": {"mean": [0.5], "std": [0]}}, {}, "std above 0"),
        (dict, {"pretrained_cfg": {"mean": "0.5"}}, {}, "'mean' is '0.5'; expected a number per"),
    ],
)
def test_bad_checkpoint(change, more, arguments, text, tmp_path):
    folder = write(tmp_path, "tf", change, **more)
    with pytest.raises(ValueError, match=text):
        load(folder, **arguments)
