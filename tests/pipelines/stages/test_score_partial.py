"""Predictions of models that give boxes alone, or masks alone: what is not predicted is not measured."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from pipelines.config.settings import ScoreSettings
from pipelines.prediction.coco_import import CocoResults
from pipelines.stages import compare, convert, score
from shards.errors import DataError
from shards.progress import set_sink
from tests.support.drawn_shards import BOXES, fill, predict_truth, write_lines, write_shards

Line = dict[str, Any]
VAL = ScoreSettings(split="val", bootstrap=50)
BOX_METRICS = {"F1score", "F1score-gIoU", "Acc@0.5"}
NO_TARGET_METRICS = {"N-acc", "T-acc", "Acc", "mRR"}


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shards(tmp_path_factory.mktemp("shards"))


def leave_out(key: str, lines: list[Line]) -> list[Line]:
    return [{name: value for name, value in line.items() if name != key} for line in lines]


def make_wrong() -> list[Line]:
    """Predictions of gRefCOCO that miss a target, find half of another and find something for an empty one."""
    lines = predict_truth()
    lines[0] |= {"boxes": [[0, 0, 4, 4]], "mask": fill(BOXES[0])}
    lines[2] |= {"boxes": [], "mask": fill()}
    lines[5] |= {"boxes": [[0, 0, 2, 4]], "mask": fill((0, 0, 2, 4))}
    return lines


@pytest.mark.parametrize("key", ["boxes", "mask"])
@pytest.mark.parametrize("dataset", ["grefcoco", "ref-zom", "rrefcoco", "refcoco"])
def test_metrics_of_what_is_left_out_are_null_and_all_others_are_as_with_it(
    tmp_path: Path, dataset: str, key: str
) -> None:
    shards, lines = write_shards(tmp_path, dataset), predict_truth(dataset)
    lines[3] |= {"boxes": [[0, 0, 4, 4]], "mask": fill(BOXES[0])}
    whole, part = (
        score.run(write_lines(tmp_path / f"{name}.jsonl", chosen), shards, VAL).report.to_json()
        for name, chosen in (("whole", lines), ("part", leave_out(key, lines)))
    )
    for name, value in part["metrics"].items():
        measured = name in NO_TARGET_METRICS or (name in BOX_METRICS) == (key == "mask")
        assert value == (whole["metrics"][name] if measured else None), name
        assert part["intervals"][name] == (whole["intervals"][name] if measured else None), name
        for axis, choices in part["breakdown"].items():
            for choice, found in choices.items():
                expected = whole["breakdown"][axis][choice]["metrics"][name]
                assert found["metrics"][name] == (expected if measured else None), (axis, choice, name)


def test_boxes_alone_are_scored_by_hand_computed_values(tmp_path: Path, shards: Path) -> None:
    file = write_lines(tmp_path / "p.jsonl", leave_out("mask", make_wrong()))
    document = score.run(file, shards, VAL).report.to_json()
    # Wrong are expressions 0 and 2; the box of expression 5 has IoU 0.5, which matches.
    assert document["metrics"] == pytest.approx(
        {
            "gIoU": None, "cIoU": None, "Pr@0.7": None, "Pr@0.8": None, "Pr@0.9": None, "N-acc": 100 * 2 / 3,
            "T-acc": 100 * 8 / 9, "F1score": 100 * 10 / 12, "F1score-gIoU": 100 * 10 / 12,
        }
    )  # fmt: skip
    assert document["not_predicted"] == "masks"


def test_masks_alone_are_scored_by_hand_computed_values(tmp_path: Path, shards: Path) -> None:
    file = write_lines(tmp_path / "p.jsonl", leave_out("boxes", make_wrong()))
    document = score.run(file, shards, VAL).report.to_json()
    assert document["metrics"] == pytest.approx(
        {
            "gIoU": 100 * (9 + 8 / 16) / 12, "cIoU": 100 * (240 - 24 - 8) / (240 + 16), "Pr@0.7": 100 * 7 / 9,
            "Pr@0.8": 100 * 7 / 9, "Pr@0.9": 100 * 7 / 9, "N-acc": 100 * 2 / 3, "T-acc": 100 * 8 / 9, "F1score": None,
            "F1score-gIoU": None,
        }
    )  # fmt: skip
    assert document["not_predicted"] == "boxes"


@pytest.mark.parametrize("key", ["boxes", "mask"])
def test_one_line_that_lacks_what_the_others_have_is_an_error(tmp_path: Path, shards: Path, key: str) -> None:
    lines = predict_truth()
    del lines[6][key]
    with pytest.raises(DataError, match=rf"p\.jsonl, line 7: has no '{key}', but line 1 has"):
        score.run(write_lines(tmp_path / "p.jsonl", lines), shards, VAL)


@pytest.mark.parametrize(
    ("key", "blank"),
    [
        ("boxes", {"boxes_match", "boxes_match_giou", "best_box_hits"}),
        ("mask", {"predicted_px", "shared_px"}),
    ],
)
def test_the_table_of_expressions_leaves_cells_empty_where_nothing_was_predicted(
    tmp_path: Path, shards: Path, key: str, blank: set[str]
) -> None:
    file = write_lines(tmp_path / "p.jsonl", leave_out(key, predict_truth()))
    score.run(file, shards, VAL, out=tmp_path / "out")
    with (tmp_path / "out" / "expressions.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert all({name for name, value in row.items() if value == ""} == blank for row in rows)
    assert score.run(file, shards, VAL, out=tmp_path / "out").cached


@pytest.mark.parametrize(("key", "metric"), [("boxes", "F1score"), ("mask", "gIoU")])
def test_a_comparison_leaves_out_what_one_side_does_not_predict(
    tmp_path: Path, shards: Path, key: str, metric: str
) -> None:
    whole = write_lines(tmp_path / "whole.jsonl", predict_truth())
    part = write_lines(tmp_path / "part.jsonl", leave_out(key, make_wrong()))
    document = compare.run(whole, part, shards, VAL).report.to_json()
    assert (document["differences"][metric], document["intervals"][metric]) == (None, None)
    assert document["differences"]["N-acc"] == pytest.approx(-100 / 3)
    # Box by box half of a target is still found; pixel by pixel it is not all of it.
    wrong = {"grefcoco/1/0", "grefcoco/1/2"} | ({"grefcoco/2/1"} if key == "boxes" else set())
    assert {row["id"] for row in document["differing"]} == wrong


def test_sides_that_have_nothing_but_flags_in_common_are_compared_by_these(tmp_path: Path, shards: Path) -> None:
    boxes = write_lines(tmp_path / "boxes.jsonl", leave_out("mask", predict_truth()))
    masks = write_lines(tmp_path / "masks.jsonl", leave_out("boxes", make_wrong()))
    document = compare.run(boxes, masks, shards, VAL).report.to_json()
    assert {name for name, value in document["differences"].items() if value is not None} == {"N-acc", "T-acc"}
    assert {row["id"] for row in document["differing"]} == {"grefcoco/1/0", "grefcoco/1/2"}


@pytest.mark.parametrize(
    ("key", "files"), [("boxes", ["segmentations.json"]), ("mask", ["boxes.json"])], ids=["masks", "boxes"]
)
def test_coco_files_hold_what_is_predicted_and_give_it_back(
    tmp_path: Path, shards: Path, key: str, files: list[str]
) -> None:
    lines = leave_out(key, make_wrong())
    lines[3]["no_target"] = True
    file, coco = write_lines(tmp_path / "p.jsonl", lines), tmp_path / "coco"
    result = convert.export_predictions(file, shards, "val", coco)
    assert sorted(path.name for path in coco.iterdir()) == ["annotations.json", "artifact.json", *files]
    assert list(result.counts) == ["expressions", "targets", files[0].removesuffix(".json")]
    results = CocoResults(files=[coco / files[0]], annotations=coco / "annotations.json")
    convert.import_results(results, shards, "val", tmp_path / "back.jsonl")
    assert all(key not in json.loads(line) for line in (tmp_path / "back.jsonl").read_text().splitlines())
    before, after = (score.run(tmp_path / name, shards, VAL).report.to_json() for name in ("p.jsonl", "back.jsonl"))
    assert after == before


# Boxes that look normalized


def divide_boxes(lines: list[Line]) -> list[Line]:
    return [
        line | {"boxes": [[box[0] / 12, box[1] / 8, box[2] / 12, box[3] / 8] for box in line["boxes"]]}
        for line in lines
    ]


def test_boxes_that_all_lie_within_one_are_scored_with_a_warning_each_time(tmp_path: Path, shards: Path) -> None:
    file = write_lines(tmp_path / "p.jsonl", divide_boxes(predict_truth()))
    for out in (None, tmp_path / "out", tmp_path / "out"):
        lines: list[str] = []
        with set_sink(log=lines.append):
            result = score.run(file, shards, VAL, out=out)
        (warning,) = lines
        assert f"{file}: all 12 boxes lie within 0 to 1, so they look normalized; boxes are x0, y0, x1, y1" in warning
        assert result.report.to_json()["metrics"]["F1score"] == 25


@pytest.mark.parametrize(
    "lines",
    [
        predict_truth(),
        leave_out("boxes", predict_truth()),
        [line | {"boxes": []} for line in predict_truth()],
        [line | {"boxes": [[0, 0, 0, 0]]} for line in predict_truth()],
        [*divide_boxes(predict_truth()[:-1]), predict_truth()[-1]],
    ],
    ids=["pixels", "no boxes given", "no box found", "boxes of zeros", "one in pixels"],
)
def test_other_boxes_raise_no_warning(tmp_path: Path, shards: Path, lines: list[Line]) -> None:
    warnings: list[str] = []
    with set_sink(log=warnings.append):
        score.run(write_lines(tmp_path / "p.jsonl", lines), shards, VAL)
    assert warnings == []


def test_a_comparison_and_a_conversion_warn_too(tmp_path: Path, shards: Path) -> None:
    file = write_lines(tmp_path / "p.jsonl", divide_boxes(predict_truth()))
    other = write_lines(tmp_path / "q.jsonl", predict_truth())
    for work in (
        lambda: compare.run(other, file, shards, VAL),
        lambda: convert.export_predictions(file, shards, "val", tmp_path / "coco"),
    ):
        warnings: list[str] = []
        with set_sink(log=warnings.append):
            work()
        assert len(warnings) == 1
        assert "p.jsonl: all 12 boxes" in warnings[0]


def test_swapped_sides_of_a_mask_are_named_as_such(tmp_path: Path, shards: Path) -> None:
    lines = predict_truth()
    lines[4] |= {"mask": {"size": [12, 8], "counts": [96]}}
    words = r"the mask of grefcoco/2/0 has size \[12, 8\], its image \[8, 12\]: height and width are swapped; write"
    with pytest.raises(DataError, match=words):
        score.run(write_lines(tmp_path / "p.jsonl", lines), shards, VAL)
