"""Write torch_zip.pth, torch_legacy.pth and torch_files.npz: the same tensors in three formats.

Run `python tests/golden/make_torch_files.py`; it needs torch, the tests don't.
"""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parent


def state():
    """One tensor of each kind that a state dict may hold."""
    import torch

    generator = torch.Generator().manual_seed(0)
    base = torch.randn(4, 6, generator=generator)
    found = OrderedDict(
        float32=base,
        parameter=torch.nn.Parameter(base * 2),
        transposed=base.T,  # shares the storage, in another order
        part=base[1:3, 2:5],
        scalar=torch.tensor(7),
        empty=torch.zeros(0, 3),
        int8=torch.arange(-3, 3, dtype=torch.int8),
        uint8=torch.arange(5, dtype=torch.uint8),
        int16=torch.arange(-3, 3, dtype=torch.int16),
        int32=torch.arange(4, dtype=torch.int32),
        bool=torch.tensor([True, False]),
        float64=torch.randn(3, generator=generator, dtype=torch.float64),
        float16=torch.randn(5, generator=generator).half(),
        bfloat16=torch.randn(5, generator=generator).bfloat16(),
    )
    found._metadata = OrderedDict(version=1)  # as modules leave it behind
    return found


def main() -> None:
    import torch

    tensors = state()
    torch.save(tensors, FOLDER / "torch_zip.pth")
    torch.save(tensors, FOLDER / "torch_legacy.pth", _use_new_zipfile_serialization=False)
    arrays = {}
    for name, tensor in tensors.items():
        tensor = tensor.float() if tensor.dtype == torch.bfloat16 else tensor
        arrays[name] = tensor.detach().numpy()
    np.savez(FOLDER / "torch_files.npz", **arrays)
    for name in ("torch_zip.pth", "torch_legacy.pth", "torch_files.npz"):
        print(f"Wrote {FOLDER / name}: {(FOLDER / name).stat().st_size:,} bytes.")


if __name__ == "__main__":
    main()
