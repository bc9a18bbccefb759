"""Files and folders of an artifact that say nothing themselves are described by their record."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipelines.inspection.inspection import inspect_path
from pipelines.stages.artifact import Stage
from shards.errors import DataError, IGVGError


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    stage = Stage(name="score", out=tmp_path / "scores", inputs={}, options={})
    stage.start()
    (tmp_path / "scores" / "expressions.csv").write_text("id,iou\n")
    (tmp_path / "scores" / "pages" / "old").mkdir(parents=True)
    (tmp_path / "scores" / "pages" / "old" / "index.html").write_text("<!doctype html><html></html>")
    stage.finish({})
    return tmp_path / "scores"


@pytest.mark.parametrize("name", ["expressions.csv", "pages/old/index.html", "pages", "pages/old"])
def test_a_part_is_described_by_its_artifact(artifact: Path, name: str) -> None:
    found = inspect_path(artifact / name)
    assert (found.kind, found.what) == ("part of an artifact", "part of scores (igvg score)")
    assert found.facts["artifact"] == str(artifact)
    assert found.files == 1


def test_a_damaged_or_foreign_file_is_no_part(artifact: Path) -> None:
    (artifact / "expressions.csv").write_text("id,iox\n")
    (artifact / "other").mkdir()
    for name in ("expressions.csv", "other"):
        with pytest.raises(IGVGError):
            inspect_path(artifact / name)


def test_the_index_of_cutouts_says_how_many_there_are(tmp_path: Path) -> None:
    entry = {"id": "a.png/0", "image": "a.png", "text": "a dog", "file": None, "crop": None}
    cut = entry | {"id": "a.png/1", "file": "a.png-1.png", "crop": [0, 0, 1, 1]}
    (tmp_path / "index.json").write_text(json.dumps([entry, cut]))
    found = inspect_path(tmp_path / "index.json")
    assert (found.kind, found.facts) == ("index of cut-outs", {"expressions": 2, "cut-outs": 1})


def test_pairs_are_described_and_their_lines_checked(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    (tmp_path / "pairs.csv").write_text("\ufefftext, image,more\na dog,a.png,1\na cat,a.png,2\n", encoding="utf-8")
    (tmp_path / "pairs.jsonl").write_text('{"image": "a.png", "text": "a dog"}\n{"image": "gone.png", "text": "a"}\n')
    found = inspect_path(tmp_path / "pairs.csv")
    assert (found.kind, found.facts) == ("pairs", {"images": 1, "pairs": 2, "different texts": 2})
    with pytest.raises(DataError, match=r"1 of 2 pairs cannot be used: line 2: .*gone.png is no file"):
        inspect_path(tmp_path / "pairs.jsonl")
