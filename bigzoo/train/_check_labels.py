"""Labels by themselves: missing, not finite, constant, unbalanced, sorted, badly weighted."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from bigzoo.train._check_data import View, leaves
from bigzoo.train._check_pairs import Pair
from bigzoo.train._report import Finding, error, warning

_MAX_CLASSES = 1000  # more distinct integers than this are counts or ids, not classes
_IMBALANCE = 10  # the most frequent class over the rarest
_MIN_ROWS = 100  # with fewer rows, shares of classes say little


@dataclass(frozen=True)
class Labels:
    """Facts about one array of labels, each computed once and only when it is asked for."""

    y: np.ndarray

    @cached_property
    def numeric(self) -> bool:
        return self.y.dtype.kind in "buif" or self.y.dtype.name == "bfloat16"

    @cached_property
    def values(self) -> np.ndarray:
        return self.y if self.y.dtype.kind in "buif" else self.y.astype("float32")

    @cached_property
    def finite(self) -> bool:
        return bool(np.isfinite(self.values).all())

    @cached_property
    def low(self) -> float:
        return float(self.values.min())

    @cached_property
    def high(self) -> float:
        return float(self.values.max())

    @cached_property
    def integral(self) -> bool:
        return self.y.dtype.kind in "bui" or bool((self.values == np.floor(self.values)).all())

    @cached_property
    def binary(self) -> bool:
        """Zeros and ones alone."""
        return bool(((self.values == 0) | (self.values == 1)).all())

    @cached_property
    def row_sums(self) -> np.ndarray:
        return self.values.sum(axis=-1, dtype="float64")

    @cached_property
    def wide(self) -> bool:
        return self.y.ndim >= 2 and self.y.shape[-1] >= 2

    @cached_property
    def one_hot(self) -> bool:
        return self.wide and self.binary and bool((self.row_sums == 1).all())

    @cached_property
    def multi_hot(self) -> bool:
        return self.wide and self.binary and not self.one_hot

    @cached_property
    def column(self) -> bool:
        """One number per row: shape (n,) or (n, 1)."""
        return self.y.ndim == 1 or (self.y.ndim == 2 and self.y.shape[1] == 1)

    @cached_property
    def classes(self) -> tuple[np.ndarray, np.ndarray] | None:
        """(distinct labels, how often each), or None if these aren't labels of classes."""
        if self.y.ndim == 2 and self.one_hot:
            counts = self.values.sum(axis=0).astype(np.int64)
            seen = np.flatnonzero(counts)
            return seen, counts[seen]
        if not self.column or not self.integral or self.y.size == 0:
            return None
        if self.y.dtype.kind == "f" and self.high - self.low >= _MAX_CLASSES:
            return None
        found, counts = np.unique(self.values, return_counts=True)
        return (found, counts) if len(found) <= _MAX_CLASSES else None

    @cached_property
    def describe(self) -> str:
        kind = "integer" if self.y.dtype.kind in "ui" else str(self.y.dtype)
        if self.one_hot:
            kind = "one-hot"
        elif self.multi_hot:
            kind = "multi-hot"
        return f"{kind} labels of shape {shape_text(self.y.shape)}"


def shape_text(shape: tuple[int | None, ...]) -> str:
    """A shape with n for the number of rows."""
    rest = [str(size) if size is not None else "any" for size in shape[1:]]
    return f"(n, {', '.join(rest)})" if rest else "(n,)"


def check_values(pair: Pair, labels: Labels) -> list[Finding]:
    """Labels that no loss can use: empty, text, NaN."""
    y, where = labels.y, pair.where_y
    if y.size == 0:
        got = f"an array of shape {y.shape}"
        return [error("empty-data", where, got, "at least one label", "look at how y was read")]
    if not labels.numeric:
        got = f"labels of dtype {y.dtype}, such as {y.flat[0]!r}"
        fix = "class_names, y = np.unique(y, return_inverse=True)"
        return [error("labels-not-numeric", where, got, "numbers", fix)]
    if not labels.finite:
        bad = ~np.isfinite(labels.values)
        row = int(np.argwhere(bad)[0][0]) if y.ndim else 0
        got = f"{int(bad.sum())} of {y.size} labels are NaN or infinite, first in row {row}"
        fix = "ok = np.isfinite(y).reshape(len(y), -1).all(1); x, y = x[ok], y[ok]"
        return [error("nan-in-y", where, got, "finite numbers", fix)]
    return []


def check_distribution(pair: Pair, labels: Labels, view: View, weighted: bool) -> list[Finding]:
    """Labels that are constant, strongly unbalanced, or sorted and never shuffled."""
    y = labels.y
    if y.ndim == 0 or len(y) < 2 or not (labels.column or (y.ndim == 2 and labels.one_hot)):
        return []
    findings = _constant(pair, labels, view)
    if findings:
        return findings
    if labels.classes is None or not _classifies(pair):
        return []
    return _unbalanced(pair, labels, weighted) + _sorted(pair, labels, view)


def _classifies(pair: Pair) -> bool:
    """Whether the labels mean classes: integers under a regression loss are numbers."""
    if pair.loss is None:
        return pair.info.kind in ("softmax", "sigmoid")
    return pair.loss.kind in ("sparse", "categorical", "binary", "hinge", "categorical_hinge", "kl")


def _constant(pair: Pair, labels: Labels, view: View) -> list[Finding]:
    rows = labels.y.reshape(len(labels.y), -1)
    if not bool((rows == rows[0]).all()):
        return []
    value = _number(float(labels.values.flat[0])) if labels.column else "the same row"
    expected = "labels that differ"
    if view.whole or view.complete:
        got, fix = f"all {len(rows)} labels are {value}", "look at how y was made"
    else:
        got = f"the first {len(rows)} labels are all {value}"
        fix = "shuffle the data before training: dataset = dataset.shuffle(10_000)"
    return [warning("constant-labels", pair.where_y, got, expected, fix)]


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else f"{value:g}"


def _unbalanced(pair: Pair, labels: Labels, weighted: bool) -> list[Finding]:
    found, counts = labels.classes or (np.empty(0), np.empty(0))
    if weighted or len(labels.y) < _MIN_ROWS or len(found) < 2:
        return []
    # Of a few rows a rare class may be absent or over-represented by chance.
    rare, common = int(counts.argmin()), int(counts.argmax())
    if counts[common] < _IMBALANCE * counts[rare] or counts[common] < 50:
        return []
    names = [_number(float(found[i])) for i in (rare, common)]
    got = (
        f"{counts[rare]} rows of class {names[0]} and {counts[common]} of class {names[1]},"
        f" in {len(labels.y)} rows"
    )
    total = int(counts.sum())
    weights = ", ".join(
        f"{_number(float(c))}: {total / (len(found) * k):.3g}"
        for c, k in zip(found[:10], counts[:10], strict=True)
    )
    more = ", ..." if len(found) > 10 else ""
    fix = f"model.fit(..., class_weight={{{weights}{more}}}), and look at more than accuracy"
    expected = f"classes within a factor of {_IMBALANCE} of each other"
    return [warning("class-imbalance", pair.where_y, got, expected, fix)]


def _sorted(pair: Pair, labels: Labels, view: View) -> list[Finding]:
    if view.shuffled is not False:
        return []
    flat = labels.values.argmax(-1) if labels.wide else labels.values.reshape(-1)
    if view.batch_size is not None and len(flat) <= view.batch_size:
        return []
    steps = np.diff(flat.astype("float64"))
    if not ((steps >= 0).all() or (steps <= 0).all()):
        return []
    got = "labels sorted by class, and shuffle=False"
    fix = "shuffle=True"
    expected = "shuffled data: each batch has one class only, and training forgets the others"
    return [warning("sorted-labels", pair.where_y, got, expected, fix)]


def check_weights(view: View, role: str) -> list[Finding]:
    """Sample weights: length, sign, NaN, all zero."""
    findings = []
    where = f"{role}sample_weight"
    for weight in leaves(view.weight):
        if weight.dtype.kind not in "buif":
            got = f"dtype {weight.dtype}"
            findings.append(
                error("weights-not-numeric", where, got, "numbers", "sample_weight = None")
            )
            continue
        rows = view.num_samples if view.kind in ("arrays", "batches") else None
        if rows is not None and weight.ndim and len(weight) != rows:
            got, expected = f"{len(weight)} weights for {rows} rows", "one weight for each row"
            fix = "sample_weight = sample_weight[:len(x)]  # if the rows are in the same order"
            findings.append(error("weights-length", where, got, expected, fix))
        findings += _weight_values(weight, where)
    return findings


def _weight_values(weight: np.ndarray, where: str) -> list[Finding]:
    if weight.size == 0:
        return []
    low = float(weight.min())
    if not math.isfinite(float(weight.sum(dtype="float64"))):
        fix = "sample_weight = np.nan_to_num(sample_weight, posinf=0.0)"
        return [error("nan-in-weights", where, "NaN or infinity", "finite weights", fix)]
    if low < 0:
        fix = "sample_weight = np.maximum(sample_weight, 0)"
        got = f"weights down to {low:g}"
        return [error("negative-weights", where, got, "weights of at least 0", fix)]
    if float(weight.max()) == 0:
        fix = "sample_weight = None"
        return [error("zero-weights", where, "only zeros", "some weights above 0", fix)]
    return []
