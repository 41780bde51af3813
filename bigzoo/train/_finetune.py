"""`finetune`: train the head of a pretrained network first, then its upper layers with care."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from bigzoo._errors import check_bool, check_choice, check_int, check_number, message
from bigzoo.train import _checkpoint, _fit
from bigzoo.train._blocks import dissect, flags, put_back, set_trainable
from bigzoo.train._family import family
from bigzoo.train._finetune_stage import Run, Settings, finish, recipe_of, run_stage
from bigzoo.train._fit_data import Data, make_feeds
from bigzoo.train._fit_form import check_form
from bigzoo.train._lora import check_adaptable
from bigzoo.train._stages import HEAD_RATE, Plan, Stage, make_plan, make_stages

__all__ = ["Stage", "finetune"]

CACHE = ("auto", True, False)


def finetune(
    model: keras.Model,
    data: Any,
    y: Any = None,
    *,
    validation_data: Any = None,
    unfreeze: Any = None,
    stages: Sequence[Stage | Mapping[str, Any]] | None = None,
    head_epochs: int = 3,
    epochs: int = 5,
    learning_rate: float | None = None,
    head_learning_rate: float = HEAD_RATE,
    layer_decay: float = 0.8,
    warmup_steps: int = 100,
    weight_decay: float = 0.01,
    lora: int | None = None,
    head: Sequence[str] | None = None,
    cache_features: bool | str = "auto",
    task: Any = None,
    loss: Any = None,
    metrics: Any = None,
    class_weight: Mapping[int, float] | None = None,
    callbacks: Any = None,
    batch_size: int | None = None,
    seed: int | None = None,
    resume: str | os.PathLike[str] | None = None,
    check: bool = True,
    verbose: bool | int | str = "auto",
) -> keras.callbacks.History:
    r"""Fit a pretrained model to new data: first its new head, then its upper blocks too.

    In the first stage the body is frozen, so that the random gradients of a new head can't spoil
    it. In the second stage `unfreeze` says what is trained besides the head. The learning rate of a
    block that lies \(d\) blocks below the head is \(\eta \gamma^d\) with \(\gamma\) =
    `layer_decay`: the lower a layer, the more general what it knows. Each stage has a warm-up and
    ends along a cosine (`warmup_cosine`); the optimizer is AdamW. Both stages run in `bigzoo.fit`.

    BatchNormalization in the body stays frozen, and so in inference, in all stages: its moving
    statistics come out bit for bit as they went in. That holds for models within the model, too.

    The head is the layer that makes the outputs; where a whole network is one layer of the model
    (`keras.applications`), all layers after it. A block is what has a common name up to
    `block…`, `layer…` or `stage…` and a number, as in our models and in `keras.applications`;
    elsewhere it is a layer, with the normalisation that follows it.

    Afterwards the trainable flags of all layers are those of the last stage, and the model is
    compiled with Keras' own AdamW, with its moments at zero: it is saved and loaded wherever Keras
    is, and `bigzoo.fit` trains it further. If an error ends the call, the flags are put back.

    Papers: Howard and Ruder 2018, https://arxiv.org/abs/1801.06146 (section 3.2, a rate for each
    layer); Hu et al. 2022, https://arxiv.org/abs/2106.09685 (LoRA).

    Args:
        model: A built functional model or Sequential. Loss and metrics of a compiled model are
            kept; otherwise they follow from its outputs, as in `bigzoo.compile`.
        data: As `x` of `bigzoo.fit`: arrays, a `bigzoo.data.Batches`, any data set of Keras that
            can be read again.
        y: Targets, where `data` is arrays.
        validation_data: As in `bigzoo.fit`.
        unfreeze: "top" (the upper third of the blocks), "all", "head" (nothing), a number of blocks
            from the top, or a list of patterns of layer names such as `["block5_*"]`. None is "top"
            without `lora` and "all" with it.
        stages: A list of `bz.train.Stage` or dicts of its arguments, in place of `unfreeze`,
            `head_epochs` and `epochs`.
        head_epochs: Epochs of the first stage; 0 leaves it out.
        epochs: Epochs of the second stage; 0 leaves it out.
        learning_rate: Peak rate of the head after the first stage, above 0. None is 0.0005 with
            `lora`, else 0.00005 for networks with attention and 0.0001 for others.
        head_learning_rate: Peak rate in the first stage, above 0.
        layer_decay: Factor on the rate for each block further down, above 0 and at most 1.
        warmup_steps: Steps of linear warm-up in stages that train more than the head, at least 0;
            at most a tenth of the stage is used.
        weight_decay: Decay of AdamW, at least 0; biases and normalisation are left out.
        lora: Rank, at least 1: the Dense, EinsumDense and Embedding layers of what `unfreeze` names
            (those inside attention layers, too) get low-rank updates by Keras' `enable_lora`, all
            at the full rate, and the rest of the body stays frozen. The updates are trained on a
            copy of the model and then added to its weights, so that its structure stays plain.
        head: Patterns of the layers of the head, where it isn't the one described above.
        cache_features: What the frozen body computes is the same in every epoch if nothing in it is
            random and the data aren't augmented. "auto" then stores it and trains the head alone,
            which is many times faster, if it fits in a quarter of the free memory and `callbacks`
            hold none that would miss the whole model. True makes an error of what prevents it (and
            does not look at the memory), False always runs the whole model.
        task: As in `bigzoo.compile`.
        loss: As in `bigzoo.compile`.
        metrics: As in `bigzoo.compile`.
        class_weight: As in `bigzoo.fit`.
        callbacks: As in `bigzoo.fit`; they run in each stage.
        batch_size: Rows per batch, where `data` is arrays; None for 32.
        seed: Seed of the order of the rows and of LoRA, at least 0; None as in `bigzoo.fit`.
        resume: Folder of checkpoints, one folder in it for each stage. Start the same program again
            after a crash, and the stages that are done are read, the one that wasn't goes on.
        check: Whether to check model and data first, as `bigzoo.fit` does.
        verbose: "auto" or 1 for a progress bar, 2 for a line per epoch, 0 for nothing.

    Returns:
        Keras' `History` of all stages, with epochs counted on. `history.stages` is the list of
        `Stage` that ran, `history.interrupted` as in `bigzoo.fit`.

    Raises:
        TypeError, ValueError: if an argument is wrong, the check finds an error, or features are to
            be stored that can't be.

    Example:
        >>> x, y = bz.data.drawn_pets(40, image_size=(32, 32), seed=0)
        >>> model = bz.models.cnn((32, 32, 3), num_classes=2, dropout=0)
        >>> history = bz.finetune(
        ...     model, x, y, head_epochs=2, epochs=1, unfreeze="top", seed=0, verbose=0
        ... )
        >>> history.epoch
        [0, 1, 2]
        >>> model.get_layer("stem_conv").trainable, model.get_layer("last_conv").trainable
        (False, True)
    """
    anatomy = dissect(model, head)
    check_choice("verbose", verbose, ["auto", 0, 1, 2, True, False])
    check_choice("cache_features", cache_features, CACHE)
    check = check_bool("check", check)
    if lora is not None:
        lora = check_int("lora", lora, 1)
    wanted = make_stages(stages, unfreeze, epochs, head_epochs, head_learning_rate, lora)
    rate = _default_rate(model, lora) if learning_rate is None else learning_rate
    plans = [make_plan(one, anatomy, rate, layer_decay, warmup_steps) for one in wanted]
    settings = Settings(
        weight_decay=check_number("weight_decay", weight_decay, 0),
        lora=lora,
        cache_features=cache_features,
        callbacks=callbacks,
        verbose=verbose,
    )
    _check_lora(plans, lora)
    folder = None if resume is None else _checkpoint.check_folder(resume)
    arguments = Data(
        data,
        y,
        None,
        validation_data,
        0.0,
        batch_size,
        None,
        None,
        _seed(data, seed, folder),
        class_weight,
        None,
        None,
    )
    _check_readable(arguments)
    recipe = recipe_of(model, task, loss, metrics)
    run = Run(model, anatomy, arguments, recipe, settings, folder)
    return _run_all(run, plans, check)


def _run_all(run: Run, plans: Sequence[Plan], check: bool) -> keras.callbacks.History:
    before = flags(run.model)
    history = keras.callbacks.History()
    history.set_model(run.model)
    history.on_train_begin()
    history.stages, history.interrupted = [], None
    begun = False
    try:
        set_trainable(run.model, run.anatomy, plans[0].units)
        run.compile(run.model, plans[0])
        if check:
            check_form(run.model, run.data)
            _check_before(run, plans)
        _fit._note(run.model, run.data, make_feeds(run.data, None)[0])
        first = 0
        for number, plan in enumerate(plans, start=1):
            found = run_stage(run, plan, number, len(plans), first)
            begun = True
            _append(history, found)
            history.stages.append(plan.stage)
            history.interrupted = found.interrupted
            first += plan.stage.epochs
            if found.interrupted is not None:
                break
    except BaseException:
        if not begun:
            put_back(before)
        raise
    finally:
        finish(run, plans[len(history.stages) - 1])
    return history


def _append(history: keras.callbacks.History, found: keras.callbacks.History) -> None:
    history.epoch = [*history.epoch, *found.epoch]
    for name, values in found.history.items():
        history.history.setdefault(name, []).extend(values)


# === Arguments ===


def _default_rate(model: keras.Model, lora: int | None) -> float:
    if lora is not None:
        return 5e-4
    return 5e-5 if family(model) == "attention" else 1e-4


def _check_lora(plans: Sequence[Plan], lora: int | None) -> None:
    if lora is None:
        return
    adapted = [plan for plan in plans if not plan.is_head_only]
    if not adapted:
        fix = "Give epochs of at least 1, or leave out `lora`."
        raise ValueError(message("lora", lora, "None where only the head is trained", fix))
    for plan in adapted:
        check_adaptable(plan.units)


def _check_readable(data: Data) -> None:
    for name, given in (("data", data.x), ("validation_data", data.validation_data)):
        if hasattr(given, "__next__"):
            expected = "arrays or a data set that can be read again, for each epoch and stage"
            fix = "Make a keras.utils.PyDataset or a bigzoo.data.Batches of it."
            raise TypeError(message(name, type(given).__name__, expected, fix))


def _seed(data: Any, seed: int | None, folder: Any) -> int | None:
    """One seed for all stages: that of an interrupted run, where there was one."""
    if seed is not None:
        return check_int("seed", seed, 0)
    if isinstance(data, keras.utils.PyDataset):
        return None  # `Batches` have their own
    for path in sorted(folder.glob("stage*")) if folder is not None else []:
        saved = _checkpoint.read(path)
        if saved is not None and saved.seed is not None:
            return saved.seed
    return int(np.random.randint(2**31))


def _check_before(run: Run, plans: Sequence[Plan]) -> None:
    from bigzoo.train._check import check_before_fit

    data = run.data
    report = check_before_fit(
        run.model,
        data.x,
        data.y,
        validation_data=data.validation_data,
        batch_size=data.batch_size or 32,
        epochs=sum(plan.stage.epochs for plan in plans),
        class_weight=data.class_weight,
    )
    report.raise_for_errors()
    report.warn(stacklevel=5)
