"""Models by the names that people write."""

from __future__ import annotations

import keras
import pytest

from bigzoo.models import _named
from bigzoo.models._named import recipe
from bigzoo.models._registry import REGISTRY


@pytest.mark.parametrize(
    ("name", "function", "variant"),
    [
        ("resnet50", "resnet", "50"),
        ("resnet-50", "resnet", "50"),
        ("resnet:50", "resnet", "50"),
        (" ResNet_50 ", "resnet", "50"),
        ("resnet", "resnet", None),
        ("vit_b16", "vit", "base16"),
        ("vit-base16", "vit", "base16"),
        ("vit_base_patch16", "vit", "base16"),
        ("ViT-L/32", "vit", "large32"),
        ("vit_ti16", "vit", "tiny16"),
        ("bert-base", "bert", "base"),
        ("bert-base-uncased", "bert", "base"),
        ("bert_b", "bert", "base"),
        ("gpt", "gpt", None),
        ("gpt2", "gpt", None),
        ("gpt2-medium", "gpt", "medium"),
        ("gpt-xl", "gpt", "xl"),
        ("convnext_t", "convnext", "tiny"),
        ("efficientnetb0", "efficientnet", "b0"),
        ("efficientnet-lite0", "efficientnet", "lite0"),
        ("cnn", "cnn", None),
        ("cnn:plain", "cnn", "plain"),
        ("lstm", "rnn", "lstm"),
        ("rnn-gru", "rnn", "gru"),
        ("transformer-big", "transformer", "big"),
        ("Linear Regression", "linear_regression", None),
    ],
)
def test_names_of_the_zoo(name, function, variant):
    found = recipe(name)
    assert found.function is REGISTRY[function].function()
    assert found.arguments.get("variant") == variant


@pytest.mark.parametrize("entry", [e for e in REGISTRY.values() if e.name != "pretrained"])
def test_every_variant_has_a_name(entry):
    for variant in entry.variants or ("",):
        for mark in ("", "-", "_", ":"):
            found = recipe(f"{entry.name}{mark if variant else ''}{variant}")
            assert found.function is entry.function()
            assert found.arguments.get("variant", "") == variant


@pytest.mark.parametrize(
    ("name", "layers"),
    [("ResNet50", "conv1_conv"), ("keras:resnet50", "conv1_conv"), ("vgg16", "block1_conv1")],
)
def test_names_of_keras_applications(monkeypatch, name, layers):
    asked = {}

    def stand_in(**arguments):
        asked.update(arguments)
        return keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, name=layers)])

    monkeypatch.setattr(keras.applications, "ResNet50", stand_in)
    monkeypatch.setattr(keras.applications, "VGG16", stand_in)
    model = recipe(name).build((64, 64, 3))
    assert asked == {"weights": None, "input_shape": (64, 64, 3)}
    assert model.layers[-1].name == layers


def test_an_application_is_built():
    model = recipe("keras:MobileNetV3Small").build((32, 32, 3))
    assert model.input_shape == (None, 32, 32, 3)
    assert model.output_shape == (None, 1000)


def test_an_application_that_refuses():
    text = r"keras\.applications\.VGG16: Input size must be at least 32x32"
    with pytest.raises(ValueError, match=text) as caught:
        recipe("vgg16").build((8, 8, 3))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "shape", "expected"),
    [
        ("cnn:plain", (32, 32, 1), (None, 32, 32, 1)),
        ("cnn:plain", None, (None, 224, 224, 3)),
        ("mlp", (7,), (None, 7)),
        ("linear_regression", (5,), (None, 5)),
    ],
)
def test_the_input_shape_is_handed_over(name, shape, expected):
    found = recipe(name)
    assert found.shape_argument
    assert found.build(shape).input_shape == expected


def test_texts_take_no_shape():
    found = recipe("rnn-tiny")
    assert found.shape_argument == ""
    assert found.build((64,)).input_shape == (None, None)


def test_numbers_have_one_dimension():
    with pytest.raises(ValueError, match=r"`input_shape` is \(2, 3\); expected one number"):
        recipe("mlp").build((2, 3))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("resnet5", r"`model` is 'resnet5'; .* Did you mean 'resnet-50' or"),
        ("resnet51", "Did you mean 'resnet-50' or"),
        ("bert-bas", "Did you mean 'bert-base'"),
        ("vit-h14", "Did you mean 'vit"),
        ("keras:vgg", "Did you mean 'VGG19' or 'VGG16'"),
        ("mobilenetv9", "Did you mean 'MobileNet"),
        ("pretrained", r"expected a known name, or a \.keras file"),
        ("lstm-gru", "`model` is 'lstm-gru'"),
        ("", "`model` is ''"),
        ("qqqqq", r"a \.keras file\. bigzoo\.models\.list_models\(\)"),
    ],
)
def test_unknown_names_give_the_nearest(name, text):
    with pytest.raises(ValueError, match=text):
        recipe(name)


def test_aliases_lead_into_the_registry():
    for key, variant in _named._ALIASES.values():
        assert not variant or variant in REGISTRY[key].variants
