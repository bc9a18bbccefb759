"""What a stage leaves behind: a folder with `artifact.json`, written last, that says what it was made from.

The fingerprint hashes the stage, the content of its inputs and the settings that decide its bytes, never paths, times
or worker counts. Same fingerprint: the work is done. Another one: the folder is left alone and the difference is named.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from pipelines.config.overrides import describe_differences
from shards.errors import ArtifactError, DataError, join_first
from shards.file_kinds import describe_content
from shards.files import read_json, remove_stale, write_json

RECORD = "artifact.json"
UNFINISHED = "unfinished.json"
# igvg run and igvg demo, which name their folders themselves, have no --force.
_MAKE_AGAIN = "remove its folder, or make it again with --force"
_PACKAGES = ("igvg", "numpy", "pillow", "pycocotools", "torch", "transformers")


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """The record of a finished stage.

    `inputs` holds content digests, `options` the material settings, `files` the byte size of every file in the folder.
    """

    stage: str
    fingerprint: str
    inputs: dict[str, Any]
    options: dict[str, Any]
    counts: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    files: dict[str, int] = field(default_factory=dict)


def compute_fingerprint(stage: str, inputs: Mapping[str, Any], options: Mapping[str, Any]) -> str:
    """SHA-256 over the canonical JSON of what decides an artifact's bytes."""
    key = json.dumps([stage, inputs, options], sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(key.encode()).hexdigest()


def read_artifact(folder: Path, stage: str | None = None) -> Artifact:
    """The record of a finished artifact whose files are all there.

    Raises:
        ArtifactError: there is none, it is of another stage, or a file is missing or has another size.
    """
    file = folder / RECORD
    if not file.exists():
        hint = (
            "its work is unfinished: run its command again" if (folder / UNFINISHED).exists() else "run igvg to make it"
        )
        raise ArtifactError(f"{folder} holds no {RECORD}; {hint}")
    record = _read_record(file)
    if stage is not None and record.stage != stage:
        raise ArtifactError(f"{folder} was made by igvg {record.stage}, not by igvg {stage}; give another folder")
    for name, size in record.files.items():
        file = folder / name
        found = file.stat().st_size if file.is_file() else None
        if found != size:
            if (content := describe_content(file)) and content.kind in ("git-lfs", "git-annex"):
                raise ArtifactError(f"{file} is {content.words}; {content.remedy}")
            state = "is missing" if found is None else f"has {found} bytes instead of {size}"
            raise ArtifactError(f"{file} {state}: the artifact is damaged; {_MAKE_AGAIN}")
    return record


def find_finished(
    folder: Path, stage: str, inputs: Mapping[str, Any], options: Mapping[str, Any], *, force: bool = False
) -> Artifact | None:
    """The finished artifact, if the folder holds just what would be made; None, if it may be made there.

    Raises:
        ArtifactError: the folder holds a finished artifact of other inputs or settings (says which; `force` allows to
            replace it), a damaged one, or files that igvg did not make (never replaced).
    """
    if folder.exists() and not folder.is_dir():
        raise ArtifactError(f"{folder} is a file; --out must be a folder")
    if not folder.is_dir() or not any(folder.iterdir()):
        return None
    if not (folder / RECORD).exists():
        if (folder / UNFINISHED).exists():
            _refuse_other_stage(folder, stage)
            return None
        raise ArtifactError(f"{folder} is not empty and holds nothing of igvg's; choose another --out")
    if force:
        return None
    found = read_artifact(folder, stage)
    if found.fingerprint != compute_fingerprint(stage, inputs, options):
        raise ArtifactError(
            f"{folder} holds a finished {stage} of other inputs or settings: {_explain(found, inputs, options)}"
        )
    return found


def begin_work(
    folder: Path, stage: str, inputs: Mapping[str, Any], options: Mapping[str, Any], *, force: bool = False
) -> bool:
    """Open a folder for work in place; True if it continues interrupted work of the same fingerprint.

    `force` clears what igvg left there before, finished or not.

    Raises:
        ArtifactError: the folder holds interrupted work of other inputs or settings.
    """
    marker = folder / UNFINISHED
    fingerprint = compute_fingerprint(stage, inputs, options)
    begun: Artifact | None = None
    if marker.exists() and not (force and (folder / RECORD).exists()):
        with contextlib.suppress(ArtifactError):
            begun = _read_record(marker)
        if begun is not None and begun.fingerprint == fingerprint:
            # What a killed process was writing; nobody else writes before this work has begun.
            remove_stale(folder, deep=True)
            return True
        if not force:
            changes = "its record is damaged" if begun is None else _explain(begun, inputs, options)
            raise ArtifactError(f"{folder} holds unfinished work of other inputs or settings: {changes}")
    if force and (marker.exists() or (folder / RECORD).exists()):
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    begun = Artifact(stage=stage, fingerprint=fingerprint, inputs=dict(inputs), options=dict(options))
    write_json(marker, asdict(begun))
    return False


def finish_work(
    folder: Path,
    stage: str,
    inputs: Mapping[str, Any],
    options: Mapping[str, Any],
    counts: Mapping[str, Any],
    *,
    scratch: Collection[str] = (),
) -> Artifact:
    """Write `artifact.json` over everything the folder holds now; the artifact is finished with it.

    Args:
        folder: where the work was done.
        stage: name of the command.
        inputs: content digests of what it was made from.
        options: the settings that decide its bytes.
        counts: what the record tells of the result.
        scratch: folders in it that only unfinished work needs; no part of the artifact.
    """
    files = {
        str(name): file.stat().st_size
        for file in sorted(folder.rglob("*"))
        # What a killed process was writing when it ended is nobody's result.
        if file.is_file() and file.name not in (RECORD, UNFINISHED) and not file.match(".*.tmp")
        if (name := file.relative_to(folder)).parts[0] not in scratch
    }
    record = Artifact(
        stage=stage,
        fingerprint=compute_fingerprint(stage, inputs, options),
        inputs=dict(inputs),
        options=dict(options),
        counts=dict(counts),
        versions=_list_versions(),
        files=files,
    )
    write_json(folder / RECORD, asdict(record))
    (folder / UNFINISHED).unlink(missing_ok=True)
    # Last: a process that is killed before goes on from them.
    for place in scratch:
        shutil.rmtree(folder / place, ignore_errors=True)
    return record


def _read_record(file: Path) -> Artifact:
    """The record that a stage wrote.

    Raises:
        ArtifactError: it cannot be read, or is none.
    """
    remedy = _MAKE_AGAIN
    try:
        values = read_json(file, "the record of a stage in JSON", remedy)
        record = Artifact(**values)
    except DataError as error:
        raise ArtifactError(str(error)) from error
    except TypeError as error:
        raise ArtifactError(f"{file} is no record of a stage ({error}); {remedy}") from error
    kinds = {"stage": str, "fingerprint": str, "inputs": dict, "options": dict, "counts": dict, "files": dict}
    for name, kind in kinds.items():
        if not isinstance(getattr(record, name), kind):
            raise ArtifactError(f"{file} is no record of a stage ({name} is no {kind.__name__}); {remedy}")
    return record


def _refuse_other_stage(folder: Path, stage: str) -> None:
    try:
        begun = _read_record(folder / UNFINISHED)
    except ArtifactError:
        return
    if begun.stage != stage:
        raise ArtifactError(f"{folder} holds unfinished work of igvg {begun.stage}; choose another --out")


def _explain(found: Artifact, inputs: Mapping[str, Any], options: Mapping[str, Any]) -> str:
    changes = describe_differences(found.options, json.loads(json.dumps(options)))
    changed_inputs = describe_differences(found.inputs, json.loads(json.dumps(inputs)))
    # The name of an input may hold spaces; its digests, on both sides of an arrow, do not.
    changes += [f"input {change.rsplit(' ', 3)[0]} differs" for change in changed_inputs]
    shown = join_first(changes, 6)
    return f"{shown or 'made by another version of igvg'}; choose another --out, or replace it with --force"


def _list_versions() -> dict[str, str]:
    versions = {}
    for package in _PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    return versions
