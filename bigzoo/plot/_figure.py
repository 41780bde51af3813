"""Figures that belong to nobody but the caller, and the colours of all plots.

`pyplot` keeps every figure it makes in a global list: it warns at the twentieth, and a notebook
shows a figure that is both open there and the value of the cell twice. A bare `Figure` has none
of that, but a notebook shows it only as text until pyplot has been imported. `Picture` therefore
brings its own PNG.
"""

from __future__ import annotations

import functools
import io
from typing import Any

from bigzoo._errors import message
from bigzoo._optional import require

# Okabe and Ito's palette: told apart with every common kind of colour blindness, and by lightness.
BLUE = "#0072B2"
ORANGE = "#E69F00"
RED = "#D55E00"
WRONG = "#C1121F"  # always beside a cross or another sign: red alone says nothing to some
GREY = "#6E6E6E"
LIGHT = "#EBEBEB"


def new_figure(width: float, height: float) -> Any:
    """An empty figure of this size in inches, with a layout that keeps labels apart."""
    return _picture_class()(figsize=(width, height), layout="constrained")


def check_axes(ax: Any) -> Any:
    """`ax`, or a TypeError if nothing can be drawn on it."""
    if not (hasattr(ax, "plot") and hasattr(ax, "get_figure")):
        fix = "Make one with `figure, ax = matplotlib.pyplot.subplots()`."
        raise TypeError(message("ax", ax, "a matplotlib Axes or None", fix))
    return ax


def tidy(ax: Any) -> None:
    """The look of all line plots: no box, a faint grid behind the data."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(color=LIGHT, linewidth=0.8)
    ax.set_axisbelow(True)


@functools.cache
def _picture_class() -> type:
    # Made here, not at the top of the module: importing `bigzoo.plot` must not import matplotlib.
    base: Any = require("matplotlib.figure", purpose="bigzoo.plot").Figure

    class Picture(base):
        """A matplotlib Figure that a notebook shows, once, as the value of a cell."""

        def _repr_png_(self) -> bytes:
            buffer = io.BytesIO()
            self.savefig(buffer, format="png", dpi=96)
            return buffer.getvalue()

        def show(self, warn: bool = True) -> None:
            """Open a window; needs a display. In a notebook, name the figure last in a cell."""
            if self.canvas.manager is None:
                raise RuntimeError(
                    "This figure has no window. Save it with `figure.savefig('plot.png')`, or draw "
                    "on axes of `matplotlib.pyplot.subplots()` through `ax=` and call "
                    "`matplotlib.pyplot.show()`."
                )
            super().show(warn)

    return Picture
