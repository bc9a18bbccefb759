"""Artifacts that are written all at once: into a hidden folder beside the result, which then takes its place."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipelines.stages.artifact import RECORD, Stage, StageResult
from shards.errors import ArtifactError
from shards.files import remove_drafts, replace_folder, temporary_path

# Workers of a killed process notice its end and go, too.
_LOCK_SECONDS = 5.0


@contextlib.contextmanager
def hold_folder(working: Path, out: Path) -> Iterator[None]:
    """Inside, no other process works in a folder, which is made if there is none.

    The lock is on the folder itself, so that it goes with the process. File systems without locks have none.

    Raises:
        ArtifactError: another process works there; names `out`.
    """
    working.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(working, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    deadline = time.monotonic() + _LOCK_SECONDS
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                if time.monotonic() > deadline:
                    what = f"another process writes {out}; wait for it, then run the same command again"
                    raise ArtifactError(what) from error
                time.sleep(0.1)
            except OSError:
                break
            else:
                break
        yield
    finally:
        os.close(descriptor)


def write_folder(stage: Stage, write: Callable[[Path], Mapping[str, Any]], *, force: bool = False) -> StageResult[None]:
    """Write the artifact of a stage, if it is not there yet; `write` fills a folder and returns the counts.

    `force` replaces a folder that holds what the stage left there, and nothing beside it.

    Raises:
        ArtifactError: the folder holds something else.
    """
    if cached := stage.find(force=force):
        return cached
    if force:
        _refuse_other_content(stage.folder, stage.name)
    # "." and links have no name beside which to work.
    out = stage.folder.resolve()
    remove_drafts(out)
    with temporary_path(out) as working, replace_folder(out, working):
        result = replace(stage, out=working).finish(write(working))
    return replace(result, folder=stage.folder)


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
    found = {str(path.relative_to(out)) for path in out.rglob("*")}
    if others := sorted(found - {RECORD, *files, *folders}):
        raise ArtifactError(f"{out} holds {others[0]}, which igvg {stage} did not make; choose another --out")
