"""`igvg report`: predictions, a split and a training run in, a page that opens from the disk out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipelines.config.overrides import fingerprinted_settings, to_mapping
from pipelines.config.settings import PostprocessSettings, ReportSettings, ScoreSettings
from pipelines.evaluation.evaluator import evaluate_split
from pipelines.evaluation.sweep import evaluate_grid
from pipelines.prediction.prediction_file import PREDICTIONS
from pipelines.prediction.raw_store import INDEX, RAW_FOLDER, RawReader
from pipelines.report.gallery_writer import GalleryCounts, PredictionSource, count_workers, write_gallery
from pipelines.report.learning_section import read_training_log
from pipelines.report.page import digest_page, render_page
from pipelines.report.summary import PredictionSet, build_summary
from pipelines.report.threshold_section import ThresholdCurve, threshold_grid
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
# The end of a sentence of the page.
_NO_CURVE = "there are no raw outputs beside the predictions"


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
    names: Sequence[str] = (),
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
        names: of the sets of predictions, in their order. Without any the page names them by their paths, and a report
            of the same predictions under another path is the same work.
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
    # A page that another igvg wrote is another page.
    inputs = _digest_sources(found) | {"page of igvg": digest_page()}
    options: dict[str, Any] = fingerprinted_settings(settings)
    if names:
        named = tuple(replace(each, name=name) for each, name in zip(found.sets, names, strict=True))
        found, options["names"] = replace(found, sets=named), list(names)
    if found.sets:
        assert shards is not None
        inputs |= {"shards": digest_shards(shards)}
        options["postprocess"] = [to_mapping(each.settings) if each.raw else None for each in found.sets]
    stage = Stage(name="report", out=out, inputs=inputs, options=options)

    def write(folder: Path) -> dict[str, Any]:
        training = read_training_log(found.run / LOG) if found.run else None
        counts = GalleryCounts(expressions=0, images=0, foreign=0)
        sets: list[PredictionSet] = []
        title = found.run.resolve().name if found.run else ""
        if found.sets and shards is not None:
            sets = [_evaluate_set(each, shards, settings, workers) for each in found.sets]
            counts = _draw_gallery(folder, found.sets, shards, settings, workers)
            title = f"{sets[0].outcomes.dataset}/{settings.split}"
        begin_stage("drawing the charts")
        scoring = ScoreSettings(
            split=settings.split, resolution=settings.resolution, bootstrap=settings.bootstrap, seed=settings.seed
        )
        summary = build_summary(sets, scoring, training)
        page = render_page(summary, title=title, sets=[each.name for each in found.sets])
        write_bytes(folder / PAGE, page.encode("utf-8", "replace"))
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
    sets = [_find_shared_outputs(each, sets) for each in sets]
    if len(sets) > MAX_SETS or len(runs) > 1 or not (sets or runs):
        counts = f"{len(sets)} sets of predictions and {len(runs)} training runs"
        raise SettingsError(f"a report is about one or two sets of predictions and one training run, found {counts}")
    return ReportSources(sets=tuple(sets), run=runs[0] if runs else None)


def _is_run(path: Path) -> bool:
    """Whether a path is the folder of a training run, finished or not."""
    if not path.is_dir() or (path / PREDICTIONS).is_file():
        return False
    begun = any(read_loose_record(path, name).get("stage") == "train" for name in (RECORD, UNFINISHED))
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


def _find_shared_outputs(source: PredictionSource, sets: Sequence[PredictionSource]) -> PredictionSource:
    """A set that `igvg predict --from` made from the raw outputs of another one of the sets, with these raw outputs."""
    record = read_loose_record(source.file.parent)
    if source.raw or record.get("stage") != "predict" or source.file.name != PREDICTIONS:
        return source
    for other in sets:
        if other.raw and record["inputs"].get("raw") == digest_raw(other.raw):
            return replace(source, raw=other.raw, settings=read_postprocessing(source.file.parent / RAW_FOLDER))
    return source


def _check_sources(found: ReportSources, shards: Path | None, settings: ReportSettings) -> None:
    if not found.sets:
        if shards is not None:
            log("--shards and --split are not used: there are no predictions among the sources")
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


def _evaluate_set(
    source: PredictionSource, shards: Path, settings: ReportSettings, workers: int | None
) -> PredictionSet:
    """A set of predictions compared with the ground truth, also under other score thresholds; logs warnings."""
    begin_stage(f"scoring {source.name}")
    outcomes = evaluate_split(source.file, shards, settings.split, settings.resolution)
    for warning in outcomes.warnings:
        log(warning)
    if source.raw is None:
        return PredictionSet(name=source.name, outcomes=outcomes, curve=_NO_CURVE)
    begin_stage(f"scoring {source.name} under other thresholds")
    grid = threshold_grid(source.settings, RawReader(source.raw).mask_floor)
    processes = count_workers(workers, len(outcomes.ids))
    report = evaluate_grid(source.raw, shards, settings.split, grid, resolution=settings.resolution, workers=processes)
    curve = ThresholdCurve(report=report, used=source.settings.score_threshold)
    return PredictionSet(name=source.name, outcomes=outcomes, curve=curve)


def _draw_gallery(
    folder: Path, sets: Sequence[PredictionSource], shards: Path, settings: ReportSettings, workers: int | None
) -> GalleryCounts:
    begin_stage("drawing the gallery")
    limit, resolution = settings.limit, settings.resolution
    with ShardReader(shards, settings.split) as reader:
        counts = write_gallery(folder, sets, reader, limit=limit, resolution=resolution, workers=workers)
    if counts.foreign:
        what = "predictions do not come from the raw outputs beside them: shown without points, attention and masks"
        log(f"Warning: {counts.foreign} {what} of instances")
    return counts
