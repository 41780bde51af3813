"""Which channels of a network hang together, so that they can be cut together.

Each channel that a layer makes is a node. Where the graph ties channels (an addition, a layer that
is called twice), their nodes are joined by union-find. What can't be cut is marked with the reason.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class State:
    """Channels of a tensor.

    Attributes:
        axis: Where they lie, from the end: -1 is the last axis.
        labels: A node for each place along it; several places may share one.
    """

    axis: int
    labels: np.ndarray


@dataclass(frozen=True)
class Slice:
    """One weight of a layer, along one axis."""

    weight: str
    axis: int
    labels: np.ndarray


@dataclass
class Group:
    """Channels that stand in the same layers, of which a share is cut.

    Attributes:
        layers: Names of the layers that make them.
        roots: One node for each set of joined channels.
        kept: How many of these stay.
    """

    layers: tuple[str, ...]
    roots: list[int]
    kept: int

    @property
    def channels(self) -> int:
        return len(self.roots)


class Channels:
    """The channels of a model, while its calls are walked through and after.

    Attributes:
        slices: Layer's id -> its weights that change with its channels.
        sizes: Layer's id -> {name of the setting: labels whose number it is}.
        left: Name of a layer with weights -> why it isn't cut by itself.
    """

    def __init__(self) -> None:
        self._parents: list[int] = []
        self._why: dict[int, str] = {}
        self._made: dict[int, tuple[Any, np.ndarray]] = {}
        self._owner: dict[int, int] = {}  # node -> number of the layer that makes it
        self._taken: dict[int, State | None] = {}
        self.slices: dict[int, list[Slice]] = {}
        self.sizes: dict[int, dict[str, np.ndarray]] = {}
        self.left: dict[str, str] = {}

    # === While walking ===

    def fixed(self, count: int, why: str) -> np.ndarray:
        """Nodes of channels that stay as they are."""
        labels = self._new(count)
        self.freeze(labels, why)
        return labels

    def freeze(self, labels: np.ndarray, why: str) -> None:
        """Mark channels that can't be cut; the first reason counts."""
        for label in np.unique(labels).tolist():
            self._why.setdefault(self.find(label), why)

    def keep_outputs(self, outputs: list[np.ndarray]) -> None:
        """Mark what the model puts out, whatever else keeps it."""
        for labels in outputs:
            roots = np.unique(self.roots(labels)).tolist()
            self._why.update(dict.fromkeys(roots, "it makes an output of the model"))

    def join(self, one: np.ndarray, other: np.ndarray) -> None:
        """Tie channels in pairs."""
        for first, second in zip(one.ravel().tolist(), other.ravel().tolist(), strict=True):
            root, joined = self.find(first), self.find(second)
            if root == joined:
                continue
            self._parents[joined] = root
            if joined in self._why:
                self._why.setdefault(root, self._why.pop(joined))

    def find(self, label: int) -> int:
        root = label
        while self._parents[root] != root:
            root = self._parents[root]
        while self._parents[label] != root:
            self._parents[label], label = root, self._parents[label]
        return root

    def produce(self, layer: Any, count: int) -> np.ndarray:
        """Nodes of the channels that `layer` makes: the same ones in each of its calls."""
        if id(layer) not in self._made:
            labels = self._new(count)
            self._made[id(layer)] = (layer, labels)
            self._owner.update({int(label): len(self._made) for label in labels})
        return self._made[id(layer)][1]

    def again(self, layer: Any, state: State | None) -> None:
        """Note a call of `layer`: all of its calls must lose the same channels, or none."""
        if id(layer) not in self._taken:
            self._taken[id(layer)] = state
            return
        before = self._taken[id(layer)]
        both = [one for one in (before, state) if one is not None]
        same = len(both) == 2 and both[0].axis == both[1].axis
        if same and both[0].labels.shape == both[1].labels.shape:
            self.join(both[0].labels, both[1].labels)
        else:
            for one in both:
                self.freeze(one.labels, f"{layer.name!r} is called several times")

    def slice(self, layer: Any, weight: str, axis: int, labels: np.ndarray | None) -> None:
        """Say which channels lie along an axis of a weight; None if nothing is cut there."""
        known = self.slices.setdefault(id(layer), [])
        # A layer that is called again has the same channels: see `again`.
        if labels is not None and all((one.weight, one.axis) != (weight, axis) for one in known):
            known.append(Slice(weight, axis, labels))

    def size(self, layer: Any, setting: str, labels: np.ndarray) -> None:
        """Say that a setting of the layer is the number of these channels."""
        self.sizes.setdefault(id(layer), {})[setting] = labels

    def _new(self, count: int) -> np.ndarray:
        first = len(self._parents)
        self._parents.extend(range(first, first + count))
        return np.arange(first, first + count)

    # === After ===

    def roots(self, labels: np.ndarray) -> np.ndarray:
        """`labels` with each node replaced by the one that stands for its set."""
        unique, places = np.unique(labels, return_inverse=True)
        found = np.array([self.find(int(label)) for label in unique], dtype=np.int64)
        return found[places].reshape(labels.shape)

    def groups(self, ratio: float) -> list[Group]:
        """Groups of channels that can be cut, with how many of each stay."""
        members: dict[int, list[int]] = {}
        for label, owner in self._owner.items():
            members.setdefault(self.find(label), []).append(owner)
        found: dict[tuple[int, ...], list[int]] = {}
        for root, owners in members.items():
            if root not in self._why:
                found.setdefault(tuple(sorted(owners)), []).append(root)
        layers: list[Any] = [None, *(layer for layer, _ in self._made.values())]
        groups = []
        for numbers, roots in found.items():
            kept = keep_of(len(roots), ratio)
            if kept < len(roots):
                names = dict.fromkeys(layers[owner].name for owner in numbers)
                groups.append(Group(tuple(names), roots, kept))
        return groups

    def whole(self, groups: list[Group]) -> dict[str, str]:
        """Name of each layer that keeps all that it makes -> why."""
        cut = {name for group in groups for name in group.layers}
        found = dict(self.left)
        for layer, labels in self._made.values():
            if layer.name in cut:
                continue
            reasons = [self._why.get(self.find(int(label))) for label in labels]
            few = "it makes one channel" if len(labels) == 1 else "its channels hang together"
            found.setdefault(layer.name, next((reason for reason in reasons if reason), few))
        return found

    def importance(self, weights: dict[int, dict[str, np.ndarray]]) -> dict[int, float]:
        """How much each set of channels counts: the norms of its filters.

        The L2 norm of a filter, and the size of the gamma that a BatchNormalization multiplies it
        with, each divided by the mean over its layer, so that layers of large weights don't outvote
        the others; summed over the layers of the set.
        """
        total: dict[int, float] = {}
        for layer, labels in self._made.values():
            self._add(total, labels, _norms(layer, labels, self.slices, weights))
        made = set(self._made)
        for key, slices in self.slices.items():
            for one in slices:
                if one.weight == "gamma" and key not in made:
                    self._add(total, one.labels, np.abs(weights[key]["gamma"].ravel()))
        return total

    def _add(self, total: dict[int, float], labels: np.ndarray, norms: np.ndarray) -> None:
        mean = float(norms.mean()) or 1.0
        for root, norm in zip(self.roots(labels).tolist(), norms.tolist(), strict=True):
            total[root] = total.get(root, 0.0) + norm / mean


def keep_of(count: int, ratio: float) -> int:
    """Channels that stay of `count`: at least 1, and a multiple of 8 where 32 or more would stay.

    Processors work on 8 or 16 numbers at once; 50 channels take as long as 56.
    """
    exact = count * (1.0 - ratio)
    if exact >= 32:
        rounded = 8 * math.floor(exact / 8 + 0.5)
        return min(rounded, count)
    return max(1, math.floor(exact + 0.5))


def _norms(
    layer: Any,
    labels: np.ndarray,
    slices: dict[int, list[Slice]],
    weights: dict[int, dict[str, np.ndarray]],
) -> np.ndarray:
    """L2 norm of what makes each channel of `layer`, its bias left out."""
    squares = np.zeros(len(labels))
    for one in slices.get(id(layer), ()):
        if one.labels is not labels or one.weight == "bias":
            continue
        values = np.moveaxis(weights[id(layer)][one.weight].astype(np.float64), one.axis, 0)
        squares += np.square(values.reshape(len(labels), -1)).sum(axis=1)
    return np.sqrt(squares)


def choose(groups: list[Group], importance: dict[int, float]) -> set[int]:
    """The nodes that are cut: the least important of each group."""
    cut: set[int] = set()
    for group in groups:
        # Equal ones in the order of their places: the choice is the same in each run.
        order = sorted(group.roots, key=lambda root: (importance.get(root, 0.0), root))
        cut.update(order[: group.channels - group.kept])
    return cut


def kept_places(channels: Channels, labels: np.ndarray, cut: set[int]) -> np.ndarray:
    """Which places along an axis stay, as booleans."""
    return ~np.isin(channels.roots(labels), list(cut))
