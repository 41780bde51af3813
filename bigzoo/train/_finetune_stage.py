"""One stage of a fine-tuning: flags, optimizer, the model that is really trained, and `fit`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras

from bigzoo.train import _lora
from bigzoo.train._blocks import Anatomy, set_trainable
from bigzoo.train._checkpoint import FILE
from bigzoo.train._compile import compile
from bigzoo.train._fit import fit
from bigzoo.train._fit_data import Data, make_feeds
from bigzoo.train._layerwise import LayerwiseAdamW
from bigzoo.train._optimizers import NO_DECAY
from bigzoo.train._schedule import warmup_cosine
from bigzoo.train._stages import Plan
from bigzoo.train._stored_features import NotStorable, split_model, store

# Callbacks that look at the logs alone, so that they don't miss the body.
_LOGS_ONLY = (
    keras.callbacks.CSVLogger,
    keras.callbacks.History,
    keras.callbacks.ProgbarLogger,
    keras.callbacks.TerminateOnNaN,
)


@dataclass
class Settings:
    """Arguments of `finetune` that hold for all stages."""

    weight_decay: float
    lora: int | None
    cache_features: bool | str
    callbacks: Any
    verbose: Any


@dataclass
class Recipe:
    """What to compile with, besides the optimizer; `saved` are those of a compiled model."""

    task: Any
    loss: Any
    metrics: Any
    saved: dict[str, Any] | None = None

    def arguments(self) -> dict[str, Any]:
        if self.saved is None:
            return {"task": self.task, "loss": self.loss, "metrics": self.metrics}
        # Made anew each time: metrics have a state, which belongs to one compiled model.
        return {name: _revive(value) for name, value in self.saved.items()}


def recipe_of(model: keras.Model, task: Any, loss: Any, metrics: Any) -> Recipe:
    """What is given, or what the model is compiled with."""
    given = any(value is not None for value in (task, loss, metrics))
    if given or not model.compiled or model.loss is None:
        return Recipe(task, loss, metrics)
    config = model.get_compile_config()
    saved = {name: config.get(name) for name in ("loss", "metrics", "loss_weights")}
    try:
        if saved["loss"] is None:
            raise ValueError("the loss can't be serialised")
        for value in saved.values():
            _revive(value)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"`model` ({model.name!r}) is compiled with a loss or metrics that can't be compiled "
            "anew for each stage; expected ones that Keras can serialise. Give `loss=` and "
            "`metrics=` here, or register yours with keras.saving.register_keras_serializable."
        ) from error
    return Recipe(None, None, None, saved)


def _revive(value: Any) -> Any:
    return keras.saving.deserialize_keras_object(value)


@dataclass
class Run:
    """A fine-tuning: the model, its parts, and all arguments."""

    model: keras.Model
    anatomy: Anatomy
    data: Data
    recipe: Recipe
    settings: Settings
    folder: Path | None

    def compile(self, model: keras.Model, plan: Plan, factors: Any = None) -> None:
        """Compile what is trained in a stage; Keras' optimizers have one rate for all weights."""
        optimizer = LayerwiseAdamW(
            warmup_cosine(plan.learning_rate, plan.warmup_steps),
            factors,
            self.settings.weight_decay,
            NO_DECAY,
        )
        compile(model, optimizer=optimizer, verbose=False, **self.recipe.arguments())


@dataclass
class _Work:
    """What `fit` gets in a stage."""

    model: keras.Model
    x: Any
    y: Any
    validation_data: Any
    batch_size: int | None
    seed: int | None
    note: str
    folder: Path | None


def run_stage(run: Run, plan: Plan, number: int, count: int, first: int) -> Any:
    """Train one stage.

    Args:
        run: The fine-tuning.
        plan: The stage.
        number: Its number, from 1.
        count: How many there are.
        first: Epochs before it.

    Returns:
        The `History` of `fit`.
    """
    set_trainable(run.model, run.anatomy, plan.units)
    adapted = run.settings.lora is not None and not plan.is_head_only
    folder = None if run.folder is None else run.folder / f"stage{number}"
    if adapted:
        work = _adapted(run, plan, folder)
    else:
        work = _stored(run, plan, folder) or _whole(run, folder)
    run.compile(work.model, plan, None if adapted else _factors(run, plan, work.model))
    if run.settings.verbose:
        print(_describe(run, plan, work, number, count))
    history = fit(
        work.model,
        work.x,
        work.y,
        validation_data=work.validation_data,
        initial_epoch=first,
        epochs=first + plan.stage.epochs,
        batch_size=work.batch_size,
        resume=work.folder,
        callbacks=run.settings.callbacks,
        verbose=run.settings.verbose,
        check=False,
        seed=work.seed,
        class_weight=run.data.class_weight,
    )
    if adapted:
        _lora.give_back(work.model, run.model)
    return history


def finish(run: Run, plan: Plan) -> None:
    """Compile with an optimizer of Keras, so that the model can be saved and loaded anywhere."""
    rate = warmup_cosine(plan.learning_rate, plan.warmup_steps)
    optimizer = keras.optimizers.AdamW(rate, weight_decay=run.settings.weight_decay)
    optimizer.exclude_from_weight_decay(var_names=list(NO_DECAY))
    compile(run.model, optimizer=optimizer, verbose=False, **run.recipe.arguments())


def _whole(run: Run, folder: Path | None) -> _Work:
    data = run.data
    given = (data.x, data.y, data.validation_data, data.batch_size, data.seed)
    return _Work(run.model, *given, "", folder)


def _adapted(run: Run, plan: Plan, folder: Path | None) -> _Work:
    work = _whole(run, folder)
    rank, seed = run.settings.lora or 0, run.data.seed or 0
    # A compiled model is copied with its optimizer, which for a copy of all weights is a waste.
    run.model.compile("sgd")
    work.model = _lora.adapted_copy(run.model, plan.units, run.anatomy.head, rank, seed)
    work.note = f", LoRA of rank {rank}"
    return work


def _stored(run: Run, plan: Plan, folder: Path | None) -> _Work | None:
    """The head on stored features; None where the whole model has to run."""
    wish = run.settings.cache_features
    if wish is False or not plan.is_head_only:
        return None
    # What a run has begun in one way goes on so, whatever the memory and the callbacks say now.
    own = None if folder is None else folder.with_name(f"{folder.name}_features")
    begun = own is not None and (own / FILE).exists()
    if wish == "auto" and not begun and folder is not None and (folder / FILE).exists():
        return None
    try:
        if wish == "auto" and not begun:
            _check_callbacks(run.settings.callbacks)
        split = split_model(run.model, run.anatomy.head)
        train, validation = make_feeds(run.data, None)
        limited = wish == "auto" and not begun
        features, held_out = store(split, train, validation, limited=limited)
    except NotStorable as reason:
        if wish is True:
            raise ValueError(
                f"`cache_features` is True, but {reason}; expected a deterministic frozen body and "
                'data that are the same in each epoch. Use cache_features="auto".'
            ) from reason
        return None
    return _Work(split.head, features, None, held_out, None, None, ", on stored features", own)


def _check_callbacks(callbacks: Any) -> None:
    for callback in keras.tree.flatten(callbacks) if callbacks is not None else []:
        early = type(callback) is keras.callbacks.EarlyStopping
        if not early and not isinstance(callback, _LOGS_ONLY):
            raise NotStorable(f"the callback {type(callback).__name__} may need the whole model")


def _factors(run: Run, plan: Plan, model: keras.Model) -> list[float]:
    """The factor on the rate of each weight that `model` trains."""
    depths: dict[int, int] = {}
    for unit in (*run.anatomy.head, *plan.units):
        depth = run.anatomy.depth_of(unit)
        depths.update({id(weight): depth for weight in unit.layer.weights})
    return [plan.layer_decay ** depths[id(weight)] for weight in model.trainable_weights]


def _describe(run: Run, plan: Plan, work: _Work, number: int, count: int) -> str:
    trained = _size(work.model.trainable_weights)
    total = _size(run.model.weights)
    plural = "s" * (plan.stage.epochs > 1)
    what = "head" if plan.is_head_only else f"head and {_names(plan)}"
    return (
        f"bigzoo.finetune: stage {number} of {count}, {plan.stage.epochs} epoch{plural}: {what}, "
        f"{trained:,} of {total:,} parameters, learning rate {plan.learning_rate:.3g}{work.note}"
    )


def _names(plan: Plan) -> str:
    names = [unit.path for unit in plan.units]
    return names[0] if len(names) == 1 else f"{names[-1]} to {names[0]}"


def _size(weights: Sequence[Any]) -> int:
    return sum(int(keras.ops.size(weight)) for weight in weights)
