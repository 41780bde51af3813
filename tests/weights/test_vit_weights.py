"""Vision Transformer checkpoints of timm: the same numbers come out, at other image sizes too."""

import json
from pathlib import Path

import keras
import numpy as np
import pytest
from safetensors.numpy import save_file

from bigzoo import models
from bigzoo.weights._vit import resize_grid

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "vit.npz"
LOADED = np.load(GOLDEN)
STATE = {name[7:]: LOADED[name] for name in LOADED.files if name.startswith("tensor/")}
CONFIG = json.loads(str(LOADED["config"]))
GRIDS = ("same", "larger", "smaller", "turned")
TOLERANCE = 2e-5


def write(folder: Path, change=dict, **more) -> Path:
    """A checkpoint as timm saves it; `change` may rename or drop tensors."""
    save_file(change(STATE), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({**CONFIG, **more}), encoding="utf-8")
    return folder


def load(folder: Path, **more):
    arguments = {"input_shape": (32, 32, 3), "classifier_activation": None, **more}
    return models.vit(weights=folder, **arguments)


def output(model, x=LOADED["same/image"]) -> np.ndarray:
    return keras.ops.convert_to_numpy(model(x.astype("float32"), training=False))


def difference(ours: np.ndarray, theirs: np.ndarray) -> float:
    return float(np.abs(ours - theirs).max()) if ours.shape == theirs.shape else np.inf


@pytest.mark.parametrize("grid", GRIDS)
def test_outputs_equal_the_reference(grid, tmp_path):
    x = LOADED[f"{grid}/image"]
    model = load(write(tmp_path), input_shape=x.shape[1:])
    assert difference(output(model, x), LOADED[f"{grid}/logits"]) < TOLERANCE


def test_features_equal_the_reference(tmp_path):
    model = load(write(tmp_path), num_classes=0)
    assert model.output_shape == (None, 16)
    assert difference(output(model), LOADED["same/features"]) < TOLERANCE


def test_grey_images_equal_the_reference(tmp_path):
    model = load(write(tmp_path), input_shape=(32, 32, 1))
    x = LOADED["same/image"][..., :1]
    assert difference(output(model, x), LOADED["same/grey_logits"]) < TOLERANCE


def test_difference_sees_a_swap_and_a_shape():
    theirs = LOADED["same/logits"]
    assert difference(theirs, theirs) == 0
    assert difference(theirs[::-1], theirs) > 0.01
    assert difference(theirs[:1], theirs) == np.inf


def test_positions_matter_in_the_reference(tmp_path):
    """Otherwise the test above wouldn't tell whether they were resized well."""

    def shifted(state):
        table = state["pos_embed"].copy()
        table[:, 1:] = np.roll(table[:, 1:], 1, axis=1)
        return {**state, "pos_embed": table}

    model = load(write(tmp_path, shifted))
    assert difference(output(model), LOADED["same/logits"]) > 100 * TOLERANCE


def test_resized_grid_keeps_a_constant_and_a_mirror_image():
    rng = np.random.default_rng(0)
    np.testing.assert_allclose(resize_grid(np.full((3, 5, 2), 4.0), (7, 2)), 4, rtol=1e-6)
    table = rng.normal(size=(6, 5, 3))
    resized = resize_grid(table, (4, 9))
    assert resized.shape == (4, 9, 3)
    np.testing.assert_allclose(resize_grid(table[::-1], (4, 9)), resized[::-1], atol=1e-6)
    np.testing.assert_array_equal(resize_grid(table, (6, 5)), table.astype("float32"))


def test_mean_and_deviation_come_from_the_config(tmp_path):
    model = load(write(tmp_path))
    scaled = keras.Model(model.input, model.get_layer("preprocess").output)
    said = CONFIG["pretrained_cfg"]
    wanted = (LOADED["same/image"] / 255 - said["mean"]) / said["std"]
    np.testing.assert_allclose(output(scaled), wanted, atol=1e-5)


# --- heads and sizes -------------------------------------------------------------------------


@pytest.mark.parametrize("num_classes", [None, 7])
def test_classifier_of_the_checkpoint_is_kept(num_classes, tmp_path):
    model = load(write(tmp_path), num_classes=num_classes, classifier_activation="softmax")
    kernel = keras.ops.convert_to_numpy(model.get_layer("predictions").kernel)
    np.testing.assert_array_equal(kernel, STATE["head.weight"].T)
    logits = LOADED["same/logits"]
    wanted = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    assert difference(output(model), wanted) < TOLERANCE


@pytest.mark.parametrize("arguments", [{"num_classes": 3}, {"num_outputs": 3}])
def test_another_number_of_classes_gets_a_new_layer(arguments, tmp_path):
    folder = write(tmp_path)
    model = load(folder, **arguments)
    assert model.output_shape == (None, 3)
    same = keras.Model(model.input, model.get_layer("norm").output)
    assert difference(output(same)[:, 0], LOADED["same/features"]) < TOLERANCE


def test_sizes_that_no_variant_has_come_from_the_checkpoint(tmp_path):
    def shallow(state):
        return {name: value for name, value in state.items() if "blocks.1" not in name}

    model = load(write(tmp_path, shallow))
    names = [layer.name for layer in model.layers]
    assert "layer0_attention" in names and "layer1_attention" not in names
    assert model.get_layer("layer0_attention").num_heads == 2
    with pytest.raises(ValueError, match="`variant` is 'micro'; expected that of the checkpoint"):
        load(tmp_path, variant="micro")


def test_own_formats_are_read(tmp_path):
    model = models.vit("micro", num_classes=3, input_shape=(32, 32, 3))
    model.save(tmp_path / "m.keras")
    model.save_weights(tmp_path / "m.weights.h5")
    for name in ("m.keras", "m.weights.h5"):
        again = models.vit("micro", num_classes=3, input_shape=(32, 32, 3), weights=tmp_path / name)
        np.testing.assert_array_equal(output(again), output(model))


# --- bad checkpoints -------------------------------------------------------------------------


def without(name):
    return lambda state: {key: value for key, value in state.items() if name not in key}


def with_scale(state):
    return {**state, "blocks.0.ls1.gamma": np.ones(16, "float32")}


def no_square(state):
    return {**state, "pos_embed": state["pos_embed"][:, :12].copy()}


@pytest.mark.parametrize(
    ("change", "more", "arguments", "text"),
    [
        (without("blocks.1.attn.qkv.bias"), {}, {}, r"missing.*blocks\.1\.attn\.qkv\.bias for"),
        (with_scale, {}, {}, r"no weight for: blocks\.0\.ls1\.gamma \(16,\)"),
        (no_square, {}, {}, r"of another shape: pos_embed \(1, 12, 16\) doesn't fit position_"),
        (dict, {"global_pool": "avg"}, {}, "its class token. Its config.json has global_pool"),
        (dict, {"model_args": {}}, {}, "`num_heads` is None; expected the number of heads"),
        (dict, {"model_args": {"num_heads": 3}}, {}, "`num_heads` is 3; .*a divisor of 16"),
        (dict, {"architecture": "resnet18"}, {}, r"Use bz\.models\.resnet"),
        (dict, {}, {"variant": "tiny16"}, "`variant` is 'tiny16'; .*variant 'micro'"),
        (dict, {}, {"input_shape": (32, 36, 3)}, r"`input_shape\[1\]` is 36; .*Use 32 or 40"),
        (without("patch_embed"), {}, {"variant": "micro"}, "missing.*patch_embed.proj.weight"),
    ],
)
def test_bad_checkpoint(change, more, arguments, text, tmp_path):
    folder = write(tmp_path, change, **more)
    with pytest.raises(ValueError, match=text):
        load(folder, **arguments)
