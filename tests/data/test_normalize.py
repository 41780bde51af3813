"""normalize: statistics of the training part alone, usable on new data."""

import pickle

import keras
import numpy as np
import pytest

import bigzoo as bz
from bigzoo.data import Batches, Normalizer, normalize


def test_equals_scikit_learn_and_ignores_validation():
    sklearn = pytest.importorskip("sklearn.preprocessing")
    rng = np.random.default_rng(0)
    train, val = rng.normal(5, 3, (200, 4)) * [1, 10, 100, 1e-3], rng.normal(size=(20, 4))
    scaler = sklearn.StandardScaler().fit(train)
    new_train, new_val, normalizer = normalize(train, val)
    np.testing.assert_allclose(new_train, scaler.transform(train), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(new_val, scaler.transform(val), rtol=1e-5, atol=1e-5)
    assert new_train.dtype == new_val.dtype == np.float32
    _, _, same = normalize(train, val * 1000)
    np.testing.assert_array_equal(same.mean, normalizer.mean)
    np.testing.assert_allclose(normalizer(val), new_val)
    np.testing.assert_allclose(normalizer.undo(new_val), val, rtol=1e-3, atol=1e-4)


def test_the_input_is_left_as_it_was():
    train = np.array([[1.0], [3.0]])
    normalize(train)
    assert train.tolist() == [[1.0], [3.0]]


def test_without_validation():
    train, val, normalizer = normalize(np.array([1.0, 3.0]))
    assert train.tolist() == [-1, 1] and val is None
    assert isinstance(normalizer, Normalizer)


def test_statistics_are_exact_over_many_blocks(monkeypatch):
    monkeypatch.setattr("bigzoo.data._rows._READ_BYTES", 100)
    x = np.random.default_rng(0).normal(1e6, 1, (1000, 3))
    normalizer = normalize(x)[2]
    np.testing.assert_allclose(normalizer.mean, x.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(normalizer.std, x.std(axis=0), rtol=1e-9)


def test_images_are_scaled_per_channel():
    images = np.random.default_rng(0).integers(0, 256, (10, 4, 5, 3)).astype("uint8")
    scaled = normalize(images)[0]
    assert scaled.shape == images.shape and scaled.dtype == np.float32
    np.testing.assert_allclose(scaled.mean(axis=(0, 1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(scaled.std(axis=(0, 1, 2)), 1, atol=1e-5)


def test_batches_keep_targets_and_settings():
    x = np.arange(20.0).reshape(10, 2)
    batches = Batches(x, np.arange(10) % 2, batch_size=4, shuffle=True, class_names=["a", "b"])
    train, val, normalizer = normalize(*bz.data.split(batches))
    assert train.shuffle and not val.shuffle and val.class_names == ("a", "b")
    np.testing.assert_allclose(train.arrays()[0].mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(normalizer.mean, bz.data.split(batches)[0].x.mean(axis=0))
    assert batches.x is x and train.batch_size == 4
    assert set(np.concatenate([y for _, y in train])) == {0, 1}


def test_constant_columns_are_said_and_not_scaled():
    x = np.array([[1.0, 7.7], [3.0, 7.7]])
    with pytest.warns(UserWarning, match=r"Constant in the training part: x\[1\]"):
        train, val, normalizer = normalize(x, np.array([[1.0, 8.7]]))
    assert train[:, 1].tolist() == [0, 0]
    assert val[0, 1] == pytest.approx(1.0)
    assert normalizer.constant == ("x[1]",)


def test_dicts():
    train = {"a": np.array([0.0, 2.0]), "b": np.array([[0.0, 1.0], [4.0, 3.0]])}
    scaled, _, normalizer = normalize(train)
    assert scaled["a"].tolist() == [-1, 1] and scaled["b"].tolist() == [[-1, -1], [1, 1]]
    with pytest.raises(TypeError, match="not several inputs"):
        normalizer.layer()
    with pytest.raises(ValueError, match=r"expected \[\"x\['a'\]\", \"x\['b'\]\"\]"):
        normalizer({"a": train["a"]})


def test_layer_does_the_same_inside_a_model():
    x = np.random.default_rng(0).normal(3, 2, (50, 4))
    scaled, _, normalizer = normalize(x)
    model = keras.Sequential([keras.Input((4,)), normalizer.layer()])
    np.testing.assert_allclose(model.predict(x, verbose=0), scaled, atol=1e-5)


def test_pickle():
    normalizer = normalize(np.array([1.0, 3.0]))[2]
    assert pickle.loads(pickle.dumps(normalizer))(np.array([5.0])).tolist() == [3.0]


X = np.arange(6.0).reshape(3, 2)
BAD = {
    "NaN": ((np.array([[1.0, np.nan]]),), ValueError, r"NaN or infinity \(feature 1\)"),
    "infinity": ((np.array([[np.inf, 1.0]]),), ValueError, r"NaN or infinity \(feature 0\)"),
    "width": ((X, X[:, :1]), ValueError, r"`x` has 1 features \(shape \(3, 1\)\); expected 2"),
    "kinds": ((Batches(X), X), TypeError, "`val` is ndarray beside Batches"),
    "text": ((np.array(["a"]),), TypeError, "bigzoo.data.csv"),
    "no rows": ((X[:0],), ValueError, "no rows"),
    "none": ((None,), TypeError, "`x` is None"),
}


@pytest.mark.parametrize("arguments, error, text", BAD.values(), ids=BAD)
def test_bad_input(arguments, error, text):
    with pytest.raises(error, match=text):
        normalize(*arguments)
