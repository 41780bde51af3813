"""What the text models share: checks of their sizes, positions, the last layers in float32."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

import keras
from keras import layers, ops

from bigzoo._errors import check_choice, check_int, message

Sizes = TypeVar("Sizes")

# What makes a variant; the others, such as the vocabulary, may differ between checkpoints of one.
_OF_VARIANT = ("num_layers", "hidden_dim", "num_heads", "mlp_dim")


def choose_sizes(
    variant: Any, variants: Mapping[str, Sizes], default: str, found: Sizes | None, source: str
) -> Sizes:
    """The sizes of `variant`, or those that the checkpoint's config.json gives.

    Args:
        variant: A name, or None for the checkpoint's own sizes, else for `default`.
        variants: Sizes by name.
        default: Name of the variant where nobody says which.
        found: Sizes by the config; None without a config.
        source: The checkpoint, for messages.
    """
    if variant is None:
        return variants[default] if found is None else found
    sizes = variants[check_choice("variant", variant, variants)]
    if found is None:
        return sizes
    if not _same_variant(sizes, found):
        names = [name for name, other in variants.items() if _same_variant(other, found)]
        own = repr(names[0]) if names else "of other sizes"
        fix = "Leave `variant` out: the sizes come from the checkpoint."
        raise ValueError(message("variant", variant, f"{own}, as the checkpoint {source!r}", fix))
    return found


def _same_variant(one: Any, other: Any) -> bool:
    return all(getattr(one, name) == getattr(other, name) for name in _OF_VARIANT)


def override_sizes(sizes: Sizes, found: Sizes | None, given: Mapping[str, Any]) -> Sizes:
    """`sizes` with those that the user gives by hand (not None); each must fit a checkpoint."""
    wanted = {
        name: check_int(name, value, minimum=1)
        for name, value in given.items()
        if value is not None
    }
    for name, value in wanted.items():
        own = getattr(found, name, value)
        if own != value:
            fix = f"Leave `{name}` out: the sizes come from the checkpoint."
            raise ValueError(message(name, value, f"{own}, as in the checkpoint", fix))
    if "hidden_dim" in wanted and "mlp_dim" not in wanted and found is None:
        wanted["mlp_dim"] = 4 * wanted["hidden_dim"]
    changed: Any = dataclasses.replace(sizes, **wanted)  # type: ignore[type-var]
    if changed.hidden_dim % changed.num_heads:
        expected = f"a divisor of hidden_dim={changed.hidden_dim}"
        raise ValueError(message("num_heads", changed.num_heads, expected))
    return changed


def positions(token_ids: Any) -> Any:
    """(batch, length) -> (1, length): 0, 1, 2, …; one row serves the whole batch."""
    return ops.cumsum(ops.ones_like(token_ids[:1, :]), axis=1) - 1


def in_float32(x: Any, name: str) -> Any:
    """`x` itself under float32, a cast under other policies: the name of what comes out."""
    return layers.Activation("linear", dtype="float32", name=name)(x)


def normal(stddev: float = 0.02) -> keras.Initializer:
    """A new initializer each time: one that is shared would give equal weights."""
    return keras.initializers.TruncatedNormal(stddev=stddev)
