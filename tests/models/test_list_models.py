"""The registry and the table that list_models prints."""

from __future__ import annotations

import inspect
import math
from html.parser import HTMLParser

import keras
import pytest

from bigzoo import models
from bigzoo.models._registry import REGISTRY, Entry, index

# Those above are held against published numbers in the tests of their families.
MOST_PARAMETERS = 30e6
FORMS = [
    (name, variant)
    for name, entry in REGISTRY.items()
    for variant, count in entry.parameters.items()
    if count < MOST_PARAMETERS
]


@pytest.mark.parametrize(("name", "variant"), FORMS)
def test_stored_number_of_parameters_is_the_models(name, variant):
    model = REGISTRY[name].function()(**({"variant": variant} if variant else {}))
    assert isinstance(model, keras.Model)
    trainable = sum(math.prod(weight.shape) for weight in model.trainable_weights)
    assert trainable == REGISTRY[name].parameters[variant]


def test_every_public_model_is_registered():
    functions = {
        name
        for name in models.__all__
        if inspect.isfunction(getattr(models, name)) and name != "list_models"
    }
    assert functions == set(REGISTRY)
    for name, entry in REGISTRY.items():
        assert entry.function() is getattr(models, name)


@pytest.mark.parametrize("name", REGISTRY)
def test_entries_are_complete(name):
    entry = REGISTRY[name]
    signature = inspect.signature(entry.function())
    assert entry.tasks
    assert ", https://" in entry.paper
    assert entry.licence == "Apache-2.0"
    assert set(entry.tiny) <= set(signature.parameters)
    assert ("variant" in signature.parameters) == bool(entry.variants)
    assert entry.parameters or name == "pretrained"  # whose numbers are another library's
    if entry.variants:
        # None: the checkpoint's, or a default that the docstring names.
        assert signature.parameters["variant"].default in (None, *entry.variants)


def test_a_name_registered_twice_is_an_error():
    entry = Entry("one", "module:one", ("regression",), {"": 1})
    assert index([entry]) == {"one": entry}
    with pytest.raises(ValueError, match="'one' is registered twice"):
        index([entry, entry])


def test_table_is_a_sequence_of_rows():
    table = models.list_models()
    assert len(table) == len(REGISTRY)
    assert [row.name for row in table] == list(table.names) == list(REGISTRY)
    assert table[0].name == table.names[0]
    assert table[-1] is list(table)[-1]
    assert isinstance(table[:2], models.ModelTable)
    assert table[:2].names == table.names[:2]
    assert table["cnn"].variants == ("plain", "modern")
    assert table["cnn"].parameters["plain"] == 420_802
    assert table["mlp"].tasks == ("classification", "regression")


def test_table_can_be_filtered_by_task():
    assert models.list_models("masked-lm").names == ("bert",)
    assert "cnn" in models.list_models("image-classification").names
    assert "cnn" not in models.list_models("regression").names


LINES = sum(max(1, len(entry.parameters)) for entry in REGISTRY.values())


def test_table_prints_in_columns():
    lines = repr(models.list_models()).splitlines()
    assert len(lines) == 2 + LINES
    assert lines[0].split() == ["name", "variant", "parameters", "task", "paper"]
    assert set(lines[1]) == {"-", " "}
    start = lines[0].index("parameters")
    assert [line[start - 2 : start] for line in lines] == ["  "] * len(lines)
    assert [line[start:].split()[0] for line in lines if line.startswith("mlp ")] == ["650,951"]
    assert max(map(len, lines)) < 200


def test_a_row_is_changed_without_changing_the_registry():
    models.list_models()["cnn"].parameters["plain"] = 0
    assert models.list_models()["cnn"].parameters["plain"] == 420_802


class _Cells(HTMLParser):
    def __init__(self):
        super().__init__()
        self.count, self.links, self.open = {}, [], []

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)
        self.count[tag] = self.count.get(tag, 0) + 1
        self.links += [value for key, value in attrs if key == "href"]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_table_as_html():
    parser = _Cells()
    parser.feed(models.list_models()._repr_html_())
    assert parser.open == []
    assert parser.count["td"] == 5 * LINES
    assert len(parser.links) == len(REGISTRY)
    assert all(link.startswith("https://") for link in parser.links)


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: models.list_models("regresion"), ValueError, "Did you mean 'regression'"),
        (lambda: models.list_models(3), TypeError, "`task` is 3; expected one of"),
        (lambda: models.list_models()["cn"], ValueError, "`name` is 'cn'.*Did you mean 'cnn'"),
    ],
)
def test_bad_arguments(call, error, text):
    with pytest.raises(error, match=text):
        call()
