"""Speed settings by trial: the candidates run a few steps each on random batches."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from bigzoo.train._family import family
from bigzoo.train._speed import Speed, is_distributed
from bigzoo.train._untouched import trial_optimizer, untouched

_BATCH_SIZE = 32
# Seconds after which no further candidate is tried, and after which one candidate is ended.
_BUDGET = 20.0
_CANDIDATE_BUDGET = 2.0
# Above this time for a step, the few tenths of a millisecond in Python don't matter any more.
_SLOW_STEP = 0.02
_STEPS = (1, 8, 32)
_LARGEST_BATCH = 512 * 2**20


def measure_speed(
    model: keras.Model, optimizer: Any, guess: Speed, budget: float = _BUDGET
) -> Speed:
    """The fastest of the candidates, or `guess` with the reason why nothing was measured."""
    reason = _why_not(model)
    if reason is None:
        batch = _random_batch(model)
        if batch is None:
            reason = "the input's shape isn't fixed"
    if reason is not None:
        return Speed(guess.jit_compile, guess.steps_per_execution, f"not measured: {reason}")
    start = time.monotonic()
    times: dict[tuple[bool | str, int], float] = {}
    tried = 0
    with _compiled_anew(model, optimizer):
        for jit, steps in _candidates(model, times):
            if times and time.monotonic() - start > budget:
                break
            tried += 1
            measured = _time_step(model, optimizer, batch, jit, steps)
            if measured is not None:
                times[jit, steps] = measured
    if not times:
        return Speed(guess.jit_compile, guess.steps_per_execution, "not measured: no trial ran")
    (jit, steps), best = min(times.items(), key=lambda item: item[1])
    slowest = max(times.values())
    found = f"{best * 1e3:.3g} to {slowest * 1e3:.3g} ms a step"
    return Speed(jit, steps, f"measured {tried} setting{'s' * (tried != 1)}: {found}")


def _why_not(model: keras.Model) -> str | None:
    if keras.backend.backend() not in ("tensorflow", "jax"):
        return "Keras has one way to run on this backend"
    if is_distributed(model):
        return "distributed"
    if not model.built or not model.trainable_variables:
        return "the model isn't built" if not model.built else "nothing is trainable"
    return None


def _candidates(
    model: keras.Model, times: dict[tuple[bool | str, int], float]
) -> Iterator[tuple[bool | str, int]]:
    """Settings to try, in view of the times so far. The first one is safe for any model."""
    tensorflow = keras.backend.backend() == "tensorflow"
    first: bool | str = False if tensorflow else "auto"
    yield first, 1
    steps = [1] if times.get((first, 1), 0.0) > _SLOW_STEP else list(_STEPS)
    jits = [first]
    if tensorflow and family(model) not in ("conv", "recurrent"):
        # XLA on a CPU may take minutes to compile these, and was never faster in trials.
        jits.append(True)
    for jit in reversed(jits):
        for count in reversed(steps):
            if (jit, count) != (first, 1):
                yield jit, count


def _compiled_anew(model: keras.Model, optimizer: Any) -> Any:
    """`untouched` for a model that will be compiled again right afterwards."""
    if not getattr(model, "compiled", False):
        # Gives the model the attributes that `untouched` looks at.
        model.compile(trial_optimizer(optimizer, 0.0), loss="mse")
    return untouched(model)


def _random_batch(model: keras.Model) -> tuple[Any, Any] | None:
    """Random input and zero targets of the model's shapes; None where a size isn't known."""
    if isinstance(model, keras.Sequential):
        inputs, outputs = model.inputs[0], model.outputs[0]
    elif hasattr(model, "operations"):
        inputs, outputs = model.input, model.output
    else:
        return None  # a subclassed model doesn't tell
    tensors = [*keras.tree.flatten(inputs), *keras.tree.flatten(outputs)]
    if any(None in tuple(tensor.shape)[1:] for tensor in tensors):
        return None
    size = sum(int(np.prod(tensor.shape[1:])) for tensor in tensors) * 4 * _BATCH_SIZE
    if size > _LARGEST_BATCH:
        return None
    rng = np.random.default_rng(0)

    def draw(tensor: Any) -> np.ndarray:
        dtype = keras.backend.standardize_dtype(tensor.dtype)
        shape = (_BATCH_SIZE, *tensor.shape[1:])
        if dtype.startswith(("int", "uint", "bool")):
            return np.zeros(shape, dtype)
        return rng.uniform(size=shape).astype("float32")

    def zeros(tensor: Any) -> np.ndarray:
        return np.zeros((_BATCH_SIZE, *tensor.shape[1:]), "float32")

    return keras.tree.map_structure(draw, inputs), keras.tree.map_structure(zeros, outputs)


def _time_step(
    model: keras.Model, optimizer: Any, batch: Any, jit: bool | str, steps: int
) -> float | None:
    """Seconds for one training step, from the second execution on; None if it can't run."""
    # The real loss isn't needed: it costs next to nothing beside the network.
    model.compile(
        trial_optimizer(optimizer, 0.0), loss="mse", jit_compile=jit, steps_per_execution=steps
    )
    watch = _Watch(_CANDIDATE_BUDGET)
    count = max(24, 5 * steps)
    try:
        feed = _feed(batch, count)
        model.fit(
            feed, epochs=1, steps_per_epoch=count, shuffle=False, verbose=0, callbacks=[watch]
        )
    except Exception:
        return None  # a candidate that can't run is no candidate; Keras' default always can
    return watch.seconds_per_step(steps)


class _Watch(keras.callbacks.Callback):
    """Times executions after the first one, which traces and compiles; ends a slow trial."""

    def __init__(self, budget: float) -> None:
        super().__init__()
        self.budget = budget
        self.ends: list[float] = []

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if logs:
            float(next(iter(logs.values())))  # waits for a backend that runs ahead
        self.ends.append(time.perf_counter())
        if len(self.ends) > 3 and self.ends[-1] - self.ends[0] > self.budget:
            self.model.stop_training = True

    def seconds_per_step(self, steps: int) -> float | None:
        gaps = np.diff(self.ends)
        return float(np.median(gaps)) / steps if len(gaps) else None


def _feed(batch: Any, count: int) -> Any:
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        options = tf.data.Options()
        # Its tuning thread delays the end of a loop by seconds.
        options.autotune.enabled = False
        return tf.data.Dataset.from_tensors(batch).repeat(count).with_options(options)
    return _Repeated(batch, count)


class _Repeated(keras.utils.PyDataset):
    """The same batch `count` times."""

    def __init__(self, batch: Any, count: int) -> None:
        super().__init__()
        self.batch = batch
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Any:
        return self.batch
