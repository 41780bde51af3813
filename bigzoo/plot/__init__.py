"""Pictures of data and results, each a matplotlib Axes or Figure.

No function here calls `matplotlib.pyplot`: nothing stays open in the background, nothing is
shown twice in a notebook, and everything works without a display.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from bigzoo._errors import no_attribute
from bigzoo.plot._confusion import confusion
from bigzoo.plot._cost import cost
from bigzoo.plot._fit_line import fit_line
from bigzoo.plot._history import history
from bigzoo.plot._images import images
from bigzoo.plot._learning_rate import learning_rate

# These look into a model and so need Keras, which the others don't.
_MODULES = {
    "attention": "bigzoo.plot._attention",
    "embedding": "bigzoo.plot._embedding",
    "filters": "bigzoo.plot._filters",
    "grad_cam": "bigzoo.plot._grad_cam",
}

if TYPE_CHECKING:
    from bigzoo.plot._attention import attention
    from bigzoo.plot._embedding import embedding
    from bigzoo.plot._filters import filters
    from bigzoo.plot._grad_cam import grad_cam

__all__ = [
    "attention",
    "confusion",
    "cost",
    "embedding",
    "filters",
    "fit_line",
    "grad_cam",
    "history",
    "images",
    "learning_rate",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(importlib.import_module(_MODULES[name]), name)
    raise no_attribute(__name__, name, __all__)


def __dir__() -> list[str]:
    return sorted(__all__)
