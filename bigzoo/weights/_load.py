"""From a checkpoint into a model: all tensors by a table of names, or none."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from fnmatch import fnmatchcase

import keras
import numpy as np

from bigzoo.weights._checkpoint import Checkpoint
from bigzoo.weights._native import load_native
from bigzoo.weights._transforms import Transform

# Path of a Keras weight -> (name of the tensor, how to change its layout).
Table = Mapping[str, tuple[str, Transform]]

_MOST_LINES = 6


def load_weights(
    model: keras.Model,
    checkpoint: Checkpoint,
    table: Table,
    *,
    ignore: Iterable[str] = (),
    skip: Collection[str] = (),
) -> None:
    """Copy the tensors of a checkpoint into `model`, which stays as it was if they don't fit.

    Nothing is assigned before every weight has a tensor of the right shape and every tensor has a
    weight: a head that is silently left random is the worst that can happen to a checkpoint.

    Args:
        model: A built model.
        checkpoint: What `open_checkpoint` gave. In Keras' own formats, `table` isn't needed.
        table: Path of each weight of the model -> (name of its tensor, transform of the layout).
        ignore: Patterns, as in a shell, of tensors that may be left over.
        skip: Names of layers that keep their weights, such as a new head.

    Raises:
        ValueError: if tensors are missing, left over or of another shape; it lists both sides.

    Example:
        >>> old, new = bz.models.mlp(4, (3,)), bz.models.mlp(4, (3,))
        >>> old.save_weights("old.weights.h5")
        >>> bz.weights.load_weights(new, bz.weights.open_checkpoint("old.weights.h5"), {})
        >>> all((a == b).all() for a, b in zip(old.get_weights(), new.get_weights()))
        True
    """
    if checkpoint.native:
        load_native(model, checkpoint.path, skip)
        return
    weights = [w for w in model.weights if w.path.partition("/")[0] not in skip]
    pairs = [(weight, *table[weight.path]) for weight in weights]
    used = {name for _, name, _ in pairs}
    missing = [
        f"{name} for {weight.path} {tuple(weight.shape)}"
        for weight, name, _ in pairs
        if name not in checkpoint.tensors
    ]
    extra = [
        f"{name} {shape}"
        for name, shape in checkpoint.tensors.items()
        if name not in used and not any(fnmatchcase(name, pattern) for pattern in ignore)
    ]
    arrays, misshapen = [], []
    for weight, name, transform in pairs:
        if name not in checkpoint.tensors:
            continue
        target = tuple(weight.shape)
        array = _transformed(checkpoint, name, transform, target)
        if array is None or array.shape != target:
            shape = checkpoint.tensors[name]
            misshapen.append(f"{name} {shape} doesn't fit {weight.path} {target}")
        elif not missing and not extra and not misshapen:
            arrays.append((weight, array))
    if missing or extra or misshapen:
        raise ValueError(_mismatch(model.name, checkpoint.source, missing, extra, misshapen))
    for weight, array in arrays:
        weight.assign(array)


def _transformed(
    checkpoint: Checkpoint, name: str, transform: Transform, target: tuple[int, ...]
) -> np.ndarray | None:
    """The tensor in Keras' layout, or None where its shape doesn't even let that be tried."""
    try:
        return transform(checkpoint.read(name), target)
    except (ValueError, IndexError, TypeError):
        return None


def _mismatch(
    model: str, source: str, missing: list[str], extra: list[str], misshapen: list[str]
) -> str:
    parts = [
        f"{len(lines)} {what}: {_few(lines)}"
        for what, lines in (
            ("missing in the checkpoint", missing),
            ("that the model has no weight for", extra),
            ("of another shape", misshapen),
        )
        if lines
    ]
    fix = "Build the model with the checkpoint's own variant and sizes."
    start = f"The checkpoint {source!r} doesn't fit the model {model!r}, which is left as it was."
    return f"{start} Tensors {'; '.join(parts)}. {fix}"


def _few(lines: list[str]) -> str:
    more = f", and {len(lines) - _MOST_LINES} more" if len(lines) > _MOST_LINES else ""
    return ", ".join(lines[:_MOST_LINES]) + more
