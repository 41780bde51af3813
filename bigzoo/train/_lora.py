"""Low-rank adaptation through Keras' own `enable_lora`, and the way back to plain weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from bigzoo._errors import message
from bigzoo.train._blocks import Unit, check_graph, inner_layers
from bigzoo.train._state import value_of

# What Keras can adapt, with the names of the weight and of its two factors.
_ADAPTABLE: tuple[tuple[type, str, str, str], ...] = (
    (keras.layers.Dense, "kernel", "lora_kernel_a", "lora_kernel_b"),
    (keras.layers.EinsumDense, "kernel", "lora_kernel_a", "lora_kernel_b"),
    (keras.layers.Embedding, "embeddings", "lora_embeddings_a", "lora_embeddings_b"),
)


def merge_lora(model: keras.Model) -> keras.Model:
    r"""A copy of `model` in which each low-rank update is added to the weight that it adapts.

    For each layer on which Keras' `enable_lora` was called, \(W + \frac{\alpha}{r} A B\) takes the
    place of \(W\), A and B. The copy has the structure and the number of weights that the model had
    before, and gives the same outputs up to rounding. `bigzoo.finetune(..., lora=rank)` merges by
    itself.

    Paper: Hu et al. 2022, https://arxiv.org/abs/2106.09685, section 4.1.

    Args:
        model: A functional model or a Sequential, with LoRA on any of its layers, or on none.

    Returns:
        A new `keras.Model` of the same name, compiled as `model` is, with a fresh optimizer.

    Raises:
        TypeError, ValueError: if `model` is no model with a graph of layers.

    Example:
        >>> model = bz.models.mlp(4, (8,), num_outputs=3, task="multiclass")
        >>> before = model.count_params()
        >>> model.layers[-1].enable_lora(2)
        >>> model.count_params() - before
        22
        >>> bz.train.merge_lora(model).count_params() - before
        0
    """
    check_graph(model)
    plain = copy_model(model, plain=True)
    give_back(model, plain)
    return plain


def copy_model(model: keras.Model, *, plain: bool = False) -> keras.Model:
    """A model of the same layers with new weights.

    Args:
        model: A functional model or a Sequential.
        plain: Whether to leave out LoRA.
    """

    def copy(layer: Any) -> Any:
        config = layer.get_config()
        if plain:
            config.pop("lora_rank", None)
            config.pop("lora_alpha", None)
        return type(layer).from_config(config)

    return keras.models.clone_model(model, clone_function=copy, recursive=True)


def adapted_copy(
    model: keras.Model, units: Sequence[Unit], head: Sequence[Unit], rank: int, seed: int
) -> keras.Model:
    """A copy of `model` with LoRA on the layers in `units`, where only it and the head are trained.

    The model itself is left alone, so that it keeps its plain structure.

    Raises:
        ValueError: if none of the units can be adapted.
    """
    check_adaptable(units)
    made = copy_model(model)
    for variable, value in zip(made.variables, model.variables, strict=True):
        variable.assign(_copy(value))
    partner = {id(one): other for one, other in _twins(model, made)}
    factors: list[Any] = []
    for unit in units:
        for layer in inner_layers(partner[id(unit.layer)]):
            names = _names(layer)
            if names is not None:
                initializer = keras.initializers.HeUniform(seed=seed + len(factors))
                layer.enable_lora(rank, a_initializer=initializer)
                factors += [getattr(layer, name) for name in names[1:]]
    made.trainable = True
    kept = {id(factor) for factor in factors}
    above = [layer for unit in head for layer in inner_layers(partner[id(unit.layer)])]
    kept |= {id(weight) for layer in above for weight in layer.trainable_weights}
    for layer in inner_layers(made):
        is_above = any(layer is one for one in above)
        if isinstance(layer, keras.layers.BatchNormalization) and not is_above:
            layer.trainable = False  # the flag of its weights alone wouldn't keep it in inference
    for weight in made.trainable_weights:
        weight.trainable = id(weight) in kept
    return made


def check_adaptable(units: Sequence[Unit]) -> None:
    """An error if Keras can't adapt any of these layers, or has done so already."""
    found = [
        (unit, layer)
        for unit in units
        for layer in inner_layers(unit.layer)
        if _names(layer) is not None
    ]
    for unit, layer in found:
        if layer.lora_enabled:
            fix = "Merge it first: `model = bz.train.merge_lora(model)`."
            raise ValueError(
                f"The layer {unit.path!r} has LoRA already; expected plain ones. {fix}"
            )
    if not found:
        names = [unit.path for unit in units]
        expected = "layers of which at least one is Dense, EinsumDense, Embedding or attention"
        raise ValueError(message("unfreeze", names, expected, "Or leave out `lora`."))


def give_back(adapted: keras.Model, plain: keras.Model) -> None:
    """Write the weights of `adapted` to `plain`, which has the same layers without LoRA."""
    merged: dict[int, np.ndarray] = {}
    factors: set[int] = set()
    for layer in inner_layers(adapted):
        names = _names(layer)
        if names is None or not layer.lora_enabled:
            continue
        a, b = (getattr(layer, name) for name in names[1:])
        factors |= {id(a), id(b)}
        base = next(weight for weight in layer.weights if weight.name == names[0])
        update = np.matmul(_numpy(a), _numpy(b)) * (layer.lora_alpha / layer.lora_rank)
        merged[id(base)] = _numpy(base) + update
    left = [variable for variable in adapted.variables if id(variable) not in factors]
    for variable, source in zip(plain.variables, left, strict=True):
        value = merged.get(id(source))
        variable.assign(_copy(source) if value is None else value)


def _twins(one: keras.Model, other: keras.Model) -> list[tuple[Any, Any]]:
    """The layers of a model and of its copy, in pairs."""
    return list(zip(inner_layers(one), inner_layers(other), strict=True))


def _names(layer: Any) -> tuple[str, str, str] | None:
    """Names of the weight and its two factors; None where there is no `enable_lora`."""
    for kind, weight, a, b in _ADAPTABLE:
        if isinstance(layer, kind) and hasattr(layer, "enable_lora"):
            return weight, a, b
    return None


def _numpy(variable: Any) -> np.ndarray:
    return np.asarray(value_of(variable), dtype=np.float32)


def _copy(variable: Any) -> np.ndarray:
    # Assigned as it is, the array of JAX would belong to both variables, and a training step of one
    # gives its memory away.
    return np.array(value_of(variable))
