"""Gradient of a number with respect to a tensor. Imported on the TensorFlow backend only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf


def gradient(function: Callable[[Any], Any], at: Any) -> Any:
    """Derivative of `function`, which gives one number, at the tensor `at`."""
    point = tf.convert_to_tensor(at)
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(point)
        value = function(point)
    return tape.gradient(value, point, unconnected_gradients=tf.UnconnectedGradients.ZERO)
