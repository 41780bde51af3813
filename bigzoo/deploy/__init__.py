"""Save a model, load it again, and use it on image files."""

from bigzoo.deploy._load import load
from bigzoo.deploy._predict_images import predict_images
from bigzoo.deploy._predictions import Prediction, Predictions
from bigzoo.deploy._save import save

__all__ = ["Prediction", "Predictions", "load", "predict_images", "save"]
