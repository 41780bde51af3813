"""From PyTorch's layout of an array to that of a Keras weight of shape `target`.

Each function takes the array of the checkpoint and the shape that Keras wants, and returns an
array; `load_weights` compares its shape with `target`. H is the number of heads, D the size of one.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

Shape = tuple[int, ...]
Transform = Callable[[np.ndarray, Shape], np.ndarray]


def same(array: np.ndarray, target: Shape) -> np.ndarray:
    """As it is: biases, embeddings, the weights of normalisations."""
    return array


def flat(array: np.ndarray, target: Shape) -> np.ndarray:
    """The same numbers in another shape, such as (1, 1, C) for (C,)."""
    return array.reshape(target)


def dense(array: np.ndarray, target: Shape) -> np.ndarray:
    """(out, in) -> (in, out); a 1 x 1 convolution (out, in, 1, 1) may serve as a dense layer."""
    return array.reshape(array.shape[:2]).T


def conv(array: np.ndarray, target: Shape) -> np.ndarray:
    """(out, in, height, width) -> (height, width, in, out)."""
    return array.transpose(2, 3, 1, 0)


def depthwise(array: np.ndarray, target: Shape) -> np.ndarray:
    """(channels, 1, height, width) -> (height, width, channels, 1)."""
    return array.transpose(2, 3, 0, 1)


def heads_in(array: np.ndarray, target: Shape) -> np.ndarray:
    """Query, key and value: (H*D, in) -> (in, H, D)."""
    return array.T.reshape(target)


def heads_bias(array: np.ndarray, target: Shape) -> np.ndarray:
    """(H*D,) -> (H, D)."""
    return array.reshape(target)


def heads_out(array: np.ndarray, target: Shape) -> np.ndarray:
    """(out, H*D) -> (H, D, out)."""
    return array.T.reshape(target)


def input_conv(array: np.ndarray, target: Shape) -> np.ndarray:
    """`conv` for the first layer, its colours brought to the number of channels of the images.

    As `adapt_input_conv` in timm, https://github.com/huggingface/pytorch-image-models: one channel
    gets the sum of the three colours' weights; any other number gets the colours in turn, times
    3 / channels, so that the same brightness gives the same answer.
    """
    return conv(adapt_channels(array, target[2]), target)


def adapt_channels(array: np.ndarray, channels: int, axis: int = 1) -> np.ndarray:
    """`array` with `channels` along `axis` instead of its 3 colours (see `input_conv`)."""
    colours = array.shape[axis]
    if channels == colours or colours != 3:
        return array
    if channels == 1:
        return array.sum(axis=axis, keepdims=True)
    turns = np.concatenate([array] * math.ceil(channels / colours), axis=axis)
    return np.take(turns, range(channels), axis=axis) * (colours / channels)
