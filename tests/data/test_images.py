import io
import os
import struct
import warnings
import zlib

import keras
import numpy as np
import pytest
from PIL import Image, ImageEnhance

from bigzoo._image_io import read_image
from bigzoo.data import PET_NAMES, Augment, Batches, drawn_pets, images
from bigzoo.data import _decode as decode
from bigzoo.data._image_report import ImageFolderWarning, near_duplicates

SIZE = (32, 32)


@pytest.fixture(scope="module")
def pets():
    return drawn_pets(40, image_size=(48, 48))


@pytest.fixture
def folder(tmp_path, pets):
    """20 cats and 20 dogs as PNG files, which keep every pixel."""
    for i, (image, label) in enumerate(zip(*pets, strict=True)):
        save(tmp_path / PET_NAMES[label] / f"{i:02}.png", image)
    return tmp_path


def save(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    picture.save(path, **options)


def read(folder, **settings):
    """Both parts, with any warning an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return images(folder, **{"image_size": SIZE, "augment": False, **settings})


def read_warned(folder, match, **settings):
    with pytest.warns(ImageFolderWarning, match=match) as caught:
        parts = images(folder, **{"image_size": SIZE, "augment": False, **settings})
    assert len(caught) == 1 and caught[0].filename == __file__
    return parts


# === What comes out ===


def test_batches_of_bytes_with_names(folder):
    train, val = read(folder)
    assert isinstance(train, Batches) and isinstance(val, Batches)
    assert train.class_names == val.class_names == ("cat", "dog")
    assert (train.num_samples, val.num_samples) == (32, 8)
    x, y = train[0]
    assert x.shape == (32, *SIZE, 3) and x.dtype == np.uint8 and y.dtype == np.int64
    assert train.shuffle and not val.shuffle
    assert train.report.ok and train.report is val.report
    assert np.bincount(val.y).tolist() == [4, 4]


def test_pixels_equal_keras_own_loader(folder):
    train, val = read(folder)
    expected = {
        np.asarray(keras.utils.load_img(path, target_size=SIZE, interpolation="bilinear")).tobytes()
        for path in folder.rglob("*.png")
    }
    found = {image.tobytes() for part in (train, val) for image in part.x}
    assert found == expected and len(expected) == 40


def test_each_row_has_its_own_label(folder, pets):
    shades = {"cat": 40, "dog": 200}
    for name, shade in shades.items():
        for i in range(30):
            dots = np.full((8, 8, 3), shade, "uint8")
            dots.reshape(-1)[i] = 90  # all different
            save(folder / "two" / name / f"{i}.png", dots)
    (folder / "two" / "dog" / "7.png").write_bytes(b"broken")
    with pytest.warns(ImageFolderWarning):
        train, val = images(folder / "two", image_size=(8, 8), augment=False)
    for part in (train, val):
        shade = np.median(part.x, axis=(1, 2, 3))
        np.testing.assert_array_equal(shade, np.where(part.y == 0, 40, 200))
    rows = {image.tobytes() for part in (train, val) for image in part.x}
    assert len(rows) == train.num_samples + val.num_samples == 59


def test_augments_the_training_part_only(folder):
    train, val = read(folder, augment=True)
    assert isinstance(train.augment, Augment) and val.augment is None
    stored = {image.tobytes() for image in train.x}
    assert not stored & {image.tobytes() for image in train[0][0]}
    np.testing.assert_array_equal(val[0][0], val.x[:32])
    own = Augment(flip=False)
    assert read(folder, augment=own)[0].augment == own


def test_decodes_once(folder, monkeypatch):
    calls = []
    load_img = keras.utils.load_img
    monkeypatch.setattr(
        keras.utils, "load_img", lambda *a, **k: calls.append(1) or load_img(*a, **k)
    )
    train, _ = read(folder)
    for epoch in range(3):
        for index in range(len(train)):
            train.batch(epoch, index)
    assert len(calls) == 40


def test_trains_in_plain_keras(folder):
    train, val = read(folder, augment=True)
    model = keras.Sequential(
        [
            keras.Input((*SIZE, 3)),
            keras.layers.Rescaling(1 / 255),
            keras.layers.AveragePooling2D(8),
            keras.layers.Flatten(),
            keras.layers.Dense(2, activation="softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy")
    history = model.fit(train, validation_data=val, epochs=2, shuffle=False, verbose=0)
    assert np.isfinite(history.history["val_loss"]).all()


@pytest.mark.parametrize(("mode", "channels"), [("rgb", 3), ("grayscale", 1), ("rgba", 4)])
def test_colour_modes(folder, mode, channels):
    train, _ = read(folder, color_mode=mode)
    assert train[0][0].shape == (32, *SIZE, channels)


def test_class_names_choose_and_order(folder, pets):
    save(folder / "fox" / "a.png", pets[0][0])
    train, _ = read(folder, class_names=["dog", "cat"])
    assert train.class_names == ("dog", "cat") and train.report.train == {"dog": 16, "cat": 16}


def test_crop_to_aspect_ratio(tmp_path):
    wide = np.zeros((20, 60, 3), "uint8")
    wide[:, 20:40] = 255
    for name in ("a", "b"):
        for i in range(2):
            wide[0, 0, 0] = 10 * i + len(name) + ord(name)
            save(tmp_path / name / f"{i}.png", wide)
    stretched, _ = images(tmp_path, image_size=(20, 20), augment=False, val_fraction=0)
    cropped, _ = images(
        tmp_path, image_size=(20, 20), augment=False, val_fraction=0, crop_to_aspect_ratio=True
    )
    assert cropped.x.mean() == 255
    assert 60 < stretched.x.mean() < 110


# === Split ===


def test_split_is_the_same_each_time_and_new_with_a_seed(folder):
    first, again, other = (read(folder, seed=seed)[1].x for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert {image.tobytes() for image in first} != {image.tobytes() for image in other}


def test_split_follows_names_not_the_order_on_disk(folder, tmp_path_factory):
    copy = tmp_path_factory.mktemp("copy")
    for path in sorted(folder.rglob("*.png"), reverse=True):
        target = copy / path.relative_to(folder)
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(path.read_bytes())
    for a, b in zip(read(folder), read(copy), strict=True):
        np.testing.assert_array_equal(a.x, b.x)


def test_parts_never_overlap_and_miss_nothing(folder):
    for seed in range(5):
        train, val = read(folder, seed=seed, val_fraction=0.3)
        parts = [{image.tobytes() for image in part.x} for part in (train, val)]
        assert not parts[0] & parts[1] and len(parts[0] | parts[1]) == 40


def test_identical_files_stay_on_one_side(folder):
    for name in ("00.png", "01.png", "02.png"):
        original = next(folder.rglob(name))
        for k in range(3):
            (original.parent / f"copy{k}_{name}").write_bytes(original.read_bytes())
    for seed in range(8):
        train, val = read(folder, seed=seed)
        parts = [{image.tobytes() for image in part.x} for part in (train, val)]
        assert not parts[0] & parts[1]
        assert len(train.report.duplicates) == 3
        assert all(len(group) == 4 for group in train.report.duplicates)
        assert train.report.ok and "3 groups of identical files" in str(train.report)


def test_identical_files_in_two_classes_are_wrong_labels(folder):
    cat = next((folder / "cat").iterdir())
    (folder / "dog" / "same.png").write_bytes(cat.read_bytes())
    train, _ = read_warned(folder, "different classes: wrong labels:\n.*cat/.* = dog/same.png")
    assert train.report.conflicts == ((f"cat/{cat.name}", "dog/same.png"),)


def test_near_duplicates_across_the_split_are_named(folder, tmp_path_factory, pets):
    for i, (image, label) in enumerate(zip(*pets, strict=True)):
        again = ImageEnhance.Brightness(Image.fromarray(image)).enhance(1.1).resize((96, 96))
        save(folder / PET_NAMES[label] / f"again{i:02}.jpg", again, quality=60)
    train, _ = read_warned(folder, r"pictures in both training and validation")
    pairs = train.report.near_duplicates
    right = [a[-6:-4] == b[-6:-4] for a, b in pairs]
    # Of 16 validation images about 13 have their other version in the training part.
    assert len(pairs) >= 8 and all(right)


def test_different_even_pictures_are_not_near_duplicates():
    grey = np.stack([np.full((8, 8, 3), shade, "uint8") for shade in (10, 60, 110, 80)])
    hashes = np.array([decode.difference_hash(Image.fromarray(g)) for g in grey], np.uint64)
    assert near_duplicates(grey, hashes, 3) == []
    assert near_duplicates(grey[[0, 1, 2, 1]], hashes[[0, 1, 2, 1]], 3) != []


def test_bit_counts_agree_without_numpy_2(monkeypatch):
    from bigzoo.data import _image_report

    words = np.random.default_rng(0).integers(0, 2**63, (3, 5)).astype(np.uint64)
    expected = [[int(word).bit_count() for word in row] for row in words]
    np.testing.assert_array_equal(_image_report._count_bits(words), expected)
    monkeypatch.delattr(np, "bitwise_count", raising=False)
    np.testing.assert_array_equal(_image_report._count_bits(words), expected)


@pytest.mark.parametrize(("fraction", "expected"), [(0.01, 1), (0.5, 10), (0.99, 19)])
def test_each_class_is_on_both_sides(folder, fraction, expected):
    _, val = read(folder, val_fraction=fraction)
    assert np.bincount(val.y).tolist() == [expected, expected]


def test_no_validation_part(folder):
    train, val = read(folder, val_fraction=0)
    assert val is None and train.num_samples == 40 and train.report.val == {}


def test_class_of_copies_only_is_reported(folder):
    cats = sorted((folder / "cat").iterdir())
    for path in cats[1:]:
        path.write_bytes(cats[0].read_bytes())
    train, _ = read_warned(folder, "classes without a validation image")
    assert train.report.missing_in_val == ("cat",) and train.report.val["cat"] == 0


# === Files of all kinds ===


def test_formats_and_modes(folder, pets):
    picture = Image.fromarray(pets[0][0])
    cat = folder / "cat"
    save(cat / "a.jpg", picture)
    save(cat / "b.WEBP", picture, format="WEBP")
    save(cat / "c.bmp", picture)
    save(cat / "d.jpeg", picture.convert("CMYK"))
    save(cat / "e.png", picture.convert("P", palette=Image.Palette.ADAPTIVE))
    save(cat / "f.png", picture.convert("L"))
    save(cat / "g.png", picture.convert("RGBA"))
    save(cat / "h.gif", picture)
    save(cat / "i.png", picture.convert("LA"))
    save(cat / "wrong_ending.jpg", picture, format="PNG")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ImageFolderWarning)
        train, _ = images(folder, image_size=(48, 48), augment=False)
    assert train.report.skipped == ()
    for path in cat.iterdir():
        # What a model sees in use must be what it saw in training.
        pixels, _ = decode._decode(path.read_bytes(), (20, 30), "rgb", False)
        np.testing.assert_array_equal(pixels, read_image(path, (20, 30)), err_msg=path.name)
    assert sum(train.report.train.values()) + sum(train.report.val.values()) == 50


def upright_and_turned(orientation):
    base = np.zeros((40, 60, 3), "uint8")
    base[:10] = (250, 0, 0)
    base[:, :10] = (0, 0, 250)
    picture = Image.fromarray(base)
    exif = Image.Exif()
    exif[0x0112] = orientation
    inverse = {
        3: Image.Transpose.ROTATE_180,
        6: Image.Transpose.ROTATE_90,
        8: Image.Transpose.ROTATE_270,
    }[orientation]
    return picture, picture.transpose(inverse), exif


@pytest.mark.parametrize("orientation", [3, 6, 8])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_exif_orientation(tmp_path, orientation, mode):
    upright, stored, exif = upright_and_turned(orientation)
    data = io.BytesIO()
    stored.convert(mode).save(data, "JPEG", exif=exif, quality=95, subsampling=0)
    found, _ = decode._decode(data.getvalue(), (40, 60), "rgb", False)
    (tmp_path / "a.jpg").write_bytes(data.getvalue())
    np.testing.assert_array_equal(found, read_image(tmp_path / "a.jpg", (40, 60)))
    expected = np.asarray(upright.convert(mode).convert("RGB"), int)
    assert np.abs(found.astype(int) - expected).mean() < 4


def test_sixteen_bit_grey_is_scaled_not_cut_off():
    ramp = np.linspace(0, 65535, 256).astype("uint16")[None].repeat(16, axis=0)
    data = io.BytesIO()
    Image.fromarray(ramp).save(data, "PNG")
    found, _ = decode._decode(data.getvalue(), (16, 256), "rgb", False)
    np.testing.assert_allclose(found[0, :, 0], np.arange(256), atol=1)


def truncated_jpeg(pets):
    data = io.BytesIO()
    Image.fromarray(pets[0][0]).resize((200, 200)).save(data, "JPEG")
    return data.getvalue()[: len(data.getvalue()) // 2]


def png_bomb(width=60_000, height=60_000):
    """A few bytes that claim to be a picture of 3.6 billion pixels."""

    def chunk(kind, body):
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0"))
        + chunk(b"IEND", b"")
    )


def test_broken_files_are_named_counted_and_left_out(folder, pets):
    cat = folder / "cat"
    (cat / "half.jpg").write_bytes(truncated_jpeg(pets))
    (cat / "zero.png").write_bytes(b"")
    (cat / "text.jpg").write_text("This is not an image.")
    (cat / "bomb.png").write_bytes(png_bomb())
    (cat / "script.jpg").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n")
    (cat / "photo.heic").write_bytes(b"x")
    (cat / "notes.txt").write_text("x")
    save(folder / "loose.png", pets[0][3])
    train, val = read_warned(folder, "8 files skipped:")
    reasons = dict(train.report.skipped)
    assert set(reasons) == {
        "cat/half.jpg",
        "cat/zero.png",
        "cat/text.jpg",
        "cat/bomb.png",
        "cat/script.jpg",
        "cat/photo.heic",
        "cat/notes.txt",
        "loose.png",
    }
    assert "truncated" in reasons["cat/half.jpg"]
    assert reasons["cat/zero.png"] == "empty file"
    assert "no image inside" in reasons["cat/text.jpg"]
    assert "bomb" in reasons["cat/bomb.png"]
    assert "no image inside" in reasons["cat/script.jpg"], "PostScript must not be run"
    assert ".heic is not supported; convert it" in reasons["cat/photo.heic"]
    assert "outside" in reasons["loose.png"]
    assert all(name in str(train.report) for name in reasons)
    assert train.num_samples + val.num_samples == 40
    for index in range(len(train)):
        train.batch(1, index)


def test_large_photos_are_read_without_a_warning(folder, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 48 * 48 - 1)  # Pillow warns up to twice that
    train, val = read(folder)
    assert train.num_samples + val.num_samples == 40


def test_hidden_and_system_files_are_passed_over(folder):
    for name in (".DS_Store", "cat/.hidden.jpg", "cat/Thumbs.db", "dog/.git/a.png"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"x")
    (folder / ".ipynb_checkpoints").mkdir()
    train, _ = read(folder)
    assert train.class_names == ("cat", "dog") and train.report.ok


def test_folders_in_class_folders_belong_to_the_class(folder, pets):
    fresh, _ = drawn_pets(2, image_size=(48, 48), seed=9)
    for i, image in enumerate(fresh):
        save(folder / "cat" / "more" / "deep" / f"{i}.png", image)
    train, _ = read(folder)
    assert train.report.train["cat"] + train.report.val["cat"] == 22


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
def test_a_pipe_does_not_hang(folder):
    os.mkfifo(folder / "cat" / "pipe.png")
    train, _ = read_warned(folder, "cat/pipe.png: not a regular file")
    assert len(train.report.skipped) == 1


@pytest.mark.skipif(os.name == "nt", reason="such names can't be on Windows")
def test_names_that_are_not_unicode_are_printed(folder):
    (folder / "cat" / os.fsdecode(b"\xff\xfe.png")).write_bytes(b"broken")
    train, _ = read_warned(folder, "1 files skipped")
    str(train.report).encode("utf-8")


def test_long_lists_are_cut_in_the_warning_but_not_in_the_report(folder):
    for i in range(30):
        (folder / "dog" / f"bad{i:02}.png").write_bytes(b"x")
    train, _ = read_warned(folder, r"30 files skipped:(.|\n)*… and 10 more")
    assert len(train.report.skipped) == 30


def test_report_prints_counts(folder):
    text = str(read(folder)[0].report)
    assert "cat: 16 for training, 4 for validation" in text


# === Cache ===


def test_disk_cache_equals_memory_and_leaves_no_file(folder, tmp_path_factory, monkeypatch):
    place = tmp_path_factory.mktemp("tmp")
    monkeypatch.setattr("tempfile.tempdir", str(place))
    in_memory, on_disk = (read(folder, cache=cache)[0] for cache in ("memory", "disk"))
    assert isinstance(on_disk.x, np.memmap) and not isinstance(in_memory.x, np.memmap)
    np.testing.assert_array_equal(on_disk.x, in_memory.x)
    np.testing.assert_array_equal(on_disk[0][0], in_memory[0][0])
    if os.name != "nt":
        assert list(place.iterdir()) == []


@pytest.mark.parametrize(("free", "kind"), [(10**12, np.ndarray), (1000, np.memmap)])
def test_auto_cache_goes_by_free_memory(folder, monkeypatch, free, kind):
    monkeypatch.setattr(decode, "free_memory", lambda: free)
    assert type(read(folder)[0].x) is kind


def test_free_memory_is_plausible():
    free = decode.free_memory()
    assert free is None or 2**20 < free < 2**46


def test_no_room_on_disk_is_a_clear_error(folder, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(decode.os, "posix_fallocate", full, raising=False)
    with pytest.raises(ValueError, match=r"decoded images take 0.0 GiB.*smaller `image_size`"):
        read(folder, cache="disk")


# === Wrong input ===


def empty_class(folder):
    (folder / "fox").mkdir()


def class_of_text(folder):
    (folder / "fox").mkdir()
    (folder / "fox" / "a.txt").write_text("x")


def one_class(folder):
    (folder / "dog").rename(folder / ".dog")


def only_parts(folder):
    for name in ("train", "validation"):
        (folder / name).mkdir()
    (folder / "cat").rename(folder / "train" / "cat")
    (folder / "dog").rename(folder / "train" / "dog")


def no_classes(folder):
    for name in ("cat", "dog"):
        for path in (folder / name).iterdir():
            path.rename(folder / f"{name}{path.name}")
        (folder / name).rmdir()


def one_good_image(folder):
    for path in list((folder / "dog").iterdir())[1:]:
        path.write_bytes(b"x")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (empty_class, r"fox' has no image; expected files that end in .*class_names="),
        (class_of_text, r"fox' has no image \(1 other files are there\)"),
        (one_class, "one class folder, 'cat'; expected two or more"),
        (only_parts, r"parts 'train', 'validation' instead of class folders.*val_fraction=0"),
        (no_classes, "40 images and no class folder.*Make one folder per class"),
        (
            one_good_image,
            r"'dog' has 1 readable image \(19 can't be read, such as .*val_fraction=0",
        ),
    ],
)
def test_bad_folders(folder, change, match):
    change(folder)
    with pytest.raises(ValueError, match=match):
        read(folder)


@pytest.mark.parametrize(
    ("settings", "error", "match"),
    [
        ({"folder": "/no/such"}, FileNotFoundError, "`folder` is '/no/such'; .*nothing is there"),
        ({"folder": __file__}, ValueError, "this is a file"),
        ({"folder": 3}, TypeError, "`folder` is 3; expected the path"),
        ({"folder": ""}, TypeError, "`folder` is ''"),
        ({"image_size": 64}, TypeError, r"Write image_size=\(64, 64\)"),
        ({"image_size": (64, 64, 3)}, ValueError, r"expected \(height, width\)"),
        ({"image_size": (0, 64)}, ValueError, "`image_size` is 0"),
        ({"batch_size": 0}, ValueError, "`batch_size` is 0"),
        ({"val_fraction": 1}, ValueError, "`val_fraction` is 1; .*below 1.0"),
        ({"val_fraction": -0.1}, ValueError, "`val_fraction` is -0.1"),
        ({"val_fraction": "0.2"}, TypeError, "`val_fraction` is '0.2'"),
        ({"seed": -1}, ValueError, "`seed` is -1"),
        ({"augment": "yes"}, TypeError, "`augment` is 'yes'; expected True, False or an Augment"),
        ({"augment": Augment}, TypeError, r"Write Augment\(\) with brackets"),
        ({"augment": Augment(size=(8, 8))}, ValueError, r"with size=\(32, 32\)"),
        ({"class_names": ["cat", "dig"]}, ValueError, "Did you mean 'dog'"),
        ({"class_names": "cat"}, TypeError, "a list of names"),
        ({"class_names": ["cat"]}, ValueError, "two or more different names"),
        ({"class_names": ["cat", "cat"]}, ValueError, "two or more different names"),
        ({"color_mode": "RGB"}, ValueError, "Did you mean 'rgb'|Known: 'grayscale', 'rgb', 'rgba'"),
        ({"cache": "ram"}, ValueError, "Known: 'auto', 'disk', 'memory'"),
        ({"crop_to_aspect_ratio": 1}, TypeError, "expected True or False"),
    ],
)
def test_bad_arguments(folder, settings, error, match):
    with pytest.raises(error, match=match):
        images(**{"folder": folder, "image_size": SIZE, **settings})


def test_an_archive_is_to_be_unpacked(tmp_path):
    (tmp_path / "pets.zip").write_bytes(b"x")
    with pytest.raises(ValueError, match="Unpack it first"):
        images(tmp_path / "pets.zip")


# === Real photos ===


def test_real_photos_raise_no_alarm(cats_dogs):
    train, val = read(cats_dogs, image_size=(64, 64))
    assert train.class_names == ("cat", "dog")
    total = sum(1 for _ in cats_dogs.glob("*/*.jpg"))
    assert train.num_samples + val.num_samples == total
    assert 0.19 < val.num_samples / total < 0.21
    assert train.report.ok, str(train.report)
