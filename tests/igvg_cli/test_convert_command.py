"""igvg convert as a user meets it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from shards.masks import decode_mask
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


def test_own_images_become_the_files_that_predict_saves_and_need_no_shards(tmp_path: Path) -> None:
    Image.new("RGB", (60, 50), "red").save(tmp_path / "a.png")
    found = tmp_path / "found"
    words = ("--image", tmp_path / "a.png", "--text", "the red square", "--set", "postprocess.score_threshold=0.1")
    result = igvg("predict", "--checkpoint", "shapes", *words, "--save", "coco", "--out", found)
    assert result.returncode == 0, result.stderr
    result = igvg("convert", found, "--out", tmp_path / "coco")
    assert (result.returncode, result.stderr) == (0, "")
    saved = {file.name: file.read_bytes() for file in (found / "coco").iterdir()}
    written = {file.name: file.read_bytes() for file in (tmp_path / "coco").iterdir()}
    assert len(json.loads(saved["boxes.json"])) > 0
    assert {**saved, "artifact.json": written["artifact.json"]} == written


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


def test_coco_is_the_default_to_the_byte(tmp_path: Path, shards: Path, truth: Path) -> None:
    for name, words in (("plain", []), ("named", ["--to", "coco"])):
        assert convert(truth, "--out", tmp_path / name, *words, shards=shards).returncode == 0
    plain, named = (
        {file.name: file.read_bytes() for file in (tmp_path / name).iterdir()} for name in ("plain", "named")
    )
    assert plain == named


def test_labelme_s_files_come_back_and_score_the_same(tmp_path: Path, shards: Path, truth: Path) -> None:
    labels, back = tmp_path / "labels", tmp_path / "back.jsonl"
    result = convert(truth, "--to", "labelme", "--out", labels, shards=shards)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == f"{labels}: 3 images, 12 expressions, 12 polygons, 12 boxes\n"
    assert sorted(file.name for file in labels.iterdir()) == ["1.json", "2.json", "3.json", "artifact.json"]
    assert "is up to date" in convert(truth, "--to", "labelme", "--out", labels, shards=shards).stderr
    assert "to labelme → png" in only_error(convert(truth, "--to", "png", "--out", labels, shards=shards))
    result = convert(labels, "--from", "labelme", "--out", back, shards=shards)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == f"{back}: 12 expressions, 3 without a target\n"
    assert read_scores(back, shards) == read_scores(truth, shards)


def test_png_masks_are_those_of_the_predictions(tmp_path: Path, shards: Path, truth: Path) -> None:
    result = convert(truth, "--to", "png", "--out", tmp_path / "masks", shards=shards)
    assert result.stdout == f"{tmp_path / 'masks'}: 3 images, 12 masks\n"
    index = {entry["id"]: entry for entry in json.loads((tmp_path / "masks" / "index.json").read_text())}
    for line in predict_truth():
        pixels = np.asarray(Image.open(tmp_path / "masks" / index[line["id"]]["file"]))
        assert np.array_equal(pixels, 255 * decode_mask(line["mask"]))
        assert (index[line["id"]]["boxes"], index[line["id"]]["no_target"]) == (line["boxes"], not line["boxes"])


def test_a_split_that_is_not_there_leaves_nothing_behind(tmp_path: Path, shards: Path, truth: Path) -> None:
    for kind in ("coco", "labelme", "png"):
        out = tmp_path / "new" / kind
        only_error(igvg("convert", truth, "--to", kind, "--shards", shards, "--split", "none", "--out", out))
    assert not (tmp_path / "new").exists()


def test_predictions_on_own_images_need_no_shards(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name, size in (("b.png", (30, 20)), ("a.jpg", (24, 16))):
        Image.new("RGB", size, (200, 30, 30)).save(tmp_path / "in" / name)
    found = igvg("predict", "--checkpoint", "shapes", "--image", tmp_path / "in", "--text", "the red star",
                 "--text", "every circle", "--out", tmp_path / "found", "--set", "workers=0",
                 "--set", "postprocess.score_threshold=0.1")  # fmt: skip
    assert found.returncode == 0, found.stderr
    result = igvg("convert", tmp_path / "found", "--to", "labelme", "--out", tmp_path / "labels")
    assert result.returncode == 0, result.stderr
    document = json.loads((tmp_path / "labels" / "a.json").read_text())
    assert (document["imagePath"], document["imageWidth"], document["imageHeight"]) == ("a.jpg", 24, 16)
    assert [entry["text"] for entry in document["expressions"]] == ["the red star", "every circle"]
    result = igvg("convert", tmp_path / "labels", "--from", "labelme", "--out", tmp_path / "back.jsonl")
    assert result.returncode == 0, result.stderr
    before, after = ([json.loads(line) for line in file.read_text().splitlines()]
                     for file in (tmp_path / "found" / "predictions.jsonl", tmp_path / "back.jsonl"))  # fmt: skip
    assert after == before
    assert igvg("convert", tmp_path / "found", "--to", "png", "--out", tmp_path / "masks").returncode == 0
    assert len(list((tmp_path / "masks").glob("*.png"))) == 4


def test_without_shards_the_predictions_must_be_those_of_own_images(tmp_path: Path, shards: Path, truth: Path) -> None:
    error = only_error(igvg("convert", truth, "--to", "png", "--out", tmp_path / "masks"))
    assert error.endswith("run holds no predictions of own images; add the --shards and --split of its images")
    for words in (["--shards", shards], ["--split", "val"]):
        result = igvg("convert", truth, "--to", "png", "--out", tmp_path / "masks", *words)
        assert result.returncode == 2
    assert igvg("convert", truth, "--out", tmp_path / "coco").returncode == 2


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
        ["a.json", "--to", "labelme"],
        ["--to", "png"],
        ["--from", "labelme"],
        ["a", "--from", "labelme", "--to", "coco"],
        ["a", "--from", "labelme", "--score-threshold", "0.5"],
        ["a", "--from", "coco"],
    ],
)
def test_words_that_do_not_go_together_are_wrong_usage(tmp_path: Path, words: list[str]) -> None:
    assert convert(*words, "--out", tmp_path / "out", shards=tmp_path).returncode == 2
