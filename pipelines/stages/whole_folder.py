"""Artifacts that are written all at once: into a hidden folder beside the result, which then takes its place."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipelines.stages.artifact import RECORD, Stage, StageResult
from pipelines.stages.folder_lock import is_lock
from shards.errors import ArtifactError, DataError
from shards.files import remove_drafts, replace_folder, temporary_path


def write_folder(stage: Stage, write: Callable[[Path], Mapping[str, Any]], *, force: bool = False) -> StageResult[None]:
    """Write the artifact of a stage, if it is not there yet; `write` fills a folder and returns the counts.

    `force` replaces a folder that holds what the stage left there, and nothing beside it.

    Raises:
        ArtifactError: the folder holds something else.
    """
    if cached := stage.find(force=force):
        return cached
    with stage.claim(force=force) as cached:
        if cached:
            return cached
        if force:
            _refuse_other_content(stage.folder, stage.name)
        # "." and links have no name beside which to work.
        out = stage.folder.resolve()
        remove_drafts(out, locked=True)
        with temporary_path(out) as working, replace_folder(out, working):
            result = replace(stage, out=working).finish(write(working))
    return replace(result, folder=stage.folder)


def continue_folder(stage: Stage, write: Callable[[Path], Mapping[str, Any]]) -> StageResult[None]:
    """As `write_folder` of a folder that the caller has claimed; interrupted work is continued where it stopped.

    Work of other inputs that lies there was given up. Nothing stays after a DataError.
    """
    out = stage.folder.resolve()
    working = out.with_name(f".{out.name}.working")
    in_working = replace(stage, out=working)
    # What a process left that was killed between two renames.
    remove_drafts(out, locked=True)
    with replace_folder(out, working):
        result = None
        with contextlib.suppress(ArtifactError):
            result = in_working.find()
        if result is None:
            in_working.start(force=True)
            try:
                result = in_working.finish(write(working))
            except DataError:
                in_working.clear()
                working.rmdir()
                raise
    return replace(result, folder=stage.folder, cached=False)


def read_loose_record(folder: Path, name: str = RECORD) -> dict[str, Any]:
    """The values of a folder's record, finished or `UNFINISHED`; none if it is missing or damaged."""
    try:
        record = json.loads((folder / name).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}


def _refuse_other_content(out: Path, stage: str) -> None:
    """Only a folder that holds what the stage left there, and nothing beside it, is replaced."""
    if not out.is_dir() or not any(out.iterdir()):
        return
    record = read_loose_record(out)
    if record.get("stage") != stage:
        raise ArtifactError(f"{out} was not made by igvg {stage}; choose another --out")
    files = list(record.get("files") or ())
    folders = {str(parent) for name in files for parent in Path(name).parents}
    found = {str(path.relative_to(out)) for path in out.rglob("*") if not is_lock(path)}
    if others := sorted(found - {RECORD, *files, *folders}):
        raise ArtifactError(f"{out} holds {others[0]}, which igvg {stage} did not make; choose another --out")
