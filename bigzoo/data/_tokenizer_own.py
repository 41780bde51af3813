"""Words or characters as tokens: tokenizers that need no package."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

PAD, UNKNOWN, CLASSIFY, SEPARATE = "[PAD]", "[UNK]", "[CLS]", "[SEP]"
_WORDS = re.compile(r"\w+|[^\w\s]")


def train_own(
    texts: list[str], size: int, kind: str, lowercase: bool, special_tokens: bool
) -> OwnTokens:
    """The most frequent words or characters; equally frequent ones in alphabetical order."""
    special = [PAD, UNKNOWN, *([CLASSIFY, SEPARATE] if special_tokens else [])]
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(pieces(text, kind, lowercase))
    ranked = sorted(counts, key=lambda piece: (-counts[piece], piece))
    return OwnTokens(special + ranked[: size - len(special)], kind, lowercase, special_tokens)


def pieces(text: str, kind: str, lowercase: bool) -> list[str]:
    """The words and punctuation marks, or the characters, of a text."""
    text = text.lower() if lowercase else text
    return _WORDS.findall(text) if kind == "word" else list(text)


class OwnTokens:
    """A vocabulary of words or characters.

    Args:
        vocabulary: The token of each id; "[PAD]" is 0 and "[UNK]" is 1.
        kind: "word" or "char".
        lowercase: Whether texts are lowered first.
        special_tokens: Whether a text is framed by "[CLS]" and "[SEP]", ids 2 and 3.
    """

    def __init__(
        self, vocabulary: list[str], kind: str, lowercase: bool, special_tokens: bool
    ) -> None:
        self.vocabulary = vocabulary
        self.kind = kind
        self.lowercase = lowercase
        self.special_tokens = special_tokens
        self._start = 4 if special_tokens else 2
        # A word of a text is never a special token, even if it is spelled like one.
        self._ids = {piece: i for i, piece in enumerate(vocabulary) if i >= self._start}

    @classmethod
    def from_config(cls, config: dict[str, Any], shown: str) -> OwnTokens:
        """From what `config` gave; `shown` is the name of the file."""
        vocabulary = config.get("vocabulary")
        is_list = isinstance(vocabulary, list) and all(isinstance(one, str) for one in vocabulary)
        if not is_list or not vocabulary or vocabulary[:2] != [PAD, UNKNOWN]:
            raise ValueError(
                f"'{shown}' has no vocabulary that begins with {PAD} and {UNKNOWN}; expected a "
                "file that Tokenizer.save wrote. Save the tokenizer again."
            )
        lowercase, framed = bool(config.get("lowercase")), bool(config.get("special_tokens"))
        return cls(list(vocabulary), str(config["kind"]), lowercase, framed)

    def config(self) -> dict[str, Any]:
        """All that `from_config` needs."""
        return {
            "lowercase": self.lowercase,
            "special_tokens": self.special_tokens,
            "vocabulary": self.vocabulary,
        }

    @property
    def vocab_size(self) -> int:
        return len(self.vocabulary)

    def num_special(self, is_pair: bool) -> int:
        """How many special tokens frame a text or a pair."""
        return (3 if is_pair else 2) if self.special_tokens else 0

    def encode(self, text: str, special_tokens: bool) -> list[int]:
        ids = self._plain(text)
        return self._framed(ids, None)[0] if special_tokens else ids

    def encode_rows(
        self, texts: list[str], pairs: list[str] | None
    ) -> list[tuple[list[int], list[int]]]:
        if pairs is None:
            return [self._framed(self._plain(text), None) for text in texts]
        both = zip(texts, pairs, strict=True)
        return [self._framed(self._plain(one), self._plain(two)) for one, two in both]

    def cut(self, text: str, pair: str | None, limit: int) -> tuple[list[int], list[int]]:
        """A row of at most `limit` tokens."""
        first, second = self._plain(text), None if pair is None else self._plain(pair)
        room = limit - self.num_special(second is not None)
        if second is None:
            return self._framed(first[:room], None)
        keep = longest_first(len(first), len(second), room)
        return self._framed(first[: keep[0]], second[: keep[1]])

    def decode(self, ids: list[int], special_tokens: bool) -> str:
        shown = [self.vocabulary[i] for i in ids if special_tokens or i == 1 or i >= self._start]
        return ("" if self.kind == "char" else " ").join(shown)

    def _plain(self, text: str) -> list[int]:
        return [self._ids.get(piece, 1) for piece in pieces(text, self.kind, self.lowercase)]

    def _framed(self, first: list[int], second: list[int] | None) -> tuple[list[int], list[int]]:
        if not self.special_tokens:
            rest = second or []
            return first + rest, [0] * len(first) + [1] * len(rest)
        ids, segments = [2, *first, 3], [0] * (len(first) + 2)
        if second is not None:
            ids, segments = [*ids, *second, 3], segments + [1] * (len(second) + 1)
        return ids, segments


def longest_first(first: int, second: int, room: int) -> tuple[int, int]:
    """How many tokens of each of two texts stay, the longer one losing first."""
    if first + second <= room:
        return first, second
    short, long = min(first, second), max(first, second)
    # The short one stays whole where it takes less than half; else both get half.
    keep = (short, room - short) if short < room - short else (room // 2, room - room // 2)
    keep = (min(keep[0], short), min(keep[1], long))
    return keep if first <= second else (keep[1], keep[0])
