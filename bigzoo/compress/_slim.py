"""Channel pruning: whole filters are cut, so that the network is smaller and faster as it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras

from bigzoo._errors import check_number
from bigzoo.compress._channels import Group, choose
from bigzoo.compress._rebuild import rebuild, weights_of
from bigzoo.compress._record import record
from bigzoo.compress._tune import NAMED, check_training, receipt_of, tune
from bigzoo.compress._walk import walk
from bigzoo.train._blocks import check_graph
from bigzoo.train._state import sync


def slim(
    model: keras.Model,
    data: Any,
    ratio: float = 0.5,
    epochs: int = 5,
    *,
    y: Any = None,
    batch_size: int = 32,
    validation_data: Any = None,
    learning_rate: float | None = None,
    callbacks: Any = None,
    seed: int = 0,
    verbose: bool | int | str = "auto",
    latency: bool = True,
) -> keras.Model:
    """Cut a share of the channels out of a trained network, and train what is left.

    Unlike single zeros, which every runtime multiplies like other numbers, channels that are gone
    save memory and time everywhere. Half of the channels of all layers are a quarter of the
    weights and of the multiplications. Accuracy falls at first, and mostly comes back in a few
    epochs: judge it by its score, not by whether it still answers as before.

    Channels hang together: what a residual connection adds must be cut alike on both sides, a
    depthwise convolution has the channels of what comes before it, and so on. They are found on the
    graph of the model and cut in groups. In each group those of the smallest L2 norms go: norms of
    the filters, and of the gamma of a BatchNormalization that follows, each relative to its layer's
    mean. Where 32 or more channels stay, it is a multiple of 8 of them, which processors work on
    best. At least one channel of each layer stays.

    Never cut: inputs and outputs, grouped convolutions, attention, recurrent layers, Lambda and any
    kind of layer that isn't known to treat channels one by one; nor what is tied to them. The
    receipt names these layers. Nested models are opened: the result has their layers itself.
    A LayerNormalization takes its mean over fewer channels, so that there the cut is felt more.

    The training is on `data` as they come, augmented where they are, and changes frozen layers too:
    what is left of them must make up for what is gone. Then they are frozen again. Which channels
    go depends on the weights alone, never on data.

    Paper: Li et al. 2017, https://arxiv.org/abs/1608.08710, section 3 (norms of filters; channels
    of residual connections together). Gamma: Liu et al. 2017, https://arxiv.org/abs/1708.06519.
    Differs from the papers: all layers are cut at once and by the same share; one training at the
    end.

    Args:
        model: A functional or Sequential model, built and trained. It isn't changed.
        data: (x, y), a `bigzoo.data.Batches`, a `keras.utils.PyDataset` or a `tf.data.Dataset`; or
            the inputs alone beside `y`.
        ratio: Share of the channels that is cut in each group, in (0, 1).
        epochs: Passes over the data after the cut, at least 0.
        y: Targets, if `data` doesn't bring them.
        batch_size: Samples per step, at least 1; a data set has its own.
        validation_data: As `data`; the scores in the receipt are measured on it.
        learning_rate: Of the training, in (0, 10]; None for the one that the model is compiled
            with.
        callbacks: Keras callbacks for the training.
        seed: Of the order of the samples, at least 0.
        verbose: As in `fit`: "auto" or 1 for a progress bar, 2 for a line per epoch, 0 for nothing.
        latency: False leaves out latencies and FLOPs of the receipt, which take seconds.

    Returns:
        A new, smaller model with the names, dtype policies and class names of `model`, compiled
        like it (or by `bigzoo.compile` if it isn't), with `.receipt`.

    Raises:
        ValueError: if nothing can be cut, the graph of layers isn't known, an argument is out of
            range, or the data don't fit the model.
        TypeError: if an argument is of the wrong type.

    Example:
        >>> x = np.random.default_rng(0).normal(size=(64, 4)).astype("float32")
        >>> model = bz.models.mlp(4, hidden_dims=(64, 32), num_outputs=3, task="multiclass")
        >>> small = bz.compress.slim(model, (x, np.arange(64) % 3), epochs=1, verbose=0,
        ...     latency=False)
        >>> [layer.units for layer in small.layers if hasattr(layer, "units")]
        [32, 16, 3]
        >>> small.count_params() / model.count_params() < 0.3
        True
    """
    check_graph(model)
    ratio = check_number("ratio", ratio, above=0, below=1)
    training = check_training(
        model,
        data,
        y,
        validation_data,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        callbacks=callbacks,
        seed=seed,
        verbose=verbose,
        latency=latency,
    )
    small, groups, whole = cut(model, ratio)
    notes = [*_notes(ratio, groups, whole, training.epochs), *tune(model, small, training)]
    small.receipt = receipt_of("slim", model, small, training, notes)
    return small


def cut(model: keras.Model, ratio: float) -> tuple[keras.Model, list[Group], dict[str, str]]:
    """The smaller model before any training, what was cut, and why other layers were not."""
    sync(model)
    recorded = record(model)
    channels = walk(recorded)
    groups = channels.groups(ratio)
    whole = channels.whole(groups)
    if not groups:
        raise ValueError(_nothing_to_cut(model, ratio, whole))
    chosen = choose(groups, channels.importance(weights_of(recorded)))
    return rebuild(model, recorded, channels, chosen), groups, whole


def _nothing_to_cut(model: keras.Model, ratio: float, whole: Mapping[str, str]) -> str:
    text = f"`model` ({model.name!r}) has no channels that can be cut by a ratio of {ratio:g}"
    if not whole:
        return f"{text}: no layer makes any."
    return f"{text}: {_listed(whole)}. Expected layers such as Conv2D or Dense before its outputs."


def _listed(whole: Mapping[str, str]) -> str:
    names = [f"{name!r}: {why}" for name, why in list(whole.items())[:NAMED]]
    more = f"; and {len(whole) - NAMED} more" if len(whole) > NAMED else ""
    return "; ".join(names) + more


def _notes(ratio: float, groups: list[Group], whole: Mapping[str, str], epochs: int) -> list[str]:
    kept, total = sum(one.kept for one in groups), sum(one.channels for one in groups)
    count = f"{len(groups)} group{'s' * (len(groups) != 1)}"
    notes = [f"{total - kept:,} of {total:,} channels cut, in {count} (ratio {ratio:g})."]
    if whole:
        notes.append(f"Left whole: {_listed(whole)}.")
    if epochs == 0:
        notes.append("Not trained after the cut: train it before it is used.")
    return notes
