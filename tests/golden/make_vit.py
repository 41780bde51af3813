"""Write vit.npz: a tiny Vision Transformer of timm with random weights, and what it computes.

Run `python tests/golden/make_vit.py`; it needs torch and timm, the tests don't.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

GOLDEN = Path(__file__).with_name("vit.npz")
CLASSES, SIDE = 7, 32
MEAN, STD = [0.5, 0.4, 0.3], [0.2, 0.25, 0.3]
# The sizes of our "micro".
SIZES = {"patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2, "mlp_ratio": 2.0}
# Sizes of images: the checkpoint's own; more and fewer patches, of which none is a square.
GRIDS = {"same": (32, 32), "larger": (48, 40), "smaller": (16, 24), "turned": (16, 64)}


def image(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (2, height, width, 3)).astype("uint8")


def tensor(x: np.ndarray):
    import torch

    return torch.from_numpy(x.astype("float32")).permute(0, 3, 1, 2)


def build(size: tuple[int, int] = (SIDE, SIDE), channels: int = 3):
    from timm.models.vision_transformer import VisionTransformer

    return VisionTransformer(img_size=size, in_chans=channels, num_classes=CLASSES, **SIZES).eval()


def randomize(model, seed: int = 0) -> None:
    """All weights at random, biases and normalisations too, so that each must be in its place."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            noise = torch.randn(weight.shape, generator=generator) * 0.25
            weight.copy_(noise + (weight == 1).all())  # normalisations stay near 1


def main() -> None:
    import torch
    from timm.layers import resample_abs_pos_embed
    from timm.models._manipulate import adapt_input_conv

    model = build()
    randomize(model)
    state = model.state_dict()
    arrays: dict[str, np.ndarray] = {}
    with torch.no_grad():
        for grid, size in GRIDS.items():
            resized = build(size)
            old, new = model.patch_embed.grid_size, resized.patch_embed.grid_size
            table = resample_abs_pos_embed(state["pos_embed"], list(new), list(old))
            resized.load_state_dict({**state, "pos_embed": table})
            x = image(*size)
            arrays[f"{grid}/image"] = x
            arrays[f"{grid}/logits"] = resized(tensor((x / 255 - MEAN) / STD)).numpy()
        x = image(SIDE, SIDE)
        features = model.forward_head(
            model.forward_features(tensor((x / 255 - MEAN) / STD)), pre_logits=True
        )
        arrays["same/features"] = features.numpy()
        grey = build(channels=1)
        first = adapt_input_conv(1, state["patch_embed.proj.weight"])
        grey.load_state_dict({**state, "patch_embed.proj.weight": first})
        # The grey image has the average of mean and std, as our models take it.
        light = (x[..., :1] / 255 - np.mean(MEAN)) / np.mean(STD)
        arrays["same/grey_logits"] = grey(tensor(light)).numpy()
    config = {
        "architecture": "vit_tiny_patch16_224.augreg_in21k",
        "num_classes": CLASSES,
        "global_pool": "token",
        "pretrained_cfg": {"mean": MEAN, "std": STD, "input_size": [3, SIDE, SIDE]},
        "model_args": {"img_size": SIDE, **SIZES},
    }
    arrays["config"] = np.array(json.dumps(config))
    for name, value in state.items():
        arrays[f"tensor/{name}"] = value.numpy()
    np.savez_compressed(GOLDEN, **arrays)
    print(f"Wrote {GOLDEN}: {GOLDEN.stat().st_size:,} bytes.")


if __name__ == "__main__":
    main()
