"""`igvg audit`: what several prepared sets share that they should not, and what in them contradicts itself."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from shards.image_identity import ImageLabels, SplitImages, held_out_splits, label_images, read_images
from shards.index import list_splits
from shards.progress import begin_stage, report_progress
from shards.reader import ShardReader
from shards.record import Expression, ImageRecord

# Boxes of the same instance may be rounded differently by two layouts.
_TOLERANCE_PX = 1.5
MAX_LISTED = 100_000
"""Findings of a kind that are kept and listed; more are counted alone."""
_Finding = TypeVar("_Finding")


@dataclass(frozen=True, kw_only=True)
class Leak:
    """Images that a training split shares with a held-out split."""

    training: str
    held_out: str
    images: int
    same_bytes: int
    """Of these images, those whose files have the same bytes; the others have the same id in COCO."""
    held_out_images: int
    """All images of the held-out split."""
    training_expressions: int
    """Training expressions about the shared images."""
    held_out_expressions: int


@dataclass(frozen=True, kw_only=True)
class Duplicate:
    """One image under several ids: FOLDER/SPLIT and image id of each record."""

    records: tuple[tuple[str, int], ...]


@dataclass(frozen=True, kw_only=True)
class Contradiction:
    """The same words about the same image, with different targets."""

    text: str
    image_id: int
    expressions: tuple[tuple[str, str, int], ...]
    """FOLDER/SPLIT, the expression's id and its number of targets, of one expression for each different target."""


@dataclass(frozen=True, kw_only=True)
class AuditReport:
    """The outcome of `igvg audit`."""

    full: bool
    """Whether equal bytes were confirmed by SHA-256."""
    splits: tuple[dict[str, Any], ...]
    leaks: tuple[Leak, ...]
    leaked_images: int
    """Distinct training images that are in any held-out split."""
    leaked_expressions: int
    """Training expressions about them."""
    duplicates: tuple[Duplicate, ...]
    """The first `MAX_LISTED`."""
    contradictions: tuple[Contradiction, ...]
    """The first `MAX_LISTED`."""
    num_duplicates: int
    num_contradictions: int

    def to_json(self) -> dict[str, Any]:
        """What `igvg audit --format json` prints."""
        return asdict(self)


def audit(shards: Sequence[Path], *, train_splits: Sequence[str] = (), full: bool = False) -> AuditReport:
    """Compare the splits of prepared folders.

    Args:
        shards: the folders.
        train_splits: names of splits to train on, besides those that begin with `train`; all others are held out.
        full: confirm by SHA-256 that images have the same bytes.

    Raises:
        DataError: a folder is no prepared one, or an index or record is damaged.
    """
    begin_stage("auditing")
    folders = list(dict.fromkeys(shards))
    found = {folder: list_splits(folder) for folder in folders}
    parts = [(folder, split) for folder in folders for split in found[folder]]
    for folder in folders:
        if not found[folder]:
            # The error says what a prepared folder is.
            read_images([(folder, "train")])
    splits = read_images(parts)
    labels = label_images(splits, full=full)
    held_out = {(folder, split) for folder in folders for split in held_out_splits(found[folder], train_splits)}
    is_held_out = [(each.folder, each.split) in held_out for each in splits]
    images, expressions = _count_leaked(splits, labels, is_held_out)
    duplicates, num_duplicates = _keep_first(_find_duplicates(splits, labels))
    contradictions, num_contradictions = _keep_first(_find_contradictions(splits, labels))
    return AuditReport(
        full=full,
        splits=tuple(_describe(each, held) for each, held in zip(splits, is_held_out, strict=True)),
        leaks=tuple(_find_leaks(splits, labels, is_held_out)),
        leaked_images=images,
        leaked_expressions=expressions,
        duplicates=duplicates,
        contradictions=contradictions,
        num_duplicates=num_duplicates,
        num_contradictions=num_contradictions,
    )


def _keep_first(findings: Iterator[_Finding]) -> tuple[tuple[_Finding, ...], int]:
    """The first `MAX_LISTED` findings, and the number of all."""
    kept = tuple(islice(findings, MAX_LISTED))
    return kept, len(kept) + sum(1 for _ in findings)


def _describe(images: SplitImages, held_out: bool) -> dict[str, Any]:
    return {
        "split": images.name,
        "held_out": held_out,
        "images": len(images.index),
        "expressions": images.index.num_expressions,
        "compared_by": "bytes" if images.coco_ids is None else "id in COCO or bytes",
    }


def _find_leaks(splits: Sequence[SplitImages], labels: ImageLabels, is_held_out: Sequence[bool]) -> Iterator[Leak]:
    for one, training in enumerate(splits):
        for two, held_out in enumerate(splits):
            if is_held_out[one] or not is_held_out[two]:
                continue
            shared = np.intersect1d(labels.by_id_or_bytes[one], labels.by_id_or_bytes[two])
            if not len(shared):
                continue
            same_bytes = np.isin(labels.by_bytes[one], labels.by_bytes[two])
            yield Leak(
                training=training.name,
                held_out=held_out.name,
                images=len(shared),
                same_bytes=len(np.unique(labels.by_id_or_bytes[one][same_bytes])),
                held_out_images=len(np.unique(labels.by_id_or_bytes[two])),
                training_expressions=_count_expressions(training, labels.by_id_or_bytes[one], shared),
                held_out_expressions=_count_expressions(held_out, labels.by_id_or_bytes[two], shared),
            )


def _count_expressions(images: SplitImages, labels: NDArray[np.int64], shared: NDArray[np.int64]) -> int:
    return int(images.index.expressions[np.isin(labels, shared)].sum())


def _count_leaked(splits: Sequence[SplitImages], labels: ImageLabels, is_held_out: Sequence[bool]) -> tuple[int, int]:
    """The distinct training images in held-out splits, and the training expressions about them."""
    rows = list(zip(splits, labels.by_id_or_bytes, is_held_out, strict=True))
    empty = np.zeros(0, dtype=np.int64)
    trained = np.concatenate([empty, *(label for _, label, held in rows if not held)])
    kept_out = np.concatenate([empty, *(label for _, label, held in rows if held)])
    shared = np.intersect1d(trained, kept_out)
    return len(shared), sum(_count_expressions(images, label, shared) for images, label, held in rows if not held)


def _find_duplicates(splits: Sequence[SplitImages], labels: ImageLabels) -> Iterator[Duplicate]:
    """Files of the same bytes that have several ids in COCO, or several ids in one folder."""
    rows: dict[tuple[str, int], dict[int, tuple[str, int]]] = defaultdict(dict)
    for images, label in zip(splits, labels.by_bytes, strict=True):
        space = "" if images.from_coco else str(images.folder)
        for content, image_id in zip(label.tolist(), images.index.image_ids.tolist(), strict=True):
            rows[space, content].setdefault(image_id, (images.name, image_id))
    for found in rows.values():
        if len(found) > 1:
            yield Duplicate(records=tuple(found.values()))


def _find_contradictions(splits: Sequence[SplitImages], labels: ImageLabels) -> Iterator[Contradiction]:
    """Compare all expressions about each image; the records of one image at a time are in memory."""
    places: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for part, each in enumerate(labels.by_id_or_bytes):
        for record, label in enumerate(each.tolist()):
            places[label].append((part, record))
    readers = [ShardReader(images.folder, images.split) for images in splits]
    try:
        for done, group in enumerate(places.values(), start=1):
            records = [(splits[part].name, readers[part].record(record)) for part, record in group]
            yield from _compare_texts(records)
            report_progress(done, len(places), "expressions")
    finally:
        for reader in readers:
            reader.close()


def _compare_texts(records: Sequence[tuple[str, ImageRecord]]) -> Iterator[Contradiction]:
    by_text: dict[str, list[tuple[str, ImageRecord, Expression]]] = defaultdict(list)
    for name, record in records:
        for expression in record.expressions:
            by_text[" ".join(expression.text.casefold().split())].append((name, record, expression))
    for text, found in by_text.items():
        different: list[tuple[str, ImageRecord, Expression]] = []
        for each in found:
            if not any(_have_same_targets(each[1:], other[1:]) for other in different):
                different.append(each)
        if len(different) > 1:
            yield Contradiction(
                text=text,
                image_id=different[0][1].image_id,
                expressions=tuple((name, each.id, len(each.instances)) for name, _, each in different),
            )


def _have_same_targets(one: tuple[ImageRecord, Expression], two: tuple[ImageRecord, Expression]) -> bool:
    """Whether two expressions about the same image have the same boxes; its files may have different sizes."""
    boxes = [_sort_boxes(*each) for each in (one, two)]
    if len(boxes[0]) != len(boxes[1]):
        return False
    tolerance = _TOLERANCE_PX / min(one[0].width, one[0].height, two[0].width, two[0].height)
    return bool(np.all(np.abs(np.subtract(*boxes)) <= tolerance))


def _sort_boxes(record: ImageRecord, expression: Expression) -> NDArray[np.float64]:
    """(N, 4) the distinct boxes of an expression as fractions of the image's sides, sorted."""
    boxes = sorted({instance.box for instance in record.targets(expression)})
    fractions: NDArray[np.float64] = np.array(boxes, dtype=np.float64).reshape(-1, 4) / np.array(
        [record.width, record.height] * 2
    )
    return fractions
