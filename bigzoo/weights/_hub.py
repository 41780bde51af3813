"""Folders of the Hugging Face hub, kept in its own cache on disk."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from bigzoo._errors import message, shorten
from bigzoo._optional import require

PREFIX = "hf://"

# What our models and tokenizers read; a repository may hold the same weights in many formats.
_FILES = (
    "config.json",
    "model.safetensors",
    "model-*-of-*.safetensors",
    "model.safetensors.index.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "sentence_bert_config.json",
    "vocab.*",
    "merges.txt",
)


def fetch_hub(address: str) -> Path:
    """The folder of "hf://org/name" or "hf://org/name@revision", downloaded if it isn't there.

    `HF_HOME` (the cache), `HF_HUB_OFFLINE=1` (never ask the network) and `HF_TOKEN` are obeyed, as
    by every program that uses the hub.
    """
    name, revision = _parse(address)
    hub: Any = require("huggingface_hub", purpose=f"weights={address!r}")
    errors: Any = require("huggingface_hub.errors")
    try:
        return Path(hub.snapshot_download(name, revision=revision, allow_patterns=list(_FILES)))
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as error:
        fix = "Look at its page on the hub; private ones need the environment variable HF_TOKEN."
        text = f"The hub has no {address!r}, or not for you. {fix}"
        raise FileNotFoundError(text) from error
    except errors.HFValidationError as error:
        raise ValueError(_malformed(address)) from error
    except Exception as error:  # the hub's client raises errors of several HTTP libraries
        fix = (
            "Where there is a network, run bz.prefetch(...) once: it keeps the files on disk. Or "
            "give the path of a folder that you have copied."
        )
        raise ConnectionError(f"Can't fetch {address!r}: {shorten(error)}. {fix}") from error


def _parse(address: str) -> tuple[str, str | None]:
    match = re.fullmatch(r"hf://([\w.-]+(?:/[\w.-]+)?)(?:@([\w./-]+))?", address)
    if match is None:
        raise ValueError(_malformed(address))
    return match[1], match[2]


def _malformed(address: str) -> str:
    return message("weights", address, "hf://org/name or hf://org/name@revision")
