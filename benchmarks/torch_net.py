"""The same network in PyTorch, built from the list of layers that `worker.describe` gives.

The head gives logits, as PyTorch's losses want them. "same" padding of a strided convolution is
symmetric here (Keras pads one pixel more at the end): the sizes and the work are the same.
"""

from __future__ import annotations

import os
import time

import torch
from torch import nn

from benchmarks.cases import Case


def train_torch(case: Case, graph: dict, x, y, epochs: int, bfloat16: bool) -> dict:
    """A plain training loop, with the fused Adam, loss and accuracy summed without a sync."""
    torch.manual_seed(0)
    torch.set_num_threads(os.cpu_count() or 1)
    net = Net(graph)
    parameters = sum(p.numel() for p in net.parameters()) + sum(
        b.numel() for name, b in net.named_buffers() if not name.endswith("num_batches_tracked")
    )
    if parameters != graph["parameters"]:
        raise ValueError(f"{parameters} parameters in PyTorch, {graph['parameters']} in Keras")
    inputs, labels = torch.from_numpy(x), torch.from_numpy(y)
    if case.convolutional:
        inputs = inputs.permute(0, 3, 1, 2)  # (n, h, w, c) in memory: channels last already
        if bfloat16:
            net = net.to(memory_format=torch.channels_last)
        else:
            inputs = inputs.contiguous()
        labels = labels.long()
    loss_function = choose_loss(case)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3, fused=True)
    net.train()
    marks = [time.perf_counter()]
    for _ in range(epochs):
        train_epoch(net, inputs, labels, loss_function, optimizer, case, bfloat16)
        marks.append(time.perf_counter())
    return {"marks": marks, "parameters": parameters, "optimizer": "Adam (fused)"}


def train_epoch(net, inputs, labels, loss_function, optimizer, case: Case, bfloat16: bool):
    """Mean loss and metric of the epoch."""
    total, correct = torch.zeros(()), torch.zeros(())
    for rows in torch.randperm(len(inputs)).split(case.batch_size):
        x, y = inputs[rows].float(), labels[rows]
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bfloat16):
            logits = net(x)
        logits = logits.float()
        loss = loss_function(logits, y)
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            total += loss.detach() * len(y)
            correct += score(logits, y, case)
    return float(total / len(inputs)), float(correct / len(inputs))


def choose_loss(case: Case):
    if case.model == "linear_regression":
        return nn.functional.mse_loss
    if case.model == "mlp":
        return nn.functional.binary_cross_entropy_with_logits
    return nn.functional.cross_entropy


def score(logits, y, case: Case):
    """The metric that Keras counts too: absolute error, or right answers."""
    if case.model == "linear_regression":
        return (logits - y).abs().sum()
    if case.model == "mlp":
        return ((logits > 0) == (y > 0.5)).sum()
    return (logits.argmax(1) == y).sum()


class Net(nn.Module):
    """Runs the layers in the order of the list, each on the outputs of its inputs."""

    def __init__(self, graph: dict) -> None:
        super().__init__()
        self.plan = [(layer["name"], layer["inputs"]) for layer in graph["layers"]]
        self.steps = nn.ModuleDict({layer["name"]: make(layer) for layer in graph["layers"]})
        # When a layer is the last one to read a value, the value can go.
        readers = {name: reader for reader, inputs in self.plan for name in inputs}
        self.frees = {
            reader: [name for name in inputs if readers[name] == reader]
            for reader, inputs in self.plan
        }

    def forward(self, x):
        values = {}
        for name, inputs in self.plan:
            step = self.steps[name]
            values[name] = step(*(values[i] for i in inputs)) if inputs else x
            for old in self.frees[name]:
                values.pop(old, None)
        return values[name]


class Scale(nn.Module):
    def __init__(self, scale: float, offset: float) -> None:
        super().__init__()
        self.scale, self.offset = scale, offset

    def forward(self, x):
        return x * self.scale + self.offset


class Sum(nn.Module):
    def forward(self, *values):
        total = values[0]
        for value in values[1:]:
            total = total + value
        return total


class Product(nn.Module):
    def forward(self, first, second):
        return first * second


ACTIVATIONS = {
    "linear": nn.Identity,
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "swish": nn.SiLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
}


def make(layer: dict) -> nn.Module:
    kind, config = layer["type"], layer["config"]
    if kind not in MAKERS:
        raise ValueError(f"layer {layer['name']!r}: no PyTorch twin for {kind} yet")
    module = MAKERS[kind](layer, config)
    activation = config.get("activation", "linear")
    if layer["name"] == "predictions" or activation == "linear" or kind == "Activation":
        return module
    return nn.Sequential(module, ACTIVATIONS[activation]())


def conv(layer: dict, config: dict) -> nn.Module:
    channels = layer["in_shapes"][0][-1]
    kernel = tuple(config["kernel_size"])
    same = config["padding"] == "same"
    groups = config.get("groups", 1)
    filters = config.get("filters")
    if layer["type"] == "DepthwiseConv2D":
        groups, filters = channels, channels * config["depth_multiplier"]
    return nn.Conv2d(
        channels,
        filters,
        kernel,
        stride=tuple(config["strides"]),
        padding=tuple(side // 2 if same else 0 for side in kernel),
        groups=groups,
        bias=config["use_bias"],
    )


def pool(kind):
    def make_pool(layer: dict, config: dict) -> nn.Module:
        return kind(
            tuple(config["pool_size"]),
            tuple(config["strides"]),
            ceil_mode=config["padding"] == "same",
        )

    return make_pool


MAKERS = {
    "InputLayer": lambda layer, c: nn.Identity(),
    "Rescaling": lambda layer, c: Scale(c["scale"], c["offset"]),
    "Conv2D": conv,
    "DepthwiseConv2D": conv,
    "BatchNormalization": lambda layer, c: (
        nn.BatchNorm2d if len(layer["in_shapes"][0]) == 3 else nn.BatchNorm1d
    )(layer["in_shapes"][0][-1], eps=c["epsilon"], momentum=1 - c["momentum"]),
    "Activation": lambda layer, c: ACTIVATIONS[c["activation"]](),
    "ReLU": lambda layer, c: nn.ReLU(),
    "MaxPooling2D": pool(nn.MaxPool2d),
    "AveragePooling2D": pool(nn.AvgPool2d),
    "GlobalAveragePooling2D": lambda layer, c: nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()),
    "Flatten": lambda layer, c: nn.Flatten(),
    "Dense": lambda layer, c: nn.Linear(layer["in_shapes"][0][-1], c["units"], bias=c["use_bias"]),
    "Dropout": lambda layer, c: nn.Dropout(c["rate"]),
    "Add": lambda layer, c: Sum(),
    "Multiply": lambda layer, c: Product(),
}
