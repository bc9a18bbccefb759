"""The embedded data set as a reader finds it: every expression is judged by the images and annotations alone."""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from shards.masks import decode_mask, encode_segmentation
from shards.synthetic.writer import write_published

NUMBERS = {"two": 2, "three": 3, "four": 4}
# About what the words mean: red, green and blue, 0 to 255.
COLORS = {
    "red": (205, 45, 40), "green": (45, 160, 60), "blue": (50, 85, 215), "yellow": (235, 205, 50),
    "purple": (150, 60, 185),
}  # fmt: skip
# Pixels of a shape whose farthest corner is one pixel away from its center.
AREAS = {"circle": 3.14, "square": 2.0, "triangle": 1.3, "star": 1.32}
# Small shapes have radii of up to 0.14 of the image's shorter side, large ones from 0.2, of which 0.7 is visible.
LARGE = 0.153
# What covers a shape moves the center of what is visible.
TOLERANCE = 0.06

WHAT = r"(?:(small|large) )?(?:(red|green|blue|yellow|purple) )?(circle|square|triangle|star|shape)s?"
SIDES = {"left of": (0, -1), "right of": (0, 1), "above": (1, -1), "below": (1, 1)}
EXTREMES = {"leftmost": (0, -1), "rightmost": (0, 1), "topmost": (1, -1), "lowest": (1, 1)}
FURTHEST = {"left": (0, -1), "right": (0, 1), "top": (1, -1), "bottom": (1, 1)}
EVERY = re.compile(rf"(?:every|all|all the) {WHAT}")
RELATION = re.compile(rf"the (?:(two|three|four) )?{WHAT} (left of|right of|above|below) the {WHAT}")
EXTREME = re.compile(rf"the (leftmost|rightmost|topmost|lowest) {WHAT}")
FURTHEST_TO = re.compile(rf"the {WHAT} furthest to the (left|right|top|bottom)")
COUNTED = re.compile(rf"(?:the )?(?:(two|three|four) )?{WHAT}")


@dataclass(frozen=True)
class Seen:
    """An object as the files show it."""

    shape: str
    color: str
    size: str
    center: tuple[float, float]
    """x, y of its visible pixels, as fractions of the image."""


def read_objects(folder: Path, dataset: str) -> dict[int, dict[int, Seen]]:
    """The objects of every image by their annotation ids."""
    document = json.loads((folder / dataset / "instances.json").read_text())
    names = {category["id"]: category["name"] for category in document["categories"]}
    images, seen = {}, {image["id"]: {} for image in document["images"]}
    for image in document["images"]:
        with Image.open(folder / "images" / "train2014" / image["file_name"]) as drawn:
            images[image["id"]] = np.asarray(drawn.convert("RGB"), dtype=float)
    for annotation in document["annotations"]:
        levels, shape = images[annotation["image_id"]], names[annotation["category_id"]]
        height, width = levels.shape[:2]
        mask = decode_mask(encode_segmentation(annotation["segmentation"], height, width))
        rows, columns = np.nonzero(mask)
        middle = np.median(levels[mask], axis=0)
        radius = (mask.sum() / AREAS[shape]) ** 0.5 / min(height, width)
        seen[annotation["image_id"]][annotation["id"]] = Seen(
            shape=shape,
            color=min(COLORS, key=lambda name: float(np.abs(middle - COLORS[name]).sum())),
            size="large" if radius > LARGE else "small",
            center=((columns.mean() + 0.5) / width, (rows.mean() + 0.5) / height),
        )
    return seen


def fitting(objects: dict[int, Seen], size: str | None, color: str | None, shape: str) -> set[int]:
    """The objects that a description fits."""
    return {
        id_
        for id_, found in objects.items()
        if size in (None, found.size) and color in (None, found.color) and shape in ("shape", found.shape)
    }


def is_right(expression: str, objects: dict[int, Seen], targets: set[int]) -> bool:
    """Whether an expression refers to just these objects."""
    if found := EVERY.fullmatch(expression):
        return fitting(objects, *found.groups()) == targets
    if found := RELATION.fullmatch(expression):
        number, *what, side = found.groups()[:5]
        return is_related(objects, targets, fitting(objects, *what), side, found.groups()[5:], number)
    if found := EXTREME.fullmatch(expression):
        direction, *what = found.groups()
        return is_extreme(objects, targets, fitting(objects, *what), *EXTREMES[direction])
    if found := FURTHEST_TO.fullmatch(expression):
        *what, direction = found.groups()
        return is_extreme(objects, targets, fitting(objects, *what), *FURTHEST[direction])
    found = COUNTED.fullmatch(expression)
    assert found, f"an expression of another form: {expression}"
    number, *what = found.groups()
    return fitting(objects, *what) == targets and len(targets) in (0, NUMBERS.get(number, 1))


def is_related(
    objects: dict[int, Seen], targets: set[int], matches: set[int], side: str, anchor: Any, number: str | None
) -> bool:
    anchors = fitting(objects, *anchor)
    if len(anchors) != 1 or not targets <= matches - anchors or len(targets) not in (0, NUMBERS.get(number or "", 1)):
        return False
    axis, sign = SIDES[side]
    origin = objects[next(iter(anchors))].center[axis]
    leads = {id_: sign * (objects[id_].center[axis] - origin) for id_ in matches - anchors}
    return all(lead > -TOLERANCE if id_ in targets else lead < TOLERANCE for id_, lead in leads.items())


def is_extreme(objects: dict[int, Seen], targets: set[int], matches: set[int], axis: int, sign: int) -> bool:
    if not targets:
        return not matches
    ahead = {id_: sign * objects[id_].center[axis] for id_ in matches}
    return len(targets) == 1 and targets <= matches and ahead[min(targets)] > max(ahead.values()) - TOLERANCE


def read_expressions(folder: Path, dataset: str) -> Iterator[tuple[int, str, set[int]]]:
    """Image, expression and the annotations it is about, as each data set writes them."""
    if dataset == "grefcoco":
        refs = json.loads((folder / dataset / "grefs(unc).json").read_text())
    else:
        name = "refs(final).p" if dataset == "ref-zom" else "refs(unc).p"
        refs = pickle.loads((folder / dataset / name).read_bytes())
    for ref in refs:
        for sentence in ref["sentences"]:
            if dataset == "rrefcoco":
                targets = {ref["ann_id"]} if sentence["exist"] else set()
            else:
                targets = set(ref["ann_id"]) - {-1}
            yield ref["image_id"], sentence["sent"], targets


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("expressions")
    write_published(folder, seed=11, train_images=60, held_out_images=10)
    return folder


@pytest.mark.parametrize("dataset", ["grefcoco", "ref-zom", "rrefcoco"])
def test_every_expression_is_true_of_the_image_and_of_no_other_object_in_it(published: Path, dataset: str) -> None:
    images = read_objects(published, dataset)
    expressions = list(read_expressions(published, dataset))
    wrong = [
        (image, expression)
        for image, expression, targets in expressions
        if not is_right(expression, images[image], targets)
    ]
    assert wrong == []
    assert len(expressions) > 50
    assert any(not targets for _, _, targets in expressions)
    if dataset != "rrefcoco":
        assert any(len(targets) > 1 for _, _, targets in expressions)


def test_other_objects_than_the_named_ones_would_be_noticed(published: Path) -> None:
    """The judge of these tests is no rubber stamp: it refuses all but a few targets that are one object off."""
    images = read_objects(published, "grefcoco")
    shifted = refused = 0
    for image, expression, targets in read_expressions(published, "grefcoco"):
        ids = sorted(images[image])
        moved = {ids[(ids.index(target) + 1) % len(ids)] for target in targets}
        if moved != targets:
            shifted += 1
            refused += not is_right(expression, images[image], moved)
    assert refused > 0.97 * shifted > 50
