"""Files into one uint8 array, decoded once, in threads, by Keras' own loader."""

from __future__ import annotations

import hashlib
import io
import os
import tempfile
import threading
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import keras
import numpy as np

if TYPE_CHECKING:
    from PIL import Image

CHANNELS = {"grayscale": 1, "rgb": 3, "rgba": 4}

# Pillow guesses the format from the content. Only these are tried: others bring old decoders, or
# start other programs (PostScript).
_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "WEBP")
_ORIENTATION = 0x0112  # the EXIF tag that says how the camera was held
_MEMORY_SHARE = 0.5


@dataclass
class Decoded:
    """Row i of `pixels` is file i, if `errors[i]` is None."""

    pixels: np.ndarray
    digests: list[bytes]
    hashes: np.ndarray
    errors: list[str | None]


def decode_files(
    paths: Sequence[Path],
    image_size: tuple[int, int],
    color_mode: str,
    crop: bool,
    cache: str,
    on_progress: Callable[[int], None] | None = None,
) -> Decoded:
    """Read all files; one that can't be read gives an error text, not an exception."""
    shape = (len(paths), *image_size, CHANNELS[color_mode])
    result = Decoded(
        new_cache(shape, cache), [b""] * len(paths), np.zeros(len(paths), np.uint64),
        [None] * len(paths),
    )  # fmt: skip
    stop = threading.Event()
    workers = min(16, max(1, _cores()), len(paths))

    def work(first: int) -> None:
        for i in range(first, len(paths), workers):
            if stop.is_set():
                return
            try:
                data = paths[i].read_bytes()
                result.digests[i] = hashlib.sha256(data).digest()
                result.pixels[i], result.hashes[i] = _decode(data, image_size, color_mode, crop)
            except Exception as error:  # a decoder meets anything in a broken file
                result.errors[i] = _reason(error)

    from PIL import Image

    Image.init()  # loads Pillow's decoders, once and not in several threads at a time
    with warnings.catch_warnings():
        # Phones take photos above the size at which Pillow warns; it refuses those of twice that.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
        with ThreadPoolExecutor(workers, thread_name_prefix="bigzoo-decode") as pool:
            try:
                _wait(pool, work, workers, result, on_progress)
            finally:
                stop.set()  # Ctrl-C must not wait for the rest of the files
    return result


def new_cache(shape: tuple[int, ...], cache: str) -> np.ndarray:
    """An uninitialised uint8 array in memory, or in a temporary file that goes with the process."""
    need = int(np.prod(shape, dtype=np.int64))
    free = free_memory()
    if cache == "auto":
        cache = "disk" if free is not None and need > _MEMORY_SHARE * free else "memory"
    if cache == "memory":
        try:
            return np.empty(shape, np.uint8)
        except MemoryError as error:
            raise ValueError(_too_large(need, "memory")) from error
    return _on_disk(shape, need)


def free_memory() -> int | None:
    """Bytes that a new array may take: what the system and a container's limit leave; None where
    neither can be asked."""
    found = []
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                found.append(int(line.split()[1]) * 1024)
        group = Path("/sys/fs/cgroup")
        limit = (group / "memory.max").read_text(encoding="ascii").strip()
        if limit != "max":
            used = int((group / "memory.current").read_text(encoding="ascii"))
            found.append(int(limit) - used)
    except (OSError, ValueError):
        pass  # not Linux, or no such limit
    return max(0, min(found)) if found else None


def difference_hash(image: Image.Image) -> int:
    """64 bits: whether the picture gets brighter from left to right, in each field of 8 x 8.

    Scaling, recompression and small changes of light leave most bits as they are.
    """
    from PIL import Image

    # A box filter over the whole field makes the bits stable; "L" weighs colours as eyes do.
    small = image.convert("L").resize((9, 8), Image.Resampling.BOX)
    pixels = np.asarray(small, np.int16)
    bits = np.packbits(pixels[:, 1:] > pixels[:, :-1])
    return int.from_bytes(bits.tobytes(), "big")


def _decode(
    data: bytes, image_size: tuple[int, int], color_mode: str, crop: bool
) -> tuple[np.ndarray, int]:
    image = keras.utils.load_img(
        _upright(data),
        color_mode=color_mode,
        target_size=image_size,
        interpolation="bilinear",
        keep_aspect_ratio=crop,
    )
    pixels = np.asarray(image)
    return (pixels if pixels.ndim == 3 else pixels[..., None]), difference_hash(image)


def _upright(data: bytes) -> io.BytesIO:
    """The file as Keras' loader gets it right.

    The loader doesn't turn photos as their EXIF tag says, and Pillow cuts 16-bit grey values off at
    255: such files go through an uncompressed copy in memory. All others are passed on as they are.
    """
    from PIL import Image, ImageOps

    Image.init()  # names of formats are known only after it
    with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
        turned = image.getexif().get(_ORIENTATION, 1) not in (0, 1)
        deep = image.mode == "I" or image.mode.startswith("I;16")
        if not turned and not deep:
            return io.BytesIO(data)
        image.load()
        if deep:
            grey = np.asarray(image).astype(np.int64)
            image = Image.fromarray(np.clip(grey >> 8, 0, 255).astype(np.uint8))
        else:
            ImageOps.exif_transpose(image, in_place=True)
            if image.mode == "CMYK":
                image = image.convert("RGB")  # PNG has no CMYK
        copy = io.BytesIO()
        image.save(copy, format="PNG", compress_level=0)
        copy.seek(0)
        return copy


def _reason(error: Exception) -> str:
    from PIL import Image, UnidentifiedImageError

    if isinstance(error, UnidentifiedImageError):
        return "no image inside (not JPEG, PNG, WebP, BMP or GIF)"
    if isinstance(error, Image.DecompressionBombError):
        return "unpacks to a gigantic picture (decompression bomb)"
    if isinstance(error, OSError) and error.strerror:
        return f"cannot be read: {error.strerror}"
    text = " ".join(str(error).split())[:100]
    return f"broken: {text or type(error).__name__}"


def _wait(
    pool: ThreadPoolExecutor,
    work: Callable[[int], None],
    workers: int,
    result: Decoded,
    on_progress: Callable[[int], None] | None,
) -> None:
    pending = {pool.submit(work, first) for first in range(workers)}
    while pending:
        done, pending = wait(pending, timeout=0.5, return_when=FIRST_EXCEPTION)
        for future in done:
            future.result()
        if on_progress is not None:
            read = sum(1 for digest in result.digests if digest)
            on_progress(read if pending else len(result.digests))


def _on_disk(shape: tuple[int, ...], need: int) -> np.ndarray:
    """A memory-mapped temporary file. On Linux and macOS it has no name, so that it goes with the
    last array that shows it, even after a kill; on Windows it is removed at exit."""
    try:
        with tempfile.TemporaryFile(prefix="bigzoo-images-") as file:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, need)  # a full disk is an error here and now
            else:
                file.truncate(need)
            return np.memmap(file, np.uint8, mode="r+", shape=shape)
    except OSError as error:
        where = f"the temporary folder {tempfile.gettempdir()!r}"
        raise ValueError(_too_large(need, where)) from error


def _too_large(need: int, where: str) -> str:
    return (
        f"The decoded images take {need / 2**30:.1f} GiB, more than there is room for in {where}. "
        "Use a smaller `image_size`, or set the environment variable TMPDIR to a larger disk and "
        'use cache="disk".'
    )


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
