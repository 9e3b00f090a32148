"""Drawing of coloured, textured shapes with Pillow, supersampled so that edges are smooth at 64 pixels."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

SUPERSAMPLING = 3

Style: TypeAlias = Literal["plain", "outline", "turned", "dark", "noisy"]
"""Training draws in the plain one. The others: outlines alone, turned by TURN, on dark ground, in HEAVY_NOISE."""

COLOURS = {
    "red": (214, 40, 40),
    "orange": (244, 140, 30),
    "yellow": (240, 220, 50),
    "green": (50, 160, 70),
    "cyan": (60, 205, 215),
    "blue": (45, 80, 205),
    "purple": (130, 55, 170),
    "pink": (245, 140, 195),
}
# All lighter than any object: where dark objects on light and light ones on dark both occur, telling a shape from its
# ground takes a small vision tower many times as long to learn.
BACKGROUNDS = {
    "white": (245, 245, 245),
    "grey": (208, 208, 208),
    "beige": (233, 220, 192),
    "light blue": (205, 222, 243),
}
DARK_BACKGROUNDS = {"white": (30, 30, 30), "grey": (60, 60, 60), "beige": (55, 45, 30), "light blue": (25, 35, 60)}
TURN = 45  # degrees
LINE = 0.036  # of an outline, in image widths
NOISE, HEAVY_NOISE = 4, 40  # in grey levels


@dataclass(frozen=True)
class Sprite:
    """One drawn object. Place and radius are in image widths, the angle in degrees, the tint in grey levels."""

    shape: str
    colour: str
    texture: str
    x: float
    y: float
    radius: float
    angle: float
    tint: tuple[float, float, float]


def draw(
    sprites: Sequence[Sprite], background: str, size: int, rng: np.random.Generator, style: Style = "plain"
) -> Image.Image:
    """The sprites on a softly graded, slightly noisy background, as an RGB image of `size` pixels a side."""
    large = size * SUPERSAMPLING
    ground = (DARK_BACKGROUNDS if style == "dark" else BACKGROUNDS)[background]
    canvas = Image.new("RGB", (large, large), ground)
    for sprite in sprites:
        colour = tuple(int(np.clip(c + t, 0, 255)) for c, t in zip(COLOURS[sprite.colour], sprite.tint, strict=True))
        canvas.paste(colour, mask=_mask(sprite, large, style))
    pixels = np.asarray(canvas.resize((size, size), Image.Resampling.BOX), np.float32)
    slope = rng.uniform(-12, 12, (2, 1, 1, 3)) * np.linspace(-1, 1, size).reshape(1, -1, 1, 1)
    noise = rng.normal(0, HEAVY_NOISE if style == "noisy" else NOISE, (size, size, 1))
    shaded = pixels + slope[0] + slope[1].transpose(1, 0, 2) + noise
    return Image.fromarray(np.clip(shaded, 0, 255).astype(np.uint8))


def _mask(sprite: Sprite, size: int, style: Style) -> Image.Image:
    """Where the sprite covers a canvas of `size` pixels; an outline has no texture."""
    mask = Image.new("L", (size, size), 0)
    pen = ImageDraw.Draw(mask)
    centre, radius = (sprite.x * size, sprite.y * size), sprite.radius * size
    angle = sprite.angle + (TURN if style == "turned" else 0)
    SHAPE_PAINTERS[sprite.shape](pen, centre, radius, math.radians(angle))
    if style == "outline":
        return ImageChops.subtract(mask, mask.filter(ImageFilter.MinFilter(2 * round(LINE * size / 2) + 1)))
    if sprite.texture:
        mask = ImageChops.multiply(mask, _pattern(sprite.texture, size))
    return mask


def _pattern(texture: str, size: int) -> Image.Image:
    """A pattern of holes: where it is 0 the background shows through."""
    pattern = Image.new("L", (size, size), 255)
    pen = ImageDraw.Draw(pattern)
    step = size // 10
    if texture == "striped":
        for start in range(-size, size, step):
            pen.line([(start, 0), (start + size, size)], fill=0, width=step // 4)
    else:
        hole = step // 5
        for row in range(0, size, step):
            for column in range((row // step % 2) * step // 2, size, step):
                pen.ellipse([column - hole, row - hole, column + hole, row + hole], fill=0)
    return pattern


Point = tuple[float, float]
Painter = Callable[[ImageDraw.ImageDraw, Point, float, float], None]


def _polygon(polar: Sequence[tuple[float, float]]) -> Painter:
    """A painter of the polygon through (angle in degrees clockwise from the top, radius) points."""

    def paint(pen: ImageDraw.ImageDraw, centre: Point, radius: float, turn: float) -> None:
        corners = [
            (
                centre[0] + radius * r * math.sin(math.radians(a) + turn),
                centre[1] - radius * r * math.cos(math.radians(a) + turn),
            )
            for a, r in polar
        ]
        pen.polygon(corners, fill=255)

    return paint


def _disc(pen: ImageDraw.ImageDraw, centre: Point, radius: float, turn: float) -> None:
    del turn
    pen.circle(centre, radius * 0.95, fill=255)


def _ring(pen: ImageDraw.ImageDraw, centre: Point, radius: float, turn: float) -> None:
    _disc(pen, centre, radius * 1.05, turn)
    pen.circle(centre, radius * 0.55, fill=0)


def _cartesian(points: Sequence[Point]) -> list[tuple[float, float]]:
    """(x, y) with y upward as the polar points that `_polygon` takes."""
    return [(math.degrees(math.atan2(x, y)), math.hypot(x, y)) for x, y in points]


_HEART = [
    (math.sin(t) ** 3, (13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)) / 15)
    for t in np.linspace(0, 2 * math.pi, 40, endpoint=False)
]
_CROSS = [(0.3, 1.0), (0.3, 0.3), (1.0, 0.3), (1.0, -0.3), (0.3, -0.3), (0.3, -1.0)]
_ARROW = [(0.0, 1.05), (0.85, 0.1), (0.32, 0.1), (0.32, -1.0), (-0.32, -1.0), (-0.32, 0.1), (-0.85, 0.1)]

SHAPE_PAINTERS: dict[str, Painter] = {
    "circle": _disc,
    "square": _polygon([(a, 1.15) for a in (45.0, 135.0, 225.0, 315.0)]),
    "triangle": _polygon([(a, 1.2) for a in (0.0, 120.0, 240.0)]),
    "star": _polygon([(36.0 * i, 1.2 if i % 2 == 0 else 0.5) for i in range(10)]),
    "cross": _polygon(_cartesian(_CROSS + [(-x, -y) for x, y in _CROSS])),
    "ring": _ring,
    "heart": _polygon(_cartesian(_HEART)),
    "arrow": _polygon(_cartesian(_ARROW)),
}
SHAPES = tuple(SHAPE_PAINTERS)
