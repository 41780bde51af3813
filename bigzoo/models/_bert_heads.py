"""Which head a BERT gets: by the arguments, and by what the checkpoint has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bigzoo._errors import check_choice, message
from bigzoo.models._heads import Head, plan_head
from bigzoo.weights import Checkpoint
from bigzoo.weights._bert import ALWAYS_IGNORED, CLASSIFIER, MASKED_LM, POOLER

HEADS = ("auto", "classification", "token", "masked_lm", "embedding", None)
_WITH_CLASSES = ("classification", "token")


@dataclass(frozen=True)
class Plan:
    """The head, its last layer, and what of a checkpoint is for it.

    Attributes:
        head: "classification", "token", "masked_lm", "embedding" or None.
        layer: The last layer of "classification" and "token"; 0 units for all others.
        normalize: Whether embeddings get length 1.
        ignore: Patterns of tensors that this head has no use for.
        skip: Layers that the checkpoint has nothing for, and that start anew.
    """

    head: str | None
    layer: Head
    normalize: bool
    ignore: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()


def plan_bert(
    head: Any,
    num_classes: Any,
    num_outputs: Any,
    classifier_activation: Any,
    checkpoint: Checkpoint | None,
    normalize: bool,
) -> Plan:
    """The plan that the arguments of `bert` and the checkpoint ask for."""
    head = check_choice("head", head, HEADS)
    asked = num_classes is not None or num_outputs is not None
    if head == "auto":
        head = _own_head(checkpoint, asked)
    if head not in _WITH_CLASSES:
        if asked:
            name = "num_classes" if num_classes is not None else "num_outputs"
            value = num_classes if num_classes is not None else num_outputs
            fix = 'Classes go with head="classification" or head="token".'
            raise ValueError(message(name, value, f"None for head={head!r}", fix))
        return Plan(head, Head(0, "linear"), normalize, *_parts(head, None, checkpoint))
    layer = _last_layer(head, num_classes, num_outputs, classifier_activation, checkpoint)
    return Plan(head, layer, normalize, *_parts(head, layer, checkpoint))


def _own_head(checkpoint: Checkpoint | None, asked: bool) -> str | None:
    """The head that a checkpoint was saved with."""
    if checkpoint is None or checkpoint.native:
        return "classification"
    if f"{CLASSIFIER}.weight" in checkpoint.tensors:
        return "token" if _is_tagger(checkpoint) else "classification"
    if asked:
        return "classification"
    if any(name.startswith(MASKED_LM) for name in checkpoint.tensors):
        return "masked_lm"
    return "embedding" if _makes_sentences(checkpoint) else None


def _is_tagger(checkpoint: Checkpoint) -> bool:
    architectures = checkpoint.config.get("architectures") or ()
    return any("TokenClassification" in str(name) for name in architectures)


def _makes_sentences(checkpoint: Checkpoint) -> bool:
    """Whether the files of sentence-transformers lie beside the weights."""
    names = ("modules.json", "sentence_bert_config.json")
    return any((checkpoint.path.parent / name).is_file() for name in names)


def _last_layer(
    head: str,
    num_classes: Any,
    num_outputs: Any,
    classifier_activation: Any,
    checkpoint: Checkpoint | None,
) -> Head:
    own = None if checkpoint is None else checkpoint.classes(f"{CLASSIFIER}.weight")
    if checkpoint is not None and not checkpoint.native and _is_tagger(checkpoint):
        own = own if head == "token" else None  # a tagger's classes are those of words
    elif head == "token" and checkpoint is not None and not checkpoint.native:
        own = None
    if own == 1 and num_classes is None and num_outputs in (None, 1):
        return Head(1, "linear", from_checkpoint=True)  # a score, such as the likeness of a pair
    return plan_head(
        num_classes, num_outputs, classifier_activation, default=2, checkpoint_classes=own
    )


def _parts(
    head: str | None, layer: Head | None, checkpoint: Checkpoint | None
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(patterns of tensors to ignore, layers to leave as they are)."""
    ignore, skip = list(ALWAYS_IGNORED), []
    if head != "masked_lm":
        ignore.append("cls.*")
    if head != "classification":
        ignore.append(f"{POOLER}.*")
    elif checkpoint is not None and not _has_pooler(checkpoint):
        skip.append("pooler")  # a checkpoint that was trained on gaps only has none
    if layer is None or not layer.from_checkpoint:
        ignore.append(f"{CLASSIFIER}.*")
        skip.append("predictions")
    if head == "masked_lm":
        skip.remove("predictions")
    return tuple(ignore), tuple(skip)


def _has_pooler(checkpoint: Checkpoint) -> bool:
    names = checkpoint.tensors
    return checkpoint.native or any(name.startswith(f"{POOLER}.") for name in names)
