"""Writes a gallery: data/, images/ and thumbnails/ of a report, one image after the other, in worker processes.

In memory are the rows of the index, about 1 kB per expression, one chunk of raw outputs of each set, and what the
workers are at: a few images with their expressions.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path

import numpy as np

from pipelines.config.settings import PostprocessSettings
from pipelines.evaluation.sweep import align_outputs
from pipelines.prediction.alignment import align_predictions
from pipelines.prediction.raw_output import RawOutput
from pipelines.prediction.raw_store import RawReader
from pipelines.report.gallery import (
    DETAILS_SIZE,
    GalleryIndex,
    ShownExpression,
    ShownImage,
    dump_argument,
    format_script,
)
from pipelines.report.gallery_entries import EntryBuilder, ImageTask, PredictedExpression
from pipelines.report.gallery_images import IMAGES, THUMBNAILS
from shards.files import name_file
from shards.progress import report_progress
from shards.reader import ShardReader
from shards.record import ImageRecord
from shards.workers import map_ordered

DATA = "data"
EXPRESSIONS = "expressions.js"
# Expressions of a task at most, for images with thousands of them.
_TASK_SIZE = 32
# Starting workers takes about as long as so many expressions.
_FEW = 150
_REMEDY = "use fewer with --workers"


@dataclass(frozen=True, kw_only=True)
class PredictionSource:
    """A set of predictions of a split, and the raw outputs that they were made from."""

    name: str
    """What the report calls it."""
    file: Path
    """The prediction file."""
    raw: Path | None
    """The folder of raw outputs; None: there are none."""
    settings: PostprocessSettings
    """The settings of post-processing that made the predictions from the raw outputs."""


@dataclass(frozen=True, kw_only=True)
class GalleryCounts:
    """What a gallery holds."""

    expressions: int
    images: int
    foreign: int
    """Predictions that do not come from the raw outputs beside them: their layers are left out."""


def write_gallery(
    folder: Path,
    sets: Sequence[PredictionSource],
    reader: ShardReader,
    *,
    limit: int = 0,
    resolution: int = 0,
    workers: int | None = None,
) -> GalleryCounts:
    """Write the gallery of a split into the folder of a report.

    Args:
        folder: of the report.
        sets: one or more sets of predictions for the split.
        reader: of the split.
        limit: expressions at most, the first ones; 0: all.
        resolution: side in pixels at which masks are scored; 0: the image's own size.
        workers: processes; None takes one for each processor.

    Raises:
        DataError: an image, a prediction or a raw output is missing, damaged or of another split.
        WorkerError: a worker died.
    """
    for name in (DATA, IMAGES, THUMBNAILS):
        (folder / name).mkdir()
    total = min(limit or reader.index.num_expressions, reader.index.num_expressions)
    build = EntryBuilder(
        reader=reader, folder=folder, settings=tuple(each.settings for each in sets), resolution=resolution
    )
    images: list[ShownImage] = []
    rows: list[ShownExpression] = []
    details = _DetailsWriter(folder / DATA)
    foreign = 0
    # Closed at once when interrupted, not when the traceback is forgotten. Not forked: the caller may have threads.
    with contextlib.closing(
        map_ordered(
            build,
            list_tasks(sets, reader, total),
            workers=count_workers(workers, total),
            method="spawn",
            remedy=_REMEDY,
        )
    ) as results:
        for entries in results:
            images += [entries.image] if entries.image else []
            rows += entries.rows
            foreign += entries.foreign
            details.add(entries.details)
            report_progress(len(rows), total)
    details.finish()
    index = GalleryIndex(sets=tuple(each.name for each in sets), images=images, expressions=rows)
    write_script(folder / DATA / EXPRESSIONS, "loadExpressions", dump_argument(index.to_json()))
    return GalleryCounts(expressions=len(rows), images=len(images), foreign=foreign)


def count_workers(workers: int | None, expressions: int) -> int:
    """The processes for some expressions, besides this one: none for a few; None takes one for each processor."""
    processes = os.cpu_count() or 1 if workers is None else workers
    return processes if processes > 1 and expressions > _FEW else 0


def list_tasks(sets: Sequence[PredictionSource], reader: ShardReader, total: int) -> Iterator[ImageTask]:
    """The first `total` expressions in the order of the shards, by image.

    Raises:
        DataError: as `write_gallery`.
    """
    record_indices = np.repeat(np.arange(len(reader)), reader.index.expressions).tolist()
    expressions = islice(zip(record_indices, _list_expressions(sets, reader), strict=True), total)
    for image, (record_index, same) in enumerate(groupby(expressions, key=lambda pair: pair[0])):
        first = True
        while block := list(islice(same, _TASK_SIZE)):
            yield ImageTask(
                record_index=record_index,
                record=block[0][1][0],
                image=image,
                first=first,
                expressions=tuple(predicted for _, (_, predicted) in block),
            )
            first = False


def _list_expressions(
    sets: Sequence[PredictionSource], reader: ShardReader
) -> Iterator[tuple[ImageRecord, PredictedExpression]]:
    predictions = zip(*(align_predictions(each.file, reader) for each in sets), strict=True)
    outputs = zip(*(_list_outputs(each.raw, reader) for each in sets), strict=True)
    for same, raw_outputs in zip(predictions, outputs, strict=True):
        record, expression, _ = same[0]
        found = tuple(prediction for _, _, prediction in same)
        yield record, PredictedExpression(expression=expression, predictions=found, raw_outputs=raw_outputs)


def _list_outputs(raw: Path | None, reader: ShardReader) -> Iterator[RawOutput | None]:
    """The raw output of each expression of the split; None for each if there are none."""
    if raw is None:
        yield from (None for _ in range(reader.index.num_expressions))
    else:
        yield from (output for _, _, output in align_outputs(RawReader(raw), reader))


class _DetailsWriter:
    """Writes details in files of `DETAILS_SIZE` expressions, as they come."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._waiting, self._written = folder, list[str](), 0

    def add(self, details: Sequence[str]) -> None:
        """Add the JSON of some details."""
        self._waiting += details
        while len(self._waiting) >= DETAILS_SIZE:
            self._write()

    def finish(self) -> None:
        """Write what is left."""
        if self._waiting:
            self._write()

    def _write(self) -> None:
        block, self._waiting = self._waiting[:DETAILS_SIZE], self._waiting[DETAILS_SIZE:]
        listed = f"[{','.join(block)}]"
        write_script(self._folder / f"details-{self._written:04d}.js", "loadDetails", str(self._written), listed)
        self._written += 1


def write_script(file: Path, function: str, *arguments: str) -> None:
    """Write a script that calls a function of the page."""
    with name_file(file):
        file.write_bytes(format_script(function, *arguments))
