"""Which tokens a Transformer looks at."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from bigzoo._errors import check_int, message
from bigzoo.plot._figure import check_axes, new_figure
from bigzoo.plot._graph import check_graph, named, output_of, part
from bigzoo.plot._labels import to_numpy

_KINDS = (keras.layers.MultiHeadAttention, keras.layers.GroupQueryAttention)
_MOST_NAMES = 40  # tokens beside the axes; of more, some are left out
_MOST_NUMBERS = 10  # with more tokens the numbers in the cells can't be read
# What the text models of bigzoo call their inputs.
_TOKENS, _MASK, _SEGMENTS = "token_ids", "padding_mask", "segment_ids"


def attention(
    model: keras.Model,
    text_or_ids: Any,
    tokenizer: Any = None,
    layer: int | str = -1,
    head: int | None = None,
    *,
    ax: Any = None,
) -> Any:
    r"""Draw how much each token attends to each other in one attention layer.

    The weights \(\mathrm{softmax}(Q K^T / \sqrt{d})\), as Keras' own layer gives them with
    `return_attention_scores=True`: row i has the weights with which the token i takes in all
    tokens, and sums to 1. In a decoder such as GPT the upper right half is 0: no token sees what
    comes after it. What a token attends to is a hint of what matters to the model, not a proof
    (Jain and Wallace 2019, https://arxiv.org/abs/1902.10186).

    Paper: Vaswani et al. 2017, https://arxiv.org/abs/1706.03762, section 3.2.

    Args:
        model: A functional model with `MultiHeadAttention` layers, such as `bz.models.bert` or
            `bz.models.gpt`.
        text_or_ids: A text, or token ids (length,) or (1, length), or the dict of arrays that a
            tokenizer gives for one text.
        tokenizer: What made the ids, such as `bz.data.text.Tokenizer`: called with a list of
            texts it gives a dict of arrays, and it has `decode`. Needed for a text; with ids it
            names the tokens.
        layer: Number of the attention layer, from 0 at the input or from -1 at the output, or the
            layer's name.
        head: Number of the head from 0 up; None draws the mean of all heads.
        ax: Axes to draw on; None makes a figure.

    Returns:
        A new `matplotlib.figure.Figure`, or `ax` if given.

    Raises:
        TypeError, ValueError: if the model has no such layer or head, or the input doesn't fit.

    Example:
        >>> tok = bz.data.text.Tokenizer.train(["the cat sat on the mat"])
        >>> model = bz.models.gpt("micro", vocab_size=tok.vocab_size)
        >>> figure = bz.plot.attention(model, "the cat sat", tok)
        >>> figure.axes[0].get_title()
        'layer1_attention, mean of 2 heads'
    """
    operation = _find(model, layer)
    inputs, names = _read(model, text_or_ids, tokenizer)
    scores = compute(model, operation, inputs)
    if head is None:
        shown, which = scores.mean(axis=0), f"mean of {len(scores)} heads"
    else:
        fix = f"The layer has {len(scores)} heads."
        head = check_int("head", head, 0, len(scores) - 1, fix)
        shown, which = scores[head], f"head {head}"
    result = ax
    if ax is None:
        side = min(10.0, 2.8 + 0.3 * len(names))
        result = new_figure(side + 0.9, side)
        ax = result.add_subplot()
    check_axes(ax)
    _draw(ax, shown, names if shown.shape[0] == shown.shape[1] == len(names) else None)
    ax.set_title(f"{operation.name}, {which}")
    return result


def compute(model: keras.Model, operation: Any, inputs: Any) -> np.ndarray:
    """Attention weights (heads, queries, keys) of one layer, float32."""
    below = part(model, output_of(model, operation))
    if below is None:
        got = f"`layer` ({operation.name!r}) was first used in another model"
        raise ValueError(f"{got}; expected one that belongs to this model alone.")

    # A copy of this layer alone: Keras can't put a layer into a graph a second time with more
    # outputs than it had the first time.
    copy = type(operation).from_config(operation.get_config())

    def call(layer: Any, *args: Any, **kwargs: Any) -> Any:
        if layer is not copy:
            return layer(*args, **kwargs)
        # It is the last one here, so that nothing else needs its own output.
        return layer(*args, **{**kwargs, "return_attention_scores": True})[1]

    again = keras.models.clone_model(
        below, clone_function=lambda one: copy if one is operation else one, call_function=call
    )
    if len(copy.weights) != len(operation.weights):
        fix = "Merge LoRA first: `model = bz.train.merge_lora(model)`."
        raise ValueError(f"`layer` ({operation.name!r}) has weights beside its own. {fix}")
    copy.set_weights(operation.get_weights())
    found = again(inputs, training=False)
    return np.asarray(keras.ops.convert_to_numpy(keras.ops.cast(found, "float32")))[0]


def _find(model: Any, layer: Any) -> Any:
    operations = check_graph(model)
    layers = [one for one in operations if isinstance(one, _KINDS)]
    if not layers:
        fix = "Attention of another kind, or inside a nested model, can't be read."
        raise ValueError(message("model", model.name, "a model with MultiHeadAttention", fix))
    if isinstance(layer, (str, keras.layers.Layer)):
        found = named(model, layer, "an attention layer")
        if not any(found is one for one in layers):
            names = [one.name for one in layers]
            raise ValueError(message("layer", found.name, f"one of the attention layers {names}"))
        return found
    fix = f"The model has {len(layers)} attention layers."
    return layers[check_int("layer", layer, -len(layers), len(layers) - 1, fix)]


# === Input ===


def _read(model: keras.Model, given: Any, tokenizer: Any) -> tuple[Any, list[str]]:
    """What the model takes, and the name of each token."""
    if isinstance(given, str):
        if tokenizer is None:
            fix = "Give the model's tokenizer, or token ids."
            raise ValueError(message("tokenizer", None, "a tokenizer beside a text", fix))
        given = tokenizer([given])
    arrays = dict(given) if isinstance(given, Mapping) else {_TOKENS: given}
    if _TOKENS not in arrays:
        raise ValueError(message("text_or_ids", list(arrays), f"a dict with {_TOKENS!r}"))
    rows = {str(name): _row(str(name), values) for name, values in arrays.items()}
    ids = rows[_TOKENS]
    others = {_MASK: np.ones_like(ids), _SEGMENTS: np.zeros_like(ids)}
    rows = {**others, **rows}
    structure = model.input
    if isinstance(structure, dict):
        missing = [name for name in structure if name not in rows]
        if missing:
            raise ValueError(message("text_or_ids", list(rows), f"a dict that has {missing}, too"))
        inputs: Any = {name: rows[name] for name in structure}
    elif len(model.inputs) == 1:
        inputs = ids
    else:
        expected = f"one input of token ids, or a dict of inputs with {_TOKENS!r}"
        raise ValueError(message("model", [one.name for one in model.inputs], expected))
    return inputs, _names(ids[0], tokenizer)


def _row(name: str, values: Any) -> np.ndarray:
    array = to_numpy(name, values)
    array = array[np.newaxis] if array.ndim == 1 else array
    if array.ndim != 2 or len(array) != 1 or array.dtype.kind not in "iub":
        raise ValueError(
            message(name, array, "integers of shape (length,), the tokens of one text")
        )
    return array.astype(np.int32)


def _names(ids: np.ndarray, tokenizer: Any) -> list[str]:
    if tokenizer is None:
        return [str(token) for token in ids]
    if not callable(getattr(tokenizer, "decode", None)):
        fix = "Give a bz.data.text.Tokenizer."
        raise TypeError(message("tokenizer", tokenizer, "an object with `decode`", fix))
    return [_name_of(int(token), tokenizer) for token in ids]


def _name_of(token: int, tokenizer: Any) -> str:
    try:
        text = tokenizer.decode([token], special_tokens=True)
    except TypeError:  # a tokenizer of another make
        text = tokenizer.decode([token])
    # A space that belongs to the token would be invisible.
    return text.replace("\n", "\\n").replace(" ", "·") or str(token)


# === Picture ===


def _draw(ax: Any, weights: np.ndarray, names: list[str] | None) -> None:
    # Attention that is spread evenly is drawn pale, as what it is.
    most = max(float(weights.max()), 2.0 / weights.shape[1])
    drawn = ax.imshow(weights, cmap="Blues", vmin=0.0, vmax=most, interpolation="nearest")
    bar = ax.get_figure().colorbar(drawn, ax=ax, shrink=0.8)
    bar.set_label("attention weight")
    bar.outline.set_visible(False)
    ax.set_xlabel("token that is attended to")
    ax.set_ylabel("token that attends")
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
    if names is None:
        return
    step = -(-len(names) // _MOST_NAMES)
    ticks, shown = np.arange(len(names))[::step], names[::step]
    size = 10.0 if len(names) <= 12 else 8.0 if len(names) <= 25 else 7.0
    turned = {"rotation": 90} if max(map(len, shown)) > 2 else {}
    # Tokens such as "$x$" are no formulas.
    ax.set_xticks(ticks, shown, fontsize=size, parse_math=False, **turned)
    ax.set_yticks(ticks, shown, fontsize=size, parse_math=False)
    if len(names) <= _MOST_NUMBERS:
        _write_numbers(ax, weights, most)


def _write_numbers(ax: Any, weights: np.ndarray, most: float) -> None:
    for row, column in np.ndindex(weights.shape):
        value = weights[row, column]
        color = "white" if value > 0.6 * most else "black"
        text = f"{value:.2f}" if value else ""  # what is masked stays empty
        ax.text(column, row, text, ha="center", va="center", color=color, fontsize=8)
