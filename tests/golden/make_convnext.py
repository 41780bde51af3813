"""Write convnext.npz: a tiny ConvNeXt of timm with random weights, and what it computes.

Run `python tests/golden/make_convnext.py`; it needs torch and timm, the tests don't.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

GOLDEN = Path(__file__).with_name("convnext.npz")
CLASSES = 7
MEAN, STD = [0.5, 0.4, 0.3], [0.2, 0.25, 0.3]
DEPTHS, WIDTHS = (1, 1, 2, 1), (8, 8, 16, 16)  # our "micro"


def image() -> np.ndarray:
    """Two images of odd and of even height and width, not multiples of 32."""
    return np.random.default_rng(0).integers(0, 256, (2, 45, 70, 3)).astype("uint8")


def scaled(x: np.ndarray, mean=MEAN, std=STD):
    import torch

    x = (x / 255 - mean) / std
    return torch.from_numpy(x.astype("float32")).permute(0, 3, 1, 2)


def build(channels: int = 3):
    from timm.models.convnext import ConvNeXt

    return ConvNeXt(num_classes=CLASSES, in_chans=channels, depths=DEPTHS, dims=WIDTHS).eval()


def randomize(model, seed: int) -> None:
    """All numbers at random, so that each must be in its place."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            noise = torch.randn(tensor.shape, generator=generator)
            if tensor.ndim > 1:
                tensor.copy_(noise * tensor[0].numel() ** -0.5)
            else:  # normalisations and scales of branches stay near 1
                near_one = name.endswith(("gamma", "weight"))
                tensor.copy_(near_one + 0.3 * noise)


def main() -> None:
    import torch
    from timm.models._manipulate import adapt_input_conv

    model = build()
    randomize(model, 0)
    state = model.state_dict()
    x = scaled(image())
    arrays = {"image": image()}
    with torch.no_grad():
        arrays["logits"] = model(x).numpy()
        features = model.forward_head(model.forward_features(x), pre_logits=True)
        arrays["features"] = features.numpy()
        grey = build(1)
        stem = adapt_input_conv(1, state["stem.0.weight"])
        grey.load_state_dict({**state, "stem.0.weight": stem})
        light = scaled(image()[..., :1], np.mean(MEAN), np.mean(STD))
        arrays["logits1"] = grey(light).numpy()
    config = {
        "architecture": "convnext_atto",
        "num_classes": CLASSES,
        "pretrained_cfg": {"mean": MEAN, "std": STD, "input_size": [3, 45, 70]},
    }
    arrays["config"] = np.array(json.dumps(config))
    for name, tensor in state.items():
        arrays[f"tensor/{name}"] = tensor.numpy()
    np.savez_compressed(GOLDEN, **arrays)
    print(f"Wrote {GOLDEN}: {GOLDEN.stat().st_size:,} bytes.")


if __name__ == "__main__":
    main()
