"""The part of a published data set that is prepared: drafts with their image files, records left out, and notes."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, islice
from pathlib import Path

from pipelines.config.settings import CocoSettings, JsonLinesSettings, PrepareSettings, TextSettings
from pipelines.data.tokenizer import clean_expression
from shards.annotations.coco import CocoImage, ImageKey
from shards.annotations.coco_phrases import CategoryTexts, list_instances_files, read_coco_phrases
from shards.annotations.drafts import (
    ImageDraft,
    drop_unusable_annotations,
    find_crowd_only,
    locate_instances,
    read_dataset,
)
from shards.annotations.error_collector import ErrorCollector
from shards.annotations.image_files import (
    AMBIGUOUS,
    Files,
    candidate_names,
    find_shared_files,
    index_folders,
    locate_image,
)
from shards.annotations.jsonl import own_names, read_jsonl
from shards.datasets import OWN_LAYOUTS
from shards.errors import DataError, to_line
from shards.image_formats import ImageBombError, open_image

Item = tuple[ImageDraft, Path]

MISSING = "missing picture"
UNUSABLE_IMAGE = "unusable picture"
CROWD_ONLY = "expression about crowd regions alone"
BOX_ALONE = "object without a segmentation"
TURNED = "image with an EXIF orientation mark"
WORDLESS = "expression without a word"
LONG = "expression longer than the token limit"


@dataclass(frozen=True, kw_only=True)
class Selection:
    """The part of a data set that can be prepared, as far as annotations and the images' names and sizes tell."""

    items: list[Item]
    """Drafts whose annotations all have masks, with their image files."""
    missing: list[CocoImage]
    """Images without a file; they are in `collector`, too."""
    collector: ErrorCollector
    """What cannot be used."""
    notes: ErrorCollector
    """What is used and should be checked."""


def select_items(settings: PrepareSettings, annotations: Path, images: Sequence[Path]) -> Selection:
    """Read a data set, find its image files and leave out what cannot be used.

    Raises:
        DataError: an annotation file or folder cannot be read, or there is no such split.
    """
    collector, notes = ErrorCollector(), ErrorCollector()
    drafts = _read_drafts(settings, annotations, collector, notes)
    if settings.limit:
        by_split = groupby(drafts, key=lambda draft: draft.split)
        drafts = [draft for _, same in by_split for draft in islice(same, settings.limit)]
    located, missing = _locate_images(drafts, index_folders(images), images, collector, find_names(settings.dataset))
    drafts = _read_missing_sizes(drafts, located, collector)
    own = settings.dataset in OWN_LAYOUTS
    file = annotations if own else locate_instances(settings.dataset, annotations)
    usable = drop_unusable_annotations(drafts, file, collector)
    items = [(draft, located[draft.image.key]) for draft in usable if draft.image.key in located]
    for draft, _ in items:
        _note_expressions(draft, notes)
        if not own:
            _note_boxes(draft, file, notes)
    return Selection(items=items, missing=missing, collector=collector, notes=notes)


def find_names(dataset: str) -> Callable[[CocoImage], Sequence[str]]:
    """What lists the names under which an image of a data set may be found."""
    return own_names if dataset == "jsonl" else candidate_names


def list_own_files(settings: PrepareSettings, annotations: Path) -> list[Path]:
    """The annotation files of a data set of one's own.

    Raises:
        DataError: there is no such file, or it is a folder.
    """
    files = list_instances_files(annotations) if settings.dataset == "coco" else [annotations]
    for file in files:
        if not file.is_file():
            state = "is a folder" if file.is_dir() else "no such file"
            wanted = "the .jsonl file" if settings.dataset == "jsonl" else "an instances.json"
            raise DataError(state, file=file, remedy=f"give {wanted} as --annotations")
    return files


def _read_drafts(
    settings: PrepareSettings, annotations: Path, collector: ErrorCollector, notes: ErrorCollector
) -> list[ImageDraft]:
    if settings.dataset not in OWN_LAYOUTS:
        return read_dataset(settings.dataset, annotations, collector, settings.splits)
    list_own_files(settings, annotations)
    name = (isinstance(settings, JsonLinesSettings) and settings.name) or settings.dataset
    if settings.dataset == "jsonl":
        return read_jsonl(annotations, name, collector, settings.splits)
    own = settings if isinstance(settings, CocoSettings) else CocoSettings(dataset=settings.dataset)
    texts = CategoryTexts(templates=own.phrases, num_empty=own.empty, seed=own.seed)
    return read_coco_phrases(annotations, name, texts, (collector, notes), settings.splits)


def _locate_images(
    drafts: Sequence[ImageDraft],
    files: Files,
    folders: Sequence[Path],
    collector: ErrorCollector,
    list_names: Callable[[CocoImage], Sequence[str]],
) -> tuple[dict[ImageKey, Path], list[CocoImage]]:
    """Image files, and the images without a file; missing and ambiguous files are collected."""
    listed = " or ".join(str(folder) for folder in folders)
    # Files of different splits of a detection set may each number their images from 1.
    by_key = {draft.image.key: draft for draft in drafts}
    located: dict[ImageKey, Path] = {}
    missing = []
    for key, draft in by_key.items():
        image = draft.image
        try:
            file = locate_image(image, files, list_names)
        except DataError as error:
            collector.add(error, AMBIGUOUS)
            continue
        if file:
            located[key] = file
        else:
            missing.append(image)
            what = f"no image {', '.join(map(to_line, list_names(image)))} in {listed}"
            collector.add(DataError(what, file=draft.file, record=_name_image(image)), MISSING)
    for key, shared in find_shared_files(located).items():
        del located[key]
        collector.add(shared, AMBIGUOUS)
    return located, missing


def _name_image(image: CocoImage) -> str:
    """The record that errors name: the ids of images that were counted while a file was read are not in it."""
    return image.origin or f"image {image.image_id}"


def _read_missing_sizes(
    drafts: Sequence[ImageDraft], located: dict[ImageKey, Path], collector: ErrorCollector
) -> list[ImageDraft]:
    """Drafts of known size: the image file gives it where the annotations do not."""
    measured = []
    for draft in drafts:
        if draft.image.width:
            measured.append(draft)
        elif file := located.get(draft.image.key):
            try:
                with warnings.catch_warnings(action="ignore"), open_image(file) as image:
                    width, height = image.size
            except ImageBombError as error:
                what = f"{error.what}; {error.remedy}"
                collector.add(DataError(what, file=file, record=_name_image(draft.image)), UNUSABLE_IMAGE)
            except Exception as error:  # a parser may raise anything on a damaged file
                what = f"is no image ({to_line(str(error))})"
                collector.add(DataError(what, file=file, record=_name_image(draft.image)), UNUSABLE_IMAGE)
            else:
                measured.append(replace(draft, image=replace(draft.image, width=width, height=height)))
    return measured


def _note_boxes(draft: ImageDraft, file: Path, notes: ErrorCollector) -> None:
    for instance in draft.instances:
        if instance.mask is None:
            what = "has no segmentation: its box alone is known"
            notes.add(DataError(what, file=file, record=f"annotation {instance.ann_id}"), BOX_ALONE)


def _note_expressions(draft: ImageDraft, notes: ErrorCollector) -> None:
    for expression in find_crowd_only(draft):
        what = f"{expression.text!r} refers to crowd regions alone: its box target has boxes, its mask target is empty"
        notes.add(DataError(what, record=expression.id), CROWD_ONLY)
    limit = TextSettings().max_tokens
    for expression in draft.expressions:
        words = len(clean_expression(expression.text).split())
        # A word is one token at least, in any vocabulary; both ends are tokens, too. `igvg train` counts exactly.
        if words + 2 > limit:
            what = (
                f"{expression.text[:80]!r}… has {words} words: more than fit into {limit} tokens; the rest is cut off"
            )
            notes.add(DataError(what, record=expression.id), LONG)
        if not words:
            what = f"{expression.text!r} has no word left after cleaning"
            notes.add(DataError(what, record=expression.id), WORDLESS)
