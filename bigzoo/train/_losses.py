"""Loss and metrics that fit a model's outputs and the task."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras

from bigzoo._errors import check_choice, message, suggest
from bigzoo.train._outputs import OutputInfo

TASKS = ("binary", "multiclass", "multilabel", "regression")
# Names that Keras' `compile` itself turns into a function, by the shapes of the targets.
_LOSSES_BY_SHAPE = frozenset(("crossentropy", "ce"))
_METRICS_BY_SHAPE = _LOSSES_BY_SHAPE | {"accuracy", "acc"}


@dataclass(frozen=True)
class Choice:
    """What fits one output: its task, loss, metrics, and how to say so."""

    task: str
    loss: Any
    metrics: list[Any]
    text: str


def choose(info: OutputInfo, task: str | None) -> Choice:
    """Loss and metrics for one output, or an error if `task` contradicts it."""
    if task is not None:
        check_choice("task", task, TASKS)
    if info.kind == "softmax":
        return _softmax(info, task)
    if info.kind == "sigmoid":
        return _sigmoid(info, task)
    if info.kind == "linear":
        return _linear(info, task)
    return _other(info, task)


def _softmax(info: OutputInfo, task: str | None) -> Choice:
    if info.units == 1:
        fix = "Use Dense(1, activation='sigmoid') for two classes."
        expected = "two units or more, since the softmax of one unit is always 1"
        raise ValueError(message(f"output {info.name!r}", _what(info), expected, fix))
    two_classes = task == "binary" and info.units in (2, None)
    if task not in (None, "multiclass") and not two_classes:
        wanted = {
            "binary": "Dense(1, activation='sigmoid') or 2 softmax units",
            "multilabel": "Dense(n, activation='sigmoid')",
            "regression": "Dense(n) without an activation",
        }
        raise _contradiction(info, str(task), wanted[str(task)], "multiclass")
    metrics = [keras.metrics.SparseCategoricalAccuracy(name="accuracy")]
    loss = "sparse_categorical_crossentropy"
    return Choice("multiclass", loss, metrics, "sparse_categorical_crossentropy + accuracy")


def _sigmoid(info: OutputInfo, task: str | None) -> Choice:
    one = info.units == 1
    fits = (None, "binary", "multilabel") if one else (None, "multilabel")
    if task not in fits:
        wanted = {
            "binary": "Dense(1, activation='sigmoid')",
            "multiclass": "Dense(k, activation='softmax'), one unit for each class",
            "regression": "Dense(n) without an activation (or give loss='mse')",
        }
        own = "binary" if one else "multilabel"
        raise _contradiction(info, str(task), wanted[str(task)], own)
    loss = "binary_crossentropy"
    if one and task != "multilabel":
        metrics: list[Any] = [keras.metrics.BinaryAccuracy(name="accuracy")]
        return Choice("binary", loss, metrics, "binary_crossentropy + accuracy")
    metrics = _multilabel_metrics(info, from_logits=False)
    return Choice("multilabel", loss, metrics, "binary_crossentropy + " + _names(metrics))


def _linear(info: OutputInfo, task: str | None) -> Choice:
    if task is None and info.logits:
        task = "multiclass"
    if task in (None, "regression"):
        return _regression()
    few = info.units == 1
    if task == "multilabel" or (task == "binary" and few):
        loss: Any = keras.losses.BinaryCrossentropy(from_logits=True)
        metrics = _multilabel_metrics(info, from_logits=True)
        if task == "binary":
            # A logit above 0 is a probability above 0.5.
            metrics = [keras.metrics.BinaryAccuracy(name="accuracy", threshold=0.0)]
        text = f"binary_crossentropy(from_logits=True) + {_names(metrics)}"
        return Choice(task, loss, metrics, text)
    if task == "multiclass" and few:
        raise _contradiction(info, task, "Dense(k), one unit for each class", "binary")
    if task == "binary" and info.units not in (2, None):
        raise _contradiction(info, task, "Dense(1)", "multiclass")
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    metrics = [keras.metrics.SparseCategoricalAccuracy(name="accuracy")]
    text = "sparse_categorical_crossentropy(from_logits=True) + accuracy"
    return Choice("multiclass", loss, metrics, text)


def _regression() -> Choice:
    metrics = [keras.metrics.MeanAbsoluteError(name="mae")]
    return Choice("regression", "mse", metrics, "mse + mae")


def _other(info: OutputInfo, task: str | None) -> Choice:
    """Activations that are neither probabilities nor logits, and outputs that can't be known."""
    if task == "regression":
        return _regression()
    fix = "Give task='regression', or loss= (and metrics=) that fit."
    if task is None:
        expected = "a softmax, sigmoid or linear output, from which the loss follows"
        raise ValueError(message(f"output {info.name!r}", _what(info), expected, fix))
    expected = f"probabilities or logits for task={task!r}"
    raise ValueError(message(f"output {info.name!r}", _what(info), expected, fix))


def _multilabel_metrics(info: OutputInfo, *, from_logits: bool) -> list[Any]:
    threshold = 0.0 if from_logits else 0.5
    metrics: list[Any] = [keras.metrics.BinaryAccuracy(threshold=threshold)]
    if info.shape is not None and len(info.shape) == 2 and info.units is not None:
        auc = keras.metrics.AUC(
            multi_label=True, num_labels=info.units, from_logits=from_logits, name="auc"
        )
        metrics.append(auc)
    return metrics


def _names(metrics: list[Any]) -> str:
    return " + ".join(metric.name for metric in metrics)


def _what(info: OutputInfo) -> str:
    units = "" if info.units is None else f" with {info.units} unit{'s' * (info.units != 1)}"
    return f"{info.activation}{units}"


def _contradiction(info: OutputInfo, task: str, wanted: str, own: str) -> ValueError:
    text = f"`task` is {task!r}, but the output {info.name!r} is {_what(info)}; expected {wanted}."
    return ValueError(f"{text} Change the last layer, or use task={own!r}.")


def metrics_for_loss(info: OutputInfo, loss: Any) -> list[Any]:
    """Metrics beside a loss that the user gave; none where no standard one surely fits."""
    name = loss if isinstance(loss, str) else getattr(loss, "name", getattr(loss, "__name__", ""))
    from_logits = bool(getattr(loss, "from_logits", False))
    if not isinstance(loss, str) and hasattr(loss, "get_config"):
        from_logits = bool(loss.get_config().get("from_logits", False))
    if info.kind == "sigmoid" or "binary" in str(name):
        threshold = 0.0 if from_logits else 0.5
        label = "accuracy" if info.units == 1 else "binary_accuracy"
        return [keras.metrics.BinaryAccuracy(name=label, threshold=threshold)]
    if "categorical_crossentropy" in str(name):
        sparse = "sparse" in str(name)
        metric = keras.metrics
        kind = metric.SparseCategoricalAccuracy if sparse else metric.CategoricalAccuracy
        return [kind(name="accuracy")]
    if info.kind == "softmax":
        return ["accuracy"]
    if info.kind == "linear" and str(name) in ("mse", "mean_squared_error", "huber", "huber_loss"):
        return [keras.metrics.MeanAbsoluteError(name="mae")]
    return []


def check_loss(loss: Any) -> None:
    """Raise for a name that Keras doesn't know, in a single loss, a list or a dict of them."""
    for entry in _leaves(loss):
        if isinstance(entry, str) and entry not in _LOSSES_BY_SHAPE:
            _resolve("loss", entry, keras.losses, _LOSSES_BY_SHAPE)
        elif isinstance(entry, type):
            fix = f"Make an object of it: {entry.__name__}()."
            raise TypeError(message("loss", entry.__name__, "a name, a function or an object", fix))
        elif not (entry is None or isinstance(entry, str) or callable(entry)):
            raise TypeError(message("loss", entry, "a name, a function or a keras.losses.Loss"))


def check_metrics(metrics: Any) -> Any:
    """`metrics` in a form that Keras takes: a single metric becomes a list of one."""
    if isinstance(metrics, (str, keras.metrics.Metric)):
        metrics = [metrics]
    if not isinstance(metrics, (list, tuple, dict)):
        raise TypeError(message("metrics", metrics, "a list of metrics, such as ['accuracy']"))
    for entry in _leaves(metrics):
        if isinstance(entry, str) and entry not in _METRICS_BY_SHAPE:
            _resolve("metrics", entry, keras.metrics, _METRICS_BY_SHAPE)
        elif isinstance(entry, type):
            fix = f"Make an object of it: {entry.__name__}()."
            raise TypeError(message("metrics", entry.__name__, "names or metric objects", fix))
        elif not (entry is None or isinstance(entry, str) or callable(entry)):
            raise TypeError(
                message("metrics", entry, "a name, a function or a keras.metrics.Metric")
            )
    return metrics


def _leaves(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [leaf for entry in value.values() for leaf in _leaves(entry)]
    if isinstance(value, (list, tuple)):
        return [leaf for entry in value for leaf in _leaves(entry)]
    return [value]


def _resolve(argument: str, name: str, module: Any, by_shape: frozenset[str]) -> None:
    try:
        found = module.get(name)
    except ValueError:
        found = None
    if found is None:
        hint = suggest(name, {*known_names(module), *by_shape})
        raise ValueError(message(argument, name, "a name that Keras knows", hint))


def known_names(module: Any) -> list[str]:
    """Lower-case names that a `get` of Keras takes, from the module's public functions."""
    names = [name for name in dir(module) if not name.startswith("_")]
    skipped = {"get", "serialize", "deserialize"}
    functions = [n for n in names if n.islower() and callable(getattr(module, n))]
    return ["mse", "mae", "mape", "msle", *(n for n in functions if n not in skipped)]
