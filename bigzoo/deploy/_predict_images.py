"""Labels for image files."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from bigzoo._errors import check_bool, check_int, message
from bigzoo._image_io import IMAGE_SUFFIXES, UnreadableImage, read_image
from bigzoo.deploy._classifier import Classifier, open_classifier
from bigzoo.deploy._files import missing_file, to_path
from bigzoo.deploy._predictions import Prediction, Predictions
from bigzoo.deploy._scores import check_top, to_prediction


def predict_images(
    model: Any,
    paths: Any,
    class_names: Any = None,
    batch_size: int = 32,
    top: int = 1,
    *,
    image_size: tuple[int, int] | None = None,
    crop_to_aspect_ratio: bool = False,
) -> Predictions:
    """Classify image files.

    Files are decoded as `bz.data.images` does: turned as their EXIF says, resized (bilinear) to the
    model's input size, and given to the model as raw pixels in 0–255. A model that was trained with
    `bz.data.images(..., crop_to_aspect_ratio=True)` needs the same argument here. A model that ends
    in a softmax or sigmoid puts out probabilities; if its last layer has no activation, its outputs
    count as logits, and a softmax (a sigmoid for one unit) is applied. For one unit, class 1 is the
    label from a probability of 0.5 on.

    Args:
        model: A `keras.Model` that takes images (height, width, channels) of 1, 3 or 4 channels,
            or the path of a `.keras`, `.onnx` or `.tflite` file, or of a folder with a SavedModel
            or an OpenVINO model.
        paths: One file, a folder, or a list of files and folders. Of a folder, all files that end
            in .jpg, .jpeg, .png, .webp, .bmp or .gif are taken, those in subfolders too,
            hidden ones not.
        class_names: One name per class, two for a single sigmoid unit. None takes
            `model.class_names`, or those noted in the file, or "0", "1", ... where there are none.
        batch_size: Images per step, at least 1.
        top: How many of the most probable classes each row names, at least 1.
        image_size: (height, width) in pixels; None takes the model's own, or for a model of any
            size the one that `bz.fit` or `bz.load` has noted in `model.image_size`.
        crop_to_aspect_ratio: As in `bz.data.images`: False stretches each image to the size; True
            first cuts the sides off, so that nothing is distorted.

    Returns:
        `Predictions`: a sequence with one row per file (`path`, `label`, `probability`,
        `probabilities`, `error`), which prints as a table. A file that can't be read is a row with
        an `error`.

    Raises:
        FileNotFoundError: if `paths` is one file or folder that doesn't exist.
        ValueError: if the only file can't be read, a folder has no images, or the model is no
            image classifier.
        TypeError: if an argument is of the wrong type.

    Example:
        >>> import tempfile, pathlib
        >>> file = pathlib.Path(tempfile.mkdtemp()) / "grey.png"
        >>> keras.utils.save_img(file, np.full((8, 8, 3), 128.0), scale=False)
        >>> image = keras.Input((8, 8, 3))
        >>> x = keras.layers.GlobalMaxPooling2D()(image)
        >>> x = keras.layers.Dense(2, "softmax", kernel_initializer="zeros")(x)
        >>> rows = bz.predict_images(keras.Model(image, x), file, ["cat", "dog"])
        >>> rows[0].label, rows[0].probability
        ('cat', 0.5)
    """
    batch_size = check_int("batch_size", batch_size, 1)
    top = check_int("top", top, 1)
    crop = check_bool("crop_to_aspect_ratio", crop_to_aspect_ratio)
    classifier = open_classifier(model, class_names, image_size)
    check_top(top, len(classifier.class_names))
    files = _list_files(paths)
    rows: list[Prediction] = []
    for start in range(0, len(files), batch_size):
        chunk = files[start : start + batch_size]
        read = read_files(chunk, classifier.size, classifier.channels, crop)
        if len(files) == 1 and isinstance(read[0], Exception):
            raise read[0]
        rows += _rows(classifier, chunk, read, top)
    return Predictions(rows, classifier.note)


def _list_files(paths: Any) -> list[Path]:
    if isinstance(paths, (str, os.PathLike)):
        path = to_path("paths", paths)
        if not path.exists():
            raise missing_file(path)
        return _expand(path)
    expected = "a file, a folder, or a list of them"
    if isinstance(paths, (bytes, np.ndarray, dict)) or not isinstance(paths, Iterable):
        fix = "For images in memory, use `model.predict`." if hasattr(paths, "shape") else ""
        raise TypeError(message("paths", paths, expected, fix))
    files = [file for path in paths for file in _expand(to_path("paths", path))]
    if not files:
        raise ValueError(message("paths", paths, "at least one file"))
    return files


def _expand(path: Path) -> list[Path]:
    """The file itself, or the image files in a folder, in the order of their names."""
    if not path.is_dir():
        return [path]
    found = sorted(
        file
        for file in path.rglob("*")
        if file.suffix.lower() in IMAGE_SUFFIXES
        and not any(part.startswith(".") for part in file.relative_to(path).parts)
        and file.is_file()
    )
    if not found:
        kinds = ", ".join(IMAGE_SUFFIXES)
        raise ValueError(f"The folder {str(path)!r} has no image files; expected {kinds}.")
    return found


def read_files(
    files: Sequence[Path], size: tuple[int, int], channels: int, crop: bool
) -> list[np.ndarray | Exception]:
    """The pixels of each file, or what went wrong; decoded in threads."""

    def read(file: Path) -> np.ndarray | Exception:
        try:
            return read_image(file, size, channels, crop_to_aspect_ratio=crop)
        except (ValueError, OSError) as error:
            return error

    from PIL import Image

    workers = min(8, os.cpu_count() or 1, len(files))
    with warnings.catch_warnings(), ThreadPoolExecutor(workers) as pool:
        # Phones take photos above the size at which Pillow warns; it refuses those of twice that.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        return list(pool.map(read, files))


def _reason(error: Exception) -> str:
    if isinstance(error, UnreadableImage):
        return error.reason
    return "no such file" if isinstance(error, FileNotFoundError) else str(error)


def _rows(
    classifier: Classifier,
    files: Sequence[Path],
    read: Sequence[np.ndarray | Exception],
    top: int,
) -> list[Prediction]:
    names, kind = classifier.class_names, classifier.kind
    images = [item for item in read if isinstance(item, np.ndarray)]
    answers = iter(classifier.probabilities(np.stack(images)) if images else ())
    return [
        Prediction(str(file), error=_reason(item))
        if isinstance(item, Exception)
        else to_prediction(str(file), next(answers), names, kind, top)
        for file, item in zip(files, read, strict=True)
    ]
