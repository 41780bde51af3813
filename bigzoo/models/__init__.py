"""Models: each is a function that returns a plain, uncompiled, functional `keras.Model`."""

from __future__ import annotations

from typing import Any

from bigzoo._errors import no_attribute
from bigzoo.models._table import ModelTable, list_models
from bigzoo.models.autoencoder import autoencoder
from bigzoo.models.bert import bert
from bigzoo.models.cnn import cnn
from bigzoo.models.convnext import convnext
from bigzoo.models.efficientnet import efficientnet
from bigzoo.models.gpt import gpt
from bigzoo.models.linear_regression import linear_regression
from bigzoo.models.logistic_regression import logistic_regression
from bigzoo.models.mlp import mlp
from bigzoo.models.pretrained import pretrained
from bigzoo.models.resnet import resnet
from bigzoo.models.rnn import rnn
from bigzoo.models.transformer import transformer
from bigzoo.models.vit import vit

__all__ = [
    "ModelTable",
    "autoencoder",
    "bert",
    "cnn",
    "convnext",
    "efficientnet",
    "gpt",
    "linear_regression",
    "list_models",
    "logistic_regression",
    "mlp",
    "pretrained",
    "resnet",
    "rnn",
    "transformer",
    "vit",
]


def __getattr__(name: str) -> Any:
    raise no_attribute(__name__, name, __all__)
