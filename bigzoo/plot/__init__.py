"""Pictures of data and results, each a matplotlib Axes or Figure.

No function here calls `matplotlib.pyplot`: nothing stays open in the background, nothing is
shown twice in a notebook, and everything works without a display.
"""

from typing import Any

from bigzoo._errors import no_attribute
from bigzoo.plot._confusion import confusion
from bigzoo.plot._fit_line import fit_line
from bigzoo.plot._history import history
from bigzoo.plot._images import images
from bigzoo.plot._learning_rate import learning_rate

__all__ = ["confusion", "fit_line", "history", "images", "learning_rate"]


def __getattr__(name: str) -> Any:
    raise no_attribute(__name__, name, __all__)
