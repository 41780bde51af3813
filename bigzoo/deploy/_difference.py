"""How far two sets of answers are apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

# How `agreement` reads answers: those of `_scores.output_kind`, and "classes" for the largest
# value along the last axis, whatever the rank.
_ONE_UNIT = {"sigmoid": 0.5, "sigmoid_logits": 0.0}
_LARGEST = ("softmax", "softmax_logits", "classes")


@dataclass(frozen=True)
class Difference:
    """What lies between expected answers and those that were got.

    Attributes:
        largest: Largest absolute difference of two values; infinite where one is NaN.
        relative: For each output, the largest absolute difference divided by the largest absolute
            value expected, and as it is where that is 0; the worst of the outputs.
        agreement: Share of the answers that name the same class, in 0–1; None if the model is no
            classifier.
        samples: Rows that were compared.
        output: Position of the worst output.
    """

    largest: float
    relative: float
    agreement: float | None
    samples: int
    output: int = 0


def difference(expected: Any, got: Any, kind: str | None = None) -> Difference:
    """Compare outputs of the same form, arrays or nests of them.

    Args:
        expected: What the original says: array (batch, ...), or a list, tuple or dict of arrays.
        got: What the other one says, with the same shapes.
        kind: How to read classes from the first output, as `_scores.output_kind` names it:
            "softmax", "sigmoid", "multilabel", the same with "_logits", or "classes"; None where
            there are none.

    Raises:
        ValueError: if numbers of outputs or shapes differ, or there is no row.
    """
    pairs = list(zip(*_leaves(expected, got), strict=True))
    found = [_distances(one, two) for one, two in pairs]
    worst = max(range(len(found)), key=lambda i: found[i][1])
    first = pairs[0]
    return Difference(
        largest=max(largest for largest, _ in found),
        relative=found[worst][1],
        agreement=None if kind is None else agreement(first[0], first[1], kind),
        samples=int(first[0].shape[0]),
        output=worst,
    )


def agreement(expected: Any, got: Any, kind: str) -> float:
    """Share of the answers that name the same class (or, multilabel, the same set of classes)."""
    one, two = _answers(np.asarray(expected), kind), _answers(np.asarray(got), kind)
    if one.shape != two.shape:
        raise ValueError(f"The answers have the shapes {one.shape} and {two.shape}.")
    # NaN names no class: argmax would take it for one.
    known = np.isfinite(np.asarray(got, dtype=np.float64)).all(axis=-1)
    same = (one == two).all(axis=-1) if kind.startswith("multilabel") else one == two
    return float(np.mean(same & known))


def _answers(outputs: np.ndarray, kind: str) -> np.ndarray:
    if kind in _LARGEST:
        return outputs.argmax(axis=-1)
    if kind in _ONE_UNIT:
        return outputs[..., 0] >= _ONE_UNIT[kind]
    if kind.startswith("multilabel"):
        return outputs >= (0.0 if kind.endswith("_logits") else 0.5)
    raise ValueError(f"`kind` is {kind!r}; expected a kind of classifier.")


def _leaves(expected: Any, got: Any) -> tuple[list[np.ndarray], list[np.ndarray]]:
    one = [np.asarray(leaf) for leaf in keras.tree.flatten(expected)]
    two = [np.asarray(leaf) for leaf in keras.tree.flatten(got)]
    shapes = [leaf.shape for leaf in one], [leaf.shape for leaf in two]
    if shapes[0] != shapes[1]:
        raise ValueError(f"The outputs have the shapes {shapes[1]}; expected {shapes[0]}.")
    if not one or any(leaf.size == 0 for leaf in one):
        raise ValueError("There are no outputs to compare.")
    return one, two


def _distances(expected: np.ndarray, got: np.ndarray) -> tuple[float, float]:
    one, two = expected.astype(np.float64), got.astype(np.float64)
    with np.errstate(invalid="ignore"):  # infinity minus infinity
        gaps = np.where(one == two, 0.0, np.abs(one - two))
    largest = float(np.where(np.isnan(gaps), np.inf, gaps).max())
    finite = np.abs(one[np.isfinite(one)])
    scale = float(finite.max()) if finite.size else 0.0
    if largest == 0.0:
        return 0.0, 0.0
    # Relative to zeros, any rounding would be infinite.
    return largest, largest / scale if scale else largest
