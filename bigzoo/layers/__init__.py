"""Serialisable Keras layers that two models or more use.

Empty so far: every model of the zoo is built from the layers that Keras ships.
"""

from __future__ import annotations

__all__: list[str] = []
