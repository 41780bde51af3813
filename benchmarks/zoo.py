"""`python -m benchmarks.zoo`: BERT and ResNet-50 against PyTorch, KerasHub and keras.applications.

Every arm runs in a process of its own, in turn, `--rounds` times over; the table has medians over
the rounds, and how much faster bigzoo's best arm is than the best of each other library.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent

# Arm -> (the package that it needs, what it is).
ARMS = {
    "bigzoo": ("keras", "bz.compile, float32"),
    "bigzoo_bf16": ("keras", 'bz.compile, bz.precision("mixed_bfloat16")'),
    "keras": ("keras_hub", "KerasHub or keras.applications, float32"),
    "keras_bf16": ("keras_hub", "the same in mixed_bfloat16"),
    "torch": ("timm", "transformers or timm, eager, float32"),
    "torch_bf16": ("timm", "the same: bfloat16 weights to infer, autocast to train"),
}
LIBRARIES = {"bigzoo": "bigzoo", "keras": "KerasHub / keras.applications", "torch": "PyTorch"}
CASES = {
    "bert": "BERT of MiniLM's size, batch 32 x 128 tokens",
    "resnet50": "ResNet-50, batch 16 x 224 px",
}
BATCH = {"bert": 32, "resnet50": 16}
LENGTH, CLASSES, VOCABULARY = 128, 2, 30_522


# === One arm, in its own process ===


def data(case: str, batches: int) -> tuple[Any, Any]:
    """What every arm is given: token ids, or raw pixels; and labels."""
    import numpy as np

    rng = np.random.default_rng(0)
    count = BATCH[case] * batches
    y = rng.integers(0, CLASSES, count).astype("int32")
    if case == "bert":
        return rng.integers(1000, VOCABULARY, (count, LENGTH)).astype("int32"), y
    return rng.integers(0, 256, (count, 224, 224, 3)).astype("float32"), y


def keras_model(case: str, arm: str) -> Any:
    """The network of an arm on Keras, compiled."""
    import keras

    import bigzoo as bz

    policy = "mixed_bfloat16" if arm.endswith("bf16") else "float32"
    if arm.startswith("bigzoo"):
        bz.precision(policy)
        make = {
            "bert": lambda: bz.models.bert("minilm", num_classes=CLASSES),
            "resnet50": lambda: bz.models.resnet("50", num_classes=CLASSES),
        }
        return bz.compile(make[case](), verbose=False)
    keras.config.set_dtype_policy(policy)
    if case == "bert":
        import keras_hub

        backbone = keras_hub.models.BertBackbone(
            VOCABULARY, 6, 12, 384, 1536, dropout=0.1, max_sequence_length=512
        )
        model = keras_hub.models.BertTextClassifier(
            backbone, CLASSES, preprocessor=None, activation="softmax"
        )
    else:
        model = keras.applications.ResNet50(weights=None, classes=CLASSES)
    optimizer = keras.optimizers.AdamW(1e-4)
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def keras_steps(case: str, arm: str, batches: int) -> tuple[Callable, Callable]:
    """A function that infers one batch, and one that trains and gives the seconds of each epoch.

    Training is one call of `fit`, as a user makes it; what it does before the first step and after
    the last is left out, as it is for PyTorch.
    """
    import keras
    import numpy as np

    import bigzoo as bz

    x, y = data(case, batches)
    model = keras_model(case, arm)
    if case == "bert":
        x = {"token_ids": x, "padding_mask": np.ones_like(x), "segment_ids": np.zeros_like(x)}
    first = (
        {key: value[: BATCH[case]] for key, value in x.items()}
        if case == "bert"
        else x[: BATCH[case]]
    )
    fit = bz.fit if arm.startswith("bigzoo") else type(model).fit

    def train(epochs: int) -> list[float]:
        ends: list[float] = []
        clock = keras.callbacks.LambdaCallback(
            on_epoch_end=lambda epoch, logs: ends.append(time.perf_counter())
        )
        fit(model, x, y, batch_size=BATCH[case], epochs=epochs, verbose=0, callbacks=[clock])
        return [end - start for start, end in itertools.pairwise(ends)]

    return lambda: model.predict_on_batch(first), train


def torch_steps(case: str, arm: str, batches: int) -> tuple[Callable, Callable]:
    """The same on PyTorch."""
    import torch

    torch.set_num_threads(os.cpu_count() or 1)
    x, y = map(torch.from_numpy, data(case, batches))
    y = y.long()
    bf16 = arm.endswith("bf16")
    if case == "bert":
        from transformers import BertConfig, BertForSequenceClassification

        config = BertConfig(
            vocab_size=VOCABULARY,
            hidden_size=384,
            num_hidden_layers=6,
            num_attention_heads=12,
            intermediate_size=1536,
            num_labels=CLASSES,
        )
        make = lambda: BertForSequenceClassification(config)  # noqa: E731
        x = x.long()
        mask = torch.ones(BATCH[case], LENGTH, dtype=torch.long)
        call = lambda model, batch: model(batch, attention_mask=mask).logits  # noqa: E731
    else:
        import timm

        make = lambda: timm.create_model("resnet50", num_classes=CLASSES)  # noqa: E731
        x = ((x / 255 - 0.45) / 0.225).permute(0, 3, 1, 2)
        x = x.contiguous(memory_format=torch.channels_last)
        call = lambda model, batch: model(batch)  # noqa: E731
    model = make().to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4)
    size = BATCH[case]
    frozen = make().to(memory_format=torch.channels_last).eval()
    first = x[:size]
    if bf16:
        frozen = frozen.to(torch.bfloat16)
        first = first.to(torch.bfloat16) if case != "bert" else first

    def infer() -> None:
        with torch.inference_mode():
            call(frozen, first)

    def epoch() -> None:
        model.train()
        for start in range(0, len(x), size):
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                logits = call(model, x[start : start + size])
            loss = torch.nn.functional.cross_entropy(logits.float(), y[start : start + size])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()

    return infer, lambda epochs: seconds(epoch, epochs - 1, warm_up=1)


def work(case: str, arm: str, batches: int, repeats: int) -> dict[str, float]:
    """Median seconds of one batch of inference, and of one step of training."""
    steps = torch_steps if arm.startswith("torch") else keras_steps
    infer, train = steps(case, arm, batches)
    return {
        "inference": statistics.median(seconds(infer, 2 * repeats, warm_up=3)),
        "training": statistics.median(train(1 + repeats)) / batches,
    }


def seconds(function: Callable[[], Any], repeats: int, warm_up: int) -> list[float]:
    """Duration of each of `repeats` calls, after `warm_up` others."""
    for _ in range(warm_up):
        function()
    found = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        found.append(time.perf_counter() - start)
    return found


# === All arms ===


def main() -> int:
    args = parse_arguments()
    if args.work:
        print("RESULT", json.dumps(work(*args.work, args.batches, args.repeats)))
        return 0
    arms = [arm for arm in args.arms if importlib.util.find_spec(ARMS[arm][0])]
    for arm in sorted(set(args.arms) - set(arms)):
        print(f"{arm} is left out: the package {ARMS[arm][0]} is not installed")
    found: dict[str, dict[str, dict[str, list[float]]]] = {}
    for number in range(args.rounds):
        for case in args.cases:
            for arm in arms:
                result = measure(case, arm, args)
                for task, value in result.items():
                    found.setdefault(case, {}).setdefault(task, {}).setdefault(arm, []).append(
                        value
                    )
                shown = ", ".join(f"{task} {1e3 * value:.0f} ms" for task, value in result.items())
                print(f"round {number + 1}: {case}, {arm}: {shown}", flush=True)
                args.output.write_text(json.dumps(found, indent=1), encoding="utf-8")
    print("\n" + report(found))
    return 0


def measure(case: str, arm: str, args: argparse.Namespace) -> dict[str, float]:
    """Run one arm in a fresh process."""
    command = [sys.executable, "-m", "benchmarks.zoo", "--work", case, arm]
    command += ["--batches", str(args.batches), "--repeats", str(args.repeats)]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if done.returncode or not lines:
        raise RuntimeError(f"{case}, {arm} failed:\n{done.stderr[-3000:]}")
    result: dict[str, float] = json.loads(lines[-1].removeprefix("RESULT "))
    return result


def report(found: dict[str, dict[str, dict[str, list[float]]]]) -> str:
    """Medians over the rounds, and ratios of the best arm of each library to bigzoo's best."""
    lines = []
    for case, tasks in found.items():
        lines.append(f"{CASES[case]}")
        for task, arms in tasks.items():
            medians = {arm: statistics.median(values) for arm, values in arms.items()}
            shown = ", ".join(f"{arm} {1e3 * value:.0f}" for arm, value in medians.items())
            lines.append(f"  {task}, ms: {shown}")
            best = {}
            for library in LIBRARIES:
                own = [value for arm, value in medians.items() if arm.startswith(library)]
                if own:
                    best[library] = min(own)
            for library, value in best.items():
                if library != "bigzoo" and "bigzoo" in best:
                    ratio = value / best["bigzoo"]
                    lines.append(f"    against the best of {LIBRARIES[library]}: {ratio:.2f} x")
    return "\n".join(lines)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.zoo", description=__doc__)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batches", type=int, default=4, help="steps in an epoch of training")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output", type=Path, default=Path("benchmarks-zoo.json"))
    parser.add_argument("--work", nargs=2, metavar=("CASE", "ARM"), help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
