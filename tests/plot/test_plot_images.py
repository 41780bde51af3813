"""The grid of images: pixels, captions, datasets, bad input."""

from __future__ import annotations

import numpy as np
import pytest

import bigzoo as bz
from bigzoo.plot._figure import WRONG

NAMES = ["cat", "dog"]


def titles(figure):
    return [ax.get_title() for ax in figure.axes]


def pixels(figure, i=0):
    return np.asarray(figure.axes[i].images[0].get_array())


@pytest.mark.parametrize(
    ("dtype", "high"), [("uint8", 255), ("float32", 255.0), ("float32", 1.0), ("int64", 255)]
)
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_pixels_are_scaled_to_one(dtype, high, channels):
    x = np.zeros((2, 4, 5, channels), dtype)
    x[0] = high
    shown = pixels(bz.plot.images(x))
    assert shown.shape == ((4, 5) if channels == 1 else (4, 5, channels))
    assert shown.min() == pytest.approx(1.0)


def test_a_black_uint8_picture_with_ones_stays_dark():
    x = np.ones((1, 4, 4, 3), "uint8")
    assert pixels(bz.plot.images(x)).max() == pytest.approx(1 / 255)


def test_one_image_and_grey_images_without_channels():
    assert len(bz.plot.images(np.zeros((6, 7, 3), "uint8")).axes) == 1
    assert len(bz.plot.images(np.zeros((5, 28, 28), "uint8")).axes) == 5


def test_captions():
    x = np.zeros((3, 4, 4, 3), "uint8")
    assert titles(bz.plot.images(x)) == ["", "", ""]
    assert titles(bz.plot.images(x, [0, 1, 1], class_names=NAMES)) == ["cat", "dog", "dog"]
    p = np.array([[0.9, 0.1], [0.8, 0.2], [0.25, 0.75]])
    figure = bz.plot.images(x, [0, 1, 1], p, NAMES)
    assert titles(figure) == ["cat 90%", "✗ cat 80%\n(is dog)", "dog 75%"]
    assert figure.axes[1].title.get_color() == WRONG
    assert figure.axes[1].spines["left"].get_visible()
    assert not figure.axes[0].spines["left"].get_visible()
    # one sigmoid unit: the probability shown is that of the label shown
    sigmoid = np.array([[0.1], [0.2], [0.75]])
    assert titles(bz.plot.images(x, [0, 1, 1], sigmoid, NAMES)) == titles(figure)
    assert titles(bz.plot.images(x, y_pred=sigmoid)) == ["0 90%", "0 80%", "1 75%"]


def test_labels_as_names_one_hot_and_logits():
    x = np.zeros((2, 4, 4, 3), "uint8")
    assert titles(bz.plot.images(x, ["dog", "cat"], [1, 1], NAMES)) == ["dog", "✗ dog\n(is cat)"]
    assert titles(bz.plot.images(x, np.eye(2), class_names=NAMES)) == NAMES
    logits = np.array([[3.0, -1.0], [0.0, 9.0]])
    assert titles(bz.plot.images(x, y_pred=logits, class_names=NAMES)) == NAMES


def test_columns_and_limit():
    x = np.zeros((10, 4, 4, 3), "uint8")
    y = np.arange(10)
    figure = bz.plot.images(x, y, columns=3, limit=7)
    assert titles(figure) == list("0123456")
    assert figure.axes[0].get_gridspec().get_geometry() == (3, 3)


class Batches:
    """What a dataset of bz.data offers, as far as the plot looks at it."""

    class_names = ("cat", "dog")

    def __init__(self, x, y):
        self.x, self.y, self.num_samples = x, y, len(x)

    def take(self, n):
        return Batches(self.x[:n], self.y[:n])

    def arrays(self):
        return self.x, self.y


def test_a_dataset_brings_labels_and_names():
    data = Batches(np.zeros((9, 4, 4, 3), "uint8"), np.array([0, 1, 1] * 3))
    assert titles(bz.plot.images(data, limit=3)) == ["cat", "dog", "dog"]
    figure = bz.plot.images(data, y_pred=np.zeros(9, int), limit=2)
    assert titles(figure) == ["cat", "✗ cat\n(is dog)"]
    with pytest.raises(ValueError, match="`y_pred` has 4 rows; expected 9, one per image"):
        bz.plot.images(data, y_pred=np.zeros(4, int), limit=2)
    without = Batches(np.zeros((2, 4, 4, 3), "uint8"), None)
    without.take = lambda n: without
    assert titles(bz.plot.images(without)) == ["", ""]


def test_the_datasets_of_the_data_room():
    data = pytest.importorskip("bigzoo.data")
    x, y = data.drawn_pets(4, image_size=(16, 16))
    batches = data.arrays(x, y, class_names=("cat", "dog"))
    assert titles(bz.plot.images(batches)) == [NAMES[int(label)] for label in y]


def test_a_tf_dataset_shows_its_first_batch():
    tf = pytest.importorskip("tensorflow")
    x = np.zeros((6, 4, 4, 3), "float32")
    data = tf.data.Dataset.from_tensor_slices((x, np.arange(6))).batch(4)
    assert titles(bz.plot.images(data)) == list("0123")


IMAGES = np.zeros((2, 4, 4, 3), "uint8")


@pytest.mark.parametrize(
    ("arguments", "options", "error", "text"),
    [
        ((None,), {}, TypeError, "`x` is None; expected an array"),
        (("cats.jpg",), {}, TypeError, "`x` is 'cats.jpg'; expected an array"),
        ((np.zeros((0, 4, 4, 3)),), {}, ValueError, "expected at least one row"),
        ((np.zeros((2, 3, 8, 8)),), {}, ValueError, "Channels come last"),
        ((np.zeros((2, 8, 8, 7)),), {}, ValueError, "with 1, 3 or 4 channels"),
        ((np.zeros(5),), {}, ValueError, "images of shape"),
        ((np.full((2, 4, 4, 3), -0.5),), {}, ValueError, r"values from -0.5 to -0.5.*x \+ 1"),
        ((np.full((2, 4, 4, 3), 999),), {}, ValueError, "expected pixels in 0–255 or 0–1"),
        ((np.full((2, 4, 4, 3), np.nan),), {}, ValueError, "`x` has NaN"),
        ((IMAGES.astype(str),), {}, TypeError, "expected pixels"),
        (([np.zeros((4, 4, 3)), np.zeros((5, 4, 3))],), {}, ValueError, "All rows must have"),
        ((IMAGES, [0]), {}, ValueError, "`y_true` has 1 rows; expected 2, one per image"),
        ((IMAGES, [0, 2], None, NAMES), {}, ValueError, "label 2; expected labels from 0 to 1"),
        ((IMAGES, [0, -1]), {}, ValueError, "`y_true` has the label -1"),
        ((IMAGES, ["cat", "cow"], None, NAMES), {}, ValueError, "`y_true` has 'cow'"),
        ((IMAGES, ["cat", "dog"]), {}, ValueError, "Give `class_names=`"),
        ((IMAGES, None, [2.5, 0.1]), {}, ValueError, "whole labels or probabilities in 0–1"),
        ((IMAGES, None, [[1, 1], [0, 1]]), {}, ValueError, "each with exactly one 1"),
        ((IMAGES, None, np.zeros((2, 2, 2))), {}, ValueError, r"\(n,\) or \(n, classes\)"),
        ((IMAGES, [0, 1], None, "cat"), {}, TypeError, "`class_names` is 'cat'"),
        ((IMAGES, [0, 1], None, []), {}, ValueError, "expected a list of names"),
        ((IMAGES,), {"columns": 0}, ValueError, "`columns` is 0"),
        ((IMAGES,), {"limit": 1.5}, TypeError, "`limit` is 1.5"),
    ],
)
def test_bad_input(arguments, options, error, text):
    with pytest.raises(error, match=text):
        bz.plot.images(*arguments, **options)
