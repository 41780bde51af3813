"""Recurrent networks: LSTM and GRU, for texts and for series of numbers.

References:
    Hochreiter and Schmidhuber 1997, https://doi.org/10.1162/neco.1997.9.8.1735 (LSTM).
    Cho et al. 2014, https://arxiv.org/abs/1406.1078 (GRU).
    Schuster and Paliwal 1997, https://doi.org/10.1109/78.650093 (both directions).
"""

from __future__ import annotations

import dataclasses
from typing import Any

import keras
from keras import layers

from bigzoo._errors import check_bool, check_choice, check_int, check_number, message
from bigzoo.models._arguments import check_name, check_policy
from bigzoo.models._heads import plan_head

# === Sizes ===


@dataclasses.dataclass(frozen=True)
class Sizes:
    """The kind of cell, and how many of them. The papers name no sizes; these are usual ones."""

    cell: str = "lstm"
    hidden_dim: int = 128
    num_layers: int = 1
    embedding_dim: int = 128
    vocab_size: int = 10_000


VARIANTS: dict[str, Sizes] = {
    "lstm": Sizes(),
    "gru": Sizes("gru"),
    "tiny": Sizes("gru", 8, 2, 6, 50),
}
_CELLS = {"lstm": layers.LSTM, "gru": layers.GRU}

# === Layers ===


def _recurrent(
    x: Any, index: int, sizes: Sizes, bidirectional: bool, last: bool, policy: Any
) -> Any:
    """(batch, length, features) -> the same with `hidden_dim`, or (batch, hidden_dim) at the end.

    Twice `hidden_dim` for both directions. Padded places are passed over: the state stays.
    """
    name = f"layer{index}_{sizes.cell}"
    cell = _CELLS[sizes.cell](
        sizes.hidden_dim,
        return_sequences=not last,
        dtype=policy,
        name=f"{name}_forward" if bidirectional else name,
    )
    if bidirectional:
        cell = layers.Bidirectional(cell, dtype=policy, name=name)
    return cell(x)


def _input(sizes: Sizes, num_features: int | None, policy: Any) -> tuple[Any, Any]:
    """(the input, what the first recurrent layer gets)."""
    if num_features is not None:
        series = keras.Input((None, num_features), dtype="float32", name="series")
        return series, series
    token_ids = keras.Input((None,), dtype="int32", name="token_ids")
    table = layers.Embedding(
        sizes.vocab_size,
        sizes.embedding_dim,
        mask_zero=True,
        dtype=policy,
        name="token_embedding",
    )
    return token_ids, table(token_ids)


# === Model ===


def rnn(
    variant: str = "lstm",
    *,
    vocab_size: int | None = None,
    num_features: int | None = None,
    bidirectional: bool = False,
    hidden_dim: int | None = None,
    num_layers: int | None = None,
    embedding_dim: int | None = None,
    num_classes: int | None = None,
    num_outputs: int | None = None,
    horizon: int | None = None,
    classifier_activation: str | None = "softmax",
    dropout: float = 0.0,
    dtype: Any = None,
    name: str = "rnn",
) -> keras.Model:
    """Recurrent network that reads a text or a series of numbers from its start to its end.

    Choose it for short sequences and small data, where it learns more than a transformer of its
    size. With `vocab_size` it reads texts as token ids, where 0 is padding; with `num_features`
    series of numbers. A text gives the same answer with and without padding behind it.

    Args:
        variant: "lstm" or "gru", whose cell has three quarters of the weights.
        vocab_size: Different token ids, at least 2; None for 10,000, unless it reads numbers.
        num_features: Numbers at each step of a series, at least 1; None for texts.
        bidirectional: Whether to read backwards as well: better for whole texts, and twice the
            work. The series' future is no help in forecasting, but its past may be read both ways.
        hidden_dim: Units of each layer; None for the variant's 128.
        num_layers: Layers one above another; None for the variant's 1.
        embedding_dim: Numbers that stand for a token; None for the variant's 128.
        num_classes: Classes, at least 2; 0 for no head, the last state; None for 2.
        num_outputs: Units of a regression head instead of classes.
        horizon: Steps to forecast of each feature of a series, instead of classes.
        classifier_activation: "softmax" gives `num_classes` probabilities, "sigmoid" one unit for
            two classes and independent probabilities above, None logits.
        dropout: Part of each layer's outputs set to 0 in training, in [0, 1).
        dtype: Name of a dtype policy or a `keras.DTypePolicy`; the global policy by default.
        name: Name of the model.

    Input shape: "token_ids", (batch, length), int32, 0 is padding, at the end; or "series",
        (batch, length, num_features), float32, of similar scale, best near [-3, 3]. Any length.
    Output shape: (batch, num_classes), (batch, num_outputs) or (batch, horizon, num_features),
        float32 whatever the dtype policy.

    Returns:
        An uncompiled `keras.Model`.

    Raises:
        TypeError, ValueError: if an argument is out of its range, or two exclude each other.

    Example:
        >>> bz.models.rnn("gru", vocab_size=5000, bidirectional=True).output_shape
        (None, 2)
        >>> model = bz.models.rnn("lstm", num_features=3, horizon=12)
        >>> model.predict(np.zeros((4, 50, 3), "float32"), verbose=0).shape
        (4, 12, 3)
    """
    sizes = VARIANTS[check_choice("variant", variant, VARIANTS)]
    if num_features is not None:
        num_features = check_int("num_features", num_features, 1)
        for given, value in (("vocab_size", vocab_size), ("embedding_dim", embedding_dim)):
            if value is not None:
                fix = "It reads either token ids or series of numbers."
                raise ValueError(message(given, value, "None with num_features", fix))
    if vocab_size is not None:
        check_int("vocab_size", vocab_size, 2)
    given_sizes = {"hidden_dim": hidden_dim, "num_layers": num_layers}
    given_sizes |= {"embedding_dim": embedding_dim, "vocab_size": vocab_size}
    sizes = _sized(sizes, given_sizes)
    both = check_bool("bidirectional", bidirectional)
    rate = check_number("dropout", dropout, minimum=0, below=1)
    policy = check_policy(dtype)
    name = check_name(name)
    horizon = _check_horizon(horizon, num_features, num_classes, num_outputs)
    head = plan_head(num_classes, num_outputs, classifier_activation, default=2)

    source, x = _input(sizes, num_features, policy)
    for index in range(sizes.num_layers):
        x = _recurrent(x, index, sizes, both, index == sizes.num_layers - 1, policy)
        if rate:
            x = layers.Dropout(rate, dtype=policy, name=f"layer{index}_dropout")(x)
    if horizon is None:
        return keras.Model(source, head(x), name=name)
    forecast = layers.EinsumDense(
        "bd,dhf->bhf",
        (horizon, num_features),
        bias_axes="hf",
        dtype="float32",
        name="predictions",
    )
    return keras.Model(source, forecast(x), name=name)


def _sized(sizes: Sizes, given: dict[str, Any]) -> Sizes:
    changes: dict[str, Any] = {
        key: check_int(key, value, minimum=1) for key, value in given.items() if value is not None
    }
    return dataclasses.replace(sizes, **changes)


def _check_horizon(
    horizon: Any, num_features: int | None, num_classes: Any, num_outputs: Any
) -> int | None:
    if horizon is None:
        return None
    horizon = check_int("horizon", horizon, minimum=1)
    if num_features is None:
        fix = "Give num_features, the numbers at each step."
        raise ValueError(message("horizon", horizon, "None for texts", fix))
    for other, value in (("num_classes", num_classes), ("num_outputs", num_outputs)):
        if value is not None:
            fix = "A forecast has its own head: all features of the next steps."
            raise ValueError(message(other, value, "None with horizon", fix))
    return horizon
