"""Write gpt.npz: a tiny GPT-2 of transformers with random weights, and what it computes.

Run `python tests/golden/make_gpt.py`; it needs torch and transformers, the tests don't.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

GOLDEN = Path(__file__).with_name("gpt.npz")
CONFIG = {
    "vocab_size": 40,
    "n_embd": 12,
    "n_layer": 2,
    "n_head": 3,
    "n_positions": 48,
    "bos_token_id": 0,
    "eos_token_id": 0,
}
NEW_TOKENS = 40


def inputs() -> np.ndarray:
    return np.random.default_rng(0).integers(1, CONFIG["vocab_size"], (2, 7)).astype("int32")


def build(seed: int = 0):
    """A GPT-2 with all weights at random, so that each must be in its place."""
    import torch
    import transformers

    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(**CONFIG)).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            noise = torch.randn(weight.shape, generator=generator) * 0.25
            weight.copy_(noise + (weight == 1).all())  # normalisations stay near 1
    return model


def greedy(model, prompt: np.ndarray, new_tokens: int) -> np.ndarray:
    """The prompt and what the model says next, its end token counting as any other."""
    import torch

    ids = torch.tensor(prompt).long()
    found = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=new_tokens,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
    )
    return found.numpy().astype("int32")


def main() -> None:
    import torch
    from safetensors.numpy import load_file

    model, ids = build(), inputs()
    with torch.no_grad():
        logits = model(torch.tensor(ids).long()).logits.numpy()
    arrays = {"input": ids, "output": logits, "greedy": greedy(model, ids, NEW_TOKENS)}
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        arrays["config"] = np.array((Path(folder) / "config.json").read_text())
        for name, tensor in load_file(Path(folder) / "model.safetensors").items():
            arrays[f"tensor/{name}"] = tensor
    np.savez_compressed(GOLDEN, **arrays)
    print(f"Wrote {GOLDEN}: {GOLDEN.stat().st_size:,} bytes.")


if __name__ == "__main__":
    main()
