"""One decoder for training and use: orientation, depth, transparency, damage."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from bigzoo._image_io import LargeImage, UnreadableImage, decode_image, read_image


@pytest.fixture
def photo():
    y, x = np.mgrid[0:24, 0:36]
    return np.stack([x * 7, y * 10, (x + y) * 4], axis=-1).astype(np.uint8)


def write(path, array, **options):
    Image.fromarray(array).save(path, **options)
    return path


def test_pixels_are_those_of_keras(tmp_path, photo):
    import keras

    file = write(tmp_path / "a.png", photo)
    for size in (None, (24, 36), (10, 17), (50, 40)):
        expected = np.asarray(
            keras.utils.load_img(file, target_size=size, interpolation="bilinear")
        )
        got = read_image(file, size)
        assert got.dtype == np.uint8
        np.testing.assert_array_equal(got, expected)


def test_size_is_height_then_width_and_channels_are_kept(tmp_path, photo):
    file = write(tmp_path / "a.jpg", photo)
    for channels in (1, 3, 4):
        assert read_image(file, (8, 12), channels).shape == (8, 12, channels)


def test_turned_as_the_exif_tag_says(tmp_path, photo):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright: turn by 90 degrees
    file = write(tmp_path / "a.png", photo, exif=exif)
    np.testing.assert_array_equal(read_image(file), np.rot90(photo, -1))


def test_sixteen_bits_become_eight(tmp_path):
    deep = np.arange(256, dtype=np.uint16).reshape(16, 16) * 257
    file = write(tmp_path / "a.png", deep)
    np.testing.assert_array_equal(read_image(file, channels=1)[..., 0], deep >> 8)
    assert read_image(file).shape == (16, 16, 3)


@pytest.mark.filterwarnings("error")
def test_palette_with_transparency_gives_no_warning(tmp_path, photo):
    image = Image.fromarray(photo).convert("P")
    image.save(tmp_path / "a.png", transparency=bytes(range(256)))
    assert read_image(tmp_path / "a.png").shape == (24, 36, 3)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".bmp", ".gif"])
def test_formats(tmp_path, photo, suffix):
    assert read_image(write(tmp_path / f"a{suffix}", photo)).shape == (24, 36, 3)


def test_same_pixels_as_a_data_set(tmp_path, photo):
    data = pytest.importorskip("bigzoo.data")
    exif = Image.Exif()
    exif[0x0112] = 8
    files = {}
    for kind in ("a", "b"):
        folder = tmp_path / kind
        folder.mkdir()
        for i in range(3):
            shade = photo // (i + 1 + 3 * (kind == "b"))
            write(folder / f"{i}.png", shade, exif=exif)
            files[shade.tobytes()] = folder / f"{i}.png"
    train, _ = data.images(tmp_path, image_size=(20, 20), val_fraction=0.0, augment=False)
    x, _ = train.arrays()
    stored = {picture.tobytes() for picture in np.asarray(x).astype(np.uint8)}
    assert stored == {read_image(file, (20, 20)).tobytes() for file in files.values()}


@pytest.mark.parametrize("crop", [False, True])
@pytest.mark.parametrize("shape", [(24, 36), (36, 24), (7, 40), (20, 20)])
@pytest.mark.parametrize("size", [(20, 20), (11, 17), (40, 13)])
def test_same_crop_as_a_data_set(tmp_path, crop, shape, size):
    data = pytest.importorskip("bigzoo.data")
    noise = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    files = []
    for kind in ("a", "b"):
        (tmp_path / kind).mkdir()
        files.append(write(tmp_path / kind / "0.png", noise if kind == "a" else 255 - noise))
    options = {"val_fraction": 0.0, "augment": False, "crop_to_aspect_ratio": crop}
    train, _ = data.images(tmp_path, image_size=size, **options)
    x, y = train.arrays()
    for label, file in enumerate(files):
        got = read_image(file, size, crop_to_aspect_ratio=crop)
        np.testing.assert_array_equal(got, np.asarray(x)[np.flatnonzero(y == label)[0]])


def test_the_crop_of_a_line_has_a_pixel(tmp_path):
    file = write(tmp_path / "a.png", np.full((1, 50, 3), 9, np.uint8))
    assert (read_image(file, (10, 3), crop_to_aspect_ratio=True) == 9).all()


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("empty.jpg", b"", "the file is empty"),
        ("text.png", b"hello, this is text" * 20, "no image inside"),
        ("postscript.png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "no image inside"),
        ("cut.png", None, "[Tt]runcated"),
    ],
)
def test_unreadable_files(tmp_path, photo, name, content, reason):
    file = tmp_path / name
    if content is None:
        whole = write(tmp_path / "whole.jpg", photo).read_bytes()
        content = whole[: len(whole) // 2]
    file.write_bytes(content)
    with pytest.raises(UnreadableImage, match=reason) as caught:
        read_image(file)
    assert name in str(caught.value)


def test_missing_file_folder_and_channels(tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no file"):
        read_image(tmp_path / "no.png")
    with pytest.raises(ValueError, match="it is a folder"):
        read_image(tmp_path)
    with pytest.raises(ValueError, match="`channels` is 2; expected 1, 3 or 4"):
        read_image(tmp_path / "no.png", channels=2)


def test_from_memory_the_same_as_from_a_file(tmp_path, photo):
    file = write(tmp_path / "a.png", photo)
    for options in ({}, {"size": (10, 17), "channels": 1}, {"crop_to_aspect_ratio": True}):
        expected = read_image(file, **options)
        got = decode_image(file.read_bytes(), **options, max_pixels=24 * 36)
        np.testing.assert_array_equal(got, expected)
    with pytest.raises(UnreadableImage, match="the file is empty"):
        decode_image(b"")
    with pytest.raises(ValueError, match="`channels` is 2"):
        decode_image(file.read_bytes(), channels=2)


def test_too_many_pixels_are_refused_before_they_are_decoded(tmp_path, photo):
    content = write(tmp_path / "a.png", photo).read_bytes()
    broken = content[:60]  # the header alone
    for data in (content, broken):
        with pytest.raises(LargeImage, match="it has 36 x 24 pixels; at most 863 are accepted"):
            decode_image(data, max_pixels=24 * 36 - 1)
    with pytest.raises(UnreadableImage, match=r"[Tt]runcated|broken"):
        decode_image(broken, max_pixels=24 * 36)
