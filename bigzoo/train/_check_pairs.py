"""Which loss and which labels belong to which output of a model."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from bigzoo.train._check_data import leaves
from bigzoo.train._outputs import OutputInfo, describe_outputs
from bigzoo.train._report import Finding, error

# Name of a loss function -> the kind of loss that the checks know.
_KINDS = {
    "sparse_categorical_crossentropy": "sparse",
    "categorical_crossentropy": "categorical",
    "categorical_focal_crossentropy": "categorical",
    "binary_crossentropy": "binary",
    "binary_focal_crossentropy": "binary",
    "kl_divergence": "kl",
    "poisson": "poisson",
    "hinge": "hinge",
    "squared_hinge": "hinge",
    "categorical_hinge": "categorical_hinge",
    "mean_squared_error": "regression",
    "mean_absolute_error": "regression",
    "mean_absolute_percentage_error": "regression",
    "mean_squared_logarithmic_error": "regression",
    "huber": "regression",
    "log_cosh": "regression",
}


@dataclass(frozen=True)
class LossInfo:
    """A loss as the checks see it; kind "custom" where nothing is known about it."""

    kind: str
    name: str
    from_logits: bool = False
    ignore_class: int | None = None
    function: Any = None
    implied: bool = False  # the model isn't compiled; this is the loss that would fit it


@dataclass(frozen=True)
class Pair:
    """One output with its loss and labels; both may be None."""

    info: OutputInfo
    loss: LossInfo | None
    y: np.ndarray | None
    where_y: str  # "y" or "y['name']", with "validation " before it

    @property
    def where(self) -> str:
        return f"output {self.info.name!r}"


def loss_info(loss: Any) -> LossInfo:
    """`LossInfo` of anything that `compile(loss=...)` takes."""
    if isinstance(loss, str):
        loss = keras.losses.get(loss)
    if isinstance(loss, keras.Loss):
        return _of_object(loss)
    keywords: dict[str, Any] = {}
    function = loss
    while isinstance(function, functools.partial):
        keywords = {**function.keywords, **keywords}
        function = function.func
    name = getattr(function, "__name__", type(function).__name__)
    kind = _KINDS.get(name, "custom")
    # A function of the user's that has the name of one of Keras' may compute anything.
    if kind != "custom" and getattr(keras.losses, name, None) is not function:
        kind = "custom"
    logits, ignored = bool(keywords.get("from_logits")), keywords.get("ignore_class")
    return LossInfo(kind, name, logits, ignored, loss)


def _of_object(loss: keras.Loss) -> LossInfo:
    for kind in type(loss).__mro__:
        name = _snake(kind.__name__)
        if name in _KINDS and getattr(keras.losses, kind.__name__, None) is kind:
            config = loss.get_config()
            logits = bool(config.get("from_logits"))
            return LossInfo(_KINDS[name], name, logits, config.get("ignore_class"), loss)
    return LossInfo("custom", type(loss).__name__, function=loss)


def _snake(name: str) -> str:
    if name == "KLDivergence":
        return "kl_divergence"
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in name).lstrip("_")


def pairs(model: keras.Model, y: Any, role: str = "") -> tuple[list[Pair], list[Finding]]:
    """The outputs of `model` with their losses and with the labels in `y`."""
    infos = describe_outputs(model)
    losses, findings = _losses(model, infos)
    labels, label_findings = _labels(infos, losses, y, role)
    made = []
    for info, known, (array, where) in zip(infos, losses, labels, strict=True):
        several: list[LossInfo | None] = list(known) or [None]
        for loss in several:
            if loss is None and not model.compiled:
                loss = _implied(info, array)
            made.append(Pair(info, loss, array, where))
    return made, findings + label_findings


def _losses(
    model: keras.Model, infos: list[OutputInfo]
) -> tuple[list[list[LossInfo]], list[Finding]]:
    """For each output the list of its losses; most often one, empty for None."""
    given = getattr(model, "loss", None) if model.compiled else None
    if given is None:
        return [[] for _ in infos], []
    if isinstance(given, dict):
        return _losses_by_name(given, infos)
    if isinstance(given, (list, tuple)):
        if len(infos) == 1:
            return [_flat_losses(given)], []
        if len(given) != len(infos):
            got = f"{len(given)} losses for {len(infos)} outputs"
            fix = "model.compile(loss={name: ...}) with one loss for each of "
            names = [info.name for info in infos]
            found = [error("loss-names", "loss", got, "one loss for each output", f"{fix}{names}")]
            return [[] for _ in infos], found
        return [_flat_losses(one) for one in given], []
    return [[loss_info(given)] for _ in infos], []


def _losses_by_name(
    given: dict[str, Any], infos: list[OutputInfo]
) -> tuple[list[list[LossInfo]], list[Finding]]:
    names = {name for info in infos for name in (info.name, info.layer)}
    unknown = sorted(set(given) - names)
    findings = []
    if unknown and infos[0].kind != "unknown":
        expected = f"names of outputs: {[info.name for info in infos]}"
        fix = "use these names as the keys of the losses"
        findings.append(error("loss-names", "loss", f"losses for {unknown}", expected, fix))
    found = [given.get(info.name, given.get(info.layer or "")) for info in infos]
    return [_flat_losses(one) for one in found], findings


def _flat_losses(given: Any) -> list[LossInfo]:
    return [loss_info(one) for one in leaves(given)]


def _labels(
    infos: list[OutputInfo], losses: list[list[LossInfo]], y: Any, role: str
) -> tuple[list[tuple[Any, str]], list[Finding]]:
    where = f"{role}y"
    none: list[tuple[Any, str]] = [(None, where) for _ in infos]
    if y is None:
        return none, []
    if isinstance(y, dict):
        return _labels_by_name(infos, losses, y, where)
    found = leaves(y)
    if len(found) == len(infos):
        names = [where] if len(infos) == 1 else [f"{where}[{i}]" for i in range(len(infos))]
        return list(zip(found, names, strict=True)), []
    if len(infos) == 1 and infos[0].shape is None:
        return none, []  # a subclassed model: how many outputs it has isn't known
    got = f"{len(found)} array{'s' if len(found) != 1 else ''} of labels"
    expected = f"{len(infos)}, one for each of {[info.name for info in infos]}"
    fix = f"y = {{{', '.join(f'{info.name!r}: ...' for info in infos)}}}"
    return none, [error("num-targets", where, got, expected, fix)]


def _labels_by_name(
    infos: list[OutputInfo], losses: list[list[LossInfo]], y: dict[str, Any], where: str
) -> tuple[list[tuple[Any, str]], list[Finding]]:
    labels: list[tuple[Any, str]] = []
    missing = []
    for info, known in zip(infos, losses, strict=True):
        key = next((name for name in (info.name, info.layer) if name in y), None)
        labels.append((None if key is None else y[key], f"{where}[{key!r}]"))
        if key is None and known and info.kind != "unknown":
            missing.append(info.name)
    if not missing:
        return labels, []
    got = f"labels for {sorted(map(str, y))}"
    expected = f"labels for {missing} too, which have a loss"
    fix = f"y = {{{', '.join(f'{name!r}: ...' for name in missing)}, ...}}"
    return labels, [error("target-names", where, got, expected, fix)]


def _implied(info: OutputInfo, y: np.ndarray | None) -> LossInfo | None:
    """The loss that fits the output, so that labels can be checked before the model is compiled."""
    if info.kind == "softmax":
        rank = len(info.shape or ())
        one_hot = y is not None and y.ndim == rank and y.shape[-1] == info.units
        name = "categorical_crossentropy" if one_hot else "sparse_categorical_crossentropy"
    elif info.kind == "sigmoid":
        name = "binary_crossentropy"
    elif info.logits:
        name = "sparse_categorical_crossentropy"
    else:
        return None
    return LossInfo(_KINDS[name], name, info.logits, implied=True)
