"""bigzoo.models.convnext: parameters, structure, heads, bad input."""

from __future__ import annotations

import itertools

import keras
import numpy as np
import pytest

from bigzoo.models import convnext
from bigzoo.models._registry import REGISTRY
from bigzoo.models.convnext import VARIANTS, Sizes

# Parameters with 1,000 classes, as torchvision publishes them:
# https://docs.pytorch.org/vision/stable/models.html (num_params).
PUBLISHED = {
    "tiny": 28_589_128,
    "small": 50_223_688,
    "base": 88_591_464,
    "large": 197_767_336,
}
SHAPE = (32, 32, 3)


def _values(tensor) -> np.ndarray:
    return keras.ops.convert_to_numpy(tensor)


def _pixels(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape).astype("float32")


def parameters(sizes: Sizes, channels: int = 3, classes: int = 1000) -> int:
    """From the sizes alone."""
    widths = sizes.widths
    total = (16 * channels + 1) * widths[0] + 2 * widths[0]
    for before, width in itertools.pairwise(widths):
        total += 2 * before + (4 * before + 1) * width
    for width, depth in zip(widths, sizes.depths, strict=True):
        mlp = (width + 1) * 4 * width + (4 * width + 1) * width
        total += depth * ((49 + 1) * width + 2 * width + mlp + width)
    return total + 2 * widths[-1] + (widths[-1] + 1) * classes


@pytest.mark.parametrize("variant", PUBLISHED)
def test_sizes_give_the_published_number_of_parameters(variant):
    assert parameters(VARIANTS[variant]) == PUBLISHED[variant]
    assert REGISTRY["convnext"].parameters[variant] == PUBLISHED[variant]


@pytest.mark.parametrize("variant", ["tiny", "micro"])
def test_models_have_the_parameters_of_their_sizes(variant):
    assert convnext(variant).count_params() == parameters(VARIANTS[variant])


@pytest.mark.large
@pytest.mark.parametrize("variant", ["small", "base"])
def test_large_models_have_the_parameters_of_their_sizes(variant):
    assert convnext(variant).count_params() == PUBLISHED[variant]


def test_channels_and_classes_change_the_ends_alone():
    model = convnext("micro", input_shape=(40, 33, 5), num_classes=4)
    assert model.count_params() == parameters(VARIANTS["micro"], 5, 4)


def test_default_is_tiny():
    names = {layer.name for layer in convnext(input_shape=SHAPE).layers}
    assert {"stage3_block8_add", "stage4_block2_add"} <= names
    assert "stage3_block9_add" not in names


def test_branches_start_at_the_layer_scale():
    model = convnext("tiny", input_shape=SHAPE)
    gamma = _values(model.get_layer("stage1_block0_gamma").embeddings)
    np.testing.assert_array_equal(gamma, np.full((1, 96), 1e-6, "float32"))


def test_gelu_is_the_exact_one():
    model = convnext("micro", input_shape=SHAPE)
    gelu = model.get_layer("stage1_block0_gelu")
    # erf: 0.8413447; the tanh approximation gives 0.8411920.
    assert float(_values(gelu(np.ones((1, 1), "float32")))[0, 0]) == pytest.approx(
        0.8413447, abs=1e-6
    )


def test_images_of_any_size():
    free = convnext("micro", input_shape=(None, None, 3))
    fixed = convnext("micro", input_shape=(70, 33, 3))
    free.set_weights(fixed.get_weights())
    x = _pixels(2, 70, 33, 3)
    np.testing.assert_allclose(_values(free(x)), _values(fixed(x)), rtol=1e-5, atol=1e-6)


def test_drop_path_grows_and_leaves_out_whole_branches():
    model = convnext("micro", input_shape=SHAPE, drop_path=0.8)
    drops = [layer for layer in model.layers if isinstance(layer, keras.layers.Dropout)]
    # The first block is never left out.
    assert [layer.rate for layer in drops] == pytest.approx([0.2, 0.4, 0.6, 0.8])
    kept = _values(drops[-1](np.ones((64, 2, 2, 3), "float32"), training=True))
    assert len(np.unique(kept.reshape(64, -1).std(axis=1))) == 1  # all of an image, or nothing
    assert 0 < (kept[:, 0, 0, 0] == 0).mean() < 1
    plain = convnext("micro", input_shape=SHAPE)
    assert not any(isinstance(layer, keras.layers.Dropout) for layer in plain.layers)


@pytest.mark.parametrize(
    ("arguments", "shape", "activation"),
    [
        ({}, (None, 1000), "softmax"),
        ({"num_classes": 2, "classifier_activation": "sigmoid"}, (None, 1), "sigmoid"),
        ({"num_classes": 4, "classifier_activation": None}, (None, 4), "linear"),
        ({"num_outputs": 3}, (None, 3), "linear"),
    ],
)
def test_heads(arguments, shape, activation):
    model = convnext("micro", input_shape=SHAPE, **arguments)
    assert model.output_shape == shape
    assert model.layers[-1].activation.__name__ == activation


def test_without_a_head_features_come_out_in_float32():
    model = convnext("micro", input_shape=SHAPE, dtype="mixed_bfloat16", num_classes=0, dropout=0.5)
    assert model.output_shape == (None, 16)
    assert model.layers[-1].name == "head_norm"
    assert _values(model(_pixels(1, *SHAPE))).dtype == "float32"


def test_image_data_format_of_keras_is_not_used():
    keras.config.set_image_data_format("channels_first")
    model = convnext("micro", input_shape=(32, 64, 3))
    assert model.get_layer("global_pool").input.shape[1:] == (1, 2, 16)


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"variant": "basic"}, ValueError, "`variant` is 'basic'.*Did you mean 'base'"),
        ({"input_shape": (31, 64, 3)}, ValueError, r"`input_shape\[0\]` is 31; .*at least 32"),
        ({"num_classes": 3, "num_outputs": 1}, ValueError, "expected None with num_outputs"),
        ({"drop_path": 1}, ValueError, "`drop_path` is 1; expected"),
        ({"dropout": "no"}, TypeError, "`dropout` is 'no'; expected"),
    ],
)
def test_bad_arguments(arguments, error, text):
    with pytest.raises(error, match=text):
        convnext(**{"variant": "micro", "input_shape": SHAPE, **arguments})
