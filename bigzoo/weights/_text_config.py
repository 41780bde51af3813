"""Sizes from the config.json of a text model, and what our models can't do."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from bigzoo._errors import message


def check_config(
    config: Mapping[str, Any], must_be: Mapping[str, Collection[Any]], source: str
) -> None:
    """Refuse a config with a setting that our model has no part for; what it leaves out is fine."""
    for name, known in must_be.items():
        value = config.get(name)
        if value is not None and value not in known:
            expected = f"a checkpoint with {name} = {' or '.join(map(repr, known))}"
            fix = f"Its config.json says {value!r}, and this model can't compute that."
            raise ValueError(message("weights", source, expected, fix))


def read_sizes(config: Mapping[str, Any], names: Mapping[str, str], source: str) -> dict[str, Any]:
    """Numbers of a config under our names, from {ours: theirs}; all must be there, above 0."""
    wrong = sorted(theirs for theirs in names.values() if not _is_size(config.get(theirs)))
    if wrong:
        fix = f"Not there, or no number above 0: {', '.join(wrong)}."
        raise ValueError(message("weights", source, "a config.json that gives all sizes", fix))
    return {ours: config[theirs] for ours, theirs in names.items()}


def _is_size(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0
