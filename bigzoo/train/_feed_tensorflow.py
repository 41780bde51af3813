"""tf.data pipelines for `fit`. Imported on the TensorFlow backend only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

_PREFETCH = 2
_WORKERS = 2
# These functions hold no Python loops or conditions for AutoGraph to turn into TensorFlow's.
_AS_IS = tf.autograph.experimental.do_not_convert

# A pipeline begins with one element per epoch, made by a Python function when Keras begins to read
# the epoch. So the order is that of the epoch which the function knows of at this moment, however
# many iterators Keras makes: it makes one more than there are epochs, and more at their ends.


def array_dataset(
    data: Any, plan: Callable[[], tuple[np.ndarray, np.ndarray]], steps: int, size: int | None
) -> tf.data.Dataset:
    """Batches gathered by TensorFlow from arrays in memory.

    Args:
        data: Tree of numpy arrays with n rows.
        plan: Gives the rows of an epoch, and where each batch of them starts and ends: int64 of
            shapes (m,) and (steps + 1,).
        steps: Batches in an epoch.
        size: Rows in each batch if all have as many, else None.
    """
    with tf.device("cpu:0"):
        tensors = tf.nest.map_structure(tf.convert_to_tensor, data)

    @_AS_IS
    def read_plan(_: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        rows, splits = tf.numpy_function(plan, [], [tf.int64, tf.int64], stateful=True)
        return tf.ensure_shape(rows, [None]), tf.ensure_shape(splits, [steps + 1])

    @_AS_IS
    def batches(rows: tf.Tensor, splits: tf.Tensor) -> tf.data.Dataset:
        @_AS_IS
        def gather(step: tf.Tensor) -> Any:
            chosen = rows[splits[step] : splits[step + 1]]
            # A known size lets the training step be compiled for this shape once.
            chosen.set_shape([size])
            return tf.nest.map_structure(lambda tensor: tf.gather(tensor, chosen), tensors)

        return tf.data.Dataset.range(steps).map(gather)

    epochs = tf.data.Dataset.range(1).map(read_plan)
    return _finish(epochs.flat_map(batches), steps)


def stream_dataset(
    first: Any,
    plan: Callable[[], np.ndarray],
    read: Callable[[int, int], Any],
    steps: int,
    any_size: bool = False,
    any_length: bool = False,
) -> tf.data.Dataset:
    """Batches computed by a Python function, ahead of the training step and in order.

    Args:
        first: A batch, for its structure, dtypes and shapes.
        plan: Gives the two numbers by which `read` knows each batch: int64 of shape (steps, 2).
        read: Gives a batch in the structure of `first`.
        steps: Batches in an epoch.
        any_size: Whether images, arrays of rank 4, may change their height and width.
        any_length: Whether the inputs, arrays of rank 2, may change their length.
    """
    leaves = [np.asarray(leaf) for leaf in tf.nest.flatten(first)]
    types = [tf.as_dtype(leaf.dtype) for leaf in leaves]
    inputs = len(tf.nest.flatten(first[0]))

    def sides(place: int, leaf: np.ndarray) -> list[int | None]:
        if (any_size and leaf.ndim == 4) or (any_length and leaf.ndim == 2 and place < inputs):
            return [None] * min(2, leaf.ndim - 1)
        return list(leaf.shape[1:3])

    def read_flat(numbers: np.ndarray) -> list[np.ndarray]:
        batch = read(int(numbers[0]), int(numbers[1]))
        return [np.asarray(leaf) for leaf in tf.nest.flatten(batch)]

    @_AS_IS
    def read_plan(_: tf.Tensor) -> tf.Tensor:
        numbers = tf.numpy_function(plan, [], tf.int64, stateful=True)
        return tf.ensure_shape(numbers, [steps, 2])

    @_AS_IS
    def batches(numbers: tf.Tensor) -> tf.data.Dataset:
        @_AS_IS
        def compute(step: tf.Tensor) -> Any:
            flat = tf.numpy_function(read_flat, [numbers[step]], types, stateful=True)
            shaped = []
            for place, (tensor, leaf) in enumerate(zip(flat, leaves, strict=True)):
                shape = [None, *sides(place, leaf), *leaf.shape[3:]]
                shaped.append(tf.ensure_shape(tensor, shape))
            return tf.nest.pack_sequence_as(first, shaped)

        return tf.data.Dataset.range(steps).map(
            compute, num_parallel_calls=_WORKERS, deterministic=True
        )

    epochs = tf.data.Dataset.range(1).map(read_plan)
    return _finish(epochs.flat_map(batches), steps)


def _finish(dataset: tf.data.Dataset, steps: int) -> tf.data.Dataset:
    options = tf.data.Options()
    # The thread that tunes buffers can hold up the training loop for seconds when an iterator is
    # destroyed, and Keras destroys two in each epoch.
    options.autotune.enabled = False
    # Rewriting the graph would serialise it, the arrays included.
    options.experimental_optimization.apply_default_optimizations = False
    options.experimental_optimization.inject_prefetch = False
    # The Python functions are state that can't be serialised, and needn't be.
    options.experimental_external_state_policy = tf.data.experimental.ExternalStatePolicy.IGNORE
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    counted = dataset.apply(tf.data.experimental.assert_cardinality(steps))
    return counted.prefetch(_PREFETCH).with_options(options)
