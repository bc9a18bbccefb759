"""How hard the embedded data set is: what is drawn, and what is said about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

COLORS = MappingProxyType(
    {
        "red": (208, 44, 40),
        "green": (46, 160, 62),
        "blue": (48, 84, 214),
        "yellow": (236, 206, 50),
        "purple": (152, 62, 184),
    }
)
"""Red, green and blue from 0 to 255."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """One level."""

    name: str
    shapes: tuple[str, ...]
    colors: Mapping[str, tuple[int, int, int]]
    sizes: Mapping[str, tuple[float, float]]
    """Ranges of the radius as fractions of the image's shorter side, far enough apart to be distinguishable."""
    num_objects: tuple[int, int]
    """Objects of an image, at least and at most."""
    forms: Mapping[str, float]
    """Shares of the forms of expressions."""
    attributes: Mapping[str, float]
    """Shares of the descriptions that name each attribute."""
    max_count: int
    """The largest number that an expression names."""
    outline_px: int = 2
    """Width of the dark outlines in pixels."""
    max_extremes: int = 1
    """The largest number of objects that lie furthest in a direction together: "the two leftmost stars"."""
    every_related: float = 0.0
    """Share of the relations about all objects in that direction: "every star left of the blue circle"."""
    change_anchor: float = 0.0
    """Share of the changed words of a relation that belong to the object that others are related to."""


STANDARD = Level(
    name="standard",
    shapes=("circle", "square", "triangle", "star"),
    colors=COLORS,
    sizes=MappingProxyType({"small": (0.12, 0.14), "large": (0.2, 0.23)}),
    num_objects=(3, 5),
    forms=MappingProxyType({"plain": 0.32, "every": 0.32, "count": 0.18, "extreme": 0.09, "relation": 0.09}),
    # Shapes most: a network learns colors first, and would learn nothing else for long if they were enough.
    attributes=MappingProxyType({"shape": 0.92, "color": 0.4, "size": 0.25}),
    max_count=4,
)
"""The level of `igvg demo` and of the network `shapes`."""
HARD = Level(
    name="hard",
    shapes=(*STANDARD.shapes, "diamond", "cross"),
    colors=MappingProxyType({**COLORS, "orange": (228, 112, 28)}),
    sizes=MappingProxyType({"small": (0.075, 0.09), "large": (0.15, 0.18)}),
    num_objects=(4, 7),
    # Most relations that are drawn are ambiguous, and drawn again.
    forms=MappingProxyType({
        "plain": 0.07, "every": 0.08, "count": 0.1, "extreme": 0.13, "relation": 0.55, "pair": 0.07,
    }),
    attributes=MappingProxyType({"shape": 0.88, "color": 0.5, "size": 0.4}),
    max_count=5,
    outline_px=1,
    max_extremes=3,
    every_related=0.5,
    change_anchor=0.25,
)  # fmt: skip
"""More shapes, colors and sizes, small objects, longer expressions; the level of `igvg ablate components`."""
LEVELS = {level.name: level for level in (STANDARD, HARD)}
