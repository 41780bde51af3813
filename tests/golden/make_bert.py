"""Write bert.npz: tiny BERTs of transformers with random weights, and what they compute.

Run `python tests/golden/make_bert.py`; it needs torch and transformers, the tests don't.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

GOLDEN = Path(__file__).with_name("bert.npz")
CONFIG = {
    "vocab_size": 40,
    "hidden_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 20,
    "max_position_embeddings": 16,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-6,
}
LABELS = 3
# Our name of the form -> class in transformers. The output is compared as that class gives it.
FORMS = {
    "hidden_states": "BertModel",
    "classification": "BertForSequenceClassification",
    "token": "BertForTokenClassification",
    "masked_lm": "BertForMaskedLM",
}


def inputs() -> dict[str, np.ndarray]:
    """Two texts of different length, the first a pair."""
    rng = np.random.default_rng(0)
    token_ids = rng.integers(1, CONFIG["vocab_size"], (2, 9)).astype("int32")
    padding_mask = np.ones((2, 9), "int32")
    padding_mask[1, 6:] = 0
    segment_ids = np.zeros((2, 9), "int32")
    segment_ids[0, 5:] = 1
    return {
        "token_ids": token_ids * padding_mask,
        "padding_mask": padding_mask,
        "segment_ids": segment_ids,
    }


def randomize(model, seed: int, scale: float = 0.25) -> None:
    """All weights at random, biases and normalisations too, so that each must be in its place."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            noise = torch.randn(weight.shape, generator=generator) * scale
            weight.copy_(noise + (weight == 1).all())  # normalisations stay near 1


def reference(form: str, folder: Path) -> np.ndarray:
    """Save the model of `form` to `folder`, and give what it computes."""
    import torch
    import transformers

    config = transformers.BertConfig(**CONFIG, num_labels=LABELS)
    model = getattr(transformers, FORMS[form])(config).eval()
    randomize(model, seed=len(form))
    model.save_pretrained(folder)
    x = {name: torch.tensor(value).long() for name, value in inputs().items()}
    with torch.no_grad():
        found = model(x["token_ids"], x["padding_mask"], x["segment_ids"])
    return found[0].numpy()


def main() -> None:
    from safetensors.numpy import load_file

    arrays = {f"input/{name}": value for name, value in inputs().items()}
    for form in FORMS:
        with tempfile.TemporaryDirectory() as folder:
            arrays[f"{form}/output"] = reference(form, Path(folder))
            arrays[f"{form}/config"] = np.array((Path(folder) / "config.json").read_text())
            for name, tensor in load_file(Path(folder) / "model.safetensors").items():
                arrays[f"{form}/tensor/{name}"] = tensor
    np.savez_compressed(GOLDEN, **arrays)
    print(f"Wrote {GOLDEN}: {GOLDEN.stat().st_size:,} bytes.")


if __name__ == "__main__":
    main()
