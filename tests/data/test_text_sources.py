"""text_folder, text_csv, text_windows: what they read, how they split, what they refuse."""

from __future__ import annotations

import os

import numpy as np
import pytest

import bigzoo as bz
from bigzoo.data.text import Tokenizer

TEXTS, LABELS = bz.data.drawn_reviews(60)
TOKENS = Tokenizer.train(TEXTS)
NAMES = bz.data.REVIEW_NAMES


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "reviews"
    for i, (text, label) in enumerate(zip(TEXTS, LABELS, strict=True)):
        place = root / NAMES[label] / ("deep" if i % 3 == 0 else "")
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{i:02}.txt").write_text(text, encoding="utf-8")
    return root


@pytest.fixture
def table(tmp_path):
    rows = [
        f'"{text}",{NAMES[label]},{i // 6}'
        for i, (text, label) in enumerate(zip(TEXTS, LABELS, strict=True))
    ]
    path = tmp_path / "reviews.csv"
    path.write_text("\n".join(["review,opinion,author", *rows]) + "\n", encoding="utf-8")
    return path


def texts_of(batches) -> set[tuple[int, ...]]:
    x, _ = batches.arrays()
    ids = x["token_ids"] if isinstance(x, dict) else x
    return {tuple(row[row > 0].tolist()) for row in ids}


def labels_of(batches) -> dict[tuple[int, ...], int]:
    x, y = batches.arrays()
    rows = [tuple(row[row > 0].tolist()) for row in x["token_ids"]]
    return dict(zip(rows, y.tolist(), strict=True))


WANTED = {tuple(TOKENS.encode(text)): int(label) for text, label in zip(TEXTS, LABELS, strict=True)}


def test_folder_is_read_and_split(folder):
    train, val = bz.data.text_folder(folder, tokenizer=TOKENS)
    assert train.class_names == val.class_names == NAMES
    assert (train.num_samples, val.num_samples) == (48, 12)
    assert np.bincount(val.y).tolist() == [6, 6]
    assert (train.shuffle, val.shuffle, train.name, val.name) == (True, False, "train", "val")
    assert {**labels_of(train), **labels_of(val)} == WANTED
    again, _ = bz.data.text_folder(folder, tokenizer=TOKENS)
    np.testing.assert_array_equal(train.arrays()[1], again.arrays()[1])
    other, _ = bz.data.text_folder(folder, tokenizer=TOKENS, seed=1)
    assert texts_of(train) != texts_of(other)
    whole, nothing = bz.data.text_folder(folder, tokenizer=TOKENS, val_fraction=0)
    assert whole.num_samples == 60 and nothing is None


def test_equal_texts_stay_on_one_side(folder):
    for name in NAMES:
        for i in range(8):
            (folder / name / f"copy{i}.txt").write_text("The very same text.")
    for seed in range(4):
        train, val = bz.data.text_folder(folder, tokenizer=TOKENS, seed=seed)
        assert not texts_of(train) & texts_of(val)


def test_class_names_choose_and_order(folder):
    (folder / "other").mkdir()
    train, _ = bz.data.text_folder(folder, tokenizer=TOKENS, class_names=["positive", "negative"])
    assert train.class_names == ("positive", "negative")
    assert labels_of(train) == {k: 1 - v for k, v in WANTED.items() if k in labels_of(train)}


def test_what_is_no_txt_is_named_in_a_warning(folder):
    (folder / "negative" / "a.pdf").write_bytes(b"%PDF")
    (folder / "negative" / ".hidden.txt").write_text("x")
    with pytest.warns(
        UserWarning, match=r"^1 file without the ending .txt left out: negative/a.pdf"
    ):
        bz.data.text_folder(folder, tokenizer=TOKENS)


def test_encodings(folder):
    (folder / "negative" / "bom.txt").write_bytes("\ufeffDull.\r\n".encode())
    bz.data.text_folder(folder, tokenizer=TOKENS)
    (folder / "negative" / "old.txt").write_bytes("café".encode("latin-1"))
    text = r"negative/old.txt' is not text in utf-8 \(byte 3 is 0xe9\).*encoding=\"latin-1\""
    with pytest.raises(ValueError, match=text):
        bz.data.text_folder(folder, tokenizer=TOKENS)
    bz.data.text_folder(folder, tokenizer=TOKENS, encoding="latin-1")
    with pytest.raises(ValueError, match="`encoding` is 'klingon'; expected a known encoding"):
        bz.data.text_folder(folder, tokenizer=TOKENS, encoding="klingon")


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (b"\x89PNG\0\0", r"positive/new.txt' is a binary file \(it has zero bytes\)"),
        (b"", r"positive/new.txt' is empty; expected text"),
        (b" \n", r"positive/new.txt' is empty; expected text"),
        (b"word " * 50, r"positive/new.txt': has 50 tokens; expected at most 40.*truncate=True"),
    ],
)
def test_files_that_can_not_be_used_are_named(folder, data, match):
    short = {"length": 40, "truncate": len(data) < 100}
    if short["truncate"]:
        (folder / "positive" / "new.txt").write_bytes(data)
        with pytest.raises(ValueError, match=match):
            bz.data.text_folder(folder, tokenizer=TOKENS, **short)
        return
    for file in folder.rglob("*.txt"):
        file.write_text(file.stem)
    (folder / "positive" / "new.txt").write_bytes(data)
    with pytest.raises(ValueError, match=match.replace("'", "'?")):
        bz.data.text_folder(folder, tokenizer=TOKENS, **short)


def test_folders_of_another_layout(tmp_path, folder):
    cases = [
        (tmp_path / "lost", FileNotFoundError, "nothing is there"),
        (folder / "negative" / "01.txt", (ValueError, FileNotFoundError), "expected a folder with"),
        (folder / "negative" / "deep", ValueError, "has no class folder"),
        (tmp_path, ValueError, "has one class folder, 'reviews'"),
        (3, TypeError, "`folder` is 3"),
    ]
    for given, error, match in cases:
        with pytest.raises(error, match=match):
            bz.data.text_folder(given, tokenizer=TOKENS)
    for name in ("train", "test"):
        (tmp_path / "parts" / name).mkdir(parents=True)
    with pytest.raises(ValueError, match="has the parts 'test', 'train' instead of class folders"):
        bz.data.text_folder(tmp_path / "parts", tokenizer=TOKENS)
    with pytest.raises(ValueError, match=r"`class_names`.*Did you mean 'positive'"):
        bz.data.text_folder(folder, tokenizer=TOKENS, class_names=["positiv", "negative"])
    (folder / "empty").mkdir()
    with pytest.raises(ValueError, match=r"reviews/empty' has 0 .txt files; expected at least 2"):
        bz.data.text_folder(folder, tokenizer=TOKENS)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
def test_a_pipe_is_left_out(folder):
    os.mkfifo(folder / "negative" / "pipe.txt")
    with pytest.warns(UserWarning, match="left out: negative/pipe.txt"):
        bz.data.text_folder(folder, tokenizer=TOKENS)


# --- tables ----------------------------------------------------------------------------------


def test_csv_is_read_and_split(table):
    train, val = bz.data.text_csv(table, text="review", target="opinion", tokenizer=TOKENS)
    assert train.class_names == NAMES
    assert (train.num_samples, val.num_samples) == (48, 12)
    assert {**labels_of(train), **labels_of(val)} == WANTED
    x, _ = bz.data.text_csv(
        table, text="review", target="opinion", tokenizer=TOKENS, inputs="token_ids", val_fraction=0
    )[0].arrays()
    assert x.ndim == 2 and x.dtype == np.int32


def test_csv_groups_stay_together(table):
    train, val = bz.data.text_csv(
        table, text="review", target="opinion", tokenizer=TOKENS, groups="author"
    )
    author = {tuple(TOKENS.encode(text)): i // 6 for i, text in enumerate(TEXTS)}
    sides = [{author[row] for row in texts_of(part)} for part in (train, val)]
    assert not sides[0] & sides[1]


def test_csv_regression_and_pairs(tmp_path):
    path = tmp_path / "pairs.csv"
    rows = [f"the film,a film {i},{i / 7:.3f}" for i in range(20)]
    path.write_text("\n".join(["a,b,score", *rows]))
    train, val = bz.data.text_csv(path, text="a", pair="b", target="score", tokenizer=TOKENS)
    assert train.y.shape == (16, 1) and train.y.dtype == np.float32 and train.class_names is None
    assert train.arrays()[0]["segment_ids"].max() == 1
    assert val.num_samples == 4


def test_csv_texts_that_look_like_missing_values_are_texts(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("t,y\nNone,a\nNA,b\n?,a\nnan,b\n")
    train, _ = bz.data.text_csv(path, text="t", target="y", tokenizer=TOKENS, val_fraction=0)
    assert train.num_samples == 4


@pytest.mark.parametrize(
    ("content", "more", "match"),
    [
        ("t,y\na,0\n,1\n", {}, r"Column 't' \(`text`\) has no text in line 3; expected one"),
        ("t,y\na,0\nb,\n", {}, r"The target 'y' has no value in line 3"),
        ("u,y\na,0\n", {}, r"has no column 't' \(`text`\)"),
        ("t;y\na;0\n", {}, r'Pass `delimiter=";"`'),
        (
            "t,y\na,0\na b c d e f,1\n",
            {"length": 4},
            r"a.csv', line 3: has 6 tokens; expected at m",
        ),
        ("t,y\na,0\nb,1,2\n", {}, "line 3 has 3 values; expected 2"),
        ("t,y\na,0\na,0\na,1\na,1\n", {}, r"too few different texts to divide \(1\)"),
    ],
)
def test_bad_tables(tmp_path, content, more, match):
    path = tmp_path / "a.csv"
    path.write_text(content)
    with pytest.raises(ValueError, match=match):
        bz.data.text_csv(path, text="t", target="y", tokenizer=TOKENS, **more)


def test_bad_table_arguments(tmp_path, table):
    with pytest.raises(FileNotFoundError, match=r"lost.csv'; expected a comma-separated file"):
        bz.data.text_csv(tmp_path / "lost.csv", text="t", target="y", tokenizer=TOKENS)
    with pytest.raises(TypeError, match="`text` is 3; expected the name of a column"):
        bz.data.text_csv(table, text=3, target="opinion", tokenizer=TOKENS)
    with pytest.raises(TypeError, match="`tokenizer` is None; expected a"):
        bz.data.text_csv(table, text="review", target="opinion", tokenizer=None)


# --- windows ----------------------------------------------------------------------------------

CHARACTERS = Tokenizer.train(["abcdefghijklmnopqrstuvwxyz "], kind="char")
LONG = "the quick brown fox jumps over the lazy dog " * 5


def test_windows_and_the_tokens_that_follow():
    train, val = bz.data.text_windows(LONG, tokenizer=CHARACTERS, length=10, val_fraction=0.2)
    x, y = train.arrays()
    assert (len(x), val.num_samples) == ((176 - 1) // 10, (44 - 1) // 10)
    assert CHARACTERS.decode(x.reshape(-1)) == LONG[:170]
    assert CHARACTERS.decode(y.reshape(-1)) == LONG[1:171]
    assert CHARACTERS.decode(val.arrays()[0][0]) == LONG[176:186]
    assert x.dtype == y.dtype == np.int32
    assert train.shuffle and not val.shuffle and train.encoder is CHARACTERS


def test_windows_that_overlap():
    train, _ = bz.data.text_windows(LONG, tokenizer=CHARACTERS, length=10, stride=3, val_fraction=0)
    x, y = train.arrays()
    assert len(x) == (220 - 11) // 3 + 1
    np.testing.assert_array_equal(x[:-1, 3:], x[1:, :-3])
    np.testing.assert_array_equal(x[:, 1:], y[:, :-1])


def test_windows_of_a_file(tmp_path):
    (tmp_path / "book.txt").write_text(LONG)
    for given in (tmp_path / "book.txt", str(tmp_path / "book.txt")):
        train, _ = bz.data.text_windows(given, tokenizer=CHARACTERS, length=10)
        assert train.num_samples == 19


@pytest.mark.parametrize(
    ("text", "more", "error", "match"),
    [
        ("short", {}, ValueError, r"training part of the text has 5 tokens; expected at least 65"),
        (LONG, {"length": 30}, ValueError, r"validation part .* 22 tokens; .* at least 31"),
        ("lost.txt", {}, FileNotFoundError, r"`text` is 'lost.txt'; .*nothing is there"),
        (3, {}, TypeError, "`text` is 3; expected a text, or the path"),
        (b"abc", {}, TypeError, "`text` is b'abc'"),
        (LONG, {"length": 0}, ValueError, "`length` is 0"),
        (LONG, {"stride": 0}, ValueError, "`stride` is 0"),
    ],
)
def test_bad_windows(text, more, error, match):
    with pytest.raises(error, match=match):
        bz.data.text_windows(text, tokenizer=CHARACTERS, **more)
