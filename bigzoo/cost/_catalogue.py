"""All devices of the catalogue, by name."""

from __future__ import annotations

import difflib

from bigzoo._errors import message
from bigzoo.cost import _catalogue_nvidia, _catalogue_others
from bigzoo.cost._device import Device, index

CATALOGUE = index((*_catalogue_nvidia.DEVICES, *_catalogue_others.DEVICES))


def get(name: str) -> Device:
    """The device of the catalogue that has this name.

    Args:
        name: Such as "h100-sxm", "a100-80", "tpu-v5e" or "rtx-4090"; upper case and "_" are
            welcome. `list_devices` shows all.

    Returns:
        A `Device`. Each figure is a `Figure` with its source and its date, or None where none was
        found. Peaks are those of dense matrices.

    Raises:
        ValueError: if there is no such device; names the nearest ones.
        TypeError: if `name` is no text.

    Example:
        >>> h100 = bz.cost.hardware.get("h100-sxm")
        >>> h100.peak("bfloat16") / 1e12
        989.4
        >>> print(h100.peak("float64"))
        None
    """
    if not isinstance(name, str):
        raise TypeError(message("device", name, 'a name such as "h100-sxm"'))
    wanted = name.strip().lower().replace("_", "-").replace(" ", "-")
    if wanted not in CATALOGUE:
        raise _no_device(name, wanted)
    return CATALOGUE[wanted]


def _no_device(name: str, wanted: str) -> ValueError:
    # "h100" is nearer to "h200" letter by letter, but those that begin with it are meant.
    begin = [known for known in CATALOGUE if known.startswith(wanted)] if wanted else []
    near = begin[:4] or difflib.get_close_matches(wanted, CATALOGUE, n=3, cutoff=0.5)
    hint = f"Did you mean {' or '.join(map(repr, near))}? " if near else ""
    fix = f"{hint}bigzoo.cost.hardware.list_devices() shows all."
    return ValueError(message("device", name, "a known name", fix))
