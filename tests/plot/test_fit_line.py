"""Data, line and residuals of a regression."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from matplotlib.figure import Figure

import bigzoo as bz

X = np.array([2.0, 0.0, 1.0, 3.0])
Y = np.array([5.0, 1.0, 3.5, 6.5])  # 2 x + 1, with residuals 0, 0, 0.5, -0.5


def line(ax, label):
    return next(item for item in ax.get_lines() if item.get_label() == label)


@pytest.mark.parametrize("shape", [(4,), (4, 1)])
def test_one_feature(shape):
    figure = bz.plot.fit_line(X.reshape(shape), Y.reshape(shape), (2.0, 1.0))
    data, residuals = figure.axes
    np.testing.assert_allclose(line(data, "prediction").get_xdata(), [0, 1, 2, 3])
    np.testing.assert_allclose(line(data, "prediction").get_ydata(), [1, 3, 5, 7])
    np.testing.assert_allclose(data.collections[-1].get_offsets(), np.stack([X, Y], axis=1))
    drawn = np.asarray(residuals.collections[0].get_offsets())
    np.testing.assert_allclose(drawn, np.stack([X, [0, 0, 0.5, -0.5]], axis=1))
    share = 1 - 0.125 / np.var(Y)
    assert data.get_title() == f"MSE 0.125, R² {share:.3f}"


def test_several_features_show_true_against_predicted():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(50, 2))
    y = x @ [3.0, 2.0] + 0.5
    figure = bz.plot.fit_line(x, y[:, None], ((3.0, 2.0), 0.5))
    points = np.asarray(figure.axes[0].collections[-1].get_offsets())
    np.testing.assert_allclose(points, np.stack([y, y], axis=1))
    ends = line(figure.axes[0], "y = prediction")
    np.testing.assert_allclose(ends.get_xdata(), [y.min(), y.max()])
    np.testing.assert_allclose(ends.get_ydata(), [y.min(), y.max()])


def test_a_keras_model_does_not_broadcast():
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.set_weights([np.array([[2.0]]), np.array([1.0])])
    figure = bz.plot.fit_line(X, Y, model)
    assert figure.axes[0].get_title().startswith("MSE 0.125,")


def test_a_scikit_learn_model():
    linear_model = pytest.importorskip("sklearn.linear_model")
    fitted = linear_model.LinearRegression().fit(X[:, None], Y)
    expected = np.mean((Y - fitted.predict(X[:, None])) ** 2)
    assert bz.plot.fit_line(X, Y, fitted).axes[0].get_title().startswith(f"MSE {expected:.4g}")


def test_many_points_are_thinned_but_all_are_counted():
    x = np.zeros(20_000)
    x[1::2] = 1.0
    figure = bz.plot.fit_line(x, x + 1.0, (1.0, 0.0))
    assert len(figure.axes[0].collections[-1].get_offsets()) == 5000
    assert figure.axes[0].get_title().startswith("MSE 1,")


def test_constant_target_has_no_r_squared():
    assert bz.plot.fit_line(X, np.ones(4), (0.0, 1.0)).axes[0].get_title() == "MSE 0"


def test_own_axes():
    ax = Figure().add_subplot()
    assert bz.plot.fit_line(X, Y, (2.0, 1.0), ax=ax) is ax


class Predicts:
    def __init__(self, values):
        self.values = values

    def predict(self, x):
        return self.values


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ((X, Y[:3], (2.0, 1.0)), ValueError, "`x` has 4 rows and `y` 3"),
        ((X, np.zeros((4, 2)), (2.0, 1.0)), ValueError, "Draw one output at a time"),
        ((np.zeros((4, 2, 2)), Y, (2.0, 1.0)), ValueError, r"\(n, features\) or \(n,\)"),
        ((X[:1], Y[:1], (2.0, 1.0)), ValueError, "at least 2 rows"),
        ((None, Y, (2.0, 1.0)), TypeError, "`x` is None"),
        ((X, [1.0, np.inf, 0, 0], (2.0, 1.0)), ValueError, "`y` has NaN or infinite"),
        ((X, list("abcd"), (2.0, 1.0)), TypeError, "expected numbers"),
        ((X, Y, ((2.0, 3.0), 1.0)), ValueError, "2 weights, and `x` 1 features"),
        ((X, Y, 2.0), TypeError, "the pair \\(weights, bias\\)"),
        ((X, Y, (2.0,)), TypeError, "the pair"),
        ((X, Y, ("a", "b")), TypeError, "the pair"),
        ((X, Y, (2.0, (1.0, 2.0))), TypeError, "the pair"),
        ((X, Y, Predicts(np.zeros((4, 2)))), ValueError, r"shape \(4, 2\); expected \(4, 1\)"),
        ((X, Y, Predicts(np.full(4, np.nan))), ValueError, "predicts NaN"),
    ],
)
def test_bad_input(arguments, error, text):
    with pytest.raises(error, match=text):
        bz.plot.fit_line(*arguments)


def test_wrong_number_of_features():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    with pytest.raises(ValueError, match="`x` has 1 features; expected 3"):
        bz.plot.fit_line(X, Y, model)
