"""Folders of images, one sub-folder per class, as batches for training and validation."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from bigzoo._errors import check_bool, check_choice, check_int, check_number, message
from bigzoo.data._augment import Augment, check_size
from bigzoo.data._batches import Batches
from bigzoo.data._checks import Augmenter
from bigzoo.data._decode import CHANNELS, decode_files
from bigzoo.data._image_report import (
    ImageFolderWarning,
    ImageReport,
    identical_groups,
    near_duplicates,
)
from bigzoo.data._scan import Listing, display, list_images, side_of_split

__all__ = ["ImageBatches", "ImageFolderWarning", "ImageReport", "images"]

_BAR_FROM = 2000  # files from which on a progress bar is shown


class ImageBatches(Batches):
    """`Batches` of images, with a `report` of what was found in their folder."""

    report: ImageReport


def images(
    folder: str | os.PathLike[str],
    *,
    image_size: tuple[int, int] = (224, 224),
    batch_size: int = 32,
    val_fraction: float = 0.2,
    seed: int = 0,
    augment: bool | Augmenter = True,
    class_names: Sequence[str] | None = None,
    color_mode: str = "rgb",
    crop_to_aspect_ratio: bool = False,
    cache: str = "auto",
) -> tuple[ImageBatches, ImageBatches | None]:
    """Read a folder of images with one sub-folder per class, split for training and validation.

    All images are decoded once, here, by `keras.utils.load_img`, and kept as bytes of
    `image_size`. Files end in .jpg, .jpeg, .png, .webp, .bmp or .gif (its first frame), in the
    class folder or in folders within it; names that begin with a dot are passed over. Photos are
    turned upright as their EXIF tag says; palette, grey, CMYK and transparent images are converted
    to `color_mode`. Files that can't be read are skipped and named in one `ImageFolderWarning`.

    The split is stratified and depends on the file names and `seed` alone, so it is the same in
    every epoch and run. Identical files always go to the same side. Pictures that look the same on
    both sides are named in the warning. `train.report` has all that was found.

    Args:
        folder: Path of a folder with two or more class folders.
        image_size: (height, width) in pixels.
        batch_size: Images per batch, at least 1.
        val_fraction: Share of each class that is held out, in [0, 1). At 0, `val` is None.
        seed: At least 0; decides split, order and augmentation.
        augment: True for `bigzoo.data.Augment()`, False for none, or an `Augment` or function of
            your own, applied to the training part only.
        class_names: Class folders to read, in the order of their labels; all of them in
            alphabetical order by default. Other folders are left out.
        color_mode: "rgb", "grayscale" or "rgba": 3, 1 or 4 channels.
        crop_to_aspect_ratio: False stretches each image to `image_size`, as
            `keras.utils.image_dataset_from_directory` does; True first cuts the sides off, so that
            nothing is distorted.
        cache: "memory", "disk" (a temporary file that goes with the process) or "auto": on disk
            where the images would take more than half of the free memory.

    Returns:
        `(train, val)`: Batches of x, uint8 of shape (batch, height, width, channels), pixels
        0–255, and y, int64 of shape (batch,). The training part is shuffled.

    Raises:
        FileNotFoundError: if `folder` isn't there.
        ValueError: if it has no class folders, only one or an empty one, if no image of a class
            can be read, or an argument is out of its range.
        TypeError: if an argument has the wrong type.

    Example:
        >>> import pathlib, tempfile
        >>> root = pathlib.Path(tempfile.mkdtemp())
        >>> x, y = bz.data.drawn_pets(10, image_size=(32, 32))
        >>> for i, label in enumerate(y):
        ...     (root / bz.data.PET_NAMES[label]).mkdir(exist_ok=True)
        ...     keras.utils.save_img(root / bz.data.PET_NAMES[label] / f"{i}.png", x[i])
        >>> train, val = bz.data.images(root, image_size=(32, 32), batch_size=4)
        >>> train.class_names, train.num_samples, val.num_samples
        (('cat', 'dog'), 8, 2)
        >>> train[0][0].shape
        (4, 32, 32, 3)
    """
    size = check_size("image_size", image_size)
    check_int("batch_size", batch_size, 1)
    val_fraction = check_number("val_fraction", val_fraction, 0.0, below=1.0)
    seed = check_int("seed", seed, 0)
    augmenter = check_augment(augment, size)
    check_choice("color_mode", color_mode, CHANNELS)
    check_choice("cache", cache, ("auto", "memory", "disk"))
    crop = check_bool("crop_to_aspect_ratio", crop_to_aspect_ratio)

    listing = list_images(folder, class_names)
    _check_counts(listing.labels, listing.class_names, val_fraction)

    def split(names: Sequence[str], labels: np.ndarray, digests: Sequence[bytes]) -> np.ndarray:
        return side_of_split(names, labels, digests, val_fraction, seed)

    x, y, n_train, report = read_listing(
        listing, split, size=size, color_mode=color_mode, crop=crop, cache=cache,
        held_out=val_fraction > 0,
    )  # fmt: skip
    report.warn(stacklevel=2)
    return make_batches(x, y, n_train, report, batch_size, seed, augmenter, listing.class_names)


def read_listing(
    listing: Listing,
    split: Callable[[Sequence[str], np.ndarray, Sequence[bytes]], np.ndarray],
    *,
    size: tuple[int, int],
    color_mode: str,
    crop: bool,
    cache: str,
    held_out: bool,
) -> tuple[np.ndarray, np.ndarray, int, ImageReport]:
    """Decode, split and report: (x, y, number of training rows, report), training rows first."""
    paths = [listing.folder / name for name in listing.names]
    decoded = decode_files(paths, size, color_mode, crop, cache, _progress(len(paths)))
    good = np.array([i for i, error in enumerate(decoded.errors) if error is None], np.int64)
    failed = [
        (listing.names[i], error) for i, error in enumerate(decoded.errors) if error is not None
    ]
    _check_counts(listing.labels[good], listing.class_names, 0.5 if held_out else 0.0, dict(failed))
    names = [listing.names[i] for i in good]
    digests = [decoded.digests[i] for i in good]
    side = split(names, listing.labels[good], digests)
    order = np.concatenate([good[~side], good[side]])
    n_train = int((~side).sum())
    x = _gather(decoded.pixels, order)
    y = listing.labels[order]
    near = near_duplicates(x, decoded.hashes[order], n_train)
    report = _report(listing, failed, order, n_train, digests, names, near)
    return x, y, n_train, report


def make_batches(
    x: np.ndarray,
    y: np.ndarray,
    n_train: int,
    report: ImageReport,
    batch_size: int,
    seed: int,
    augment: Augmenter | None,
    class_names: Sequence[str],
) -> tuple[ImageBatches, ImageBatches | None]:
    """Both parts as views of one array."""
    train = ImageBatches(
        x[:n_train], y[:n_train], batch_size=batch_size, shuffle=True, seed=seed, augment=augment,
        class_names=class_names, name="train",
    )  # fmt: skip
    train.report = report
    if n_train == len(x):
        return train, None
    val = ImageBatches(
        x[n_train:], y[n_train:], batch_size=batch_size, seed=seed, class_names=class_names,
        name="val",
    )  # fmt: skip
    val.report = report
    return train, val


def check_augment(augment: Any, size: tuple[int, int]) -> Augmenter | None:
    """The function to apply to training images, or None."""
    if augment is True:
        return Augment()
    if augment is False or augment is None:
        return None
    if isinstance(augment, Augment) and isinstance(augment.size, tuple) and augment.size != size:
        fix = "Leave `size` out, or give a dict of sizes by epoch to a network of any size."
        raise ValueError(message("augment", augment, f"an Augment with size={size}", fix))
    if callable(augment) and not isinstance(augment, type):
        return augment
    fix = "Write Augment() with brackets." if isinstance(augment, type) else ""
    raise TypeError(message("augment", augment, "True, False or an Augment", fix))


def _check_counts(
    labels: np.ndarray,
    class_names: Sequence[str],
    val_fraction: float,
    failed: dict[str, str] | None = None,
) -> None:
    """Each class has an image, and two where one is to be held out."""
    least = 2 if val_fraction > 0 else 1
    counts = np.bincount(labels, minlength=len(class_names))
    for name, count in zip(class_names, counts, strict=True):
        if count < least:
            own = [(f, why) for f, why in (failed or {}).items() if f.startswith(f"{name}/")]
            broken = f" ({len(own)} can't be read, such as {own[0][0]}: {own[0][1]})" if own else ""
            fix = "Add images" + (", or set val_fraction=0." if least == 2 and count else ".")
            raise ValueError(
                f"The class {name!r} has {count} readable image{'' if count == 1 else 's'}"
                f"{display(broken)}; expected at least {least}. {fix}"
            )


def _progress(count: int) -> Callable[[int], None] | None:
    if count < _BAR_FROM:
        return None
    return keras.utils.Progbar(count, unit_name="image").update


def _gather(pixels: np.ndarray, order: np.ndarray) -> np.ndarray:
    """`pixels[order]` in place: a copy would take the memory of all images a second time.

    Follows each cycle of the permutation with one row in hand. Rows that no entry of `order`
    names (files that couldn't be read) end up behind the rest and are cut off.
    """
    unused = np.setdiff1d(np.arange(len(pixels)), order)
    source = np.concatenate([order, unused])
    done = source == np.arange(len(source))
    for start in range(len(source)):
        if done[start]:
            continue
        in_hand = pixels[start].copy()
        row = start
        while source[row] != start:
            pixels[row] = pixels[source[row]]
            done[row] = True
            row = int(source[row])
        pixels[row] = in_hand
        done[row] = True
    return pixels[: len(order)]


def _report(
    listing: Listing,
    failed: list[tuple[str, str]],
    order: np.ndarray,
    n_train: int,
    digests: Sequence[bytes],
    names: Sequence[str],
    near: list[tuple[int, int]],
) -> ImageReport:
    parts = [
        np.bincount(listing.labels[rows], minlength=len(listing.class_names)).tolist()
        for rows in (order[:n_train], order[n_train:])
    ]
    train, val = (dict(zip(listing.class_names, counts, strict=True)) for counts in parts)
    label_of = dict(zip(listing.names, listing.labels.tolist(), strict=True))
    groups = [tuple(names[i] for i in members) for members in identical_groups(digests)]
    mixed = [group for group in groups if len({label_of[name] for name in group}) > 1]
    has_val = n_train < len(order)
    return ImageReport(
        folder=display(str(listing.folder)),
        train=train,
        val=val if has_val else {},
        skipped=tuple(sorted([*listing.skipped, *failed])),
        duplicates=tuple(groups),
        conflicts=tuple(mixed),
        near_duplicates=tuple((listing.names[order[a]], listing.names[order[b]]) for a, b in near),
        missing_in_val=tuple(name for name, count in val.items() if has_val and count == 0),
    )
