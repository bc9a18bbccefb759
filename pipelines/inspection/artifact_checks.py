"""Checks of an artifact: its record, the files that it lists, and what the stage says about their content."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path, PurePosixPath

from pipelines.data.image_cache import CACHE_FOLDER, CACHE_SUFFIX, find_damage
from pipelines.data.tokenizer import SENTENCEPIECE_NAME
from pipelines.inspection.content_checks import check_content
from pipelines.inspection.findings import Inventory
from pipelines.inspection.prediction_checks import check_predictions
from pipelines.inspection.shard_checks import check_splits
from pipelines.prediction.prediction_file import PREDICTIONS
from pipelines.stages.artifact import (
    RECORD,
    SHARD_SUFFIX,
    UNFINISHED,
    Artifact,
    compute_fingerprint,
    read_record,
)
from pipelines.stages.folder_lock import is_lock
from pipelines.stages.score import SCORES
from shards.errors import ArtifactError
from shards.files import digest_file, dump_json, read_json

_CHECKPOINT_STAGES = frozenset({"train", "import", "untrained"})


def is_artifact(folder: Path) -> bool:
    """Whether a folder holds a finished or an unfinished artifact."""
    return (folder / RECORD).is_file() or (folder / UNFINISHED).is_file()


def check_artifact(folder: Path, inventory: Inventory) -> list[Path]:
    """Check the artifact in a folder; returns the folders of other artifacts inside it."""
    files, inner = list_files(folder)
    inventory.files += len(files)
    inventory.bytes += sum(_size(file) for file in files)
    if not (folder / RECORD).is_file():
        _check_unfinished(folder, inventory)
        return inner
    try:
        record = read_record(folder / RECORD)
    except ArtifactError as error:
        inventory.units["unknown"] += 1
        inventory.add(folder / RECORD, str(error).removeprefix(f"{folder / RECORD} ").removeprefix(
            f"{folder / RECORD}: "))  # fmt: skip
        return inner
    inventory.units[record.stage] += 1
    _check_record(folder, record, inventory)
    listed = _check_listed(folder, record, inventory)
    for extra in sorted(set(files) - listed - {folder / RECORD}):
        if is_lock(extra):
            continue
        if extra.name == SENTENCEPIECE_NAME and record.stage == "import" and not record.counts.get("tokenizer"):
            # igvg import itself advises to put it there.
            continue
        if record.stage == "prepare" and extra.parent == folder / CACHE_FOLDER:
            # Made from the artifact by igvg prepare --cache or igvg train; every image is checked when it is used.
            if inventory.full and extra.suffix == CACHE_SUFFIX and (damage := find_damage(extra)):
                inventory.add(extra, damage)
            continue
        inventory.add(extra, "is not part of the artifact")
    for file in sorted(listed):
        if file.is_file() and file.name != PREDICTIONS:
            check_content(file, inventory)
    _check_stage(folder, record, inventory)
    return inner


def list_files(folder: Path) -> tuple[list[Path], list[Path]]:
    """All files below a folder but those of artifacts inside it, and the folders of these artifacts, sorted."""
    files: list[Path] = []
    inner: list[Path] = []
    for parent, folders, names in os.walk(folder):
        for name in sorted(folders):
            if is_artifact(Path(parent, name)):
                inner.append(Path(parent, name))
                folders.remove(name)
            elif Path(parent, name).is_symlink():
                files.append(Path(parent, name))
        files += [Path(parent, name) for name in names]
    return sorted(files), sorted(inner)


def _check_unfinished(folder: Path, inventory: Inventory) -> None:
    stage = "unknown"
    with inventory.collect(folder / UNFINISHED):
        stage = read_record(folder / UNFINISHED).stage
        what = f"igvg {stage} has not ended: run its command again" if stage else "has not ended"
        inventory.add(folder / UNFINISHED, what)
    inventory.units[f"unfinished {stage}"] += 1


def _check_record(folder: Path, record: Artifact, inventory: Inventory) -> None:
    """The record against its own checksum and fingerprint, and the sizes in it."""
    file = folder / RECORD
    if record.checksum:
        as_written = dump_json(asdict(record), indent=1) + b"\n"
        if record.checksum != record.expected_checksum or file.read_bytes() != as_written:
            inventory.add(file, "differs from its checksum")
    elif inventory.full:
        what = "was written by an earlier igvg, without SHA-256: its files are read, but not compared"
        inventory.notes.append(f"{inventory.name(file)} {what}")
    if record.fingerprint != compute_fingerprint(record.stage, record.inputs, record.options):
        inventory.add(file, "has a fingerprint that its inputs and options do not give")


def _check_listed(folder: Path, record: Artifact, inventory: Inventory) -> set[Path]:
    """Check presence and sizes of the listed files and, in full, their SHA-256; returns their paths."""
    listed = set()
    for name, size in record.files.items():
        if not _is_inside(name) or type(size) is not int:
            inventory.add(folder / RECORD, f"lists {name!r} of {size!r} bytes, which is no file of the artifact")
            continue
        file = folder / name
        listed.add(file)
        inventory.advance()
        if not file.is_file():
            inventory.add(file, "is missing")
            continue
        with inventory.collect(file):
            found = file.stat().st_size
            if found != size:
                inventory.add(file, f"has {found} bytes instead of {size}")
            elif inventory.full and (expected := record.digests.get(name)) and digest_file(file) != expected:
                inventory.add(file, "differs from its SHA-256")
    if record.digests and (lacking := [name for name in record.files if _lacks_digest(name, record)]):
        inventory.add(folder / RECORD, f"holds no SHA-256 of {lacking[0]}")
    return listed


def _lacks_digest(name: str, record: Artifact) -> bool:
    return name not in record.digests and not name.endswith(SHARD_SUFFIX)


def _check_stage(folder: Path, record: Artifact, inventory: Inventory) -> None:
    """What the record says about the content of the files."""
    counts = record.counts
    if record.stage == "prepare":
        splits = counts.get("splits")
        check_splits(folder, inventory, splits if isinstance(splits, dict) else {})
    elif (folder / PREDICTIONS).is_file():
        check_predictions(folder, inventory, counts)
    elif record.stage == "score" and (folder / SCORES).is_file():
        with inventory.collect(folder / SCORES):
            scores = read_json(folder / SCORES, "scores in JSON")
            found = scores.get("expressions") if isinstance(scores, dict) else None
            if found != counts.get("expressions"):
                inventory.add(
                    folder / SCORES, f"is of {found} expressions, the record says {counts.get('expressions')}"
                )
    elif record.stage in _CHECKPOINT_STAGES:
        for name in ("config.json", "model.safetensors"):
            if name not in record.files:
                inventory.add(folder / name, "is missing, and the record does not list it")


def _is_inside(name: str) -> bool:
    parts = PurePosixPath(name).parts
    return bool(parts) and ".." not in parts and not name.startswith("/") and "\0" not in name


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:
        return 0


def find_orphans(folder: Path) -> Iterator[str]:
    """Names of files in a folder without a record that only a stage of igvg writes, beside its record."""
    for name in (PREDICTIONS, SCORES, "log.jsonl", "expressions.csv"):
        if (folder / name).is_file():
            yield name
