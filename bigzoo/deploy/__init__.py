"""Save a model, load it again, and use it on image files."""

from typing import Any

from bigzoo._errors import no_attribute
from bigzoo._image_io import UnreadableImage
from bigzoo.deploy._generate import generate
from bigzoo.deploy._load import load
from bigzoo.deploy._predict_images import predict_images
from bigzoo.deploy._predictions import Prediction, Predictions
from bigzoo.deploy._save import save

__all__ = [
    "Prediction",
    "Predictions",
    "UnreadableImage",
    "generate",
    "load",
    "predict_images",
    "save",
]


def __getattr__(name: str) -> Any:
    raise no_attribute(__name__, name, __all__)
