"""Gradient of a number with respect to a tensor, on each backend."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np


def gradient(function: Callable[[Any], Any], at: Any) -> np.ndarray:
    """Derivative of `function`, which maps a tensor to one number, at `at`; float32."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        from bigzoo.plot import _gradient_tensorflow

        found = _gradient_tensorflow.gradient(function, at)
    elif backend == "jax":
        found = _on_jax(function, at)
    elif backend == "torch":
        found = _on_torch(function, at)
    else:
        raise RuntimeError(f"The Keras backend is {backend!r}; expected one that has gradients.")
    return np.asarray(keras.ops.convert_to_numpy(keras.ops.cast(found, "float32")))


def _on_jax(function: Callable[[Any], Any], at: Any) -> Any:
    import jax

    return jax.grad(function)(jax.numpy.asarray(at))


def _on_torch(function: Callable[[Any], Any], at: Any) -> Any:
    import torch

    with torch.enable_grad():
        point = keras.ops.convert_to_tensor(at).detach().requires_grad_()
        found = torch.autograd.grad(function(point), point, allow_unused=True)[0]
    return torch.zeros_like(point) if found is None else found.detach()
