"""bigzoo.models.autoencoder: shapes, the code, training with the usual two lines, bad input."""

from __future__ import annotations

import itertools

import keras
import numpy as np
import pytest

import bigzoo as bz
from bigzoo.models import autoencoder

VARIANTS = ("dense", "conv")


def _values(tensor) -> np.ndarray:
    return keras.ops.convert_to_numpy(tensor)


def spots(number: int, side: int = 12) -> np.ndarray:
    """Images that two numbers describe: where the bright spot is."""
    rows, columns = np.mgrid[:side, :side]
    places = np.random.default_rng(0).uniform(2, side - 2, (number, 2, 1, 1))
    distance = (rows - places[:, 0]) ** 2 + (columns - places[:, 1]) ** 2
    return (255 * np.exp(-distance / 8))[..., None].astype("float32")


def dense_parameters(pixels: int, widths: tuple[int, ...], code: int) -> int:
    sides = [pixels, *widths, code, *reversed(widths), pixels]
    return sum((old + 1) * new for old, new in itertools.pairwise(sides))


@pytest.mark.parametrize(
    ("shape", "arguments", "expected"),
    [
        ((28, 28, 1), {}, (784, (512, 128), 32)),
        ((9, 8, 3), {"widths": (20,), "code_dim": 3}, (216, (20,), 3)),
        ((4, 4, 1), {"widths": (), "code_dim": 2}, (16, (), 2)),
    ],
)
def test_dense_parameters(shape, arguments, expected):
    model = autoencoder("dense", input_shape=shape, **arguments)
    assert model.count_params() == dense_parameters(*expected)


def test_conv_parameters():
    """3×3 kernels on the way in and out, dense layers around the code."""
    model = autoencoder("conv", input_shape=(28, 28, 1), widths=(32, 64), code_dim=32)
    small = 7 * 7 * 64
    encoder = (9 * 1 + 1) * 32 + (9 * 32 + 1) * 64
    middle = (small + 1) * 32 + (32 + 1) * small
    decoder = (9 * 64 + 1) * 64 + (9 * 64 + 1) * 32 + (9 * 32 + 1) * 1
    assert model.count_params() == encoder + middle + decoder


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("shape", [(28, 28, 1), (13, 7, 3), (4, 5, 2)])
def test_images_come_out_as_they_went_in(variant, shape):
    model = autoencoder(variant, input_shape=shape, code_dim=5)
    assert model.output_shape == model.input_shape == (None, *shape)
    code = keras.Model(model.input, model.get_layer("code").output)
    assert code.output_shape == (None, 5)


@pytest.mark.parametrize("variant", VARIANTS)
def test_outputs_start_around_grey_in_pixels(variant):
    model = autoencoder(variant, input_shape=(12, 12, 1))
    y = _values(model(spots(16)))
    assert 20 < y.mean() < 240
    assert y.std() < 200


@pytest.mark.parametrize(("variant", "arguments"), [("dense", (64,)), ("conv", (16, 16))])
def test_the_usual_two_lines_train_it(variant, arguments):
    """Far better than the mean image, which is the best that is possible without a code."""
    x = spots(256)
    model = autoencoder(variant, input_shape=x.shape[1:], widths=arguments, code_dim=16)
    bz.compile(model, verbose=False)
    bz.fit(model, x, x, epochs=40, verbose=0)
    rest = np.mean((_values(model(x)) - x) ** 2)
    assert rest < 0.4 * x.var(axis=0).mean()


@pytest.mark.parametrize(("variant", "expected"), [("dense", 96.0), ("conv", 160.0)])
def test_to_pixels_only_scales(variant, expected):
    layer = autoencoder(variant, input_shape=(12, 12, 1)).get_layer("to_pixels")
    np.testing.assert_array_equal(_values(layer(np.full((1, 1), 1.5, "float32"))), expected)


def test_image_data_format_of_keras_is_not_used():
    keras.config.set_image_data_format("channels_first")
    for variant in VARIANTS:
        assert autoencoder(variant, input_shape=(12, 16, 3)).output_shape == (None, 12, 16, 3)


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"variant": "cnov"}, ValueError, "`variant` is 'cnov'.*Did you mean 'conv'"),
        ({"input_shape": (None, None, 1)}, ValueError, "need a fixed size"),
        ({"input_shape": (28, 28)}, ValueError, r"Grey images have one channel: \(28, 28, 1\)"),
        ({"variant": "conv", "input_shape": (3, 28, 1)}, ValueError, "is 3; .*at least 4"),
        ({"code_dim": 0}, ValueError, "`code_dim` is 0; expected an integer at least 1"),
        ({"widths": 64}, TypeError, r"`widths` is 64; .*For one layer write \(64,\)"),
        ({"widths": (8, 0)}, ValueError, r"`widths\[1\]` is 0; expected"),
        ({"variant": "conv", "widths": ()}, ValueError, "at least one for 'conv'"),
    ],
)
def test_bad_arguments(arguments, error, text):
    with pytest.raises(error, match=text):
        autoencoder(**arguments)
