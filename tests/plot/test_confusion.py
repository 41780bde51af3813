"""The confusion matrix equals scikit-learn's, and shows what it should."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.figure import Figure

import bigzoo as bz
from bigzoo.plot._confusion import count_confusion


def texts(ax):
    return [text.get_text() for text in ax.texts]


@pytest.mark.parametrize("classes", [2, 3, 12])
def test_equal_to_scikit_learn(classes):
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(classes)
    true, guess = rng.integers(0, classes, (2, 500))
    matrix, precision, recall = count_confusion(true, guess, classes)
    np.testing.assert_array_equal(matrix, metrics.confusion_matrix(true, guess))
    np.testing.assert_allclose(precision, metrics.precision_score(true, guess, average=None))
    np.testing.assert_allclose(recall, metrics.recall_score(true, guess, average=None))
    figure = bz.plot.confusion(true, guess)
    shown = [int(text) for text in texts(figure.axes[0])[: classes**2]]
    np.testing.assert_array_equal(np.reshape(shown, (classes, classes)), matrix)
    accuracy = metrics.accuracy_score(true, guess)
    assert figure.axes[0].get_title() == f"accuracy {accuracy:.1%} of 500"


def test_undefined_precision_and_recall_are_dashes():
    ax = bz.plot.confusion([0, 0, 1], [0, 1, 1], ["cat", "dog", "cow"]).axes[0]
    assert texts(ax)[:9] == ["1", "1", "0", "0", "1", "0", "0", "0", "0"]
    assert texts(ax)[9:] == ["50.0%", "100%", "100%", "50.0%", "–", "–"]
    labels = [label.get_text() for label in ax.get_xticklabels()]
    assert labels == ["cat", "dog", "cow", "recall"]
    assert ax.get_yticklabels()[-1].get_text() == "precision"


@pytest.mark.parametrize(
    "guess",
    [
        [1, 0, 1],
        [[1], [0], [1]],
        [1.0, 0.0, 1.0],
        [[0.7], [0.2], [0.5]],
        [0.7, 0.2, 0.5],
        [[0.3, 0.7], [0.6, 0.4], [0.1, 0.9]],
        [[-3.0, 4.0], [2.0, 1.0], [0.0, 5.0]],
        [[0, 1], [1, 0], [0, 1]],
        ["dog", "cat", "dog"],
        [True, False, True],
    ],
)
def test_labels_in_every_form(guess):
    ax = bz.plot.confusion([1, 0, 0], guess, ["cat", "dog"]).axes[0]
    assert texts(ax)[:4] == ["1", "1", "0", "1"]


def test_tensors():
    keras = pytest.importorskip("keras")
    true = keras.ops.convert_to_tensor([1, 0])
    guess = keras.ops.convert_to_tensor([[0.2, 0.8], [0.9, 0.1]])
    assert bz.plot.confusion(true, guess).axes[0].get_title() == "accuracy 100.0% of 2"


def test_many_classes_have_no_numbers_and_few_names():
    labels = np.arange(300)
    ax = bz.plot.confusion(labels, labels).axes[0]
    assert texts(ax) == []
    assert len(ax.get_xticks()) <= 21


def test_own_axes_and_long_names():
    ax = Figure().add_subplot()
    assert bz.plot.confusion([0, 1], [0, 1], ["a" * 50, "b"], ax=ax) is ax
    assert ax.get_xticklabels()[0].get_text() == "a" * 19 + "…"


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        (([0, 1], [0]), ValueError, "`y_true` has 2 rows and `y_pred` 1"),
        (([], []), ValueError, "`y_true` .* expected at least one row"),
        ((None, [0]), TypeError, "`y_true` is None"),
        (([0, 1], None), TypeError, "`y_pred` is None"),
        (([0, -1], [0, 1]), ValueError, "label -1; expected labels from 0 up"),
        (([0, 3], [0, 1], ["cat", "dog"]), ValueError, "`y_true` has the label 3"),
        (([0, 1], [0, 5], ["cat", "dog"]), ValueError, "`y_pred` has the label 5"),
        (([0, 1], [0.2, 1.7]), ValueError, "Logits: apply `keras.ops.sigmoid` first"),
        (([0, 1], [np.nan, 0.2]), ValueError, "`y_pred` has NaN"),
        (([0, 1], ["cat", "dog"]), ValueError, "Give `class_names=`"),
        (([0, 1], ["cat", "cow"], ["cat", "dog"]), ValueError, "`y_pred` has 'cow'"),
        (([0, 1], [0, 1], "cat"), TypeError, "`class_names` is 'cat'"),
        (([0, 9_999_999], [0, 1]), ValueError, "at most 5,000 classes"),
        (([0, 1], [1 + 2j, 0]), TypeError, "`y_pred` .* expected numbers"),
    ],
)
def test_bad_input(arguments, error, text):
    with pytest.raises(error, match=text):
        bz.plot.confusion(*arguments)


def test_bad_axes():
    with pytest.raises(TypeError, match="a matplotlib Axes or None"):
        bz.plot.confusion([0, 1], [0, 1], ax="here")
