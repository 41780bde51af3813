"""Files with named tensors: their shapes at once, their numbers on demand."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bigzoo._errors import shorten
from bigzoo._optional import require


@dataclass(frozen=True)
class Reader:
    """Shape of each tensor by name, and a function that reads one."""

    shapes: Mapping[str, tuple[int, ...]]
    read: Callable[[str], np.ndarray]


def read_safetensors(file: Path, source: str) -> Reader:
    """A `.safetensors` file; it is mapped, so that only what is asked for is read."""
    module: Any = require("safetensors", purpose="Reading a .safetensors file")
    try:
        opened = module.safe_open(file, framework="numpy")
        shapes = {name: tuple(opened.get_slice(name).get_shape()) for name in opened.keys()}  # noqa: SIM118
    except Exception as error:  # SafetensorError, OSError and what Rust's panics become
        got = f"{file.stat().st_size:,} bytes; {shorten(error)}"
        fix = "It may be cut off (an interrupted download or copy): fetch it again."
        raise ValueError(f"{source!r} is damaged or no safetensors file ({got}). {fix}") from error
    return Reader(shapes, opened.get_tensor)


def read_torch(file: Path, source: str) -> Reader:
    """A file that `torch.save` wrote: a pickle, so read whole, without running its code."""
    from bigzoo.weights._torch_file import read_torch_file

    tensors = read_torch_file(file)
    return Reader({name: array.shape for name, array in tensors.items()}, tensors.__getitem__)
