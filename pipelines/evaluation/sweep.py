"""Post-processing again under many settings, without the network.

What settings have in common is computed once for each expression: the selected queries, the matches of their boxes,
and the pixel counts of each set of masks (`pipelines.evaluation.mask_counts`).

Letters: N expressions, G settings.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.config.overrides import to_mapping
from pipelines.config.settings import PostprocessSettings
from pipelines.evaluation.evaluator import BoxMatches, evaluate_boxes, name_dataset
from pipelines.evaluation.mask_counts import MaskCounter
from pipelines.evaluation.metrics.benchmarks import metric_ratios
from pipelines.evaluation.metrics.outcomes import DTYPES, Outcome, Outcomes, summarize
from pipelines.evaluation.sweep_grid import Grid
from pipelines.prediction.postprocess import scale_boxes, score_queries, select_queries
from pipelines.prediction.raw_output import RawOutput
from pipelines.prediction.raw_store import RawReader, check_mask_floor
from shards.errors import DataError
from shards.progress import report_progress
from shards.reader import ShardReader
from shards.record import Expression, ImageRecord
from shards.workers import check_parent, map_ordered

TOLERANCE = 1e-9
WORKERS_REMEDY = "with fewer workers it needs less memory"
_BLOCK_SIZE = 25
# The fields of `Outcome` that depend on the settings.
_VARYING = (*BoxMatches._fields, "predicted_empty", "predicted_px", "intersection_px")


@dataclass(frozen=True, kw_only=True)
class SettingScores:
    """One setting of a grid, in the keys that vary, and its metrics in percent."""

    settings: dict[str, Any]
    metrics: dict[str, float | None]


@dataclass(frozen=True, kw_only=True)
class SweepReport:
    """The scores of a split under every setting of a grid."""

    dataset: str
    split: str
    expressions: int
    resolution: int
    varied: list[str]
    """The keys in which the settings differ."""
    fixed: dict[str, Any]
    """The other keys and their values."""
    shown: list[str]
    """The metrics that the table shows."""
    settings: list[SettingScores]
    best: dict[str, list[int]]
    """The indices of the best settings by metric, several if they tie."""

    def to_json(self) -> dict[str, Any]:
        """What `igvg sweep --format json` prints."""
        return asdict(self)


def evaluate_grid(
    raw: Path, shards: Path, split: str, grid: Grid, *, resolution: int = 0, workers: int = 0
) -> SweepReport:
    """Score a split under every setting of a grid, from a folder of its raw outputs.

    Args:
        raw: folder of raw outputs.
        shards: folder that `igvg prepare` made.
        split: of the shards.
        grid: the settings.
        resolution: side length in pixels to which masks are resized first; 0: the image's own size.
        workers: processes besides this one; the scores do not depend on it.

    Raises:
        DataError: the raw outputs are damaged, or not of just the split's expressions.
        SettingsError: a score threshold below what the raw outputs hold masks for.
    """
    reader = RawReader(raw)
    check_mask_floor(grid.settings, reader.mask_floor)
    common: dict[str, NDArray[Any]] = {
        name: np.zeros(len(reader), dtype=np.int64) for name in Outcome._fields if name not in _VARYING
    }
    varying: dict[str, NDArray[Any]] = {
        name: np.zeros((len(grid.settings), len(reader)), dtype=DTYPES[name]) for name in _VARYING
    }
    ids: list[str] = []
    with ShardReader(shards, split) as targets:
        blocks = _split_blocks(align_outputs(reader, targets), ids)
        evaluate = _BlockEvaluator(settings=grid.settings, resolution=resolution)
        # Not forked: the caller may have threads.
        with contextlib.closing(
            map_ordered(evaluate, blocks, workers=workers, method="spawn", remedy=WORKERS_REMEDY)
        ) as evaluated:
            for row, outcomes in enumerate(itertools.chain.from_iterable(evaluated)):
                for name, counts in common.items():
                    counts[row] = getattr(outcomes[0], name)
                for name, columns in varying.items():
                    columns[:, row] = [getattr(outcome, name) for outcome in outcomes]
                if (row + 1) % _BLOCK_SIZE == 0:
                    report_progress(row + 1, len(reader))
    dataset = name_dataset(ids, shards, split)
    scores = _score_settings(dataset, common, varying)
    names = list(scores[0])
    values = [to_mapping(settings) for settings in grid.settings]
    return SweepReport(
        dataset=dataset,
        split=split,
        expressions=len(ids),
        resolution=resolution,
        varied=list(grid.varied),
        fixed={key: value for key, value in values[0].items() if key not in grid.varied},
        shown=[name for name in grid.metrics if name in names] or names,
        settings=[
            SettingScores(settings={key: row[key] for key in grid.varied}, metrics=metrics)
            for row, metrics in zip(values, scores, strict=True)
        ],
        best={name: find_best([metrics[name] for metrics in scores]) for name in names},
    )


_Aligned = tuple[ImageRecord, Expression, RawOutput]


@dataclass(frozen=True, slots=True, kw_only=True)
class _BlockEvaluator:
    """Evaluates some expressions; pickled to a worker."""

    settings: tuple[PostprocessSettings, ...]
    resolution: int

    def __call__(self, block: list[_Aligned]) -> list[list[Outcome]]:
        check_parent()
        return [evaluate_settings(*aligned, self.settings, self.resolution) for aligned in block]


def _split_blocks(aligned: Iterator[_Aligned], ids: list[str]) -> Iterator[list[_Aligned]]:
    """Blocks of expressions for workers; appends their ids to `ids`."""
    while block := list(itertools.islice(aligned, _BLOCK_SIZE)):
        ids += [expression.id for _, expression, _ in block]
        yield block


def find_best(values: Sequence[float | None]) -> list[int]:
    """The indices of the highest value, several if they tie; none where there is nothing to measure."""
    highest = max((value for value in values if value is not None), default=None)
    return [
        index
        for index, value in enumerate(values)
        if value is not None and highest is not None and value >= highest - TOLERANCE
    ]


def align_outputs(reader: RawReader, shards: ShardReader) -> Iterator[tuple[ImageRecord, Expression, RawOutput]]:
    """Every expression of a split with its raw output; both lie in the order of the shards.

    Raises:
        DataError: they are not of the same expressions, or of images of another size; names the first that differs.
    """
    outputs = iter(reader)
    remedy = "give the shards and the split that were predicted"
    for record in shards.records():
        for expression in record.expressions:
            output = next(outputs, None)
            if output is None or output.id != expression.id:
                found = f"{output.id} instead" if output else "no more"
                what = f"no output for {expression.id} of split '{shards.split}', but {found}"
                raise DataError(what, file=reader.folder, remedy=remedy)
            if output.original_size != (record.height, record.width):
                sizes = f"{list(output.original_size)} instead of [{record.height}, {record.width}]"
                raise DataError(f"{output.id} has an image of {sizes}", file=reader.folder, remedy=remedy)
            yield record, expression, output
    if (output := next(outputs, None)) is not None:
        raise DataError(f"{output.id} is not in split '{shards.split}'", file=reader.folder, remedy=remedy)


def evaluate_settings(
    record: ImageRecord,
    expression: Expression,
    raw: RawOutput,
    settings: Sequence[PostprocessSettings],
    resolution: int = 0,
) -> list[Outcome]:
    """The outcome (G,) of the result of `postprocess` under each setting.

    Raises:
        SettingsError: the raw outputs do not hold a selected query's mask.
    """
    counter = MaskCounter(record, expression, raw, resolution)
    targets = [instance.box for instance in record.targets(expression)]
    crowds = len(targets) - len(record.mask_targets(expression))
    boxes = scale_boxes(raw.boxes, *raw.original_size)
    scores = {weighted: score_queries(raw, existence_weighting=weighted) for weighted in (False, True)}
    selected: dict[tuple[float, bool, bool, float], list[int]] = {}
    matches: dict[tuple[bool, tuple[int, ...]], BoxMatches] = {}
    outcomes = []
    for setting in settings:
        weighted = setting.existence_weighting
        key = (setting.score_threshold, weighted, setting.nms, setting.nms_iou)
        if key not in selected:
            selected[key] = select_queries(boxes, scores[weighted], setting).tolist()
        queries = selected[key]
        selection = (weighted, tuple(queries))
        if selection not in matches:
            matches[selection] = evaluate_boxes(boxes[queries], scores[weighted][queries].tolist(), targets)
        predicted_px, intersection_px = counter.count(queries, setting)
        outcomes.append(
            Outcome(
                ref_id=expression.ref_id, targets=len(targets), predicted_empty=not queries, predicted_px=predicted_px,
                target_px=counter.target_px, intersection_px=intersection_px, **matches[selection]._asdict(),
                image_id=record.image_id, image_px=counter.image_px, crowds=crowds,
            )
        )  # fmt: skip
    return outcomes


def _score_settings(
    dataset: str, common: dict[str, NDArray[Any]], varying: dict[str, NDArray[Any]]
) -> list[dict[str, float | None]]:
    count = len(next(iter(varying.values())))
    rows = ({name: columns[index] for name, columns in varying.items()} for index in range(count))
    selections = (Outcomes(**common, **row) for row in rows)
    return [summarize(metric_ratios(dataset, each, has_boxes=True, has_masks=True)) for each in selections]
