"""Multilayer perceptron: Dense layers in a row.

References:
    Rumelhart, Hinton and Williams 1986, https://doi.org/10.1038/323533a0 (back-propagation).
    Ioffe and Szegedy 2015, https://arxiv.org/abs/1502.03167 (batch normalisation).
    Ba, Kiros and Hinton 2016, https://arxiv.org/abs/1607.06450 (layer normalisation).
    Srivastava et al. 2014, https://jmlr.org/papers/v15/srivastava14a.html (dropout).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import layers

from bigzoo._errors import check_choice, check_int, check_number, message
from bigzoo.models._arguments import check_activation, check_name, check_policy
from bigzoo.models._heads import predictions

# Task -> activation of the last layer.
TASKS = {
    "binary": "sigmoid",
    "multiclass": "softmax",
    "multilabel": "sigmoid",
    "regression": "linear",
}

# === Layers ===


def _hidden(
    x: Any,
    index: int,
    units: int,
    activation: str,
    normalization: str | None,
    dropout: float,
    policy: Any,
) -> Any:
    """Dense - (normalisation) - activation - (dropout): (batch, any) -> (batch, units)."""
    name = f"hidden{index}"
    if normalization is None:
        x = layers.Dense(units, activation=activation, dtype=policy, name=name)(x)
    else:
        # Batch normalisation subtracts the mean, and any bias with it.
        use_bias = normalization != "batch"
        x = layers.Dense(units, use_bias=use_bias, dtype=policy, name=name)(x)
        norm = layers.BatchNormalization if normalization == "batch" else layers.LayerNormalization
        x = norm(dtype=policy, name=f"{name}_norm")(x)
        x = layers.Activation(activation, dtype=policy, name=f"{name}_activation")(x)
    if dropout:
        x = layers.Dropout(dropout, dtype=policy, name=f"{name}_dropout")(x)
    return x


# === Model ===


def mlp(
    num_features: int = 1000,
    hidden_dims: Sequence[int] = (500, 250, 100),
    num_outputs: int = 1,
    task: str = "binary",
    *,
    activation: str = "relu",
    dropout: float = 0.0,
    normalization: str | None = None,
    dtype: Any = None,
    name: str = "mlp",
) -> keras.Model:
    """Multilayer perceptron for tables of numbers.

    At its defaults it is the four-layer network of many tutorials: Dense 500, 250 and 100 with
    ReLU and one sigmoid unit on 1,000 features, 650,951 parameters. Choose it for vectors without
    spatial or temporal order; compare it with `linear_regression` or `logistic_regression` first.

    Args:
        num_features: Features per sample, at least 1.
        hidden_dims: Units of each hidden layer, each at least 1; `()` gives a linear model.
        num_outputs: Units of the last layer: 1 for "binary", the number of classes (at least 2)
            for "multiclass", of labels for "multilabel", of numbers to predict for "regression".
        task: "binary" (sigmoid), "multiclass" (softmax), "multilabel" (sigmoid per label) or
            "regression" (no activation).
        activation: Name of the hidden layers' activation, such as "relu", "gelu" or "tanh".
        dropout: Part of the hidden units set to 0 in training, in [0, 1).
        normalization: None, "batch" or "layer": normalisation between Dense and activation.
        dtype: Name of a dtype policy or a `keras.DTypePolicy`; the global policy by default.
        name: Name of the model.

    Input shape: (batch, num_features), float32; features of similar scale, best near [-3, 3].
    Output shape: (batch, num_outputs), float32 whatever the dtype policy.

    Returns:
        An uncompiled `keras.Model`; its layers are "features", "hidden1", …, "predictions".

    Raises:
        TypeError, ValueError: if an argument is out of its range, or `num_outputs` does not fit
            the task.

    Example:
        >>> model = bz.models.mlp()
        >>> model.output_shape, model.count_params()
        ((None, 1), 650951)
        >>> bz.models.mlp(20, (64, 64), num_outputs=3, task="multiclass").output_shape
        (None, 3)
    """
    num_features = check_int("num_features", num_features, minimum=1)
    dims = _check_hidden_dims(hidden_dims)
    task = check_choice("task", task, TASKS)
    num_outputs = _check_num_outputs(num_outputs, task)
    activation = check_activation("activation", activation)
    dropout = check_number("dropout", dropout, minimum=0, below=1)
    normalization = check_choice("normalization", normalization, (None, "batch", "layer"))
    policy = check_policy(dtype)
    name = check_name(name)

    features = x = keras.Input((num_features,), dtype="float32", name="features")
    for index, units in enumerate(dims, start=1):
        x = _hidden(x, index, units, activation, normalization, dropout, policy)
    return keras.Model(features, predictions(x, num_outputs, TASKS[task]), name=name)


def _check_hidden_dims(hidden_dims: Any) -> tuple[int, ...]:
    expected = "a tuple of integers, one per hidden layer"
    if hasattr(hidden_dims, "__index__"):
        fix = f"For one hidden layer write ({hidden_dims},)."
        raise TypeError(message("hidden_dims", hidden_dims, expected, fix))
    if isinstance(hidden_dims, (str, bytes)) or not hasattr(hidden_dims, "__iter__"):
        raise TypeError(message("hidden_dims", hidden_dims, expected))
    return tuple(
        check_int(f"hidden_dims[{i}]", units, minimum=1) for i, units in enumerate(hidden_dims)
    )


def _check_num_outputs(num_outputs: Any, task: str) -> int:
    number = check_int("num_outputs", num_outputs, minimum=1)
    if task == "binary" and number != 1:
        expected = '1 for task="binary", the probability of class 1'
        fix = 'For exclusive classes use task="multiclass", for independent labels "multilabel".'
        raise ValueError(message("num_outputs", number, expected, fix))
    if task == "multiclass" and number < 2:
        expected = 'the number of classes, at least 2, for task="multiclass"'
        fix = 'A softmax over one unit is always 1. For two classes, task="binary" takes one unit.'
        raise ValueError(message("num_outputs", number, expected, fix))
    return number
