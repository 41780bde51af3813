import dataclasses

import numpy as np
import pytest

import bigzoo as bz
from bigzoo.data import Augment

OFF = Augment(
    crop_scale=(1, 1), crop_ratio=(1, 1), flip=False, brightness=0, contrast=0, saturation=0
)


def photo(n=6, height=40, width=56, channels=3, seed=0):
    """Smooth random pictures: noise would be changed by any resampling."""
    coarse = np.random.default_rng(seed).uniform(20, 235, (n, 5, 7, channels))
    fine = coarse.repeat(height // 5, axis=1).repeat(width // 7, axis=2)
    return fine.astype("uint8")


def rng(seed=0):
    return np.random.default_rng(seed)


def test_all_off_changes_nothing():
    x = photo()
    out, y = OFF(x, np.arange(6), rng())
    np.testing.assert_array_equal(out, x)
    np.testing.assert_array_equal(y, np.arange(6))
    assert out is not x


def test_depends_on_the_generator_alone_and_leaves_input_and_global_state():
    x, augment = photo(), Augment(rotate=20, erase=0.5)
    before, state = x.copy(), np.random.get_state()[1].copy()
    a, b, c = (augment(x, None, rng(seed))[0] for seed in (3, 3, 4))
    np.testing.assert_array_equal(a, b)
    assert (a != c).mean() > 0.5
    np.testing.assert_array_equal(x, before)
    np.testing.assert_array_equal(np.random.get_state()[1], state)


def test_images_of_a_batch_change_differently():
    out = Augment()(photo(n=1).repeat(4, axis=0), None, rng())[0]
    assert len({image.tobytes() for image in out}) == 4


def test_an_option_leaves_the_choices_of_others_alone():
    x = photo()
    plain = Augment(flip=False)(x, None, rng())[0]
    flipped = Augment(flip=True)(x, None, rng())[0]
    for a, b in zip(plain, flipped, strict=True):
        assert np.array_equal(a, b) or np.array_equal(a[:, ::-1], b)


def test_flip_mirrors_about_half():
    x = photo(n=1).repeat(400, axis=0)
    out = dataclasses.replace(OFF, flip=True)(x, None, rng())[0]
    mirrored = [np.array_equal(a, b[:, ::-1]) for a, b in zip(out, x, strict=True)]
    kept = [np.array_equal(a, b) for a, b in zip(out, x, strict=True)]
    assert sum(mirrored) + sum(kept) == 400
    assert 150 < sum(mirrored) < 250


def test_crop_keeps_the_share_of_the_area_asked_for():
    # A ramp from left to right: the range of values left over is the share of the width.
    ramp = np.tile(np.linspace(0, 250, 100).astype("uint8")[None, None, :, None], (200, 100, 1, 3))
    crop = dataclasses.replace(OFF, crop_scale=(0.25, 0.25))
    out = crop(ramp, None, rng())[0].astype(float)
    width = (out.max(axis=(1, 2, 3)) - out.min(axis=(1, 2, 3))) / 250
    np.testing.assert_allclose(width, 0.5, atol=0.03)
    left = out.min(axis=(1, 2, 3))
    assert left.min() < 15 and left.max() > 110, "crops come from everywhere"


def test_rotation_turns_by_at_most_the_angle():
    x = np.zeros((1, 61, 61, 3), "uint8")
    x[:, 28:33, 30:] = 255  # a hand pointing right
    turned = dataclasses.replace(OFF, rotate=30)(x.repeat(64, axis=0), None, rng())[0]
    angles = []
    for image in turned[..., 0]:
        rows, columns = np.nonzero(image > 200)
        angles.append(np.degrees(np.arctan2(30 - rows.mean(), columns.mean() - 30)))
    assert -31 < min(angles) < -20 and 20 < max(angles) < 31


@pytest.mark.parametrize(
    ("option", "measure"),
    [
        ("brightness", lambda image: image.mean()),
        ("contrast", lambda image: image.std()),
        ("saturation", lambda image: np.ptp(image, axis=-1).mean()),
    ],
)
def test_colour_changes_stay_in_range(option, measure):
    x = (photo(n=1) // 2 + 40).repeat(200, axis=0)  # room to both sides: nothing is cut off
    out = dataclasses.replace(OFF, **{option: 0.3})(x, None, rng())[0].astype(float)
    ratio = np.array([measure(image) for image in out]) / measure(x[0].astype(float))
    assert 0.68 < ratio.min() < 0.75 and 1.25 < ratio.max() < 1.32
    if option != "brightness":
        grey = out @ np.array([0.299, 0.587, 0.114])
        np.testing.assert_allclose(grey.mean(axis=(1, 2)), grey.mean(), rtol=0.03)


def test_erase_paints_a_rectangle_over():
    x = np.full((300, 50, 50, 3), 255, "uint8")
    out = dataclasses.replace(OFF, erase=0.5)(x, None, rng())[0]
    share = (out != 255).any(axis=-1).mean(axis=(1, 2))
    assert 110 < (share > 0).sum() < 190
    assert share[share > 0].min() > 0.01 and share.max() < 0.22


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5])
def test_any_number_of_channels_and_another_size(channels):
    x = photo(channels=channels)
    augment = Augment(rotate=10, erase=0.5, size=(24, 30))
    out, _ = augment(x, None, rng())
    assert out.shape == (6, 24, 30, channels) and out.dtype == np.uint8
    assert out.std() > 5


def test_all_channels_move_together():
    x = photo(channels=1).repeat(5, axis=-1)
    out = dataclasses.replace(OFF, crop_scale=(0.3, 0.9), flip=True, rotate=15)(x, None, rng())[0]
    for k in range(1, 5):
        np.testing.assert_array_equal(out[..., k], out[..., 0])


def test_the_fourth_channel_keeps_its_values():
    x = photo(channels=4)
    x[..., 3] = 100
    out = Augment(brightness=0.5)(x, None, rng())[0]
    assert (out[..., 3] == 100).all()
    # Pillow's own RGBA would mix colours by transparency: they must equal those of RGB.
    rgb = Augment(brightness=0.5)(x[..., :3], None, rng())[0]
    np.testing.assert_array_equal(out[..., :3], rgb)


def test_two_channels_are_both_coloured():
    x = np.full((20, 8, 8, 2), 100, "uint8")
    out = dataclasses.replace(OFF, brightness=0.5)(x, None, rng())[0]
    assert (out[..., 1] != 100).mean() > 0.8
    np.testing.assert_array_equal(out[..., 0], out[..., 1])


def test_floats_in_0_255_keep_their_dtype():
    x = photo()
    as_float, _ = Augment()(x.astype("float32"), None, rng())
    assert as_float.dtype == np.float32
    np.testing.assert_array_equal(as_float, Augment()(x, None, rng())[0])


def test_one_pixel_and_empty_batches():
    assert Augment(rotate=9)(np.zeros((2, 1, 1, 3), "uint8"), None, rng())[0].shape == (2, 1, 1, 3)
    assert Augment()(np.zeros((0, 8, 8, 3), "uint8"), None, rng())[0].shape == (0, 8, 8, 3)


def test_frozen_and_comparable():
    assert Augment(crop_scale=[0.5, 1]) == Augment(crop_scale=(0.5, 1.0))
    with pytest.raises(dataclasses.FrozenInstanceError):
        Augment().flip = False


@pytest.mark.parametrize(
    ("settings", "error", "match"),
    [
        ({"crop_scale": (0, 1)}, ValueError, "`crop_scale` is 0; expected a finite number"),
        ({"crop_scale": (0.5, 1.5)}, ValueError, "`crop_scale` is 1.5"),
        ({"crop_scale": (0.9, 0.5)}, ValueError, "low <= high"),
        ({"crop_scale": 0.5}, TypeError, r"expected \(low, high\)"),
        ({"crop_scale": (0.5, 0.7, 1)}, ValueError, r"expected \(low, high\)"),
        ({"crop_ratio": (-1, 1)}, ValueError, "`crop_ratio` is -1"),
        ({"flip": 1}, TypeError, "`flip` is 1; expected True or False"),
        ({"rotate": 181}, ValueError, "`rotate` is 181"),
        ({"rotate": float("nan")}, ValueError, "`rotate` is nan"),
        ({"brightness": 1.0}, ValueError, "`brightness` is 1.0"),
        ({"contrast": "0.2"}, TypeError, "`contrast` is '0.2'"),
        ({"saturation": -0.1}, ValueError, "`saturation` is -0.1"),
        ({"erase": 2}, ValueError, "`erase` is 2"),
        ({"size": 64}, TypeError, r"Write size=\(64, 64\)"),
        ({"size": (64,)}, ValueError, r"\(height, width\)"),
        ({"size": (0, 64)}, ValueError, "`size` is 0"),
        ({"size": "ab"}, TypeError, r"\(height, width\)"),
    ],
)
def test_bad_settings(settings, error, match):
    with pytest.raises(error, match=match):
        Augment(**settings)


@pytest.mark.parametrize(
    ("images", "error", "match"),
    [
        (np.zeros((8, 8, 3), "uint8"), ValueError, r"shape \(8, 8, 3\).*expected images of shape"),
        (np.full((1, 8, 8, 3), 0.5), ValueError, "pixels from 0.5 to 0.5.*Multiply by 255"),
        (np.full((1, 8, 8, 3), -3.0), ValueError, "pixels from -3"),
        (np.full((1, 8, 8, 3), 300), ValueError, "pixels from 300"),
        (np.full((1, 8, 8, 3), np.nan), ValueError, "pixels from nan"),
        (np.zeros((1, 8, 8, 3), bool), TypeError, "dtype bool"),
    ],
)
def test_bad_images(images, error, match):
    with pytest.raises(error, match=match):
        Augment()(images, None, rng())


def test_bad_generator():
    with pytest.raises(TypeError, match=r"Write rng=np.random.default_rng\(0\)"):
        Augment()(photo(), None, 0)


def test_sizes_may_grow_with_the_epochs():
    augment = Augment(size={2: (48, 40), 0: (32, 24)})
    images = np.zeros((2, 64, 64, 3), "uint8")
    assert augment.grows
    assert not Augment(size=(32, 24)).grows
    for epoch, size in ((0, (32, 24)), (1, (32, 24)), (2, (48, 40)), (9, (48, 40))):
        changed, _ = augment.at_epoch(epoch)(images, None, np.random.default_rng(0))
        assert changed.shape == (2, *size, 3)
    batches = bz.data.arrays(images, np.arange(2), augment=augment)
    assert batches.batch(1, 0)[0].shape == (2, 32, 24, 3)
    assert batches.batch(2, 0)[0].shape == (2, 48, 40, 3)


@pytest.mark.parametrize("size", [{}, {1: (32, 32)}, {0: 32}, {-1: (3, 3), 0: (3, 3)}])
def test_sizes_that_are_no_schedule(size):
    with pytest.raises((ValueError, TypeError), match="`size` is"):
        Augment(size=size)
