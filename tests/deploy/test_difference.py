"""The comparison on which exports stand or fall: it finds what is wrong, and only that."""

import numpy as np
import pytest

from bigzoo.deploy._difference import agreement, difference

RIGHT = np.array([[0.9, 0.1], [0.2, 0.8]], "float32")


def test_equal_outputs_have_no_difference():
    found = difference(RIGHT, RIGHT.copy(), "softmax")
    assert (found.largest, found.relative, found.agreement, found.samples) == (0.0, 0.0, 1.0, 2)


def test_relative_is_to_the_largest_value_of_that_output():
    wrong = RIGHT.copy()
    wrong[0, 1] += 0.09
    found = difference(RIGHT, wrong)
    assert found.largest == pytest.approx(0.09)
    assert found.relative == pytest.approx(0.1)
    assert found.agreement is None


def test_the_worst_of_several_outputs_counts():
    big, small = 1000 * np.ones((2, 3)), 0.01 * np.ones((2, 1))
    found = difference({"a": big, "b": small}, {"a": big + 0.01, "b": small + 0.001})
    assert found.largest == pytest.approx(0.01)
    assert found.relative == pytest.approx(0.1)
    assert found.output == 1


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_is_infinitely_far(bad):
    wrong = RIGHT.copy()
    wrong[1, 1] = bad
    found = difference(RIGHT, wrong, "softmax")
    assert found.largest == found.relative == np.inf
    assert found.agreement == 0.5


def test_the_same_infinity_is_no_difference():
    one = np.array([[-np.inf, 1.0]])
    assert difference(one, one.copy()).relative == 0.0


def test_beside_zeros_the_difference_itself_counts():
    assert difference(np.zeros((1, 2)), np.full((1, 2), 1e-9)).relative == 1e-9
    assert difference(np.zeros((1, 2)), np.array([[0, np.inf]])).relative == np.inf


@pytest.mark.parametrize(
    ("kind", "expected", "got", "share"),
    [
        ("softmax", [[0.6, 0.4], [0.6, 0.4]], [[0.9, 0.1], [0.4, 0.6]], 0.5),
        ("classes", [[[1.0, 2.0], [2.0, 1.0]]], [[[1.0, 2.0], [1.0, 2.0]]], 0.5),
        ("sigmoid", [[0.4], [0.6]], [[0.6], [0.7]], 0.5),
        ("sigmoid_logits", [[-0.1], [0.1]], [[-2.0], [0.4]], 1.0),
        ("multilabel", [[0.6, 0.6], [0.1, 0.1]], [[0.6, 0.4], [0.2, 0.2]], 0.5),
        ("multilabel_logits", [[0.2, -0.2]], [[0.4, -0.4]], 1.0),
    ],
)
def test_agreement(kind, expected, got, share):
    assert agreement(np.array(expected), np.array(got), kind) == share


@pytest.mark.parametrize(
    ("expected", "got", "kind", "text"),
    [
        (RIGHT, RIGHT[:1], None, r"the shapes \[\(1, 2\)\]; expected \[\(2, 2\)\]"),
        (RIGHT, [RIGHT, RIGHT], None, "the shapes"),
        (RIGHT[:0], RIGHT[:0], None, "no outputs to compare"),
        (RIGHT, RIGHT, "regression", "expected a kind of classifier"),
    ],
)
def test_what_can_not_be_compared(expected, got, kind, text):
    with pytest.raises(ValueError, match=text):
        difference(expected, got, kind)
