"""The exact solution against scikit-learn's, and its limits."""

import warnings

import keras
import numpy as np
import pytest
from sklearn.linear_model import LinearRegression

import bigzoo as bz
from bigzoo.train._solve import least_squares

L = keras.layers


def data(n, k, m, seed=0, dtype="float64"):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, k)) * rng.uniform(0.1, 10, k) + rng.normal(size=k) * 20
    y = x @ rng.normal(size=(k, m)) + 5 + 0.1 * rng.normal(size=(n, m))
    return x.astype(dtype), y.astype(dtype)


@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize(
    ("n", "k", "m"), [(100, 2, 1), (30000, 7, 3), (8193, 2, 1), (50, 50, 2), (20, 60, 1)]
)
def test_equals_scikit_learn(n, k, m, with_bias):
    x, y = data(n, k, m)
    theirs = LinearRegression(fit_intercept=with_bias).fit(x, y)
    ours = least_squares(x, y, with_bias=with_bias)
    np.testing.assert_allclose(ours.coefficients, theirs.coef_.T, atol=1e-6, rtol=1e-6)
    np.testing.assert_allclose(ours.intercept, theirs.intercept_, atol=1e-6, rtol=1e-6)
    residual = np.mean((y - theirs.predict(x)) ** 2)
    assert ours.mse == pytest.approx(residual, rel=1e-6, abs=1e-18)
    assert ours.rank == np.linalg.matrix_rank(x - x.mean(0) if with_bias else x)


def test_sets_the_weights():
    x, y = data(200, 3, 2, dtype="float32")
    model = bz.models.linear_regression(3, num_outputs=2)
    found = bz.solve(model, x, y)
    kernel, bias = model.get_weights()
    np.testing.assert_allclose(kernel, found.coefficients, rtol=1e-6)
    np.testing.assert_allclose(bias, found.intercept, rtol=1e-6)
    assert np.mean((model.predict_on_batch(x) - y) ** 2) == pytest.approx(found.mse, rel=1e-3)
    assert found.num_samples == 200
    assert str(found).startswith("least squares on 200 samples: MSE 0.0")


def test_targets_in_one_dimension_and_integers():
    x = np.array([[0], [1], [2], [3]], "uint8")
    model = bz.models.linear_regression()
    found = bz.solve(model, x, np.array([1, 3, 5, 7]))
    assert found.coefficients.item() == pytest.approx(2)
    assert found.intercept.item() == pytest.approx(1)
    found = bz.solve(model, x.astype("float32"), [1.0, 3, 5, 7])
    assert found.intercept.item() == pytest.approx(1)


def test_large_offsets_keep_their_digits():
    """Without centring, an offset of 1e8 would cost 16 of the 16 digits in normal equations."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(500, 2)) + 1e8
    found = least_squares(x, (x - 1e8) @ [[3.0], [2.0]])
    np.testing.assert_allclose(found.coefficients.ravel(), [3, 2], atol=1e-6)


def test_dependent_features_give_the_smallest_weights():
    x, _ = data(100, 2, 1)
    x = np.column_stack([x, x[:, 0] + x[:, 1]])
    y = x @ [[1.0], [2.0], [3.0]]
    model = bz.models.linear_regression(3)
    with pytest.warns(UserWarning, match=r"3 features of which 2 are independent \(rank 2\)"):
        found = bz.solve(model, x, y)
    theirs = LinearRegression().fit(x, y)
    np.testing.assert_allclose(found.coefficients, theirs.coef_.T, atol=1e-6)
    assert found.rank == 2
    assert found.mse < 1e-12


def test_one_sample_and_constant_features():
    with pytest.warns(UserWarning, match="rank 0"):
        found = bz.solve(bz.models.linear_regression(2), np.ones((1, 2)), np.array([7.0]))
    assert found.intercept.item() == 7
    assert not found.coefficients.any()


@pytest.mark.parametrize(
    "layers",
    [
        [L.Flatten()],
        [L.Reshape((6,))],
        [L.Rescaling(0.5, offset=1.0), L.Flatten()],
        [L.Flatten(), L.Identity(), L.Activation("linear")],
    ],
)
def test_layers_before_that_only_move_or_scale(layers):
    x, y = data(80, 6, 1)
    x = x.reshape(80, 2, 3).astype("float32")
    model = keras.Sequential([keras.Input((2, 3)), *layers, L.Dense(1)])
    found = bz.solve(model, x, y)
    reached = np.mean((model.predict_on_batch(x) - y) ** 2)
    assert reached == pytest.approx(found.mse, rel=1e-2)
    best = least_squares(x.reshape(80, 6).astype("float64"), y).mse
    assert found.mse == pytest.approx(best, rel=1e-3)


def test_normalization_no_bias_and_an_unbuilt_model():
    x, y = data(80, 3, 1, dtype="float32")
    norm = L.Normalization()
    norm.adapt(x)
    found = bz.solve(keras.Sequential([keras.Input((3,)), norm, L.Dense(1)]), x, y)
    assert found.mse == pytest.approx(least_squares(x, y).mse, rel=1e-3)
    model = keras.Sequential([L.Dense(1, use_bias=False)])
    found = bz.solve(model, x, y)
    assert not found.intercept.any()
    assert len(model.get_weights()) == 1


def test_batches():
    x, y = data(90, 3, 1, dtype="float32")
    found = bz.solve(bz.models.linear_regression(3), bz.data.Batches(x, y, batch_size=32))
    assert found.num_samples == 90


def test_leaves_its_input_alone():
    x, y = data(50, 3, 1)
    before = x.copy(), y.copy()
    bz.solve(bz.models.linear_regression(3), x, y)
    np.testing.assert_array_equal(x, before[0])
    np.testing.assert_array_equal(y, before[1])


def model_of(*layers):
    return keras.Sequential([keras.Input((3,)), *layers])


@pytest.mark.parametrize(
    ("model", "text"),
    [
        (lambda: model_of(L.Dense(4), L.Dense(1)), "has the Dense layers 'dense.*; expected one"),
        (lambda: model_of(L.Dense(1, "sigmoid")), "has the activation 'sigmoid'; expected none"),
        (lambda: model_of(L.ReLU(), L.Dense(1)), "`model` has the ReLU layer"),
        (lambda: model_of(L.Dense(1), L.Activation("softplus")), "has the Activation layer"),
        (lambda: model_of(L.BatchNormalization(), L.Dense(1)), "has the BatchNormalization layer"),
        (lambda: model_of(L.Dense(1), L.Rescaling(2.0)), "after the Dense layer"),
        (lambda: model_of(L.Flatten()), "has no Dense layer"),
        (lambda: model_of(L.Dense(1, kernel_regularizer="l2")), "kernel_regularizer"),
        (lambda: model_of(L.Dense(1, kernel_constraint="non_neg")), "kernel_constraint"),
    ],
)
def test_models_that_are_not_linear(model, text):
    model = model()
    before = model.get_weights()
    with pytest.raises(ValueError, match=text):
        bz.solve(model, np.ones((5, 3)), np.ones((5, 1)))
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


X, Y = np.ones((5, 3)), np.ones((5, 1))


@pytest.mark.parametrize(
    ("x", "y", "error", "text"),
    [
        (X, Y[:4], ValueError, r"`y` is an array of shape \(4, 1\).*expected the shape \(5, 1\)"),
        (X, np.ones((5, 2)), ValueError, r"expected the shape \(5, 1\)"),
        (X[:, :2], Y, ValueError, r"`x` is an array of shape \(5, 2\).*model's input"),
        (X[:, 0], Y, ValueError, r"expected the shape \(num_samples, num_features\)"),
        (X[:0], Y[:0], ValueError, "`x` is an array of shape"),
        (X * np.nan, Y, ValueError, "Remove or fill the rows with NaN or infinity"),
        (X, Y * np.inf, ValueError, "`y` is .*finite"),
        (X, None, TypeError, "`y` is None; expected an array of finite numbers"),
        (None, Y, TypeError, "`x` is None"),
        (X.astype(str).astype(object) + "a", Y, TypeError, "`x` is an array of shape"),
        ([[1, 2], [3]], Y, TypeError, "`x` is"),
    ],
)
def test_bad_data(x, y, error, text):
    model = bz.models.linear_regression(3)
    before = model.get_weights()
    with pytest.raises(error, match=text), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        bz.solve(model, x, y)
    np.testing.assert_array_equal(before[0], model.get_weights()[0])


def test_bad_model():
    with pytest.raises(TypeError, match=r"`model` is 'm'; expected a keras\.Model"):
        bz.solve("m", X, Y)
    with pytest.raises(ValueError, match="2 inputs and 1 outputs"):
        inputs = [keras.Input((3,)), keras.Input((3,))]
        bz.solve(keras.Model(inputs, L.Dense(1)(L.Concatenate()(inputs))), X, Y)
