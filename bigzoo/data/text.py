"""Text in: tokenizers, batches of token ids, and reviews drawn by rule."""

from __future__ import annotations

from bigzoo.data._reviews import REVIEW_NAMES, drawn_reviews
from bigzoo.data._text_batches import BUCKETS, TextBatches
from bigzoo.data._text_sources import text_csv, text_folder
from bigzoo.data._text_windows import text_windows
from bigzoo.data._tokenizer import Tokenizer

__all__ = [
    "BUCKETS",
    "REVIEW_NAMES",
    "TextBatches",
    "Tokenizer",
    "drawn_reviews",
    "text_csv",
    "text_folder",
    "text_windows",
]
