"""Training after something was cut: the data, the compiling, the fitting, the receipt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from bigzoo._errors import check_bool, check_int, check_number, message
from bigzoo.compress._data import count_rows, is_tf_dataset, outputs_of, rows, take
from bigzoo.compress._score import kind_of, score_outputs
from bigzoo.deploy._difference import difference
from bigzoo.deploy._make_receipt import Subject, make_receipt
from bigzoo.deploy._receipt import Receipt
from bigzoo.deploy._signature import signature_of, to_flat
from bigzoo.train._compile import compile as compile_model
from bigzoo.train._fit import fit
from bigzoo.train._optimizers import NO_DECAY
from bigzoo.train._schedule import MAX_LEARNING_RATE, schedule_of, warmup_cosine

_COMPARED = 512  # rows on which both models' answers are compared
_SCORED = 5000  # rows on which they are scored at most


@dataclass(frozen=True)
class Training:
    """How to train on, checked.

    Attributes:
        data, y, validation_data: As given.
        x, targets: Rows to compare and to score on, as numpy arrays; targets None without labels.
        source: Where these rows come from, for the receipt.
    """

    data: Any
    y: Any
    validation_data: Any
    epochs: int
    batch_size: int
    learning_rate: float | None
    callbacks: Any
    seed: int
    verbose: Any
    measure: bool
    x: Any
    targets: Any
    source: str


def check_training(
    model: keras.Model,
    data: Any,
    y: Any,
    validation_data: Any,
    *,
    epochs: Any,
    batch_size: Any,
    learning_rate: Any,
    callbacks: Any,
    seed: Any,
    verbose: Any,
    measure: Any,
) -> Training:
    """The arguments of a training, or an error that names the wrong one."""
    epochs = check_int("epochs", epochs, 0)
    batch_size = check_int("batch_size", batch_size, 1)
    seed = check_int("seed", seed, 0)
    measure = check_bool("measure", measure)
    if learning_rate is not None:
        learning_rate = check_number(
            "learning_rate", learning_rate, above=0, maximum=MAX_LEARNING_RATE
        )
    found = _rows(model, data, y, "data")
    if epochs and found[1] is None:
        fix = "Give `data=(x, y)`, or `y=`; `epochs=0` cuts without training."
        raise ValueError(f"`data` has no targets; expected some to train with. {fix}")
    source = "the training data"
    if validation_data is not None:
        found, source = _rows(model, validation_data, None, "validation_data"), "validation_data"
    return Training(
        data,
        y,
        validation_data,
        epochs,
        batch_size,
        learning_rate,
        callbacks,
        seed,
        verbose,
        measure,
        *found,
        source,
    )


def _rows(model: keras.Model, data: Any, y: Any, name: str) -> tuple[Any, Any]:
    x, targets = rows(data, _SCORED, name=name)
    if y is not None:
        if targets is not None:
            fix = "Leave `y` out."
            raise ValueError(message("y", y, f"None beside a `{name}` that brings targets", fix))
        if _is_stream(data):
            raise ValueError(message("y", y, "None beside a data set, which brings its targets"))
        x, targets = rows((data, y), _SCORED, name=name)
    try:
        to_flat(signature_of(model), take(x, slice(1)))
    except (ValueError, TypeError) as error:
        raise type(error)(f"`{name}` doesn't fit the model {model.name!r}: {error}") from error
    return x, targets


def _is_stream(data: Any) -> bool:
    return isinstance(data, keras.utils.PyDataset) or is_tf_dataset(data)


# === Training ===


def compile_like(source: keras.Model, made: keras.Model, learning_rate: float | None) -> None:
    """Compile `made` as `source` is, with a fresh optimizer; as `bigzoo.compile` does if it isn't.

    Losses and metrics of one's own are taken as they are where Keras can't copy them.
    """
    if not source.compiled or source.loss is None:
        compile_model(made, learning_rate=learning_rate, verbose=False)
        return
    config = source.get_compile_config() or {}
    made.compile(
        optimizer=_fresh_optimizer(source, learning_rate),
        loss=source.loss,
        loss_weights=config.get("loss_weights"),
        metrics=_revive(config.get("metrics")),
        weighted_metrics=_revive(config.get("weighted_metrics")),
        run_eagerly=source.run_eagerly,
        jit_compile=source.jit_compile,
        steps_per_execution=source.steps_per_execution,
    )


def _revive(value: Any) -> Any:
    """Metrics anew, since they have a state; None where they can't be made from their config."""
    try:
        return keras.saving.deserialize_keras_object(value)
    except (TypeError, ValueError):
        return None


def _fresh_optimizer(model: keras.Model, learning_rate: float | None) -> Any:
    """An optimizer of the same settings that remembers nothing."""
    optimizer: Any = model.optimizer
    made = type(optimizer).from_config(optimizer.get_config())
    scheduled = schedule_of(model)
    if scheduled is not None and hasattr(made, "exclude_from_weight_decay"):
        made.exclude_from_weight_decay(var_names=list(NO_DECAY))  # what `bigzoo.compile` leaves out
    if learning_rate is not None:
        inner = getattr(made, "inner_optimizer", made)
        inner.learning_rate = (
            learning_rate
            if scheduled is None
            else warmup_cosine(learning_rate, scheduled.warmup_steps)
        )
    return made


def train(model: keras.Model, training: Training, callbacks: Sequence[Any] = ()) -> None:
    """Fit `model`, which is compiled, to the data."""
    if training.epochs == 0:
        return
    x, y, weights = training.data, training.y, None
    if isinstance(x, tuple):
        x, own, weights = keras.utils.unpack_x_y_sample_weight(x)
        y = own if y is None else y
    given = keras.tree.flatten(training.callbacks) if training.callbacks is not None else []
    fit(
        model,
        x,
        y,
        sample_weight=weights,
        validation_data=training.validation_data,
        epochs=training.epochs,
        batch_size=None if _is_stream(x) else training.batch_size,
        callbacks=[*callbacks, *given],
        seed=None if _is_stream(x) else training.seed,
        verbose=training.verbose,
    )


# === Receipt ===


def receipt_of(
    action: str,
    before: keras.Model,
    after: keras.Model,
    training: Training,
    notes: Sequence[str],
) -> Receipt:
    """What was gained and lost, on the rows that `training` keeps for it."""
    answers = [outputs_of(model.predict_on_batch, training.x) for model in (before, after)]
    total = count_rows(training.x)
    score = None
    lines = list(notes)
    if training.targets is not None:
        # `after` is compiled like `before`, or says what its loss is where that one isn't.
        name, first = score_outputs(answers[0], training.targets, after)
        _, second = score_outputs(answers[1], training.targets, after)
        score = (name, first, second, total)
        lines.append(f"Scores are of {training.source}.")
    few = np.arange(min(total, _COMPARED)) * total // min(total, _COMPARED)
    found = difference(take(answers[0], few), take(answers[1], few), kind_of(before))
    return make_receipt(
        action,
        _subject(before, training.measure),
        _subject(after, training.measure),
        take(training.x, few),
        score=score,
        found=found,
        measure=training.measure,
        notes=lines,
    )


def _subject(model: keras.Model, measure: bool) -> Subject:
    from bigzoo.deploy._predictor import predictor

    what = f"Keras on {keras.backend.backend()}"
    return Subject(what, predictor(model, "keras") if measure else model.predict_on_batch, model)
