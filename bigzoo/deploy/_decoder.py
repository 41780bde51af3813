"""The logits of the next token, again and again: with a cache where the model has one."""

from __future__ import annotations

import threading
import weakref
from typing import Any

import keras
import numpy as np
from keras import layers

from bigzoo.deploy._cache import NoCache, StepModels

_ROUND = 64  # lengths of caches are multiples of it, so that texts of similar length share one
_KEPT = 2  # caches that are kept for each model


class CachedDecoder:
    """Reads each token once. Two compiled functions serve all texts up to `length` tokens.

    One reads a prompt (padded to a power of two, so that prompts of similar length share it), one
    reads a token and gives the logits of the next.
    """

    def __init__(self, model: keras.Model, batch: int, length: int) -> None:
        self.length = length
        self._models = StepModels(model, batch, length)
        self._step, _ = self._models.build(1)
        _settle(self._step)
        self._readers: dict[int, keras.Model] = {}
        self.lock = threading.Lock()

    def start(self, ids: np.ndarray, known: int) -> np.ndarray:
        """Logits (batch, vocabulary) after the first `known` of the ids (batch, length)."""
        self._models.clock.start.assign(0)
        if known > 1:
            # What is read beyond the prompt is written over before anything looks at it.
            steps = 2
            while steps < known - 1:
                steps *= 2
            reader = self._reader(min(steps, self.length))
            reader.predict_on_batch(_like_input(reader, ids))
        return self.next(ids, known)

    def next(self, ids: np.ndarray, known: int) -> np.ndarray:
        """Logits (batch, vocabulary) after `known` ids, of which all but the last were read."""
        self._models.clock.start.assign(known - 1)
        return _float32(self._step.predict_on_batch(_like_input(self._step, ids)))[:, 0]

    def _reader(self, steps: int) -> keras.Model:
        if steps not in self._readers:
            step, made = self._models.build(steps)
            # Of what it computes only the memories are wanted; no logits of a whole prompt.
            corners = [tensor[:, :1, :1] for tensor in made]
            self._readers[steps] = keras.Model(step.input, corners)
            _settle(self._readers[steps])
        return self._readers[steps]


class PlainDecoder:
    """Runs the whole model over the whole text for each token: for models without a cache.

    Args:
        model: Any model from token ids (batch, length) to logits.
        length: Length that texts are padded to, so that one compiled function serves all; None
            runs each length by itself, for models in which a token can see those behind it.
    """

    def __init__(self, model: keras.Model, length: int | None) -> None:
        self.length = length
        self._model = model
        self.lock = threading.Lock()

    def start(self, ids: np.ndarray, known: int) -> np.ndarray:
        """Logits (batch, vocabulary) after the first `known` of the ids (batch, any)."""
        return self.next(ids, known)

    def next(self, ids: np.ndarray, known: int) -> np.ndarray:
        """The same."""
        shown = ids[:, :known] if self.length is None else ids[:, : self.length]
        return _float32(self._model.predict_on_batch(_like_input(self._model, shown)))[:, known - 1]


def _like_input(model: keras.Model, ids: np.ndarray) -> Any:
    """`ids` in the structure of the model's input, which may be a dict or a list of one."""
    if not is_functional(model):
        return ids
    return keras.tree.map_structure(lambda _: ids, model.input)


def _settle(model: keras.Model) -> None:
    """XLA takes seconds to compile what is fast without it on a CPU; JAX has nothing else."""
    if keras.backend.backend() != "jax":
        model.jit_compile = False


def _float32(output: Any) -> np.ndarray:
    found = keras.tree.flatten(output)
    return np.asarray(keras.ops.convert_to_numpy(found[0]), dtype="float32")


# --- one decoder for each model -----------------------------------------------------------------

_DECODERS: weakref.WeakKeyDictionary[keras.Model, dict[Any, Any]] = weakref.WeakKeyDictionary()


def decoder_for(
    model: keras.Model, ids: np.ndarray, needed: int, limit: int | None
) -> CachedDecoder | PlainDecoder:
    """The decoder for texts of `needed` tokens, made once for a model, batch size and length.

    Args:
        model: A language model.
        ids: The prompt, (batch, length).
        needed: Tokens of the prompt and of what is to come.
        limit: Most tokens that the model takes, or None.
    """
    length = -(-needed // _ROUND) * _ROUND
    fixed = fixed_length(model)
    length = fixed or (length if limit is None else min(length, limit))
    # Weights that are added later, such as LoRA's, would be missing from a compiled function.
    key = (len(ids), length, tuple(id(weight) for weight in model.weights))
    kept = _DECODERS.setdefault(model, {})
    if key not in kept:
        while len(kept) >= _KEPT:
            kept.pop(next(iter(kept)))
        kept[key] = _make(model, ids, length)
    return kept[key]


def _make(model: keras.Model, ids: np.ndarray, length: int) -> CachedDecoder | PlainDecoder:
    if is_functional(model):
        try:
            return CachedDecoder(model, len(ids), length)
        except NoCache:
            pass
    padded = np.zeros((len(ids), length), "int32")
    padded[:, : ids.shape[1]] = ids
    if fixed_length(model) is None and not _is_causal(model, ids, padded):
        return PlainDecoder(model, None)
    return PlainDecoder(model, length)


def _is_causal(model: keras.Model, ids: np.ndarray, padded: np.ndarray) -> bool:
    """Whether padding behind a text leaves the text's logits as they are."""
    known = ids.shape[1]
    alone = PlainDecoder(model, None).next(ids, known)
    together = PlainDecoder(model, padded.shape[1]).next(padded, known)
    return bool(np.allclose(alone, together, rtol=1e-4, atol=1e-4))


def is_functional(model: keras.Model) -> bool:
    """Whether the model is a graph of layers, with one input and one output."""
    graph = getattr(model, "operations", None) is not None and not isinstance(
        model, keras.Sequential
    )
    return graph and len(model.inputs) == 1


def fixed_length(model: keras.Model) -> int | None:
    """Length of the model's input, where it takes no other."""
    shape = getattr(model, "input_shape", None)
    return shape[1] if isinstance(shape, tuple) and len(shape) == 2 else None


def longest(model: keras.Model) -> int | None:
    """Most tokens that the model takes; None where nothing says so.

    A table that is looked up by position has no row for more: its index grows by one with each
    token, whatever the tokens are.
    """
    fixed = fixed_length(model)
    limits = [] if fixed is None else [fixed]
    if is_functional(model):
        for operation in model.operations:
            if isinstance(operation, layers.Embedding) and operation.input is not model.inputs[0]:
                first = _first_position(model, operation.input, fixed)
                limits += [] if first is None else [operation.input_dim - first]
    return min(limits, default=None)


def _first_position(model: keras.Model, index: Any, fixed: int | None) -> int | None:
    """Index of the first token, if those of the others count up from it."""
    length = fixed or 4
    ones = np.ones((1, length), "int32")
    given = keras.tree.map_structure(lambda _: ones, model.input)
    places = keras.Model(model.input, index)(given, training=False)
    row = keras.ops.convert_to_numpy(places).reshape(-1)[-length:]
    if len(row) != length or (np.diff(row) != 1).any():
        return None
    return int(row[0])
