"""Scenes: a few colored shapes that partly cover each other, as an image and as the visible pixels of each.

Letters: N things, H × W pixels of the image.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

SHAPES = ("circle", "square", "triangle", "star")
COLORS = {
    "red": (208, 44, 40),
    "green": (46, 160, 62),
    "blue": (48, 84, 214),
    "yellow": (236, 206, 50),
    "purple": (152, 62, 184),
}
# Radius as a fraction of the shorter side: the two sizes lie well apart, so that nobody has to argue about them.
SIZES = {"small": (0.12, 0.14), "large": (0.2, 0.23)}

_SIDES = (128, 176)
_THINGS = (3, 5)
# All stand nearly upright: turned squares would be diamonds.
_TURN = math.pi / 12
_LOOKALIKES = 0.55
# A dark rim parts things of the same color that overlap.
_RIM = (24, 24, 24)
_VISIBLE = 0.7
_ATTEMPTS = 60
_OVERSAMPLING = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Thing:
    """One shape; its center and radius in pixels, its rotation in radians."""

    shape: str
    color: str
    size: str
    x: float
    y: float
    radius: float
    angle: float


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """Things from the bottom to the top, and what of them is to be seen."""

    width: int
    height: int
    things: tuple[Thing, ...]
    visible: NDArray[np.bool_]
    """(N, H, W)."""


def compose_scene(random: np.random.Generator) -> Scene:
    """A scene of three to five things, each at least 70 % visible; many share some of their attributes."""
    width, height = (int(side) for side in random.integers(*_SIDES, size=2, endpoint=True))
    wanted = int(random.integers(*_THINGS, endpoint=True))
    things: list[Thing] = []
    covers = np.zeros((0, height, width), dtype=bool)
    for _ in range(_ATTEMPTS):
        if len(things) == wanted:
            break
        thing = _place_thing(random, things, width, height)
        extended = np.concatenate([covers, _cover(thing, width, height)[None]])
        visible = find_visible(extended)
        if (visible.sum(axis=(1, 2)) >= _VISIBLE * extended.sum(axis=(1, 2))).all():
            things.append(thing)
            covers = extended
    return Scene(width, height, tuple(things), find_visible(covers))


def find_visible(covers: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """What is left of things (N, H, W), from the bottom to the top, under those above them."""
    if not len(covers):
        return covers
    above = np.logical_or.accumulate(covers[::-1], axis=0)[::-1]
    visible: NDArray[np.bool_] = covers & ~np.concatenate([above[1:], np.zeros_like(above[:1])])
    return visible


def paint_scene(scene: Scene, random: np.random.Generator) -> Image.Image:
    """The image of a scene: smooth dark rims, uneven gray ground, slightly varying colors."""
    scale = _OVERSAMPLING
    ground = random.uniform(90, 170, size=(3, 3)).astype(np.float32)
    size = (scene.width * scale, scene.height * scale)
    canvas = Image.fromarray(ground).resize(size, Image.Resampling.BICUBIC).convert("RGB")
    pen = ImageDraw.Draw(canvas)
    for thing in scene.things:
        color = np.clip(np.array(COLORS[thing.color]) + random.integers(-18, 19, size=3), 0, 255)
        fill = (int(color[0]), int(color[1]), int(color[2]))
        pen.polygon(_outline(thing, scale), fill=fill, outline=_RIM, width=2 * scale)
    image = np.asarray(canvas.reduce(scale), dtype=np.float32)
    noise = random.normal(0, 4, size=image.shape[:2])[..., None]
    return Image.fromarray(np.clip(image + noise, 0, 255).astype(np.uint8))


def _place_thing(random: np.random.Generator, things: list[Thing], width: int, height: int) -> Thing:
    attributes = {
        "shape": str(random.choice(SHAPES)),
        "color": str(random.choice(list(COLORS))),
        "size": str(random.choice(list(SIZES))),
    }
    if things and random.random() < _LOOKALIKES:
        # A lookalike differs in one attribute at most: what a phrase has to tell apart.
        model = things[int(random.integers(len(things)))]
        changed = str(random.choice([*attributes, "nothing"]))
        attributes = {name: value if name == changed else getattr(model, name) for name, value in attributes.items()}
    radius = min(width, height) * random.uniform(*SIZES[attributes["size"]])
    return Thing(
        **attributes,
        x=float(random.uniform(radius, width - radius)),
        y=float(random.uniform(radius, height - radius)),
        radius=float(radius),
        angle=float(random.uniform(-_TURN, _TURN)),
    )


def _cover(thing: Thing, width: int, height: int) -> NDArray[np.bool_]:
    canvas = Image.new("1", (width, height))
    ImageDraw.Draw(canvas).polygon(_outline(thing, 1), fill=1)
    return np.asarray(canvas)


def _outline(thing: Thing, scale: int) -> list[tuple[float, float]]:
    corners = {"circle": 32, "square": 4, "triangle": 3, "star": 10}[thing.shape]
    angles = thing.angle - math.pi / 2 + 2 * math.pi * np.arange(corners) / corners
    radii = np.full(corners, thing.radius)
    if thing.shape == "square":
        angles += math.pi / 4
    elif thing.shape == "star":
        radii[1::2] *= 0.45
    # Drawing puts a corner on the center of its pixel.
    x = (thing.x + radii * np.cos(angles)) * scale - 0.5
    y = (thing.y + radii * np.sin(angles)) * scale - 0.5
    return list(zip(x.tolist(), y.tolist(), strict=True))
