"""bigzoo.models.vit: sizes against timm's, tokens, heads, bad input."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from bigzoo.models import vit
from bigzoo.models._registry import REGISTRY
from bigzoo.models.vit import VARIANTS

# With 1,000 classes, at 224 pixels: timm 1.0.31, vit_*_patch*_224; base16 also in torchvision.
TIMM = {
    "tiny16": 5_717_416,
    "small16": 22_050_664,
    "small32": 22_878_952,
    "base16": 86_567_656,
    "base32": 88_224_232,
    "large16": 304_326_632,
    "large32": 306_535_400,
}
SMALL = {"variant": "micro", "input_shape": (32, 32, 3), "num_classes": 3}


def _values(tensor) -> np.ndarray:
    return keras.ops.convert_to_numpy(tensor)


def _pixels(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape).astype("float32")


def counted(sizes, shape=(224, 224, 3), classes: int = 1000) -> int:
    """From the table of sizes alone, without Keras."""
    dim, mlp, patch = sizes.hidden_dim, sizes.mlp_dim, sizes.patch_size
    patches = (shape[0] // patch) * (shape[1] // patch)
    embed = (patch**2 * shape[2] + 1) * dim + dim + (patches + 1) * dim
    layer = 4 * (dim + 1) * dim + (dim + 1) * mlp + (mlp + 1) * dim + 4 * dim
    return embed + sizes.num_layers * layer + 2 * dim + (dim + 1) * classes


@pytest.mark.parametrize("variant", TIMM)
def test_sizes_have_the_parameters_of_timm(variant):
    assert counted(VARIANTS[variant]) == TIMM[variant]
    assert REGISTRY["vit"].parameters[variant] == TIMM[variant]


@pytest.mark.parametrize("variant", ["tiny16", "base16"])
def test_built_model_has_the_parameters_of_timm(variant):
    assert vit(variant).count_params() == TIMM[variant]


@pytest.mark.parametrize(
    ("variant", "shape", "classes"), [("micro", (32, 48, 1), 5), ("mini8", (64, 64, 3), 2)]
)
def test_parameters_of_small_sizes(variant, shape, classes):
    model = vit(variant, input_shape=shape, num_classes=classes)
    assert model.count_params() == counted(VARIANTS[variant], shape, classes)


def test_every_variant_is_registered():
    assert set(REGISTRY["vit"].variants) == set(VARIANTS) == {*TIMM, "mini8", "micro"}
    assert vit.__kwdefaults__["weights"] is None


# --- tokens ----------------------------------------------------------------------------------


def part(model, name: str, x: np.ndarray) -> np.ndarray:
    return _values(keras.Model(model.input, model.get_layer(name).output)(x))


def test_patches_are_in_rows_and_the_class_token_is_first():
    model = vit(**{**SMALL, "input_shape": (16, 24, 3)})
    x = _pixels(2, 16, 24, 3)
    grid = part(model, "patch_embedding", x)
    assert grid.shape == (2, 2, 3, 16)
    tokens = part(model, "tokens", x)
    assert tokens.shape == (2, 7, 16)
    np.testing.assert_array_equal(tokens[:, 1 + 3], grid[:, 1, 0])
    token = _values(model.get_layer("class_token").embeddings)
    np.testing.assert_array_equal(tokens[:, 0], np.repeat(token, 2, axis=0))
    places = part(model, "embeddings", x) - tokens
    table = _values(model.get_layer("position_embedding").embeddings)
    np.testing.assert_allclose(places, np.stack([table] * 2), atol=1e-6)


def test_one_patch_sees_only_its_own_pixels():
    model = vit(**SMALL)
    x = _pixels(1, 32, 32, 3)
    other = x.copy()
    other[0, 8:16, 16:24] = 0  # row 1, column 2 of 4 x 4
    changed = (part(model, "tokens", x) != part(model, "tokens", other)).any(axis=(0, 2))
    assert np.flatnonzero(changed).tolist() == [1 + 4 + 2]


def test_attention_mixes_the_patches():
    model = vit(**SMALL)
    x = _pixels(1, 32, 32, 3)
    other = x.copy()
    other[0, :8, :8] = 0
    changed = part(model, "layer0_attention", x) != part(model, "layer0_attention", other)
    assert changed.any(axis=(0, 2)).all()


def test_attention_kernels_start_as_wide_as_dense_ones():
    """Keras' own initialiser takes their shape for a convolution's, and starts them far smaller."""
    keras.utils.set_random_seed(0)
    model = vit("mini8", input_shape=(64, 64, 3), num_classes=2)
    attention = model.get_layer("layer0_attention")
    wanted = np.sqrt(2 / (128 + 128))  # Glorot's standard deviation
    kernels = [attention.query_dense, attention.value_dense, attention.output_dense]
    for dense in kernels:
        assert _values(dense.kernel).std() == pytest.approx(wanted, rel=0.02)
    assert not np.array_equal(_values(kernels[0].kernel), _values(kernels[1].kernel))


def test_norms_have_the_epsilon_of_the_paper():
    norms = [x for x in vit(**SMALL).layers if isinstance(x, keras.layers.LayerNormalization)]
    assert len(norms) == 5
    assert {norm.epsilon for norm in norms} == {1e-6}


def test_pixels_go_from_minus_one_to_one():
    x = np.zeros((1, 32, 32, 1), "uint8")
    x[0, 1:] = 255
    values = part(vit(**{**SMALL, "input_shape": (32, 32, 1)}), "preprocess", x)
    np.testing.assert_allclose(values[0, 0], -1, atol=1e-6)
    np.testing.assert_allclose(values[0, 1:], 1, atol=1e-6)


def test_image_data_format_of_keras_is_not_used():
    keras.config.set_image_data_format("channels_first")
    model = vit(**{**SMALL, "input_shape": (32, 40, 3)})
    assert model.get_layer("patch_embedding").output.shape[1:] == (4, 5, 16)


# --- dropout and heads -----------------------------------------------------------------------


def test_dropout_is_after_each_dense_layer_and_the_embeddings():
    def dropouts(**more):
        layers = vit(**SMALL, **more).layers
        return {x.name: x.rate for x in layers if isinstance(x, keras.layers.Dropout)}

    assert dropouts() == {}
    found = dropouts(dropout=0.3)
    assert len(found) == 1 + 2 * 3
    assert set(found.values()) == {0.3}
    assert dropouts(drop_path=0.5) == {
        "layer1_attention_drop_path": 0.5,
        "layer1_mlp_drop_path": 0.5,
    }


@pytest.mark.parametrize(
    ("arguments", "units", "activation"),
    [
        ({}, 1000, "softmax"),
        ({"num_classes": 2, "classifier_activation": "sigmoid"}, 1, "sigmoid"),
        ({"num_classes": 4, "classifier_activation": None}, 4, "linear"),
        ({"num_outputs": 2}, 2, "linear"),
    ],
)
def test_heads(arguments, units, activation):
    model = vit("micro", input_shape=(32, 32, 3), **arguments)
    assert model.output_shape == (None, units)
    assert model.layers[-1].activation.__name__ == activation


def test_headless_features_are_the_normalised_class_token_in_float32():
    model = vit("micro", input_shape=(32, 32, 3), num_classes=0, dtype="mixed_bfloat16")
    assert model.output_shape == (None, 16)
    assert model.output.dtype == "float32"
    x = _pixels(2, 32, 32, 3)
    values = _values(model(x))
    np.testing.assert_allclose(values.mean(axis=1), 0, atol=0.02)
    np.testing.assert_allclose(values.std(axis=1), 1, atol=0.02)


# --- bad input -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"variant": "base8"}, ValueError, "`variant` is 'base8'.*Did you mean 'base"),
        ({"variant": 16}, TypeError, "`variant` is 16; expected one of 'tiny16'"),
        ({"input_shape": (30, 32, 3)}, ValueError, r"`input_shape\[0\]` is 30; .*Use 24 or 32"),
        ({"input_shape": (32, 7, 3)}, ValueError, r"`input_shape\[1\]` is 7; .*Use 8\."),
        ({"input_shape": (None, 32, 3)}, ValueError, r"is None; .*height and width must be fixed"),
        ({"input_shape": (3, 64, 64)}, ValueError, "channels first"),
        ({"num_classes": 1}, ValueError, "`num_classes` is 1; .*keep num_classes=2"),
        ({"dropout": 1}, ValueError, r"`dropout` is 1; expected"),
        ({"drop_path": "much"}, TypeError, "`drop_path` is 'much'; expected"),
        ({"weights": "no/such/folder"}, FileNotFoundError, "`weights` is 'no/such/folder'"),
    ],
)
def test_bad_arguments(arguments, error, text):
    with pytest.raises(error, match=text):
        vit(**{"variant": "micro", "input_shape": (32, 32, 3), **arguments})
