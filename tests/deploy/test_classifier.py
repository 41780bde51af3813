"""One way to label images, whatever computes the answer."""

from __future__ import annotations

import importlib.util
import logging
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest
from PIL import Image

import bigzoo as bz
from bigzoo.deploy._classifier import open_classifier
from bigzoo.deploy._convert import convert

NAMES = ("dark", "red", "blue")
FILES = {"onnx": "a.onnx", "litert": "a.tflite", "saved_model": "saved", "openvino": "vino"}
PACKAGES = {"onnx": ("onnxruntime", "tf2onnx"), "openvino": ("openvino", "tf2onnx")}


def colours(activation="softmax", shape=(8, 8, 3), units=3):
    """A model that looks at the mean colour only; it says dark, red or blue."""
    kernel = np.array([[0, 8, 0], [0, 0, 0], [0, 0, 8]], "float32")[:, :units]
    image = keras.Input(shape, name="image")
    x = keras.layers.Rescaling(1 / 255)(image)
    x = keras.layers.GlobalAveragePooling2D()(x)
    x = keras.layers.Dense(units, activation=activation)(x)
    model = keras.Model(image, x)
    model.set_weights([kernel, np.array([2, 0, 0], "float32")[:units]])
    return model


def pictures():
    """Black, red, blue."""
    found = np.zeros((3, 8, 8, 3), np.uint8)
    found[1, ..., 0] = found[2, ..., 2] = 255
    return found


def expected():
    scores = np.exp([[2.0, 0, 0], [2, 8, 0], [2, 0, 8]])
    return scores / scores.sum(axis=1, keepdims=True)


def converted(model, path, format, **options):
    if keras.backend.backend() != "tensorflow":
        pytest.skip("the conversion takes a process of its own")
    for package in PACKAGES.get(format, ()):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    convert(model, path, format, **options)
    return path


@pytest.mark.parametrize("compiled", [False, True])
def test_a_model(compiled):
    classifier = open_classifier(colours(), NAMES, compiled=compiled)
    assert (classifier.size, classifier.channels) == ((8, 8), 3)
    assert classifier.class_names == NAMES
    assert classifier.kind == "softmax"
    assert classifier.note == ""
    assert isinstance(classifier.model, keras.Model)
    got = classifier.probabilities(pictures())
    assert got.dtype == np.float64
    np.testing.assert_allclose(got, expected(), atol=1e-5)
    assert classifier.probabilities(pictures()[:0]).shape == (0, 3)


@pytest.mark.tensorflow
def test_many_models_make_tensorflow_complain_of_nothing():
    """`predict_on_batch` would trace a graph for each, and TensorFlow warn from the fifth on."""
    said = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())
    logger = logging.getLogger("tensorflow")
    logger.addHandler(handler)
    try:
        for rows in (1, 2, 3, 1, 2, 3):
            images = np.zeros((rows, 8, 8, 3))
            assert open_classifier(colours(), NAMES).probabilities(images).shape == (rows, 3)
    finally:
        logger.removeHandler(handler)
    assert said == []


@pytest.mark.parametrize("format", FILES)
def test_a_file_says_what_the_model_says(tmp_path, format):
    model = colours(None, (None, None, 3))
    model.class_names, model.image_size = NAMES, (8, 8)
    path = converted(model, tmp_path / FILES[format], format)
    classifier = open_classifier(path)
    assert (classifier.size, classifier.channels) == ((8, 8), 3)
    assert classifier.class_names == NAMES
    assert classifier.kind == "softmax_logits"
    assert classifier.model is None
    np.testing.assert_allclose(classifier.probabilities(pictures()), expected(), atol=1e-5)
    with ThreadPoolExecutor(8) as pool:
        for got in pool.map(classifier.probabilities, [pictures()] * 24):
            np.testing.assert_allclose(got, expected(), atol=1e-5)


@pytest.mark.parametrize(
    ("activation", "units", "kind"),
    [
        ("softmax", 3, "softmax"),
        (None, 3, "softmax_logits"),
        ("sigmoid", 1, "sigmoid"),
        ("sigmoid", 3, "multilabel"),
    ],
)
@pytest.mark.tensorflow
def test_a_file_of_others_is_judged_by_what_it_puts_out(tmp_path, activation, units, kind):
    model = colours(activation, units=units)
    model.export(tmp_path / "saved", verbose=False)
    classifier = open_classifier(tmp_path / "saved")
    assert classifier.kind == kind
    assert classifier.class_names == tuple(map(str, range(max(units, 2))))
    assert "no class names" in classifier.note
    assert "they look like " in classifier.note
    assert classifier.probabilities(pictures()).shape == (3, max(units, 2))


def test_predict_images_reads_files(tmp_path):
    model = colours()
    model.class_names = NAMES
    path = converted(model, tmp_path / "a.tflite", "litert")
    for name, pixels in zip(NAMES, pictures(), strict=True):
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    files = [tmp_path / f"{name}.png" for name in NAMES]
    table = bz.predict_images(path, [*files, tmp_path / "no.png"], batch_size=2)
    assert [row.label for row in table] == [*NAMES, None]
    ours = bz.predict_images(model, files)
    for one, other in zip(table, ours, strict=False):
        assert one.probability == pytest.approx(other.probability, abs=1e-6)
    named = bz.predict_images(str(path), files, ["a", "b", "c"])
    assert [row.label for row in named] == ["a", "b", "c"]
    with pytest.raises(ValueError, match="has 2 names; expected 3"):
        bz.predict_images(path, files, ["a", "b"])
    with pytest.raises(ValueError, match=r"expected \(8, 8\), which the model takes"):
        bz.predict_images(path, files, image_size=(9, 9))


def test_any_size_must_be_told(tmp_path):
    path = converted(colours(shape=(None, None, 3)), tmp_path / "a.tflite", "litert")
    with pytest.raises(ValueError, match="takes images of any size; expected `image_size`"):
        open_classifier(path, NAMES)
    classifier = open_classifier(path, NAMES, (4, 6))
    assert classifier.probabilities(np.zeros((2, 4, 6, 3))).argmax(1).tolist() == [0, 0]


def vectors():
    return keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, "softmax")])


def maps():
    image = keras.Input((8, 8, 3))
    return keras.Model(image, keras.layers.Conv2D(2, 1, activation="softmax")(image))


def two():
    model = colours()
    return keras.Model(model.input, [model.output, keras.layers.Dense(2)(model.output)])


def channels_first():
    image = keras.Input((3, 8, 8))
    return keras.Model(image, keras.layers.Dense(2, "softmax")(keras.layers.Flatten()(image)))


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (vectors, r"'.*a.tflite' has the input shape \(None, 3\); expected one input"),
        (maps, r"has the output shape \(None, 8, 8, 2\) and is no classifier"),
        (two, "has 1 inputs and 2 outputs; expected an image classifier with one of each"),
        (channels_first, "with the channels first"),
    ],
)
def test_files_that_are_no_classifiers(tmp_path, make, text):
    path = converted(make(), tmp_path / "a.tflite", "litert")
    with pytest.raises(ValueError, match=text):
        open_classifier(path)


@pytest.mark.parametrize(
    ("model", "options", "error", "text"),
    [
        (7, {}, TypeError, "`model` is 7; expected a keras.Model"),
        ("no.onnx", {}, FileNotFoundError, "There is no file 'no.onnx'"),
        (None, {"compiled": 1}, TypeError, "`compiled` is 1"),
    ],
)
def test_bad_arguments(model, options, error, text):
    with pytest.raises(error, match=text):
        open_classifier(model, **options)


@pytest.mark.parametrize("shape", [(8, 8, 3), (1, 8, 9, 3), (1, 8, 8, 1), (1, 3, 8, 8)])
def test_images_of_another_shape(shape):
    classifier = open_classifier(colours(), NAMES)
    with pytest.raises(ValueError, match=r"expected \(images, 8, 8, 3\)"):
        classifier.probabilities(np.zeros(shape))


@pytest.mark.tensorflow
def test_a_file_that_puts_out_nan_says_so(tmp_path):
    model = colours(None)
    model.set_weights([np.full((3, 3), np.nan), np.zeros(3)])
    path = converted(model, tmp_path / "a.tflite", "litert")
    with pytest.raises(ValueError, match="NaN or infinite"):
        open_classifier(path, NAMES).probabilities(pictures())
