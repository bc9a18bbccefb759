"""Predictions and shards in, the benchmark's numbers out."""

from __future__ import annotations

import csv
import json
import random
from pathlib import Path
from typing import Any

import pytest

from pipelines.config.settings import ScoreSettings
from pipelines.evaluation.evaluator import name_dataset
from pipelines.stages import score
from shards.errors import ArtifactError, DataError
from tests.support.drawn_shards import BOXES, HEIGHT, WIDTH, fill, predict_truth, write_lines, write_shards

Line = dict[str, Any]

VAL = ScoreSettings(split="val")


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 expressions of gRefCOCO about 3 pictures."""
    return write_shards(tmp_path_factory.mktemp("shards"))


def score_lines(folder: Path, shards: Path, lines: list[Line], **settings: Any) -> dict[str, Any]:
    file = write_lines(folder / "predictions.jsonl", lines)
    return score.run(file, shards, ScoreSettings(**{"split": "val", **settings})).report.to_json()


def change(lines: list[Line], position: int, **changes: Any) -> list[Line]:
    return [*lines[:position], lines[position] | changes, *lines[position + 1 :]]


# The document


def test_faultless_predictions_score_a_hundred(tmp_path: Path, shards: Path) -> None:
    document = score_lines(tmp_path, shards, predict_truth())
    assert set(document["metrics"].values()) == {100.0}


def test_the_document_says_what_was_scored(tmp_path: Path, shards: Path) -> None:
    document = score_lines(tmp_path, shards, predict_truth())
    assert document["intervals"].keys() == document["metrics"].keys()
    assert document["breakdown"]["kind"].keys() == {"empty", "single", "multiple"}
    several = ("metrics", "intervals", "breakdown")
    assert {key: value for key, value in document.items() if key not in several} == {
        "dataset": "grefcoco",
        "split": "val",
        "expressions": 12,
        "resolution": 0,
        "targets": {"empty": 3, "single": 6, "multiple": 3},
    }


def test_scores_are_those_of_the_masks_and_boxes(tmp_path: Path, shards: Path) -> None:
    # The second expression: 16 pixels are meant; 8 of them and 8 others are predicted. The first one is missed.
    wrong = change(predict_truth(), 1, mask=fill((2, 0, 6, 4)), boxes=[[2, 0, 6, 4]])
    document = score_lines(tmp_path, shards, change(wrong, 0, no_target=False))
    shared, union = 3 * (16 + 24 + 40) - 8, 3 * (16 + 24 + 40) + 8
    assert document["metrics"] == pytest.approx(
        {
            "gIoU": 100 * (10 + 8 / 24) / 12,
            "cIoU": 100 * shared / union,
            "Pr@0.7": 100 * 8 / 9,
            "Pr@0.8": 100 * 8 / 9,
            "Pr@0.9": 100 * 8 / 9,
            "N-acc": 100 * 2 / 3,
            "T-acc": 100,
            "F1score": 100 * 11 / 12,
            "F1score-gIoU": 100 * 11 / 12,
        }
    )


def test_the_target_of_several_instances_is_their_union(tmp_path: Path, shards: Path) -> None:
    one_of_two = change(predict_truth(), 3, mask=fill(BOXES[1]))
    document = score_lines(tmp_path, shards, one_of_two)
    assert document["metrics"]["gIoU"] == pytest.approx(100 * (11 + 24 / 40) / 12)


def test_the_order_of_predictions_does_not_matter(tmp_path: Path, shards: Path) -> None:
    lines = change(change(predict_truth(), 5, mask=fill()), 6, boxes=[])
    expected = score_lines(tmp_path, shards, lines)
    for seed in range(3):
        assert score_lines(tmp_path, shards, random.Random(seed).sample(lines, len(lines))) == expected


def test_a_folder_of_predictions_is_scored_by_its_file(tmp_path: Path, shards: Path) -> None:
    document = score_lines(tmp_path, shards, predict_truth())
    assert score.run(tmp_path, shards, VAL).report.to_json() == document


def test_a_data_set_gets_its_own_metrics(tmp_path: Path) -> None:
    shards = write_shards(tmp_path, "rrefcoco", 1)
    document = score_lines(tmp_path, shards, predict_truth("rrefcoco", 1))
    assert document["metrics"] == {"mIoU": 100, "oIoU": 100, "mRR": 100, "rIoU": 100}
    assert document["left_out"] == {"refs_without_positives": 0, "refs_without_negatives": 0}


# Ids


def test_the_first_missing_expressions_are_named_in_the_order_of_the_shards(tmp_path: Path, shards: Path) -> None:
    words = r"no prediction for grefcoco/1/1, grefcoco/1/3, grefcoco/2/0 and 2 more; predict every expression once"
    with pytest.raises(DataError, match=words):
        score_lines(tmp_path, shards, [line for n, line in enumerate(predict_truth()) if n not in (1, 3, 4, 5, 11)])


def test_an_empty_file_is_told_as_one(tmp_path: Path, shards: Path) -> None:
    with pytest.raises(DataError, match=r"predictions\.jsonl: is an empty file, not a prediction file; give a pred"):
        score_lines(tmp_path, shards, [])


@pytest.mark.parametrize("position", [0, 6, 12])
def test_an_unknown_expression_is_named_wherever_it_stands(tmp_path: Path, shards: Path, position: int) -> None:
    lines = predict_truth()
    lines.insert(position, lines[0] | {"id": "grefcoco/9/9"})
    with pytest.raises(DataError, match=r"predictions\.jsonl: grefcoco/9/9: not in split 'val'"):
        score_lines(tmp_path, shards, lines)


def test_of_many_unknown_expressions_the_first_are_named(tmp_path: Path, shards: Path) -> None:
    strangers = [predict_truth()[0] | {"id": f"x/{n}/0"} for n in range(5)]
    with pytest.raises(DataError, match=r"x/0/0, x/1/0, x/2/0 and 2 more: not in split 'val'"):
        score_lines(tmp_path, shards, strangers + predict_truth())


@pytest.mark.parametrize("twice", [0, 5, 11])
@pytest.mark.parametrize("position", [0, 6, 12])
def test_an_expression_given_twice_is_named_wherever_it_stands(
    tmp_path: Path, shards: Path, twice: int, position: int
) -> None:
    lines = predict_truth()
    line = lines[twice]
    lines.insert(position, line)
    with pytest.raises(DataError, match=f"{line['id']} is given twice; keep one of its lines"):
        score_lines(tmp_path, shards, lines)


def test_predictions_of_another_split_are_refused(tmp_path: Path, shards: Path) -> None:
    lines = [line | {"id": line["id"].replace("grefcoco", "refcoco")} for line in predict_truth()]
    with pytest.raises(DataError, match=r"not in split 'val' .*score against the split that was predicted"):
        score_lines(tmp_path, shards, lines)


def test_a_split_that_the_shards_do_not_hold_is_refused(tmp_path: Path, shards: Path) -> None:
    with pytest.raises(DataError, match="testA"):
        score_lines(tmp_path, shards, predict_truth(), split="testA")


def test_a_data_set_of_ones_own_has_the_metrics_of_grefcoco(tmp_path: Path, shards: Path) -> None:
    own = write_shards(tmp_path / "own", "mine", 1)
    report = score_lines(tmp_path, own, predict_truth("mine", 1))
    assert report["dataset"] == "mine"
    assert list(report["metrics"]) == list(score_lines(tmp_path, shards, predict_truth())["metrics"])


def test_expressions_of_two_data_sets_in_a_split_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"split 'val' holds a, b; scores are defined for the expressions of one"):
        name_dataset(["a/1/0", "b/1/0"], tmp_path, "val")


def test_shards_without_expressions_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"split 'val' holds no expressions; scores are defined for"):
        name_dataset([], tmp_path, "val")


@pytest.mark.parametrize("size", [[WIDTH, HEIGHT], [HEIGHT, WIDTH + 1], [4 * HEIGHT, 4 * WIDTH]])
def test_a_mask_of_another_size_is_refused(tmp_path: Path, shards: Path, size: list[int]) -> None:
    mask = {"size": size, "counts": [size[0] * size[1]]}
    words = rf"the mask of grefcoco/2/2 has size \[{size[0]}, {size[1]}\], its image \[8, 12\]"
    with pytest.raises(DataError, match=words):
        score_lines(tmp_path, shards, change(predict_truth(), 6, mask=mask))


def test_a_missing_file_is_named(tmp_path: Path, shards: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere: no such file or folder; check the path"):
        score.run(tmp_path / "nowhere", shards, VAL)
    with pytest.raises(DataError, match=r"nowhere: no such file; give a predictions\.jsonl"):
        score.run(tmp_path / "nowhere", shards, VAL, out=tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


# Resolution


def test_a_resolution_scales_both_masks_first(tmp_path: Path, shards: Path) -> None:
    # Columns 0, 3, 6, 9 and rows 0, 2, 4, 6 are kept: of [0, 4) × [0, 4) 2 × 2 pixels, of [0, 6) × [0, 6) 2 × 3.
    lines = change(predict_truth(), 1, mask=fill((0, 0, 6, 6)))
    document = score_lines(tmp_path, shards, lines, resolution=4)
    assert document["resolution"] == 4
    assert document["metrics"]["gIoU"] == pytest.approx(100 * (11 + 4 / 6) / 12)
    assert score_lines(tmp_path, shards, lines)["metrics"]["gIoU"] == pytest.approx(100 * (11 + 16 / 36) / 12)


def test_a_target_that_vanishes_at_the_resolution_scores_zero(tmp_path: Path, shards: Path) -> None:
    # Only the corner pixel is kept: [0, 4) × [0, 4) is all of it, [6, 10) × [2, 8) nothing.
    document = score_lines(tmp_path, shards, predict_truth(), resolution=1)
    assert document["metrics"]["gIoU"] == pytest.approx(100 * 9 / 12)
    assert document["metrics"]["cIoU"] == 100


def test_boxes_do_not_depend_on_the_resolution(tmp_path: Path, shards: Path) -> None:
    assert score_lines(tmp_path, shards, predict_truth(), resolution=1)["metrics"]["F1score"] == 100


# Kept scores


def list_times(folder: Path) -> dict[str, int]:
    return {file.name: file.stat().st_mtime_ns for file in folder.iterdir()}


def test_scores_are_kept_with_a_row_for_every_expression(tmp_path: Path, shards: Path) -> None:
    # Reversed: the rows stand in the order of the shards.
    file = write_lines(tmp_path / "p.jsonl", change(predict_truth(), 1, mask=fill((2, 0, 6, 4)))[::-1])
    result = score.run(file, shards, VAL, out=tmp_path / "out")
    assert not result.cached
    assert json.loads((tmp_path / "out" / "scores.json").read_text()) == result.report.to_json()
    with (tmp_path / "out" / "expressions.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["id"] for row in rows] == [line["id"] for line in predict_truth()]
    assert rows[1] == {
        "id": "grefcoco/1/1", "ref_id": "1", "targets": "1", "flagged": "0", "predicted_px": "16", "target_px": "16",
        "shared_px": "8", "boxes_match": "1", "boxes_match_giou": "1", "best_box_hits": "1",
        "image_id": "1", "picture_px": "96", "crowds": "0",
    }  # fmt: skip


def test_the_same_work_is_not_done_twice(tmp_path: Path, shards: Path) -> None:
    file = write_lines(tmp_path / "p.jsonl", predict_truth())
    first = score.run(file, shards, VAL, out=tmp_path / "out")
    before = list_times(tmp_path / "out")
    again = score.run(file, shards, VAL, out=tmp_path / "out")
    assert again.cached
    assert again.report.to_json() == first.report.to_json()
    assert list_times(tmp_path / "out") == before


@pytest.mark.parametrize("settings", [VAL, ScoreSettings(split="val", resolution=4)])
def test_scores_of_other_predictions_or_settings_are_not_replaced(
    tmp_path: Path, shards: Path, settings: ScoreSettings
) -> None:
    file = write_lines(tmp_path / "p.jsonl", predict_truth())
    score.run(file, shards, VAL, out=tmp_path / "out")
    before = list_times(tmp_path / "out")
    if settings == VAL:
        write_lines(file, change(predict_truth(), 1, boxes=[]))
    with pytest.raises(ArtifactError, match=r"finished score of other .*(predictions differs|resolution)"):
        score.run(file, shards, settings, out=tmp_path / "out")
    assert list_times(tmp_path / "out") == before


def test_force_replaces_the_scores_of_other_predictions(tmp_path: Path, shards: Path) -> None:
    file = write_lines(tmp_path / "p.jsonl", predict_truth())
    score.run(file, shards, VAL, out=tmp_path / "out")
    write_lines(file, change(predict_truth(), 1, boxes=[]))
    result = score.run(file, shards, VAL, out=tmp_path / "out", force=True)
    assert result.report.to_json()["metrics"]["F1score"] == pytest.approx(100 * 11 / 12)
    assert json.loads((tmp_path / "out" / "scores.json").read_text()) == result.report.to_json()


def test_a_folder_that_is_not_ours_is_not_touched(tmp_path: Path, shards: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").touch()
    file = write_lines(tmp_path / "p.jsonl", predict_truth())
    with pytest.raises(ArtifactError, match="holds files that igvg did not make"):
        score.run(file, shards, VAL, out=tmp_path / "out", force=True)
    assert list(list_times(tmp_path / "out")) == ["thesis.tex"]


def test_damaged_predictions_leave_no_folder(tmp_path: Path, shards: Path) -> None:
    file = write_lines(tmp_path / "p.jsonl", predict_truth()[1:])
    with pytest.raises(DataError, match="no prediction for grefcoco/1/0"):
        score.run(file, shards, VAL, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()
