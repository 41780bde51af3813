"""`compare`: what it says of two models that are known to differ, and by how much."""

import keras
import numpy as np
import pytest

import bigzoo as bz

RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 4)).astype("float32")


def linear(weights, name="net"):
    x = keras.Input((4,), name="x")
    model = keras.Model(x, keras.layers.Dense(2, "softmax", name="out")(x), name=name)
    model.get_layer("out").set_weights([np.asarray(weights, "float32"), np.zeros(2, "float32")])
    return model


RIGHT = np.array([[1, -1], [0, 0], [0, 0], [0, 0]])
Y = (X[:, 0] < 0).astype("int64")


def test_scores_and_agreement_are_those_of_the_rows():
    found = bz.compress.compare(linear(RIGHT), linear(-RIGHT), (X, Y), latency=False)
    assert (found.before.score, found.after.score) == (1.0, 0.0)
    assert found.score_name == "accuracy"
    assert found.difference.agreement == 0.0
    assert found.score_rows == 40


def test_without_targets_there_is_no_score():
    found = bz.compress.compare(linear(RIGHT), linear(RIGHT), X, latency=False)
    assert found.before.score is None
    assert found.difference.agreement == 1.0
    assert found.latencies == ()


def test_files_and_latencies(tmp_path):
    path = bz.save(linear(RIGHT), tmp_path / "net.keras")
    found = bz.compress.compare(path, linear(RIGHT), X, most=8)
    assert [one.batch_size for one in found.latencies] == [1, 32]
    assert found.difference.samples == 8
    assert "same class named" in str(found)


@pytest.mark.parametrize(
    ("before", "after", "data", "error", "text"),
    [
        (3, 3, X, TypeError, "`before` is 3; expected a keras.Model or the path"),
        (None, 3, X, TypeError, "`after` is 3; expected a keras.Model or the path"),
        (None, 3, X[:0], ValueError, "no rows"),
        (None, "lost.onnx", X, FileNotFoundError, "lost.onnx"),
    ],
)
def test_bad_input(before, after, data, error, text):
    with pytest.raises(error, match=text):
        bz.compress.compare(linear(RIGHT) if before is None else before, after, data)


def test_numbers_name_no_class():
    x = keras.Input((4,))
    model = keras.Model(x, keras.layers.Dense(1)(x))
    found = bz.compress.compare(model, model, (X, X[:, :1]), latency=False)
    assert found.difference.agreement is None
    assert found.score_name == "mse"


def test_rows_go_through_in_batches(monkeypatch):
    from bigzoo.compress import _compare

    sizes = []
    real = _compare.predictor

    def watched(model):
        made = real(model)

        class Watched:
            engine = made.engine

            def __call__(self, x):
                sizes.append(len(x))
                return made(x)

        return Watched()

    monkeypatch.setattr(_compare, "predictor", watched)
    many = np.tile(X, (5, 1))
    bz.compress.compare(linear(RIGHT), linear(RIGHT), many, latency=False)
    assert max(sizes) <= 64 and sum(sizes) == 2 * len(many)
