"""igvg convert as a user meets it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from pycocotools.coco import COCO

from tests.support.drawn_shards import predict_truth, write_lines, write_shards
from tests.support.pipeline_runs import igvg, only_error, snapshot


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    return write_shards(tmp_path / "drawn")


@pytest.fixture
def truth(tmp_path: Path) -> Path:
    (tmp_path / "run").mkdir()
    return write_lines(tmp_path / "run" / "predictions.jsonl", predict_truth())


def convert(*arguments: str | Path, shards: Path) -> subprocess.CompletedProcess[str]:
    return igvg("convert", *arguments, "--shards", shards, "--split", "val")


def read_scores(predictions: Path, shards: Path) -> dict[str, Any]:
    result = igvg("score", predictions, "--shards", shards, "--split", "val", "--format", "json")
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)["metrics"]


def test_a_folder_becomes_coco_files_and_coco_results_become_predictions(
    tmp_path: Path, shards: Path, truth: Path
) -> None:
    coco, back = tmp_path / "coco", tmp_path / "back.jsonl"
    result = convert(truth.parent, "--out", coco, shards=shards)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == f"{coco}: 12 expressions, 12 targets, 12 boxes, 9 segmentations\n"
    assert sorted(file.name for file in coco.iterdir()) == [
        "annotations.json", "artifact.json", "boxes.json", "segmentations.json",
    ]  # fmt: skip
    for name in ("boxes.json", "segmentations.json"):
        assert COCO(str(coco / "annotations.json")).loadRes(str(coco / name)).anns
    result = convert(coco / "boxes.json", coco / "segmentations.json", "--out", back, shards=shards)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == f"{back}: 12 expressions, 3 without a target\n"
    assert read_scores(back, shards) == read_scores(truth, shards)


def test_without_predictions_the_annotations_alone_are_written(tmp_path: Path, shards: Path, truth: Path) -> None:
    coco, alone = tmp_path / "coco", tmp_path / "alone"
    result = convert("--out", alone, shards=shards)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == f"{alone}: 12 expressions, 12 targets\n"
    assert sorted(file.name for file in alone.iterdir()) == ["annotations.json", "artifact.json"]
    assert convert(truth, "--out", coco, shards=shards).returncode == 0
    assert (alone / "annotations.json").read_bytes() == (coco / "annotations.json").read_bytes()
    assert "is up to date" in convert("--out", alone, shards=shards).stderr
    assert "--force" in only_error(convert(truth, "--out", alone, shards=shards))


def test_finished_work_is_recognized_and_other_work_left_alone(tmp_path: Path, shards: Path, truth: Path) -> None:
    assert convert(truth, "--out", tmp_path / "coco", shards=shards).returncode == 0
    before = snapshot(tmp_path / "coco")
    assert "is up to date" in convert(truth, "--out", tmp_path / "coco", shards=shards).stderr
    other = write_lines(tmp_path / "other.jsonl", [line | {"boxes": []} for line in predict_truth()])
    assert "--force" in only_error(convert(other, "--out", tmp_path / "coco", shards=shards))
    assert snapshot(tmp_path / "coco") == before
    assert convert(other, "--out", tmp_path / "coco", "--force", shards=shards).returncode == 0
    assert json.loads((tmp_path / "coco" / "boxes.json").read_text()) == []


def test_a_threshold_and_annotations_elsewhere_are_taken(tmp_path: Path, shards: Path, truth: Path) -> None:
    assert convert(truth, "--out", tmp_path / "coco", shards=shards).returncode == 0
    results, back = tmp_path / "results.json", tmp_path / "back.jsonl"
    results.write_text(json.dumps([{"image_id": 4, "bbox": [0, 0, 4, 4], "score": score} for score in (0.9, 0.2, 0.6)]))
    missing = only_error(convert(results, "--out", back, shards=shards))
    assert str(tmp_path / "annotations.json") in missing
    result = convert(
        results, "--annotations", tmp_path / "coco" / "annotations.json", "--score-threshold", "0.5", "--out", back,
        shards=shards,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert json.loads(back.read_text().splitlines()[3])["scores"] == [0.9, 0.6]


def test_a_bad_entry_is_one_line_of_error_and_nothing_is_written(tmp_path: Path, shards: Path, truth: Path) -> None:
    assert convert(truth, "--out", tmp_path / "coco", shards=shards).returncode == 0
    boxes = tmp_path / "coco" / "boxes.json"
    boxes.write_text('[{"image_id": 4, "bbox": [0, 0, 4, 4], "score": 1},\n{"image_id": 40, "bbox": [0, 0, 4, 4]}]')
    error = only_error(convert(boxes, "--out", tmp_path / "back.jsonl", shards=shards))
    assert f"{boxes}, entry 2: image 40 is not among the images of the annotations" in error
    assert not (tmp_path / "back.jsonl").exists()


@pytest.mark.parametrize("name", ["nowhere.jsonl", "nowhere", "nowhere.json"])
def test_an_input_that_is_missing_is_named(tmp_path: Path, shards: Path, truth: Path, name: str) -> None:
    assert convert(truth, "--out", tmp_path / "coco", shards=shards).returncode == 0
    result = convert(tmp_path / "coco" / name, "--out", tmp_path / "out", shards=shards)
    assert str(tmp_path / "coco" / name) in only_error(result)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "words",
    [
        ["a.jsonl", "b.jsonl"],
        ["a.jsonl", "b.json"],
        ["a.jsonl", "--annotations", "annotations.json"],
        ["a.jsonl", "--score-threshold", "0.5"],
        ["a.json", "--score-threshold", "nan"],
    ],
)
def test_words_that_do_not_go_together_are_wrong_usage(tmp_path: Path, words: list[str]) -> None:
    assert convert(*words, "--out", tmp_path / "out", shards=tmp_path).returncode == 2
