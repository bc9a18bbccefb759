"""What expressions mean: a `Query` is the meaning of an expression, and `find_targets` says what it refers to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from shards.synthetic.scenes import Scene, SceneObject

Direction = Literal["left", "right", "top", "bottom"]

_PLURALS = {"cross": "crosses"}
_NUMBER_WORDS = {2: "two", 3: "three", 4: "four", 5: "five"}
_RELATIONS = {"left": "left of", "right": "right of", "top": "above", "bottom": "below"}
_SUPERLATIVES = {"left": "leftmost", "right": "rightmost", "top": "topmost", "bottom": "lowest"}
# Fraction of the image's side: "left of" is ambiguous for objects that are closer.
_MIN_DISTANCE = 0.1


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
        shape = self.shape or "shape"
        words = [self.size, self.color, _PLURALS.get(shape, f"{shape}s") if plural else shape]
        return " ".join(word for word in words if word)


@dataclass(frozen=True, slots=True)
class Query:
    """The objects that match a description, narrowed by count, extreme position or relation."""

    description: Description
    form: str
    count: int = 1
    """The number of objects; of a relation, 0: all of them."""
    direction: Direction = "left"
    anchor: Description = Description()
    """Of a relation: the one object that the others are related to. Of a pair: the second objects."""
    anchor_count: int = 1
    """Of a pair: the number of the second objects."""
    wording: int = 0
    """Selects one of several texts of the same meaning."""

    def text(self) -> str:
        """The expression."""
        one, many = self.description.text(), self.description.text(plural=True)
        if self.form == "every":
            return self._every()
        if self.form == "count":
            return (f"the {_NUMBER_WORDS[self.count]} {many}", f"{_NUMBER_WORDS[self.count]} {many}")[self.wording % 2]
        if self.form == "extreme":
            if self.count > 1:
                return f"the {_NUMBER_WORDS[self.count]} {_SUPERLATIVES[self.direction]} {many}"
            first = f"the {_SUPERLATIVES[self.direction]} {one}"
            return (first, f"the {one} furthest to the {self.direction}")[self.wording % 2]
        if self.form == "relation":
            what = f"the {count_objects(self.description, self.count)}" if self.count else self._every()
            return f"{what} {_RELATIONS[self.direction]} the {self.anchor.text()}"
        if self.form == "pair":
            first, second = count_objects(self.description, self.count), count_objects(self.anchor, self.anchor_count)
            return f"the {first} and the {second}"
        return (f"the {one}", f"{one}")[self.wording % 2]

    def _every(self) -> str:
        one, many = self.description.text(), self.description.text(plural=True)
        return (f"every {one}", f"all {many}", f"all the {many}")[self.wording % 3]


def count_objects(description: Description, count: int) -> str:
    """E.g. "three small red circles"; without a number for one."""
    return description.text() if count == 1 else f"{_NUMBER_WORDS[count]} {description.text(plural=True)}"


def find_targets(query: Query, scene: Scene) -> tuple[int, ...] | None:
    """Indices of the objects that a query refers to, () for an empty target; None if the query is ambiguous."""
    candidates = [index for index, obj in enumerate(scene.objects) if query.description.matches(obj)]
    if query.form == "every":
        return tuple(candidates)
    if query.form == "extreme":
        return _find_extreme(query, scene, candidates)
    if query.form == "pair":
        return _find_pair(query, scene, candidates)
    if query.form == "relation":
        related = find_related(query, scene, candidates)
        if related is None:
            return None
        if query.count == 0:
            return tuple(related)
        candidates = related
    return tuple(candidates) if len(candidates) in (0, query.count) else None


def _find_extreme(query: Query, scene: Scene, candidates: list[int]) -> tuple[int, ...] | None:
    if not candidates:
        return ()
    ranked = sorted(candidates, key=lambda index: _position_along(query.direction, scene, scene.objects[index]))
    if len(ranked) <= query.count:
        # "The leftmost" implies several objects.
        return None
    last, first = (
        _position_along(query.direction, scene, scene.objects[index]) for index in ranked[-query.count - 1 :][:2]
    )
    return tuple(ranked[-query.count :]) if first - last >= _MIN_DISTANCE else None


def _find_pair(query: Query, scene: Scene, candidates: list[int]) -> tuple[int, ...] | None:
    others = [index for index, obj in enumerate(scene.objects) if query.anchor.matches(obj)]
    if not candidates and not others:
        return ()
    complete = len(candidates) == query.count and len(others) == query.anchor_count
    # "The star and the red shape" says nothing if the star is the red shape.
    return None if not complete or set(candidates) & set(others) else tuple(candidates + others)


def find_related(query: Query, scene: Scene, candidates: list[int]) -> list[int] | None:
    """The candidates of a relation that lie in its direction; None if it is ambiguous."""
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
