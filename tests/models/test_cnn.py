"""bigzoo.models.cnn: the tutorial network, the residual network, shapes, bad input."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from bigzoo.models import cnn
from bigzoo.models.cnn import VARIANTS


def _values(tensor) -> np.ndarray:
    return keras.ops.convert_to_numpy(tensor)


def _pixels(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape).astype("float32")


def conv_parameters(kernel_size: int, channels: int, width: int, bias: bool = True) -> int:
    return (kernel_size**2 * channels + bias) * width


# --- plain -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "classes"), [((224, 224, 3), 2), ((64, 48, 3), 5), ((28, 28, 1), 10)]
)
def test_plain_has_the_parameters_of_the_tutorial(shape, classes):
    height, width, channels = shape
    features = (height // 4) * (width // 4) * 64
    expected = conv_parameters(3, channels, 32) + conv_parameters(3, 32, 64)
    expected += (features + 1) * classes
    assert cnn(shape, classes, "plain").count_params() == expected
    if shape == (224, 224, 3):
        assert expected == 420_802


def test_plain_equals_the_tutorial_weight_for_weight():
    model = cnn((20, 26, 3), 2, "plain")
    layers = keras.layers
    tutorial = keras.Sequential(
        [
            keras.Input((20, 26, 3)),
            layers.Conv2D(32, (3, 3), activation="relu", padding="same"),
            layers.MaxPool2D(pool_size=(2, 2), strides=2),
            layers.Conv2D(64, (3, 3), activation="relu", padding="same"),
            layers.MaxPool2D(pool_size=(2, 2), strides=2),
            layers.Flatten(),
            layers.Dense(2, activation="softmax"),
        ]
    )
    tutorial.set_weights(model.get_weights())
    x = _pixels(4, 20, 26, 3)
    np.testing.assert_allclose(_values(model(x)), _values(tutorial(x / 255)), rtol=1e-4, atol=1e-6)


# --- modern ----------------------------------------------------------------------------------


def modern_parameters(sizes, channels: int, units: int) -> int:
    """Counted from the table of sizes, without Keras: kernels, then 4 numbers per normalisation."""
    norm = 4

    def conv_norm(kernel_size: int, before: int, width: int) -> int:
        return conv_parameters(kernel_size, before, width, bias=False) + norm * width

    total = conv_norm(3, channels, sizes.stem_width)
    before = sizes.stem_width
    for width, depth in zip(sizes.widths, sizes.depths, strict=True):
        total += conv_norm(3, before, width) + depth * 2 * conv_norm(3, width, width)
        before = width
    total += conv_norm(3, before, sizes.last_width)
    before = sizes.last_width
    return total + (before + 1) * units


@pytest.mark.parametrize("shape", [(224, 224, 3), (33, 47, 1), (32, 32, 5)])
@pytest.mark.parametrize("variant", [name for name in VARIANTS if name != "plain"])
def test_modern_parameters_depend_on_channels_not_on_size(shape, variant):
    expected = modern_parameters(VARIANTS[variant], shape[2], 7)
    assert cnn(shape, 7, variant).count_params() == expected


def test_modern_blocks_start_as_the_identity():
    """With gamma = 0 at the end of each branch, a new block gives what it is given."""
    model = cnn((32, 32, 3))
    blocks = [layer for layer in model.layers if layer.name.endswith("_add")]
    assert len(blocks) == sum(VARIANTS["modern"].depths)
    for block in blocks:
        parts = keras.Model(model.input, [block.input[0], block.output])
        before, after = (_values(part) for part in parts(_pixels(2, 32, 32, 3)))
        assert before.std() > 0
        np.testing.assert_array_equal(after, before)


def test_modern_takes_images_of_any_size():
    free = cnn((None, None, 3))
    assert free.input_shape == (None, None, None, 3)
    fixed = cnn((40, 52, 3))
    free.set_weights(fixed.get_weights())
    x = _pixels(2, 40, 52, 3)
    np.testing.assert_allclose(_values(free(x)), _values(fixed(x)), rtol=1e-5, atol=1e-6)
    assert _values(free(_pixels(1, 33, 17, 3))).shape == (1, 2)


def test_smallest_image_trains():
    side = VARIANTS["modern"].minimum
    model = cnn((side, side, 3))
    model.compile("sgd", "sparse_categorical_crossentropy", jit_compile=False)
    assert np.isfinite(model.train_on_batch(_pixels(4, side, side, 3), np.array([0, 1, 0, 1])))


# --- both ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("variant", "low", "high"), [("plain", 0, 1), ("modern", -1, 1)])
def test_raw_pixels_are_scaled_inside(variant, low, high):
    model = cnn((32, 32, 1), variant=variant)
    scaled = keras.Model(model.input, model.get_layer("preprocess").output)
    x = np.zeros((1, 32, 32, 1), "uint8")
    x[0, 1:] = 255
    values = _values(scaled(x))
    np.testing.assert_allclose(values[0, 0], low, atol=1e-6)
    np.testing.assert_allclose(values[0, 1:], high, atol=1e-6)


@pytest.mark.parametrize("variant", VARIANTS)
def test_scaling_keeps_fractions_under_mixed_precision(variant):
    """A resized photo has pixels such as 200.3, which bfloat16 would round to 200."""
    keras.config.set_dtype_policy("mixed_bfloat16")
    model = cnn((32, 32, 3), variant=variant)
    scaled = keras.Model(model.input, model.get_layer("preprocess").output)
    layer = model.get_layer("preprocess")
    values = _values(scaled(np.full((1, 32, 32, 3), 200.3, "float32")))
    np.testing.assert_allclose((values - layer.offset) / layer.scale, 200.3, atol=1e-3)


def test_image_data_format_of_keras_is_not_used():
    keras.config.set_image_data_format("channels_first")
    model = cnn((32, 36, 3))
    assert model.input_shape == (None, 32, 36, 3)
    assert model.get_layer("global_pool").output.shape[1] == VARIANTS["modern"].widths[-1]
    assert cnn((32, 36, 3), variant="plain").get_layer("pool2").output.shape[1:] == (8, 9, 64)


@pytest.mark.parametrize(
    ("variant", "given", "rates"),
    [
        ("plain", None, []),
        ("plain", 0.3, [0.3]),
        ("modern", None, [VARIANTS["modern"].dropout]),
        ("modern", 0.0, []),
        ("modern", 0.5, [0.5]),
    ],
)
def test_dropout(variant, given, rates):
    model = cnn((32, 32, 3), variant=variant, dropout=given)
    dropouts = [layer for layer in model.layers if isinstance(layer, keras.layers.Dropout)]
    assert [layer.rate for layer in dropouts] == rates


@pytest.mark.parametrize(
    ("classes", "activation", "units", "name"),
    [
        (2, "softmax", 2, "softmax"),
        (2, "sigmoid", 1, "sigmoid"),
        (4, "sigmoid", 4, "sigmoid"),
        (4, None, 4, "linear"),
    ],
)
def test_heads(classes, activation, units, name):
    model = cnn((32, 32, 3), classes, "plain", classifier_activation=activation)
    assert model.output_shape == (None, units)
    assert model.layers[-1].activation.__name__ == name


# --- bad input -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        (
            {"input_shape": (3, 224, 224)},
            ValueError,
            r"channels first. Use \(224, 224, 3\), and np\.moveaxis",
        ),
        ({"input_shape": (1, 28, 28)}, ValueError, r"Use \(28, 28, 1\)"),
        (
            {"input_shape": (None, 224, 224, 3)},
            ValueError,
            r"Leave out the batch size: \(224, 224, 3\)",
        ),
        ({"input_shape": (28, 28)}, ValueError, r"Grey images have one channel: \(28, 28, 1\)"),
        ({"input_shape": ()}, ValueError, r"`input_shape` is \(\); expected \(height, width"),
        ({"input_shape": 224}, TypeError, "`input_shape` is 224; expected"),
        ({"input_shape": "224"}, TypeError, "`input_shape` is '224'; expected"),
        ({"input_shape": (15, 64, 3)}, ValueError, r"`input_shape\[0\]` is 15; expected .* 16"),
        ({"input_shape": (64, 8, 3)}, ValueError, r"`input_shape\[1\]` is 8; expected .* 16"),
        ({"input_shape": (64, 64.0, 3)}, TypeError, r"`input_shape\[1\]` is 64\.0; expected"),
        ({"input_shape": (64, 64, 0)}, ValueError, r"`input_shape\[2\]` is 0; .*channels"),
        ({"input_shape": (64, 64, None)}, TypeError, r"`input_shape\[2\]` is None; .*channels"),
        (
            {"input_shape": (None, 64, 3), "variant": "plain"},
            ValueError,
            'needs a fixed size; variant="modern" takes images of any size',
        ),
        (
            {"input_shape": (64, 3, 3), "variant": "plain"},
            ValueError,
            r"`input_shape\[1\]` is 3; expected an integer at least 4",
        ),
        ({"num_classes": 1}, ValueError, "`num_classes` is 1; .*keep num_classes=2"),
        ({"num_classes": ["cat", "dog"]}, TypeError, "`num_classes` is .*expected an integer"),
        ({"variant": "modren"}, ValueError, "`variant` is 'modren'.*Did you mean 'modern'"),
        ({"variant": 1}, TypeError, "`variant` is 1; expected one of 'plain', 'modern'"),
        ({"classifier_activation": "relu"}, ValueError, "`classifier_activation` is 'relu'"),
        ({"dropout": 1.0}, ValueError, r"`dropout` is 1\.0; expected"),
        ({"dropout": "no"}, TypeError, "`dropout` is 'no'; expected"),
    ],
)
def test_bad_arguments(arguments, error, text):
    with pytest.raises(error, match=text):
        cnn(**{"input_shape": (32, 32, 3), **arguments})
