"""Drawn reviews: texts to train on when there is nothing to download."""

from __future__ import annotations

import numpy as np

from bigzoo._errors import check_int

REVIEW_NAMES = ("negative", "positive")

# What is reviewed, and the parts of it that a sentence can praise or blame.
_THINGS = {
    "film": ("acting", "plot", "camera work", "score", "ending", "dialogue", "cast"),
    "novel": ("plot", "prose", "ending", "hero", "first chapter", "dialogue", "pace"),
    "hotel": ("room", "breakfast", "service", "bed", "view", "pool", "location"),
    "restaurant": ("soup", "service", "menu", "dessert", "wine list", "bread", "kitchen"),
    "phone": ("screen", "battery", "camera", "keyboard", "speaker", "software", "case"),
    "album": ("singing", "sound", "first song", "drumming", "cover", "melody", "mixing"),
    "game": ("story", "artwork", "music", "control", "ending", "tutorial", "multiplayer mode"),
}
# Common words first, rare ones last: they are drawn with falling probability.
_GOOD = (
    "good", "great", "wonderful", "excellent", "fine", "lovely", "superb", "brilliant", "charming",
    "splendid", "delightful", "impressive", "gorgeous", "flawless", "sublime", "exquisite",
    "riveting", "masterly", "luminous", "resplendent",
)  # fmt: skip
_BAD = (
    "bad", "terrible", "awful", "poor", "dull", "boring", "weak", "dreadful", "clumsy", "shoddy",
    "disappointing", "annoying", "ugly", "hopeless", "abysmal", "insipid", "turgid", "execrable",
    "lamentable", "ham-fisted",
)  # fmt: skip
_DEGREES = ("", "", "", "very ", "really ", "quite ", "simply ", "truly ")
_SAY_YES = ("I loved this {thing}", "A pleasure from start to finish", "I would buy it again",
            "Highly recommended", "Worth every cent", "I'll come back for more")  # fmt: skip
_SAY_NO = ("I hated this {thing}", "A waste of time from start to finish", "I want my money back",
           "Stay away from it", "Not worth a cent", "I'll never come back for more")  # fmt: skip
_FILLERS = (
    "I came across this {thing} last {day}",
    "A friend had told me about the {thing}",
    "My sister gave it to me for my birthday",
    "It was raining all {day} and I had nothing else to do",
    "We were {number} people that evening",
    "I have tried {number} others this year",
    "The {part} is what everybody talks about",
    "You can find it almost anywhere",
    "I read about it on the train on a {day}",
    "It took me about {number} hours in all",
    "There isn't much to say about the {part}",
    "My neighbour asked me what I think of the {part}",
)
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_NUMBERS = ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_LONG = 0.25  # share of reviews with many sentences beside the point


def drawn_reviews(n: int = 1000, *, seed: int = 0) -> tuple[list[str], np.ndarray]:
    """Short reviews that praise or blame, written by rule: no files, no download.

    The opinion stands in one sentence in plain words ("The plot was superb."), negated ("The plot
    wasn't dull."), or against another one, where what follows "but" counts ("The plot was superb,
    but overall it is a dull film."). Rare words are drawn rarely, and a quarter of the reviews say
    much that is beside the point. No label is wrong. A model that counts words can't read the last
    two kinds, in which the same words stand in another order.

    Review `i` depends on `seed` and `i` alone: a larger `n` adds reviews and keeps the others. The
    classes are balanced: each pair of reviews (0 and 1, 2 and 3, ...) has one of each.

    Args:
        n: Number of reviews, at least 1.
        seed: At least 0. For test data take another seed, or split.

    Returns:
        `(texts, y)`: a list of n str, and int64 of shape (n,), 0 for negative and 1 for positive,
        as in `bigzoo.data.REVIEW_NAMES`.

    Raises:
        ValueError: if an argument is out of its range.
        TypeError: if an argument has the wrong type.

    Example:
        >>> texts, y = bz.data.drawn_reviews(4)
        >>> len(texts), sorted(y.tolist()), bz.data.REVIEW_NAMES
        (4, [0, 0, 1, 1], ('negative', 'positive'))
    """
    n = check_int("n", n, 1)
    seed = check_int("seed", seed, 0)
    y = np.array([_label(seed, i) for i in range(n)], np.int64)
    texts = [_Review(np.random.default_rng([seed, i]), bool(y[i])).text() for i in range(n)]
    return texts, y


def _label(seed: int, i: int) -> int:
    first = int(np.random.default_rng([seed, i // 2, 1]).integers(2))
    return first if i % 2 == 0 else 1 - first


class _Review:
    """One review, drawn word by word."""

    def __init__(self, rng: np.random.Generator, positive: bool) -> None:
        self.rng = rng
        self.positive = positive
        self.thing = self.one(tuple(_THINGS))
        self.parts = _THINGS[self.thing]

    def text(self) -> str:
        many = self.rng.random() < _LONG
        around = int(self.rng.integers(6, 24)) if many else int(self.rng.integers(0, 3))
        sentences = [self.filler() for _ in range(around)]
        place = int(self.rng.integers(len(sentences) + 1))
        sentences.insert(place, self.opinion())
        return " ".join(f"{self.capital(one)}{self.stop()}" for one in sentences)

    # === Sentences ===

    def opinion(self) -> str:
        kind = self.rng.random()
        part, other = self.two_parts()
        if kind < 0.2:
            return self.one(_SAY_YES if self.positive else _SAY_NO).format(thing=self.thing)
        if kind < 0.6:
            return f"the {part} was {self.word(self.positive)}"
        if kind < 0.75:
            negation = self.one(("wasn't", "was not", "was never", "was anything but"))
            return f"the {part} {negation} {self.word(not self.positive, plain=True)}"
        return self.contrast(part, other)

    def contrast(self, part: str, other: str) -> str:
        """The main clause decides; the other one says the opposite."""
        for_it, against = self.word(self.positive), self.word(not self.positive)
        form = int(self.rng.integers(4))
        if form == 0:
            article = "an" if for_it[0] in "aeiou" else "a"
            return f"the {part} was {against}, but overall it is {article} {for_it} {self.thing}"
        if form == 1:
            return f"although the {part} was {against}, on the whole the {self.thing} is {for_it}"
        if form == 2:
            return f"on the whole the {self.thing} is {for_it}, although the {part} was {against}"
        return f"the {part} and the {other} were {against}, yet the {self.thing} is {for_it}"

    def filler(self) -> str:
        return self.one(_FILLERS).format(
            thing=self.thing,
            part=self.one(self.parts),
            day=self.one(_DAYS),
            number=self.one(_NUMBERS),
        )

    # === Words ===

    def word(self, good: bool, plain: bool = False) -> str:
        words = _GOOD if good else _BAD
        # Falls as 1 / (rank + 2): the last word is drawn about ten times less than the first.
        share = 1 / (np.arange(len(words)) + 2.0)
        place = np.searchsorted(np.cumsum(share), self.rng.random() * share.sum())
        degree = "" if plain else self.one(_DEGREES)
        return degree + words[min(int(place), len(words) - 1)]

    def two_parts(self) -> tuple[str, str]:
        first = int(self.rng.integers(len(self.parts)))
        second = first + int(self.rng.integers(1, len(self.parts)))
        return self.parts[first], self.parts[second % len(self.parts)]

    def stop(self) -> str:
        return "!" if self.rng.random() < 0.1 else "."

    def one(self, choices: tuple[str, ...]) -> str:
        return choices[int(self.rng.integers(len(choices)))]

    @staticmethod
    def capital(sentence: str) -> str:
        return sentence[0].upper() + sentence[1:]
