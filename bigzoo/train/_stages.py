"""The stages of a fine-tuning: what is trained in each, how long and how fast."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from bigzoo._errors import check_int, check_number, message, suggest
from bigzoo.train._blocks import Anatomy, Unit, choose
from bigzoo.train._schedule import MAX_LEARNING_RATE

HEAD_RATE = 1e-3


@dataclasses.dataclass(frozen=True)
class Stage:
    """One stage of `bigzoo.finetune`. What is None comes from the call's own arguments.

    Attributes:
        epochs: Epochs of this stage, at least 1.
        unfreeze: What is trained besides the head: "head" (nothing), "top" (the upper third of the
            blocks), "all", a number of blocks from the top, or a list of patterns of layer names.
        learning_rate: Peak for the head, above 0 and at most 10.
        layer_decay: Factor on the rate for each block further down, above 0 and at most 1.
        warmup_steps: Steps of linear warm-up, at least 0; at most a tenth of the stage is used.

    Example:
        >>> stage = bz.train.Stage(epochs=2, unfreeze=["block5_*"], learning_rate=1e-4)
        >>> stage.epochs
        2
    """

    epochs: int
    unfreeze: Any = "top"
    learning_rate: float | None = None
    layer_decay: float | None = None
    warmup_steps: int | None = None


@dataclasses.dataclass(frozen=True)
class Plan:
    """A stage with everything decided."""

    stage: Stage
    units: tuple[Unit, ...]
    learning_rate: float
    layer_decay: float
    warmup_steps: int

    @property
    def is_head_only(self) -> bool:
        return not self.units


_FIELDS = [field.name for field in dataclasses.fields(Stage)]


def make_stages(
    stages: Any, unfreeze: Any, epochs: Any, head_epochs: Any, head_learning_rate: Any, lora: Any
) -> list[Stage]:
    """The stages that the arguments ask for; see `bigzoo.finetune`."""
    if stages is not None:
        if isinstance(stages, (str, Mapping, Stage)) or not isinstance(stages, Sequence):
            raise TypeError(message("stages", stages, "a list of bz.train.Stage or of dicts"))
        if not stages:
            raise ValueError(message("stages", stages, "at least one stage"))
        return [_one(f"stages[{place}]", stage) for place, stage in enumerate(stages)]
    head_epochs = check_int("head_epochs", head_epochs, 0)
    epochs = check_int("epochs", epochs, 0)
    if unfreeze is None:
        unfreeze = "all" if lora else "top"
    if not head_epochs + epochs:
        raise ValueError(message("epochs", epochs, "at least 1 where head_epochs is 0"))
    rate = check_number(
        "head_learning_rate", head_learning_rate, maximum=MAX_LEARNING_RATE, above=0
    )
    made = [Stage(head_epochs, "head", rate, warmup_steps=0)] if head_epochs else []
    return made + ([Stage(epochs, unfreeze)] if epochs else [])


def _one(name: str, given: Any) -> Stage:
    if isinstance(given, Mapping):
        for key in given:
            if key not in _FIELDS:
                raise ValueError(message(name, key, "a known key", suggest(str(key), _FIELDS)))
        if "epochs" not in given:
            raise ValueError(message(name, dict(given), "a dict with 'epochs'"))
        given = Stage(**given)
    if not isinstance(given, Stage):
        raise TypeError(message(name, given, "a bz.train.Stage or a dict"))
    check_int(f"{name}.epochs", given.epochs, 1)
    return given


def make_plan(
    stage: Stage,
    anatomy: Anatomy,
    learning_rate: float,
    layer_decay: float,
    warmup_steps: int,
) -> Plan:
    """The stage with the call's arguments in place of None, all in their ranges."""

    def either(own: Any, general: Any) -> Any:
        return general if own is None else own

    rate = check_number(
        "learning_rate",
        either(stage.learning_rate, learning_rate),
        maximum=MAX_LEARNING_RATE,
        above=0,
        fix="Common values lie between 0.00001 and 0.001.",
    )
    decay = check_number("layer_decay", either(stage.layer_decay, layer_decay), maximum=1, above=0)
    warmup = check_int("warmup_steps", either(stage.warmup_steps, warmup_steps), 0)
    units = [
        unit
        for unit in choose(anatomy, stage.unfreeze)
        if not any(unit.layer is top.layer for top in anatomy.head)
    ]
    return Plan(stage, tuple(units), rate, decay, warmup)
