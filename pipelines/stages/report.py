"""`igvg report`: predictions, a split and a training run in, a page that opens from the disk out."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.config.overrides import fingerprinted_settings, to_mapping
from pipelines.config.settings import PostprocessSettings, ReportSettings
from pipelines.evaluation.evaluator import evaluate_split
from pipelines.prediction.prediction_file import PREDICTIONS
from pipelines.prediction.raw_store import INDEX, RAW_FOLDER
from pipelines.report.gallery_writer import GalleryCounts, PredictionSource, write_gallery
from pipelines.stages.artifact import RECORD, UNFINISHED, KeyedFolder, Stage, StageResult, read_artifact
from pipelines.stages.inputs import digest_input, digest_raw, digest_shards, find_predictions, read_postprocessing
from pipelines.stages.whole_folder import read_loose_record, write_folder
from shards.errors import DataError, SettingsError
from shards.files import write_bytes
from shards.progress import begin_stage, log
from shards.reader import ShardReader

PAGE = "index.html"
LOG = "log.jsonl"
MAX_SETS = 2


@dataclass(frozen=True, kw_only=True)
class ReportSources:
    """What a report is about."""

    sets: tuple[PredictionSource, ...]
    run: Path | None
    """The folder of a training run."""


def run(
    sources: Sequence[Path],
    shards: Path | None,
    settings: ReportSettings,
    out: Path | KeyedFolder,
    *,
    force: bool = False,
    workers: int | None = None,
) -> StageResult[None]:
    """Write a report: index.html, and beside it the data and images of its gallery.

    Args:
        sources: one or two sets of predictions, each a prediction file or a folder of `igvg predict`; and, or instead,
            the folder of a training run.
        shards: folder that `igvg prepare` made; None for a training run alone.
        settings: the split, how it is scored, and how many expressions are shown.
        out: the folder to make.
        force: replace `out` if it holds a report, and nothing else.
        workers: processes that draw; None takes one for each processor. The report does not depend on it.

    Returns:
        The artifact, whose counts are `expressions` and `images` of the gallery, and `sets`.

    Raises:
        ArtifactError: `out` holds something else, or an input is unfinished or damaged.
        DataError: a prediction, a raw output or an image is damaged, missing or of another split.
        SettingsError: the sources are too many, or lack what they need.
    """
    found = open_sources(sources)
    _check_sources(found, shards, settings)
    inputs = _digest_sources(found)
    names = [each.name for each in found.sets] + ([str(found.run)] if found.run else [])
    options: dict[str, Any] = fingerprinted_settings(settings) | {"names": names}
    if found.sets:
        assert shards is not None
        inputs |= {"shards": digest_shards(shards)}
        options["postprocess"] = [to_mapping(each.settings) if each.raw else None for each in found.sets]
    stage = Stage(name="report", out=out, inputs=inputs, options=options)

    def write(folder: Path) -> dict[str, Any]:
        counts = GalleryCounts(expressions=0, images=0, foreign=0)
        if found.sets and shards is not None:
            begin_stage(f"scoring {settings.split}")
            for each in found.sets:
                outcomes = evaluate_split(each.file, shards, settings.split, settings.resolution)
                for warning in outcomes.warnings:
                    log(warning)
            counts = _write_split(folder, found.sets, shards, settings, workers)
        _write_page(folder / PAGE, settings.split or str(found.run))
        return {"sets": len(found.sets), "expressions": counts.expressions, "images": counts.images}

    return write_folder(stage, write, force=force)


def open_sources(sources: Iterable[Path]) -> ReportSources:
    """The sets of predictions and the training run among some paths.

    Raises:
        ArtifactError: a folder of predictions is unfinished or damaged.
        DataError: a path holds neither.
        SettingsError: there are more than two sets or more than one run, or nothing.
    """
    runs, sets = [], []
    for path in sources:
        if _is_run(path):
            runs.append(path)
        else:
            sets.append(_open_set(path))
    if len(sets) > MAX_SETS or len(runs) > 1 or not (sets or runs):
        counts = f"{len(sets)} sets of predictions and {len(runs)} training runs"
        raise SettingsError(f"a report is about one or two sets of predictions and one training run, found {counts}")
    return ReportSources(sets=tuple(sets), run=runs[0] if runs else None)


def _is_run(path: Path) -> bool:
    """Whether a path is the folder of a training run, finished or not."""
    if not path.is_dir() or (path / PREDICTIONS).is_file():
        return False
    begun = read_loose_record(path).get("stage") == "train"
    return begun or (path / LOG).is_file()


def _open_set(path: Path) -> PredictionSource:
    """A set of predictions, with the raw outputs beside it if its folder is one of igvg predict."""
    file = find_predictions(path)
    folder, raw, settings = file.parent, None, PostprocessSettings()
    finished = file.name == PREDICTIONS and (folder / RECORD).is_file()
    if file.name == PREDICTIONS and (folder / UNFINISHED).exists() and not finished:
        raise DataError("the prediction is unfinished", file=folder, remedy="finish it: run its igvg predict again")
    if finished:
        read_artifact(folder, "predict")
        if (folder / RAW_FOLDER / INDEX).is_file():
            raw = folder / RAW_FOLDER
            settings = read_postprocessing(raw)
    return PredictionSource(name=str(path), file=file, raw=raw, settings=settings)


def _check_sources(found: ReportSources, shards: Path | None, settings: ReportSettings) -> None:
    if not found.sets:
        if found.run and not (found.run / LOG).is_file():
            remedy = "give a folder that igvg train made"
            raise DataError("no log of a training", file=found.run / LOG, remedy=remedy)
        return
    if shards is None or not settings.split:
        remedy = "give the --shards and --split that were predicted; without them a training run alone can be reported"
        raise SettingsError(f"{found.sets[0].name} is compared with the ground truth; {remedy}")


def _digest_sources(found: ReportSources) -> dict[str, Any]:
    inputs: dict[str, Any] = {}
    for position, each in enumerate(found.sets, start=1):
        inputs[f"predictions {position}"] = digest_input(each.file)
        if each.raw:
            inputs[f"raw outputs {position}"] = digest_raw(each.raw)
    return inputs | ({"log": digest_input(found.run / LOG)} if found.run else {})


def _write_split(
    folder: Path, sets: Sequence[PredictionSource], shards: Path, settings: ReportSettings, workers: int | None
) -> GalleryCounts:
    begin_stage("drawing the gallery")
    with ShardReader(shards, settings.split) as reader:
        counts = write_gallery(
            folder, sets, reader, limit=settings.limit, resolution=settings.resolution, workers=workers
        )
    if counts.foreign:
        what = "predictions do not come from the raw outputs beside them: shown without points, attention and masks"
        log(f"Warning: {counts.foreign} {what} of instances")
    return counts


def _write_page(file: Path, title: str) -> None:
    write_bytes(file, f"<!doctype html><title>{html.escape(title)}</title>\n".encode())
