"""What a file is compared on, and that each way to be wrong is found."""

from __future__ import annotations

from functools import partial

import keras
import numpy as np
import pytest

from bigzoo.deploy._compiled import answer
from bigzoo.deploy._export import _check_copy
from bigzoo.deploy._signature import signature_of
from bigzoo.deploy._verify import is_blind, make_checks, verify

L = keras.layers


def dense(**more):
    return keras.Sequential([keras.Input((4,), name="x"), L.Dense(3, name="y", **more)])


def any_length():
    x = keras.Input((None, 2), name="x")
    return keras.Model(x, L.Dense(3, name="y")(x))


def run(model, call, sample=None, tolerance=1e-5):
    signature = signature_of(model)
    return verify(make_checks(model, signature, sample), call, signature, tolerance, "m.onnx")


@pytest.mark.parametrize("make", [dense, any_length])
def test_right_answers_pass(make):
    model = make()
    assert all(one.relative == 0 for one in run(model, partial(answer, model)))


def wrong_row(call, size):
    """A file that is right but for the last row of batches of one size."""

    def answer(x):
        found = np.array(call(x))
        if len(x) == size:
            found[-1] *= 1.01
        return found

    return answer


@pytest.mark.parametrize(
    ("sample", "size", "where"),
    [(None, 1, "batch 1"), (None, 3, "batch 3"), (None, 8, "8 rows"), (50, 50, "50 rows")],
)
def test_every_row_counts(sample, size, where):
    model = dense()
    rows = None if sample is None else np.random.default_rng(0).normal(size=(sample, 4))
    with pytest.raises(ValueError, match=rf"'m.onnx' was not written: its output 'y'.* at {where}"):
        run(model, wrong_row(partial(answer, model), size), rows)


@pytest.mark.parametrize("rows", [1, 2])
def test_a_file_that_mixes_rows_up_is_found_on_few_of_them(rows):
    model = dense()
    call = partial(answer, model)
    sample = np.random.default_rng(0).normal(size=(rows, 4)).astype("float32")
    with pytest.raises(ValueError, match="at batch 3" if rows == 1 else "at"):
        run(model, lambda x: np.repeat(call(x[:1]), len(x), axis=0), sample)
    assert run(model, call, sample)[-1].samples == rows


def test_a_file_that_kept_a_length_is_found():
    model = any_length()
    call = partial(answer, model)

    def kept(x):
        if x.shape[1] != 8:
            raise ValueError("Got invalid dimensions")
        return call(x)

    text = r"it fails at inputs of the shape \(5, 2\): Got invalid dimensions. .*a fixed size"
    with pytest.raises(ValueError, match=text):
        run(model, kept)


def test_other_sizes_that_the_model_refuses_are_left_out():
    x = keras.Input((None,), name="x")
    model = keras.Model(x, L.Reshape((-1, 4))(x))
    assert [check.where for check in make_checks(model, signature_of(model))] == [
        "batch 1",
        "batch 3",
        "8 rows",
    ]


def test_outputs_that_are_all_zero():
    """Relative to 0, any rounding would be infinite: the difference itself counts."""
    model = dense(kernel_initializer="zeros")
    assert run(model, lambda x: np.full((len(x), 3), 1e-9))[0].largest == 1e-9
    with pytest.raises(ValueError, match=r"differs by 0\.001 "):
        run(model, lambda x: np.full((len(x), 3), 1e-3))
    x = keras.Input((4,))
    both = keras.Model(x, [L.Dense(1, kernel_initializer="zeros")(x), L.Dense(1)(x)])
    call = partial(answer, both)
    with pytest.raises(ValueError, match=r"differs by 0\.0\d+ "):  # the other output decides
        run(both, lambda x: [np.full((len(x), 1), 1e-9), np.asarray(call(x)[1]) * 1.01])


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_wrong_numbers_are_found(wrong):
    with pytest.raises(ValueError, match="differs by inf"):
        run(dense(), lambda x: np.full((len(x), 3), wrong))


def test_answers_that_tell_no_rows_apart():
    saturated = keras.Sequential([keras.Input((8, 8, 3)), L.Flatten(), L.Dense(2, "softmax")])
    saturated.layers[-1].kernel.assign(np.full((192, 2), [[1.0, -1.0]]))
    checks = make_checks(saturated, signature_of(saturated))
    assert checks[2].where == "small inputs"  # pixels of 0-1 tell more
    assert checks[2].x.max() <= 1
    assert is_blind(checks[-1])
    assert not is_blind(make_checks(dense(), signature_of(dense()))[-1])


class Noise(keras.layers.Layer):
    def __init__(self):
        super().__init__()
        self.seed = keras.random.SeedGenerator(0)

    def call(self, x):
        return x + keras.random.normal((3,), seed=self.seed)


def test_random_models_are_named():
    model = keras.Sequential([keras.Input((3,)), Noise()])
    with pytest.raises(ValueError, match="other answers at each call: take out what is random"):
        run(model, partial(answer, model))


class Logarithm(keras.layers.Layer):
    def call(self, x):
        return keras.ops.log(x)


def not_a_number():
    return keras.Sequential([keras.Input((3,)), Logarithm()])


def of_seven():
    return keras.Sequential([keras.Input((None,)), L.Reshape((7,))])


@pytest.mark.parametrize(
    ("make", "sample", "text"),
    [
        (not_a_number, None, "gives NaN for inputs that were made up. Give `sample`: rows of real"),
        (not_a_number, -np.ones((2, 3)), "gives NaN for `sample`. Give rows on which it doesn't"),
        (of_seven, None, "fails on inputs that were made up: .*Give `sample`: rows of real input"),
    ],
)
def test_models_without_answers(make, sample, text):
    model = make()
    with pytest.raises(ValueError, match=text):
        make_checks(model, signature_of(model), sample)


def test_a_wrong_shape_of_outputs_is_found():
    model = dense()
    with pytest.raises(ValueError, match=r"it fails at batch 1: The outputs have the shapes"):
        run(model, lambda x: np.zeros((len(x), 4)))


def test_copies_in_float32():
    for near in (0.0, 0.03, np.inf):  # infinite: 16 bits overflow
        _check_copy(near)
    with pytest.raises(ValueError, match="in float32 differs from it by 0"):
        _check_copy(0.9)
