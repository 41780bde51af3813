"""One measurement in a process of its own: `python -m benchmarks.worker JSON` prints JSON.

A process of its own, because a library that was used before in the same process leaves threads,
memory and compiled code behind. The process that starts it imports no big library: Linux counts
the parent's memory at the time of the start into the child's peak.
"""

from __future__ import annotations

import itertools
import json
import os
import resource
import sys
import time

from benchmarks.cases import CASES, Case

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def main() -> None:
    order = json.loads(sys.argv[1])
    result = JOBS[order.pop("job")](**order)
    result["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print("\n" + json.dumps(result))


# === Training ===


def train(case: str, arm: str, samples: int, epochs: int, optimizer: str, graph: dict) -> dict:
    """Seconds of the first epoch and of each later one."""
    chosen = CASES[case]
    x, y = make_data(chosen, samples)
    if arm.startswith("torch"):
        from benchmarks.torch_net import train_torch

        result = train_torch(chosen, graph, x, y, epochs + 1, bfloat16=arm == "torch_bf16")
    else:
        result = train_keras(chosen, arm, x, y, epochs + 1, optimizer)
    marks = result.pop("marks")
    seconds = [end - start for start, end in itertools.pairwise(marks)]
    return {**result, "first": seconds[0], "later": seconds[1:], "samples": samples}


def make_data(case: Case, samples: int):
    """Random samples: the time of a step does not depend on the values."""
    import numpy as np

    rng = np.random.default_rng(0)
    if case.dtype == "uint8":
        x = rng.integers(0, 256, (samples, *case.shape), dtype=np.uint8)
    else:
        x = rng.standard_normal((samples, *case.shape), dtype=np.float32)
    if case.model == "linear_regression":
        weights = np.arange(1, case.shape[0] + 1, dtype="float32")[:, None]
        return x, x @ weights + 0.1 * rng.standard_normal((samples, 1), dtype=np.float32)
    y = rng.permutation(np.arange(samples) % 2)  # both classes, equally often
    return x, y.astype("int32") if case.model == "cnn" else y[:, None].astype("float32")


def train_keras(case: Case, arm: str, x, y, epochs: int, optimizer: str) -> dict:
    import keras

    import bigzoo as bz

    bz.set_seed(0)
    policy = "float32"
    if arm == "bigzoo_auto":
        bz.precision("auto")
        policy = keras.config.dtype_policy().name
    model = build(case)
    marks = [0.0]

    class Clock(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            marks.append(time.perf_counter())

    common = {"epochs": epochs, "batch_size": case.batch_size, "verbose": 0}
    if arm == "keras":
        loss, metrics = plain_loss(case)
        model.compile(optimizer="adam", loss=loss, metrics=metrics)
        fit = model.fit
    else:
        bz.compile(model, optimizer=None if optimizer == "default" else optimizer, verbose=False)

        def fit(*args, **kwargs):
            return bz.fit(model, *args, **kwargs)

    marks[0] = time.perf_counter()
    fit(x, y, callbacks=[Clock()], **common)
    return {
        "marks": marks,
        "parameters": model.count_params(),
        "policy": policy,
        "jit_compile": bool(model.jit_compile),
        "steps_per_execution": int(model.steps_per_execution),
        "optimizer": type(model.optimizer).__name__,
    }


def build(case: Case):
    import bigzoo as bz

    return getattr(bz.models, case.model)(**case.arguments)


def plain_loss(case: Case) -> tuple[str, list[str]]:
    """What the tutorials of plain Keras write for this network."""
    if case.model == "linear_regression":
        return "mse", ["mae"]
    if case.model == "mlp":
        return "binary_crossentropy", ["accuracy"]
    return "sparse_categorical_crossentropy", ["accuracy"]


def describe(case: str) -> dict:
    """The network as a list of layers, from which torch_net.py builds the same one."""
    model = build(CASES[case])
    layers = []
    for entry in model.get_config()["layers"]:
        if len(entry["inbound_nodes"]) > 1:
            raise ValueError(f"layer {entry['name']!r} is used more than once")
        layers.append(
            {
                "name": entry["name"],
                "type": entry["class_name"],
                "config": {
                    key: value
                    for key, value in entry["config"].items()
                    if isinstance(value, (str, int, float, bool, list, tuple))
                },
                "inputs": list(find_inputs(entry["inbound_nodes"])),
                "in_shapes": [
                    list(tensor.shape[1:]) for tensor in as_list(model.get_layer(entry["name"]))
                ],
            }
        )
    return {"graph": {"layers": layers, "parameters": model.count_params()}}


def find_inputs(node):
    """Names of the layers that a node of the configuration reads from."""
    if isinstance(node, dict):
        if "keras_history" in node:
            yield node["keras_history"][0]
        for value in node.values():
            yield from find_inputs(value)
    elif isinstance(node, (list, tuple)):
        for value in node:
            yield from find_inputs(value)


def as_list(layer) -> list:
    tensors = layer.input
    return list(tensors) if isinstance(tensors, (list, tuple)) else [tensors]


# === Import and solve ===


def import_time(module: str) -> dict:
    start = time.perf_counter()
    __import__(module)
    return {"seconds": time.perf_counter() - start}


def solve(samples: int, features: int, rounds: int) -> dict:
    """bz.solve against scikit-learn on the same arrays, one after the other, `rounds` times."""
    import numpy as np
    from sklearn.linear_model import LinearRegression

    import bigzoo as bz

    rng = np.random.default_rng(0)
    x = rng.standard_normal((samples, features))
    y = x @ rng.standard_normal((features, 1)) + 0.1 * rng.standard_normal((samples, 1)) + 1.0
    model = bz.models.linear_regression(features)
    times: dict[str, list[float]] = {"bigzoo": [], "sklearn": []}
    for _ in range(rounds + 1):
        start = time.perf_counter()
        found = bz.solve(model, x, y)
        middle = time.perf_counter()
        reference = LinearRegression().fit(x, y)
        times["bigzoo"].append(middle - start)
        times["sklearn"].append(time.perf_counter() - middle)
    difference = max(
        float(np.max(np.abs(found.coefficients[:, 0] - reference.coef_[0]))),
        float(np.max(np.abs(found.intercept - reference.intercept_))),
    )
    return {"times": {name: values[1:] for name, values in times.items()}, "difference": difference}


JOBS = {"train": train, "describe": describe, "import_time": import_time, "solve": solve}

if __name__ == "__main__":
    main()
