"""The optimizer: one that the user names, or a default that suits the family of the model."""

from __future__ import annotations

from typing import Any

import keras

from bigzoo._errors import check_number, message, suggest
from bigzoo.train._family import family, has_normalization
from bigzoo.train._schedule import MAX_LEARNING_RATE, numbers_of, warmup_cosine

# Decaying these would pull scales and offsets to 0 without making the network any simpler.
_NO_DECAY = ("bias", "gamma", "beta", "scale", "embeddings?", "[a-z_]*token", "lambda")
# Patterns for `re.search` in the names of variables, which are "bias" on JAX and torch and "bias:0"
# or a path that ends so on TensorFlow.
NO_DECAY = tuple(f"(^|/){name}(:[0-9]+)?$" for name in _NO_DECAY)
_WARMUP_STEPS = 100


def make_optimizer(
    model: keras.Model, optimizer: Any, learning_rate: Any
) -> tuple[keras.optimizers.Optimizer, str]:
    """The optimizer object and the words that describe it."""
    rate = check_learning_rate(learning_rate)
    if optimizer is None:
        return _default(model, rate)
    if isinstance(optimizer, str):
        made = _by_name(optimizer)
        if rate is not None:
            made.learning_rate = rate
        return made, f"{type(made).__name__}, {_rate_text(made, rate)}"
    if isinstance(optimizer, type):
        fix = f"Make an object of it: {optimizer.__name__}()."
        raise TypeError(message("optimizer", optimizer.__name__, "a name or an object", fix))
    if not isinstance(optimizer, keras.optimizers.Optimizer):
        expected = "None, a name such as 'adam', or a keras.optimizers.Optimizer"
        raise TypeError(message("optimizer", optimizer, expected))
    if rate is not None:
        fix = "Give the learning rate to the optimizer object itself."
        expected = "None beside an optimizer object, which has its own learning rate"
        raise ValueError(message("learning_rate", learning_rate, expected, fix))
    return optimizer, f"{type(optimizer).__name__} as given"


def check_learning_rate(rate: Any) -> Any:
    """None, a schedule, or a float in (0, 10]."""
    if rate is None or isinstance(rate, keras.optimizers.schedules.LearningRateSchedule):
        return rate
    fix = "Common values lie between 0.0001 and 0.1."
    return check_number("learning_rate", rate, maximum=MAX_LEARNING_RATE, above=0, fix=fix)


def _by_name(name: str) -> keras.optimizers.Optimizer:
    try:
        return keras.optimizers.get(name)
    except ValueError:
        pass
    known = [
        entry.lower()
        for entry in dir(keras.optimizers)
        if isinstance(getattr(keras.optimizers, entry), type)
        and entry not in ("Optimizer", "LossScaleOptimizer", "MultiOptimizer", "OptimizerMap")
    ]
    hint = suggest(name.lower(), known)
    raise ValueError(message("optimizer", name, "a name that Keras knows", hint))


def _default(model: keras.Model, rate: Any) -> tuple[keras.optimizers.Optimizer, str]:
    kind = family(model)
    peak = _default_rate(model, kind) if rate is None else rate
    if isinstance(peak, float):
        peak = warmup_cosine(peak, _WARMUP_STEPS)
    if kind in ("conv", "attention"):
        made = keras.optimizers.AdamW(peak, weight_decay=0.05)
        made.exclude_from_weight_decay(var_names=list(NO_DECAY))
        return made, f"AdamW (weight decay 0.05), {_rate_text(made, peak)}"
    made = keras.optimizers.Adam(peak)
    return made, f"Adam, {_rate_text(made, peak)}"


def _default_rate(model: keras.Model, kind: str) -> float:
    if kind == "linear":
        # Each of k weights moves by about the rate in each step, and the prediction by up to k
        # times that: wide linear models need smaller steps.
        sizes = [int(weight.shape[0]) for weight in model.weights if len(weight.shape) == 2]
        return 0.1 * min(1.0, (10 / max(sizes, default=1)) ** 0.5)
    if kind == "conv" and has_normalization(model):
        return 2e-3
    return 1e-3


def _rate_text(optimizer: keras.optimizers.Optimizer, rate: Any) -> str:
    ours = numbers_of(rate)
    if ours is not None:
        return f"learning rate {ours.learning_rate:.3g} with warm-up and cosine"
    if isinstance(rate, keras.optimizers.schedules.LearningRateSchedule):
        return f"learning rate by {type(rate).__name__}"
    value = float(keras.ops.convert_to_numpy(optimizer.learning_rate))
    return f"learning rate {value:.3g}"
