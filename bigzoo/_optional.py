"""Import of optional packages, with the `pip install` line in the error."""

from __future__ import annotations

import importlib
from types import ModuleType


def require(module: str, package: str | None = None, purpose: str = "") -> ModuleType:
    """Import `module`, or raise an ImportError that says how to install it.

    Args:
        module: Dotted module name, such as "pandas" or "PIL.Image".
        package: Name to give to pip; the first part of `module` by default.
        purpose: What needs it, such as "bigzoo.data.csv".
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        top = module.partition(".")[0]
        if error.name is None or error.name.partition(".")[0] != top:
            raise  # the package is there, but something that it needs itself is not
        need = f"{purpose} needs" if purpose else "This needs"
        fix = f"Run: pip install {package or top}"
        raise ImportError(f"{need} the package {top!r}, which is not installed. {fix}") from error
