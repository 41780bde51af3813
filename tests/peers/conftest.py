"""Tests against the reference libraries themselves, where they are installed.

They need PyTorch, timm and transformers; without them the tests are skipped, and the stored
results in tests/golden stand in.
"""

from __future__ import annotations

import importlib.util
from importlib.metadata import version


def _let_torchvision_be_imported() -> None:
    """timm imports torchvision, whose usual build doesn't go with a PyTorch for CPUs alone.

    Its import then stops at two operators of object detection, which nothing here uses: declare
    them.
    """
    if any(importlib.util.find_spec(name) is None for name in ("torch", "torchvision")):
        return
    if not version("torch").endswith("+cpu") or version("torchvision").endswith("+cpu"):
        return
    import torch

    for name in ("nms", "qnms"):
        torch.library.define(
            f"torchvision::{name}", "(Tensor dets, Tensor scores, float threshold) -> Tensor"
        )


_let_torchvision_be_imported()
