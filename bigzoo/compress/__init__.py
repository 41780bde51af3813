"""Make a trained model smaller or faster, with a receipt of what was gained and lost."""

from typing import Any

from bigzoo._errors import no_attribute
from bigzoo.compress._compare import compare
from bigzoo.compress._distill import distill
from bigzoo.compress._prune import prune
from bigzoo.compress._quantize import quantize
from bigzoo.compress._quantized import QuantizedModel
from bigzoo.compress._slim import slim

__all__ = [
    "QuantizedModel",
    "compare",
    "distill",
    "prune",
    "quantize",
    "slim",
]


def __getattr__(name: str) -> Any:
    raise no_attribute(__name__, name, __all__)
