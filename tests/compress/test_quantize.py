"""Quantisation: what is tried, what is kept, and what bad data are told."""

from __future__ import annotations

import gc

import keras
import numpy as np
import pytest

import bigzoo as bz
from bigzoo.compress import _judge
from bigzoo.compress._calibration import check_scale, samples_of
from bigzoo.compress._candidates import candidates
from bigzoo.compress._judge import explained
from bigzoo.deploy._convert import convert
from bigzoo.deploy._export import export
from bigzoo.deploy._latency import Latency
from bigzoo.deploy._runtime import open_file
from bigzoo.deploy._signature import signature_of, to_flat

L = keras.layers


def mlp(units=6):
    layers = [keras.Input((16,)), L.Dense(64, "relu"), L.Dense(64, "relu"), L.Dense(units)]
    model = keras.Sequential([*layers, L.Softmax()], name="digits")
    model.class_names = tuple("abcdefgh"[:units])
    return model


def cnn(scale=1 / 255, **convolution):
    image = keras.Input((12, 12, 3))
    x = L.Rescaling(scale, name="preprocess")(image) if scale else image
    x = L.RandomFlip()(x)
    x = L.BatchNormalization(name="norm")(L.Conv2D(12, 3, use_bias=False, **convolution)(x))
    x = L.GlobalAveragePooling2D()(L.ReLU()(x))
    return keras.Model(image, L.Dense(5, "softmax")(x), name="cnn")


def attention():
    ids = keras.Input((6,), dtype="int32")
    x = L.Embedding(40, 8)(ids)
    x = L.LayerNormalization()(x + L.MultiHeadAttention(2, 4)(x, x))
    return keras.Model(ids, L.Dense(2, "softmax")(L.GlobalAveragePooling1D()(x)))


def depthwise():
    image = keras.Input((12, 12, 3))
    x = L.DepthwiseConv2D(3)(image)
    return keras.Model(image, L.Dense(2)(L.GlobalAveragePooling2D()(x)))


@pytest.fixture
def rng():
    return np.random.default_rng(5)


@pytest.fixture
def vectors(rng):
    return rng.normal(size=(80, 16)).astype("float32")


@pytest.fixture
def pixels(rng):
    """Images that differ from one another more than noise does."""
    colours = rng.uniform(0, 255, (80, 1, 1, 3))
    return np.clip(colours + rng.normal(0, 40, (80, 12, 12, 3)), 0, 255).astype("float32")


def patch_latency(monkeypatch, speeds):
    """Latencies for one candidate after the other, at both batch sizes, instead of measuring."""
    left = list(speeds)

    def fake(before, after, x, batch_sizes=(1, 32), seconds=1.0):
        speeds = left.pop(0)
        speeds = speeds if isinstance(speeds, tuple) else (speeds, speeds)
        pairs = zip(batch_sizes, speeds, strict=True)
        return tuple(Latency(n, 1.0, 1 / speed, speed, speed, speed) for n, speed in pairs)

    monkeypatch.setattr(_judge, "measure_latencies", fake)


# === What is tried ===


@pytest.mark.parametrize(
    ("model", "target", "calibrated", "rounds"),
    [
        (mlp, "litert", True, [["dynamic", "int8", "float16"]]),
        (mlp, "litert", False, [["dynamic", "float16"]]),
        (mlp, "onnx", True, [["dynamic", "int8"]]),
        (cnn, "litert", True, [["dynamic", "int8", "float16"]]),
        (cnn, "onnx", True, [["int8"]]),  # dynamic is 3 to 10 times slower there
        (depthwise, "litert", True, [["int8", "float16"]]),  # dynamic is slower
        (depthwise, "onnx", True, [["int8"]]),
        (attention, "litert", True, [["dynamic", "float16"], ["int8"]]),
        (attention, "onnx", True, [["dynamic"], ["int8"]]),
        (attention, "onnx", False, [["dynamic"]]),
    ],
)
def test_what_is_tried_goes_by_the_layers(model, target, calibrated, rounds):
    assert candidates(model(), target, "auto", calibrated) == rounds


def test_a_grouped_convolution_of_one_channel_each_is_depthwise():
    image = keras.Input((8, 8, 4))
    model = keras.Model(image, L.Conv2D(4, 3, groups=4)(image))
    assert candidates(model, "litert", "auto", True) == [["int8", "float16"]]


def test_a_mode_that_is_asked_for_is_the_only_one():
    assert candidates(cnn(), "onnx", "dynamic", False) == [["dynamic"]]


# === What is kept ===


@pytest.mark.tensorflow
def test_the_smallest_good_one_is_kept_and_all_are_told(monkeypatch, vectors, tmp_path):
    patch_latency(monkeypatch, [0.5, 3.0, 2.0])
    model = mlp()
    labels = model.predict(vectors, verbose=0).argmax(axis=1)
    small = bz.compress.quantize(model, (vectors, labels), min_agreement=0.8)
    assert small.mode == "int8"
    assert small.engine == "litert"
    assert small.class_names == model.class_names
    receipt = small.receipt
    assert [trial.name for trial in receipt.tried] == ["dynamic", "int8", "float16"]
    said = [trial.verdict for trial in receipt.tried]
    assert said == ["slower at batch 1 and 32", "taken", "good, but larger than int8"]
    assert receipt.difference.agreement >= 0.8
    assert receipt.difference.samples == 60
    assert receipt.score_name == "accuracy"
    assert receipt.before.score == 1.0
    assert receipt.after.score == pytest.approx(receipt.difference.agreement)
    assert receipt.after.file_bytes == small.path.stat().st_size < 0.5 * receipt.before.file_bytes
    # What the float model multiplies, the file with 8-bit weights does not.
    assert receipt.before.flops and receipt.after.flops is None
    assert "60 rows that were not used" in str(receipt)
    # The file on its own says the same.
    saved = small.save(tmp_path / "digits.tflite")
    np.testing.assert_array_equal(open_file(saved)(vectors), small(vectors))
    assert list(tmp_path.iterdir()) == [saved]
    folder = small.path.parent.parent
    del small
    gc.collect()
    assert not folder.exists()


@pytest.mark.tensorflow
@pytest.mark.parametrize(
    ("speeds", "taken", "verdicts"),
    [
        # (batch 1, batch 32): a larger file that is nowhere slower wins over a smaller one.
        ([(2.0, 0.5), (2.0, 1.5)], "float16", ["slower at batch 32", "taken"]),
        # Where there is none, one that is slower for many rows only is better than nothing.
        ([(2.0, 0.5), (2.0, 0.6)], "dynamic", ["taken", "slower at batch 32"]),
    ],
)
def test_slower_for_many_rows_is_the_second_choice(monkeypatch, speeds, taken, verdicts):
    patch_latency(monkeypatch, speeds)
    small = bz.compress.quantize(mlp(), min_agreement=0.8)
    assert small.mode == taken
    assert [trial.verdict for trial in small.receipt.tried] == verdicts
    assert ("It got slower at batch 32." in str(small.receipt)) == (taken == "dynamic")


@pytest.mark.tensorflow
def test_nothing_good_is_an_error_with_all_that_was_tried(monkeypatch):
    patch_latency(monkeypatch, [0.5, 0.5])
    with pytest.raises(ValueError, match="Nothing that was tried") as caught:
        bz.compress.quantize(mlp(), min_agreement=0.8)
    text = str(caught.value)
    assert text.count("slower at") == 2
    assert "lower `min_agreement` (0.8)" in text
    assert 'target="onnx"' in text


@pytest.mark.tensorflow
def test_too_little_agreement_is_said(vectors, monkeypatch):
    real = _judge.difference

    def worse(expected, got, kind=None):
        return real(expected, np.roll(got, 1, axis=1), kind)

    monkeypatch.setattr(_judge, "difference", worse)
    with pytest.raises(ValueError, match=r"below 0\.98"):
        bz.compress.quantize(mlp(), vectors, mode="dynamic", latency=False)


@pytest.mark.tensorflow
def test_a_mode_that_is_asked_for_may_be_slower_and_says_so(monkeypatch, vectors):
    patch_latency(monkeypatch, [0.25])
    small = bz.compress.quantize(mlp(), vectors, mode="dynamic", min_agreement=0.8)
    assert small.mode == "dynamic"
    assert "It got slower at batch 1 and batch 32." in str(small.receipt)


@pytest.mark.tensorflow
def test_without_data_the_receipt_says_that_inputs_were_made_up():
    small = bz.compress.quantize(mlp(), latency=False, min_agreement=0.9)
    assert small.mode == "dynamic"
    assert small.receipt.difference.agreement is None
    assert any("made-up inputs" in note for note in small.receipt.notes)
    assert not any(trial.name == "int8" for trial in small.receipt.tried)


@pytest.mark.tensorflow
def test_a_cnn_with_augmentation_inside_in_both_formats(pixels, tmp_path):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("tf2onnx")
    model = cnn()
    small = bz.compress.quantize(model, pixels, mode="int8", latency=False, min_agreement=0.7)
    answers = model.predict(pixels, verbose=0)
    assert np.abs(small(pixels) - answers).max() < 0.1
    receipt = export(small, tmp_path / "cnn.tflite")
    assert (tmp_path / "cnn.tflite").read_bytes() == small.path.read_bytes()
    assert receipt.path == str(tmp_path / "cnn.tflite")
    receipt = export(small, tmp_path / "cnn.onnx")
    assert [trial.name for trial in receipt.tried] == ["int8"]
    assert np.abs(open_file(tmp_path / "cnn.onnx")(pixels) - answers).max() < 0.1
    with pytest.raises(ValueError, match=r"expected a \.tflite or \.onnx file"):
        export(small, tmp_path / "saved_model")
    with pytest.raises(ValueError, match=r"ends in \.tflite"):
        small.save(tmp_path / "cnn.onnx")


@pytest.mark.tensorflow
def test_wrong_calibration_spoils_the_file_and_is_refused(pixels, tmp_path):
    """Trap: ranges of pixels from 0 to 1 clip those from 0 to 255."""
    model = cnn()
    flat = to_flat(signature_of(model), pixels)
    answers = model.predict(pixels, verbose=0)
    errors = []
    for name, scale in (("right", 1.0), ("wrong", 1 / 255)):
        path = tmp_path / f"{name}.tflite"
        convert(model, path, "litert", mode="int8", calibration=[flat[0][:20] * scale])
        errors.append(np.abs(open_file(path)(pixels) - answers).max())
    assert errors[1] > 5 * errors[0]
    with pytest.raises(ValueError, match="expected pixels from 0 to 255"):
        bz.compress.quantize(model, pixels / 255, latency=False)


def test_numbers_agree_by_their_variance():
    y = np.array([[1.0], [2.0], [3.0]])
    assert explained(y, y) == 1.0
    assert explained(y, y + np.array([[0.1], [-0.1], [0.1]])) == pytest.approx(1 - 0.01 / (2 / 3))
    assert explained([y, y], [y, y[::-1]]) < 0
    assert explained(y, np.full_like(y, np.nan)) == -np.inf
    assert explained(np.ones((3, 1)), np.ones((3, 1))) == 1.0
    assert explained(np.ones((3, 1)), np.full((3, 1), 0.5)) == 0.75


# === Calibration data ===


def test_rows_are_not_both_calibrated_and_compared_on(vectors):
    found = samples_of(mlp(), (vectors, np.arange(80)), 60, 0)
    assert len(found.calibration[0]) == 15
    assert len(found.flat[0]) == len(found.y) == 45
    both = np.concatenate([found.calibration[0], found.flat[0]])
    assert len(np.unique(both, axis=0)) == 60
    few = samples_of(mlp(), vectors, 20, 0)
    assert len(few.calibration[0]) == len(few.flat[0]) == 20
    assert "same 20 rows" in few.note


def normalized(x):
    layer = L.Normalization()
    layer.adapt(x)
    return keras.Sequential([keras.Input(x.shape[1:]), layer, L.Dense(2)])


def trained_norm(mean, variance):
    model = cnn(scale=None)
    gamma, beta, *_ = model.get_layer("norm").get_weights()
    model.get_layer("norm").set_weights([gamma, beta, gamma * 0 + mean, gamma * 0 + variance])
    return model


@pytest.mark.parametrize("change", [lambda x: x / 255, lambda x: x / 127.5 - 1])
def test_scaled_pixels_for_a_model_that_scales_itself(pixels, change):
    check_scale(cnn(), [pixels])
    with pytest.raises(ValueError, match=r"layer 'preprocess' scales pixels itself"):
        check_scale(cnn(), [change(pixels).astype("float32")])


def test_other_data_than_a_normalization_was_adapted_to(vectors):
    x = vectors * 20 + 100
    check_scale(normalized(x), [x])
    check_scale(normalized(x), [x * 2])  # other data, but not surely of another scale
    for wrong in (x / 255, x * 100):
        with pytest.raises(ValueError, match="another scale than what the layer"):
            check_scale(normalized(x), [wrong])


def test_other_data_than_a_batch_normalization_has_seen(pixels):
    before = keras.Model(*(lambda m: (m.inputs, m.get_layer("norm").input))(trained_norm(0, 1)))
    variance = float(np.var(before.predict(pixels, verbose=0)))
    check_scale(trained_norm(0, variance), [pixels])
    check_scale(trained_norm(0, variance), [pixels / 5])
    check_scale(trained_norm(0, 1.0), [pixels / 255])  # hardly trained
    for model, wrong in (
        (trained_norm(0, variance), pixels / 255),
        (trained_norm(0, variance / 255**2), pixels),
    ):
        with pytest.raises(ValueError, match="another scale than the training data"):
            check_scale(model, [wrong])


def test_images_that_are_right_pass(pixels):
    check_scale(cnn(), [(pixels > 100).astype("float32")])  # black and white
    check_scale(cnn(), [np.zeros_like(pixels)])
    check_scale(cnn(scale=1.0), [pixels / 255])
    check_scale(mlp(), [np.zeros((4, 16), "float32")])


X = np.zeros((8, 16), "float32")
BAD = [
    ("model", X, {}, TypeError, "`model` is 'model'; expected a keras.Model"),
    (keras.Sequential([L.Dense(2)]), X, {}, ValueError, "has no weights yet"),
    (mlp, X[:, :3], {}, ValueError, "`calibration` doesn't fit the model 'digits'"),
    (mlp, X[0], {}, ValueError, "Add the batch in front"),
    (mlp, X[:0], {}, ValueError, "`calibration` has no rows"),
    (mlp, [], {}, ValueError, "`calibration` has no rows"),
    (mlp, "rows.npy", {}, TypeError, "`calibration` is 'rows.npy'; expected arrays"),
    (mlp, X * np.nan, {}, ValueError, "`calibration` has NaN or infinite values"),
    (mlp, X, {"target": "tflite"}, ValueError, "Known: 'keras', 'litert', 'onnx'"),
    (mlp, X, {"mode": "int4"}, ValueError, "Did you mean 'int8'"),
    (mlp, X, {"target": "onnx", "mode": "float16"}, ValueError, "'dynamic' or 'int8' for the"),
    (mlp, None, {"mode": "int8"}, ValueError, "`calibration` is None; expected data for"),
    (cnn, None, {"target": "onnx"}, ValueError, "`calibration` is None; expected data"),
    (mlp, X, {"min_agreement": 98}, ValueError, "`min_agreement` is 98; expected"),
    (mlp, X, {"min_agreement": 0}, ValueError, "`min_agreement` is 0; expected"),
    (mlp, X, {"samples": 1}, ValueError, "`samples` is 1; expected an integer at least 2"),
    (mlp, X, {"seed": -1}, ValueError, "`seed` is -1; expected"),
]


@pytest.mark.parametrize(("model", "data", "options", "error", "text"), BAD)
def test_bad_input_is_said(model, data, options, error, text):
    made = model() if callable(model) and not isinstance(model, keras.Model) else model
    with pytest.raises(error) as caught:
        bz.compress.quantize(made, data, **options)
    assert text in str(caught.value)


def test_a_diverged_model_is_said():
    model = mlp()
    model.set_weights([np.full_like(weight, np.nan) for weight in model.get_weights()])
    with pytest.raises(ValueError, match="its training has diverged"):
        bz.compress.quantize(model, X + 1, latency=False)
