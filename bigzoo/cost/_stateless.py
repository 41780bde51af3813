"""A model as a pure function of its variables' values, for tracers and compilers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras


def abstract(variables: Sequence[Any]) -> list[Any]:
    """JAX's shapes and dtypes in the place of values. Random seeds keep theirs."""
    import jax

    return [jax.ShapeDtypeStruct(v.value.shape, v.value.dtype) for v in variables]


def run(
    model: keras.Model, trainable: Sequence[Any], others: Sequence[Any], x: Any, training: bool
) -> tuple[Any, list[Any]]:
    """The model's outputs, and the new values of its variables that aren't trainable.

    `Model.stateless_call` does the same, but fails on a `call` without an argument `training`.
    """
    variables = [*model.trainable_variables, *model.non_trainable_variables]
    mapping = list(zip(variables, [*trainable, *others], strict=True))
    with keras.StatelessScope(state_mapping=mapping) as scope:
        outputs = model(x, training=training)
    states = [(v, scope.get_current_value(v)) for v in model.non_trainable_variables]
    given = dict(zip(map(id, model.non_trainable_variables), others, strict=True))
    return outputs, [given[id(v)] if value is None else value for v, value in states]
