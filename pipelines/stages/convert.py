"""`igvg convert`: predictions become COCO's files, or COCO results become predictions."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipelines.prediction.coco_export import ANNOTATIONS, BOXES, SEGMENTATIONS, write_annotations, write_results
from pipelines.prediction.coco_import import CocoResults, read_results
from pipelines.prediction.prediction_file import PREDICTIONS, read_predictions, write_predictions
from pipelines.stages.artifact import RECORD, Stage, StageResult
from pipelines.stages.inputs import digest_input, digest_shards, find_predictions
from shards.errors import ArtifactError, DataError
from shards.files import digest_file, name_file, remove_drafts, replace_folder, temporary_path
from shards.progress import log
from shards.reader import ShardReader

STAGE = "convert"


@dataclass(frozen=True, kw_only=True)
class ImportReport:
    """What COCO results became."""

    expressions: int
    no_target: int
    """Expressions without a target."""


def export_predictions(
    predictions: Path | None, shards: Path, split: str, out: Path, *, force: bool = False
) -> StageResult[None]:
    """Write predictions as COCO's files: annotations.json, boxes.json and segmentations.json.

    Args:
        predictions: a prediction file, or the folder of `igvg predict`; None writes annotations.json alone.
        shards: folder that `igvg prepare` made.
        split: of the shards.
        out: the folder to make.
        force: replace `out` if it holds what this function made, and nothing else.

    Returns:
        The artifact, whose counts are `expressions`, `targets` and, of predictions, `boxes` and `segmentations`.

    Raises:
        DataError: a prediction is damaged, unknown, missing, given twice, or has a mask of the wrong size.
        ArtifactError: `out` holds something else, or the shards are damaged.
    """
    inputs = {"shards": digest_shards(shards)}
    file = None if predictions is None else find_predictions(predictions)
    if file is not None:
        inputs = {"predictions": digest_input(file), **inputs}
    stage = Stage(name=STAGE, out=out, inputs=inputs, options={"split": split})
    if cached := stage.find(force=force):
        return cached
    if force:
        _refuse_other_content(out)
    # "." and links have no name beside which to work.
    out = out.resolve()
    remove_drafts(out)
    with (
        ShardReader(shards, split) as reader,
        temporary_path(out) as working,
        replace_folder(out, working),
    ):
        counts = {
            "expressions": reader.index.num_expressions,
            "targets": write_annotations(working / ANNOTATIONS, reader),
        }
        if file is not None:
            results = working / BOXES, working / SEGMENTATIONS
            written, warnings = write_results(*results, file, reader)
            counts |= written
            for warning in warnings:
                log(warning)
        result = replace(stage, out=working).finish(counts)
    return replace(result, folder=stage.folder)


def import_results(
    results: CocoResults, shards: Path, split: str, out: Path, *, force: bool = False
) -> StageResult[ImportReport]:
    """Write COCO results as a prediction file.

    Args:
        results: COCO results with boxes, segmentations or both.
        shards: folder that `igvg prepare` made.
        split: of the shards.
        out: the prediction file.
        force: replace `out` if it is a prediction file that no other command made.

    Raises:
        DataError: a file or an entry of it cannot be used.
        ArtifactError: `out` holds something else.
    """
    if len({file.resolve() for file in results.files}) < len(results.files):
        raise DataError(f"{', '.join(map(str, results.files))}: a file is given twice", remedy="give every file once")
    _refuse_other_file(out, force=force)
    with ShardReader(shards, split) as reader:
        predictions = read_results(results, reader)
    no_target = sum(prediction.no_target for prediction in predictions)
    report = ImportReport(expressions=len(predictions), no_target=no_target)
    out.parent.mkdir(parents=True, exist_ok=True)
    remove_drafts(out)
    with temporary_path(out) as draft:
        with name_file(out, draft):
            write_predictions(draft, predictions)
        if out.exists():
            if digest_file(draft) == digest_file(out):
                return StageResult(report=report, cached=True)
            if not force:
                raise ArtifactError(f"{out} holds something else; choose another --out, or replace it with --force")
        draft.replace(out)
    return StageResult(report=report)


def _refuse_other_content(out: Path) -> None:
    """Only a folder that holds what this stage left there, and nothing beside it, is replaced."""
    if not out.is_dir() or not any(out.iterdir()):
        return
    record = _read_record(out)
    if record.get("stage") != STAGE:
        raise ArtifactError(f"{out} was not made by igvg {STAGE}; choose another --out")
    found = {str(path.relative_to(out)) for path in out.rglob("*")}
    if others := sorted(found - {RECORD, ANNOTATIONS, BOXES, SEGMENTATIONS}):
        raise ArtifactError(f"{out} holds {others[0]}, which igvg {STAGE} did not make; choose another --out")


def _refuse_other_file(out: Path, *, force: bool) -> None:
    """Only a prediction file that belongs to no artifact is replaced."""
    if out.is_dir():
        raise ArtifactError(f"{out} is a folder; --out must be a file, such as {PREDICTIONS}")
    if out.exists() and not out.is_file():
        raise ArtifactError(f"{out} is a device or a pipe; --out must be a file, such as {PREDICTIONS}")
    if not force or not out.exists():
        return
    record = _read_record(out.parent)
    if out.name == RECORD or out.name in list(record.get("files") or ()):
        raise ArtifactError(f"{out} was made by igvg {record.get('stage')}; choose another --out")
    try:
        next(read_predictions(out), None)
    except DataError as error:
        raise ArtifactError(f"{out} holds no predictions ({error.what}); choose another --out") from error


def _read_record(folder: Path) -> dict[str, Any]:
    """The values of artifact.json; none if it is missing or damaged."""
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}
