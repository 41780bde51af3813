"""Make a trained model smaller or faster, with a receipt of what was gained and lost."""

from typing import Any

from bigzoo._errors import no_attribute

__all__: list[str] = []


def __getattr__(name: str) -> Any:
    raise no_attribute(__name__, name, __all__)
