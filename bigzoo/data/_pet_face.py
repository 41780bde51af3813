"""The pets themselves: a bust from shapes in head radii, y pointing down, (0, 0) between the eyes.

A cat and a dog differ in ears, muzzle, eyes and whiskers; colours, fur and pose come from `Style`.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from bigzoo.data._pet_scene import Colour, Scene, Style, ellipse, mix, rotate

_INK: Colour = (44, 36, 40)
_CAT = 0
_OUTLINE = 0.055  # in head radii


class _Face:
    """Draws shapes given in head radii, turned and placed as the style says."""

    def __init__(self, scene: Scene, style: Style) -> None:
        self.scene = scene
        self.style = style
        self.angle = math.radians(style.angle)
        self.ink = mix(style.fur, _INK, 0.72)

    def place(self, points: ArrayLike) -> np.ndarray:
        turned = rotate(np.asarray(points, float) * (self.style.width, 1.0), self.angle)
        return turned * self.style.radius + self.style.centre

    def fill(self, points: ArrayLike, colour: Colour, outlined: bool = False) -> None:
        shape = np.asarray(points, float)
        if outlined:
            # A slightly larger shape behind is a smooth outline, and fast.
            spokes = shape - shape.mean(axis=0)
            length = np.linalg.norm(spokes, axis=1, keepdims=True) + 1e-9
            self.scene.polygon(self.place(shape + spokes / length * _OUTLINE), self.ink)
        self.scene.polygon(self.place(shape), colour)

    def stroke(self, points: ArrayLike, colour: Colour, width: float) -> None:
        self.scene.line(self.place(points), colour, width * self.style.radius)


def draw_pet(scene: Scene, label: int, style: Style, rng: np.random.Generator) -> None:
    """Head and shoulders of a cat (0) or a dog (1)."""
    face = _Face(scene, style)
    _body(face)
    if label == _CAT:
        _pointed_ears(face, rng)
        _head(face, _cat_head(), rng)
        _muzzle(face, 0.30, 0.27, 0.46)
        _eyes(face, rng, slit=True)
        _nose(face, 0.30, 0.12, 0.085)
        _mouth(face, 0.38, 0.2)
        _whiskers(face, rng)
        return
    hang = rng.uniform(-0.12, 0.22, 2)
    _head(face, _dog_head(), rng)
    _muzzle(face, 0.36, 0.44, 0.52)
    _eyes(face, rng, slit=False)
    _nose(face, 0.26, 0.2, 0.145)
    _mouth(face, 0.4, 0.3)
    _hanging_ears(face, rng, hang)


# === Both ===


def _body(face: _Face) -> None:
    style = face.style
    shoulders = ellipse(0, 1.95, 0.95, 1.25)
    face.fill(shoulders, mix(style.fur, (0, 0, 0), 0.1), outlined=True)
    face.fill(ellipse(0, 1.75, 0.42, 0.62), style.muzzle)
    if style.has_collar:
        face.fill(ellipse(0, 1.0, 0.66, 0.2), style.collar, outlined=True)
        face.fill(ellipse(0.0, 1.24, 0.13, 0.13), (236, 196, 70), outlined=True)


def _head(face: _Face, outline: np.ndarray, rng: np.random.Generator) -> None:
    style = face.style
    face.fill(outline, style.fur, outlined=True)
    shift = 0.6 * style.turn
    if style.pattern == "stripes":
        for x in (-0.26, 0.0, 0.26):
            top, foot = x + shift, rng.uniform(-0.5, -0.36)
            stripe = [(top - 0.07, -0.84), (top + 0.07, -0.84), (x * 0.8 + shift, foot)]
            face.fill(stripe, style.marking)
        for side in (-1, 1):
            for y in (0.02, 0.26):
                tip = (side * 0.56 + shift / 2, y + 0.06)
                face.fill([(side * 0.9, y - 0.05), (side * 0.9, y + 0.09), tip], style.marking)
    elif style.pattern == "spots":
        for _ in range(6):
            angle, distance = rng.uniform(0, 2 * math.pi), rng.uniform(0.45, 0.72)
            x, y = distance * math.cos(angle), distance * math.sin(angle)
            face.fill(
                ellipse(x, y, rng.uniform(0.07, 0.14), rng.uniform(0.06, 0.12)), style.marking
            )
    elif style.pattern == "patch":
        side = 1 if rng.random() < 0.5 else -1
        face.fill(ellipse(side * 0.4 + shift, -0.16, 0.36, 0.42, side * 0.4), style.marking)
    elif style.pattern == "blaze":
        face.fill(
            [(shift - 0.1, -0.86), (shift + 0.1, -0.86), (shift + 0.26, 0.4), (shift - 0.26, 0.4)],
            style.muzzle,
        )


def _muzzle(face: _Face, rx: float, ry: float, y: float) -> None:
    x = face.style.turn
    for side in (-1, 1):
        face.fill(ellipse(x + side * rx * 0.62, y, rx * 0.78, ry), face.style.muzzle)
    face.fill(ellipse(x, y - 0.06, rx * 0.8, ry), face.style.muzzle)


def _eyes(face: _Face, rng: np.random.Generator, slit: bool) -> None:
    style = face.style
    y, gap = -0.12 + rng.uniform(-0.04, 0.04), 0.4 + rng.uniform(-0.03, 0.04)
    look = rng.uniform(-0.04, 0.04)
    for side in (-1, 1):
        x = side * gap + 0.75 * style.turn
        if slit:
            face.fill(_almond(x, y, side), style.iris, outlined=True)
            face.fill(ellipse(x + look, y, 0.055, 0.165), (24, 20, 24))
        else:
            face.fill(ellipse(x, y, 0.17, 0.185), style.iris, outlined=True)
            face.fill(ellipse(x + look, y + 0.01, 0.115, 0.13), (24, 20, 24))
        face.fill(ellipse(x + look + 0.05, y - 0.07, 0.045, 0.045), (255, 255, 255))


def _almond(x: float, y: float, side: int) -> np.ndarray:
    across = np.linspace(-1, 1, 12)
    arc = 0.19 * (1 - across**2) ** 0.8
    upper = np.stack([across * 0.235, -arc], axis=1)
    lower = np.stack([across[::-1] * 0.235, arc[::-1] * 0.85], axis=1)
    return rotate(np.concatenate([upper, lower[1:-1]]), -0.22 * side) + np.array([x, y])


def _nose(face: _Face, y: float, rx: float, ry: float) -> None:
    x = face.style.turn * 1.15
    right = [(0.5 * rx, -ry), (rx, -0.5 * ry), (0.35 * rx, 0.8 * ry)]
    corners = [*right, *((-across, down) for across, down in reversed(right))]
    face.fill(np.array(corners) + np.array([x, y]), face.style.nose)
    face.fill(ellipse(x - rx * 0.3, y - ry * 0.5, rx * 0.25, ry * 0.2), (250, 240, 240))


def _mouth(face: _Face, y: float, width: float) -> None:
    style = face.style
    x, depth = style.turn * 1.1, 0.14
    if style.tongue:
        face.fill(ellipse(x, y + depth + 0.16, 0.12, 0.19), (232, 112, 124), outlined=True)
    across = np.linspace(0, 1, 6)
    for side in (-1, 1):
        curve = np.stack([x + side * width * across, y + depth * np.sin(across * 2.6) + 0.05], 1)
        face.stroke(curve, face.ink, 0.055)
    face.stroke([(x, y - 0.06), (x, y + 0.06)], face.ink, 0.055)


# === Cat ===


def _cat_head() -> np.ndarray:
    """Wider than tall, with two tufts of fur on each cheek."""
    around = np.radians([-90, -70, -50, -30, -10, 8, 20, 27, 38, 45, 58, 74, 90])
    bulge = np.array([1, 1, 1, 1, 1, 1.02, 1.17, 1.03, 1.17, 1.03, 1.02, 1, 1])
    right = np.stack([np.cos(around) * bulge * 0.97, np.sin(around) * bulge * 0.84 + 0.05], axis=1)
    left = right[-2:0:-1] * (-1, 1)
    return np.concatenate([right, left])


def _pointed_ears(face: _Face, rng: np.random.Generator) -> None:
    style = face.style
    height, spread = rng.uniform(1.28, 1.6), rng.uniform(0.64, 0.86)
    for side in (-1, 1):
        tip = np.array([side * spread + 0.3 * style.turn, -height + rng.normal(0, 0.04)])
        outer, inner = np.array([side * 0.97, -0.12]), np.array([side * 0.16, -0.72])
        bulge = (outer + tip) / 2 + (side * 0.09, -0.05)
        ear = np.array([outer, bulge, tip, (inner + tip) / 2 + (side * -0.02, -0.04), inner])
        face.fill(ear, style.fur, outlined=True)
        middle = (outer + inner + tip) / 3
        face.fill(middle + (ear - middle) * 0.6, style.inner_ear)


def _whiskers(face: _Face, rng: np.random.Generator) -> None:
    # Light on dark fur and dark on light fur, as one would draw them.
    light = sum(face.style.fur) < 330
    colour: Colour = (246, 244, 240) if light else (52, 46, 50)
    x = face.style.turn
    for side in (-1, 1):
        for lift in (-0.2, 0.0, 0.2):
            end = (x + side * rng.uniform(1.15, 1.45), 0.42 + lift * 1.5 + rng.normal(0, 0.04))
            middle = (x + side * 0.8, 0.4 + lift * 0.8)
            face.stroke([(x + side * 0.34, 0.45 + lift * 0.35), middle, end], colour, 0.035)


# === Dog ===


def _dog_head() -> np.ndarray:
    """Taller than wide, with a narrower crown."""
    outline = ellipse(0, 0.06, 0.88, 0.94)
    crown = outline[:, 1] < 0
    outline[crown, 0] *= 1 - 0.16 * np.clip(-outline[crown, 1], 0, 1)
    return outline


def _hanging_ears(face: _Face, rng: np.random.Generator, hang: np.ndarray) -> None:
    style = face.style
    marked = style.pattern in ("patch", "spots")
    ear_colour = style.marking if marked else mix(style.fur, (30, 22, 22), 0.2)
    length, wide = rng.uniform(0.62, 0.84), rng.uniform(0.25, 0.34)
    for side, extra in zip((-1, 1), hang, strict=True):
        ear = _droplet(wide, length)
        swing = side * (-0.30 - extra)
        root = np.array([side * 0.62 + 0.15 * style.turn, -0.66])
        face.fill(rotate(ear, swing) + root, ear_colour, outlined=True)


def _droplet(wide: float, length: float) -> np.ndarray:
    """A hanging ear: narrow at its root in (0, 0), round at the end."""
    t = np.linspace(0, 2 * math.pi, 26, endpoint=False)
    along = (1 - np.cos(t)) / 2
    return np.stack([wide * np.sin(t) * (0.45 + 0.75 * along), 2 * length * along - 0.12], axis=1)
