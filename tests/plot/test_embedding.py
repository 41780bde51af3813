"""Features in a plane: PCA as scikit-learn has it, features of models, labels, bad input."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import bigzoo as bz
from bigzoo.plot._embedding import pca

rng = np.random.default_rng(0)
FEATURES = rng.normal(size=(40, 6)) * [5, 3, 2, 1, 1, 0.5] + 7
LABELS = np.arange(40) % 3
NAMES = ["cat", "dog", "cow"]


def up_to_sign(ours, theirs):
    """The largest difference when each column may be turned round."""
    return max(
        min(np.abs(a - b).max(), np.abs(a + b).max()) for a, b in zip(ours.T, theirs.T, strict=True)
    )


def test_pca_equals_scikit_learn():
    decomposition = pytest.importorskip("sklearn.decomposition")
    theirs = decomposition.PCA(2)
    wanted = theirs.fit_transform(FEATURES)
    points, shares = pca(FEATURES)
    assert up_to_sign(points, wanted) < 1e-9
    np.testing.assert_allclose(shares, theirs.explained_variance_ratio_, atol=1e-9)
    assert up_to_sign(points[:, ::-1], wanted) > 1  # the comparison sees swapped components
    assert up_to_sign(-points, wanted) < 1e-9


def test_pca_of_points_in_a_plane_keeps_distances():
    plane = rng.normal(size=(10, 2)) @ np.linalg.qr(rng.normal(size=(5, 2)))[0].T
    points, shares = pca(plane)
    theirs = np.linalg.norm(plane[:, None] - plane[None], axis=-1)
    ours = np.linalg.norm(points[:, None] - points[None], axis=-1)
    np.testing.assert_allclose(ours, theirs, atol=1e-9)
    assert shares.sum() == pytest.approx(1)


def test_features_that_do_not_vary_or_are_one():
    assert not pca(np.ones((4, 3)))[0].any()
    points, shares = pca(np.arange(4.0)[:, None])
    assert shares.tolist() == [1, 0]
    assert not points[:, 1].any()


def points_of(figure):
    return np.concatenate([dots.get_offsets() for dots in figure.axes[0].collections])


def legend(figure):
    return [text.get_text() for text in figure.axes[0].get_legend().get_texts()]


def test_the_picture():
    figure = bz.plot.embedding(FEATURES, y=LABELS, class_names=NAMES)
    ax = figure.axes[0]
    assert legend(figure) == NAMES
    assert ax.get_title() == "PCA of 6 features, 40 samples"
    assert ax.get_xlabel().startswith("component 1 (")
    order = np.argsort(LABELS, kind="stable")
    np.testing.assert_allclose(points_of(figure), pca(FEATURES)[0][order], atol=1e-9)
    assert bz.plot.embedding(FEATURES).axes[0].get_legend() is None
    many = bz.plot.embedding(FEATURES, y=np.arange(40))
    assert len(many.axes) == 2  # a colour bar in place of a legend
    figure.canvas.draw()


def test_features_of_a_model():
    model = bz.models.mlp(4, (5,), num_outputs=3, task="multiclass")
    x = rng.normal(size=(20, 4)).astype("float32")
    below = keras.Model(model.input, model.layers[-1].input).predict(x, verbose=0)
    figure = bz.plot.embedding(model, x)
    assert figure.axes[0].get_title() == "PCA of 5 features, 20 samples"
    assert up_to_sign(points_of(figure), pca(below.astype("float64"))[0]) < 1e-4


def test_a_dropout_and_an_activation_at_the_end_are_passed():
    x = keras.Input((4,))
    y = keras.layers.Dense(3, name="body")(x)
    y = keras.layers.Softmax()(keras.layers.Dense(2)(keras.layers.Dropout(0.5)(y)))
    figure = bz.plot.embedding(keras.Model(x, y), FEATURES[:, :4])
    assert "of 3 features" in figure.axes[0].get_title()


def test_a_dataset_brings_labels_and_names():
    x, y = bz.data.drawn_pets(12, image_size=(16, 16), seed=0)
    data = bz.data.Batches(x, y, class_names=bz.data.PET_NAMES)
    figure = bz.plot.embedding(bz.models.cnn((16, 16, 3), 2), data)
    assert legend(figure) == list(bz.data.PET_NAMES)
    assert "of 192 features, 12 samples" in figure.axes[0].get_title()


def test_tsne_keeps_groups_apart():
    pytest.importorskip("sklearn")
    groups = np.repeat(np.eye(3)[:, :2] * 50, 8, axis=0)
    x = np.concatenate([groups, rng.normal(size=(24, 2))], axis=1)
    figure = bz.plot.embedding(x, y=np.repeat([0, 1, 2], 8), method="tsne")
    centres = [dots.get_offsets().mean(axis=0) for dots in figure.axes[0].collections]
    spread = max(dots.get_offsets().std() for dots in figure.axes[0].collections)
    nearest = min(np.linalg.norm(centres[i] - centres[j]) for i, j in ((0, 1), (0, 2), (1, 2)))
    assert np.isfinite(points_of(figure)).all()
    assert nearest > 0
    assert spread > 0
    again = bz.plot.embedding(x, y=np.repeat([0, 1, 2], 8), method="tsne")
    np.testing.assert_array_equal(points_of(figure), points_of(again))


def test_own_axes_and_many_samples():
    from matplotlib.figure import Figure

    ax = Figure().add_subplot()
    assert bz.plot.embedding(FEATURES, ax=ax) is ax
    many = bz.plot.embedding(rng.normal(size=(6000, 3)))
    assert len(points_of(many)) == 5000
    assert many.axes[0].get_title() == "PCA of 3 features, 5,000 of 6,000 samples"


@pytest.mark.parametrize(
    ("given", "options", "error", "text"),
    [
        (FEATURES[:2], {}, ValueError, "n at least 3"),
        (FEATURES[:, 0], {}, ValueError, r"numbers of shape \(n, features\)"),
        (FEATURES.astype(str), {}, ValueError, r"numbers of shape \(n, features\)"),
        (np.full((4, 2), np.nan), {}, ValueError, "NaN or infinite"),
        (None, {}, TypeError, "`model_or_features` is None"),
        (FEATURES, {"x": FEATURES}, TypeError, "None beside features. Labels go in `y=`"),
        (FEATURES, {"y": LABELS[:5]}, ValueError, "`y` has 5 rows and there are 40 samples"),
        (FEATURES, {"y": LABELS, "class_names": NAMES[:2]}, ValueError, "label 2; expected"),
        (FEATURES, {"method": "umap"}, ValueError, "`method` is 'umap'"),
        (FEATURES, {"seed": -1}, ValueError, "`seed` is -1"),
        (FEATURES, {"ax": 1}, TypeError, "a matplotlib Axes"),
        (bz.models.mlp(4), {}, TypeError, "the samples to compute features of"),
    ],
)
def test_bad_input(given, options, error, text):
    with pytest.raises(error, match=text):
        bz.plot.embedding(given, **options)
