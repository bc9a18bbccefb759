"""Phrases about a scene: what is asked for is a `Query`, and the scene alone decides what it refers to.

True phrases are queries with an answer; empty ones are true queries with one word changed that nothing answers.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from shards.synthetic.scenes import COLORS, SHAPES, SIZES, Scene, Thing

Direction = Literal["left", "right", "top", "bottom"]

_NUMBERS = {2: "two", 3: "three", 4: "four"}
_OPPOSITE: dict[Direction, Direction] = {"left": "right", "right": "left", "top": "bottom", "bottom": "top"}
_RELATIONS = {"left": "left of", "right": "right of", "top": "above", "bottom": "below"}
_SUPERLATIVES = {"left": "leftmost", "right": "rightmost", "top": "topmost", "bottom": "lowest"}
# How often a phrase says what beside its description.
_FORMS = {"plain": 0.32, "every": 0.32, "number": 0.18, "extreme": 0.09, "relation": 0.09}
# How often a description names each attribute. Shapes most: colors are so much easier to see that a network which
# could do with them would learn nothing else for long.
_NAMED = {"shape": 0.92, "color": 0.4, "size": 0.25}
# Closer than this fraction of the image's side, "left of" would be a matter of opinion.
_MARGIN = 0.1
_ATTEMPTS = 200


@dataclass(frozen=True, slots=True)
class Description:
    """The attributes that a phrase names; None for those it leaves open."""

    shape: str | None = None
    color: str | None = None
    size: str | None = None

    def fits(self, thing: Thing) -> bool:
        """Whether a thing has all the attributes."""
        return all(
            wanted in (None, found)
            for wanted, found in ((self.shape, thing.shape), (self.color, thing.color), (self.size, thing.size))
        )

    def say(self, *, plural: bool = False) -> str:
        """E.g. "small red circles"."""
        words = [self.size, self.color, (self.shape or "shape") + ("s" if plural else "")]
        return " ".join(word for word in words if word)


@dataclass(frozen=True, slots=True)
class Query:
    """What a phrase asks for: everything that fits, narrowed by number, extreme position or relation."""

    description: Description
    form: str
    number: int = 1
    direction: Direction = "left"
    anchor: Description = Description()
    wording: int = 0
    """Which of several ways to say it."""

    def say(self) -> str:
        """The phrase."""
        one, many = self.description.say(), self.description.say(plural=True)
        if self.form == "every":
            return (f"every {one}", f"all {many}", f"all the {many}")[self.wording % 3]
        if self.form == "number":
            return (f"the {_NUMBERS[self.number]} {many}", f"{_NUMBERS[self.number]} {many}")[self.wording % 2]
        if self.form == "extreme":
            first = f"the {_SUPERLATIVES[self.direction]} {one}"
            return (first, f"the {one} furthest to the {self.direction}")[self.wording % 2]
        if self.form == "relation":
            what = one if self.number == 1 else f"{_NUMBERS[self.number]} {many}"
            return f"the {what} {_RELATIONS[self.direction]} the {self.anchor.say()}"
        return (f"the {one}", f"{one}")[self.wording % 2]


def answer_query(query: Query, scene: Scene) -> tuple[int, ...] | None:
    """Numbers of the things that a query refers to, none of them for an empty target; None if it is ambiguous."""
    matches = [number for number, thing in enumerate(scene.things) if query.description.fits(thing)]
    if query.form == "every":
        return tuple(matches)
    if query.form == "extreme":
        return _pick_extreme(query, scene, matches)
    if query.form == "relation":
        related = _relate(query, scene, matches)
        if related is None:
            return None
        matches = related
    return tuple(matches) if len(matches) in (0, query.number) else None


def ask_true(scene: Scene, random: np.random.Generator, target: int | None = None) -> Query | None:
    """A query with an answer; if `target` is given, one that refers to that thing alone. None if none was found."""
    for _ in range(_ATTEMPTS):
        query = _draft_query(scene, random, target)
        answer = answer_query(query, scene)
        if answer and (target is None or answer == (target,)):
            return query
    return None


def ask_false(scene: Scene, random: np.random.Generator, target: int | None = None) -> Query | None:
    """A query that nothing answers, one word away from one that something does. None if none was found."""
    for _ in range(_ATTEMPTS):
        true = ask_true(scene, random, target)
        if true is None:
            return None
        false = _spoil(true, random)
        if answer_query(false, scene) == ():
            return false
    return None


def _draft_query(scene: Scene, random: np.random.Generator, target: int | None) -> Query:
    """A query about some thing, which may well turn out ambiguous."""
    subject = scene.things[int(random.integers(len(scene.things))) if target is None else target]
    description = _describe(subject, random)
    fitting = sum(description.fits(thing) for thing in scene.things)
    form = str(random.choice(list(_FORMS), p=list(_FORMS.values())))
    query = Query(description, form, direction=_choose_direction(random), wording=int(random.integers(6)))
    if form == "number" and fitting in _NUMBERS:
        return replace(query, number=fitting)
    if form == "relation":
        anchor = scene.things[int(random.integers(len(scene.things)))]
        query = replace(query, anchor=_describe(anchor, random))
        related = _relate(query, scene, [n for n, thing in enumerate(scene.things) if description.fits(thing)])
        if related and len(related) in _NUMBERS:
            return replace(query, number=len(related))
        return query
    return replace(query, form="plain") if form == "number" else query


def _describe(thing: Thing, random: np.random.Generator) -> Description:
    shape, color, size = random.random(3) < tuple(_NAMED.values())
    if not (shape or color):
        color = True
    return Description(thing.shape if shape else None, thing.color if color else None, thing.size if size else None)


def _spoil(query: Query, random: np.random.Generator) -> Query:
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


def _pick_extreme(query: Query, scene: Scene, matches: list[int]) -> tuple[int, ...] | None:
    if not matches:
        return ()
    ranked = sorted(matches, key=lambda number: _advance(query.direction, scene, scene.things[number]))
    if len(ranked) < 2:
        # "The leftmost" of one thing is nothing that a person says.
        return None
    last, first = (_advance(query.direction, scene, scene.things[number]) for number in ranked[-2:])
    return (ranked[-1],) if first - last >= _MARGIN else None


def _relate(query: Query, scene: Scene, matches: list[int]) -> list[int] | None:
    anchors = [number for number, thing in enumerate(scene.things) if query.anchor.fits(thing)]
    if len(anchors) != 1 or query.anchor == query.description:
        return None
    origin = _advance(query.direction, scene, scene.things[anchors[0]])
    leads = {
        number: _advance(query.direction, scene, scene.things[number]) - origin
        for number in matches
        if number != anchors[0]
    }
    if any(abs(lead) < _MARGIN for lead in leads.values()):
        return None
    return [number for number, lead in leads.items() if lead > 0]


def _advance(direction: Direction, scene: Scene, thing: Thing) -> float:
    """How far a thing lies towards a direction, in fractions of the image."""
    across, down = thing.x / scene.width, thing.y / scene.height
    return {"left": -across, "right": across, "top": -down, "bottom": down}[direction]


def _choose_direction(random: np.random.Generator) -> Direction:
    directions: tuple[Direction, ...] = ("left", "right", "top", "bottom")
    return directions[int(random.integers(4))]
