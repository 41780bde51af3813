"""What all checkpoints of timm have in common."""

from __future__ import annotations

from collections.abc import Iterator

from bigzoo.weights._transforms import Transform, same

# PyTorch counts the batches that a normalisation has seen; nothing is computed from it.
NOT_WEIGHTS = ("*.num_batches_tracked",)

# Path of a weight, (name of the tensor, change of layout).
Rows = Iterator[tuple[str, tuple[str, Transform]]]


def norm_rows(layer: str, tensor: str) -> Rows:
    """Rows of a table for a batch normalisation."""
    names = {"gamma": "weight", "beta": "bias"}
    names |= {"moving_mean": "running_mean", "moving_variance": "running_var"}
    for ours, theirs in names.items():
        yield f"{layer}/{ours}", (f"{tensor}.{theirs}", same)
