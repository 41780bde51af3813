"""Continue a text with a language model."""

from __future__ import annotations

import inspect
from typing import Any

import keras
import numpy as np

from bigzoo._errors import check_int, check_number, message
from bigzoo.deploy._decoder import decoder_for, longest
from bigzoo.deploy._sampling import Sampling, next_tokens


def generate(
    model: keras.Model,
    prompt: Any,
    *,
    tokenizer: Any = None,
    max_new_tokens: int = 50,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int | None = None,
    stop_id: int | None = None,
) -> Any:
    """Continue `prompt` with a language model, token by token.

    Each token is drawn from the model's distribution for the next one, or with `temperature=0` is
    the likeliest. A functional model of stock layers whose only look at other tokens is causal
    `MultiHeadAttention` is run with a cache: each token is read once. Other models are run anew
    over the whole text for each token, with the same results. What is compiled serves all later
    calls with the same model, batch size and length (rounded up to a multiple of 64).

    The draws come from numpy, so one seed gives one text on every backend, as far as the backends'
    rounding leaves the logits equal.

    Args:
        model: A model from token ids (batch, length) to logits or probabilities (batch, length,
            vocabulary), such as `bz.models.gpt`.
        prompt: A text, or a list of texts, with `tokenizer`; or token ids: a list or an array of
            shape (length,), or (batch, length) for several of equal length.
        tokenizer: Such as a `bz.data.text.Tokenizer`: has `encode(text)`, which gives ids, and
            `decode(ids)`, which gives text.
        max_new_tokens: Most tokens to add, at least 1.
        temperature: At least 0. Below 1 favours likely tokens, above 1 rare ones; 0 is greedy.
        top_k: Draw among the k likeliest tokens only; at least 1.
        top_p: Draw among the likeliest tokens that together have this probability, in (0, 1].
        seed: Non-negative integer that decides the draws; None draws anew each time.
        stop_id: Token that ends a text. In a batch, texts that end earlier are filled with it.

    Returns:
        Prompt and continuation: a str for a text (a list of them for a list); for ids an int32
        array of shape (length + new,) or (batch, length + new).

    Raises:
        TypeError, ValueError: if an argument is out of its range, an id is outside the vocabulary,
            or the text would be longer than the model takes; nothing is computed then.

    Example:
        >>> model = bz.models.gpt("micro", vocab_size=30)
        >>> bz.generate(model, [1, 2, 3], max_new_tokens=5, seed=0).shape
        (8,)
    """
    if not isinstance(model, keras.Model):
        raise TypeError(message("model", model, "a keras.Model"))
    count = check_int("max_new_tokens", max_new_tokens, minimum=1)
    how = _check_sampling(temperature, top_k, top_p)
    if seed is not None:
        seed = check_int("seed", seed, minimum=0)
    vocabulary = _vocabulary(model)
    if stop_id is not None:
        stop_id = check_int("stop_id", stop_id, 0, None if vocabulary is None else vocabulary - 1)
    rng = np.random.default_rng(seed)
    limit = longest(model)
    prompts = _prompts(prompt, tokenizer)
    for ids in prompts:
        _check_ids(ids, vocabulary)
        _check_length(ids.shape[1], count, limit)
    made = [_continue(model, ids, count, limit, how, rng, stop_id) for ids in prompts]
    if isinstance(prompt, str):
        return tokenizer.decode(made[0][0].tolist())
    if _is_texts(prompt):
        return [tokenizer.decode(ids[0].tolist()) for ids in made]
    return made[0] if np.ndim(prompt) == 2 else made[0][0]


def _continue(
    model: keras.Model,
    prompt: np.ndarray,
    count: int,
    limit: int | None,
    how: Sampling,
    rng: np.random.Generator,
    stop_id: int | None,
) -> np.ndarray:
    """(batch, length) -> (batch, length + at most `count`)."""
    known = prompt.shape[1]
    end = known + count
    decoder = decoder_for(model, prompt, end, limit)
    ids = np.zeros((len(prompt), max(end, decoder.length or 0)), "int32")
    ids[:, :known] = prompt
    done = np.zeros(len(prompt), bool)
    probabilities = _gives_probabilities(model)
    with decoder.lock:  # its memory is that of one text at a time
        logits = decoder.start(ids, known)
        while True:
            chosen = next_tokens(_log(logits) if probabilities else logits, how, rng)
            if stop_id is not None:
                chosen = np.where(done, stop_id, chosen)
                done |= chosen == stop_id
            ids[:, known] = chosen
            known += 1
            if known == end or done.all():
                return ids[:, :known]
            logits = decoder.next(ids, known)


def _log(probabilities: np.ndarray) -> np.ndarray:
    return np.log(np.maximum(probabilities, 1e-30))


def _gives_probabilities(model: keras.Model) -> bool:
    last = model.layers[-1] if model.layers else None
    softmax = keras.activations.softmax
    return isinstance(last, keras.layers.Softmax) or getattr(last, "activation", None) is softmax


# --- arguments ---------------------------------------------------------------------------------


def _check_sampling(temperature: Any, top_k: Any, top_p: Any) -> Sampling:
    temperature = check_number("temperature", temperature, minimum=0)
    if top_k is not None:
        top_k = check_int("top_k", top_k, minimum=1)
    if top_p is not None:
        top_p = check_number("top_p", top_p, maximum=1, above=0)
    return Sampling(temperature, top_k, top_p)


def _vocabulary(model: keras.Model) -> int | None:
    """Size of the vocabulary; None for a model that doesn't say what it gives."""
    try:
        given, made = model.input_shape, model.output_shape
    except (AttributeError, ValueError):  # a subclassed model
        return None
    expected = "a language model: token ids (batch, length) in, logits (batch, length, words) out"
    fine = isinstance(given, tuple) and len(given) == 2 and isinstance(made, tuple)
    if not fine or len(made) != 3 or made[2] is None:
        got = f"a model from {given} to {made}"
        raise ValueError(f"`model` is {got}; expected {expected}, such as bz.models.gpt.")
    return int(made[2])


def _is_texts(prompt: Any) -> bool:
    return isinstance(prompt, (list, tuple)) and any(isinstance(text, str) for text in prompt)


def _prompts(prompt: Any, tokenizer: Any) -> list[np.ndarray]:
    """Arrays of ids (batch, length): one for ids, one for each text."""
    if isinstance(prompt, str) or _is_texts(prompt):
        texts = [prompt] if isinstance(prompt, str) else list(prompt)
        return [_encode(text, tokenizer) for text in texts]
    expected = "a text with `tokenizer`, or token ids of shape (length,) or (batch, length)"
    try:
        ids = np.asarray(prompt)
    except ValueError as error:
        fix = "Texts of different length are generated one by one."
        raise ValueError(message("prompt", prompt, "ids of equal length", fix)) from error
    if ids.size and ids.dtype.kind not in "iu":
        raise TypeError(message("prompt", prompt, expected))
    if ids.ndim not in (1, 2) or ids.size == 0:
        raise ValueError(message("prompt", prompt, f"{expected}, at least one"))
    return [np.atleast_2d(ids)]


def _encode(text: Any, tokenizer: Any) -> np.ndarray:
    if not isinstance(text, str):
        raise TypeError(message("prompt", text, "texts only, or token ids only"))
    if tokenizer is None:
        fix = "Give the one that the model was trained with: tokenizer=..."
        raise ValueError(message("tokenizer", None, "a tokenizer, for a text as prompt", fix))
    if not (hasattr(tokenizer, "encode") and hasattr(tokenizer, "decode")):
        raise TypeError(message("tokenizer", tokenizer, "an object with `encode` and `decode`"))
    # An end mark behind the prompt would tell the model that the text is over.
    plain = "special_tokens" in inspect.signature(tokenizer.encode).parameters
    found = tokenizer.encode(text, special_tokens=False) if plain else tokenizer.encode(text)
    ids = np.asarray(getattr(found, "ids", found))  # of the package tokenizers: an Encoding
    if ids.size == 0:
        fix = "Give the model something to begin with."
        raise ValueError(message("prompt", text, "a text of at least one token", fix))
    return ids.reshape(1, -1)


def _check_ids(ids: np.ndarray, vocabulary: int | None) -> None:
    low, high = int(ids.min()), int(ids.max())
    if low < 0 or (vocabulary is not None and high >= vocabulary):
        wrong = low if low < 0 else high
        top = "" if vocabulary is None else f" to {vocabulary - 1}"
        fix = "The tokenizer must be the one that the model was trained with."
        raise ValueError(message("prompt", wrong, f"token ids from 0{top}", fix))


def _check_length(known: int, count: int, limit: int | None) -> None:
    if limit is None or known + count <= limit:
        return
    if known < limit:
        fix = f"Use max_new_tokens={limit - known} at most, or a shorter prompt."
    else:
        fix = f"Cut the prompt, such as to its last {max(1, limit - count)} tokens."
    got = f"{known} tokens of the prompt and max_new_tokens={count} are {known + count}"
    raise ValueError(f"{got}; expected at most {limit}, the longest that the model takes. {fix}")
