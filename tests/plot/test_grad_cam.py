"""Grad-CAM: the closed formula, the place that matters, activations, layers, bad input."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import bigzoo as bz
from bigzoo.plot._grad_cam import compute

SIDE = 8


def conv_pool_dense(classes=3, activation="softmax", separate=False):
    keras.utils.set_random_seed(0)
    image = keras.Input((SIDE, SIDE, 3))
    x = keras.layers.Conv2D(5, 3, padding="same", name="conv")(image)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    if not separate:
        x = keras.layers.Dense(classes, activation=activation, name="predictions")(x)
    else:
        x = keras.layers.Dense(classes, name="logits")(x)
        x = keras.layers.Activation(activation, name="predictions")(x)
    return keras.Model(image, x)


def picture(seed=0):
    return np.random.default_rng(seed).uniform(0, 255, (SIDE, SIDE, 3)).astype("float32")


def class_map(model, image, unit, layer="conv", dense="predictions"):
    """CAM (Zhou et al. 2016) by the number of places: what Grad-CAM is for this network."""
    features = keras.Model(model.input, model.get_layer(layer).output)
    maps = features.predict(image[np.newaxis], verbose=0)[0]
    weights = keras.ops.convert_to_numpy(model.get_layer(dense).kernel)[:, unit]
    return np.maximum(maps @ weights, 0) / (SIDE * SIDE)


@pytest.mark.parametrize("activation", ["softmax", "sigmoid", None])
def test_equals_the_class_activation_map(activation):
    model, image = conv_pool_dense(activation=activation), picture()
    for unit in range(3):
        heat, chosen, probability = compute(model, image, unit, None)
        expected = class_map(model, image, unit)
        assert chosen == unit
        assert expected.max() > 0
        np.testing.assert_allclose(heat, expected, rtol=1e-4, atol=1e-5)
        other = class_map(model, image, (unit + 1) % 3)
        assert np.abs(heat - other).max() > 0.1 * expected.max()  # the comparison sees another unit
    assert (probability is None) == (activation is None)


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_an_activation_in_a_layer_of_its_own(activation):
    model, image = conv_pool_dense(activation=activation, separate=True), picture()
    heat, _, probability = compute(model, image, 1, None)
    np.testing.assert_allclose(heat, class_map(model, image, 1, dense="logits"), rtol=1e-4)
    assert probability == pytest.approx(model.predict(image[np.newaxis], verbose=0)[0, 1])


def test_one_sigmoid_unit_stands_for_two_classes():
    model, image = conv_pool_dense(1, "sigmoid"), picture()
    for_one, _, p = compute(model, image, 1, None)
    against, _, q = compute(model, image, 0, None)
    np.testing.assert_allclose(for_one, class_map(model, image, 0), rtol=1e-4, atol=1e-5)
    assert p + q == pytest.approx(1)
    assert (for_one * against).max() == 0  # where one has evidence, the other has none
    chosen = compute(model, image, None, None)[1]
    assert chosen == int(p >= 0.5)


def detector(skip=False):
    """Says "red" where a picture has a red place, and looks at nothing else."""
    image = keras.Input((16, 16, 3), name="image")
    x = keras.layers.Conv2D(2, 1, use_bias=False, name="colours")(image)
    y = keras.layers.ReLU(name="relu")(x)
    y = keras.layers.Add(name="add")([x, y]) if skip else y
    y = keras.layers.GlobalAveragePooling2D(name="pool")(y)
    model = keras.Model(image, keras.layers.Dense(2, "softmax", name="predictions")(y))
    kernel = np.zeros((1, 1, 3, 2), "float32")
    kernel[0, 0] = [[1, -1], [-0.5, 0], [-1, 1]]
    model.get_layer("colours").kernel.assign(kernel)
    model.get_layer("predictions").kernel.assign(np.eye(2, dtype="float32"))
    return model


@pytest.mark.parametrize("place", [(0, 0), (0, 8), (8, 0), (8, 8)])
def test_heat_lies_on_the_only_quadrant_that_says_something(place):
    row, column = place
    image = np.zeros((16, 16, 3), "uint8")
    image[row : row + 8, column : column + 8, 0] = 200
    figure = bz.plot.grad_cam(detector(), image, class_names=["red", "blue"])
    heat = np.asarray(figure.axes[1].images[1].get_array())
    inside = np.zeros((16, 16), bool)
    inside[row : row + 8, column : column + 8] = True
    assert (heat[inside] == 1).all()
    assert (heat[~inside] == 0).all()
    assert figure.axes[1].get_title() == "evidence for red (100%)"


def test_no_evidence_is_said():
    image = np.zeros((16, 16, 3), "uint8")
    image[..., 2] = 200
    figure = bz.plot.grad_cam(detector(), image, 0)
    assert figure.axes[1].get_title() == "no evidence for class 0 (0%)"
    assert not np.asarray(figure.axes[1].images[1].get_array()).any()


def test_a_layer_with_a_way_around_it():
    """A residual connection: the slope at the layer is that with the rest held."""
    model, image = detector(skip=True), np.zeros((16, 16, 3), "float32")
    image[:8, :8, 0] = 200
    heat, _, _ = compute(model, image, 0, "relu")
    features = keras.Model(model.input, model.get_layer("relu").output)
    maps = features.predict(image[np.newaxis], verbose=0)[0]
    np.testing.assert_allclose(heat, maps[..., 0] / 256, rtol=1e-4)
    assert heat.max() > 0


@pytest.mark.parametrize("variant", ["plain", "modern"])
def test_networks_of_the_zoo(variant):
    model = bz.models.cnn((32, 32, 3), 3, variant)
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype="uint8")
    figure = bz.plot.grad_cam(model, image)
    assert figure.axes[1].images[1].get_array().shape == ((8, 8) if variant == "plain" else (2, 2))
    layer = {"plain": "conv1", "modern": "stage1_block1_1_conv"}[variant]
    heat, _, _ = compute(model, image.astype("float32"), 1, layer)
    assert heat.shape == ((32, 32) if variant == "plain" else (8, 8))


def test_a_network_used_as_a_layer():
    image = keras.Input((SIDE, SIDE, 3))
    base = keras.Model(image, keras.layers.Conv2D(4, 3, name="inner")(image), name="base")
    image = keras.Input((SIDE, SIDE, 3))
    x = keras.layers.GlobalAveragePooling2D()(base(image))
    model = keras.Model(image, keras.layers.Dense(2, "softmax", name="predictions")(x))
    assert compute(model, picture(), 0, None)[0].shape == (6, 6)
    assert compute(model, picture(), 0, "base")[0].shape == (6, 6)


def test_mixed_precision_and_sequential():
    policy = keras.DTypePolicy("mixed_bfloat16")
    model = keras.Sequential(
        [
            keras.Input((SIDE, SIDE, 1)),
            keras.layers.Conv2D(4, 3, activation="relu", dtype=policy),
            keras.layers.Flatten(dtype=policy),
            keras.layers.Dense(2, "softmax", dtype="float32"),
        ]
    )
    figure = bz.plot.grad_cam(model, np.ones((SIDE, SIDE), "uint8"))
    assert figure.axes[1].images[1].get_array().shape == (6, 6)


def test_the_model_stays_as_it_was(tmp_path):
    model = bz.models.cnn((32, 32, 3), 2)
    config, weights = model.get_config(), model.get_weights()
    for layer in (None, "stage2_block1_1_conv", "stem_conv"):
        bz.plot.grad_cam(model, np.ones((32, 32, 3)), layer=layer)
    assert model.get_config() == config
    for old, new in zip(weights, model.get_weights(), strict=True):
        assert np.array_equal(old, new)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    x = np.ones((1, 32, 32, 3))
    np.testing.assert_allclose(again.predict(x, verbose=0), model.predict(x, verbose=0), atol=1e-6)


def test_an_image_file_and_the_names_that_fit_leaves(tmp_path):
    from PIL import Image

    Image.fromarray(np.full((40, 30, 3), 7, "uint8")).save(tmp_path / "grey.png")
    model = detector()
    model.class_names = ("red", "blue")
    figure = bz.plot.grad_cam(model, tmp_path / "grey.png", 1)
    assert "blue" in figure.axes[1].get_title()


def test_an_image_that_goes_around_every_layer():
    image = keras.Input((4, 4, 2))
    x = keras.layers.Conv2D(2, 1, name="conv")(image)
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Add(name="add")([x, image]))
    model = keras.Model(image, keras.layers.Dense(2, name="predictions")(x))
    config = model.get_config()
    with pytest.raises(ValueError, match="a layer that the image doesn't go around"):
        bz.plot.grad_cam(model, np.ones((4, 4, 2)), layer="conv")
    assert bz.plot.grad_cam(model, np.ones((4, 4, 2)))
    assert model.get_config() == config


IMAGE = np.zeros((16, 16, 3), "uint8")


def flat():
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])


def per_place():
    image = keras.Input((16, 16, 3))
    return keras.Model(image, keras.layers.Conv2D(2, 1)(image))


@pytest.mark.parametrize(
    ("make", "image", "options", "error", "text"),
    [
        (lambda: "resnet", IMAGE, {}, TypeError, "`model` is 'resnet'; expected a keras.Model"),
        (lambda: keras.Sequential([keras.layers.Dense(2)]), IMAGE, {}, ValueError, "are known"),
        (flat, IMAGE, {}, ValueError, r"one input of shape \(batch, height, width, channels\)"),
        (per_place, IMAGE, {}, ValueError, r"whose output has the shape \(batch, classes\)"),
        (detector, None, {}, TypeError, "`image` is None"),
        (detector, IMAGE[:8], {}, ValueError, r"one image of shape \(16, 16, 3\)"),
        (detector, np.zeros((2, 16, 16, 3)), {}, ValueError, "one image of shape"),
        (detector, IMAGE.astype(str), {}, TypeError, "pixels, numbers in 0–255"),
        (detector, np.full((16, 16, 3), np.nan), {}, ValueError, "NaN or infinite"),
        (detector, "no/such.jpg", {}, FileNotFoundError, "no/such.jpg"),
        (detector, IMAGE, {"class_index": 2}, ValueError, "at most 1. The model has 2 classes"),
        (detector, IMAGE, {"class_index": "red"}, TypeError, "`class_index` is 'red'"),
        (detector, IMAGE, {"layer": "colour"}, ValueError, "Did you mean 'colours'"),
        (detector, IMAGE, {"layer": "pool"}, ValueError, r"'pool'\) gives \(None, 2\); expected"),
        (detector, IMAGE, {"layer": 3}, TypeError, "`layer` is 3"),
        (detector, IMAGE, {"class_names": "red"}, TypeError, "`class_names` is 'red'"),
    ],
)
def test_bad_input(make, image, options, error, text):
    with pytest.raises(error, match=text):
        bz.plot.grad_cam(make(), image, **options)
