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
        parameters: Number of trainable parameters at the defaults (statistics of normalisations
            aren't counted, as in papers), by variant; the key of a model without
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
            parameters={"plain": 420_802, "modern": 1_427_586},
            tiny={"input_shape": (32, 32, 3), "num_classes": 3},
            paper="He et al. 2016, https://arxiv.org/abs/1512.03385",
        ),
        Entry(
            name="resnet",
            target="bigzoo.models.resnet:resnet",
            tasks=("image-classification",),
            parameters={
                "18": 11_689_512,
                "34": 21_797_672,
                "50": 25_557_032,
                "101": 44_549_160,
                "152": 60_192_808,
                "tiny": 82_480,
            },
            tiny={"variant": "tiny", "input_shape": (32, 32, 3), "num_classes": 3},
            paper="He et al. 2016, https://arxiv.org/abs/1512.03385",
        ),
        Entry(
            name="efficientnet",
            target="bigzoo.models.efficientnet:efficientnet",
            tasks=("image-classification",),
            parameters={
                "lite0": 4_652_008,
                "lite1": 5_416_680,
                "lite2": 6_092_072,
                "lite3": 8_197_096,
                "lite4": 13_006_568,
                "b0": 5_288_548,
                "b1": 7_794_184,
                "b2": 9_109_994,
                "b3": 12_233_232,
                "b4": 19_341_616,
                "b5": 30_389_784,
                "b6": 43_040_704,
                "b7": 66_347_960,
                "tiny": 37_256,
            },
            tiny={"variant": "tiny", "input_shape": (32, 32, 3), "num_classes": 3},
            paper="Tan and Le 2019, https://arxiv.org/abs/1905.11946",
        ),
        Entry(
            name="convnext",
            target="bigzoo.models.convnext:convnext",
            tasks=("image-classification",),
            parameters={
                "tiny": 28_589_128,
                "small": 50_223_688,
                "base": 88_591_464,
                "large": 197_767_336,
                "micro": 30_216,
            },
            tiny={"variant": "micro", "input_shape": (32, 32, 3), "num_classes": 3},
            paper="Liu et al. 2022, https://arxiv.org/abs/2201.03545",
        ),
        Entry(
            name="vit",
            target="bigzoo.models.vit:vit",
            tasks=("image-classification",),
            parameters={
                "tiny16": 5_717_416,
                "small16": 22_050_664,
                "small32": 22_878_952,
                "base16": 86_567_656,
                "base32": 88_224_232,
                "large16": 304_326_632,
                "large32": 306_535_400,
                "mini8": 1_049_448,
                "micro": 37_144,
            },
            tiny={"variant": "micro", "input_shape": (32, 32, 3), "num_classes": 3},
            paper="Dosovitskiy et al. 2021, https://arxiv.org/abs/2010.11929",
        ),
        Entry(
            name="pretrained",
            target="bigzoo.models.pretrained:pretrained",
            tasks=("image-classification",),
            parameters={},  # those of the network that is asked for
            # Few layers, and without normalisations: with frozen ones and random weights, the
            # outputs of a deep network don't depend on its inputs any more.
            tiny={
                "backbone": "VGG16",
                "input_shape": (32, 32, 3),
                "num_classes": 3,
                "weights": None,
            },
            paper="Yosinski et al. 2014, https://arxiv.org/abs/1411.1792",
        ),
        Entry(
            name="autoencoder",
            target="bigzoo.models.autoencoder:autoencoder",
            tasks=("image-reconstruction",),
            parameters={"dense": 944_176, "conv": 278_369},
            tiny={"input_shape": (9, 8, 2), "code_dim": 4, "widths": (12,)},
            paper="Hinton and Salakhutdinov 2006, https://doi.org/10.1126/science.1127647",
        ),
        Entry(
            name="rnn",
            target="bigzoo.models.rnn:rnn",
            tasks=("text-classification", "regression", "forecasting"),
            parameters={"lstm": 1_411_842, "gru": 1_379_330, "tiny": 1_134},
            tiny={
                "variant": "tiny",
                "vocab_size": 50,
                "num_classes": 3,
                "bidirectional": True,
                "dropout": 0.1,
            },
            paper="Hochreiter and Schmidhuber 1997, https://doi.org/10.1162/neco.1997.9.8.1735",
        ),
        Entry(
            name="transformer",
            target="bigzoo.models.transformer:transformer",
            tasks=("text-classification", "translation"),
            parameters={"base": 37_860_354, "big": 113_469_442, "tiny": 5_314},
            tiny={"variant": "tiny", "vocab_size": 50, "num_classes": 3},
            paper="Vaswani et al. 2017, https://arxiv.org/abs/1706.03762",
        ),
        Entry(
            name="bert",
            target="bigzoo.models.bert:bert",
            tasks=("text-classification", "token-classification", "masked-lm", "embedding"),
            parameters={
                "tiny": 4_386_178,
                "mini": 11_171_074,
                "small": 28_764_674,
                "medium": 41_374_210,
                "minilm": 22_713_986,
                "base": 109_483_778,
                "large": 335_143_938,
                "micro": 6_002,
            },
            # The sizes replace those of each variant: the tests run over all of them.
            tiny={
                "variant": "micro",
                "num_classes": 3,
                "num_layers": 2,
                "hidden_dim": 16,
                "num_heads": 2,
                "mlp_dim": 32,
                "vocab_size": 50,
                "max_length": 24,
            },
            paper="Devlin et al. 2019, https://arxiv.org/abs/1810.04805",
        ),
        Entry(
            name="gpt",
            target="bigzoo.models.gpt:gpt",
            tasks=("text-generation",),
            parameters={
                "small": 124_439_808,
                "medium": 354_823_168,
                "large": 774_030_080,
                "xl": 1_557_611_200,
                "micro": 7_776,
            },
            tiny={
                "variant": "micro",
                "num_layers": 2,
                "hidden_dim": 16,
                "num_heads": 2,
                "mlp_dim": 64,
                "vocab_size": 50,
                "max_length": 24,
            },
            paper="Radford et al. 2019, https://openai.com/index/better-language-models",
        ),
    )
)
