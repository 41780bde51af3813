"""drawn_reviews: balanced, reproducible, right, and not to be read by counting words."""

from __future__ import annotations

import re

import numpy as np
import pytest

from bigzoo.data import REVIEW_NAMES, drawn_reviews
from bigzoo.data._reviews import _BAD, _GOOD, _SAY_NO, _SAY_YES

TEXTS, LABELS = drawn_reviews(2000)


def rule(text: str) -> int:
    """The label by the rule of the docstring, read from the finished text."""
    for sentence in re.split(r"(?<=[.!]) ", text):
        sentence = sentence.lower()
        for sayings, label in ((_SAY_YES, 1), (_SAY_NO, 0)):
            if any(one.partition("{")[0].lower() in sentence for one in sayings):
                return label
        found = [
            (match.start(), label)
            for words, label in ((_GOOD, 1), (_BAD, 0))
            for word in words
            for match in re.finditer(rf"\b{word}\b", sentence)
        ]
        if not found:
            continue
        last = max(found)[1]
        if re.search(r"wasn't|was not|was never|anything but", sentence):
            return 1 - last
        return min(found)[1] if sentence.startswith("on the whole") else last
    raise ValueError(f"no opinion in {text!r}")


def test_labels_follow_the_rule():
    assert [rule(text) for text in TEXTS] == LABELS.tolist()


def test_the_rule_of_this_test_can_fail():
    assert rule("The plot was superb, but overall it is a dull film.") == 0
    assert rule("The plot wasn't dull.") == 1
    with pytest.raises(ValueError, match="no opinion"):
        rule("It rained.")


def test_balanced_pairs_and_names():
    assert REVIEW_NAMES == ("negative", "positive")
    assert LABELS.dtype == np.int64
    assert set(LABELS[::2] + LABELS[1::2]) == {1}
    assert 0.4 < LABELS[::2].mean() < 0.6


def test_a_review_depends_on_seed_and_place_alone():
    texts, y = drawn_reviews(50)
    assert texts == TEXTS[:50] and y.tolist() == LABELS[:50].tolist()
    other, _ = drawn_reviews(50, seed=1)
    assert len(set(other) & set(texts)) < 10


def test_the_texts_are_a_stable_format():
    assert drawn_reviews(2, seed=19)[0] == [
        "The camera was anything but fine. We were two people that evening.",
        "A pleasure from start to finish. My sister gave it to me for my birthday.",
    ]


def test_short_and_long_and_rare():
    lengths = np.array([len(text.split()) for text in TEXTS])
    assert lengths.min() < 6
    assert 0.1 < np.mean(lengths > 60) < 0.4
    assert 1 <= sum("ham-fisted" in text for text in TEXTS) < 60
    assert len(set(TEXTS)) > 1500


def test_counting_words_falls_short():
    text = pytest.importorskip("sklearn.feature_extraction.text")
    linear_model = pytest.importorskip("sklearn.linear_model")
    counts = text.TfidfVectorizer()
    model = linear_model.LogisticRegression(C=10, max_iter=1000)
    model.fit(counts.fit_transform(TEXTS[:1600]), LABELS[:1600])
    score = model.score(counts.transform(TEXTS[1600:]), LABELS[1600:])
    assert 0.6 < score < 0.85


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"n": 0}, ValueError, "`n` is 0; expected an integer at least 1"),
        ({"n": 1.5}, TypeError, "`n` is 1.5; expected an integer"),
        ({"seed": -1}, ValueError, "`seed` is -1; expected an integer at least 0"),
    ],
)
def test_bad_arguments(arguments, error, text):
    with pytest.raises(error, match=text):
        drawn_reviews(**arguments)
