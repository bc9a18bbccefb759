"""The gallery's entries of one image: its files, and the rows and details of its expressions; a task of a worker."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipelines.config.settings import PostprocessSettings
from pipelines.evaluation.outcome_kinds import classify_prediction
from pipelines.prediction.prediction import Prediction
from pipelines.prediction.raw_output import RawOutput
from pipelines.report.gallery import (
    GalleryDetail,
    ResultLayers,
    ShownExpression,
    ShownImage,
    ShownResult,
    cut_text,
    dump_argument,
)
from pipelines.report.gallery_images import fit_size, name_image, write_images
from pipelines.report.network_layers import derive_layers
from pipelines.report.shown_frame import ShownFrame, round_scores
from shards.errors import DataError
from shards.masks import merge_rles
from shards.reader import ShardReader
from shards.record import Expression, ImageRecord, Instance, Rle
from shards.workers import check_parent


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictedExpression:
    """An expression with what each set of predictions says about it."""

    expression: Expression
    predictions: tuple[Prediction, ...]
    raw_outputs: tuple[RawOutput | None, ...]
    """None for a set without raw outputs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageTask:
    """Some expressions about one image."""

    record_index: int
    """In the shards."""
    record: ImageRecord
    image: int
    """Index of the image in the gallery."""
    first: bool
    """Whether the image's files are to be written: no other task about it comes before."""
    expressions: tuple[PredictedExpression, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageEntries:
    """What a task adds to the gallery."""

    image: ShownImage | None
    """None if another task has written its files."""
    rows: list[ShownExpression]
    details: list[str]
    """JSON of `GalleryDetail`."""
    foreign: int
    """Predictions that do not come from the raw outputs beside them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryBuilder:
    """Builds entries in a worker; pickled to it."""

    reader: ShardReader
    folder: Path
    """Of the report."""
    settings: tuple[PostprocessSettings, ...]
    """Of each set of predictions."""
    resolution: int
    """Side in pixels at which masks are scored; 0: the image's own size."""

    def __call__(self, task: ImageTask) -> ImageEntries:
        """Write the image's files, and build the entries of its expressions.

        Raises:
            DataError: the image is missing or damaged; names shard and key.
        """
        check_parent()
        record = task.record
        width, height = fit_size(record.width, record.height)
        image = None
        if task.first:
            image = ShownImage(file=name_image(task.image), name=record.file_name, width=width, height=height)
            self._write_images(task, image.file)
        frame = ShownFrame(height=record.height, width=record.width, shown_height=height, shown_width=width)
        scale_target = _TargetScaler(frame)
        rows, details, foreign = [], [], 0
        for predicted in task.expressions:
            layers = [self._build_layers(predicted, index, frame) for index in range(len(predicted.predictions))]
            foreign += sum(
                raw is not None and each.network is None
                for raw, each in zip(predicted.raw_outputs, layers, strict=True)
            )
            rows.append(self._build_row(task, predicted, layers))
            targets = record.targets(predicted.expression)
            detail = GalleryDetail(
                target_boxes=frame.scale_coordinates([instance.box for instance in targets]),
                target_masks=[scale_target(instance) for instance in targets],
                results=tuple(layers),
            )
            details.append(dump_argument(detail.to_json()))
        return ImageEntries(image=image, rows=rows, details=details, foreign=foreign)

    def _write_images(self, task: ImageTask, name: str) -> None:
        index = task.record_index
        data = self.reader.image(index)
        try:
            write_images(self.folder, name, data, task.record.file_name)
        except DataError as error:
            key, shard = self.reader.index.keys[index], self.reader.shard_file(index)
            raise DataError(error.what, file=shard, record=f"key {key}", remedy=error.remedy) from error

    def _build_layers(self, predicted: PredictedExpression, index: int, frame: ShownFrame) -> ResultLayers:
        prediction, raw = predicted.predictions[index], predicted.raw_outputs[index]
        boxes, scores = prediction.boxes, prediction.scores
        network = None
        if raw is not None:
            network = derive_layers(raw, boxes, self.settings[index], frame)
        return ResultLayers(
            boxes=None if boxes is None else frame.scale_coordinates(boxes),
            scores=None if scores is None else round_scores(scores),
            mask=None if prediction.mask is None else frame.scale_mask(prediction.mask),
            network=network,
        )

    def _build_row(
        self, task: ImageTask, predicted: PredictedExpression, layers: Sequence[ResultLayers]
    ) -> ShownExpression:
        expression = predicted.expression
        results = []
        for prediction, shown in zip(predicted.predictions, layers, strict=True):
            result = classify_prediction(task.record, expression, prediction, self.resolution)
            results.append(
                ShownResult(
                    outcome=result.kind.value,
                    iou=round(100 * result.iou, 4),
                    instances=None if prediction.boxes is None else len(prediction.boxes),
                    existence=round(shown.network.existence, 4) if shown.network else None,
                )
            )
        return ShownExpression(
            id=expression.id,
            text=cut_text(expression.text),
            image=task.image,
            num_targets=len(expression.instances),
            results=tuple(results),
        )


class _TargetScaler:
    """Scales masks of targets, each instance once, however many expressions refer to it.

    A target of which only the box is known has a mask without pixels.
    """

    def __init__(self, frame: ShownFrame) -> None:
        self._empty = merge_rles([], frame.shown_height, frame.shown_width)
        self._scale: Callable[[Rle], Rle] = frame.scale_mask
        self._scaled: dict[int, Rle] = {}

    def __call__(self, target: Instance) -> Rle:
        if target.mask is None:
            return self._empty
        key = id(target)
        if key not in self._scaled:
            self._scaled[key] = self._scale(target.mask)
        return self._scaled[key]
