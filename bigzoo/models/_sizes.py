"""Which sizes a model gets: those of a variant, or those that a checkpoint has."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

from bigzoo._errors import check_choice, message

Sizes = TypeVar("Sizes")


def choose_sizes(
    variant: Any,
    variants: Mapping[str, Sizes],
    default: str,
    found: Mapping[str, Any],
    weights: Any,
) -> Sizes:
    """The sizes to build.

    Args:
        variant: What the user gave; None for the checkpoint's, or `default` without one.
        variants: The model's table: frozen dataclasses.
        default: Name of the row for None.
        found: Fields of the dataclass that the checkpoint's tensors tell; {} for none.
        weights: What the user gave, for the message.

    Raises:
        ValueError: if both are there and disagree.
    """
    same = [name for name, row in variants.items() if found and _agrees(row, found)]
    if variant is None:
        if found and not same:
            return dataclasses.replace(variants[default], **found)  # type: ignore[type-var]
        return variants[same[0] if same else default]
    name = check_choice("variant", variant, variants)
    if found and name not in same:
        has = f"variant {same[0]!r}" if same else f"sizes of its own, {_text(found)}"
        fix = f"Leave `variant` out, or build it without weights={str(weights)!r}."
        raise ValueError(message("variant", variant, f"that of the checkpoint: {has}", fix))
    return variants[name]


def _agrees(row: Any, found: Mapping[str, Any]) -> bool:
    return all(getattr(row, name) == value for name, value in found.items())


def _text(found: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in found.items())
