"""bigzoo.models.logistic_regression: the formula, sizes, heads, bad input."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from bigzoo.models import logistic_regression


def _outputs(model, logits_to: str):
    rng = np.random.default_rng(0)
    shapes = [w.shape for w in model.weights]
    weights = [rng.normal(size=shape).astype("float32") for shape in shapes]
    model.set_weights(weights)
    x = rng.normal(size=(6, model.input_shape[1])).astype("float32")
    logits = x @ weights[0] + weights[1]
    expected = {
        "softmax": np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True),
        "sigmoid": 1 / (1 + np.exp(-logits)),
        "linear": logits,
    }[logits_to]
    return keras.ops.convert_to_numpy(model(x)), expected


@pytest.mark.parametrize(
    ("num_classes", "activation", "units", "function"),
    [
        (2, "softmax", 2, "softmax"),
        (5, "softmax", 5, "softmax"),
        (2, "sigmoid", 1, "sigmoid"),
        (5, "sigmoid", 5, "sigmoid"),
        (2, None, 2, "linear"),
        (5, "linear", 5, "linear"),
    ],
)
def test_heads(num_classes, activation, units, function):
    model = logistic_regression(3, num_classes, classifier_activation=activation)
    assert model.output_shape == (None, units)
    assert model.count_params() == 4 * units
    got, expected = _outputs(model, function)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"num_features": 0}, ValueError, "`num_features` is 0; expected an integer at least 1"),
        ({"num_classes": 1}, ValueError, "`num_classes` is 1.*keep num_classes=2"),
        ({"num_classes": 2.0}, TypeError, r"`num_classes` is 2\.0; expected an integer"),
        (
            {"classifier_activation": "sofmax"},
            ValueError,
            "`classifier_activation` is 'sofmax'.*Did you mean 'softmax'",
        ),
        ({"classifier_activation": 1}, TypeError, "`classifier_activation` is 1; expected one of"),
    ],
)
def test_bad_arguments(arguments, error, text):
    with pytest.raises(error, match=text):
        logistic_regression(**{"num_features": 3, **arguments})
