"""Fit a line by gradient descent, down to the noise, and check it against the exact answer.

The data follow a rule that we know: y = 3·x₁ + 2·x₂ + noise, where the noise has a standard
deviation of 0.1. No model can predict the noise, so the best possible mean squared error (MSE) on
new data is 0.1² = 0.01. The script trains until it gets there, compares with the exact
least-squares solution, and shows how a wrong array shape makes the same model look 1,000 times
worse than it is.

Run:      python examples/linear_regression.py
Hardware: any CPU
Expected: test MSE at most 0.012 (measured: 0.0108), in 15 s, most of it start-up
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

NOISE = 0.1
GOAL = (
    0.012  # the noise floor 0.01, and what 100 samples cost: two weights and a bias are estimated
)


def main() -> int:
    args = parse_arguments()

    import keras
    import numpy as np

    import bigzoo as bz

    bz.set_seed(args.seed)
    x, y = bz.data.linear(args.samples, weights=(3.0, 2.0), noise=NOISE, seed=args.seed)
    # A large test set of its own: its MSE is exact to about one percent.
    x_test, y_test = bz.data.linear(
        20_000, weights=(3.0, 2.0), noise=NOISE, seed=args.seed + 1_000_000
    )

    model = bz.models.linear_regression(num_features=2)
    bz.compile(model, "regression", optimizer="sgd", learning_rate=0.1)
    # Stop when an epoch no longer improves the training loss: the test set plays no part in it.
    stop = keras.callbacks.EarlyStopping(monitor="loss", min_delta=1e-6, patience=10)
    history = bz.fit(
        model, x, y, epochs=args.epochs, batch_size=args.batch_size, callbacks=[stop], verbose=0
    )
    prediction = model.predict(x_test, batch_size=4096, verbose=0)  # shape (n, 1), like y_test
    mse = float(np.mean((y_test - prediction) ** 2))
    print(f"gradient descent: {len(history.epoch)} epochs, {describe(model)}, test MSE {mse:.5f}")

    exact = bz.models.linear_regression(num_features=2, name="exact")
    bz.solve(exact, x, y)
    exact_prediction = exact.predict(x_test, batch_size=4096, verbose=0)
    exact_mse = float(np.mean((y_test - exact_prediction) ** 2))
    print(f"exact solution:   {describe(exact)}, test MSE {exact_mse:.5f}")
    print(f"noise floor:      w = [3, 2], b = 0, test MSE {NOISE**2:.5f}")

    show_how_broadcasting_lies(y_test[:100], prediction[:100])

    args.output.mkdir(parents=True, exist_ok=True)
    picture = args.output / "linear_regression.png"
    bz.plot.fit_line(x, y, model).savefig(picture)
    print(f"plot saved to {picture}")

    if mse > GOAL:
        print(f"FAILED: the test MSE {mse:.5f} is above {GOAL}", file=sys.stderr)
        return 1
    print(f"OK: the test MSE {mse:.5f} is at the noise floor (at most {GOAL})")
    return 0


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--samples", type=count, default=100, help="training samples [100]")
    parser.add_argument("--epochs", type=count, default=500, help="at most so many epochs [500]")
    parser.add_argument("--batch-size", type=count, default=20, help="samples per step [20]")
    parser.add_argument("--seed", type=int, default=0, help="of data and weights [0]")
    parser.add_argument(
        "--output", type=Path, default=Path("out"), help="folder for the plot [out]"
    )
    parser.add_argument("--small", action="store_true", help="at most 60 epochs, for a quick test")
    args = parser.parse_args()
    if args.seed < 0:
        parser.error(f"argument --seed: {args.seed} is negative; use 0 or more")
    if args.small:
        args.epochs = min(args.epochs, 60)
    return args


def count(text: str) -> int:
    """A positive whole number from the command line."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def describe(model) -> str:
    kernel, bias = model.get_weights()
    weights = ", ".join(f"{w:.3f}" for w in kernel[:, 0])
    return f"w = [{weights}], b = {bias[0]:.3f}"


def show_how_broadcasting_lies(y, prediction) -> None:
    """The same predictions, scored with labels of shape (n, 1) and of shape (n,)."""
    import numpy as np

    flat = y[:, 0]
    right = (y - prediction) ** 2  # (n, 1) - (n, 1): one error per sample
    wrong = (flat - prediction) ** 2  # (n,) - (n, 1): NumPy makes all n × n pairs of it
    print(f"MSE of labels {y.shape} and predictions {prediction.shape}: {np.mean(right):.4f}")
    print(
        f"MSE of labels {flat.shape} and predictions {prediction.shape}: {np.mean(wrong):.4f}, "
        f"which is wrong: it compares every label with every prediction, {wrong.shape}"
    )


if __name__ == "__main__":
    sys.exit(main())
