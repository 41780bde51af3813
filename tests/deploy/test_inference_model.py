"""The model as it infers: the same answers, without what only training needs."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from bigzoo.deploy._float32 import in_float32, is_narrow
from bigzoo.deploy._inference import TRAINING_ONLY, inference_model

RNG = np.random.default_rng(0)
X = RNG.integers(0, 256, (4, 8, 8, 3)).astype("float32")


def body():
    return [
        keras.layers.RandomFlip(),
        keras.layers.RandomRotation(0.2),
        keras.layers.Conv2D(4, 3),
        keras.layers.BatchNormalization(),
        keras.layers.GaussianNoise(1.0),
        keras.layers.Flatten(),
        keras.layers.Dropout(0.5),
        keras.layers.Dense(3, name="out"),
    ]


def sequential():
    return keras.Sequential([keras.Input((8, 8, 3)), *body()])


def functional():
    y = x = keras.Input((8, 8, 3))
    for layer in body():
        y = layer(y)
    return keras.Model(x, y)


def nested():
    """Augmentation in a model of its own, as tutorials do."""
    augment = keras.Sequential([keras.layers.RandomFlip(), keras.layers.RandomZoom(0.5)])
    x = keras.Input((8, 8, 3))
    return keras.Model(x, sequential()(augment(x)))


def built_by_a_call():
    model = keras.Sequential(body())
    model(X[:2], training=False)
    return model


class Own(keras.Model):
    """A functional model with a call of its own."""

    def call(self, x, training=None):
        return 2 * super().call(x, training=training)


def own_call():
    base = functional()
    return Own(base.input, base.output)


class OwnSequential(keras.Sequential):
    def call(self, x, training=None):
        return 2 * super().call(x, training=training)


def own_sequential():
    return OwnSequential([keras.Input((8, 8, 3)), *body()])


MAKERS = [sequential, functional, nested, built_by_a_call, own_call, own_sequential]


def numbers(tensor):
    return np.asarray(keras.ops.convert_to_numpy(tensor))


@pytest.mark.parametrize("make", MAKERS)
def test_answers_are_the_same_without_training_false(make):
    """Trap: RandomFlip puts what follows it into training mode, BatchNormalization with it."""
    model = make()
    expected = numbers(model(X, training=False))
    made = inference_model(model)
    before = [numbers(weight).copy() for weight in model.weights]
    for _ in range(2):
        np.testing.assert_allclose(numbers(made(X)), expected, rtol=1e-6)
    for weight, value in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(numbers(weight), value)
    assert made.inputs[0].shape == (None, 8, 8, 3)


def test_the_trap_is_there():
    """If Keras mends it, the sentence in the documentation must go."""
    model = sequential()
    expected = numbers(model(X, training=False))
    assert np.abs(numbers(model(X)) - expected).max() > 1e-3


@pytest.mark.parametrize("make", [sequential, functional, nested])
def test_layers_are_gone_and_weights_shared(make):
    model = make()
    made = inference_model(model)
    flat = [layer for part in (made, *made.layers) for layer in getattr(part, "layers", [part])]
    assert not [layer for layer in flat if type(layer) in TRAINING_ONLY]
    out = next(layer for layer in flat if layer.name == "out")
    out.bias.assign([1.0, 2.0, 3.0])
    same = [weight for weight in model.weights if weight.path.endswith("out/bias")]
    np.testing.assert_array_equal(numbers(same[0]), [1, 2, 3])


def test_the_model_itself_stays_as_it_was():
    model = functional()
    model.compile("adam", "mse")
    names = [layer.name for layer in model.layers]
    made = inference_model(model)
    assert [layer.name for layer in model.layers] == names
    assert model.compiled
    assert not made.compiled
    model.fit(X, np.zeros((4, 3)), verbose=0)


def test_names_travel():
    model = sequential()
    model.class_names = ("a", "b", "c")
    model.image_size = (8, 8)
    made = inference_model(model)
    assert made.class_names == ("a", "b", "c")
    assert made.image_size == (8, 8)
    assert made.name == model.name


def test_forms_of_inputs_and_outputs_stay():
    a, b = keras.Input((4,), name="a"), keras.Input((4,), name="b")
    y = keras.layers.Dropout(0.5)(keras.layers.Add()([a, b]))
    model = keras.Model({"a": a, "b": b}, {"y": y, "a": keras.layers.Dropout(0.1)(a)})
    given = inference_model(model)({"a": np.ones((1, 4)), "b": np.ones((1, 4))})
    np.testing.assert_array_equal(numbers(given["y"]), 2 * np.ones((1, 4)))
    np.testing.assert_array_equal(numbers(given["a"]), np.ones((1, 4)))


def test_random_crop_still_cuts():
    model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.RandomCrop(4, 4)])
    made = inference_model(model)
    np.testing.assert_array_equal(numbers(made(X)), numbers(model(X, training=False)))
    assert made.output_shape == (None, 4, 4, 3)


def test_masks_pass_a_dropout():
    x = keras.Input((5,), dtype="int32")
    y = keras.layers.Embedding(9, 4, mask_zero=True)(x)
    model = keras.Model(x, keras.layers.LSTM(3, dropout=0.5)(keras.layers.Dropout(0.5)(y)))
    ids = np.array([[1, 2, 0, 0, 0], [3, 4, 5, 6, 7]])
    expected = numbers(model(ids, training=False))
    np.testing.assert_allclose(numbers(inference_model(model)(ids)), expected, rtol=1e-6)


# --- models of 16 bits -----------------------------------------------------------------------


def narrow(policy):
    x = keras.Input((8, 8, 3))
    y = keras.layers.Conv2D(4, 3, dtype=policy)(x)
    y = keras.ops.cast(keras.layers.Flatten(dtype=policy)(y), "bfloat16")
    return keras.Model(x, keras.layers.Dense(3, dtype="float32")(y))


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16", "bfloat16"])
def test_widened_models_have_the_same_weights(policy):
    model = inference_model(narrow(policy))
    wide = in_float32(model)
    assert is_narrow(model)
    assert not is_narrow(wide)
    for one, two in zip(model.weights, wide.weights, strict=True):
        assert two.dtype == "float32"
        np.testing.assert_array_equal(numbers(one).astype("float32"), numbers(two))
    one, two = numbers(model(X)).astype("float32"), numbers(wide(X))
    assert 0 < np.abs(one - two).max() / np.abs(two).max() < 0.02


def test_float32_models_stay_themselves():
    model = inference_model(sequential())
    assert in_float32(model) is model
