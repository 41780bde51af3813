"""The filtered cats-and-dogs photos of TensorFlow's tutorials, downloaded once."""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import tempfile
import threading
import urllib.error
import urllib.parse
import urllib.request
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import keras
import numpy as np

from bigzoo._errors import check_bool, check_int, check_number, message
from bigzoo.data._augment import check_size
from bigzoo.data._checks import Augmenter
from bigzoo.data._images import ImageBatches, check_augment, make_batches, read_listing
from bigzoo.data._pets import PET_NAMES
from bigzoo.data._scan import Listing, list_images

URL = "https://storage.googleapis.com/mledu-datasets/cats_and_dogs_filtered.zip"

# From the Git LFS record of a public copy, whose size of 68,606,236 bytes is also the one in many
# published logs of downloads from URL.
SHA256 = "91af24e0be191e9380dafc8710d0933fa826ec8e51f26f85c1fddba4e8018e3f"

_TOP = "cats_and_dogs_filtered"
_FOLDERS = ("cats", "dogs")  # in the order of PET_NAMES
_COUNTS = {"train": 1000, "validation": 500}  # photos of each class

_WAYS_OUT = (
    "Without a network, use bigzoo.data.drawn_pets(), or bigzoo.data.images(folder) on photos of "
    "your own."
)


def cats_vs_dogs(
    *,
    image_size: tuple[int, int] = (224, 224),
    batch_size: int = 32,
    seed: int = 0,
    augment: bool | Augmenter = True,
    crop_to_aspect_ratio: bool = False,
    cache_dir: str | os.PathLike[str] | None = None,
    origin: str = URL,
    file_hash: str | None = SHA256,
    timeout: float = 5.0,
) -> tuple[ImageBatches, ImageBatches]:
    """3,000 photos of cats and dogs, downloaded at the first call (65 MiB) and kept.

    The archive that TensorFlow's tutorials use, with its own division: 1,000 training and 500
    validation photos of each. `keras.utils.get_file` fetches it with a progress bar and checks its
    SHA-256, which comes from a public copy of the archive (the publisher gives none); the number
    of photos is checked too, at every call. It is unpacked beside its final place, so that a
    download that breaks off leaves nothing behind.

    Args:
        image_size: (height, width) in pixels.
        batch_size: Images per batch, at least 1.
        seed: At least 0; decides order and augmentation.
        augment: As in `bigzoo.data.images`; the training part only.
        crop_to_aspect_ratio: As in `bigzoo.data.images`.
        cache_dir: Folder to keep the photos in (in its sub-folder "datasets"); Keras' own,
            `~/.keras`, by default.
        origin: Address of the archive (http, https or file), for a copy nearer to you.
        file_hash: SHA-256 of the archive, 64 hexadecimal digits; None leaves the check out.
        timeout: Seconds, above 0, to wait for the server's first answer. A transfer that stands
            still for 6 times as long is given up too.

    Returns:
        `(train, val)`: as from `bigzoo.data.images`, with labels 0 for cats and 1 for dogs.

    Raises:
        ConnectionError: if the archive can't be fetched, with what to do instead.
        ValueError: if what came isn't the archive, or an argument is out of its range.
        TypeError: if an argument has the wrong type.

    Example:
        >>> train, val = bz.data.cats_vs_dogs(image_size=(128, 128))  # doctest: +SKIP
    """
    size = check_size("image_size", image_size)
    check_int("batch_size", batch_size, 1)
    seed = check_int("seed", seed, 0)
    augmenter = check_augment(augment, size)
    crop = check_bool("crop_to_aspect_ratio", crop_to_aspect_ratio)
    timeout = check_number("timeout", timeout, above=0.0)
    _check_origin(origin)
    _check_hash(file_hash)
    folder = _fetch(_cache_folder(cache_dir), origin, file_hash, timeout)
    listing = _both_parts(folder)

    def own_split(names: Sequence[str], labels: np.ndarray, digests: Sequence[bytes]) -> np.ndarray:
        return np.array([name.startswith("validation/") for name in names])

    x, y, n_train, report = read_listing(
        listing, own_split, size=size, color_mode="rgb", crop=crop, cache="auto", held_out=True
    )
    report.warn(stacklevel=2)
    train, val = make_batches(x, y, n_train, report, batch_size, seed, augmenter, PET_NAMES)
    if val is None:
        raise ValueError(f"The archive from {origin} has no readable validation photo. {_WAYS_OUT}")
    return train, val


def _both_parts(folder: Path) -> Listing:
    parts = {part: list_images(folder / part, _FOLDERS) for part in _COUNTS}
    names = [f"{part}/{name}" for part, listing in parts.items() for name in listing.names]
    skipped = [
        (f"{part}/{name}", why) for part, listing in parts.items() for name, why in listing.skipped
    ]
    labels = np.concatenate([listing.labels for listing in parts.values()])
    return Listing(folder, PET_NAMES, tuple(names), labels, tuple(skipped))


# === Fetching ===


def _fetch(cache: Path, origin: str, file_hash: str | None, timeout: float) -> Path:
    """The folder of photos, complete: it appears at its place in one step or not at all."""
    suffix = "" if origin == URL else "_" + hashlib.sha256(origin.encode()).hexdigest()[:8]
    final = cache / f"bigzoo_cats_vs_dogs{suffix}"
    if final.is_dir() and not _what_is_missing(final, origin):
        return final
    _probe(origin, timeout)
    created = [place for place in (cache, cache.parent) if not place.exists()]
    try:
        cache.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=".cats_vs_dogs-", dir=cache))
    except OSError as error:
        fix = f"It can't be written to ({error.strerror}); choose another folder."
        expected = "a folder to keep photos in"
        raise ValueError(message("cache_dir", str(cache.parent), expected, fix)) from error
    try:
        top = _download(staging, origin, file_hash, timeout)
        missing = _what_is_missing(top, origin)
        if missing:
            raise ValueError(
                f"The archive from {origin} has {missing}. It may have changed or be another one: "
                f"check the address. {_WAYS_OUT}"
            )
        _put_in_place(top, final, staging, origin)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        for place in created:
            with suppress(OSError):  # not empty: the photos are in it
                place.rmdir()
    return final


def _put_in_place(top: Path, final: Path, staging: Path, origin: str) -> None:
    if final.exists():
        final.replace(staging / "damaged")  # photos were removed by hand, or the like
    try:
        top.replace(final)
    except OSError:
        # Another process may have finished the same download meanwhile: then all is well.
        if not final.is_dir() or _what_is_missing(final, origin):
            raise


def _download(staging: Path, origin: str, file_hash: str | None, timeout: float) -> Path:
    try:
        with _socket_timeout(6 * timeout), warnings.catch_warnings():
            # Said below in other words, when the photos aren't there.
            warnings.filterwarnings("ignore", message="Could not extract archive")
            unpacked = keras.utils.get_file(
                fname="archive.zip",
                origin=origin,
                file_hash=file_hash,
                hash_algorithm="sha256",
                cache_dir=str(staging),
                cache_subdir="download",
                extract=True,
                archive_format="zip",
            )
    except ValueError as error:  # Keras' own check of the hash
        raise ValueError(
            f"What came from {origin} is not the expected archive: its SHA-256 is not {file_hash}. "
            f"Try again; if it stays so, the archive has changed, and file_hash=None leaves the "
            f"check out. {_WAYS_OUT}"
        ) from error
    except Exception as error:  # Keras raises a plain Exception for a failed download
        raise _unreachable(origin, error) from error
    return Path(unpacked) / _TOP


def _probe(origin: str, timeout: float) -> None:
    """Ask for the archive's first byte. In a thread, since looking up a name has no time limit."""
    outcome: list[BaseException | None] = []

    def ask() -> None:
        try:
            with urllib.request.urlopen(origin, timeout=timeout) as answer:
                answer.read(1)
            outcome.append(None)
        except Exception as error:  # whatever it is, it is told to the caller
            outcome.append(error)

    thread = threading.Thread(target=ask, daemon=True, name="bigzoo-probe")
    thread.start()
    thread.join(timeout)
    error = outcome[0] if outcome else TimeoutError(f"no answer within {timeout:g} s")
    if error is not None:
        raise _unreachable(origin, error) from error


def _unreachable(origin: str, error: BaseException) -> ConnectionError:
    reason = f"HTTP {error.code}" if isinstance(error, urllib.error.HTTPError) else str(error)
    return ConnectionError(
        f"The archive can't be fetched from {origin} ({' '.join(reason.split())[:200]}). "
        f"{_WAYS_OUT}"
    )


@contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    """Keras' download has no time limit: a server that falls silent would hold it for ever."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


# === Checks ===


def _what_is_missing(folder: Path, origin: str) -> str | None:
    """What the folder lacks, in words; None if it is complete."""
    for part, count in _COUNTS.items():
        for name in _FOLDERS:
            place = folder / part / name
            found = len(list(place.glob("*.jpg"))) if place.is_dir() else 0
            # Only of the original is it known how many there are.
            if found == 0 or (origin == URL and found != count):
                expected = f"; expected {count}" if origin == URL else ""
                return f"{found} photos in {_TOP}/{part}/{name}{expected}"
    return None


def _cache_folder(cache_dir: Any) -> Path:
    if cache_dir is None:
        home = os.environ.get("KERAS_HOME") or Path.home() / ".keras"
        return Path(home) / "datasets"
    if not isinstance(cache_dir, (str, os.PathLike)) or isinstance(cache_dir, bytes):
        raise TypeError(message("cache_dir", cache_dir, "the path of a folder, or None"))
    path = Path(cache_dir).expanduser()
    if path.exists() and not path.is_dir():
        raise ValueError(message("cache_dir", str(cache_dir), "a folder; this is a file"))
    return path / "datasets"


def _check_origin(origin: Any) -> None:
    expected = "an address that begins with http://, https:// or file://"
    if not isinstance(origin, str):
        raise TypeError(message("origin", origin, expected))
    if urllib.parse.urlsplit(origin).scheme not in ("http", "https", "file"):
        raise ValueError(message("origin", origin, expected))


def _check_hash(file_hash: Any) -> None:
    expected = "a SHA-256 of 64 hexadecimal digits, in small letters, or None"
    if file_hash is None:
        return
    if not isinstance(file_hash, str):
        raise TypeError(message("file_hash", file_hash, expected))
    if len(file_hash) != 64 or set(file_hash) - set("0123456789abcdef"):
        raise ValueError(message("file_hash", file_hash, expected))
