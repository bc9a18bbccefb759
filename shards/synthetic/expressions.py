"""Expressions about a scene, sampled: true ones, and ones with an empty target.

A query with an empty target is a query that has targets, with one word changed, or two in a pair.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from shards.synthetic.levels import Level
from shards.synthetic.queries import Description, Direction, Query, find_related, find_targets
from shards.synthetic.scenes import Scene, SceneObject

_OPPOSITE: dict[Direction, Direction] = {"left": "right", "right": "left", "top": "bottom", "bottom": "top"}
_ATTEMPTS = 200


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
        query = _change_one_word(query, scene.level, random)
        if find_targets(query, scene) == ():
            return query
    return None


def _sample_query_about(scene: Scene, random: np.random.Generator, target: int | None) -> Query:
    """A query about the target or a random object; it may be ambiguous."""
    level = scene.level
    subject = scene.objects[int(random.integers(len(scene.objects))) if target is None else target]
    description = _sample_description(subject, level, random)
    form = str(random.choice(list(level.forms), p=list(level.forms.values())))
    query = Query(description, form, direction=_sample_direction(random), wording=int(random.integers(6)))
    if form == "count":
        count = _count_matches(description, scene)
        return replace(query, count=count) if 1 < count <= level.max_count else replace(query, form="plain")
    if form == "extreme" and level.max_extremes > 1:
        return replace(query, count=int(random.integers(1, level.max_extremes, endpoint=True)))
    if form in ("relation", "pair"):
        anchor = scene.objects[int(random.integers(len(scene.objects)))]
        query = replace(query, anchor=_sample_description(anchor, level, random))
        return _count_related(query, scene, random) if form == "relation" else _count_pair(query, scene)
    return query


def _count_related(query: Query, scene: Scene, random: np.random.Generator) -> Query:
    """A relation with the number of objects that it holds for, or without a number."""
    related = find_related(query, scene, [n for n, obj in enumerate(scene.objects) if query.description.matches(obj)])
    if scene.level.every_related and random.random() < scene.level.every_related:
        return replace(query, count=0)
    return replace(query, count=len(related)) if related and len(related) <= scene.level.max_count else query


def _count_pair(query: Query, scene: Scene) -> Query:
    counts = [_count_matches(description, scene) for description in (query.description, query.anchor)]
    if max(counts) > scene.level.max_count:
        return replace(query, form="plain")
    return replace(query, count=counts[0], anchor_count=counts[1])


def _count_matches(description: Description, scene: Scene) -> int:
    return sum(description.matches(obj) for obj in scene.objects)


def _sample_description(obj: SceneObject, level: Level, random: np.random.Generator) -> Description:
    shape, color, size = random.random(3) < tuple(level.attributes.values())
    if not (shape or color):
        color = True
    return Description(obj.shape if shape else None, obj.color if color else None, obj.size if size else None)


def _change_one_word(query: Query, level: Level, random: np.random.Generator) -> Query:
    """Change one word: an attribute to another, or the direction of a relation to its opposite; of a pair, two."""
    if query.form == "relation":
        if level.change_anchor and random.random() < level.change_anchor:
            return replace(query, anchor=_change_attribute(query.anchor, level, random))
        if random.random() < 0.5:
            return replace(query, direction=_OPPOSITE[query.direction])
    if query.form == "pair":
        query = replace(query, anchor=_change_attribute(query.anchor, level, random))
    return replace(query, description=_change_attribute(query.description, level, random))


def _change_attribute(description: Description, level: Level, random: np.random.Generator) -> Description:
    named = [name for name in ("shape", "color", "size") if getattr(description, name)]
    name = str(random.choice(named))
    choices = {"shape": level.shapes, "color": tuple(level.colors), "size": tuple(level.sizes)}[name]
    others = [choice for choice in choices if choice != getattr(description, name)]
    changed = {"shape": description.shape, "color": description.color, "size": description.size}
    changed[name] = str(random.choice(others))
    return Description(**changed)


def _sample_direction(random: np.random.Generator) -> Direction:
    directions: tuple[Direction, ...] = ("left", "right", "top", "bottom")
    return directions[int(random.integers(4))]
