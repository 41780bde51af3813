"""Data in every form becomes arrays, and a model gets the score that its outputs ask for."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import bigzoo as bz
from bigzoo.compress import _data, _score

X = np.arange(20, dtype="float32").reshape(10, 2)
Y = np.arange(10) % 3


class Pairs(keras.utils.PyDataset):
    """Batches of three rows, in plain Keras."""

    def __len__(self):
        return 4

    def __getitem__(self, index):
        part = slice(3 * index, 3 * index + 3)
        return X[part], Y[part]


class Nothing(keras.utils.PyDataset):
    def __len__(self):
        return 0

    def __getitem__(self, index):
        raise IndexError(index)


@pytest.mark.parametrize(
    "data",
    [
        (X, Y),
        (X, Y, np.ones(10)),
        (X.tolist(), Y.tolist()),
        bz.data.Batches(X, Y, batch_size=4, shuffle=True),
        Pairs(),
    ],
    ids=["pair", "with weights", "lists", "Batches", "PyDataset"],
)
def test_every_form_gives_the_same_arrays(data):
    x, y = _data.rows(data)
    np.testing.assert_array_equal(x, X)
    np.testing.assert_array_equal(y, Y)


def test_without_targets_there_are_none():
    for data in (X, (X,), (X, None), bz.data.Batches(X)):
        x, y = _data.rows(data)
        np.testing.assert_array_equal(x, X)
        assert y is None


@pytest.mark.tensorflow
def test_a_tf_dataset_gives_its_first_rows():
    import tensorflow as tf

    data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(4)
    x, y = _data.rows(data, most=6)
    np.testing.assert_array_equal(x, X[:6])
    np.testing.assert_array_equal(y, Y[:6])
    x, y = _data.rows(data.map(lambda x, y: {"a": x, "b": x}))
    np.testing.assert_array_equal(x["b"], X)
    assert y is None


def test_several_inputs_keep_their_form():
    x, y = _data.rows(([X, Y], Y))
    assert isinstance(x, list)
    np.testing.assert_array_equal(x[1], Y)
    x, y = _data.rows({"a": X, "b": Y}, most=2)
    np.testing.assert_array_equal(x["b"], Y[[0, 5]])
    assert y is None


@pytest.mark.parametrize(
    "data", [(X, Y), bz.data.Batches(X, Y, batch_size=4), Pairs()], ids=["pair", "Batches", "Py"]
)
def test_few_rows_come_from_the_whole_data(data):
    """Folders are sorted by class, so the first rows would all be of one."""
    x, y = _data.rows(data, most=4)
    assert len(x) == len(y) == 4
    assert x[-1, 0] >= 14
    assert len(np.unique(x[:, 0])) == 4


@pytest.mark.parametrize(
    ("data", "error", "text"),
    [
        (None, TypeError, "`calibration` is None; expected arrays"),
        ("pets", TypeError, "`calibration` is 'pets'; expected arrays"),
        (3.0, TypeError, "expected arrays with one row per sample"),
        (iter([X]), TypeError, "expected arrays with one row per sample"),
        ([], ValueError, "`calibration` has no rows"),
        (X[:0], ValueError, "`calibration` has no rows"),
        (Nothing(), ValueError, "`calibration` has no rows"),
        ({}, ValueError, "expected at least one array in the dict"),
        ((X, Y[:4]), ValueError, "arrays of 4 and 10 rows; expected as many in all of them"),
        ((X, Y, Y, Y), ValueError, "is a tuple of 4; expected"),
        (np.array(["a", "b"]), TypeError, "has the dtype <U1; expected numbers"),
        ([[1.0], [1.0, 2.0]], ValueError, "All rows must have the same shape"),
    ],
)
def test_bad_data_is_said(data, error, text):
    with pytest.raises(error) as caught:
        _data.rows(data, name="calibration")
    assert text in str(caught.value)


def test_outputs_of_keeps_the_form_and_the_order():
    sizes = []

    def call(x):
        sizes.append(len(x))
        return {"double": keras.ops.convert_to_tensor(x) * 2, "rows": x[:, 0]}

    found = _data.outputs_of(call, X, batch_size=4)
    assert sizes == [4, 4, 2]
    np.testing.assert_array_equal(found["double"], 2 * X)
    np.testing.assert_array_equal(found["rows"], X[:, 0])


# === Scores ===


def head(units, activation=None):
    return keras.Sequential([keras.Input((2,)), keras.layers.Dense(units, activation)])


THREE = np.array([[0.7, 0.2, 0.1], [0.1, 0.2, 0.7], [0.2, 0.5, 0.3], [0.9, 0.1, 0.0]])


@pytest.mark.parametrize("labels", ["numbers", "column", "one-hot"])
@pytest.mark.parametrize("activation", ["softmax", None])
def test_accuracy_of_classes(labels, activation):
    y = np.array([0, 2, 2, 0])
    given = {"numbers": y, "column": y[:, None], "one-hot": np.eye(3)[y]}[labels]
    assert _score.score_outputs(THREE, given, head(3, activation)) == ("accuracy", 0.75)


def test_accuracy_of_one_unit_and_of_several_questions():
    y = np.array([0, 1, 1, 0])
    answers = np.array([[0.1], [0.8], [0.2], [0.3]])
    assert _score.score_outputs(answers, y, head(1, "sigmoid")) == ("accuracy", 0.75)
    model = head(1)
    model.compile(loss=keras.losses.BinaryCrossentropy(from_logits=True))
    assert _score.score_outputs(answers - 0.5, y, model) == ("accuracy", 0.75)
    two = np.array([[0.9, 0.1], [0.9, 0.9]])
    assert _score.score_outputs(two, np.array([[1, 0], [0, 1]]), head(2, "sigmoid"))[1] == 0.75


def test_numbers_are_scored_by_the_loss():
    y = np.array([1.0, 2.0])
    outputs = np.array([[1.0], [4.0]])
    assert _score.score_outputs(outputs, y, head(1)) == ("mse", 2.0)
    model = head(1)
    model.compile(loss="mae")
    assert _score.score_outputs(outputs, y, model) == ("loss", 1.0)


def test_several_outputs_are_scored_by_the_loss():
    outputs, y = [np.ones((2, 1)), np.zeros((2, 1))], [np.zeros((2, 1)), np.zeros((2, 1))]
    inputs = keras.Input((2,))
    model = keras.Model(inputs, [keras.layers.Dense(1)(inputs), keras.layers.Dense(1)(inputs)])
    assert _score.score_outputs(outputs, y, model) == ("mse", 1.0)
    model.compile(loss=["mse", "mae"])
    assert _score.score_outputs(outputs, y, model) == ("loss", 1.0)


def test_the_score_of_a_model_is_keras_own():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(50, 2)).astype("float32"), rng.integers(0, 3, 50)
    model = head(3, "softmax")
    model.compile(loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    name, value = _score.score(lambda x: model(x, training=False), x, y, model, batch_size=16)
    assert name == "accuracy"
    assert value == pytest.approx(model.evaluate(x, y, verbose=0, return_dict=True)["accuracy"])


def test_labels_of_the_wrong_shape_are_said():
    with pytest.raises(ValueError, match="or one-hot rows of shape"):
        _score.score_outputs(THREE, np.zeros((4, 2), int), head(3, "softmax"))
    with pytest.raises(ValueError, match="expected targets in the form of the outputs"):
        _score.score_outputs(THREE, np.zeros((4, 2)), head(3))


def test_numbers_between_0_and_1_are_no_classes():
    """A sigmoid may end an autoencoder: then the loss is the score, and no class agrees."""
    model = head(2, "sigmoid")
    model.compile(loss="mse")
    pixels = np.array([[0.5, 0.25], [1.0, 0.0]])
    assert _score.score_outputs(pixels, pixels, model) == ("loss", 0.0)
    assert _score.classes_of(model, pixels) is None
    assert _score.classes_of(model, np.round(pixels)) == "multilabel"


@pytest.mark.parametrize(
    ("units", "loss", "kind"),
    [
        (1, "mse", None),
        (3, "mse", None),
        (3, "sparse_categorical_crossentropy", "softmax_logits"),
        (3, "binary_crossentropy", "multilabel_logits"),
        (1, "binary_crossentropy", "sigmoid_logits"),
    ],
)
def test_linear_units_are_what_the_loss_makes_them(units, loss, kind):
    model = head(units)
    model.compile(loss=loss)
    assert _score.classes_of(model) == kind
