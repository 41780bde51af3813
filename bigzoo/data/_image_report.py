"""What was found in a folder of images: counts, skipped files, copies."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from bigzoo.data._scan import display

# Chosen on photos: of 500,000 pairs of different ones none is nearer than 8 bits, while copies that
# were scaled, recompressed or brightened are nearly always within 5 (of 64).
MAX_BITS = 5
_MIN_CORRELATION = 0.9
_CANDIDATES = 20  # looked at for each validation image; drawings on white have many
_SHOWN = 20


class ImageFolderWarning(UserWarning):
    """Something in an image folder needs a look: unreadable files, or copies across the split."""


@dataclass(frozen=True)
class ImageReport:
    """What `bigzoo.data.images` found; `print(report)` tells it in words.

    File names are relative to `folder`. `train` and `val` count images per class. `skipped` has
    (name, reason) of each file left out. `duplicates` has groups of files with the same content,
    which are always on the same side of the split; `conflicts` are those of them whose copies are
    in different classes. `near_duplicates` has (training file, validation file) of pictures that
    look the same, such as a photo saved twice, and so flatter the validation score.
    """

    folder: str
    train: dict[str, int]
    val: dict[str, int]
    skipped: tuple[tuple[str, str], ...] = ()
    duplicates: tuple[tuple[str, ...], ...] = ()
    conflicts: tuple[tuple[str, ...], ...] = ()
    near_duplicates: tuple[tuple[str, str], ...] = ()
    missing_in_val: tuple[str, ...] = field(default=())

    @property
    def ok(self) -> bool:
        """True if there is nothing that needs a look."""
        return not (self.skipped or self.conflicts or self.near_duplicates or self.missing_in_val)

    def __str__(self) -> str:
        lines = [f"Images in '{self.folder}':"]
        for name, count in self.train.items():
            held_out = f", {self.val.get(name, 0)} for validation" if self.val else ""
            lines.append(f"  {name}: {count} for training{held_out}")
        lines += _section("files skipped", (f"{name}: {why}" for name, why in self.skipped))
        groups = (" = ".join(group) for group in self.duplicates)
        lines += _section("groups of identical files (each kept on one side)", groups)
        groups = (" = ".join(group) for group in self.conflicts)
        lines += _section("groups of identical files in different classes: wrong labels", groups)
        pairs = (f"{train} ~ {val}" for train, val in self.near_duplicates)
        lines += _section("pictures in both training and validation (nearly the same)", pairs)
        lines += _section(
            "classes without a validation image (all its files are identical)", self.missing_in_val
        )
        return "\n".join(lines)

    def warn(self, stacklevel: int) -> None:
        """One warning with all that needs a look; none if nothing does."""
        if not self.ok:
            hint = "The whole list is in `.report` of the data set returned."
            warnings.warn(f"{self}\n{hint}", ImageFolderWarning, stacklevel=stacklevel + 1)


def identical_groups(digests: Sequence[bytes]) -> list[list[int]]:
    """Positions of files with the same content, two or more each."""
    groups: dict[bytes, list[int]] = {}
    for i, digest in enumerate(digests):
        groups.setdefault(digest, []).append(i)
    return [members for members in groups.values() if len(members) > 1]


def near_duplicates(pixels: np.ndarray, hashes: np.ndarray, n_train: int) -> list[tuple[int, int]]:
    """(training row, validation row), for each validation image that a training image looks like.

    Rows from `n_train` on are the validation part. The hashes find candidates; a second look at
    reduced pictures drops those that only share large even areas, as drawings do.
    """
    train, val = hashes[:n_train], hashes[n_train:]
    step = max(1, 4_000_000 // max(1, len(train)))
    pairs: list[tuple[int, int]] = []
    for start in range(0, len(val) if len(train) else 0, step):
        distance = _count_bits(val[start : start + step, None] ^ train[None, :])
        for row in np.flatnonzero((distance <= MAX_BITS).any(axis=1)):
            b = n_train + start + int(row)
            near = np.flatnonzero(distance[row] <= MAX_BITS)
            nearest = near[np.argsort(distance[row, near], kind="stable")][:_CANDIDATES]
            alike = [int(a) for a in nearest if _look_alike(pixels[a], pixels[b])]
            pairs += [(a, b) for a in alike[:1]]
    return pairs


def _look_alike(a: np.ndarray, b: np.ndarray) -> bool:
    first, second = _thumbnail(a), _thumbnail(b)
    spread = float(np.sqrt((first - first.mean()).std() * (second - second.mean()).std()))
    if spread < 2:  # two even areas: only their shade can tell them apart
        return abs(float(first.mean() - second.mean())) < 4
    return float(np.corrcoef(first.ravel(), second.ravel())[0, 1]) >= _MIN_CORRELATION


def _thumbnail(image: np.ndarray) -> np.ndarray:
    """Grey means of 16 x 16 fields (fewer for tiny images), float64."""
    grey = image[..., : min(3, image.shape[-1])].mean(axis=-1)
    for axis in (0, 1):
        edges = np.linspace(0, grey.shape[axis], min(16, grey.shape[axis]) + 1).astype(int)
        widths = np.diff(edges).reshape((-1, 1) if axis == 0 else (1, -1))
        grey = np.add.reduceat(grey, edges[:-1], axis=axis) / widths
    return grey


def _count_bits(words: np.ndarray) -> np.ndarray:
    if hasattr(np, "bitwise_count"):  # numpy 2
        return np.bitwise_count(words)
    table = np.array([bin(byte).count("1") for byte in range(256)], np.uint8)
    return table[words.view(np.uint8).reshape(*words.shape, 8)].sum(axis=-1, dtype=np.uint8)


def _section(title: str, rows: Iterable[str]) -> list[str]:
    shown = [display(row) for row in rows]
    if not shown:
        return []
    more = [f"    … and {len(shown) - _SHOWN} more"] if len(shown) > _SHOWN else []
    return [f"  {len(shown)} {title}:", *(f"    {row}" for row in shown[:_SHOWN]), *more]
