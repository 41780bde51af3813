"""bigzoo.models.mlp: the tutorial network, tasks, options, bad input."""

from __future__ import annotations

import itertools

import keras
import numpy as np
import pytest

from bigzoo.models import mlp


def dense_parameters(dims) -> int:
    """(inputs + 1) * units, summed over the layers."""
    return sum((a + 1) * b for a, b in itertools.pairwise(dims))


def test_defaults_are_the_tutorial_network():
    model = mlp()
    assert [layer.name for layer in model.layers] == [
        "features",
        "hidden1",
        "hidden2",
        "hidden3",
        "predictions",
    ]
    assert [layer.units for layer in model.layers[1:]] == [500, 250, 100, 1]
    assert [layer.activation.__name__ for layer in model.layers[1:]] == [
        "relu",
        "relu",
        "relu",
        "sigmoid",
    ]
    assert all(type(layer) is keras.layers.Dense for layer in model.layers[1:])
    assert model.count_params() == dense_parameters((1000, 500, 250, 100, 1)) == 650_951


def test_equals_the_same_network_in_plain_keras():
    model = mlp(7, (6, 5), 3, "multiclass")
    plain = keras.Sequential(
        [
            keras.Input((7,)),
            keras.layers.Dense(6, activation="relu"),
            keras.layers.Dense(5, activation="relu"),
            keras.layers.Dense(3, activation="softmax"),
        ]
    )
    plain.set_weights(model.get_weights())
    x = np.random.default_rng(0).normal(size=(4, 7)).astype("float32")
    got, expected = (keras.ops.convert_to_numpy(each(x)) for each in (model, plain))
    np.testing.assert_allclose(got, expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("task", "num_outputs", "activation"),
    [
        ("binary", 1, "sigmoid"),
        ("multiclass", 2, "softmax"),
        ("multiclass", 9, "softmax"),
        ("multilabel", 1, "sigmoid"),
        ("multilabel", 4, "sigmoid"),
        ("regression", 1, "linear"),
        ("regression", 3, "linear"),
    ],
)
def test_tasks(task, num_outputs, activation):
    model = mlp(4, (3,), num_outputs, task)
    assert model.output_shape == (None, num_outputs)
    assert model.layers[-1].activation.__name__ == activation


def test_batch_normalization_takes_the_place_of_the_bias():
    model = mlp(4, (3,), normalization="batch")
    names = [layer.name for layer in model.layers]
    assert names[1:4] == ["hidden1", "hidden1_norm", "hidden1_activation"]
    assert isinstance(model.get_layer("hidden1_norm"), keras.layers.BatchNormalization)
    assert not model.get_layer("hidden1").use_bias
    assert model.count_params() == 4 * 3 + 4 * 3 + (3 + 1)


def test_layer_normalization_keeps_the_bias():
    model = mlp(4, (3,), normalization="layer")
    assert isinstance(model.get_layer("hidden1_norm"), keras.layers.LayerNormalization)
    assert model.count_params() == (4 + 1) * 3 + 2 * 3 + (3 + 1)


def test_dropout_works_in_training_only():
    model = mlp(50, (40,), dropout=0.5)
    rate = [layer.rate for layer in model.layers if isinstance(layer, keras.layers.Dropout)]
    assert rate == [0.5]
    x = np.ones((2, 50), "float32")
    hidden = keras.Model(model.input, model.get_layer("hidden1_dropout").output)
    training, inference = (
        keras.ops.convert_to_numpy(hidden(x, training=mode)) for mode in (True, False)
    )
    assert (training == 0).mean() > (inference == 0).mean() + 0.1


def test_activation_and_empty_hidden_dims():
    assert mlp(4, [3], activation="gelu").get_layer("hidden1").activation.__name__ == "gelu"
    assert [layer.name for layer in mlp(4, ()).layers] == ["features", "predictions"]


@pytest.mark.parametrize("activation", ["relu", "gelu", "tanh", "swish", "leaky_relu", "celu"])
def test_activations_are_known_to_keras(activation):
    mlp(2, (2,), activation=activation)


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"num_features": 0}, ValueError, "`num_features` is 0; expected an integer at least 1"),
        ({"hidden_dims": 500}, TypeError, r"`hidden_dims` is 500.*write \(500,\)"),
        ({"hidden_dims": "500"}, TypeError, "`hidden_dims` is '500'; expected a tuple"),
        ({"hidden_dims": None}, TypeError, "`hidden_dims` is None; expected a tuple"),
        ({"hidden_dims": (8, 0)}, ValueError, r"`hidden_dims\[1\]` is 0; expected an integer at"),
        ({"hidden_dims": (8.0,)}, TypeError, r"`hidden_dims\[0\]` is 8\.0; expected an integer"),
        ({"num_outputs": 2}, ValueError, '`num_outputs` is 2; expected 1 for task="binary"'),
        ({"task": "multiclass"}, ValueError, "`num_outputs` is 1; expected the number of classes"),
        ({"task": "multi-class"}, ValueError, "`task` is 'multi-class'.*Did you mean 'multiclass'"),
        ({"task": None}, TypeError, "`task` is None; expected one of 'binary'"),
        ({"activation": "rleu"}, ValueError, "`activation` is 'rleu'.*Did you mean 'relu'"),
        ({"activation": abs}, TypeError, "`activation` is .*could not be loaded"),
        ({"dropout": 1}, ValueError, "`dropout` is 1; expected a finite number at least 0 and bel"),
        ({"dropout": -0.1}, ValueError, r"`dropout` is -0\.1; expected"),
        ({"dropout": float("nan")}, ValueError, "`dropout` is nan; expected a finite number"),
        ({"dropout": "0.5"}, TypeError, r"`dropout` is '0\.5'; expected a finite number"),
        ({"normalization": "bach"}, ValueError, "`normalization`.*Did you mean 'batch'"),
        ({"normalization": True}, TypeError, "`normalization` is True; expected one of None"),
    ],
)
def test_bad_arguments(arguments, error, text):
    with pytest.raises(error, match=text):
        mlp(**{"num_features": 5, "hidden_dims": (4,), **arguments})
