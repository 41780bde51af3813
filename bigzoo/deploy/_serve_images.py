"""Uploaded pictures: decoded within limits, and the Grad-CAM map drawn over one of them."""

from __future__ import annotations

import io

import numpy as np

from bigzoo._image_io import LargeImage, UnreadableImage, decode_image
from bigzoo._optional import require
from bigzoo.deploy._serve_limits import Refused

# The longer side of the picture that Grad-CAM is drawn on.
_SHOWN = 640
_OPACITY = 0.6


def read_upload(
    content: bytes,
    size: tuple[int, int] | None,
    channels: int,
    crop_to_aspect_ratio: bool,
    max_pixels: int,
) -> np.ndarray:
    """Pixels (height, width, channels), uint8, as `predict_images` would read them from a file."""
    try:
        return decode_image(
            content,
            size,
            channels,
            crop_to_aspect_ratio=crop_to_aspect_ratio,
            max_pixels=max_pixels,
        )
    except LargeImage as error:
        raise Refused(413, f"the image is too large: {error.reason}") from None
    except UnreadableImage as error:
        raise Refused(422, f"the image can't be read: {error.reason}") from None
    except MemoryError:
        raise Refused(413, "the image is too large: there is no memory for it") from None


def shown_size(size: tuple[int, int], like: tuple[int, int] | None) -> tuple[int, int]:
    """(height, width) to show a picture of `size` in; with the proportions of `like`, if given."""
    height, width = size if like is None else like
    scale = _SHOWN / max(height, width)
    if like is None:
        scale = min(scale, 1.0)
    return max(1, round(height * scale)), max(1, round(width * scale))


def resized(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """uint8 (height, width, 3) in another size, for the eye."""
    from PIL import Image

    picture = Image.fromarray(pixels).resize((size[1], size[0]), Image.Resampling.BILINEAR)
    return np.asarray(picture)


def overlay(pixels: np.ndarray, heat: np.ndarray) -> bytes:
    """A PNG: the picture in grey, and over it the map in colours, from dark (nothing) to bright.

    Args:
        pixels: uint8 (height, width, 3).
        heat: Not negative, (rows, columns), of any scale.
    """
    from PIL import Image

    # The table of colours alone: pyplot and its figures aren't made for threads.
    colours = require("matplotlib", purpose="Grad-CAM").colormaps["inferno"]
    height, width = pixels.shape[:2]
    peak = float(heat.max())
    relative = (heat / peak if peak > 0 else heat).astype(np.float32)
    smooth = Image.fromarray(relative).resize((width, height), Image.Resampling.BICUBIC)
    colour = colours(np.clip(np.asarray(smooth), 0.0, 1.0), bytes=True)[..., :3]
    grey = pixels.mean(axis=-1, keepdims=True)
    mixed = _OPACITY * colour + (1 - _OPACITY) * grey
    file = io.BytesIO()
    Image.fromarray(mixed.round().astype(np.uint8)).save(file, "PNG")
    return file.getvalue()
