"""Write attention.npz: attention weights of the tiny models in bert.npz and gpt.npz.

Run `python tests/golden/make_attention.py`; it needs torch and transformers, the tests don't.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parent
GOLDEN = FOLDER / "attention.npz"


def tensors(arrays, start: str) -> dict:
    import torch

    names = [name for name in arrays.files if name.startswith(start)]
    return {name.removeprefix(start): torch.tensor(arrays[name]) for name in names}


def bert() -> list[np.ndarray]:
    import torch
    import transformers

    arrays = np.load(FOLDER / "bert.npz")
    config = transformers.BertConfig(**json.loads(str(arrays["hidden_states/config"])))
    config._attn_implementation = "eager"  # the only one that gives its weights
    model = transformers.BertModel(config).eval()
    model.load_state_dict(tensors(arrays, "hidden_states/tensor/"))
    x = {
        name: torch.tensor(arrays[f"input/{name}"]).long() for name in ("token_ids", "segment_ids")
    }
    mask = torch.tensor(arrays["input/padding_mask"]).long()
    with torch.no_grad():
        found = model(x["token_ids"], mask, x["segment_ids"], output_attentions=True)
    return [one.numpy() for one in found.attentions]


def gpt() -> list[np.ndarray]:
    import torch
    import transformers

    arrays = np.load(FOLDER / "gpt.npz")
    config = transformers.GPT2Config(**json.loads(str(arrays["config"])))
    config._attn_implementation = "eager"
    model = transformers.GPT2LMHeadModel(config).eval()
    model.load_state_dict(tensors(arrays, "tensor/"), strict=False)
    model.tie_weights()
    with torch.no_grad():
        ids = torch.tensor(arrays["input"]).long()
        found = model(ids, output_attentions=True)
    return [one.numpy() for one in found.attentions]


def main() -> None:
    made = {f"bert/{i}": one for i, one in enumerate(bert())}
    made |= {f"gpt/{i}": one for i, one in enumerate(gpt())}
    np.savez_compressed(GOLDEN, **made)
    print(f"Wrote {GOLDEN}: {GOLDEN.stat().st_size:,} bytes.")


if __name__ == "__main__":
    main()
