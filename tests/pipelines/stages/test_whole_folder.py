"""Folders that are written beside their place: what killed processes left there, and what `--force` meets."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from pipelines.stages.artifact import Stage, StageResult
from pipelines.stages.whole_folder import continue_folder, write_folder
from shards.errors import DataError


def make_stage(folder: Path, **options: object) -> Stage:
    return Stage(name="convert", out=folder, inputs={}, options=options)


def write(folder: Path) -> dict[str, int]:
    folder.mkdir(exist_ok=True)
    (folder / "file").write_text("whole")
    return {"files": 1}


def refuse(folder: Path) -> dict[str, int]:
    raise AssertionError(folder)


def list_names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


WHOLE = ["out", "out/artifact.json", "out/file"]


@pytest.mark.parametrize("write_stage", [write_folder, continue_folder])
@pytest.mark.parametrize("suffix", ["tmp", "old"])
def test_what_a_killed_process_with_the_id_of_this_one_left_is_removed(
    write_stage: Callable[[Stage, Callable[[Path], dict[str, int]]], StageResult[None]], suffix: str, tmp_path: Path
) -> None:
    left = tmp_path / f".out.{os.getpid()}.{suffix}"
    left.mkdir()
    (left / "stale").write_text("stale")
    write_stage(make_stage(tmp_path / "out"), write)
    assert list_names(tmp_path) == WHOLE


def test_a_process_killed_between_its_two_renames_is_completed_without_its_work(tmp_path: Path) -> None:
    stage = make_stage(tmp_path / "out", seed=2)
    working = replace(stage, out=tmp_path / ".out.working")
    working.start()
    working.finish(write(working.folder))
    (tmp_path / ".out.12.old").mkdir()
    result = continue_folder(stage, refuse)
    assert (result.cached, result.folder) == (False, tmp_path / "out")
    assert list_names(tmp_path) == WHOLE
    assert stage.find()


def test_finished_work_of_other_settings_beside_the_folder_is_made_again(tmp_path: Path) -> None:
    working = make_stage(tmp_path / ".out.working", seed=1)
    working.start()
    (working.folder / "other").write_text("other")
    working.finish({})
    continue_folder(make_stage(tmp_path / "out", seed=2), write)
    assert list_names(tmp_path) == WHOLE


def test_bad_data_leaves_nothing_beside_the_folder(tmp_path: Path) -> None:
    def fail(folder: Path) -> dict[str, int]:
        write(folder)
        raise DataError("is damaged", file=folder)

    with pytest.raises(DataError, match="is damaged"):
        continue_folder(make_stage(tmp_path / "out"), fail)
    assert not list(tmp_path.iterdir())
