"""Read one image file into pixels.

It belongs to no room, so that `data` and `deploy` may both import it: a picture must look the same
to a model in training and in use. `bigzoo.data._decode` gives the same pixels (a test compares
them); a change of resize, orientation or 16-bit scaling must be made in both, or better, here only.
"""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import numpy as np

from bigzoo._errors import message

# What counts as an image file in a folder; compare with the lower-case suffix.
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif")

_MODES = {1: "L", 3: "RGB", 4: "RGBA"}

# Pillow guesses the format from the content. Only these are tried: others bring old decoders, or
# start other programs (PostScript). "JPEG" includes the MPO files that some phones write; naming
# MPO itself makes Pillow raise a KeyError.
_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "WEBP")


class UnreadableImage(ValueError):
    """A file that isn't an image that can be decoded.

    Attributes:
        reason: Why, without the path that the message has.
    """

    def __init__(self, path: str | os.PathLike[str], reason: str) -> None:
        super().__init__(f"{os.fspath(path)!r} can't be read as an image: {reason}.")
        self.reason = reason


class LargeImage(UnreadableImage):
    """An image of too many pixels, which hasn't been decoded."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        size: tuple[int, int] | None,
        max_pixels: int | None,
    ) -> None:
        got = "it has too many pixels" if size is None else f"it has {size[0]} x {size[1]} pixels"
        limit = "" if max_pixels is None else f"; at most {max_pixels:,} are accepted"
        super().__init__(path, f"{got}{limit}")


def read_image(
    path: str | os.PathLike[str],
    size: tuple[int, int] | None = None,
    channels: int = 3,
    *,
    crop_to_aspect_ratio: bool = False,
) -> np.ndarray:
    """Decode one image file the way `keras.utils.load_img` does, turned as its EXIF says.

    Resizing to `size` is plain bilinear. Transparency is dropped, 16-bit greyscale is scaled to 8
    bits, and of an animation the first frame is read.

    Args:
        path: An image file of any format that Pillow reads.
        size: (height, width) in pixels; None keeps the size of the file.
        channels: 1 (greyscale), 3 (RGB) or 4 (RGBA).
        crop_to_aspect_ratio: False stretches the picture to `size`; True first cuts the sides off,
            so that nothing is distorted.

    Returns:
        The pixels, uint8 in 0–255, of shape (height, width, channels).

    Raises:
        FileNotFoundError: if there is no such file.
        UnreadableImage: (a ValueError) if it can't be decoded; the message gives the reason.
    """
    _check_channels(channels)
    file = Path(path)
    if not file.is_file():
        if file.is_dir():
            raise UnreadableImage(path, "it is a folder")
        raise FileNotFoundError(f"There is no file {str(path)!r}.")
    if file.stat().st_size == 0:
        raise UnreadableImage(path, "the file is empty")
    return _decode(file, path, size, channels, crop_to_aspect_ratio, None)


def decode_image(
    content: bytes,
    size: tuple[int, int] | None = None,
    channels: int = 3,
    *,
    crop_to_aspect_ratio: bool = False,
    max_pixels: int | None = None,
) -> np.ndarray:
    """The same pixels as `read_image` gives, of a file that is in memory.

    Args:
        content: The bytes of the file.
        size, channels, crop_to_aspect_ratio: As in `read_image`.
        max_pixels: Refuse larger pictures before any of them is decoded: a file of a few kB may
            unpack to gigabytes.

    Raises:
        LargeImage: (an UnreadableImage) if it has more than `max_pixels`.
        UnreadableImage: if it can't be decoded.
    """
    _check_channels(channels)
    if not content:
        raise UnreadableImage("image", "the file is empty")
    file = io.BytesIO(content)
    return _decode(file, "image", size, channels, crop_to_aspect_ratio, max_pixels)


def _check_channels(channels: int) -> None:
    if channels not in _MODES:
        raise ValueError(message("channels", channels, "1, 3 or 4"))


def _decode(
    source: Any,
    name: str | os.PathLike[str],
    size: tuple[int, int] | None,
    channels: int,
    crop_to_aspect_ratio: bool,
    max_pixels: int | None,
) -> np.ndarray:
    """The pixels of a path or a file object; `name` is for messages."""
    from PIL import Image, ImageOps

    try:
        with Image.open(source, formats=_FORMATS) as image:
            # Opening reads the header only.
            if max_pixels is not None and image.width * image.height > max_pixels:
                raise LargeImage(name, image.size, max_pixels)
            image.load()
            picture = _to_mode(ImageOps.exif_transpose(image), _MODES[channels])
            if size is not None and picture.size != (size[1], size[0]):
                box = _middle(picture.size, size) if crop_to_aspect_ratio else None
                picture = picture.resize((size[1], size[0]), Image.Resampling.BILINEAR, box)
            pixels = np.asarray(picture, dtype=np.uint8)
    except (MemoryError, LargeImage):
        raise
    except Image.DecompressionBombError as error:
        raise LargeImage(name, None, max_pixels) from error
    # Pillow's decoders raise OSError, SyntaxError, struct.error, EOFError … on damaged files.
    except Exception as error:
        raise UnreadableImage(name, _reason(error)) from error
    return pixels.reshape(pixels.shape[0], pixels.shape[1], channels)


def _middle(given: tuple[int, int], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """The largest box of the proportions of `size` in the middle, as Keras' loader cuts it."""
    width, height = given
    # At least one pixel: of a picture that is a line, Keras would take none and fail.
    box_width = max(1, min(width, height * size[1] // size[0]))
    box_height = max(1, min(height, width * size[0] // size[1]))
    left, top = (width - box_width) // 2, (height - box_height) // 2
    return left, top, left + box_width, top + box_height


def _to_mode(image: Any, mode: str) -> Any:
    from PIL import Image

    if image.mode.startswith("I;16") or image.mode == "I":
        # Pillow's own conversion clips 16-bit values at 255: nearly every pixel turns white.
        values = np.asarray(image).astype(np.int64)
        image = Image.fromarray(np.clip(values >> 8, 0, 255).astype(np.uint8))
    elif image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # the direct way to RGB warns
    return image if image.mode == mode else image.convert(mode)


def _reason(error: Exception) -> str:
    """The decoder's message in one line, without the path that our own message gives."""
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, OSError) and error.strerror:
        return f"cannot be read: {error.strerror}"
    if "cannot identify image file" in text:
        return "no image inside (not JPEG, PNG, WebP, BMP or GIF)"
    return text.rstrip(".")
