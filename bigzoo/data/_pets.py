"""Drawn cats and dogs: pictures to train on when there is nothing to download."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bigzoo._errors import check_int
from bigzoo.data._augment import check_size

if TYPE_CHECKING:
    from bigzoo.data._pet_scene import Scene

PET_NAMES = ("cat", "dog")


def drawn_pets(
    n: int = 1000, *, image_size: tuple[int, int] = (64, 64), seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Pictures of cats and dogs, drawn on the spot: no files, no download.

    Cats have pointed ears, whiskers and slit pupils; dogs have hanging ears and a muzzle. Pose,
    size, colours, fur, background, lighting and what stands in front are random and have the same
    distribution in both classes, so that colour or brightness give nothing away: a linear model
    fails, a small convolutional network does well.

    Image `i` depends on `seed` and `i` alone: a larger `n` adds images and keeps the others. The
    classes are balanced: each pair of images (0 and 1, 2 and 3, ...) has one cat and one dog.

    Args:
        n: Number of images, at least 1.
        image_size: (height, width) in pixels, each at least 16.
        seed: At least 0. For test images take another seed, or split.

    Returns:
        `(x, y)`: `x` uint8 of shape (n, height, width, 3), pixels 0–255; `y` int64 of shape (n,),
        0 for a cat and 1 for a dog, as in `bigzoo.data.PET_NAMES`.

    Raises:
        ValueError: if an argument is out of its range.
        TypeError: if an argument has the wrong type.

    Example:
        >>> x, y = bz.data.drawn_pets(4, image_size=(32, 32))
        >>> x.shape, x.dtype.name, sorted(y.tolist())
        ((4, 32, 32, 3), 'uint8', [0, 0, 1, 1])
        >>> bz.data.PET_NAMES[y[0]] in ("cat", "dog")
        True
    """
    n = check_int("n", n, 1)
    height, width = check_size("image_size", image_size)
    for side in (height, width):
        check_int("image_size", side, 16, fix="An ear or an eye needs some pixels.")
    seed = check_int("seed", seed, 0)
    x = np.empty((n, height, width, 3), np.uint8)
    y = np.empty(n, np.int64)
    for i in range(n):
        y[i] = _label(seed, i)
        x[i] = _picture(int(y[i]), height, width, np.random.default_rng([seed, i]))
    return x, y


def _label(seed: int, i: int) -> int:
    """A random order within each pair, so that the classes are balanced whatever `n` is."""
    cat_first = np.random.default_rng([seed, i // 2, 1]).random() < 0.5
    return i % 2 if cat_first else 1 - i % 2


def _picture(label: int, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    from bigzoo.data._pet_face import draw_pet
    from bigzoo.data._pet_scene import Scene, Style

    # Everything but the species is chosen before the label is looked at: it can't give it away.
    style = Style.random(rng)
    scene: Scene = Scene(height, width, rng)
    scene.background()
    draw_pet(scene, label, style, rng)
    scene.foreground()
    return scene.finish()
