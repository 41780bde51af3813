"""What surrounds a drawn pet: canvas and pencil, colours, background, foreground and light."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

Colour = tuple[int, int, int]

_FUR = (
    (226, 140, 62), (198, 112, 50), (150, 98, 62), (108, 72, 48), (122, 122, 130),
    (92, 98, 112), (58, 54, 58), (238, 230, 218), (232, 204, 160), (206, 170, 122),
    (172, 172, 176), (246, 240, 232),
)  # fmt: skip
_EYES = ((120, 176, 84), (226, 182, 62), (96, 164, 204), (150, 96, 48), (196, 130, 50))
_NOSES = ((226, 132, 138), (60, 48, 50), (122, 78, 70), (40, 38, 44))
_SCENERY = (
    (140, 196, 226), (98, 152, 204), (248, 214, 140), (244, 170, 146), (166, 210, 160),
    (104, 162, 116), (206, 184, 226), (150, 132, 190), (238, 226, 210), (188, 156, 128),
    (110, 94, 100), (70, 88, 110), (232, 118, 104), (84, 168, 166), (52, 58, 84),
)  # fmt: skip
# Behind a pet is any colour that fur has too: or else the colour where a cat's ears would be,
# sky or fur, gives the class away to a linear model.
_BEHIND = (*_SCENERY, *_FUR)

_CIRCLE = np.linspace(0, 2 * math.pi, 28, endpoint=False)
_CIRCLE = np.stack([np.cos(_CIRCLE), np.sin(_CIRCLE)], axis=1)


@dataclass
class Style:
    """How one pet looks, whatever its species. Lengths are in head radii."""

    fur: Colour
    marking: Colour
    muzzle: Colour
    inner_ear: Colour
    iris: Colour
    nose: Colour
    collar: Colour
    pattern: str
    angle: float
    radius: float
    centre: tuple[float, float]
    turn: float
    width: float
    tongue: bool
    has_collar: bool

    @classmethod
    def random(cls, rng: np.random.Generator) -> Style:
        fur, marking = (pick(rng, _FUR, 14) for _ in range(2))
        u = rng.random(10)
        light, dark = mix(fur, (255, 248, 238), 0.55), mix(fur, (36, 28, 28), 0.35)
        pink = mix(fur, (236, 160, 160), 0.6)
        return cls(
            fur=fur,
            marking=marking if u[0] < 0.5 else mix(fur, (30, 24, 24), 0.4),
            muzzle=light if u[1] < 0.6 else mix(fur, (30, 24, 24), 0.25),
            inner_ear=pink if u[2] < 0.6 else dark,
            iris=pick(rng, _EYES, 10),
            nose=pick(rng, _NOSES, 8),
            collar=pick(rng, _SCENERY, 20),
            pattern=("plain", "stripes", "spots", "patch", "blaze")[rng.integers(5)],
            angle=rng.normal(0, 15),
            radius=0.2 + 0.15 * u[3],
            centre=(0.5 + 0.34 * (u[4] - 0.5), 0.53 + 0.28 * (u[5] - 0.5)),
            turn=0.44 * (u[6] - 0.5),
            width=0.98 + 0.16 * u[7],
            tongue=u[8] < 0.3,
            has_collar=u[9] < 0.5,
        )


def pick(rng: np.random.Generator, palette: Sequence[Colour], jitter: float) -> Colour:
    """A colour near one of the palette's: lighter or darker, and a little off in hue."""
    base = np.array(palette[int(rng.integers(len(palette)))])
    base = base + rng.normal(0, jitter) + rng.normal(0, jitter / 2, 3)
    red, green, blue = np.clip(base, 0, 255).astype(int).tolist()
    return red, green, blue


def mix(a: Colour, b: Colour, share: float) -> Colour:
    """`a` with a share of `b` in it."""
    red, green, blue = (round(p + (q - p) * share) for p, q in zip(a, b, strict=True))
    return red, green, blue


class Scene:
    """A canvas some times larger than the picture, reduced at the end so that edges are smooth."""

    def __init__(self, height: int, width: int, rng: np.random.Generator) -> None:
        from PIL import Image, ImageDraw

        self.factor = 4 if min(height, width) <= 96 else 3 if min(height, width) <= 160 else 2
        self.height, self.width = height, width
        self.canvas_size = (width * self.factor, height * self.factor)
        self.unit = min(self.canvas_size)  # one unit of length, in pixels of the canvas
        # The whole picture in units, with (0.5, 0.5) in its middle.
        self.span = np.array(self.canvas_size) / self.unit
        self.rng = rng
        colours = [pick(rng, _BEHIND, 14) for _ in range(3)]
        self.sky, self.ground = colours[0], colours[1]
        corners = np.array([colours[0], colours[1], colours[2], colours[1]], np.float32)
        small = Image.fromarray(corners[rng.permutation(4)].reshape(2, 2, 3).astype(np.uint8))
        self.canvas = small.resize(self.canvas_size, Image.Resampling.BICUBIC)
        self.draw = ImageDraw.Draw(self.canvas)

    # === Pencil ===

    def pixels(self, points: ArrayLike) -> list[float]:
        """Points in units, (x, y) with (0.5, 0.5) in the middle, as Pillow wants them."""
        shift = (self.span - 1) / 2
        flat: list[float] = ((np.asarray(points) + shift) * self.unit).ravel().tolist()
        return flat

    def polygon(self, points: ArrayLike, colour: Colour) -> None:
        self.draw.polygon(self.pixels(points), fill=colour)

    def line(self, points: ArrayLike, colour: Colour, width: float) -> None:
        pixels = max(1, round(width * self.unit))
        self.draw.line(self.pixels(points), fill=colour, width=pixels, joint="curve")

    # === Around the pet ===

    def background(self) -> None:
        """Some large shapes, pointed ones too, so that a triangle alone doesn't mean a cat."""
        rng = self.rng
        if rng.random() < 0.4:
            self._hill()
        for _ in range(rng.integers(1, 6)):
            colour = pick(rng, _BEHIND, 18)
            centre = 0.5 + (rng.random(2) - 0.5) * self.span * 1.1
            self.polygon(self._shape(int(rng.integers(4)), centre, rng.uniform(0.05, 0.22)), colour)

    def foreground(self) -> None:
        """Now and then something stands in front of the pet."""
        rng = self.rng
        kind, colour = rng.random(), pick(rng, _SCENERY, 18)
        if kind < 0.14:
            centre = (rng.uniform(0.1, 0.9), rng.uniform(0.68, 0.98))
            radius = rng.uniform(0.09, 0.17)
            self.polygon(self._shape(0, np.array(centre), radius, stretch=1.0), colour)
            stripe = self._shape(0, np.array(centre), radius * 0.6, stretch=1.0)
            self.polygon(stripe, mix(colour, (255, 255, 255), 0.35))
        elif kind < 0.26:
            self._grass(colour)
        elif kind < 0.38:
            start, end = rng.uniform(0, 1, 2)
            self.line([(start, -0.5), (end, 1.5)], colour, rng.uniform(0.03, 0.08))
        elif kind < 0.48:
            edge = rng.uniform(0.76, 0.9)
            tilt = rng.normal(0, 0.04)
            points = [(-1, edge - tilt), (2, edge + tilt), (2, 3), (-1, 3)]
            self.polygon(points, colour)

    def finish(self) -> np.ndarray:
        """The picture, lit from somewhere: uint8 of shape (height, width, 3)."""
        rng = self.rng
        small = np.asarray(self.canvas.reduce(self.factor), np.float32)
        # One weight for each corner: a soft slope of light over the picture.
        angle, strength = rng.uniform(0, 2 * math.pi), rng.uniform(0, 0.3)
        down = np.linspace(-1, 1, self.height, dtype=np.float32)[:, None]
        across = np.linspace(-1, 1, self.width, dtype=np.float32)
        slope = math.sin(angle) * down + math.cos(angle) * across
        light = rng.uniform(0.72, 1.12) + strength * slope
        tint = rng.uniform(0.93, 1.07, 3).astype(np.float32)
        grain = rng.normal(0, 2.5, (self.height, self.width, 1)).astype(np.float32)
        lit = small * light[..., None].astype(np.float32) * tint + grain
        return np.clip(np.rint(lit), 0, 255).astype(np.uint8)

    # === Shapes ===

    def _shape(
        self, kind: int, centre: np.ndarray, radius: float, stretch: float | None = None
    ) -> np.ndarray:
        rng = self.rng
        ratio = rng.uniform(0.5, 1.0) if stretch is None else stretch
        if kind == 0 or kind == 1:
            outline = _CIRCLE * (radius, radius * ratio)
        elif kind == 2:
            corners = np.array([(-1, 1), (0, -1.2), (1, 1)])
            outline = corners * (radius * ratio, radius)
        else:
            outline = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * (radius, radius * ratio)
        angle = rng.uniform(0, 2 * math.pi) if kind < 2 else rng.normal(0, 0.4)
        return rotate(outline, angle) + centre

    def _hill(self) -> None:
        rng = self.rng
        across = np.linspace(-1, 2, 24)
        phase, bend = rng.uniform(0, 6.3), rng.uniform(0.02, 0.12)
        top = rng.uniform(0.5, 0.8) + bend * np.sin(across * rng.uniform(2, 6) + phase)
        points = [*zip(across, top, strict=True), (2, 3), (-1, 3)]
        self.polygon(points, pick(rng, _SCENERY, 18))

    def _grass(self, colour: Colour) -> None:
        rng = self.rng
        for foot in np.linspace(-0.05, 1.05, 14) + rng.normal(0, 0.03, 14):
            tip = (foot + rng.normal(0, 0.06), rng.uniform(0.62, 0.88))
            shade = mix(colour, (20, 40, 20), rng.uniform(0, 0.35))
            self.polygon([(foot - 0.035, 1.6), (foot - 0.02, 1.0), tip, (foot + 0.03, 1.0)], shade)


def rotate(points: np.ndarray, angle: float) -> np.ndarray:
    """Points of shape (n, 2) turned about (0, 0) by `angle` radians."""
    cos, sin = math.cos(angle), math.sin(angle)
    return points @ np.array([[cos, sin], [-sin, cos]])


def ellipse(x: float, y: float, rx: float, ry: float, angle: float = 0.0) -> np.ndarray:
    """The outline of an ellipse, 28 points; `angle` in radians."""
    outline = _CIRCLE * (rx, ry)
    return (rotate(outline, angle) if angle else outline) + (x, y)
