"""bigzoo.models.efficientnet: sizes against timm's, padding, heads, bad input."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from bigzoo.models import efficientnet
from bigzoo.models._registry import REGISTRY
from bigzoo.models.efficientnet import VARIANTS, round_width

# Trainable parameters with 1,000 classes: timm 1.0.31, tf_efficientnet_*; the paper's Table 2
# rounds them to 5.3, 7.8, 9.2, 12, 19, 30, 43 and 66 million.
TIMM = {
    "lite0": 4_652_008,
    "lite1": 5_416_680,
    "lite2": 6_092_072,
    "lite3": 8_197_096,
    "lite4": 13_006_568,
    "b0": 5_288_548,
    "b1": 7_794_184,
    "b2": 9_109_994,
    "b3": 12_233_232,
    "b4": 19_341_616,
    "b5": 30_389_784,
    "b6": 43_040_704,
    "b7": 66_347_960,
}
SMALL = {"variant": "tiny", "input_shape": (32, 32, 3), "num_classes": 3}


def _values(tensor) -> np.ndarray:
    return keras.ops.convert_to_numpy(tensor)


def _pixels(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape).astype("float32")


def counted(sizes, channels: int = 3, classes: int = 1000) -> tuple[int, int]:
    """(trainable parameters, statistics of normalisations), from the table of sizes alone."""
    kernels, norms, before = 9 * channels * sizes.scaled_stem_width, 0, sizes.scaled_stem_width
    norms += before
    for stage in sizes.scaled_stages:
        for _ in range(stage.depth):
            inside = before * stage.expansion
            if stage.expansion > 1:
                kernels += before * inside
                norms += inside
            kernels += stage.kernel_size**2 * inside + inside * stage.width
            norms += inside + stage.width
            if not sizes.lite:
                squeezed = before // 4
                kernels += 2 * inside * squeezed + inside + squeezed
            before = stage.width
    last = sizes.scaled_last_width
    kernels += before * last + (last + 1) * classes
    norms += last
    return kernels + 2 * norms, 2 * norms


@pytest.mark.parametrize("variant", TIMM)
def test_sizes_have_the_parameters_of_timm(variant):
    trainable, _ = counted(VARIANTS[variant])
    assert trainable == TIMM[variant]
    assert trainable == REGISTRY["efficientnet"].parameters[variant]


@pytest.mark.parametrize(("variant", "channels", "classes"), [("lite0", 3, 1000), ("b0", 1, 5)])
def test_built_model_has_the_counted_parameters(variant, channels, classes):
    model = efficientnet(variant, input_shape=(64, 64, channels), num_classes=classes)
    trainable, statistics = counted(VARIANTS[variant], channels, classes)
    assert sum(int(np.prod(w.shape)) for w in model.trainable_weights) == trainable
    assert sum(int(np.prod(w.shape)) for w in model.non_trainable_weights) == statistics


def test_every_variant_is_registered():
    assert set(REGISTRY["efficientnet"].variants) == set(VARIANTS) == {*TIMM, "tiny"}


@pytest.mark.parametrize(
    ("width", "rounded"), [(16, 16), (17.6, 16), (19.2, 24), (44, 48), (4, 8), (92, 96), (91, 88)]
)
def test_widths_are_rounded_to_eights_but_not_far_down(width, rounded):
    assert round_width(width) == rounded


def test_published_widths_and_depths():
    """b3 and lite4, as in timm: the first and last stage of "lite" keep their depth."""
    b3 = VARIANTS["b3"]
    assert [stage.width for stage in b3.scaled_stages] == [24, 32, 48, 96, 136, 232, 384]
    assert [stage.depth for stage in b3.scaled_stages] == [2, 3, 3, 5, 5, 6, 2]
    assert (b3.scaled_stem_width, b3.scaled_last_width) == (40, 1536)
    lite4 = VARIANTS["lite4"]
    assert [stage.depth for stage in lite4.scaled_stages] == [1, 4, 4, 6, 6, 8, 1]
    assert (lite4.scaled_stem_width, lite4.scaled_last_width) == (32, 1280)


# --- layers ----------------------------------------------------------------------------------


def test_default_is_b0_with_a_thousand_classes():
    model = efficientnet(input_shape=(32, 32, 3))
    assert sum(counted(VARIANTS["b0"])) == model.count_params()
    assert model.output_shape == (None, 1000)


def test_lite_has_no_squeeze_and_no_swish():
    model = efficientnet("lite0", input_shape=(32, 32, 3))
    names = {layer.name for layer in model.layers}
    assert not any("squeeze" in name for name in names)
    assert model.get_layer("stem_activation").max_value == 6
    full = efficientnet(**SMALL)
    assert "stage2_block1_squeeze_scale" in {layer.name for layer in full.layers}
    assert full.get_layer("stem_activation").activation is keras.activations.silu


@pytest.mark.parametrize(
    ("padding", "epsilon", "pads"), [(None, 1e-3, 0), ("same", 1e-3, 0), ("symmetric", 1e-5, 2)]
)
def test_padding_and_epsilon_come_together(padding, epsilon, pads):
    model = efficientnet(**SMALL, padding=padding)
    norms = [x for x in model.layers if isinstance(x, keras.layers.BatchNormalization)]
    assert {norm.epsilon for norm in norms} == {epsilon}
    zeros = [x for x in model.layers if isinstance(x, keras.layers.ZeroPadding2D)]
    assert len(zeros) == pads
    assert model.get_layer("last_conv").output.shape[1:] == (8, 8, 32)


@pytest.mark.parametrize("padding", ["same", "symmetric"])
def test_images_of_any_size(padding):
    free = efficientnet("tiny", input_shape=(None, None, 3), num_classes=3, padding=padding)
    fixed = efficientnet("tiny", input_shape=(41, 54, 3), num_classes=3, padding=padding)
    free.set_weights(fixed.get_weights())
    x = _pixels(2, 41, 54, 3)
    np.testing.assert_allclose(_values(free(x)), _values(fixed(x)), rtol=1e-5, atol=1e-6)


def test_lite_takes_pixels_from_minus_one_to_one_and_the_others_imagenet_statistics():
    x = np.zeros((1, 32, 32, 3), "float32")
    x[0, 1:] = 255
    for variant, low, high in [
        ("lite0", [-1, -1, -1], [1, 1, 1]),
        ("tiny", [-2.117904, -2.035714, -1.804444], [2.248908, 2.428571, 2.64]),
    ]:
        model = efficientnet(variant, input_shape=(32, 32, 3))
        values = _values(keras.Model(model.input, model.get_layer("preprocess").output)(x))
        np.testing.assert_allclose(values[0, 0], np.tile(low, (32, 1)), atol=1e-5)
        np.testing.assert_allclose(values[0, 5], np.tile(high, (32, 1)), atol=1e-5)


def test_image_data_format_of_keras_is_not_used():
    keras.config.set_image_data_format("channels_first")
    model = efficientnet("tiny", input_shape=(32, 40, 3))
    assert model.get_layer("last_conv").output.shape[1:] == (8, 10, 32)
    values = _values(
        keras.Model(model.input, model.get_layer("preprocess").output)(_pixels(1, 32, 40, 3))
    )
    assert values.shape == (1, 32, 40, 3)


@pytest.mark.parametrize(
    ("given", "rates"), [(None, [0.1]), (0.0, []), (0.5, [0.5])], ids=["own", "none", "given"]
)
def test_dropout(given, rates):
    model = efficientnet(**SMALL, dropout=given)
    dropouts = [layer for layer in model.layers if isinstance(layer, keras.layers.Dropout)]
    assert [layer.rate for layer in dropouts] == rates


def test_drop_path_leaves_out_whole_branches():
    model = efficientnet(**SMALL, drop_path=0.6, dropout=0)
    drops = {layer.name: layer for layer in model.layers if layer.name.endswith("_drop")}
    assert {name: layer.rate for name, layer in drops.items()} == {
        "stage2_block1_drop": pytest.approx(0.4)  # the first block can't lose what it never has
    }
    branch = np.ones((64, 2, 2, 3), "float32")
    left = _values(next(iter(drops.values()))(branch, training=True)).reshape(64, -1)
    assert (left == left[:, :1]).all()
    assert 0 < (left[:, 0] == 0).sum() < 64


def test_headless_features_are_float32():
    model = efficientnet("tiny", input_shape=(32, 32, 3), num_classes=0, dtype="mixed_bfloat16")
    assert model.output_shape == (None, 32)
    assert model.output.dtype == "float32"
    assert model.layers[-1].name == "global_pool"


@pytest.mark.parametrize(
    ("arguments", "units", "activation"),
    [
        ({}, 1000, "softmax"),
        ({"num_classes": 2}, 2, "softmax"),
        ({"num_classes": 2, "classifier_activation": "sigmoid"}, 1, "sigmoid"),
        ({"num_classes": 4, "classifier_activation": None}, 4, "linear"),
        ({"num_outputs": 2}, 2, "linear"),
    ],
)
def test_heads(arguments, units, activation):
    model = efficientnet("tiny", input_shape=(32, 32, 3), **arguments)
    assert model.output_shape == (None, units)
    assert model.layers[-1].activation.__name__ == activation


# --- bad input -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"variant": "b00"}, ValueError, "`variant` is 'b00'.*Did you mean 'b0'"),
        ({"variant": 0}, TypeError, "`variant` is 0; expected one of 'lite0'"),
        ({"padding": "valid"}, ValueError, "`padding` is 'valid'.*'same', 'symmetric'"),
        ({"input_shape": (31, 64, 3)}, ValueError, r"`input_shape\[0\]` is 31; .*at least 32"),
        ({"input_shape": (3, 64, 64)}, ValueError, "channels first"),
        ({"num_classes": 1}, ValueError, "`num_classes` is 1; .*keep num_classes=2"),
        ({"num_classes": 3, "num_outputs": 1}, ValueError, "`num_classes` is 3; expected None"),
        ({"drop_path": 1.0}, ValueError, r"`drop_path` is 1\.0; expected"),
        ({"dropout": -0.1}, ValueError, r"`dropout` is -0\.1; expected"),
        ({"weights": 3}, TypeError, "`weights` is 3; expected None, a path"),
        ({"weights": "efficientnet-lit0"}, FileNotFoundError, "mean 'efficientnet-lite0'"),
    ],
)
def test_bad_arguments(arguments, error, text):
    with pytest.raises(error, match=text):
        efficientnet(**{"variant": "tiny", "input_shape": (32, 32, 3), **arguments})
