"""Write efficientnet.npz: tiny EfficientNets of timm with random weights, and what they compute.

Run `python tests/golden/make_efficientnet.py`; it needs torch and timm, the tests don't.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path

import numpy as np

GOLDEN = Path(__file__).with_name("efficientnet.npz")
CLASSES = 7
MEAN, STD = [0.5, 0.4, 0.3], [0.2, 0.25, 0.3]
# The sizes of our "tiny": a plain block, then two that widen, the first with a stride.
BLOCKS = [["ds_r1_k3_s1_e1_c8_se0.25"], ["ir_r2_k5_s2_e2_c16_se0.25"]]
LITE_BLOCKS = [[text.replace("_se0.25", "") for text in stage] for stage in BLOCKS]
# Our name of the form -> (name of the architecture, padding, epsilon, blocks, activation).
FORMS = {
    "tf": ("tf_efficientnet_b0.in1k", "same", 1e-3, BLOCKS, "swish"),
    "torch": ("efficientnet_b0.ra_in1k", "", 1e-5, BLOCKS, "swish"),
    "tf_lite": ("tf_efficientnet_lite0", "same", 1e-3, LITE_BLOCKS, "relu6"),
}


def image() -> np.ndarray:
    """Two images of odd and of even height and width: padding differs between them."""
    return np.random.default_rng(0).integers(0, 256, (2, 45, 52, 3)).astype("uint8")


def scaled(x: np.ndarray):
    import torch

    x = (x / 255 - MEAN) / STD
    return torch.from_numpy(x.astype("float32")).permute(0, 3, 1, 2)


def build(form: str, channels: int = 3):
    import torch
    from timm.layers import get_act_layer
    from timm.models._efficientnet_builder import decode_arch_def, round_channels
    from timm.models.efficientnet import EfficientNet

    _, padding, epsilon, blocks, activation = FORMS[form]
    return EfficientNet(
        decode_arch_def(blocks),
        num_classes=CLASSES,
        num_features=32,
        in_chans=channels,
        stem_size=8,
        fix_stem=True,
        round_chs_fn=round_channels,
        pad_type=padding,
        act_layer=get_act_layer(activation),
        norm_layer=functools.partial(torch.nn.BatchNorm2d, eps=epsilon),
    ).eval()


def randomize(model, seed: int) -> None:
    """All numbers at random, statistics too, so that each must be in its place."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name.endswith("running_var"):
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
            elif tensor.is_floating_point():
                scale = 0.3 if tensor.ndim == 1 else 1 / np.sqrt(tensor[0].numel())
                noise = torch.randn(tensor.shape, generator=generator) * scale
                tensor.copy_(noise + (tensor == 1).all())  # normalisations stay near 1


def main() -> None:
    import torch
    from timm.models._manipulate import adapt_input_conv

    arrays = {"image": image()}
    for seed, (form, (architecture, *_)) in enumerate(FORMS.items()):
        model = build(form)
        randomize(model, seed)
        state = model.state_dict()
        grey = build(form, channels=1)
        stem = adapt_input_conv(1, state["conv_stem.weight"])
        grey.load_state_dict({**state, "conv_stem.weight": stem})
        x = scaled(image())
        with torch.no_grad():
            arrays[f"{form}/logits"] = model(x).numpy()
            arrays[f"{form}/features"] = model.forward_head(
                model.forward_features(x), pre_logits=True
            ).numpy()
            # The grey image has the average of mean and std, as our models take it.
            light = (image()[..., :1] / 255 - np.mean(MEAN)) / np.mean(STD)
            light = torch.from_numpy(light.astype("float32")).permute(0, 3, 1, 2)
            arrays[f"{form}/grey_logits"] = grey(light).numpy()
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
