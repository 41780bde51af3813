"""Download checkpoints once, for places without a network."""

from __future__ import annotations

from pathlib import Path

from bigzoo._errors import message
from bigzoo.weights._hub import PREFIX, fetch_hub
from bigzoo.weights._list import ROWS, fetch_row, list_weights


def prefetch(*names: str) -> dict[str, Path]:
    """Download checkpoints to disk, so that they load later without a network.

    Run it where there is a network, then set `HF_HUB_OFFLINE=1` where there is none. For machines
    that share no disk, set `HF_HOME` to a folder, prefetch, and copy that folder.

    Args:
        names: Names from `bigzoo.weights.list_weights()`, or "hf://org/name". All are checked
            before the first is fetched.

    Returns:
        The folder or file of each, by name.

    Raises:
        TypeError, ValueError: if no name is given, or one is unknown.
        ConnectionError: if one can't be fetched; those before it are kept.

    Example:
        >>> bz.prefetch("minilm-l6", "gpt2")  # doctest: +SKIP
    """
    if not names:
        raise ValueError("`names` is empty; expected at least one, such as 'minilm-l6'.")
    for name in names:
        if not isinstance(name, str):
            raise TypeError(message("names", name, "names of checkpoints, as text"))
        if not name.startswith(PREFIX):
            list_weights()[name]
    return {
        name: fetch_hub(name) if name.startswith(PREFIX) else fetch_row(ROWS[name])
        for name in names
    }
