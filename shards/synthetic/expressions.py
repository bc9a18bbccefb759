"""Expressions about a scene: a `Query` is the meaning of an expression, and `find_targets` says what it refers to.

A query with an empty target is a query that has targets, with one word changed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from shards.synthetic.scenes import COLORS, SHAPES, SIZES, Scene, SceneObject

Direction = Literal["left", "right", "top", "bottom"]

_NUMBER_WORDS = {2: "two", 3: "three", 4: "four"}
_OPPOSITE: dict[Direction, Direction] = {"left": "right", "right": "left", "top": "bottom", "bottom": "top"}
_RELATIONS = {"left": "left of", "right": "right of", "top": "above", "bottom": "below"}
_SUPERLATIVES = {"left": "leftmost", "right": "rightmost", "top": "topmost", "bottom": "lowest"}
# Shares of the forms of expressions.
_FORM_SHARES = {"plain": 0.32, "every": 0.32, "count": 0.18, "extreme": 0.09, "relation": 0.09}
# Shares of the descriptions that name each attribute. Shapes most: a network learns colors first, and
# would learn nothing else for long if they were enough.
_ATTRIBUTE_SHARES = {"shape": 0.92, "color": 0.4, "size": 0.25}
# Fraction of the image's side: "left of" is ambiguous for objects that are closer.
_MIN_DISTANCE = 0.1
_ATTEMPTS = 200


@dataclass(frozen=True, slots=True)
class Description:
    """The attributes that an expression names; None for those it leaves open."""

    shape: str | None = None
    color: str | None = None
    size: str | None = None

    def matches(self, obj: SceneObject) -> bool:
        """Whether an object has all the attributes."""
        return all(
            expected in (None, found)
            for expected, found in ((self.shape, obj.shape), (self.color, obj.color), (self.size, obj.size))
        )

    def text(self, *, plural: bool = False) -> str:
        """E.g. "small red circles"."""
        words = [self.size, self.color, (self.shape or "shape") + ("s" if plural else "")]
        return " ".join(word for word in words if word)


@dataclass(frozen=True, slots=True)
class Query:
    """The objects that match a description, narrowed by count, extreme position or relation."""

    description: Description
    form: str
    count: int = 1
    direction: Direction = "left"
    anchor: Description = Description()
    wording: int = 0
    """Selects one of several texts of the same meaning."""

    def text(self) -> str:
        """The expression."""
        one, many = self.description.text(), self.description.text(plural=True)
        if self.form == "every":
            return (f"every {one}", f"all {many}", f"all the {many}")[self.wording % 3]
        if self.form == "count":
            return (f"the {_NUMBER_WORDS[self.count]} {many}", f"{_NUMBER_WORDS[self.count]} {many}")[self.wording % 2]
        if self.form == "extreme":
            first = f"the {_SUPERLATIVES[self.direction]} {one}"
            return (first, f"the {one} furthest to the {self.direction}")[self.wording % 2]
        if self.form == "relation":
            what = one if self.count == 1 else f"{_NUMBER_WORDS[self.count]} {many}"
            return f"the {what} {_RELATIONS[self.direction]} the {self.anchor.text()}"
        return (f"the {one}", f"{one}")[self.wording % 2]


def find_targets(query: Query, scene: Scene) -> tuple[int, ...] | None:
    """Indices of the objects that a query refers to, () for an empty target; None if the query is ambiguous."""
    candidates = [index for index, obj in enumerate(scene.objects) if query.description.matches(obj)]
    if query.form == "every":
        return tuple(candidates)
    if query.form == "extreme":
        return _find_extreme(query, scene, candidates)
    if query.form == "relation":
        related = _find_related(query, scene, candidates)
        if related is None:
            return None
        candidates = related
    return tuple(candidates) if len(candidates) in (0, query.count) else None


def sample_query(scene: Scene, random: np.random.Generator, target: int | None = None) -> Query | None:
    """A query with targets; if `target` is given, with that object alone. None if none was found."""
    for _ in range(_ATTEMPTS):
        query = _sample_query_about(scene, random, target)
        targets = find_targets(query, scene)
        if targets and (target is None or targets == (target,)):
            return query
    return None


def sample_empty_query(scene: Scene, random: np.random.Generator, target: int | None = None) -> Query | None:
    """A query with an empty target, one word away from one with targets. None if none was found."""
    for _ in range(_ATTEMPTS):
        query = sample_query(scene, random, target)
        if query is None:
            return None
        query = _change_one_word(query, random)
        if find_targets(query, scene) == ():
            return query
    return None


def _sample_query_about(scene: Scene, random: np.random.Generator, target: int | None) -> Query:
    """A query about the target or a random object; it may be ambiguous."""
    subject = scene.objects[int(random.integers(len(scene.objects))) if target is None else target]
    description = _sample_description(subject, random)
    fitting = sum(description.matches(obj) for obj in scene.objects)
    form = str(random.choice(list(_FORM_SHARES), p=list(_FORM_SHARES.values())))
    query = Query(description, form, direction=_sample_direction(random), wording=int(random.integers(6)))
    if form == "count" and fitting in _NUMBER_WORDS:
        return replace(query, count=fitting)
    if form == "relation":
        anchor = scene.objects[int(random.integers(len(scene.objects)))]
        query = replace(query, anchor=_sample_description(anchor, random))
        related = _find_related(query, scene, [n for n, obj in enumerate(scene.objects) if description.matches(obj)])
        if related and len(related) in _NUMBER_WORDS:
            return replace(query, count=len(related))
        return query
    return replace(query, form="plain") if form == "count" else query


def _sample_description(obj: SceneObject, random: np.random.Generator) -> Description:
    shape, color, size = random.random(3) < tuple(_ATTRIBUTE_SHARES.values())
    if not (shape or color):
        color = True
    return Description(obj.shape if shape else None, obj.color if color else None, obj.size if size else None)


def _change_one_word(query: Query, random: np.random.Generator) -> Query:
    """Change one word: an attribute to another, or the direction of a relation to its opposite."""
    if query.form == "relation" and random.random() < 0.5:
        return replace(query, direction=_OPPOSITE[query.direction])
    description = query.description
    named = [name for name in ("shape", "color", "size") if getattr(description, name)]
    name = str(random.choice(named))
    choices = {"shape": SHAPES, "color": tuple(COLORS), "size": tuple(SIZES)}[name]
    others = [choice for choice in choices if choice != getattr(description, name)]
    changed = {"shape": description.shape, "color": description.color, "size": description.size}
    changed[name] = str(random.choice(others))
    return replace(query, description=Description(**changed))


def _find_extreme(query: Query, scene: Scene, candidates: list[int]) -> tuple[int, ...] | None:
    if not candidates:
        return ()
    ranked = sorted(candidates, key=lambda index: _position_along(query.direction, scene, scene.objects[index]))
    if len(ranked) < 2:
        # "The leftmost" implies several objects.
        return None
    last, first = (_position_along(query.direction, scene, scene.objects[index]) for index in ranked[-2:])
    return (ranked[-1],) if first - last >= _MIN_DISTANCE else None


def _find_related(query: Query, scene: Scene, candidates: list[int]) -> list[int] | None:
    anchors = [index for index, obj in enumerate(scene.objects) if query.anchor.matches(obj)]
    if len(anchors) != 1 or query.anchor == query.description:
        return None
    origin = _position_along(query.direction, scene, scene.objects[anchors[0]])
    leads = {
        index: _position_along(query.direction, scene, scene.objects[index]) - origin
        for index in candidates
        if index != anchors[0]
    }
    if any(abs(lead) < _MIN_DISTANCE for lead in leads.values()):
        return None
    return [index for index, lead in leads.items() if lead > 0]


def _position_along(direction: Direction, scene: Scene, obj: SceneObject) -> float:
    """The coordinate of an object along a direction, in fractions of the image."""
    across, down = obj.x / scene.width, obj.y / scene.height
    return {"left": -across, "right": across, "top": -down, "bottom": down}[direction]


def _sample_direction(random: np.random.Generator) -> Direction:
    directions: tuple[Direction, ...] = ("left", "right", "top", "bottom")
    return directions[int(random.integers(4))]
