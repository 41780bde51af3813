"""The tokenizer files of checkpoints, read and written through the package `tokenizers`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from bigzoo._errors import message
from bigzoo._optional import require
from bigzoo.data._tokenizer_own import CLASSIFY, PAD, SEPARATE, longest_first

OWN_FILE = "bigzoo_tokenizer.json"
_WANTED = "tokenizer.json, vocab.txt (BERT), or vocab.json with merges.txt (GPT-2)"
_UNLIMITED = 10**6  # files of models without a limit say 10**30
_PURPOSE = "This tokenizer"
_AGAIN = "Copy the checkpoint again."


# === Reading ===


def check_folder(folder: Any) -> Path:
    """`folder` as the path of a folder that is there."""
    expected = f"the path of a folder with {_WANTED}"
    if not isinstance(folder, (str, os.PathLike)) or folder == "":
        raise TypeError(message("folder", folder, expected))
    path = Path(folder).expanduser()
    if not path.exists():
        raise FileNotFoundError(message("folder", str(folder), f"{expected}; nothing is there"))
    if not path.is_dir():
        fix = f"Give its folder, '{path.parent}'."
        raise ValueError(message("folder", str(folder), f"{expected}; this is a file", fix))
    return path


def read_json(path: Path) -> dict[str, Any] | None:
    """A JSON file as a dict; None if it isn't there."""
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(
            f"'{path}' is not JSON ({error}); expected a whole file. {_AGAIN}"
        ) from error
    if not isinstance(found, dict):
        raise ValueError(f"'{path}' holds a {type(found).__name__}; expected a JSON object.")
    return found


def open_files(folder: Path, plain_special: bool) -> FileTokens:
    """The tokenizer in a folder.

    Args:
        folder: A checkpoint's folder.
        plain_special: Whether text that is spelled like a special token stays text. In checkpoints
            it becomes the token, as in `transformers`.
    """
    whole = folder / "tokenizer.json"
    if whole.is_file():
        tokenizer = _load(whole)
    elif (folder / "vocab.txt").is_file():
        tokenizer = _bert(folder)
    elif (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
        tokenizer = _gpt2(folder)
    else:
        found = sorted(entry.name for entry in folder.iterdir())[:8]
        shown = f"It has {', '.join(found)}." if found else "It is empty."
        raise FileNotFoundError(
            f"The folder '{folder}' has no tokenizer; expected {_WANTED}. {shown}"
        )
    # Some files have padding and truncation to the length of one training run written in.
    tokenizer.no_padding()
    tokenizer.no_truncation()
    tokenizer.encode_special_tokens = plain_special
    return FileTokens(tokenizer)


def limits_of(folder: Path, tokens: FileTokens) -> tuple[int | None, int]:
    """(most tokens or None, id of the padding token) as the checkpoint's files say."""
    settings = read_json(folder / "tokenizer_config.json") or {}
    config = read_json(folder / "config.json") or {}
    given = (
        settings.get("model_max_length"),
        config.get("max_position_embeddings"),
        config.get("n_positions"),
    )
    known = [int(one) for one in given if isinstance(one, (int, float)) and 0 < one < _UNLIMITED]
    special = read_json(folder / "special_tokens_map.json") or {}
    for name in (settings.get("pad_token"), special.get("pad_token"), PAD, "<pad>"):
        pad_id = tokens.id_of(name)
        if pad_id is not None:
            return min(known, default=None), pad_id
    # GPT-2 has no padding: what stands behind a text doesn't matter to a causal model.
    end = tokens.id_of(settings.get("eos_token")) or tokens.id_of("<|endoftext|>")
    return min(known, default=None), end or 0


def _load(path: Path) -> Any:
    tokenizers = require("tokenizers", "tokenizers", _PURPOSE)
    try:
        return tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # the package raises plain Exceptions
        raise ValueError(
            f"'{path}' can't be read as a tokenizer ({error}); expected a file of the package "
            f"tokenizers. {_AGAIN}"
        ) from error


def _bert(folder: Path) -> Any:
    """WordPiece with BERT's normalisation from vocab.txt, a token per line."""
    tokenizers = require("tokenizers", "tokenizers", _PURPOSE)
    settings = read_json(folder / "tokenizer_config.json") or {}
    lines = (folder / "vocab.txt").read_text(encoding="utf-8").split("\n")
    names = [line.rstrip("\r") for line in (lines[:-1] if lines[-1] == "" else lines)]
    vocabulary = {name: i for i, name in enumerate(names)}
    special = {
        key: _name(settings.get(f"{key}_token"), default)
        for key, default in (("unk", "[UNK]"), ("cls", CLASSIFY), ("sep", SEPARATE), ("pad", PAD))
    }
    missing = [name for name in special.values() if name not in vocabulary]
    if missing:
        raise ValueError(
            f"'{folder / 'vocab.txt'}' lacks {', '.join(missing)}; expected BERT's vocabulary, a "
            f"token per line. {_AGAIN}"
        )
    tokenizer = tokenizers.Tokenizer(
        tokenizers.models.WordPiece(vocabulary, unk_token=special["unk"])
    )
    tokenizer.normalizer = tokenizers.normalizers.BertNormalizer(
        lowercase=bool(settings.get("do_lower_case", True)),
        strip_accents=settings.get("strip_accents"),
        handle_chinese_chars=bool(settings.get("tokenize_chinese_chars", True)),
    )
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = tokenizers.decoders.WordPiece()
    _frame(tokenizer, special["cls"], special["sep"])
    mask = _name(settings.get("mask_token"), "[MASK]")
    known = [name for name in (*special.values(), mask) if name in vocabulary]
    tokenizer.add_special_tokens(list(known))
    return tokenizer


def _gpt2(folder: Path) -> Any:
    """Byte-level byte-pair encoding from vocab.json and merges.txt."""
    settings = read_json(folder / "tokenizer_config.json") or {}
    config = read_json(folder / "config.json") or {}
    kind = f"{settings.get('tokenizer_class', '')} {config.get('model_type', '')}".strip().lower()
    if kind and "gpt2" not in kind:
        # RoBERTa and others have files of the same names and other special tokens.
        raise ValueError(
            f"The folder '{folder}' has vocab.json and merges.txt of another kind ({kind}); "
            "expected GPT-2's, or a tokenizer.json. Save the checkpoint again with transformers, "
            "which writes tokenizer.json."
        )
    tokenizers = require("tokenizers", "tokenizers", _PURPOSE)
    try:
        model = tokenizers.models.BPE.from_file(
            str(folder / "vocab.json"), str(folder / "merges.txt")
        )
    except Exception as error:  # the package raises plain Exceptions
        raise ValueError(
            f"vocab.json and merges.txt in '{folder}' can't be read ({error}). {_AGAIN}"
        ) from error
    tokenizer = tokenizers.Tokenizer(model)
    space = bool(settings.get("add_prefix_space", False))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=space)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    end = _name(settings.get("eos_token"), "<|endoftext|>")
    if tokenizer.token_to_id(end) is not None:
        tokenizer.add_special_tokens([end])
    return tokenizer


def _name(token: Any, default: str) -> str:
    """A token's name: files have it plain, or in a dict as "content"."""
    if isinstance(token, dict):
        token = token.get("content")
    return token if isinstance(token, str) else default


def _frame(tokenizer: Any, first: str, last: str) -> None:
    """Put each text between two special tokens, and a pair of texts into one row."""
    tokenizers = require("tokenizers", "tokenizers", _PURPOSE)
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single=f"{first}:0 $A:0 {last}:0",
        pair=f"{first}:0 $A:0 {last}:0 $B:1 {last}:1",
        special_tokens=[(name, tokenizer.token_to_id(name)) for name in (first, last)],
    )


# === Training ===


def train_bpe(texts: list[str], size: int, lowercase: bool, special_tokens: bool) -> FileTokens:
    """Byte-level byte-pair encoding learned from texts; "[PAD]" is 0."""
    tokenizers = require("tokenizers", "tokenizers", "A tokenizer of kind 'bpe'")
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    if lowercase:
        tokenizer.normalizer = tokenizers.normalizers.Lowercase()
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[PAD, *([CLASSIFY, SEPARATE] if special_tokens else [])],
        initial_alphabet=sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    if special_tokens:
        _frame(tokenizer, CLASSIFY, SEPARATE)
    tokenizer.encode_special_tokens = True
    return FileTokens(tokenizer)


# === Using ===


class FileTokens:
    """A `tokenizers.Tokenizer` in the form that `Tokenizer` uses."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        # Ids may have gaps, and the embedding needs a row for the highest.
        self.vocab_size = 1 + max(tokenizer.get_vocab(with_added_tokens=True).values())

    def id_of(self, token: Any) -> int | None:
        """The id of a token by name; None for no such token."""
        name = _name(token, "")
        return self.tokenizer.token_to_id(name) if name else None

    def num_special(self, is_pair: bool) -> int:
        return int(self.tokenizer.num_special_tokens_to_add(is_pair))

    def encode(self, text: str, special_tokens: bool) -> list[int]:
        return list(self.tokenizer.encode(text, add_special_tokens=special_tokens).ids)

    def encode_rows(
        self, texts: list[str], pairs: list[str] | None
    ) -> list[tuple[list[int], list[int]]]:
        rows = texts if pairs is None else list(zip(texts, pairs, strict=True))
        return [(one.ids, one.type_ids) for one in self.tokenizer.encode_batch(rows)]

    def cut(self, text: str, pair: str | None, limit: int) -> tuple[list[int], list[int]]:
        """A row of at most `limit` tokens, cut as `transformers` cuts."""
        # By hand: the package's own truncation is a setting that all threads would see.
        room = limit - self.num_special(pair is not None)
        first = self.tokenizer.encode(text, add_special_tokens=False)
        second = None if pair is None else self.tokenizer.encode(pair, add_special_tokens=False)
        keep = room, 0
        if second is not None:
            keep = longest_first(len(first), len(second), room)
            second.truncate(keep[1])
        first.truncate(keep[0])
        row = self.tokenizer.post_process(first, second, True)
        return row.ids, row.type_ids

    def decode(self, ids: list[int], special_tokens: bool) -> str:
        return str(self.tokenizer.decode(ids, skip_special_tokens=not special_tokens))

    def save(self, folder: Path, max_length: int | None, pad_id: int) -> None:
        """`tokenizer.json`, and what it doesn't say in `tokenizer_config.json`."""
        known = read_json(folder / "tokenizer_config.json") or {}
        settings = {"tokenizer_class": "PreTrainedTokenizerFast", **known}
        settings["pad_token"] = self.tokenizer.id_to_token(pad_id)
        if max_length is not None:
            settings["model_max_length"] = max_length
        write_text(folder / "tokenizer.json", self.tokenizer.to_str())
        write_text(folder / "tokenizer_config.json", json.dumps(settings, indent=2) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a file as a whole or not at all."""
    half = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        half.write_text(text, encoding="utf-8")
        half.replace(path)
    finally:
        half.unlink(missing_ok=True)
