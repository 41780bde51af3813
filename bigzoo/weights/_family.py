"""Which model a checkpoint is for, by its config.json."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from bigzoo._errors import suggest

# `model_type` in the config of a transformers checkpoint -> our model.
_MODEL_TYPES = {"bert": "bert", "gpt2": "gpt"}

# `architecture` in the config of a timm checkpoint -> our model.
_ARCHITECTURES = (
    (r"resnet\d+", "resnet"),
    (r"(tf_)?efficientnet_(b\d|lite\d)", "efficientnet"),
    (r"convnext_(atto|femto|pico|nano|tiny|small|base|large|xlarge)", "convnext"),
    (r"vit_(tiny|small|base|large)_patch(16|32)_\d+", "vit"),
)


def family_of(config: Mapping[str, Any]) -> str | None:
    """Name of our model for this config; None if it doesn't say, "" if we have no such model."""
    if isinstance(architecture := config.get("architecture"), str):
        # timm adds what a model was trained on behind a dot: "resnet50.a1_in1k".
        name = architecture.partition(".")[0]
        found = [family for pattern, family in _ARCHITECTURES if re.fullmatch(pattern, name)]
        return found[0] if found else ""
    if isinstance(model_type := config.get("model_type"), str):
        return _MODEL_TYPES.get(model_type, "")
    return None


def check_family(config: Mapping[str, Any], family: str, source: str) -> None:
    """Refuse a checkpoint of another model than `family`; let those pass that don't say."""
    found = family_of(config)
    if found is None or found == family:
        return
    said = config.get("architecture") or config.get("model_type")
    text = f"`weights` {source!r} is a checkpoint of {said!r}; expected one for {family!r}."
    if found:
        raise ValueError(f"{text} Use bz.models.{found}(weights=...).")
    known = sorted({*_MODEL_TYPES.values(), *(name for _, name in _ARCHITECTURES)})
    raise ValueError(f"{text} There is no converter for it. {suggest(str(said), known)}")
