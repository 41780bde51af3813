"""Texts to token ids and back: the tokenizer of a checkpoint, or one trained on your texts."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from bigzoo._errors import check_bool, check_choice, check_int, message
from bigzoo.data._texts import check_texts, check_unicode
from bigzoo.data._tokenizer_files import (
    OWN_FILE,
    FileTokens,
    check_folder,
    limits_of,
    open_files,
    read_json,
    train_bpe,
    write_text,
)
from bigzoo.data._tokenizer_own import OwnTokens, train_own

__all__ = ["Tokenizer"]

Encoded = tuple[list[int], list[int]]  # token ids, segment ids


class Tokenizer:
    """Texts to token ids, the numbers that text models take, and back.

    Made by `Tokenizer.from_folder` from the files of a checkpoint, or by `Tokenizer.train` on your
    own texts. Its ids are those of the package `tokenizers`, and so those of `transformers`, bit
    for bit. Call it with texts to get padded arrays.

    Attributes:
        kind: "checkpoint", "word", "char" or "bpe".
        vocab_size: Number of token ids; they go from 0 to `vocab_size - 1`.
        max_length: Most tokens that the checkpoint's model takes; None where nothing says so.
        pad_id: The id that fills short texts up.

    Example:
        >>> tok = bz.data.text.Tokenizer.train(["A fine film.", "A dull film."], vocab_size=10)
        >>> tok.encode("a fine film!"), tok.decode(tok.encode("a fine film"))
        ([3, 6, 4, 1], 'a fine film')
        >>> batch = tok(["a dull film.", "fine"])
        >>> batch["token_ids"].tolist()
        [[3, 5, 4, 2], [6, 0, 0, 0]]
        >>> batch["padding_mask"].tolist()
        [[1, 1, 1, 1], [1, 0, 0, 0]]
    """

    def __init__(
        self, tokens: OwnTokens | FileTokens, kind: str, max_length: int | None, pad_id: int
    ) -> None:
        self._tokens = tokens
        self.kind = kind
        self.max_length = max_length
        self.pad_id = pad_id

    # === Making one ===

    @classmethod
    def from_folder(cls, folder: str | os.PathLike[str]) -> Tokenizer:
        """The tokenizer of a checkpoint, or one that `save` has written.

        Reads `tokenizer.json`; where there is none, `vocab.txt` (BERT), or `vocab.json` with
        `merges.txt` (GPT-2). Padding and truncation that are written in `tokenizer.json` are
        switched off. `max_length` comes from `tokenizer_config.json` and `config.json`.

        Args:
            folder: Path of the checkpoint's folder.

        Raises:
            FileNotFoundError: if the folder isn't there or has no tokenizer.
            ValueError: if a file can't be read.
            ImportError: without the package `tokenizers`, for tokenizers of a checkpoint and "bpe".

        Example:
            >>> import tempfile
            >>> folder = tempfile.mkdtemp()
            >>> bz.data.text.Tokenizer.train(["abba"], vocab_size=9, kind="char").save(folder)
            >>> bz.data.text.Tokenizer.from_folder(folder).encode("ab")
            [2, 3]
        """
        path = check_folder(folder)
        own = read_json(path / OWN_FILE)
        if own is not None and own.get("kind") in ("word", "char"):
            tokens = OwnTokens.from_config(own, str(path / OWN_FILE))
            return cls(tokens, own["kind"], own.get("max_length"), 0)
        files = open_files(path, plain_special=own is not None)
        longest, pad_id = limits_of(path, files)
        return cls(files, own["kind"] if own else "checkpoint", longest, pad_id)

    @classmethod
    def train(
        cls,
        texts: Iterable[str],
        *,
        vocab_size: int = 8000,
        kind: str = "word",
        lowercase: bool | None = None,
        special_tokens: bool = False,
        max_length: int | None = None,
    ) -> Tokenizer:
        """A tokenizer learned from texts, for models from scratch. Id 0 is padding.

        Args:
            texts: The texts of the training part alone: a vocabulary that has seen the validation
                texts makes their score too good.
            vocab_size: Most different ids, special ones included; fewer come out of few texts.
            kind: "word" takes words and punctuation marks apart and knows the most frequent ones;
                "char" single characters; "bpe" pieces of words that it learns (byte-pair encoding
                of bytes, as GPT-2: every text can be written in them). "word" and "char" give id 1
                to what they don't know. "bpe" needs the package `tokenizers`.
            lowercase: Whether to drop the difference of upper and lower case; None for True with
                "word" and False otherwise.
            special_tokens: Whether each text is framed by "[CLS]" and "[SEP]", as BERT expects.
            max_length: Most tokens of a text, at least 3; None for no limit.

        Raises:
            TypeError: if a text is not a str.
            ValueError: if there is no text, or an argument is out of its range.

        Example:
            >>> tok = bz.data.text.Tokenizer.train(["to be or not to be"], kind="char")
            >>> tok.vocab_size, tok.decode(tok.encode("not to be"))
            (9, 'not to be')
        """
        rows = check_texts("texts", texts)
        kind = check_choice("kind", kind, ("word", "char", "bpe"))
        size = check_int("vocab_size", vocab_size, 260 if kind == "bpe" else 5)
        lower = kind == "word" if lowercase is None else check_bool("lowercase", lowercase)
        frame = check_bool("special_tokens", special_tokens)
        if max_length is not None:
            max_length = check_int("max_length", max_length, 3)
        if not any(text.strip() for text in rows):
            raise ValueError(message("texts", rows, "at least one text that is not empty"))
        tokens: OwnTokens | FileTokens
        if kind == "bpe":
            tokens = train_bpe(rows, size, lower, frame)
        else:
            tokens = train_own(rows, size, kind, lower, frame)
        return cls(tokens, kind, max_length, 0)

    # === Using it ===

    @property
    def vocab_size(self) -> int:
        return self._tokens.vocab_size

    def encode(self, text: str, *, special_tokens: bool = True) -> list[int]:
        """The token ids of one text, neither padded nor cut.

        Args:
            text: Any valid Unicode.
            special_tokens: Whether to add what the model expects around a text, such as "[CLS]".

        Example:
            >>> bz.data.text.Tokenizer.train(["so what"], special_tokens=True).encode("So what")
            [2, 4, 5, 3]
        """
        if not isinstance(text, str):
            raise TypeError(message("text", text, "a str", "For many texts call `tok(texts)`."))
        check_unicode("text", text)
        return self._tokens.encode(str(text), check_bool("special_tokens", special_tokens))

    def decode(self, ids: Any, *, special_tokens: bool = False) -> str:
        """The text of token ids. What tokenizing dropped, such as upper case, does not come back.

        Args:
            ids: Integers of shape (n,), from 0 to `vocab_size - 1`.
            special_tokens: Whether to show padding, "[CLS]" and their like.

        Example:
            >>> tok = bz.data.text.Tokenizer.train(["so what"], special_tokens=True)
            >>> tok.decode([2, 4, 5, 3, 0]), tok.decode([2, 4, 5, 3, 0], special_tokens=True)
            ('so what', '[CLS] so what [SEP] [PAD]')
        """
        array = np.asarray(ids)
        whole = array.dtype.kind in "iu" or array.size == 0
        if array.ndim != 1 or not whole:
            raise TypeError(message("ids", ids, "integers of shape (n,), the tokens of one text"))
        if array.size and (array.min() < 0 or array.max() >= self.vocab_size):
            got = f"from {array.min()} to {array.max()}"
            raise ValueError(f"`ids` go {got}; expected 0 to {self.vocab_size - 1}.")
        return self._tokens.decode(array.tolist(), check_bool("special_tokens", special_tokens))

    def __call__(
        self,
        texts: Iterable[str],
        pairs: Iterable[str] | None = None,
        *,
        length: int | None = None,
        truncate: bool = False,
    ) -> dict[str, np.ndarray]:
        """Token ids of many texts, filled up to one length.

        Args:
            texts: A list, array or pandas column of n str; one str counts as a list of it.
            pairs: A second text for each row, where the model compares two.
            length: Tokens per row; None for those of the longest text.
            truncate: Whether to cut texts that are longer than `length` or `max_length`; otherwise
                they are an error.

        Returns:
            A dict of int32 arrays of shape (n, length): "token_ids"; "padding_mask", 1 for tokens
            and 0 for padding; "segment_ids", 1 for the tokens of the second text, else 0.

        Raises:
            TypeError: if a row is not a str; the message names it.
            ValueError: if a text is too long and `truncate` is False.

        Example:
            >>> tok = bz.data.text.Tokenizer.train(["so what now"], special_tokens=True)
            >>> tok(["so what"], ["now"])["segment_ids"].tolist()
            [[0, 0, 0, 0, 1, 1]]
            >>> tok(["so what now", "so"], length=4, truncate=True)["token_ids"].tolist()
            [[2, 5, 6, 3], [2, 5, 3, 0]]
        """
        if length is not None:
            length = check_int("length", length, 1)
        rows = self.rows(texts, pairs, length=length, truncate=truncate)
        if not rows:
            raise ValueError("`texts` has no rows; expected at least one text.")
        width = max(1, *(len(ids) for ids, _ in rows)) if length is None else length
        shape = len(rows), width
        token_ids = np.full(shape, self.pad_id, np.int32)
        mask, segments = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
        for row, (ids, types) in enumerate(rows):
            token_ids[row, : len(ids)] = ids
            segments[row, : len(ids)] = types
            mask[row, : len(ids)] = 1
        return {"token_ids": token_ids, "padding_mask": mask, "segment_ids": segments}

    def rows(
        self,
        texts: Iterable[str],
        pairs: Iterable[str] | None = None,
        *,
        length: int | None = None,
        truncate: bool = False,
    ) -> list[Encoded]:
        """`(token ids, segment ids)` of each text as lists, without padding; arguments as above."""
        truncate = check_bool("truncate", truncate)
        first = check_texts("texts", texts)
        second = None if pairs is None else check_texts("pairs", pairs)
        if second is not None and len(second) != len(first):
            raise ValueError(
                f"`texts` has {len(first)} rows and `pairs` has {len(second)}; expected as many."
            )
        limit = self._limit(length, second is not None)
        rows = self._tokens.encode_rows(first, second)
        if limit is None:
            return rows
        for row, (ids, _) in enumerate(rows):
            if len(ids) > limit:
                if not truncate:
                    raise ValueError(self._too_long(row, len(ids), limit, length))
                rows[row] = self._tokens.cut(first[row], second[row] if second else None, limit)
        return rows

    def _limit(self, length: int | None, is_pair: bool) -> int | None:
        if length is None:
            return self.max_length
        if self.max_length is not None and length > self.max_length:
            expected = f"at most {self.max_length}, the most that the model takes"
            raise ValueError(message("length", length, expected))
        special = self._tokens.num_special(is_pair)
        if length <= special:
            expected = f"at least {special + 1}: {special} special tokens and one of the text"
            raise ValueError(message("length", length, expected))
        return length

    def _too_long(self, row: int, count: int, limit: int, length: int | None) -> str:
        which = "`length`" if length is not None else "the most that the model takes"
        return (
            f"`texts[{row}]` has {count} tokens; expected at most {limit}, {which}. Pass "
            "truncate=True to cut longer texts, or divide them."
        )

    # === Files ===

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write it into a folder, from which `from_folder` reads it; keep it beside its model.

        A tokenizer of a checkpoint and "bpe" become `tokenizer.json`, which `transformers` reads,
        too.

        Args:
            folder: Path; made if it isn't there.

        Example:
            >>> import os, tempfile
            >>> folder = tempfile.mkdtemp()
            >>> bz.data.text.Tokenizer.train(["some words"]).save(folder)
            >>> os.listdir(folder)
            ['bigzoo_tokenizer.json']
        """
        if not isinstance(folder, (str, os.PathLike)) or folder == "":
            raise TypeError(message("folder", folder, "the path of a folder"))
        path = Path(folder).expanduser()
        if path.exists() and not path.is_dir():
            raise ValueError(message("folder", str(path), "a folder; this is a file"))
        path.mkdir(parents=True, exist_ok=True)
        config: dict[str, Any] = {"kind": self.kind, "max_length": self.max_length}
        if isinstance(self._tokens, OwnTokens):
            config |= self._tokens.config()
        else:
            self._tokens.save(path, self.max_length, self.pad_id)
            # Another tokenizer's file would win when the folder is read.
            if self.kind == "checkpoint":
                (path / OWN_FILE).unlink(missing_ok=True)
                return
        write_text(path / OWN_FILE, json.dumps(config, ensure_ascii=False, indent=1) + "\n")

    def __repr__(self) -> str:
        limit = f", max_length={self.max_length}" if self.max_length is not None else ""
        return f"Tokenizer(kind={self.kind!r}, vocab_size={self.vocab_size}{limit})"
