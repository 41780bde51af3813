"""Which kinds of quantisation are worth a try for a model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras

from bigzoo._errors import message
from bigzoo.deploy._limits import every_layer

MODES = ("auto", "dynamic", "int8", "float16")
_CONVOLUTION = ("Conv1D", "Conv2D", "Conv3D")


def candidates(model: keras.Model, target: str, mode: str, calibrated: bool) -> list[list[str]]:
    """Modes in rounds: the next round is tried where nothing of the one before is good enough.

    Dynamic quantisation keeps 8-bit weights and computes the range of each activation as it comes;
    int8 fixes the ranges by calibration; float16 halves the weights. Measured on several models
    (see the documentation):

    - Attention: its activations have wide ranges, for which fixed int8 steps are too coarse, so
      int8 comes last.
    - Depthwise convolutions: dynamic is slower than float32 in LiteRT.
    - ONNX Runtime computes convolutions with dynamic ranges 3 to 10 times as slowly, and has no
      float16 for processors.
    """
    known = {"litert": ("dynamic", "int8", "float16"), "onnx": ("dynamic", "int8")}[target]
    if mode != "auto":
        if mode not in known:
            expected = " or ".join(map(repr, ("auto", *known)))
            raise ValueError(message("mode", mode, f"{expected} for the target {target!r}"))
        if mode == "int8" and not calibrated:
            fix = "Give some rows of real input."
            raise ValueError(message("calibration", None, "data for the mode 'int8'", fix))
        return [[mode]]
    attention, depthwise, convolution = _kinds(model)
    int8 = ["int8"] if calibrated else []
    if target == "onnx":
        if convolution or depthwise:
            rounds = [int8]
        else:
            rounds = [["dynamic"], int8] if attention else [["dynamic", *int8]]
    elif depthwise:
        rounds = [[*int8, "float16"]]
    elif attention:
        rounds = [["dynamic", "float16"], int8]
    else:
        rounds = [["dynamic", *int8, "float16"]]
    rounds = [names for names in rounds if names]
    if not rounds:
        raise ValueError(
            "`calibration` is None; expected data: a model with convolutions for ONNX Runtime is "
            'quantised as int8, which is calibrated. Give some rows, or target="litert".'
        )
    return rounds


def _kinds(model: keras.Model) -> tuple[bool, bool, bool]:
    """Whether there is attention, a depthwise convolution, any convolution."""
    names = set(_type_names(model))
    # Layers inside a layer of the user's own are seen by the names of their weights.
    paths = [weight.path.lower() for weight in model.weights]
    attention = any("Attention" in name for name in names) or any("attention" in p for p in paths)
    depthwise = any(name.startswith(("Depthwise", "Separable")) for name in names)
    grouped = any("depthwise" in path for path in paths)
    convolution = any(name.startswith(_CONVOLUTION) for name in names)
    return attention, depthwise or grouped, convolution


def _type_names(model: keras.Model) -> Iterator[str]:
    for layer in every_layer(model):
        # A grouped convolution with one channel per group is a depthwise one.
        groups = getattr(layer, "groups", 1)
        if isinstance(groups, int) and groups > 1 and groups == _filters(layer):
            yield "DepthwiseConv"
        yield type(layer).__name__


def _filters(layer: Any) -> Any:
    return getattr(layer, "filters", None)
