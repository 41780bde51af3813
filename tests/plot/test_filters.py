"""Filters: which weights are drawn, and how."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import bigzoo as bz


def shown(figure, place=0):
    return np.asarray(figure.axes[place].images[0].get_array())


def model_with(layer, channels=3):
    image = keras.Input((8, 8, channels))
    model = keras.Model(image, layer(image))
    rng = np.random.default_rng(0)
    layer.set_weights([rng.normal(size=weight.shape) for weight in layer.weights])
    return model, keras.ops.convert_to_numpy(layer.weights[0])


def test_colours_are_stretched_from_the_least_to_the_largest_weight():
    model, kernel = model_with(keras.layers.Conv2D(5, (3, 2), name="stem"))
    figure = bz.plot.filters(model)
    assert figure.get_suptitle() == "stem: 5 filters of 3 × 2"
    assert len(figure.axes) == 5
    for place in range(5):
        one = kernel[..., place]
        expected = (one - one.min()) / (one.max() - one.min())
        np.testing.assert_allclose(shown(figure, place), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (keras.layers.Conv2D(3, 3), lambda kernel: kernel[..., 1].mean(axis=-1)),
        (keras.layers.DepthwiseConv2D(3, depth_multiplier=2), lambda kernel: kernel[:, :, 0, 1]),
        (keras.layers.Conv2DTranspose(3, 3), lambda kernel: kernel[:, :, 1].mean(axis=-1)),
    ],
)
def test_other_channels_by_their_mean(layer, expected):
    model, kernel = model_with(layer, channels=4)
    figure = bz.plot.filters(model)
    np.testing.assert_allclose(shown(figure, 1), expected(kernel), atol=1e-6)
    low, high = figure.axes[1].images[0].get_clim()
    assert low == -high < 0


def test_a_named_layer_a_limit_and_a_nested_network():
    model = bz.models.cnn((32, 32, 3), 2)
    figure = bz.plot.filters(model, "stage2_in_conv", limit=7, columns=4)
    assert figure.get_suptitle() == "stage2_in_conv: the first 7 of 96 filters of 3 × 3"
    assert len(figure.axes) == 7
    image = keras.Input((32, 32, 3))
    outer = keras.Model(image, model(image))
    assert bz.plot.filters(outer).get_suptitle().startswith("stem_conv: 32 filters")


def test_constant_filters():
    model, _ = model_with(keras.layers.Conv2D(2, 1, use_bias=False), channels=1)
    model.layers[1].set_weights([np.zeros((1, 1, 1, 2))])
    assert len(bz.plot.filters(model).axes) == 2


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"model": 3}, TypeError, "expected a keras.Model"),
        ({"model": bz.models.mlp(4)}, ValueError, "a model with a 2-D convolution"),
        ({"layer": "stem"}, ValueError, "`layer` is 'stem'; .*Did you mean 'stem_"),
        ({"layer": "stem_relu"}, ValueError, "expected the name of a 2-D convolution"),
        ({"columns": 0}, ValueError, "`columns` is 0"),
        ({"limit": "all"}, TypeError, "`limit` is 'all'"),
    ],
)
def test_bad_input(arguments, error, text):
    settings = {"model": bz.models.cnn((32, 32, 3), 2), **arguments}
    with pytest.raises(error, match=text):
        bz.plot.filters(**settings)
