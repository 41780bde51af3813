"""Save a model, load it again, and use it on image files."""

from typing import Any

from bigzoo._errors import no_attribute
from bigzoo._image_io import UnreadableImage
from bigzoo.deploy._difference import Difference
from bigzoo.deploy._export import export
from bigzoo.deploy._generate import generate
from bigzoo.deploy._inference import inference_model
from bigzoo.deploy._latency import Latency
from bigzoo.deploy._load import load
from bigzoo.deploy._predict_images import predict_images
from bigzoo.deploy._predictions import Prediction, Predictions
from bigzoo.deploy._predictor import Predictor, predictor
from bigzoo.deploy._receipt import Receipt, Side, Trial
from bigzoo.deploy._save import save
from bigzoo.deploy._serve import app

__all__ = [
    "Difference",
    "Latency",
    "Prediction",
    "Predictions",
    "Predictor",
    "Receipt",
    "Side",
    "Trial",
    "UnreadableImage",
    "app",
    "export",
    "generate",
    "inference_model",
    "load",
    "predict_images",
    "predictor",
    "save",
]


def __getattr__(name: str) -> Any:
    raise no_attribute(__name__, name, __all__)
