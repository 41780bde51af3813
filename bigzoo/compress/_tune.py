"""Training after something was cut: the data, the compiling, the fitting, the receipt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from bigzoo._errors import check_bool, check_int, check_number, message
from bigzoo.compress._data import count_rows, is_tf_dataset, outputs_of, rows, spread, take
from bigzoo.compress._score import classes_of, score_outputs
from bigzoo.deploy._compiled import CompiledCall
from bigzoo.deploy._difference import difference
from bigzoo.deploy._make_receipt import Subject, make_receipt
from bigzoo.deploy._receipt import Receipt
from bigzoo.deploy._signature import signature_of, to_flat
from bigzoo.train._blocks import flags, units_of
from bigzoo.train._compile import compile as compile_model
from bigzoo.train._fit import fit
from bigzoo.train._optimizers import NO_DECAY
from bigzoo.train._schedule import MAX_LEARNING_RATE, schedule_of, warmup_cosine
from bigzoo.train._state import sync, value_of

_COMPARED = 512  # rows on which both models' answers are compared
_SCORED = 5000  # rows on which they are scored at most
NAMED = 12  # layers that a note names at most


@dataclass(frozen=True)
class Training:
    """How to train on, checked.

    Attributes:
        data, y, validation_data: As given.
        x, targets: Rows to compare and to score on, as numpy arrays; targets None without labels.
        source: Where these rows come from, for the receipt.
        call: The compiled call of the model before anything is done to it.
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
    latency: bool
    x: Any
    targets: Any
    source: str
    call: Callable[[Any], Any]


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
    latency: Any,
) -> Training:
    """The arguments of a training, or an error that names the wrong one."""
    _check_finite(model)
    epochs = check_int("epochs", epochs, 0)
    batch_size = check_int("batch_size", batch_size, 1)
    seed = check_int("seed", seed, 0)
    latency = check_bool("latency", latency)
    if learning_rate is not None:
        learning_rate = check_number(
            "learning_rate", learning_rate, above=0, maximum=MAX_LEARNING_RATE
        )
    if epochs:
        _check_plain_step(model)
    found = _rows(model, data, y, "data")
    if epochs and found[1] is None:
        fix = "Give `data=(x, y)`, or `y=`; `epochs=0` cuts without training."
        raise ValueError(f"`data` has no targets; expected some to train with. {fix}")
    source = "the training data"
    if validation_data is not None:
        found, source = _rows(model, validation_data, None, "validation_data"), "validation_data"
        if epochs and found[1] is None:
            fix = "Give `validation_data=(x, y)`."
            raise ValueError(f"`validation_data` has no targets; expected some. {fix}")
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
        latency,
        *found,
        source,
        CompiledCall(model),  # for its errors, too: before the training, not after it
    )


def _check_finite(model: keras.Model) -> None:
    sync(model)
    for value in map(value_of, model.weights):
        # bfloat16 is no kind of float to numpy.
        if value.dtype.kind in "fV" and not np.isfinite(value.astype(np.float32)).all():
            raise ValueError(
                f"`model` ({model.name!r}) has weights that are NaN or infinite: its training has "
                "diverged. Expected a trained model."
            )


def _check_plain_step(model: keras.Model) -> None:
    for name in ("train_step", "compute_loss"):
        if getattr(type(model), name) is not getattr(keras.Model, name):
            raise ValueError(
                f"`model` is a {type(model).__name__}, which has a `{name}` of its own, and what "
                "comes out is a plain keras.Model; expected one that Keras trains as usual. Give "
                "`epochs=0` and train the result yourself."
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


def compile_like(source: keras.Model, made: keras.Model, learning_rate: float | None) -> list[str]:
    """Compile `made` as `source` is, with a fresh optimizer; as `bigzoo.compile` does if it isn't.

    Returns:
        Names of the metrics that it lacks, since Keras can't make them from their config.
    """
    if not source.compiled or source.loss is None:
        compile_model(made, learning_rate=learning_rate, verbose=False)
        return []
    config = source.get_compile_config() or {}
    lost: list[str] = []
    several = len(source.outputs) > 1
    made.compile(
        optimizer=fresh_optimizer(source, learning_rate),
        loss=source.loss,
        loss_weights=config.get("loss_weights"),
        metrics=_revive(config.get("metrics"), lost, several),
        weighted_metrics=_revive(config.get("weighted_metrics"), lost, several),
        run_eagerly=source.run_eagerly,
        jit_compile=source.jit_compile,
        steps_per_execution=source.steps_per_execution,
    )
    return lost


def _revive(value: Any, lost: list[str], several: bool = False) -> Any:
    """Metrics anew, since they have a state; without those that can't be made from their config.

    With `several` outputs, a list has a place for each of them.
    """
    if isinstance(value, dict) and "class_name" not in value:
        return {name: _revive(one, lost) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        found = [_revive(one, lost) for one in value]
        if several:
            return [[] if one is None else one for one in found]
        return [one for one in found if one is not None]
    try:
        return keras.saving.deserialize_keras_object(value)
    except (TypeError, ValueError):
        config = value.get("config")
        name = config.get("name") if isinstance(config, dict) else config
        lost.append(str(name or value["class_name"]))
        return None


def fresh_optimizer(model: keras.Model, learning_rate: float | None = None) -> Any:
    """One of the same settings that remembers nothing; None if the model has none."""
    optimizer: Any = model.optimizer if model.compiled else None
    if optimizer is None:
        return None
    made = type(optimizer).from_config(optimizer.get_config())
    inner = getattr(made, "inner_optimizer", made)  # inside of what scales losses in float16
    scheduled = schedule_of(model)
    if scheduled is not None:
        inner.exclude_from_weight_decay(var_names=list(NO_DECAY))  # as `bigzoo.compile` does
    if learning_rate is not None:
        inner.learning_rate = (
            learning_rate
            if scheduled is None
            else warmup_cosine(learning_rate, scheduled.warmup_steps)
        )
    return made


def tune(
    source: keras.Model, model: keras.Model, training: Training, callbacks: Sequence[Any] = ()
) -> list[str]:
    """Compile `model` as `source` is, and fit it to the data; what a reader must know of that.

    Layers that are frozen are trained, too: what is left of them must make up for what is gone.
    """
    lost = compile_like(source, model, training.learning_rate)
    before = flags(model)
    frozen = [unit.path for unit in units_of(model) if not unit.layer.trainable]
    notes = []
    if training.epochs:
        for layer, _ in before:
            if not layer.trainable:
                layer.trainable = True
        _fit(model, training, callbacks)
    if training.epochs and frozen:
        for layer, trainable in before:
            if layer.trainable != trainable:
                layer.trainable = trainable
        # The optimizer that was used knows other weights.
        compile_like(source, model, training.learning_rate)
        notes.append(f"Trained although frozen: {named(frozen)}; they are frozen again.")
    if lost:
        fix = "register them with keras.saving.register_keras_serializable to keep them"
        notes.append(f"Metrics that Keras can't copy are left out: {named(lost)}; {fix}.")
    return notes


def named(names: Sequence[str]) -> str:
    """The first few names, and how many more there are."""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(map(repr, names[:NAMED])) + more


def _fit(model: keras.Model, training: Training, callbacks: Sequence[Any]) -> None:
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
    calls = (training.call, CompiledCall(after))
    answers = [outputs_of(call, training.x) for call in calls]
    total = count_rows(training.x)
    score = None
    lines = list(notes)
    # `after` is compiled like `before`, or says what its loss is where that one isn't.
    if training.targets is not None:
        name, first = score_outputs(answers[0], training.targets, after)
        _, second = score_outputs(answers[1], training.targets, after)
        score = (name, first, second, total)
        lines.append(f"Scores are of {training.source}.")
    few = spread(total, _COMPARED)
    kind = classes_of(after, training.targets)
    what = f"Keras on {keras.backend.backend()}"
    return make_receipt(
        action,
        Subject(what, calls[0], before),
        Subject(what, calls[1], after),
        take(training.x, few),
        score=score,
        found=difference(take(answers[0], few), take(answers[1], few), kind),
        measure=training.latency,
        notes=lines,
    )
