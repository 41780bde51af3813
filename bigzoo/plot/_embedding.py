"""Features of many samples as points in a plane."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from bigzoo._errors import check_choice, check_int, message
from bigzoo._optional import require
from bigzoo.plot._figure import BLUE, check_axes, new_figure, tidy
from bigzoo.plot._graph import check_graph, inputs_of, last_operation, part
from bigzoo.plot._labels import check_class_names, check_range, to_labels, to_numpy

METHODS = ("pca", "tsne")
_MOST_POINTS = 5000
_MOST_CLASSES = 10  # with more, colours can't be told apart
# Okabe and Ito's colours, then others that differ from them in lightness; and a mark for each.
_COLORS = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00",
    "#56B4E9", "#000000", "#F0E442", "#7F3C8D", "#8C564B",
)  # fmt: skip
_MARKS = "osD^vP*X<>"


def embedding(
    model_or_features: Any,
    x: Any = None,
    y: Any = None,
    class_names: Any = None,
    method: str = "pca",
    *,
    seed: int = 0,
    ax: Any = None,
) -> Any:
    """Draw what a network makes of samples, before its last layer, as points in a plane.

    "pca" is the projection onto the two directions of largest variance: distances keep their
    meaning, and the axes say how much of the variance they show. "tsne" keeps neighbours together
    and tears the rest apart: sizes of groups and distances between them mean nothing. Classes that
    lie apart here can be told apart by the last layer; the reverse need not hold.

    Papers: Pearson 1901 (PCA); van der Maaten and Hinton 2008,
    https://www.jmlr.org/papers/v9/vandermaaten08a.html (t-SNE).

    Args:
        model_or_features: A functional model, of which the input of the last layer with weights is
            taken; or features (n, features) themselves.
        x: What the model takes, n samples; a dataset of `bz.data` is welcome. Not with features.
        y: Labels: integers (n,), one-hot rows, or names; None draws all points alike. A dataset
            brings its own.
        class_names: One name per class. A dataset brings its own.
        method: "pca" or "tsne"; the latter needs the package scikit-learn and seconds to minutes.
        seed: Seed of "tsne", at least 0.
        ax: Axes to draw on; None makes a figure.

    Returns:
        A new `matplotlib.figure.Figure`, or `ax` if given.

    Raises:
        TypeError, ValueError: if shapes or lengths don't fit.
        ImportError: if scikit-learn isn't installed and `method` is "tsne".

    Example:
        >>> rng = np.random.default_rng(0)
        >>> features = np.concatenate([rng.normal(0, 1, (20, 5)), rng.normal(4, 1, (20, 5))])
        >>> figure = bz.plot.embedding(features, y=[0] * 20 + [1] * 20)
        >>> [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
        ['0', '1']
    """
    check_choice("method", method, METHODS)
    seed = check_int("seed", seed, 0)
    if class_names is None:
        class_names = getattr(x, "class_names", None)
    names = check_class_names(class_names)
    features, own = _features(model_or_features, x)
    y = own if y is None else y
    labels = None
    if y is not None:
        labels, _ = to_labels("y", y, names)
        check_range("y", labels, names)
        if len(labels) != len(features):
            got = f"`y` has {len(labels)} rows and there are {len(features)} samples"
            raise ValueError(f"{got}; expected a label for each sample.")
    some = np.unique(np.linspace(0, len(features) - 1, _MOST_POINTS).astype(int))
    points, titles = _project(features, some, method, seed)
    result = ax
    if ax is None:
        result = new_figure(6.4, 5.2)
        ax = result.add_subplot()
    check_axes(ax)
    _draw(ax, points, None if labels is None else labels[some], names)
    ax.set_xlabel(titles[0])
    ax.set_ylabel(titles[1])
    shown = f"{len(points):,} of {len(features):,}" if len(points) < len(features) else len(points)
    if method == "pca":
        ax.set_aspect("equal", adjustable="datalim")  # so that distances can be compared
    kind = "PCA" if method == "pca" else "t-SNE"
    ax.set_title(f"{kind} of {features.shape[1]:,} features, {shown} samples")
    return result


def pca(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates (n, 2) along the directions of largest variance, and their shares of it."""
    centred = features - features.mean(axis=0)
    rotation, sizes, _ = np.linalg.svd(centred, full_matrices=False)
    variance = sizes**2
    total = variance.sum()
    points = np.zeros((len(features), 2))
    count = min(2, len(sizes))
    points[:, :count] = rotation[:, :count] * sizes[:count]
    shares = np.zeros(2)
    if total > 0:
        shares[:count] = variance[:count] / total
    return points, shares


# === Features ===


def _features(given: Any, x: Any) -> tuple[np.ndarray, Any]:
    """Features (n, features) as float64, and the labels that a dataset brings."""
    labels = None
    if isinstance(given, keras.Model):
        if x is None:
            raise TypeError(message("x", x, "the samples to compute features of"))
        check_graph(given)
        if hasattr(x, "take") and hasattr(x, "arrays"):  # a dataset of bz.data
            x, labels = x.take(x.num_samples).arrays()
        made = _body(given).predict(x, verbose=0)
    else:
        if x is not None:
            fix = "Labels go in `y=`."
            raise TypeError(message("x", type(x).__name__, "None beside features", fix))
        made = given
    array = to_numpy("features" if isinstance(given, keras.Model) else "model_or_features", made)
    if array.dtype.kind not in "biuf" or array.ndim < 2 or len(array) < 3:
        expected = "a model, or numbers of shape (n, features) with n at least 3"
        raise ValueError(message("model_or_features", array, expected))
    return array.reshape(len(array), -1).astype(np.float64), labels


def _body(model: keras.Model) -> keras.Model:
    """From the input to what goes into the last layer with weights."""
    tensor, operation = None, last_operation(model)
    for _ in range(len(check_graph(model))):
        inputs = inputs_of(operation)
        if len(inputs) != 1 or isinstance(operation, keras.Model):
            break
        tensor = inputs[0]
        if getattr(operation, "weights", None):
            break
        below = part(model, tensor)
        if below is None:
            break
        operation = last_operation(below)
    found = None if tensor is None else part(model, tensor)
    if found is None:
        fix = "Compute the features yourself and give them instead of the model."
        raise ValueError(message("model", model.name, "a model that ends in one layer", fix))
    return found


def _project(
    features: np.ndarray, some: np.ndarray, method: str, seed: int
) -> tuple[np.ndarray, tuple[str, str]]:
    if method == "pca":
        points, shares = pca(features)
        first, second = (f"component {i + 1} ({shares[i]:.0%} of the variance)" for i in range(2))
        return points[some], (first, second)
    manifold = require("sklearn.manifold", "scikit-learn", "bigzoo.plot.embedding")
    perplexity = min(30.0, (len(some) - 1) / 3)
    maker = manifold.TSNE(2, perplexity=perplexity, init="pca", random_state=seed)
    return maker.fit_transform(features[some].astype(np.float32)), ("t-SNE 1", "t-SNE 2")


# === Picture ===


def _draw(ax: Any, points: np.ndarray, labels: Any, names: tuple[str, ...] | None) -> None:
    size = 26.0 if len(points) <= 300 else 12.0 if len(points) <= 2000 else 5.0
    style = {"s": size, "alpha": 0.75, "linewidths": 0}
    tidy(ax)
    if labels is None:
        ax.scatter(points[:, 0], points[:, 1], color=BLUE, **style)
        return
    present = np.unique(labels)
    if len(present) > _MOST_CLASSES:
        drawn = ax.scatter(points[:, 0], points[:, 1], c=labels, cmap="viridis", **style)
        ax.get_figure().colorbar(drawn, ax=ax, label="class")
        return
    for place, label in enumerate(present):
        rows = labels == label
        name = str(label) if names is None else names[label]
        color, mark = _COLORS[place], _MARKS[place]
        ax.scatter(points[rows, 0], points[rows, 1], color=color, marker=mark, label=name, **style)
    ax.legend(frameon=False, fontsize="small", loc="best")
