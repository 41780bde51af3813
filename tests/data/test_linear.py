"""linear: the law it says, in the shapes that models take."""

import numpy as np
import pytest

import bigzoo as bz


def test_shapes_and_dtypes():
    x, y = bz.data.linear()
    assert x.shape == (100, 2) and y.shape == (100, 1)
    assert x.dtype == y.dtype == np.float32
    assert bz.data.linear(7, weights=[1.0])[0].shape == (7, 1)


def test_weights_bias_and_noise_are_recovered():
    x, y = bz.data.linear(20000, weights=(3.0, -2.0, 0.5), bias=1.5, noise=0.1)
    columns = np.concatenate([x, np.ones((len(x), 1))], axis=1)
    solution, residual, *_ = np.linalg.lstsq(columns, y[:, 0], rcond=None)
    np.testing.assert_allclose(solution, [3.0, -2.0, 0.5, 1.5], atol=0.005)
    assert np.sqrt(residual[0] / len(x)) == pytest.approx(0.1, rel=0.03)


def test_without_noise_the_law_is_exact():
    x, y = bz.data.linear(50, noise=0)
    np.testing.assert_allclose(y[:, 0], x @ [3.0, 2.0], atol=1e-5)


def test_the_same_for_a_seed():
    for first, second in zip(bz.data.linear(seed=1), bz.data.linear(seed=1), strict=True):
        np.testing.assert_array_equal(first, second)
    assert not np.array_equal(bz.data.linear(seed=1)[0], bz.data.linear(seed=2)[0])


@pytest.mark.parametrize(
    "arguments, error, text",
    [
        ({"n": 0}, ValueError, "`n` is 0; expected an integer at least 1"),
        ({"n": 2.5}, TypeError, "`n` is 2.5"),
        ({"weights": ()}, ValueError, r"`weights` is \(\)"),
        ({"weights": 3.0}, TypeError, "one per feature"),
        ({"weights": "32"}, TypeError, "one per feature"),
        ({"weights": (1.0, "a")}, TypeError, r"`weights\[1\]` is 'a'"),
        ({"weights": (1.0, float("nan"))}, ValueError, r"`weights\[1\]` is nan"),
        ({"noise": -1}, ValueError, "`noise` is -1"),
        ({"bias": float("inf")}, ValueError, "`bias` is inf"),
        ({"seed": -1}, ValueError, "`seed` is -1"),
    ],
)
def test_bad_input(arguments, error, text):
    with pytest.raises(error, match=text):
        bz.data.linear(**arguments)
