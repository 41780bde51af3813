"""A loss against the activation before it: every pair that trains wrongly, and why."""

from __future__ import annotations

from bigzoo.train._check_pairs import LossInfo, Pair
from bigzoo.train._outputs import OutputInfo
from bigzoo.train._report import Finding, error, warning

# Range of values that an activation gives; those not named here reach every number.
RANGES = {
    "softmax": (0.0, 1.0),
    "sparsemax": (0.0, 1.0),
    "sigmoid": (0.0, 1.0),
    "hard_sigmoid": (0.0, 1.0),
    "tanh": (-1.0, 1.0),
    "hard_tanh": (-1.0, 1.0),
    "softsign": (-1.0, 1.0),
    "relu": (0.0, float("inf")),
    "relu6": (0.0, 6.0),
    "softplus": (0.0, float("inf")),
    "sparse_plus": (0.0, float("inf")),
    "squareplus": (0.0, float("inf")),
    "exponential": (0.0, float("inf")),
    "exp": (0.0, float("inf")),
    "log_softmax": (float("-inf"), 0.0),
    "log_sigmoid": (float("-inf"), 0.0),
}
_GROUPS = {
    "sparsemax": "softmax",
    "hard_sigmoid": "sigmoid",
    "hard_tanh": "tanh",
    "softsign": "tanh",
    "relu6": "relu",
    "sparse_plus": "positive",
    "squareplus": "positive",
    "softplus": "positive",
    "exponential": "positive",
    "exp": "positive",
}
_ROUGH = ("linear", "relu", "tanh", "positive", "curved")  # neither probabilities nor their logs
_CURVED = ["celu", "elu", "gelu", "glu", "leaky_relu", "mish", "p_relu", "selu", "silu", "swish"]
_CURVED += ["hard_swish", "hard_silu"]


def group_of(info: OutputInfo) -> str:
    """softmax, sigmoid, linear, relu, positive, tanh, log_softmax, curved, or unknown."""
    if info.kind in ("softmax", "sigmoid", "linear"):
        return info.kind
    name = info.activation
    if name in ("relu", "tanh", "log_softmax"):
        return name
    if name in _CURVED:
        return "curved"
    return _GROUPS.get(name, "unknown")


def check_activation(pair: Pair) -> list[Finding]:
    """At most one finding: the loss doesn't fit the last activation."""
    info, loss = pair.info, pair.loss
    group = group_of(info)
    if group == "softmax" and info.units == 1:
        got = "a softmax over 1 unit, which is always exactly 1"
        expected = "one sigmoid unit for two classes, or one softmax unit per class"
        fix = 'keras.layers.Dense(1, activation="sigmoid") with loss="binary_crossentropy"'
        return [error("softmax-one-unit", pair.where, got, expected, fix)]
    if loss is None or loss.implied or group == "unknown" or loss.kind == "custom":
        return []
    if loss.kind in ("sparse", "categorical", "kl") and info.units == 1 and _is_flat(info):
        got = f"{loss.name} over 1 unit: over a single class it is constant or without a minimum"
        expected = "binary_crossentropy for one unit, or one unit per class"
        fix = 'loss="binary_crossentropy"'
        return [error("one-unit-crossentropy", pair.where, got, expected, fix)]
    found = _verdict(loss, group, info.units)
    if found is None:
        return []
    level, expected, fix = found
    make = error if level == "error" else warning
    how = f"{loss.name}(from_logits=True)" if loss.from_logits else loss.name
    return [make("loss-vs-activation", pair.where, f"{how} after {_name(info)}", expected, fix)]


def _is_flat(info: OutputInfo) -> bool:
    return info.shape is not None and len(info.shape) == 2


def _name(info: OutputInfo) -> str:
    name = "no activation (linear)" if info.kind == "linear" else info.activation
    return f"{name}, {info.units} unit{'s' if info.units != 1 else ''}" if info.units else name


def _verdict(loss: LossInfo, group: str, units: int | None) -> tuple[str, str, str] | None:
    """(level, expected, fix), or None if the two fit."""
    if loss.kind in ("sparse", "categorical", "binary"):
        function = _logits if loss.from_logits else _probabilities
        return function(loss, group, units)
    return _OTHERS[loss.kind](loss, group) if loss.kind in _OTHERS else None


def _logits(loss: LossInfo, group: str, units: int | None) -> tuple[str, str, str] | None:
    own = "sigmoid" if loss.kind == "binary" else "softmax"
    if group in ("softmax", "sigmoid"):
        expected = f"raw scores: from_logits=True applies a {own} of its own after the {group}"
        right = _string(loss, group)
        return "error", expected, f'loss="{right}"  # without from_logits'
    if group in ("relu", "tanh", "positive"):
        expected = f"raw scores of any sign and size: {_cut(group)}"
        return "warning", expected, "remove the activation of the last layer"
    return None


def _cut(group: str) -> str:
    if group == "tanh":
        return "scores within -1 and 1 can't give a sure answer"
    return "scores can't be negative, so one side of each answer is cut off"


def _probabilities(loss: LossInfo, group: str, units: int | None) -> tuple[str, str, str] | None:
    own = "sigmoid" if loss.kind == "binary" else "softmax"
    if group in (*_ROUGH, "log_softmax"):
        expected = f"probabilities from a {own}, or from_logits=True for raw scores"
        if group == "linear":
            return "error", expected, f"loss={_object(loss)}(from_logits=True)"
        return "error", expected, f'activation="{own}" in the last layer'
    if loss.kind == "binary" and group == "softmax" and units is not None and units > 2:
        expected = "a softmax with a crossentropy over classes"
        return "warning", expected, 'loss="categorical_crossentropy"'
    if loss.kind != "binary" and group == "sigmoid":
        expected = "probabilities that sum to 1 over the classes, so a softmax"
        return "warning", expected, 'activation="softmax" in the last layer'
    return None


def _string(loss: LossInfo, group: str) -> str:
    if loss.kind == "binary":
        return loss.name if group == "sigmoid" else "categorical_crossentropy"
    return loss.name


def _object(loss: LossInfo) -> str:
    return "keras.losses." + "".join(part.capitalize() for part in loss.name.split("_"))


def _kl(loss: LossInfo, group: str) -> tuple[str, str, str] | None:
    if group == "softmax":
        return None
    if group == "sigmoid":
        why = "a softmax: without a sum of 1, every unit is driven to 1 and none to 0"
        return "error", why, 'activation="softmax" in the last layer'
    why = "probabilities that sum to 1, so a softmax"
    return "error", why, 'activation="softmax" in the last layer'


def _poisson(loss: LossInfo, group: str) -> tuple[str, str, str] | None:
    fix = 'activation="exponential" in the last layer'
    if group in ("linear", "tanh", "curved", "log_softmax"):
        why = "rates above 0: the logarithm of a negative output is NaN"
        return "error", why, fix
    if group in ("relu", "softmax", "sigmoid"):
        why = "rates of any size above 0: this activation gives "
        why += "exact zeros, whose gradient is zero" if group == "relu" else "at most 1"
        return "warning", why, fix
    return None


def _hinge(loss: LossInfo, group: str) -> tuple[str, str, str] | None:
    if group in ("linear", "tanh", "curved"):
        return None
    if loss.kind == "categorical_hinge" and group in ("softmax", "log_softmax"):
        return None
    why = "scores on both sides of 0, so linear or tanh"
    return "warning", why, "remove the activation of the last layer"


_OTHERS = {
    "kl": _kl,
    "poisson": _poisson,
    "hinge": _hinge,
    "categorical_hinge": _hinge,
}
