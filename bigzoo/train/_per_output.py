"""`compile`'s arguments that are given per output: do they name outputs that the model has?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras

from bigzoo._errors import check_number, message, suggest
from bigzoo.train._outputs import OutputInfo


def check_outputs(argument: str, value: Any, model: keras.Model, infos: list[OutputInfo]) -> None:
    """Raise for a dict key that is no output, or a list of another length than the outputs.

    Args:
        argument: Name of the argument, for the message.
        value: What was given; neither a dict nor a list: nothing to check.
        model: The model, whose nested outputs only Keras can match.
        infos: Its outputs.
    """
    if not _can_tell(model, infos):
        return
    names = [info.name for info in infos]
    if isinstance(value, Mapping):
        # Keras takes the layer's name too where a dict of outputs has other keys.
        known = {*names, *(info.layer for info in infos if info.layer)}
        for key in value:
            if key not in known:
                hint = suggest(str(key), names)
                text = f"`{argument}` has the key {key!r}; expected the names of outputs. {hint}"
                raise ValueError(text)
    elif isinstance(value, (list, tuple)) and len(value) != len(names):
        if argument == "metrics" and len(names) == 1:
            return  # a list of metrics for the one output
        shown = ", ".join(map(repr, names))
        raise ValueError(
            f"`{argument}` has {len(value)} entries; expected {len(names)}, one for each output "
            f"({shown})."
        )


def check_loss_weights(value: Any) -> None:
    """Raise unless it is None, a number, or a list or dict of numbers."""
    if value is None:
        return
    entries = [("loss_weights", value)]
    if isinstance(value, Mapping):
        entries = [(f"loss_weights[{key!r}]", entry) for key, entry in value.items()]
    elif isinstance(value, (list, tuple)):
        entries = [(f"loss_weights[{place}]", entry) for place, entry in enumerate(value)]
    elif isinstance(value, (str, bool)) or not hasattr(value, "__float__"):
        raise TypeError(message("loss_weights", value, "a list or dict of numbers"))
    for name, entry in entries:
        if entry is not None and not isinstance(entry, (list, tuple, Mapping)):
            check_number(name, entry)


def _can_tell(model: keras.Model, infos: list[OutputInfo]) -> bool:
    if any(info.layer is None for info in infos):
        return False  # a subclassed model doesn't say what its outputs are
    if isinstance(model, keras.Sequential):
        return True
    structure = model.output
    entries = list(structure.values()) if isinstance(structure, Mapping) else structure
    if not isinstance(entries, (list, tuple)):
        return True
    return not any(isinstance(entry, (Mapping, list, tuple)) for entry in entries)
