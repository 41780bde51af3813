"""Checks of a model and its data before the first step: what is wrong, and what would be right."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any

import keras
import numpy as np

from bigzoo._errors import message
from bigzoo.train import _check_data as data_of
from bigzoo.train._check_class_weight import check_class_weight
from bigzoo.train._check_data import FULL, QUICK, Limits, View
from bigzoo.train._check_gradient import check_gradient, is_small
from bigzoo.train._check_inputs import check_inputs, inputs
from bigzoo.train._check_labels import Labels, check_distribution, check_values, check_weights
from bigzoo.train._check_loss import check_activation
from bigzoo.train._check_model import (
    check_amounts,
    check_compiled,
    check_learning_rate,
    check_trainable,
)
from bigzoo.train._check_pairs import Pair, pairs
from bigzoo.train._check_ranges import check_range
from bigzoo.train._check_split import check_classes, check_overlap
from bigzoo.train._check_targets import check_shape
from bigzoo.train._report import BigzooWarning, Finding, Report, error

__all__ = ["BigzooWarning", "Finding", "Report", "check", "check_before_fit"]

_ROWS = 8  # rows of the one gradient that is computed


def check(
    model: keras.Model,
    data: Any,
    y: Any = None,
    *,
    validation_data: Any = None,
    sample_weight: Any = None,
    class_weight: dict[int, float] | None = None,
) -> Report:
    """Look for mistakes in a model, its loss and its data, before any training.

    The model isn't changed: not its weights, nor statistics, seeds, metrics or optimizer. Arrays
    and `bigzoo.data.Batches` are looked at as a whole (very large ones: an even selection of rows),
    of datasets the first 8 batches. A one-shot generator isn't touched.

    Args:
        model: Any `keras.Model`, compiled or not.
        data: What you would give to `fit`: arrays of shape (n, ...), `bigzoo.data.Batches`, a
            `keras.utils.PyDataset`, `tf.data.Dataset` or torch `DataLoader`.
        y: Labels, where `data` is arrays.
        validation_data: `(x, y)`, `(x, y, sample_weight)` or a dataset.
        sample_weight: Array of shape (n,), where `data` is arrays.
        class_weight: As in `fit`; with it, unbalanced classes are no finding.

    Returns:
        A `Report`; print it, or see its `errors` and `warnings`. No findings: `report.ok`.

    Raises:
        TypeError: if `model` is not a Keras model or `data` is None.

    Example:
        >>> model = bz.models.mlp(4, (8,), num_outputs=3, task="multiclass")
        >>> model.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        >>> x = np.random.default_rng(0).normal(size=(60, 4)).astype("float32")
        >>> report = bz.check(model, x, np.arange(60) % 3)
        >>> [finding.code for finding in report.errors]
        ['loss-vs-activation']
        >>> print(report.errors[0].fix)
        loss="sparse_categorical_crossentropy"  # without from_logits
    """
    _check_arguments(model, data)
    weighted = sample_weight is not None or class_weight is not None
    run = _Run(model, FULL, weighted)
    run.class_weight = class_weight
    run.look(data, y, sample_weight, validation_data)
    if run.train.kind == "one-shot":
        run.findings.append(_not_checked(data))
    run.model(required=False, steps=None)
    run.amounts(batch_size=None, epochs=1, steps_per_epoch=None, endless=False)
    run.data()
    if model.compiled:
        run.gradient(always=True)
    return run.report()


def check_before_fit(
    model: keras.Model,
    x: Any,
    y: Any = None,
    *,
    sample_weight: Any = None,
    validation_data: Any = None,
    batch_size: int | None = 32,
    epochs: int = 1,
    steps_per_epoch: int | None = None,
    class_weight: dict[int, float] | None = None,
    shuffle: bool = True,
    validation_split: float = 0.0,
) -> Report:
    """The same as `check`, at a cost that a run of seconds doesn't notice.

    Of a dataset the first batch is read, of large arrays an even selection of rows; the gradient is
    computed for small models only.

    Args:
        model: The model to train.
        x: As in `fit`.
        y: As in `fit`.
        sample_weight: As in `fit`.
        validation_data: As in `fit`.
        batch_size: Rows in a batch, where `x` is arrays.
        epochs: Number of epochs.
        steps_per_epoch: As in `fit`.
        class_weight: As in `fit`.
        shuffle: Whether `fit` shuffles arrays.
        validation_split: Share of the last rows of arrays that `fit` validates with.

    Returns:
        A `Report`.
    """
    _check_arguments(model, x)
    weighted = sample_weight is not None or class_weight is not None
    run = _Run(model, QUICK, weighted)
    if validation_split and validation_data is None and data_of.kind_of(x) == "arrays":
        x, y, sample_weight, validation_data = data_of.split_off(
            x, y, sample_weight, validation_split
        )
    run.class_weight = class_weight
    run.look(x, y, sample_weight, validation_data)
    if run.train.kind == "arrays":
        run.train.shuffled, run.train.batch_size = bool(shuffle), batch_size
    batches = run.train.num_batches
    per_epoch = steps_per_epoch or (int(batches) if batches and np.isfinite(batches) else None)
    run.model(required=True, steps=per_epoch * epochs if per_epoch else None)
    run.amounts(batch_size=batch_size, epochs=epochs, steps_per_epoch=steps_per_epoch, endless=True)
    run.data()
    if model.compiled:
        run.gradient(always=False)
    return run.report()


class _Run:
    """One check: its findings so far, and what was seen of the data."""

    def __init__(self, model: keras.Model, limits: Limits, weighted: bool) -> None:
        self.keras_model = model
        self.limits = limits
        self.weighted = weighted
        self.class_weight: Any = None
        self.findings: list[Finding] = []
        self.notes: list[str] = []
        self.train = View("arrays")
        self.val: View | None = None
        self.pairs: list[Pair] = []

    def report(self) -> Report:
        return Report(self.findings, self.notes)

    def _try(self, subject: str, work: Callable[[], Iterable[Finding]]) -> bool:
        """Add the findings of `work`. True if there was no error among them.

        Data and models come in endless forms: one that a check trips over must not keep anybody
        from training, so it becomes a note.
        """
        try:
            found = list(work())
        except Exception as problem:
            first = str(problem).split("\n", 1)[0][:120]
            self.notes.append(f"{subject} not checked: {type(problem).__name__}: {first}")
            return False
        self.findings += found
        return all(finding.level != "error" for finding in found)

    def look(self, data: Any, y: Any, weight: Any, validation: Any) -> None:
        def training() -> list[Finding]:
            self.train = data_of.look(data, y, weight, self.limits)
            self.notes += self.train.notes
            return self.train.findings

        def held_out() -> list[Finding]:
            parts = data_of.validation_parts(validation)
            self.val = data_of.look(*parts, self.limits, "validation ")
            self.notes += self.val.notes
            return self.val.findings

        self.train.readable = False
        self._try("the data", training)
        if validation is not None:
            self._try("the validation data", held_out)

    def model(self, *, required: bool, steps: int | None) -> None:
        model = self.keras_model
        found, notes = check_compiled(model, required)
        self.findings += found
        self.notes += notes
        if not model.built:
            self.notes.append("the model isn't built yet, so shapes are not checked.")
        self._try("trainable weights", lambda: check_trainable(model))
        self._try("the learning rate", lambda: check_learning_rate(model, steps))

    def amounts(
        self, *, batch_size: int | None, epochs: int, steps_per_epoch: int | None, endless: bool
    ) -> None:
        found = check_amounts(
            self.train, batch_size=batch_size, epochs=epochs, steps_per_epoch=steps_per_epoch
        )
        self.findings += [one for one in found if endless or one.code != "endless-data"]

    def data(self) -> None:
        self.pairs = self._side(self.train, "")
        weights = functools.partial(check_class_weight, self.class_weight, self.pairs, self.train)
        self._try("class weights", weights)
        if self.val is None:
            if not self.train.readable:
                self._activations()
            return
        val_pairs = self._side(self.val, "validation ")
        train, val = self.train, self.val
        if train.readable and val.readable:
            if len(self.pairs) == len(val_pairs):
                self._try("classes", lambda: check_classes(self.pairs, val_pairs, train, val))
            self._try("common rows", lambda: check_overlap(train, val, self.limits))

    def _activations(self) -> None:
        """Without data, the losses and activations can still be compared."""
        made, found = pairs(self.keras_model, None)
        self.findings += found
        for pair in made:
            self.findings += check_activation(pair)

    def _side(self, view: View, role: str) -> list[Pair]:
        if not view.readable:
            return []
        made: list[Pair] = []

        def features() -> list[Finding]:
            views, found = inputs(self.keras_model, view, role)
            return found + check_inputs(self.keras_model, views, self.limits, role)

        def labels() -> list[Finding]:
            found_pairs, found = pairs(self.keras_model, view.y, role)
            made.extend(found_pairs)
            return found + _labels_missing(self.keras_model, view, role)

        self._try(f"{role}features", features)
        self._try(f"{role}labels", labels)
        if not any(one.code == "num-inputs" for one in self.findings):  # lengths follow from it
            self._try(f"{role}row counts", lambda: _row_counts(view, role))
        self._try(f"{role}sample weights", lambda: check_weights(view, role))
        for pair in made:
            self._try(f"{role}labels", functools.partial(self._pair, pair, view, role))
        return made

    def _pair(self, pair: Pair, view: View, role: str) -> list[Finding]:
        findings = [] if role else check_activation(pair)
        if pair.y is None:
            return findings
        labels = Labels(pair.y)
        bad = check_values(pair, labels)
        if bad:
            known = {one.code for one in self.findings}
            # Of empty data, x has been told about already.
            return findings + [one for one in bad if one.code not in known & {"empty-data"}]
        if any(one.code in ("softmax-one-unit", "one-unit-crossentropy") for one in findings):
            return findings  # with the right loss, the labels may be right as they are
        bad = check_shape(pair, labels)
        if not bad:
            bad = check_range(pair, labels, view)
        bad = _only_own(bad, findings)
        if role:  # a doubt about validation labels is one about the training labels too
            return [one for one in bad if one.level == "error"]
        if not any(one.level == "error" for one in bad):
            weighted = self.weighted or view.weight is not None
            found = check_distribution(pair, labels, view, weighted)
            if any(one.code == "constant-labels" for one in found):
                return findings + found  # that some units are not used follows from it
            bad = bad + found
        return findings + bad

    def gradient(self, *, always: bool) -> None:
        """Last, since a gradient says something only where all the rest is right."""
        model, view = self.keras_model, self.train
        usable = view.readable and model.built and bool(model.trainable_weights)
        with_loss = [pair for pair in self.pairs if pair.loss is not None]
        usable = usable and bool(with_loss) and all(pair.y is not None for pair in with_loss)
        if not usable or any(one.level == "error" for one in self.findings):
            return
        if not always and not is_small(model, view.x, _ROWS):
            return
        self._try("the gradient", lambda: check_gradient(model, self.pairs, view.x, _ROWS))


def _only_own(bad: list[Finding], found: list[Finding]) -> list[Finding]:
    """Without doubts that follow from a finding about the same output's loss."""
    if not found:
        return bad
    return [one for one in bad if one.level == "error" or one.code == "unused-units"]


def _check_arguments(model: Any, data: Any) -> None:
    if not isinstance(model, keras.Model):
        raise TypeError(message("model", model, "a keras.Model"))
    if data is None:
        raise TypeError(message("data", data, "arrays or a dataset", "Give what `fit` would get."))


def _not_checked(data: Any) -> Finding:
    got = f"a one-shot iterator ({type(data).__name__}), which looking at would use up"
    fix = "check one batch of it: bz.check(model, *next(make_generator()))"
    return Finding("warning", "not-checked", "data", got, "data that can be read again", fix)


def _labels_missing(model: keras.Model, view: View, role: str) -> list[Finding]:
    if view.y is not None or not model.compiled or getattr(model, "loss", None) is None:
        return []
    got = "no labels, but the model has a loss"
    fix = "bz.fit(model, x, y)"
    if role:
        fix = "validation_data=(x_val, y_val)"
    elif view.kind != "arrays":
        fix = "dataset = tf.data.Dataset.from_tensor_slices((x, y)).batch(32)"
        if view.kind in ("batches", "pydataset"):
            fix = "bz.data.Batches(x, y)"
    return [error("labels-missing", f"{role}y", got, "labels for each row", fix)]


def _row_counts(view: View, role: str) -> list[Finding]:
    if view.kind != "arrays":
        return []
    found = {len(leaf) for leaf in data_of.leaves(view.stored_x) if leaf.ndim}
    labels = set(view.y_rows)
    if len(found | labels) <= 1:
        return []
    if len(found) > 1:
        got = f"arrays of {sorted(found)} rows"
    else:
        got = f"{found.pop() if found else 0} rows of x and {sorted(labels)[0]} of y"
    # Cutting the longer one would hide that the rows may not belong together at all.
    fix = "look at how x and y were read: row i of y must belong to row i of x"
    return [error("lengths-differ", f"{role}x", got, "the same number of rows", fix)]
