"""Scenes of a few colored shapes that partly cover each other: their images, and the mask of each visible part.

Shapes: N objects, H × W pixels of the image.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from shards.synthetic.levels import STANDARD, Level

_SIDES = (128, 176)
# Radians. A square that is turned further would be a diamond.
_MAX_ROTATION = math.pi / 12
_LOOKALIKE_SHARE = 0.55
# A dark outline separates overlapping objects of one color.
_OUTLINE_COLOR = (24, 24, 24)
_MIN_VISIBLE = 0.7
_ATTEMPTS = 60
_OVERSAMPLING = 2
# Corners of shapes that are no regular polygons or stars, for radius 1; y points down.
_OUTLINES = {
    "cross": (
        (-0.3, -0.95), (0.3, -0.95), (0.3, -0.3), (0.95, -0.3), (0.95, 0.3), (0.3, 0.3), (0.3, 0.95), (-0.3, 0.95),
        (-0.3, 0.3), (-0.95, 0.3), (-0.95, -0.3), (-0.3, -0.3),
    ),
    "diamond": ((0.0, -1.0), (0.6, 0.0), (0.0, 1.0), (-0.6, 0.0)),
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneObject:
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
    """Objects from the bottom to the top, and the masks of their visible parts."""

    width: int
    height: int
    objects: tuple[SceneObject, ...]
    visible: NDArray[np.bool_]
    """(N, H, W)."""
    level: Level = STANDARD


def sample_scene(random: np.random.Generator, level: Level = STANDARD) -> Scene:
    """A scene of a level's objects, each at least 70 % visible; many share some of their attributes."""
    width, height = (int(side) for side in random.integers(*_SIDES, size=2, endpoint=True))
    num_objects = int(random.integers(*level.num_objects, endpoint=True))
    objects: list[SceneObject] = []
    masks = np.zeros((0, height, width), dtype=bool)
    for _ in range(_ATTEMPTS):
        if len(objects) == num_objects:
            break
        obj = _sample_object(random, level, objects, width, height)
        extended = np.concatenate([masks, _rasterize(obj, width, height)[None]])
        visible = visible_masks(extended)
        if (visible.sum(axis=(1, 2)) >= _MIN_VISIBLE * extended.sum(axis=(1, 2))).all():
            objects.append(obj)
            masks = extended
    return Scene(width, height, tuple(objects), visible_masks(masks), level)


def visible_masks(masks: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The visible parts (N, H, W) of masks (N, H, W) that lie on each other, the first at the bottom."""
    if not len(masks):
        return masks
    above = np.logical_or.accumulate(masks[::-1], axis=0)[::-1]
    visible: NDArray[np.bool_] = masks & ~np.concatenate([above[1:], np.zeros_like(above[:1])])
    return visible


def render_scene(scene: Scene, random: np.random.Generator) -> Image.Image:
    """The image of a scene: dark smooth outlines, uneven gray background, slightly varying colors."""
    scale = _OVERSAMPLING
    background = random.uniform(90, 170, size=(3, 3)).astype(np.float32)
    size = (scene.width * scale, scene.height * scale)
    canvas = Image.fromarray(background).resize(size, Image.Resampling.BICUBIC).convert("RGB")
    draw = ImageDraw.Draw(canvas)
    for obj in scene.objects:
        color = np.clip(np.array(scene.level.colors[obj.color]) + random.integers(-18, 19, size=3), 0, 255)
        fill = (int(color[0]), int(color[1]), int(color[2]))
        draw.polygon(
            _compute_corners(obj, scale), fill=fill, outline=_OUTLINE_COLOR, width=scene.level.outline_px * scale
        )
    image = np.asarray(canvas.reduce(scale), dtype=np.float32)
    noise = random.normal(0, 4, size=image.shape[:2])[..., None]
    return Image.fromarray(np.clip(image + noise, 0, 255).astype(np.uint8))


def _sample_object(
    random: np.random.Generator, level: Level, objects: list[SceneObject], width: int, height: int
) -> SceneObject:
    attributes = {
        "shape": str(random.choice(level.shapes)),
        "color": str(random.choice(list(level.colors))),
        "size": str(random.choice(list(level.sizes))),
    }
    if objects and random.random() < _LOOKALIKE_SHARE:
        # A lookalike differs in one attribute at most, which an expression must name.
        original = objects[int(random.integers(len(objects)))]
        changed = str(random.choice([*attributes, "nothing"]))
        attributes = {name: value if name == changed else getattr(original, name) for name, value in attributes.items()}
    radius = min(width, height) * random.uniform(*level.sizes[attributes["size"]])
    return SceneObject(
        **attributes,
        x=float(random.uniform(radius, width - radius)),
        y=float(random.uniform(radius, height - radius)),
        radius=float(radius),
        angle=float(random.uniform(-_MAX_ROTATION, _MAX_ROTATION)),
    )


def _rasterize(obj: SceneObject, width: int, height: int) -> NDArray[np.bool_]:
    canvas = Image.new("1", (width, height))
    ImageDraw.Draw(canvas).polygon(_compute_corners(obj, 1), fill=1)
    return np.asarray(canvas)


def _compute_corners(obj: SceneObject, scale: int) -> list[tuple[float, float]]:
    x, y = _compute_outline(obj)
    # Pillow puts integer coordinates on the centers of pixels.
    return list(zip(((obj.x + x) * scale - 0.5).tolist(), ((obj.y + y) * scale - 0.5).tolist(), strict=True))


def _compute_outline(obj: SceneObject) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The corners x and y of an object, in pixels from its center."""
    if obj.shape in _OUTLINES:
        x, y = obj.radius * np.array(_OUTLINES[obj.shape]).T
        cosine, sine = math.cos(obj.angle), math.sin(obj.angle)
        return x * cosine - y * sine, x * sine + y * cosine
    corners = {"circle": 32, "square": 4, "triangle": 3, "star": 10}[obj.shape]
    angles = obj.angle - math.pi / 2 + 2 * math.pi * np.arange(corners) / corners
    radii = np.full(corners, obj.radius)
    if obj.shape == "square":
        angles += math.pi / 4
    elif obj.shape == "star":
        radii[1::2] *= 0.45
    return radii * np.cos(angles), radii * np.sin(angles)
