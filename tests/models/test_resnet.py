"""bigzoo.models.resnet: parameters, structure, heads, bad input."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from bigzoo.models import resnet
from bigzoo.models._registry import REGISTRY
from bigzoo.models.resnet import VARIANTS, Sizes

# Trainable parameters with 1,000 classes, as torchvision publishes them:
# https://docs.pytorch.org/vision/stable/models.html (num_params).
PUBLISHED = {
    "18": 11_689_512,
    "34": 21_797_672,
    "50": 25_557_032,
    "101": 44_549_160,
    "152": 60_192_808,
}
SHAPE = (32, 32, 3)


def _values(tensor) -> np.ndarray:
    return keras.ops.convert_to_numpy(tensor)


def _pixels(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape).astype("float32")


def size_of(weights) -> int:
    return sum(int(np.prod(weight.shape)) for weight in weights)


def parameters(sizes: Sizes, channels: int = 3, classes: int = 1000) -> tuple[int, int]:
    """(trainable, statistics), from the sizes alone: each convolution has a normalisation."""
    convs = [(7, channels, sizes.stem_width)]
    before = sizes.stem_width
    for stage, (width, depth) in enumerate(zip(sizes.widths, sizes.depths, strict=True)):
        for block in range(depth):
            if sizes.block == "basic":
                after = width
                convs += [(3, before, width), (3, width, width)]
            else:
                after = 4 * width
                convs += [(1, before, width), (3, width, width), (1, width, after)]
            if before != after or (stage and not block):
                convs.append((1, before, after))
            before = after
    kernels = sum(size**2 * old * new for size, old, new in convs)
    norms = sum(2 * new for _, _, new in convs)
    return kernels + norms + (before + 1) * classes, norms


@pytest.mark.parametrize("variant", PUBLISHED)
def test_sizes_give_the_published_number_of_parameters(variant):
    trainable, _ = parameters(VARIANTS[variant])
    assert trainable == PUBLISHED[variant]
    assert trainable == REGISTRY["resnet"].parameters[variant]


@pytest.mark.parametrize("variant", ["18", "50", "tiny"])
def test_models_have_the_parameters_of_their_sizes(variant):
    model = resnet(variant)
    trainable, statistics = parameters(VARIANTS[variant])
    assert size_of(model.trainable_weights) == trainable
    assert size_of(model.non_trainable_weights) == statistics


@pytest.mark.large
@pytest.mark.parametrize("variant", ["34", "101", "152"])
def test_large_models_have_the_parameters_of_their_sizes(variant):
    assert size_of(resnet(variant).trainable_weights) == PUBLISHED[variant]


def test_channels_and_classes_change_the_ends_alone():
    model = resnet("tiny", input_shape=(40, 33, 5), num_classes=4)
    assert size_of(model.trainable_weights) == parameters(VARIANTS["tiny"], 5, 4)[0]


def test_default_is_50():
    assert sum(VARIANTS["50"].depths) == 16
    names = {layer.name for layer in resnet(input_shape=SHAPE).layers}
    assert {"stage4_block2_3_conv", "stage3_block5_relu"} <= names
    assert "stage3_block6_relu" not in names


def test_stride_is_in_the_3x3_convolution():
    """v1.5; in v1 it is in the first 1×1."""
    model = resnet("tiny", input_shape=(64, 64, 3))
    assert model.get_layer("stage2_block0_1_conv").strides == (1, 1)
    assert model.get_layer("stage2_block0_2_conv").strides == (2, 2)
    assert model.get_layer("stage1_block0_2_conv").strides == (1, 1)
    assert model.get_layer("stage2_block1_2_conv").strides == (1, 1)
    assert model.get_layer("global_pool").input.shape[1:3] == (2, 2)


def test_new_blocks_are_the_identity():
    """gamma = 0 at the end of a branch; what comes in has passed a ReLU already."""
    model = resnet("tiny", input_shape=SHAPE)
    block = keras.Model(
        model.input,
        [
            model.get_layer("stage2_block0_relu").output,
            model.get_layer("stage2_block1_relu").output,
        ],
    )
    before, after = map(_values, block(_pixels(2, *SHAPE)))
    assert before.std() > 0
    np.testing.assert_array_equal(before, after)


def test_images_of_any_size():
    free, fixed = (
        resnet("tiny", input_shape=(None, None, 3)),
        resnet("tiny", input_shape=(70, 33, 3)),
    )
    free.set_weights(fixed.get_weights())
    x = _pixels(2, 70, 33, 3)
    np.testing.assert_allclose(_values(free(x)), _values(fixed(x)), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "shape", "activation"),
    [
        ({}, (None, 1000), "softmax"),
        ({"num_classes": 2, "classifier_activation": "sigmoid"}, (None, 1), "sigmoid"),
        ({"num_classes": 4, "classifier_activation": None}, (None, 4), "linear"),
        ({"num_outputs": 3}, (None, 3), "linear"),
    ],
)
def test_heads(arguments, shape, activation):
    model = resnet("tiny", input_shape=SHAPE, **arguments)
    assert model.output_shape == shape
    assert model.layers[-1].activation.__name__ == activation


@pytest.mark.parametrize("arguments", [{"num_classes": 0}, {"num_classes": 0, "dropout": 0.5}])
def test_without_a_head_features_come_out_in_float32(arguments):
    model = resnet("tiny", input_shape=SHAPE, dtype="mixed_bfloat16", **arguments)
    assert model.output_shape == (None, 64)
    assert model.layers[-1].name == "global_pool"
    assert _values(model(_pixels(1, *SHAPE))).dtype == "float32"


def test_dropout():
    rates = [
        [layer.rate for layer in model.layers if isinstance(layer, keras.layers.Dropout)]
        for model in (
            resnet("tiny", input_shape=SHAPE),
            resnet("tiny", input_shape=SHAPE, dropout=0.3),
        )
    ]
    assert rates == [[], [0.3]]


def test_image_data_format_of_keras_is_not_used():
    keras.config.set_image_data_format("channels_first")
    model = resnet("tiny", input_shape=(32, 64, 3))
    assert model.input_shape == (None, 32, 64, 3)
    assert model.get_layer("global_pool").input.shape[1:] == (1, 2, 64)


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"variant": "5"}, ValueError, "`variant` is '5'.*Did you mean '50'"),
        ({"variant": 50}, TypeError, "`variant` is 50; expected one of '18'"),
        ({"input_shape": (31, 64, 3)}, ValueError, r"`input_shape\[0\]` is 31; .*at least 32"),
        ({"input_shape": (3, 64, 64)}, ValueError, "channels first"),
        ({"num_classes": 1}, ValueError, "`num_classes` is 1; .*keep num_classes=2"),
        ({"num_classes": 3, "num_outputs": 1}, ValueError, "expected None with num_outputs"),
        ({"dropout": 1.0}, ValueError, r"`dropout` is 1\.0; expected"),
        ({"weights": 3}, TypeError, "`weights` is 3; expected None, a path"),
        ({"weights": "no/such/file"}, FileNotFoundError, "There is no such file or folder"),
    ],
)
def test_bad_arguments(arguments, error, text):
    with pytest.raises(error, match=text):
        resnet(**{"variant": "tiny", "input_shape": SHAPE, **arguments})
