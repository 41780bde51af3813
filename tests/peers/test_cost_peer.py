"""Forward FLOPs against torch's own counter on the same networks, and against published figures.

`torch.utils.flop_counter` counts torchvision's, timm's and transformers' networks on the meta
device, in a process of its own. Only forward: its count of the backward pass of grouped
convolutions is wrong.
"""

import gc
import importlib.util
import json
from pathlib import Path

import keras
import pytest

from bigzoo import models
from bigzoo.cost import analyze

applications = keras.applications

# What conftest.py does for torchvision must be done in its process, too.
PREPARE = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import conftest\n"
CODE = """
import json, timm, torch, torchvision, transformers
from torch.utils.flop_counter import FlopCounterMode

def count(make, *shape, dtype=torch.float32):
    with torch.device("meta"):
        network, x = make().eval(), torch.zeros(*shape, dtype=dtype)
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            network(x)
    return counter.get_total_flops()

found, image = {}, (1, 3, 224, 224)
for name in TORCHVISION:
    found["torchvision " + name] = count(getattr(torchvision.models, name), *image)
    found["published " + name] = torchvision.models.get_model_weights(name).DEFAULT.meta["_ops"]
for name in TIMM:
    found["timm " + name] = count(lambda: timm.create_model(name), *image)
# Unmasked scores as in "eager": other ways ask for the values of the mask.
ways = {"attn_implementation": "eager"}
tokens = {"dtype": torch.long}
bert = transformers.BertConfig(num_labels=2, **ways)
found["transformers BertModel"] = count(lambda: transformers.BertModel(bert), 1, 128, **tokens)
found["transformers BertForSequenceClassification"] = count(
    lambda: transformers.BertForSequenceClassification(bert), 1, 128, **tokens)
gpt = transformers.GPT2Config(**ways)
found["transformers GPT2LMHeadModel"] = count(
    lambda: transformers.GPT2LMHeadModel(gpt), 1, 1024, **tokens)
print("RESULT" + json.dumps(found))
"""
TORCHVISION = [
    "vgg16",
    "mobilenet_v2",
    "efficientnet_b0",
    "densenet121",
    "resnet50",
    "convnext_tiny",
    "vit_b_16",
]
TIMM = [
    "mobilenetv2_100",
    "efficientnet_b0",
    "densenet121",
    "resnet50",
    "convnext_tiny",
    "vit_base_patch16_224",
]

# Ours or Keras' -> shape of one input, and the networks that are the same.
IMAGE = (224, 224, 3)
NETWORKS = {
    "vgg16": (lambda: applications.VGG16(weights=None), IMAGE, ["torchvision vgg16"]),
    "mobilenet_v2": (
        lambda: applications.MobileNetV2(weights=None),
        IMAGE,
        ["torchvision mobilenet_v2", "timm mobilenetv2_100"],
    ),
    "keras_efficientnet_b0": (
        lambda: applications.EfficientNetB0(weights=None),
        IMAGE,
        ["torchvision efficientnet_b0", "timm efficientnet_b0"],
    ),
    "efficientnet_b0": (
        lambda: models.efficientnet("b0"),
        IMAGE,
        ["torchvision efficientnet_b0", "timm efficientnet_b0"],
    ),
    "densenet121": (
        lambda: applications.DenseNet121(weights=None),
        IMAGE,
        ["torchvision densenet121", "timm densenet121"],
    ),
    # v1.5, the stride in the 3x3 convolution. Keras' own ResNet50 is v1.
    "resnet50": (
        lambda: models.resnet("50"),
        IMAGE,
        ["torchvision resnet50", "timm resnet50"],
    ),
    "convnext_tiny": (
        lambda: models.convnext("tiny"),
        IMAGE,
        ["torchvision convnext_tiny", "timm convnext_tiny"],
    ),
    "vit_base16": (
        lambda: models.vit("base16"),
        IMAGE,
        ["torchvision vit_b_16", "timm vit_base_patch16_224"],
    ),
    # Two classes, as the head of our default.
    "bert_base": (
        lambda: models.bert("base"),
        (128,),
        ["transformers BertForSequenceClassification"],
    ),
    "gpt_small": (lambda: models.gpt("small"), (1024,), ["transformers GPT2LMHeadModel"]),
}


@pytest.fixture(scope="module")
def counted(run_python):
    """Network elsewhere -> its FLOPs there; "published ...": billions of multiply-adds."""
    for package in ("torch", "torchvision", "timm", "transformers"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} isn't installed")
    names = f"TORCHVISION, TIMM = {TORCHVISION}, {TIMM}\n"
    printed = run_python(PREPARE + names + CODE)
    return json.loads(printed.partition("RESULT")[2])


def forward_flops(name):
    build, shape, _ = NETWORKS[name]
    report = analyze(build(), batch_size=1, input_shape=shape, training=False)
    assert report.unknown_ops == {}
    assert report.forward_flops == 2 * report.forward_macs
    gc.collect()
    return report.forward_flops


@pytest.mark.parametrize("name", NETWORKS)
def test_forward_flops_equal_those_of_torchs_counter(name, counted):
    ours = forward_flops(name)
    for other in NETWORKS[name][2]:
        assert ours == counted[other], other


@pytest.mark.parametrize("name", TORCHVISION)
def test_torchs_counter_agrees_with_the_published_figures(name, counted):
    """torchvision prints its weights' multiply-adds, in billions with three digits or two."""
    published = counted[f"published {name}"]
    digits = len(str(published).partition(".")[2])
    assert round(counted[f"torchvision {name}"] / 2e9, digits) == published


def test_bert_of_128_tokens(counted):
    """The head is all that tells the classifier from `BertModel`: 768 numbers to 2 classes."""
    head = 2 * 768 * 2
    found = counted["transformers BertForSequenceClassification"]
    assert counted["transformers BertModel"] == found - head
    assert round(counted["transformers BertModel"] / 1e9, 3) == 22.348


def test_gpt2_equals_nanogpts_tally():
    """nanoGPT's transformer_sizing.ipynb, `flops()`: GPT-2 with 124M parameters, 1024 tokens.

    https://github.com/karpathy/nanoGPT/blob/master/transformer_sizing.ipynb
    """
    block_size, vocab_size, n_layer, n_head, n_embd = 1024, 50257, 12, 12, 768
    head_size = n_embd // n_head
    attention = (
        2 * block_size * (n_embd * 3 * n_embd)  # query, key, value
        + 2 * block_size * block_size * n_embd  # scores
        + 2 * n_head * (block_size * block_size * head_size)  # weighted sum of the values
        + 2 * block_size * (n_embd * n_embd)  # projection
    )
    mlp = 2 * block_size * (n_embd * 4 * n_embd) + 2 * block_size * (4 * n_embd * n_embd)
    tally = n_layer * (attention + mlp) + 2 * block_size * (n_embd * vocab_size)
    assert tally == 291_648_307_200
    assert forward_flops("gpt_small") == tally


def test_keras_resnet50_is_v1():
    """3.8 billion multiply-adds: He et al. 2015, https://arxiv.org/abs/1512.03385, Table 1."""
    model = applications.ResNet50(weights=None)
    report = analyze(model, batch_size=1, training=False)
    assert round(report.forward_macs / 1e9, 3) == 3.858
    assert report.params == 25_636_712
    assert report.trainable_params == 25_583_592
