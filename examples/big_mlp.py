"""Train the 1000-500-250-100-1 network on a rule that a linear model cannot learn.

Ten hidden quantities (think of temperature, pressure, age) are measured by 1,000 noisy sensors.
The label follows a rule on the hidden quantities: "if the first is positive, the sign of the
second, otherwise the sign of the third". Five labels in a hundred are flipped, so nobody can be
right more often than 95% of the time, and about one percent less with noisy sensors. A linear model
cannot express "if"; the network can.

Run:      python examples/big_mlp.py
Hardware: 2 CPU cores
Expected: at least 92% on held-out samples (measured: 93.2%), in about 70 s
"""

from __future__ import annotations

import argparse
import sys
import time

NUM_FEATURES, NUM_HIDDEN = 1000, 10
SENSOR_NOISE = 0.3
FLIPPED = 0.05


def main() -> int:
    args = parse_arguments()

    import numpy as np

    import bigzoo as bz

    bz.set_seed(args.seed)
    bz.precision(args.precision)
    x, y = measure(args.samples, args.seed)
    x_test, y_test = measure(10_000, args.seed + 1_000_000)

    start = time.perf_counter()
    linear = bz.models.logistic_regression(num_features=NUM_FEATURES)
    bz.compile(linear)
    bz.fit(linear, x, y[:, 0], epochs=args.epochs, verbose=0)
    linear_accuracy = float(
        np.mean(linear.predict(x_test, batch_size=1024, verbose=0).argmax(1) == y_test[:, 0])
    )

    model = bz.models.mlp(NUM_FEATURES, hidden_dims=(500, 250, 100), dropout=0.2)
    print(f"{model.name}: {model.count_params():,} parameters, {args.samples:,} samples")
    bz.compile(model, "binary")
    history = bz.fit(model, x, y, epochs=args.epochs, batch_size=32, verbose="auto")
    probability = model.predict(x_test, batch_size=1024, verbose=0)
    accuracy = float(np.mean((probability > 0.5) == y_test))

    print(f"trained {len(history.epoch)} epochs; all done in {time.perf_counter() - start:.0f} s")
    print(f"held-out accuracy: linear model {linear_accuracy:.1%}, network {accuracy:.1%}")
    print(f"somebody who knows the rule and every sensor: {best_possible(x_test, y_test):.1%}")
    if accuracy < args.goal:
        print(f"FAILED: {accuracy:.1%} is below {args.goal:.0%}", file=sys.stderr)
        return 1
    print(f"OK: {accuracy:.1%} is at least {args.goal:.0%}")
    return 0


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--samples", type=count, default=20_000, help="training samples [20000]")
    parser.add_argument("--epochs", type=count, default=8, help="[8]")
    parser.add_argument("--seed", type=int, default=0, help="of data and weights [0]")
    parser.add_argument(
        "--precision",
        choices=["float32", "mixed_bfloat16", "auto"],
        default="float32",
        help="float32 is the faster one for small batches on a CPU [float32]",
    )
    parser.add_argument("--small", action="store_true", help="5,000 samples, for a quick test")
    args = parser.parse_args()
    if args.seed < 0:
        parser.error(f"argument --seed: {args.seed} is negative; use 0 or more")
    args.goal = 0.92
    if args.small:
        args.samples, args.epochs, args.goal = 5_000, 5, 0.86
    return args


def count(text: str) -> int:
    """A positive whole number from the command line."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def measure(n: int, seed: int):
    """`n` samples: features (n, 1000) float32, labels (n, 1) of 0 and 1."""
    import numpy as np

    rng = np.random.default_rng(seed)
    hidden = rng.normal(size=(n, NUM_HIDDEN))
    x = hidden @ sensors() + rng.normal(scale=SENSOR_NOISE, size=(n, NUM_FEATURES))
    y = rule(hidden) ^ (rng.random(n) < FLIPPED)
    return x.astype("float32"), y[:, None].astype("int32")


def sensors():
    """How much of each hidden quantity each sensor sees: (10, 1000), the same in every run."""
    import numpy as np

    return np.random.default_rng(7).normal(size=(NUM_HIDDEN, NUM_FEATURES)) / NUM_HIDDEN**0.5


def rule(hidden):
    import numpy as np

    return np.where(hidden[:, 0] > 0, hidden[:, 1] > 0, hidden[:, 2] > 0)


def best_possible(x, y) -> float:
    """Accuracy of the true rule on the hidden quantities as the sensors tell them."""
    import numpy as np

    hidden = x @ np.linalg.pinv(sensors())
    return float(np.mean(rule(hidden) == y[:, 0]))


if __name__ == "__main__":
    sys.exit(main())
