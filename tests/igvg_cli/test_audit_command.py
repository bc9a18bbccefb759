"""`igvg audit` as a user runs it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.overlapping_sets import write_images
from tests.support.pipeline_runs import igvg, only_error


@pytest.fixture
def sets(tmp_path: Path) -> list[str]:
    first = write_images(tmp_path / "grefcoco", "train", {9: 9, 25: 25, 31: 25}, texts=[("left", (0,))])
    second = write_images(tmp_path / "refcoco", "val", {9: 9, 50: 50}, texts=[("left", (1,))])
    return ["--shards", str(first), "--shards", str(second)]


def test_tables_show_leaks_duplicates_and_contradictions_and_the_exit_status_is_0(sets: list[str]) -> None:
    result = igvg("audit", *sets)
    assert result.returncode == 0, result.stderr
    text = " ".join(result.stdout.replace("│", " ").split())
    assert "Training images in held-out splits" in text
    assert "grefcoco/train refcoco/val 1 1 50.0 % 1" in text
    assert "1 training images (1 expressions) are in a held-out split; igvg train --set exclude_held_out=true" in text
    assert "Images under several ids: 1" in text
    assert "grefcoco/train 25, grefcoco/train 31" in text
    assert "left 9 grefcoco/train grefcoco/9/0 (1), refcoco/val refcoco/9/0 (1)" in text


def test_json_is_one_document(sets: list[str]) -> None:
    result = igvg("audit", *sets, "--full", "--format", "json")
    assert result.returncode == 0, result.stderr
    document = json.loads(result.stdout)
    assert document["full"] is True
    assert (document["leaked_images"], document["leaked_expressions"]) == (1, 1)
    assert [leak["images"] for leak in document["leaks"]] == [1]
    assert document["duplicates"] == [{"records": [["grefcoco/train", 25], ["grefcoco/train", 31]]}]
    assert [each["text"] for each in document["contradictions"]] == ["left"]


def test_sets_without_leaks_are_said_to_have_none(sets: list[str]) -> None:
    result = igvg("audit", *sets[:2])
    assert result.returncode == 0
    assert "No training image is in a held-out split." in result.stdout


def test_sets_without_a_training_split_are_said_to_have_none(sets: list[str]) -> None:
    result = igvg("audit", *sets[2:])
    assert result.returncode == 0
    assert "No split is trained on; --train-split NAME says that one is." in result.stdout
    assert "No training image is in a held-out split." in igvg("audit", *sets[2:], "--train-split", "val").stdout


def test_a_folder_that_is_none_is_one_line(tmp_path: Path) -> None:
    assert "no such folder; make it with igvg prepare" in only_error(igvg("audit", "--shards", tmp_path / "none"))
    assert igvg("audit").returncode == 2
