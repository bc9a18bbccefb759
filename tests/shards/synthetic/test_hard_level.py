"""The harder level of the embedded data set: expressions are judged by the published files and the images alone."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from shards.masks import decode_mask, encode_segmentation
from shards.synthetic.writer import write_grefcoco

COUNTS = {"two": 2, "three": 3, "four": 4, "five": 5}
COLORS = {
    "red": (208, 44, 40), "green": (46, 160, 62), "blue": (48, 84, 214), "yellow": (236, 206, 50),
    "purple": (152, 62, 184), "orange": (228, 112, 28),
}  # fmt: skip
# Pixels of a shape whose farthest corner is one pixel away from its center.
AREAS = {"circle": 3.12, "square": 2.0, "triangle": 1.3, "star": 1.32, "diamond": 1.2, "cross": 1.92}
# Small shapes have radii of up to 0.09 of the image's shorter side, large ones from 0.15, of which 0.7 is visible.
LARGE = 0.113
# What covers a shape moves the center of what is visible.
TOLERANCE = 0.05
WHAT = (
    r"(?:(small|large) )?(?:(red|green|blue|yellow|purple|orange) )?"
    r"(circle|square|triangle|star|diamond|cross|shape)(?:e?s)?"
)
COUNT = r"(?:(two|three|four|five) )?"
AXES = {
    "left": (0, -1), "leftmost": (0, -1), "left of": (0, -1), "right": (0, 1), "rightmost": (0, 1), "right of": (0, 1),
    "top": (1, -1), "topmost": (1, -1), "above": (1, -1), "bottom": (1, 1), "lowest": (1, 1), "below": (1, 1),
}  # fmt: skip
SIDES = r"(left of|right of|above|below)"
PAIR = re.compile(rf"the {COUNT}{WHAT} and the {COUNT}{WHAT}")
EVERY_RELATED = re.compile(rf"(?:every|all|all the) {WHAT} {SIDES} the {WHAT}")
RELATED = re.compile(rf"the {COUNT}{WHAT} {SIDES} the {WHAT}")
EXTREME = re.compile(rf"the {COUNT}(leftmost|rightmost|topmost|lowest) {WHAT}")
FURTHEST = re.compile(rf"the {WHAT} furthest to the (left|right|top|bottom)")
EVERY = re.compile(rf"(?:every|all|all the) {WHAT}")
COUNTED = re.compile(rf"(?:the )?{COUNT}{WHAT}")


@dataclass(frozen=True)
class Seen:
    """An object as the files show it."""

    shape: str
    color: str
    size: str
    center: tuple[float, float]
    """x, y of its visible pixels, as fractions of the image."""


Objects = dict[int, Seen]


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hard")
    write_grefcoco(folder, level="hard", seed=12, images={"train": 40, "val": 10, "testA": 10})
    return folder


def read_objects(folder: Path) -> dict[int, Objects]:
    document = json.loads((folder / "grefcoco" / "instances.json").read_text())
    names = {category["id"]: category["name"] for category in document["categories"]}
    images: dict[int, np.ndarray] = {}
    for image in document["images"]:
        with Image.open(folder / "images" / "train2014" / image["file_name"]) as drawn:
            images[image["id"]] = np.asarray(drawn.convert("RGB"), dtype=float)
    seen: dict[int, Objects] = {id_: {} for id_ in images}
    for annotation in document["annotations"]:
        levels, shape = images[annotation["image_id"]], names[annotation["category_id"]]
        height, width = levels.shape[:2]
        mask = decode_mask(encode_segmentation(annotation["segmentation"], height, width))
        rows, columns = np.nonzero(mask)
        # Dark outlines are half of a small star: its brightest pixels have its color.
        strength = levels[mask].max(axis=1)
        middle = np.median(levels[mask][strength >= np.quantile(strength, 0.7)], axis=0)
        radius = (mask.sum() / AREAS[shape]) ** 0.5 / min(height, width)
        seen[annotation["image_id"]][annotation["id"]] = Seen(
            shape=shape,
            color=min(COLORS, key=lambda name: float(np.abs(middle - COLORS[name]).sum())),
            size="large" if radius > LARGE else "small",
            center=((columns.mean() + 0.5) / width, (rows.mean() + 0.5) / height),
        )
    return seen


def read_refs(folder: Path) -> list[dict[str, Any]]:
    refs: list[dict[str, Any]] = json.loads((folder / "grefcoco" / "grefs(unc).json").read_text())
    return refs


def fitting(objects: Objects, size: str | None, color: str | None, shape: str) -> set[int]:
    return {
        id_
        for id_, found in objects.items()
        if size in (None, found.size) and color in (None, found.color) and shape in ("shape", found.shape)
    }


def has_count(targets: set[int], count: str | None) -> bool:
    return len(targets) in (0, COUNTS[count] if count else 1)


def is_right(text: str, objects: Objects, targets: set[int]) -> bool:
    """Whether an expression refers to just these objects."""
    if found := PAIR.fullmatch(text):
        words = found.groups()
        first, second = fitting(objects, *words[1:4]), fitting(objects, *words[5:8])
        if not targets:
            return not first and not second
        counted = has_count(first, words[0]) and has_count(second, words[4])
        return counted and bool(first) and bool(second) and not first & second and targets == first | second
    if found := EVERY_RELATED.fullmatch(text):
        *what, side, size, color, shape = found.groups()
        return is_related(objects, targets, fitting(objects, *what), side, fitting(objects, size, color, shape))
    if found := RELATED.fullmatch(text):
        count, *what, side, size, color, shape = found.groups()
        anchors = fitting(objects, size, color, shape)
        return has_count(targets, count) and is_related(objects, targets, fitting(objects, *what), side, anchors)
    if found := EXTREME.fullmatch(text):
        count, direction, *what = found.groups()
        return has_count(targets, count) and is_extreme(objects, targets, fitting(objects, *what), direction)
    if found := FURTHEST.fullmatch(text):
        *what, direction = found.groups()
        return has_count(targets, None) and is_extreme(objects, targets, fitting(objects, *what), direction)
    if found := EVERY.fullmatch(text):
        return fitting(objects, *found.groups()) == targets
    found = COUNTED.fullmatch(text)
    assert found, f"an expression of another form: {text}"
    count, *what = found.groups()
    return has_count(targets, count) and fitting(objects, *what) == targets


def is_related(objects: Objects, targets: set[int], matches: set[int], side: str, anchors: set[int]) -> bool:
    if len(anchors) != 1 or not targets <= matches - anchors:
        return False
    axis, sign = AXES[side]
    origin = objects[min(anchors)].center[axis]
    leads = {id_: sign * (objects[id_].center[axis] - origin) for id_ in matches - anchors}
    return all(lead > TOLERANCE if id_ in targets else lead < -TOLERANCE for id_, lead in leads.items())


def is_extreme(objects: Objects, targets: set[int], matches: set[int], direction: str) -> bool:
    if not targets:
        return not matches
    axis, sign = AXES[direction]
    ahead = {id_: sign * objects[id_].center[axis] for id_ in matches}
    others = matches - targets
    if not others or not targets <= matches:
        return False
    return min(ahead[id_] for id_ in targets) > max(ahead[id_] for id_ in others) + TOLERANCE


def judge(folder: Path, shift: int = 0) -> list[tuple[str, bool]]:
    """Every expression and whether its targets, or those that many ids further, are what it says."""
    images = read_objects(folder)
    judged = []
    for ref in read_refs(folder):
        objects, targets = images[ref["image_id"]], set(ref["ann_id"]) - {-1}
        ids = sorted(objects)
        moved = {ids[(ids.index(target) + shift) % len(ids)] for target in targets}
        if not shift or moved != targets:
            judged.append((ref["sentences"][0]["sent"], is_right(ref["sentences"][0]["sent"], objects, moved)))
    return judged


def test_every_expression_refers_to_its_targets_and_to_no_other_object(published: Path) -> None:
    judged = judge(published)
    assert [text for text, right in judged if not right] == []
    assert len(judged) > 400


def test_targets_that_are_one_object_off_are_refused(published: Path) -> None:
    judged = judge(published, shift=1)
    assert sum(not right for _, right in judged) > 0.97 * len(judged) > 200


def test_expressions_have_the_forms_and_the_numbers_of_targets_of_the_level(published: Path) -> None:
    refs = read_refs(published)
    texts = [ref["sentences"][0]["sent"] for ref in refs]
    for form in (PAIR, EVERY_RELATED, RELATED, EXTREME, EVERY):
        assert sum(bool(form.fullmatch(text)) for text in texts) > 10, form.pattern
    targets = Counter(0 if ref["ann_id"] == [-1] else min(len(ref["ann_id"]), 4) for ref in refs)
    assert all(targets[number] > 0.07 * len(refs) for number in range(5)), targets
    objects = [one for image in read_objects(published).values() for one in image.values()]
    assert {one.shape for one in objects} == set(AREAS)
    assert {one.color for one in objects} == set(COLORS)
    assert sum(one.size == "small" for one in objects) > 0.3 * len(objects)


def test_splits_share_no_image(published: Path) -> None:
    images: dict[str, set[int]] = {}
    for ref in read_refs(published):
        images.setdefault(ref["split"], set()).add(ref["image_id"])
    assert {split: len(ids) for split, ids in images.items()} == {"train": 40, "val": 10, "testA": 10}
    assert len(set.union(*images.values())) == 60
