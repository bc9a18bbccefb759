"""Expressions made of the categories of a detection data set: "all dogs", and "all bicycles" where there is none.

An image gets one expression for each category of its objects, about all of them, and some about categories that it
does not show, which have empty targets. That is right only where every object of the categories is annotated, as in
COCO; in federated data sets such as LVIS a category without annotations may be in the image all the same.
"""

from __future__ import annotations

import os
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from shards.annotations.coco import Annotation, CocoImage, CocoInstances, load_json, parse_instances, read_detection
from shards.annotations.drafts import REFUSED, ImageDraft
from shards.annotations.error_collector import ErrorCollector
from shards.annotations.fields import read_integer, read_text
from shards.annotations.own_instances import OwnAnnotation
from shards.errors import DataError
from shards.files import read_text as read_text_file
from shards.record import Expression

CROWDED = "category with a crowd region"
"""The kind under which categories are noted that an image gets no expression for."""
DEFAULT_SPLIT = "train"
_MAX_CATEGORIES, _MAX_IMAGE_ID = 100_000, 10**13
_SPLITS = re.compile("train|val|test")
_IRREGULAR = {
    "child": "children", "deer": "deer", "fish": "fish", "foot": "feet", "goose": "geese", "knife": "knives",
    "leaf": "leaves", "man": "men", "mouse": "mice", "person": "people", "sheep": "sheep", "shelf": "shelves",
    "tooth": "teeth", "woman": "women",
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class CategoryTexts:
    """How the expressions of categories are worded, and how many have empty targets."""

    templates: tuple[str, ...]
    """Texts with {category} or its plural {categories}; one is drawn for each expression."""
    num_empty: int
    """Expressions of an image about categories that it does not show."""
    seed: int


def read_templates(values: Sequence[str]) -> tuple[str, ...]:
    """The texts of templates: each value is one, or the path of a file with one on each line.

    Only a value that names no category is looked for as a file. Blank lines are skipped.

    Raises:
        DataError: a file cannot be read, holds no line, or a line names no category; gives its number.
    """
    templates: list[str] = []
    for value in values:
        file = Path(value)
        # `Path.is_file` fails on names that are too long.
        if names_category(value) or not os.path.isfile(file):  # noqa: PTH113
            templates.append(value)
            continue
        remedy = "write {category} or {categories} in each line, e.g. all {categories}"
        lines = [(number, line.strip()) for number, line in enumerate(read_text_file(file).splitlines(), 1)]
        found = [(number, line) for number, line in lines if line]
        if not found:
            raise DataError("holds no templates of expressions", file=file, remedy=remedy)
        for number, line in found:
            if not names_category(line):
                raise DataError(f"{line!r:.80} names no category", file=file, record=f"line {number}", remedy=remedy)
            templates.append(line)
    return tuple(templates)


def names_category(template: str) -> bool:
    """Whether a template has a place for a category."""
    return "{category}" in template or "{categories}" in template


def list_instances_files(path: Path) -> list[Path]:
    """The file itself, or the JSON files of a folder, sorted."""
    return sorted(path.glob("*.json")) if path.is_dir() else [path]


def read_coco_phrases(
    path: Path, name: str, texts: CategoryTexts, collectors: tuple[ErrorCollector, ErrorCollector],
    splits: Sequence[str] = (),
) -> list[ImageDraft]:  # fmt: skip
    """Make expressions of a COCO data set.

    Args:
        path: an instances.json, or a folder of several. The name of each says which split it is: the first of train,
            val and test in it, else train.
        name: of the data set, the first part of the expressions' ids.
        texts: how the expressions are worded.
        collectors: of entries that cannot be used, and are left out; and of notes.
        splits: names of the splits; none means all.

    Returns:
        One draft per image and split, sorted by the name of the split and the image id. The `ref_id` of an expression
        is the image's id and the rank of the category's name, as one number.

    Raises:
        DataError: a file cannot be read or is no COCO data set; two files are the same split; or there is no such
            split.
    """
    files: dict[str, Path] = {}
    for file in list_instances_files(path):
        split = found[0] if (found := _SPLITS.search(file.name)) else DEFAULT_SPLIT
        if split in files:
            raise DataError(f"is split '{split}' like {files[split].name}, by its name", file=file, remedy="rename one")
        files[split] = file
    if not files:
        raise DataError("holds no .json files", file=path, remedy="give an instances.json of COCO's layout")
    for split in splits:
        if split not in files:
            raise DataError(f"has no split {split!r}; there are {', '.join(sorted(files))}", file=path)
    drafts: list[ImageDraft] = []
    for split, file in sorted(files.items()):
        if not splits or split in splits:
            drafts += _read_split(split, file, name, texts, collectors)
    return drafts


def _read_split(
    split: str, file: Path, name: str, texts: CategoryTexts, collectors: tuple[ErrorCollector, ErrorCollector]
) -> list[ImageDraft]:
    collector, notes = collectors
    document = load_json(file)
    instances = parse_instances(document, file, collector, read_detection)
    categories = _read_categories(document, file)
    if len(categories) > _MAX_CATEGORIES or max(instances.images, default=0) > _MAX_IMAGE_ID:
        what = f"has more than {_MAX_CATEGORIES} categories, or an image with an id above {_MAX_IMAGE_ID}"
        raise DataError(what, file=file, remedy="number images and categories from 1")
    shown: dict[int, dict[str, list[Annotation]]] = {image_id: {} for image_id in instances.images}
    for annotation in instances.annotations.values():
        record = f"annotation {annotation.ann_id}"
        if annotation.image_id not in shown:
            refused = annotation.image_id in instances.refused_images
            what = f"image {annotation.image_id} {'cannot be used' if refused else 'is not among the images'}"
            collector.add(DataError(what, file=file, record=record), REFUSED if refused else "unknown picture")
        elif annotation.category_id not in categories:
            what = f"category {annotation.category_id} is not among the categories"
            collector.add(DataError(what, file=file, record=record), "unknown category")
        else:
            shown[annotation.image_id].setdefault(categories[annotation.category_id], []).append(annotation)
    wording = _Wording(name, texts, {category: rank for rank, category in enumerate(sorted(set(categories.values())))})
    unknown = _find_refused(document["annotations"], instances, categories)
    drafts = [
        _draft_image(split, instances.images[image_id], shown[image_id], wording, unknown.get(image_id, set()), notes)
        for image_id in sorted(shown)
    ]
    return [replace(draft, file=file) for draft in drafts if draft.expressions]


@dataclass(frozen=True, slots=True)
class _Wording:
    """Words expressions about categories."""

    dataset: str
    texts: CategoryTexts
    ranks: dict[str, int]
    """Of all categories, by their names."""

    def write(self, category: str, image_id: int, source: random.Random, instances: tuple[int, ...]) -> Expression:
        """The expression about a category in an image."""
        text = source.choice(self.texts.templates)
        text = text.replace("{categories}", form_plural(category)).replace("{category}", category)
        ref_id = image_id * _MAX_CATEGORIES + self.ranks[category]
        return Expression(id=f"{self.dataset}/{ref_id}/0", text=text, instances=instances, ref_id=ref_id)


def _find_refused(entries: list[Any], instances: CocoInstances, categories: dict[int, str]) -> dict[int, set[str]]:
    """For each image the categories of its refused annotations: what it shows of them is not known.

    An annotation without a category may be of any.
    """
    refused: dict[int, set[str]] = {}
    for entry in entries:
        if not isinstance(entry, dict) or not isinstance(entry.get("image_id"), int):
            continue
        if isinstance(entry.get("id"), int) and entry["id"] in instances.annotations:
            continue
        category = entry.get("category_id")
        name = categories.get(category) if isinstance(category, int) else None
        found = set(categories.values()) if name is None else {name}
        refused.setdefault(entry["image_id"], set()).update(found)
    return refused


def _draft_image(
    split: str, image: CocoImage, shown: dict[str, list[Annotation]], wording: _Wording, refused: set[str],
    notes: ErrorCollector,
) -> ImageDraft:  # fmt: skip
    # Of the image alone, so that it does not depend on the other images.
    source = random.Random(f"{wording.texts.seed}/{image.image_id}")  # noqa: S311, nothing secret
    annotations: list[OwnAnnotation] = []
    expressions = []
    for category in sorted(shown.keys() - refused):
        found = shown[category]
        if any(each.iscrowd for each in found):
            what = f"{category}: a crowd region stands for several of them; no expression is about it"
            notes.add(DataError(what, record=f"image {image.image_id}"), CROWDED)
            continue
        first = len(annotations)
        annotations += map(_own_annotation, found)
        indices = tuple(range(first, len(annotations)))
        expressions.append(wording.write(category, image.image_id, source, indices))
    absent = [category for category in wording.ranks if category not in shown and category not in refused]
    drawn = sorted(source.sample(absent, min(wording.texts.num_empty, len(absent))))
    expressions += [wording.write(category, image.image_id, source, ()) for category in drawn]
    return ImageDraft(split=split, image=image, annotations=tuple(annotations), expressions=tuple(expressions))


def _own_annotation(annotation: Annotation) -> OwnAnnotation:
    return OwnAnnotation(
        ann_id=annotation.ann_id, image_id=annotation.image_id, category_id=annotation.category_id,
        bbox=annotation.bbox, segmentation=annotation.segmentation, iscrowd=annotation.iscrowd,
        origin=f"annotation {annotation.ann_id}",
    )  # fmt: skip


def _read_categories(document: Any, file: Path) -> dict[int, str]:
    """The names of the categories by their ids; categories whose names differ in capitals alone are one.

    Raises:
        DataError: there is no list of them, or one has no id or no name.
    """
    entries = document.get("categories")
    if not isinstance(entries, list) or not entries:
        raise DataError("has no list 'categories'", file=file, remedy="add one with the id and name of each")
    categories: dict[int, str] = {}
    names: dict[str, str] = {}
    for index, entry in enumerate(entries, 1):
        try:
            category_id, name = read_integer(entry, "id"), " ".join(read_text(entry, "name").split())
            name = names.setdefault(name.casefold(), name)
            if not name or categories.get(category_id, name) != name:
                raise DataError(f"the name {name!r:.40} is empty or not the only one of id {category_id}")
        except DataError as error:
            raise DataError(error.what, file=file, record=f"category number {index}") from error
        categories[category_id] = name
    return categories


def form_plural(category: str) -> str:
    """The English plural of a category, whose last word is its noun: wine glass, wine glasses."""
    before, space, noun = category.rpartition(" ")
    if noun.lower() in _IRREGULAR:
        plural = _IRREGULAR[noun.lower()]
    elif noun.endswith("s") and not noun.endswith(("ss", "us")):
        plural = noun
    elif noun.endswith(("s", "x", "z", "ch", "sh")):
        plural = f"{noun}es"
    elif noun.endswith("y") and noun[-2:-1] not in tuple("aeiou"):
        plural = f"{noun[:-1]}ies"
    else:
        plural = f"{noun}s"
    return before + space + plural
