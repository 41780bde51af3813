"""Write resnet.npz: tiny ResNets of timm with random weights, and what they compute.

Run `python tests/golden/make_resnet.py`; it needs torch and timm, the tests don't.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

GOLDEN = Path(__file__).with_name("resnet.npz")
CLASSES = 7
MEAN, STD = [0.5, 0.4, 0.3], [0.2, 0.25, 0.3]
# Kind of block -> (name of an architecture that has it, depths, widths, width of the stem).
FORMS = {
    "basic": ("resnet18.a1_in1k", (1, 2, 1, 1), (8, 8, 12, 16), 8),
    "bottleneck": ("resnet50.a1_in1k", (1, 2, 1, 1), (4, 4, 6, 8), 8),
}


def image() -> np.ndarray:
    """Two images of odd and of even height and width: padding differs between them."""
    return np.random.default_rng(0).integers(0, 256, (2, 45, 52, 3)).astype("uint8")


def scaled(x: np.ndarray, mean=MEAN, std=STD):
    import torch

    x = (x / 255 - mean) / std
    return torch.from_numpy(x.astype("float32")).permute(0, 3, 1, 2)


def build(form: str, channels: int = 3):
    from timm.models.resnet import BasicBlock, Bottleneck, ResNet

    block = {"basic": BasicBlock, "bottleneck": Bottleneck}[form]
    _, depths, widths, stem_width = FORMS[form]
    return ResNet(
        block,
        depths,
        num_classes=CLASSES,
        in_chans=channels,
        stem_width=stem_width,
        channels=widths,
    ).eval()


def randomize(model, seed: int) -> None:
    """All numbers at random, statistics too, so that each must be in its place."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name.endswith("running_var"):
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
            elif name.endswith("num_batches_tracked"):
                continue
            elif tensor.ndim == 1 and name.endswith("weight"):  # of a normalisation
                tensor.copy_(1 + 0.3 * torch.randn(tensor.shape, generator=generator))
            else:
                scale = 0.3 if tensor.ndim == 1 else tensor[0].numel() ** -0.5
                tensor.copy_(torch.randn(tensor.shape, generator=generator) * scale)


def main() -> None:
    import torch
    from timm.models._manipulate import adapt_input_conv

    arrays = {"image": image()}
    for seed, (form, (architecture, *_)) in enumerate(FORMS.items()):
        model = build(form)
        randomize(model, seed)
        state = model.state_dict()
        x = scaled(image())
        with torch.no_grad():
            arrays[f"{form}/logits"] = model(x).numpy()
            arrays[f"{form}/features"] = model.forward_features(x).mean((2, 3)).numpy()
            for channels in (1, 4):
                other = build(form, channels)
                stem = adapt_input_conv(channels, state["conv1.weight"])
                other.load_state_dict({**state, "conv1.weight": stem})
                pixels = np.concatenate([image(), image()], axis=-1)[..., :channels]
                light = scaled(pixels, np.mean(MEAN), np.mean(STD))
                arrays[f"{form}/logits{channels}"] = other(light).numpy()
        config = {
            "architecture": architecture,
            "num_classes": CLASSES,
            "pretrained_cfg": {"mean": MEAN, "std": STD, "input_size": [3, 45, 52]},
        }
        arrays[f"{form}/config"] = np.array(json.dumps(config))
        for name, tensor in state.items():
            arrays[f"{form}/tensor/{name}"] = tensor.numpy()
    np.savez_compressed(GOLDEN, **arrays)
    print(f"Wrote {GOLDEN}: {GOLDEN.stat().st_size:,} bytes.")


if __name__ == "__main__":
    main()
