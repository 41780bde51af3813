"""Every last activation with every loss and every kind of labels, against a truth table."""

from __future__ import annotations

import functools

import keras
import numpy as np
import pytest

from bigzoo.train import _check

losses = keras.losses
ROWS = 60

# E error, W warning, . no finding. Columns: activation and number of units.
COLUMNS = (
    "softmax 3",
    "softmax 1",
    "sigmoid 1",
    "sigmoid 3",
    "linear 1",
    "linear 3",
    "relu 1",
    "relu 3",
    "tanh 1",
    "tanh 3",
    "softplus 1",
)
TABLE = """
sparse        | int (n,)    | . E E W E E E E E E E
sparse        | int (n, 1)  | . E E W E E E E E E E
sparse        | one-hot     | E E E E E E E E E E E
sparse        | multi-hot   | E E E E E E E E E E E
sparse        | float (n,)  | E E E E E E E E E E E
sparse        | float (n, 1)| E E E E E E E E E E E
sparse        | float (n, 3)| E E E E E E E E E E E
sparse_logits | int (n,)    | E E E E E . E W E W E
sparse_logits | int (n, 1)  | E E E E E . E W E W E
sparse_logits | one-hot     | E E E E E E E E E E E
sparse_logits | multi-hot   | E E E E E E E E E E E
sparse_logits | float (n,)  | E E E E E E E E E E E
sparse_logits | float (n, 3)| E E E E E E E E E E E
categorical   | int (n,)    | E E E E E E E E E E E
categorical   | int (n, 1)  | E E E E E E E E E E E
categorical   | one-hot     | . E E W E E E E E E E
categorical   | multi-hot   | E E E E E E E E E E E
categorical   | float (n,)  | E E E E E E E E E E E
categorical   | float (n, 1)| E E E E E E E E E E E
categorical   | float (n, 3)| E E E E E E E E E E E
cat_logits    | int (n,)    | E E E E E E E E E E E
cat_logits    | one-hot     | E E E E E . E W E W E
cat_logits    | multi-hot   | E E E E E E E E E E E
cat_logits    | float (n, 3)| E E E E E E E E E E E
binary        | int (n,)    | E E . E E E E E E E E
binary        | int (n, 1)  | E E . E E E E E E E E
binary        | one-hot     | W E E . E E E E E E E
binary        | multi-hot   | E E E . E E E E E E E
binary        | float (n,)  | E E E E E E E E E E E
binary        | float (n, 1)| E E E E E E E E E E E
binary        | float (n, 3)| E E E E E E E E E E E
bin_logits    | int (n,)    | E E E E . E W E W E W
bin_logits    | int (n, 1)  | E E E E . E W E W E W
bin_logits    | one-hot     | E E E E E . E W E W E
bin_logits    | multi-hot   | E E E E E . E W E W E
bin_logits    | float (n,)  | E E E E E E E E E E E
bin_logits    | float (n, 3)| E E E E E E E E E E E
mse           | int (n,)    | E E W E W E W E W E W
mse           | int (n, 1)  | E E W E W E W E W E W
mse           | one-hot     | W E E W E W E W E W E
mse           | multi-hot   | W E E W E . E . E . E
mse           | float (n,)  | E E E E . E E E E E E
mse           | float (n, 1)| E E E E . E E E E E E
mse           | float (n, 3)| E E E E E . E E E E E
mae           | int (n,)    | E E W E W E W E W E W
mae           | float (n, 1)| E E E E . E E E E E E
huber         | one-hot     | W E E W E W E W E W E
huber         | float (n, 3)| E E E E E . E E E E E
hinge         | int (n,)    | E E W E . E W E . E W
hinge         | int (n, 1)  | E E W E . E W E . E W
hinge         | one-hot     | W E E W E . E W E . E
hinge         | multi-hot   | W E E W E . E W E . E
hinge         | float (n,)  | E E E E E E E E E E E
hinge         | float (n, 3)| E E E E E E E E E E E
cat_hinge     | int (n,)    | E E W E . E W E . E W
cat_hinge     | one-hot     | . E E W E . E W E . E
cat_hinge     | multi-hot   | E E E E E E E E E E E
kl            | int (n,)    | E E E E E E E E E E E
kl            | int (n, 1)  | E E E E E E E E E E E
kl            | one-hot     | . E E E E E E E E E E
kl            | multi-hot   | E E E E E E E E E E E
kl            | float (n, 3)| E E E E E E E E E E E
poisson       | int (n,)    | E E W E E E W E E E .
poisson       | int (n, 1)  | E E W E E E W E E E .
poisson       | one-hot     | W E E W E E E W E E E
poisson       | float (n,)  | E E E E E E E E E E E
poisson       | float (n, 3)| E E E E E E E E E E E
"""
LOSSES = {
    "sparse": "sparse_categorical_crossentropy",
    "sparse_logits": losses.SparseCategoricalCrossentropy(from_logits=True),
    "categorical": "categorical_crossentropy",
    "cat_logits": losses.CategoricalCrossentropy(from_logits=True),
    "binary": "binary_crossentropy",
    "bin_logits": losses.BinaryCrossentropy(from_logits=True),
    "mse": "mse",
    "mae": "mae",
    "huber": "huber",
    "hinge": "hinge",
    "cat_hinge": "categorical_hinge",
    "kl": "kl_divergence",
    "poisson": "poisson",
}
ENTRIES = [[cell.strip() for cell in line.split("|")] for line in TABLE.strip().splitlines()]


@functools.cache
def model_of(column: str, loss: str | None = None) -> keras.Model:
    activation, units = column.split()
    layer = keras.layers.Dense(int(units), activation=activation)
    model = keras.Sequential([keras.Input((4,)), layer])
    if loss is not None:
        model.compile(loss=LOSSES[loss])
    return model


def labels_of(kind: str, units: int) -> np.ndarray:
    """Labels that one output of `units` units could have; two classes for a single unit."""
    rng = np.random.default_rng(1)
    classes = max(units, 2)
    whole = np.arange(ROWS) % classes
    bits = [(np.arange(ROWS) // 2**i) % 2 for i in range(classes)]
    return {
        "int (n,)": whole,
        "int (n, 1)": whole[:, None],
        "one-hot": np.eye(classes)[whole],
        "multi-hot": np.stack(bits, axis=1),
        "float (n,)": rng.normal(size=ROWS),
        "float (n, 1)": rng.normal(size=(ROWS, 1)),
        "float (n, 3)": rng.normal(size=(ROWS, 3)),
    }[kind]


def verdict(model: keras.Model, y: np.ndarray) -> str:
    x = np.random.default_rng(0).normal(size=(len(y), 4)).astype("float32")
    report = _check.check(model, x, y)
    assert report.notes == []
    return "E" if report.errors else "W" if report.warnings else "."


@pytest.mark.parametrize("loss, kind, row", ENTRIES, ids=lambda cell: cell)
def test_truth_table(loss, kind, row, monkeypatch):
    monkeypatch.setattr(_check, "check_gradient", lambda *_: [])
    expected = dict(zip(COLUMNS, row.split(), strict=True))
    got = {}
    for column in COLUMNS:
        got[column] = verdict(model_of(column, loss), labels_of(kind, int(column.split()[1])))
    assert got == expected


FORMS = [
    # (the same loss in several forms), activation, units, kind of labels, verdict
    (
        ("bce", losses.BinaryCrossentropy(), losses.binary_crossentropy),
        "sigmoid 1",
        "int (n,)",
        ".",
    ),
    (("bce", losses.BinaryCrossentropy(), losses.binary_crossentropy), "linear 1", "int (n,)", "E"),
    (
        (
            functools.partial(losses.binary_crossentropy, from_logits=True),
            functools.partial(functools.partial(losses.binary_crossentropy, from_logits=True)),
            losses.BinaryCrossentropy(from_logits=True),
            losses.BinaryFocalCrossentropy(from_logits=True),
        ),
        "sigmoid 1",
        "int (n,)",
        "E",
    ),
    (
        (
            functools.partial(losses.sparse_categorical_crossentropy, from_logits=True),
            losses.SparseCategoricalCrossentropy(from_logits=True),
        ),
        "softmax 3",
        "int (n,)",
        "E",
    ),
    (
        (losses.SparseCategoricalCrossentropy(), losses.sparse_categorical_crossentropy),
        "softmax 3",
        "one-hot",
        "E",
    ),
    (
        (losses.CategoricalCrossentropy(), losses.CategoricalFocalCrossentropy()),
        "softmax 3",
        "int (n,)",
        "E",
    ),
    (
        ("mean_squared_error", losses.MeanSquaredError(), losses.mean_squared_error, "log_cosh"),
        "softmax 3",
        "one-hot",
        "W",
    ),
    ((losses.KLDivergence(), losses.kl_divergence), "sigmoid 3", "one-hot", "E"),
    ((losses.Hinge(), losses.SquaredHinge(), "squared_hinge"), "sigmoid 1", "int (n,)", "W"),
    ((losses.Poisson(), losses.poisson), "linear 1", "int (n,)", "E"),
    ((lambda y, p: keras.ops.square(y - p),), "softmax 3", "int (n,)", "."),  # not known: no guess
]


@pytest.mark.parametrize("forms, column, kind, expected", FORMS)
def test_every_form_of_a_loss_is_known(forms, column, kind, expected, monkeypatch):
    monkeypatch.setattr(_check, "check_gradient", lambda *_: [])
    for form in forms:
        model = model_of(column)
        model.compile(loss=form)
        assert verdict(model, labels_of(kind, int(column.split()[1]))) == expected, form


def test_activation_as_its_own_layer_counts():
    layers = [keras.Input((4,)), keras.layers.Dense(3), keras.layers.Softmax()]
    model = keras.Sequential(layers)
    model.compile(loss=losses.SparseCategoricalCrossentropy(from_logits=True))
    assert verdict(model, labels_of("int (n,)", 3)) == "E"


def test_softmax_of_two_with_binary_crossentropy_is_right():
    """Over two units that sum to 1, both crossentropies are the same number."""
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, activation="softmax")])
    model.compile(loss="binary_crossentropy")
    assert verdict(model, labels_of("one-hot", 2)) == "."
    guess = np.array([[0.2, 0.8], [0.7, 0.3]], "float32")
    truth = np.eye(2, dtype="float32")
    binary = keras.ops.convert_to_numpy(losses.binary_crossentropy(truth, guess))
    categorical = keras.ops.convert_to_numpy(losses.categorical_crossentropy(truth, guess))
    np.testing.assert_allclose(binary, categorical, rtol=1e-5)


class Broadcasting(keras.Loss):
    def call(self, y_true, y_pred):
        return keras.ops.square(y_true - y_pred)


class Careful(keras.Loss):
    def call(self, y_true, y_pred):
        return keras.ops.square(keras.ops.reshape(y_true, (-1, 1)) - y_pred)


ELEMENTWISE = [
    ("mse", losses.MeanSquaredError(), lambda y, p: (y - p) ** 2),
    ("mae", losses.MeanAbsoluteError(), lambda y, p: abs(y - p)),
    ("poisson", losses.Poisson(), lambda y, p: p - y * np.log(p + 1e-7)),
    ("hinge", losses.Hinge(), lambda y, p: np.maximum(1 - (2 * y - 1) * p, 0)),
    (
        "binary",
        losses.BinaryCrossentropy(),
        lambda y, p: -(y * np.log(p) + (1 - y) * np.log(1 - p)),
    ),
    ("careful", Careful(), lambda y, p: (y - p) ** 2),
    ("broadcasting", Broadcasting(), lambda y, p: (y - p) ** 2),
]
SHAPES = [((6,), 1), ((6, 1), 1), ((6, 1, 1), 1), ((6, 1), 3), ((6,), 3), ((6, 3), 1), ((6, 3), 3)]


@pytest.mark.parametrize("name, loss, formula", ELEMENTWISE, ids=lambda value: str(value)[:12])
@pytest.mark.parametrize("y_shape, units", SHAPES, ids=str)
def test_shape_is_an_error_only_where_keras_computes_another_number(
    name, loss, formula, y_shape, units, monkeypatch
):
    """Truth: pair label i with output i in numpy. Keras may agree, disagree or refuse."""
    monkeypatch.setattr(_check, "check_gradient", lambda *_: [])
    rng = np.random.default_rng(3)
    y = (rng.random(y_shape) < 0.5).astype("float32")
    y.flat[:2] = 0, 1
    guess = rng.uniform(0.1, 0.9, (6, units)).astype("float32")
    try:
        keras_value = float(keras.ops.convert_to_numpy(loss(y, guess)))
    except Exception:  # TensorFlow and JAX refuse shapes with errors of their own
        keras_value = np.nan
    right = y.size == guess.size and np.isclose(
        keras_value, formula(y.reshape(guess.shape), guess).mean(), rtol=1e-5
    )
    model = model_of(f"{'sigmoid' if name == 'binary' else 'softplus'} {units}")
    model.compile(loss=loss)
    x = rng.normal(size=(6, 4)).astype("float32")
    codes = {finding.code for finding in _check.check(model, x, y).errors}
    own = isinstance(loss, (Careful, Broadcasting))
    if own and (name == "careful" or (y_shape, units) != ((6,), 1)) and not right:
        return  # nothing is claimed about what a loss of one's own does with other shapes
    shape_codes = {"label-shape", "label-broadcast", "integer-labels"}
    assert bool(codes & shape_codes) == (not right)
    if codes and not np.isnan(keras_value) and name != "broadcasting":
        assert codes == {"label-broadcast"}
