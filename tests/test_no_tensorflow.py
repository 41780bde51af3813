"""The package where TensorFlow isn't installed: everything that doesn't need it works on JAX.

CI runs this file in an environment without TensorFlow, pandas and matplotlib, outside of the
checkout, with KERAS_BACKEND=jax. Elsewhere it is skipped.
"""

from __future__ import annotations

import importlib.util
import os

import numpy as np
import pytest

import bigzoo as bz

HAS_TENSORFLOW = importlib.util.find_spec("tensorflow") is not None
pytestmark = pytest.mark.skipif(
    HAS_TENSORFLOW and not os.environ.get("BIGZOO_NO_TENSORFLOW"),
    reason="TensorFlow is installed",
)


def test_this_environment_is_what_it_should_be():
    import keras

    assert not HAS_TENSORFLOW
    assert keras.backend.backend() == "jax"
    assert "site-packages" in bz.__file__, "the installed package is meant, not a checkout"


@pytest.fixture
def pets(tmp_path):
    """A folder with two class folders of drawn pictures, in different formats."""
    from PIL import Image

    x, y = bz.data.drawn_pets(60, image_size=(40, 40), seed=1)
    for i, (picture, label) in enumerate(zip(x, y, strict=True)):
        folder = tmp_path / "pets" / bz.data.PET_NAMES[label]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(folder / f"{i}.{('png', 'jpg', 'webp', 'bmp')[i % 4]}")
    return tmp_path / "pets"


def test_image_folders_train_save_load_predict(pets, tmp_path):
    train, val = bz.data.images(pets, image_size=(32, 32), val_fraction=0.2, seed=0)
    assert train.num_samples + val.num_samples == 60
    assert train.class_names == ("cat", "dog")
    model = bz.models.cnn((32, 32, 3), num_classes=2)
    bz.compile(model, verbose=False)
    history = bz.fit(model, train, validation_data=val, epochs=2, verbose=0)
    assert np.all(np.isfinite(history.history["loss"]))
    bz.save(model, tmp_path / "pets.keras")
    loaded = bz.load(tmp_path / "pets.keras")
    assert loaded.class_names == ("cat", "dog")
    x, _ = val.arrays()
    np.testing.assert_allclose(loaded.predict(x, verbose=0), model.predict(x, verbose=0), atol=1e-5)
    table = bz.predict_images(loaded, pets / "cat")
    assert len(table) == 30
    assert "cat" in str(table)


def test_resume(tmp_path):
    x, y = bz.data.linear(64)

    def train(epochs):
        bz.set_seed(0)
        model = bz.models.linear_regression(2)
        bz.compile(model, "regression", optimizer="adam", learning_rate=0.01, verbose=False)
        bz.fit(model, x, y, epochs=epochs, resume=tmp_path / "run", verbose=0)
        return model

    train(2)
    continued = train(4).get_weights()
    assert all(np.all(np.isfinite(weight)) for weight in continued)


def test_check_solve_and_linear_data():
    x, y = bz.data.linear(200, weights=(3.0, 2.0), noise=0.0)
    model = bz.models.linear_regression(2)
    bz.solve(model, x, y)
    kernel, _ = model.get_weights()
    np.testing.assert_allclose(kernel[:, 0], [3.0, 2.0], atol=1e-5)
    bz.compile(model, "regression", verbose=False)
    report = bz.check(model, x, y[:, 0])
    assert isinstance(str(report), str)


def test_hdf5_streams(tmp_path):
    import h5py

    x, y = bz.data.linear(50)
    with h5py.File(tmp_path / "data.h5", "w") as file:
        file["x"], file["y"] = x, y
    batches = bz.data.h5(tmp_path / "data.h5", x="x", y="y", batch_size=20, shuffle=False)
    first_x, first_y = batches[0]
    np.testing.assert_array_equal(first_x, x[:20])
    np.testing.assert_array_equal(first_y, y[:20])


def test_all_models_train_one_step():
    bz.set_seed(0)
    x = np.random.default_rng(0).normal(size=(16, 6)).astype("float32")
    y = np.arange(16, dtype="int32") % 2
    for model, labels in (
        (bz.models.mlp(6, (8,)), y[:, None].astype("float32")),
        (bz.models.logistic_regression(6), y),
    ):
        bz.compile(model, verbose=False)
        history = bz.fit(model, x, labels, epochs=1, batch_size=8, verbose=0)
        assert np.isfinite(history.history["loss"][0])


def test_a_missing_package_is_named():
    """No matplotlib here: the error says what to install."""
    if importlib.util.find_spec("matplotlib") is not None:
        pytest.skip("matplotlib is installed")
    with pytest.raises(ImportError, match="pip install matplotlib"):
        bz.plot.history({"loss": [1.0, 0.5]})
