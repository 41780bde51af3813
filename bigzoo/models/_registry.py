"""The table of all models. Registered means tested: tests/zoo runs over every entry.

Standard library only: the table can be read without importing Keras.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Entry:
    """One model.

    Attributes:
        name: Name of the function in `bigzoo.models`.
        target: "module:function".
        tasks: What it is for.
        parameters: Number of parameters at the defaults, by variant; the key of a model without
            variants is "".
        tiny: Arguments of a version that builds and trains in a second, for tests.
        paper: Reference, with its address.
        licence: Licence of the code; no weights are shipped with it.
    """

    name: str
    target: str
    tasks: tuple[str, ...]
    parameters: Mapping[str, int]
    tiny: Mapping[str, Any] = field(default_factory=dict)
    paper: str = ""
    licence: str = "Apache-2.0"

    @property
    def variants(self) -> tuple[str, ...]:
        """Names of the variants; empty for a model that has one form."""
        return tuple(variant for variant in self.parameters if variant)

    def function(self) -> Callable[..., Any]:
        """The function that builds the model; imports Keras."""
        module, _, function = self.target.partition(":")
        return getattr(importlib.import_module(module), function)


def index(entries: Iterable[Entry]) -> dict[str, Entry]:
    """Entries by name; a name that is there twice is an error."""
    table: dict[str, Entry] = {}
    for entry in entries:
        if entry.name in table:
            raise ValueError(f"The model {entry.name!r} is registered twice. Rename one of them.")
        table[entry.name] = entry
    return table


REGISTRY = index(
    (
        Entry(
            name="linear_regression",
            target="bigzoo.models.linear_regression:linear_regression",
            tasks=("regression",),
            parameters={"": 2},
            tiny={"num_features": 3, "num_outputs": 2},
            paper="Stigler 1981, https://doi.org/10.1214/aos/1176345451",
        ),
        Entry(
            name="logistic_regression",
            target="bigzoo.models.logistic_regression:logistic_regression",
            tasks=("classification",),
            parameters={"": 4},
            tiny={"num_features": 3, "num_classes": 4},
            paper="Cox 1958, https://doi.org/10.1111/j.2517-6161.1958.tb00292.x",
        ),
        Entry(
            name="mlp",
            target="bigzoo.models.mlp:mlp",
            tasks=("classification", "regression"),
            parameters={"": 650_951},
            tiny={"num_features": 6, "hidden_dims": (8, 5), "dropout": 0.1},
            paper="Rumelhart et al. 1986, https://doi.org/10.1038/323533a0",
        ),
        Entry(
            name="cnn",
            target="bigzoo.models.cnn:cnn",
            tasks=("image-classification",),
            parameters={"plain": 420_802, "modern": 1_430_050},
            tiny={"input_shape": (32, 32, 3), "num_classes": 3},
            paper="He et al. 2016, https://arxiv.org/abs/1512.03385",
        ),
    )
)
