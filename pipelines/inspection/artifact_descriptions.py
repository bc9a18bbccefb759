"""Artifacts described from their records, finished or not, and folders of several artifacts."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pipelines.inspection.artifact_checks import is_artifact
from pipelines.inspection.checkpoint_descriptions import CONFIG_FILE, describe_checkpoint
from pipelines.inspection.description import Cell, Description, Table, format_time, measure_folder
from pipelines.inspection.prediction_descriptions import read_log
from pipelines.inspection.settings_used import flatten, list_settings
from pipelines.inspection.shard_descriptions import tabulate_splits
from pipelines.stages.artifact import RECORD, UNFINISHED, Artifact, read_record
from pipelines.stages.score import SCORES
from shards.errors import DataError, IGVGError
from shards.files import read_json

_WORDS = {
    "prepare": "prepared shards",
    "train": "a trained network",
    "predict": "predictions",
    "score": "scores",
    "convert": "predictions in files of other programs",
    "import": "a network imported from a published checkpoint",
    "shapes": "the embedded data set, drawn in the published layouts",
    "baseline": "predictions of a baseline that needs no training",
    "untrained": "a network before training",
    "report": "a report",
}
# Folders of artifacts are listed to this depth, and so many artifacts at most.
_DEPTH, _LISTED = 4, 200


def describe_artifact(folder: Path) -> Description:
    """An artifact, finished or not.

    Raises:
        ArtifactError: its record is damaged.
    """
    finished = (folder / RECORD).is_file()
    file = folder / (RECORD if finished else UNFINISHED)
    record = read_record(file)
    what = describe_stage(record)
    facts: dict[str, Cell] = {"stage": record.stage, "finished": finished, "fingerprint": record.fingerprint}
    measured = measure_folder(folder)
    if finished:
        measured["changed"] = format_time(file.stat().st_mtime)
    description = Description(
        path=str(folder),
        kind=record.stage,
        what=what if finished else f"unfinished work: {what}; its command goes on with it",
        **measured,
        facts=facts,
        inputs={name: str(digest) for name, digest in flatten(record.inputs)},
        settings=list_settings(record.stage, record.options),
        counts={key: value for key, value in record.counts.items() if key != "splits"},
        versions=record.versions,
    )
    try:
        return _add_details(description, folder, record)
    except (IGVGError, OSError) as error:
        return description.with_parts(notes=[f"damaged: {error}"])


def describe_stage(record: Artifact) -> str:
    """What a record's stage makes, and its command."""
    return f"{_WORDS.get(record.stage, 'an artifact')} (igvg {record.stage})"


def _add_details(description: Description, folder: Path, record: Artifact) -> Description:
    """What the files of the artifact say beyond its record."""
    if record.stage == "prepare":
        counts = record.counts.get("splits")
        return description.with_parts(tables=[tabulate_splits(folder, counts if isinstance(counts, dict) else {})])
    if record.stage == "score" and (folder / SCORES).is_file():
        return description.with_parts(*_read_scores(folder / SCORES))
    if (folder / "log.jsonl").is_file():
        description = description.with_parts(facts=read_log(folder / "log.jsonl"))
    if (folder / CONFIG_FILE).is_file():
        network = describe_checkpoint(folder)
        return description.with_parts(facts=network.facts, tables=network.tables, notes=network.notes)
    chunks = len(list(folder.glob("raw/chunk-*.npz")))
    return description.with_parts(facts={"chunks of raw outputs": chunks} if chunks else {})


def _read_scores(file: Path) -> tuple[dict[str, Cell], list[Table]]:
    scores = read_json(file, "scores in JSON")
    if not isinstance(scores, dict) or not isinstance(scores.get("metrics"), dict):
        raise DataError("does not hold scores", file=file)
    return summarize_scores(scores)


def summarize_scores(scores: dict[str, Any]) -> tuple[dict[str, Cell], list[Table]]:
    """Facts and the table of metrics of a document of scores."""
    facts: dict[str, Cell] = {
        name: scores[name] for name in ("dataset", "split", "expressions", "resolution") if name in scores
    }
    targets = scores.get("targets") or {}
    names = {"empty": "none", "single": "one", "multiple": "several"}
    facts |= {names.get(kind, kind): count for kind, count in targets.items()}
    intervals = scores.get("intervals") or {}
    rows = tuple((name, value, *(intervals.get(name) or (None, None))) for name, value in scores["metrics"].items())
    return facts, [Table(title="metrics", columns=("metric", "percent", "95 % from", "95 % to"), rows=rows)]


def describe_collection(folder: Path) -> Description | None:
    """A folder of artifacts, such as those of igvg run, igvg ablate and igvg demo; None: there are none in it."""
    found = _find_artifacts(folder)
    if not found:
        return None
    rows: list[tuple[Cell, ...]] = []
    for inner in found[:_LISTED]:
        finished = (inner / RECORD).is_file()
        file = inner / (RECORD if finished else UNFINISHED)
        try:
            record = read_record(file)
        except IGVGError:
            rows.append((str(inner.relative_to(folder)), None, "damaged", None, None))
            continue
        state, size = "finished" if finished else "unfinished", sum(_sizes(record))
        rows.append((str(inner.relative_to(folder)), record.stage, state, size, format_time(file.stat().st_mtime)))
    columns = ("folder", "stage", "state", "bytes", "finished at")
    measured = measure_folder(folder)
    what = "the folder of an igvg demo" if (folder / "experiment.toml").is_file() else "a folder of artifacts"
    return Description(
        path=str(folder),
        kind="artifacts",
        what=what,
        **measured,
        facts={"artifacts": len(found)},
        tables=(Table(title="artifacts", columns=columns, rows=tuple(rows)),),
        notes=(f"the first {_LISTED} are listed",) if len(found) > _LISTED else (),
    )


def _find_artifacts(folder: Path) -> list[Path]:
    found = []
    for parent, folders, _ in os.walk(folder):
        folders.sort()
        depth = len(Path(parent).relative_to(folder).parts)
        if depth >= _DEPTH:
            folders.clear()
        found += [Path(parent, name) for name in folders if is_artifact(Path(parent, name))]
    return sorted(found)


def _sizes(record: Artifact) -> list[int]:
    return [size for size in record.files.values() if type(size) is int]
