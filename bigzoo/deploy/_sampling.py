"""The next token from the logits of a language model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Sampling:
    """How the next token is drawn.

    Attributes:
        temperature: 0 takes the likeliest; below 1 sharpens the distribution, above flattens it.
        top_k: Only the k likeliest tokens, or None.
        top_p: Only the likeliest tokens whose probabilities together reach p, or None.
    """

    temperature: float
    top_k: int | None
    top_p: float | None


def next_tokens(logits: np.ndarray, how: Sampling, rng: np.random.Generator) -> np.ndarray:
    """(batch, vocabulary) -> (batch,) token ids.

    The order is that of transformers: temperature, then top k, then top p.
    """
    if how.temperature == 0:
        return logits.argmax(axis=-1).astype("int32")
    probabilities = distribution(logits, how)
    # One uniform number a row, whatever the vocabulary: where it falls in the summed distribution.
    summed = probabilities.cumsum(axis=-1)
    drawn = rng.random((len(logits), 1)) * summed[:, -1:]
    chosen = (summed <= drawn).sum(axis=-1)
    last = probabilities.shape[-1] - 1 - (probabilities[:, ::-1] > 0).argmax(axis=-1)
    return np.minimum(chosen, last).astype("int32")


def distribution(logits: np.ndarray, how: Sampling) -> np.ndarray:
    """Probabilities (batch, vocabulary) that the next token is drawn from; temperature above 0."""
    scores = logits.astype("float64")
    scores = (scores - scores.max(axis=-1, keepdims=True)) / how.temperature
    if how.top_k is not None and how.top_k < scores.shape[-1]:
        least = np.partition(scores, -how.top_k, axis=-1)[:, -how.top_k, None]
        scores = np.where(scores < least, -np.inf, scores)
    probabilities = _softmax(scores)
    if how.top_p is not None and how.top_p < 1:
        probabilities = np.where(_outside(probabilities, how.top_p), 0.0, probabilities)
        probabilities /= probabilities.sum(axis=-1, keepdims=True)
    return probabilities


def _softmax(scores: np.ndarray) -> np.ndarray:
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def _outside(probabilities: np.ndarray, top_p: float) -> np.ndarray:
    """True for tokens that aren't needed: the likelier ones reach `top_p` without them."""
    order = np.argsort(-probabilities, axis=-1, kind="stable")
    ordered = np.take_along_axis(probabilities, order, axis=-1)
    before = ordered.cumsum(axis=-1) - ordered
    outside = np.empty(probabilities.shape, bool)
    np.put_along_axis(outside, order, before >= top_p, axis=-1)
    return outside
