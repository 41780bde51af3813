"""Magnitude pruning: the smallest weights become zero, bit by bit, while the network is trained."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from bigzoo._errors import check_choice, check_int, check_number, message
from bigzoo.compress._rebuild import copy_with_weights
from bigzoo.compress._tune import check_training, receipt_of, tune
from bigzoo.train._blocks import check_graph, inner_layers, matching, units_of
from bigzoo.train._state import sync, value_of

SCHEDULES = ("cubic", "constant")
# Weights that are multiplied with inputs; biases, normalisations and the like are few and count.
_KERNELS = ("kernel", "recurrent_kernel", "depthwise_kernel", "pointwise_kernel")
_DEPTHWISE = (keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D)
_RAMP = 0.6  # share of the training in which the zeros grow; the rest is for what stays
_UPDATES = 100  # times at which they grow, about
NO_SPEED = (
    "Zeros alone give no speed: runtimes multiply them like other numbers. They make the "
    "compressed file smaller. For speed, use bz.compress.slim or bz.compress.quantize."
)


def prune(
    model: keras.Model,
    data: Any,
    sparsity: float = 0.8,
    epochs: int = 5,
    schedule: str = "cubic",
    *,
    y: Any = None,
    batch_size: int = 32,
    validation_data: Any = None,
    learning_rate: float | None = None,
    layers: Sequence[str] | None = None,
    frequency: int | None = None,
    callbacks: Any = None,
    seed: int = 0,
    verbose: bool | int | str = "auto",
    latency: bool = True,
) -> keras.Model:
    r"""Set most weights of a trained network to zero, the smallest first, while training it on.

    With \(s_f\) = `sparsity` and t the step since the start, counted in the T steps of the first
    60% of the training, the share of zeros is \(s_t = s_f - s_f (1 - t / T)^3\) for "cubic": fast
    where there are many weights to spare, slow at the end. "constant" has \(s_f\) from the start.
    The rest of the training is for the weights that stay. After each batch (or each call of the
    compiled step, if it runs several batches), weights that are out are set to zero again.

    Zeros alone give no speed anywhere; they make the file smaller once it is compressed. For
    speed, see `bigzoo.compress.slim`.

    Each kernel gets the same share of zeros, and at least one weight stays. Kernels are those of
    dense layers, convolutions, recurrent layers and attention. Biases, normalisations and the
    kernels of depthwise convolutions stay whole; tables of embeddings are pruned only where
    `layers` names them. Frozen layers are pruned and trained like the others, and frozen again in
    the end.

    Paper: Zhu and Gupta 2017, https://arxiv.org/abs/1710.01878, section 3, equation 1.

    Args:
        model: A functional or Sequential model, built and trained. It isn't changed.
        data: (x, y), a `bigzoo.data.Batches`, a `keras.utils.PyDataset` or a `tf.data.Dataset`; or
            the inputs alone beside `y`.
        sparsity: Share of each kernel that is zero in the end, in (0, 1).
        epochs: Passes over the data, at least 0; with 0 the weights are cut at once and not
            trained.
        schedule: "cubic" or "constant".
        y: Targets, if `data` doesn't bring them.
        batch_size: Samples per step, at least 1; a data set has its own.
        validation_data: As `data`; the scores in the receipt are measured on it.
        learning_rate: Of the training, in (0, 10]; None for the one that the model is compiled
            with.
        layers: Patterns of the names of the layers to prune, such as ["conv*"]; None for all.
        frequency: Batches between two growths of the zeros, at least 1; None for about 60 growths
            in all.
        callbacks: Keras callbacks for the training; they see the weights with the zeros.
        seed: Of the order of the samples, at least 0.
        verbose: As in `fit`: "auto" or 1 for a progress bar, 2 for a line per epoch, 0 for nothing.
        latency: False leaves out latencies and FLOPs of the receipt, which take seconds.

    Returns:
        A new, plain model with the layers of `model`, compiled like it (or by `bigzoo.compile` if
        it isn't), with `.receipt`.

    Raises:
        ValueError: if an argument is out of range, there is nothing to prune, or the data don't fit
            the model.
        TypeError: if an argument is of the wrong type.

    Example:
        >>> x = np.random.default_rng(0).normal(size=(64, 4)).astype("float32")
        >>> model = bz.models.mlp(4, hidden_dims=(50,), num_outputs=3, task="multiclass")
        >>> pruned = bz.compress.prune(model, (x, np.arange(64) % 3), 0.8, epochs=1, verbose=0,
        ...     latency=False)
        >>> float(np.mean(pruned.get_layer("hidden1").get_weights()[0] == 0))
        0.8
    """
    check_graph(model)
    sparsity = check_number("sparsity", sparsity, above=0, below=1)
    check_choice("schedule", schedule, SCHEDULES)
    if frequency is not None:
        frequency = check_int("frequency", frequency, 1)
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
    _kernels(model, layers)  # for its errors, before anything is copied
    pruned = copy_with_weights(model)
    kernels = _kernels(pruned, layers)
    masks = Masks([weight for _, weight in kernels])
    callback = Pruning(masks, sparsity, schedule, training.epochs, frequency)
    told = tune(model, pruned, training, [callback])
    sync(pruned)
    # Once more and exactly: averages over the weights, or an interruption, come after the last
    # batch.
    masks.grow(sparsity)
    masks.apply()
    names = list(dict.fromkeys(name for name, _ in kernels))
    notes = [
        f"{sparsity:.4g} of each kernel of {len(names)} layers is zero; biases, normalisations "
        "and what else isn't a kernel stay whole.",
        NO_SPEED,
        *told,
    ]
    pruned.receipt = receipt_of("prune", model, pruned, training, notes)
    return pruned


def sparsity_at(progress: float, sparsity: float, schedule: str) -> float:
    """Share of zeros at `progress`, from 0 at the start of the training to 1 at its end."""
    if schedule == "constant":
        return sparsity
    left = max(0.0, 1.0 - progress / _RAMP)
    return sparsity * (1.0 - left**3)


# === Which weights ===


def _kernels(model: keras.Model, layers: Any) -> list[tuple[str, Any]]:
    """Name of the layer and weight, for each weight that is pruned."""
    units = list(units_of(model))
    names: tuple[str, ...] = _KERNELS
    if layers is not None:
        units = matching(units, layers, "layers")
        names = (*_KERNELS, "embeddings")
    found: dict[int, tuple[str, Any]] = {}
    for unit in units:
        for layer in inner_layers(unit.layer):
            if isinstance(layer, _DEPTHWISE):
                continue
            for weight in layer.weights:
                if weight.name in names and len(weight.shape) > 1 and np.prod(weight.shape) > 1:
                    found.setdefault(id(weight), (unit.path, weight))
    for path, weight in found.values():
        if not keras.backend.is_float_dtype(weight.dtype):
            fix = "Prune first, and quantise then."
            raise ValueError(f"The layer {path!r} is quantised; expected floats. {fix}")
    if not found:
        chosen = [unit.path for unit in units]
        expected = "a model with kernels: of dense layers, convolutions or recurrent layers"
        name = "model" if layers is None else "layers"
        raise ValueError(message(name, chosen, expected))
    return list(found.values())


@dataclass
class Masks:
    """Which weights of each kernel stay.

    Attributes:
        weights: The kernels.
        values: A tensor of ones and zeros for each; empty before the first growth.
    """

    weights: list[Any]
    values: list[Any] = field(default_factory=list)

    def grow(self, sparsity: float) -> None:
        """Choose the smallest weights anew; those that are out stay out."""
        if self.values:  # the last steps have moved them
            self.apply()
        self.values = []
        for weight in self.weights:
            mask = mask_of(np.abs(np.asarray(value_of(weight), dtype=np.float32)), sparsity)
            self.values.append(keras.ops.convert_to_tensor(mask, dtype=weight.dtype))

    def apply(self) -> None:
        """Set the weights that are out to zero."""
        for weight, mask in zip(self.weights, self.values, strict=True):
            weight.assign(keras.ops.multiply(weight.value, mask))


def mask_of(sizes: np.ndarray, sparsity: float) -> np.ndarray:
    """Zeros for the smallest `sparsity` of `sizes`, ones for the others; at least one stays."""
    out = min(int(sparsity * sizes.size + 0.5), sizes.size - 1)
    mask = np.ones(sizes.size, dtype=bool)
    if out:
        mask[np.argpartition(sizes, out - 1, axis=None)[:out]] = False
    return mask.reshape(sizes.shape)


class Pruning(keras.callbacks.Callback):
    """Lets the zeros grow during the training, and keeps them zero."""

    def __init__(
        self, masks: Masks, sparsity: float, schedule: str, epochs: int, frequency: int | None
    ) -> None:
        super().__init__()
        self._masks = masks
        self._share: Callable[[float], float] = lambda at: sparsity_at(at, sparsity, schedule)
        self._epochs = epochs
        self._frequency = frequency
        self._epoch = 0
        self._steps: int | None = None
        self._done = 0  # batches since the start
        self._grown = 0  # the same when the zeros grew last
        self._zeros = -1.0  # share of zeros since then

    def on_train_begin(self, logs: Any = None) -> None:
        self._steps = (self.params or {}).get("steps")
        self._update(0.0)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._epoch = epoch
        self._done = epoch * (self._steps or 0)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        # With several batches in a call, Keras gives the number of the last one.
        self._done = self._epoch * (self._steps or 0) + batch + 1
        within = (batch + 1) / self._steps if self._steps else 0.0
        progress = (self._epoch + within) / self._epochs
        # Whatever the frequency: some of the training must be left for the weights that stay.
        due = self._done - self._grown >= self._every() or progress >= _RAMP
        self._update(progress, due)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if self._steps is None and self._done:  # a data set of unknown length has now been counted
            self._steps = self._done

    def _every(self) -> int:
        total = self._epochs * (self._steps or _UPDATES)
        return self._frequency or max(1, total // _UPDATES)

    def _update(self, progress: float, due: bool = True) -> None:
        # On JAX the weights are elsewhere during an epoch; after this, Keras takes ours up again.
        sync(self.model)
        share = self._share(progress)
        if due and share > self._zeros:
            self._masks.grow(share)
            self._grown, self._zeros = self._done, share
        self._masks.apply()
