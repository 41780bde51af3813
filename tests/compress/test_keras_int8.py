"""Keras' own int8, which must come back from a file as it was."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import bigzoo as bz
from bigzoo.deploy._export import export

L = keras.layers


def text_model():
    ids = keras.Input((6,), dtype="int32")
    x = L.Embedding(60, 32)(ids)
    x = L.LayerNormalization()(x + L.MultiHeadAttention(2, 8, name="mixing")(x, x))
    x = L.Dense(32)(L.Dense(64, "gelu")(x))
    x = L.EinsumDense("abc,cd->abd", (None, 16))(x)
    x = L.Dropout(0.5)(L.GlobalAveragePooling1D()(x))
    model = keras.Model(ids, L.Dense(3, "softmax")(x), name="text")
    model.class_names = ("a", "b", "c")
    return model


def dense_model():
    return keras.Sequential([keras.Input((8,)), L.Dense(16, "relu"), L.Dense(3, "softmax")])


@pytest.fixture
def ids():
    return np.random.default_rng(3).integers(0, 60, (60, 6))


@pytest.fixture
def vectors():
    return np.random.default_rng(0).normal(size=(50, 8)).astype("float32")


def test_attention_is_left_out_so_that_the_file_loads(ids, tmp_path):
    """Trap: Keras can't load what it saves of a quantised MultiHeadAttention."""
    model = text_model()
    before = [np.array(weight) for weight in model.get_weights()]
    small = bz.compress.quantize(model, ids, "keras", min_agreement=0.8, latency=False)
    assert isinstance(small, keras.Model)
    assert small is not model
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))
    modes = {layer.name: getattr(layer, "quantization_mode", None) for layer in small.layers}
    assert list(modes.values()).count("int8") == 5
    assert modes["mixing"] is None
    assert small.class_names == ("a", "b", "c")
    small.save(tmp_path / "small.keras")
    again = keras.saving.load_model(tmp_path / "small.keras")
    answers = small.predict(ids, verbose=0)
    np.testing.assert_allclose(again.predict(ids, verbose=0), answers, atol=1e-6)
    np.testing.assert_allclose(answers, model.predict(ids, verbose=0), atol=0.05)
    receipt = small.receipt
    assert receipt.after.file_bytes < receipt.before.file_bytes
    assert any("% of the weights are in 8 bits" in note for note in receipt.notes)


@pytest.mark.large
def test_quantising_attention_would_break_the_file(ids, tmp_path):
    """What the guard is for. When this fails, Keras has mended it, and the guard can go."""
    model = text_model()
    with pytest.warns(UserWarning, match="does not have a `quantize` method"):
        model.quantize("int8")
    model.save(tmp_path / "model.keras")
    with pytest.raises(ValueError, match=r"received 0|could not be loaded"):
        keras.saving.load_model(tmp_path / "model.keras")


def test_a_model_that_does_not_come_back_is_refused(vectors, monkeypatch):
    monkeypatch.setattr(keras.saving, "load_model", lambda path, **options: dense_model())
    with pytest.raises(ValueError, match="gives other answers after loading"):
        bz.compress.quantize(dense_model(), vectors, "keras", min_agreement=0.5, latency=False)

    def missing(path, **options):
        raise ValueError("Layer 'key' expected 2 variables, but received 0")

    monkeypatch.setattr(keras.saving, "load_model", missing)
    with pytest.raises(ValueError, match=r"doesn't load again .* received 0.* Give target="):
        bz.compress.quantize(dense_model(), vectors, "keras", min_agreement=0.5, latency=False)


@pytest.mark.tensorflow
def test_a_quantised_keras_model_is_not_exported_wrongly(vectors, tmp_path):
    """Trap: OpenVINO computes wrong values with it, and LiteRT refuses it."""
    small = bz.compress.quantize(dense_model(), vectors, "keras", min_agreement=0.5, latency=False)
    with pytest.raises(ValueError, match="quantised by Keras"):
        export(small, tmp_path / "model.tflite")
    pytest.importorskip("openvino")
    with pytest.raises(ValueError, match="quantised by Keras"):
        export(small, tmp_path / "openvino")
    assert list(tmp_path.iterdir()) == []


def convolutions():
    image = keras.Input((8, 8, 3))
    x = L.GlobalAveragePooling2D()(L.Conv2D(4, 3)(image))
    return keras.Model(image, L.Softmax()(x), name="filters")


@pytest.mark.filterwarnings("ignore:.*does not have a `quantize` method")
def test_what_keras_can_not_quantise_is_said(ids):
    with pytest.raises(ValueError, match="'filters' has no Dense, EinsumDense or Embedding layer"):
        bz.compress.quantize(convolutions(), np.zeros((4, 8, 8, 3)), "keras")
    with pytest.raises(ValueError, match="'auto' or 'int8' for the target 'keras'"):
        bz.compress.quantize(text_model(), ids, "keras", "float16")
    quantised = dense_model()
    quantised.quantize("int8", filters="dense")
    with pytest.raises(ValueError, match="is quantised already"):
        bz.compress.quantize(quantised, np.zeros((4, 8)), "keras")


def test_a_convolution_keeps_its_size_and_the_receipt_says_so():
    image = keras.Input((8, 8, 3))
    x = L.GlobalAveragePooling2D()(L.Conv2D(32, 3)(image))
    model = keras.Model(image, L.Dense(3, "softmax")(x))
    x = np.random.default_rng(0).uniform(0, 255, (50, 8, 8, 3)).astype("float32")
    small = bz.compress.quantize(model, x, "keras", min_agreement=0.5, latency=False)
    assert "10% of the weights are in 8 bits" in str(small.receipt)


@pytest.mark.tensorflow
def test_a_slower_model_is_called_slower(monkeypatch, vectors):
    from bigzoo.compress import _judge
    from bigzoo.deploy._latency import Latency

    times = (Latency(1, 1.0, 4.0, 0.25, 0.2, 0.3),)
    monkeypatch.setattr(_judge, "measure_latencies", lambda *given: times)
    small = bz.compress.quantize(dense_model(), vectors, "keras", min_agreement=0.5)
    assert "It got slower at batch 1." in str(small.receipt)
