"""bigzoo.models.linear_regression: the formula, sizes, bad input."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from bigzoo.models import linear_regression


def test_computes_x_w_plus_b():
    model = linear_regression(num_features=2, num_outputs=3)
    rng = np.random.default_rng(0)
    kernel, bias, x = rng.normal(size=(2, 3)), rng.normal(size=3), rng.normal(size=(5, 2))
    model.set_weights([kernel, bias])
    y = keras.ops.convert_to_numpy(model(x.astype("float32")))
    np.testing.assert_allclose(y, x @ kernel + bias, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("features", "outputs"), [(1, 1), (2, 1), (7, 4)])
def test_number_of_parameters(features, outputs):
    assert linear_regression(features, outputs).count_params() == (features + 1) * outputs


def test_defaults():
    model = linear_regression()
    assert model.input_shape == (None, 1)
    assert model.output_shape == (None, 1)
    assert model.layers[-1].activation is keras.activations.linear


def test_numpy_integers_are_integers():
    assert linear_regression(np.int64(3)).input_shape == (None, 3)


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"num_features": 0}, ValueError, "`num_features` is 0; expected an integer at least 1"),
        ({"num_features": 2.5}, TypeError, r"`num_features` is 2\.5; expected an integer"),
        ({"num_features": True}, TypeError, "`num_features` is True; expected an integer"),
        ({"num_features": (3,)}, TypeError, r"`num_features` is \(3,\); expected an integer"),
        ({"num_outputs": -1}, ValueError, "`num_outputs` is -1; expected an integer at least 1"),
        ({"num_outputs": "2"}, TypeError, "`num_outputs` is '2'; expected an integer"),
        ({"name": ""}, ValueError, "`name` is ''; expected a name"),
    ],
)
def test_bad_arguments(arguments, error, text):
    with pytest.raises(error, match=text):
        linear_regression(**arguments)
