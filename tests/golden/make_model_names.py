"""Write model_names.json: names, shapes and dtypes that saved models depend on.

Run `python tests/golden/make_model_names.py` after a change that is meant to change them; files
saved by earlier versions no longer load into such a model.
"""

from __future__ import annotations

import json
from pathlib import Path

from bigzoo.models._registry import REGISTRY

GOLDEN = Path(__file__).with_name("model_names.json")

# Forms with layers that the tiny configurations don't have.
FORMS = {
    "mlp/batch": ("mlp", {"hidden_dims": (8, 5), "normalization": "batch", "dropout": 0.1}),
    "transformer/encoder_decoder": (
        "transformer",
        {"variant": "tiny", "kind": "encoder_decoder", "vocab_size": 50},
    ),
    "bert/masked_lm": ("bert", {"variant": "micro", "head": "masked_lm"}),
    "bert/embedding": ("bert", {"variant": "micro", "head": "embedding"}),
    "rnn/series": ("rnn", {"variant": "tiny", "num_features": 2, "num_outputs": 1}),
    "mlp/layer": ("mlp", {"hidden_dims": (8, 5), "normalization": "layer"}),
}


def configurations() -> dict[str, tuple[str, dict]]:
    """Label -> (name of the model, arguments): every registered model.

    In every variant, or, where the tiny configuration is a variant of its own, in that one: the
    others differ from it in sizes alone.
    """
    found = {}
    for name, entry in REGISTRY.items():
        variants = () if "variant" in entry.tiny else entry.variants
        for variant in variants:
            found[f"{name}/{variant}"] = name, {**entry.tiny, "variant": variant}
        if not variants:
            found[name] = name, dict(entry.tiny)
    return found


def describe(name: str, arguments: dict) -> dict[str, list]:
    """Names of the layers; path, shape and dtype of the weights, in their order in the file."""
    model = REGISTRY[name].function()(**arguments)
    weights = [[w.path, list(w.shape), str(w.dtype)] for w in model.weights]
    return {"layers": [layer.name for layer in model.layers], "weights": weights}


def main() -> None:
    every = {**configurations(), **FORMS}
    found = {label: describe(*configuration) for label, configuration in every.items()}
    GOLDEN.write_text(_compact(found), encoding="utf-8")
    print(f"Wrote {GOLDEN}: {len(found)} models.")


def _compact(found: dict) -> str:
    """JSON with one weight per line: a change must be readable in a diff."""
    models = []
    for label, names in found.items():
        weights = ",\n   ".join(json.dumps(weight) for weight in names["weights"])
        layers = ",\n   ".join(json.dumps(layer) for layer in names["layers"])
        models.append(
            f' {json.dumps(label)}: {{\n  "layers": [\n   {layers}\n  ],\n'
            f'  "weights": [\n   {weights}\n  ]\n }}'
        )
    return "{\n" + ",\n".join(models) + "\n}\n"


if __name__ == "__main__":
    main()
