"""`igvg verify` as a user runs it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.support.pipeline_runs import igvg, only_error, snapshot


def test_sound_folders_are_said_to_be_sound(pipeline: Path) -> None:
    before = snapshot(pipeline / "found")
    result = igvg("verify", pipeline / "found", "--full")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith(f"{pipeline / 'found'}: sound (1 × predict; 4 files, ")
    assert snapshot(pipeline / "found") == before


@pytest.mark.parametrize("full", [(), ("--full",)])
def test_findings_are_listed_and_end_in_one_error(pipeline: Path, tmp_path: Path, full: tuple[str, ...]) -> None:
    folder = Path(shutil.copytree(pipeline / "found", tmp_path / "found"))
    (folder / "predictions.jsonl").unlink()
    (folder / "extra.txt").write_text("x")
    result = igvg("verify", folder, *full)
    assert result.stdout.splitlines() == [
        "extra.txt: is not part of the artifact", "predictions.jsonl: is missing",
    ]  # fmt: skip
    error = only_error(result)
    assert f"{folder} is damaged: 2 findings in 2 files, the first extra.txt: is not part of the artifact" in error


def test_the_first_ten_findings_are_shown_and_all_are_in_json(pipeline: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(pipeline / "scores", tmp_path / "scores"))
    for number in range(14):
        (folder / f"extra-{number:02}").write_text("")
    lines = igvg("verify", folder).stdout.splitlines()
    assert lines[9:] == ["extra-09: is not part of the artifact", "and 4 more; --format json lists all"]
    result = igvg("verify", folder, "--format", "json")
    only_error(result)
    document = json.loads(result.stdout)
    assert document["sound"] is False
    assert [one["file"] for one in document["findings"]] == [f"extra-{number:02}" for number in range(14)]


def test_names_with_line_breaks_and_escapes_stay_on_their_line(pipeline: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(pipeline / "scores", tmp_path / "scores"))
    (folder / "a\n\x1b[31mb").write_text("")
    assert igvg("verify", folder).stdout.splitlines() == ["a\\n\\x1b[31mb: is not part of the artifact"]


def test_json_of_a_sound_folder_is_one_document(pipeline: Path) -> None:
    result = igvg("verify", pipeline / "shards", "--full", "--format", "json")
    assert result.returncode == 0
    document = json.loads(result.stdout)
    assert (document["sound"], document["full"], document["findings"]) == (True, True, [])
    assert document["units"] == {"prepare": 1}
    assert document["records"] == 10


def test_what_is_no_folder_of_igvg_is_one_line(tmp_path: Path) -> None:
    assert "no such folder; give a folder that igvg made" in only_error(igvg("verify", tmp_path / "none"))
    assert "expected artifact.json, or shards" in only_error(igvg("verify", tmp_path))
