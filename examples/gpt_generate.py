"""Train a small GPT on the letters of a text, and let it write.

Without `--text` the text is made by a rule, such as "two old horses see one small bird today.":
one animal sees, two animals see. So it is known how well anybody can guess the next letter (who
knows the rule can't know which animal comes), and whether what the network writes follows the rule.
With `--text FILE` it learns the letters of that file. It trains, says how well it guesses letters
that it has not seen, and continues `--prompt`.

Run:      python examples/gpt_generate.py
Hardware: 2 CPU cores
Expected: at least 90% of the sentences that it writes follow the rule (measured: 96.0%), in
          a few minutes
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from pathlib import Path

NUMBERS = ("one", "two", "three", "many")
QUALITIES = ("old", "young", "small", "big", "quiet", "clever")
ANIMALS = ("cat", "dog", "bird", "horse", "frog", "snake")
ACTIONS = ("see", "like", "follow", "greet", "draw", "meet")
PLACES = ("today", "at night", "in the garden")


def main() -> int:
    args = parse_arguments()

    import bigzoo as bz

    bz.set_seed(args.seed)
    bz.precision(args.precision)
    text = args.text.read_text(encoding="utf-8") if args.text else write(args.sentences, args.seed)
    # The letters of the training part alone: the held-out part must stay unseen.
    tokenizer = bz.data.text.Tokenizer.train([text[: int(0.9 * len(text))]], kind="char")
    train, held_out = bz.data.text_windows(
        text, tokenizer=tokenizer, length=args.length, val_fraction=0.1, seed=args.seed
    )
    model = bz.models.gpt(
        vocab_size=tokenizer.vocab_size,
        max_length=args.length,
        num_layers=args.layers,
        hidden_dim=args.width,
        num_heads=4,
    )
    print(f"{len(text):,} letters, {tokenizer.vocab_size} different; "
          f"{model.name}: {model.count_params():,} parameters")  # fmt: skip

    bz.compile(model, learning_rate=args.learning_rate)
    start = time.perf_counter()
    bz.fit(model, train, validation_data=held_out, epochs=args.epochs)
    print(f"trained {args.epochs} epochs in {time.perf_counter() - start:.0f} s")
    scores = model.evaluate(held_out, verbose=0, return_dict=True)
    print(f"held-out letters: {scores['accuracy']:.1%} guessed right, {scores['loss']:.3f} nats")

    written = bz.generate(
        model,
        args.prompt,
        tokenizer=tokenizer,
        max_new_tokens=args.length - len(args.prompt),
        temperature=args.temperature,
        seed=args.seed,
    )
    print(f"it writes:\n{written}")
    return 0 if args.text else judge(model, tokenizer, args)


def judge(model, tokenizer, args: argparse.Namespace) -> int:
    """How many of the sentences that the network writes are of the language of the rule."""
    import bigzoo as bz

    print(f"somebody who knows the rule: {nats_per_letter(args.sentences, args.seed):.3f} nats")
    begin = tokenizer.encode("\n", special_tokens=False)
    ids = bz.generate(
        model, [begin] * 128, max_new_tokens=args.length - 1, temperature=1.0, seed=args.seed
    )
    texts = [tokenizer.decode(row) for row in ids]
    # What is behind the last line break is cut off in the middle of a sentence.
    sentences = [line for text in texts for line in text.split("\n")[1:-1]]
    share = sum(map(follows_rule, sentences)) / max(1, len(sentences))
    print(f"{share:.1%} of {len(sentences)} sentences follow the rule")
    if share < args.goal:
        print(f"FAILED: {share:.1%} is below {args.goal:.0%}", file=sys.stderr)
        return 1
    print(f"OK: {share:.1%} is at least {args.goal:.0%}")
    return 0


# --- the rule -----------------------------------------------------------------------------------


def write(count: int, seed: int) -> str:
    """`count` sentences, one a line; the text begins with a line break."""
    import numpy as np

    rng = np.random.default_rng(seed)

    def animals() -> tuple[str, bool]:
        number, quality, animal = (rng.choice(words) for words in (NUMBERS, QUALITIES, ANIMALS))
        return f"{number} {quality} {animal}{'s' * (number != 'one')}", number == "one"

    lines = []
    for _ in range(count):
        (subject, single), (thing, _) = animals(), animals()
        action = rng.choice(ACTIONS) + "s" * single
        lines.append(f"{subject} {action} {thing} {rng.choice(PLACES)}.")
    return "\n" + "\n".join(lines) + "\n"


def follows_rule(sentence: str) -> bool:
    words = sentence.removesuffix(".").split(" ", 7)
    if len(words) != 8 or not sentence.endswith(".") or words[7] not in PLACES:
        return False
    single = words[0] == "one"
    action = words[3].removesuffix("s") if single else words[3]
    agrees = words[3] == action + "s" * single
    return is_group(words[:3]) and agrees and action in ACTIONS and is_group(words[4:7])


def is_group(words: list[str]) -> bool:
    number, quality, animal = words
    plain = animal if number == "one" else animal.removesuffix("s")
    right = animal == plain + "s" * (number != "one")
    return number in NUMBERS and quality in QUALITIES and plain in ANIMALS and right


def nats_per_letter(count: int, seed: int) -> float:
    """The least possible loss: what each sentence leaves open, over its letters."""
    choices = [NUMBERS, QUALITIES, ANIMALS, ACTIONS, NUMBERS, QUALITIES, ANIMALS, PLACES]
    open_in_each = sum(math.log(len(words)) for words in choices)
    return count * open_in_each / len(write(count, seed))


# --- arguments ----------------------------------------------------------------------------------


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--text", type=file, help="a text file to learn from [made by a rule]")
    parser.add_argument("--sentences", type=count, default=6000, help="made by the rule [6000]")
    parser.add_argument("--epochs", type=count, default=10, help="[10]")
    parser.add_argument("--length", type=count, default=64, help="letters that it looks at [64]")
    parser.add_argument("--learning-rate", type=float, default=0.005, help="its peak [0.005]")
    parser.add_argument("--layers", type=count, default=2, help="[2]")
    parser.add_argument("--width", type=count, default=96, help="a multiple of 4 [96]")
    parser.add_argument("--prompt", default="\n", help="what it continues [a line break]")
    parser.add_argument("--temperature", type=float, default=0.8, help="0 is greedy [0.8]")
    parser.add_argument("--seed", type=int, default=0, help="of text, weights and writing [0]")
    parser.add_argument(
        "--precision",
        choices=["float32", "mixed_bfloat16", "auto"],
        default="float32",
        help="float32 is the faster one for small networks on a CPU [float32]",
    )
    parser.add_argument("--small", action="store_true", help="a smaller network, for a quick test")
    args = parser.parse_args()
    args.goal = 0.90
    if args.small:
        args.sentences, args.epochs, args.layers, args.width, args.goal = 3000, 8, 2, 64, 0.5
    check(parser, args)
    return args


def check(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    if args.seed < 0:
        parser.error(f"argument --seed: {args.seed} is negative; use 0 or more")
    if not 0 < args.learning_rate <= 1:
        parser.error(f"argument --learning-rate: {args.learning_rate} is not in (0, 1]")
    if args.width % 4:
        parser.error(f"argument --width: {args.width} is no multiple of 4, the number of heads")
    if not 0 <= args.temperature < math.inf:
        parser.error(f"argument --temperature: {args.temperature} is no number of at least 0")
    if not 0 < len(args.prompt) < args.length:
        parser.error(f"argument --prompt: use 1 to {args.length - 1} letters, less than --length")
    if args.text and args.small:
        parser.error("argument --small: it is for the text made by the rule only")


def count(text: str) -> int:
    """A positive whole number from the command line."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def file(text: str) -> Path:
    """A file that is there."""
    if not Path(text).is_file():
        raise argparse.ArgumentTypeError(f"there is no file {text!r}")
    return Path(text)


if __name__ == "__main__":
    sys.exit(main())
