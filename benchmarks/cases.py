"""What is measured. Standard library only: the parent process must stay small (see worker.py)."""

from __future__ import annotations

from typing import NamedTuple


class Case(NamedTuple):
    """One network with its data."""

    title: str
    model: str  # function in bigzoo.models
    arguments: dict
    shape: tuple[int, ...]  # one sample
    dtype: str  # of the samples in memory; the same array for everybody
    samples: int
    quick_samples: int
    epochs: int  # measured; one more comes first
    convolutional: bool = False
    batch_size: int = 32


CASES = {
    "plain_cnn": Case(
        "plain CNN, 224 px",
        "cnn",
        {"input_shape": (224, 224, 3), "variant": "plain"},
        (224, 224, 3),
        "uint8",
        samples=320,
        quick_samples=32,
        epochs=5,
        convolutional=True,
    ),
    "modern_cnn": Case(
        "modern CNN, 224 px",
        "cnn",
        {"input_shape": (224, 224, 3), "variant": "modern"},
        (224, 224, 3),
        "uint8",
        samples=320,
        quick_samples=32,
        epochs=5,
        convolutional=True,
    ),
    "mlp": Case(
        "MLP 1000-500-250-100-1, batch 32",
        "mlp",
        {},
        (1000,),
        "float32",
        samples=6400,
        quick_samples=320,
        epochs=8,
    ),
    "linear_regression": Case(
        "linear regression, 2 features",
        "linear_regression",
        {"num_features": 2},
        (2,),
        "float32",
        samples=16_000,
        quick_samples=640,
        epochs=8,
    ),
}

# Who trains it. "keras" is what every other is divided by.
ARMS = {
    "keras": "plain Keras: model.compile, model.fit",
    "bigzoo": "bz.compile, bz.fit",
    "bigzoo_auto": 'the same after bz.precision("auto")',
    "torch": "PyTorch, float32, eager",
    "torch_bf16": "PyTorch, bfloat16 autocast, channels last for convolutions",
}
