"""AdamW with a learning rate of its own for each weight: smaller ones near the input."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import keras

from bigzoo._errors import message


@keras.saving.register_keras_serializable("bigzoo")
class LayerwiseAdamW(keras.optimizers.Adam):
    r"""AdamW in which the rate of each weight is the schedule's rate times a factor.

    A weight \(w\) of factor \(f\) is first decayed by \(w \leftarrow w (1 - f \eta \lambda)\), then
    moved by a step of Adam with the rate \(f \eta\). With all factors 1 that is Keras' AdamW.
    Paper: Loshchilov and Hutter 2019, https://arxiv.org/abs/1711.05101.

    Args:
        learning_rate: Rate of weights with factor 1: a number above 0, or a schedule.
        factors: One number, at least 0, for each weight to train, in the order of
            `model.trainable_variables`; None for 1 everywhere. (Paths wouldn't do: two models that
            are layers of a third may have weights of the same path.)
        decay: The decay \(\lambda\), at least 0.
        no_decay: Patterns for `re.search` in the paths of weights that aren't decayed.
        name: Name of the optimizer.
    """

    def __init__(
        self,
        learning_rate: Any = 1e-3,
        factors: Sequence[float] | None = None,
        decay: float = 0.0,
        no_decay: Sequence[str] = (),
        name: str = "layerwise_adamw",
    ) -> None:
        super().__init__(learning_rate=learning_rate, name=name)
        self.factors = None if factors is None else [float(factor) for factor in factors]
        self.decay = float(decay)
        self.no_decay = list(no_decay)
        self.rates: list[tuple[float, bool]] = []

    def build(self, var_list: Sequence[Any]) -> None:
        """Create the moments; called by Keras with the weights to train."""
        factors = [1.0] * len(var_list) if self.factors is None else self.factors
        if len(factors) != len(var_list):
            fix = "Compile the model again after changing which layers are trainable."
            raise ValueError(message("factors", factors, f"{len(var_list)} numbers", fix))
        super().build(var_list)
        self.rates = [
            (factor, not any(re.search(pattern, variable.path) for pattern in self.no_decay))
            for factor, variable in zip(factors, var_list, strict=True)
        ]

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """One step of one weight."""
        # On TensorFlow `variable` is TensorFlow's own, without Keras' path; this is how the guide
        # to optimizers of one's own (`help(keras.optimizers.Optimizer)`) tells which one it is.
        factor, decays = self.rates[self._get_variable_index(variable)]
        rate = keras.ops.cast(learning_rate, variable.dtype)
        rate = rate * keras.ops.cast(factor, variable.dtype)
        if self.decay and decays:
            decay = keras.ops.cast(self.decay, variable.dtype)
            self.assign_sub(variable, variable * decay * rate)
        super().update_step(gradient, variable, rate)

    def get_config(self) -> dict[str, Any]:
        """The arguments, as `from_config` takes them."""
        config = super().get_config()
        return {
            "learning_rate": config["learning_rate"],
            "factors": self.factors,
            "decay": self.decay,
            "no_decay": self.no_decay,
            "name": config["name"],
        }
