"""Two sets of predictions side by side: differences, how sure they are, and where they lie."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipelines.config.settings import ScoreSettings
from pipelines.stages import compare, score
from shards.errors import DataError
from tests.support.drawn_shards import fill, predict_truth, write_lines, write_shards

VAL = ScoreSettings(split="val", bootstrap=200)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 expressions of gRefCOCO about 10 pictures."""
    return write_shards(tmp_path_factory.mktemp("shards"), images=10)


@pytest.fixture
def truth(tmp_path: Path) -> Path:
    return write_lines(tmp_path / "truth.jsonl", predict_truth(images=10))


@pytest.fixture
def worse(tmp_path: Path) -> Path:
    """Half of every third picture's target `1` is missed, and one empty target is not flagged."""
    lines = predict_truth(images=10)
    for number in range(0, 10, 3):
        lines[4 * number + 1] |= {"mask": fill((0, 0, 4, 2))}
    lines[8] |= {"no_target": False}
    return write_lines(tmp_path / "worse.jsonl", lines)


def test_a_difference_is_what_the_second_scores_more_than_the_first(shards: Path, truth: Path, worse: Path) -> None:
    document = compare.run(truth, worse, shards, VAL).report.to_json()
    first, second = (score.run(file, shards, VAL).report.to_json()["metrics"] for file in (truth, worse))
    assert (document["a"]["metrics"], document["b"]["metrics"]) == (first, second)
    assert document["differences"] == {name: second[name] - first[name] for name in first}
    assert document["differences"]["gIoU"] == pytest.approx(-100 * (4 * 0.5 + 1) / 40)


def test_swapped_sides_change_the_sign_alone(shards: Path, truth: Path, worse: Path) -> None:
    one = compare.run(truth, worse, shards, VAL).report.to_json()
    other = compare.run(worse, truth, shards, VAL).report.to_json()
    for name, (low, high) in one["intervals"].items():
        assert other["intervals"][name] == pytest.approx([-high, -low])
        assert low <= one["differences"][name] <= high
    low, high = one["intervals"]["gIoU"]
    assert low < high <= 0
    assert [other["expressions_better_in"][side] for side in "ab"] == [0, 5]


def test_the_expressions_that_differ_most_come_first(shards: Path, truth: Path, worse: Path) -> None:
    document = compare.run(truth, worse, shards, VAL, most=3).report.to_json()
    assert document["differing"] == [
        {"id": "grefcoco/3/0", "text": "phrase 0", "a": 1.0, "b": 0.0},
        {"id": "grefcoco/1/1", "text": "phrase 1", "a": 1.0, "b": 0.5},
        {"id": "grefcoco/4/1", "text": "phrase 1", "a": 1.0, "b": 0.5},
    ]
    assert document["expressions_better_in"] == {"a": 5, "b": 0, "neither": 35}


def test_the_same_predictions_do_not_differ_in_any_draw(shards: Path, worse: Path) -> None:
    document = compare.run(worse, worse, shards, VAL).report.to_json()
    assert set(document["differences"].values()) == {0.0}
    assert list(document["intervals"].values()) == [[0.0, 0.0]] * len(document["intervals"])
    assert document["differing"] == []


def test_pairs_are_surer_than_two_scores_on_their_own(tmp_path: Path, shards: Path) -> None:
    # Every other picture is missed by both; the second side misses one expression more in every picture.
    first, second = predict_truth(images=10), predict_truth(images=10)
    for lines in (first, second):
        for number in range(0, 10, 2):
            lines[4 * number + 3] |= {"mask": fill()}
    for number in range(10):
        second[4 * number + 2] |= {"mask": fill()}
    sides = [write_lines(tmp_path / name, lines) for name, lines in (("a.jsonl", first), ("b.jsonl", second))]
    low, high = compare.run(*sides, shards, VAL).report.to_json()["intervals"]["gIoU"]
    alone = score.run(sides[0], shards, VAL).report.to_json()["intervals"]["gIoU"]
    assert high - low == pytest.approx(0)
    assert alone[1] - alone[0] > 5


@pytest.mark.parametrize("dataset", ["ref-zom", "refcoco", "rrefcoco"])
def test_where_flags_do_not_enter_a_target_goes_by_its_mask(tmp_path: Path, dataset: str) -> None:
    shards = write_shards(tmp_path, dataset)
    lines: list[dict[str, Any]] = predict_truth(dataset)
    truth = write_lines(tmp_path / "truth.jsonl", lines)
    predicted_empty = write_lines(tmp_path / "flagged.jsonl", [lines[0], lines[1] | {"no_target": True}, *lines[2:]])
    assert compare.run(truth, predicted_empty, shards, VAL).report.to_json()["differing"] == []


@pytest.mark.parametrize("dataset", ["grefcoco", "ref-zom", "rrefcoco"])
def test_an_empty_target_scores_by_its_flag(tmp_path: Path, dataset: str) -> None:
    shards = write_shards(tmp_path, dataset)
    lines: list[dict[str, Any]] = predict_truth(dataset)
    truth = write_lines(tmp_path / "truth.jsonl", lines)
    found = write_lines(tmp_path / "found.jsonl", [lines[0] | {"no_target": False}, *lines[1:]])
    assert compare.run(truth, found, shards, VAL).report.to_json()["differing"] == [
        {"id": f"{dataset}/1/0", "text": "phrase 0", "a": 1.0, "b": 0.0}
    ]


@pytest.mark.parametrize("dataset", ["grefcoco", "ref-zom"])
def test_without_masks_an_empty_target_scores_by_its_flag_and_another_by_its_boxes(
    tmp_path: Path, dataset: str
) -> None:
    shards = write_shards(tmp_path, dataset)
    lines: list[dict[str, Any]] = [
        {key: value for key, value in line.items() if key != "mask"} | {"no_target": not line["boxes"]}
        for line in predict_truth(dataset)
    ]
    truth = write_lines(tmp_path / "truth.jsonl", lines)
    missed = lines[1] | {"boxes": [[0, 0, 1, 1]]}
    worse = write_lines(tmp_path / "worse.jsonl", [lines[0] | {"no_target": False}, missed, *lines[2:]])
    assert compare.run(truth, worse, shards, VAL).report.to_json()["differing"] == [
        {"id": f"{dataset}/1/0", "text": "phrase 0", "a": 1.0, "b": 0.0},
        {"id": f"{dataset}/1/1", "text": "phrase 1", "a": 1.0, "b": 0.0},
    ]


def test_predictions_of_another_split_are_refused(tmp_path: Path, shards: Path, truth: Path) -> None:
    short = write_lines(tmp_path / "short.jsonl", predict_truth(images=9))
    with pytest.raises(DataError, match=r"no prediction for grefcoco/10/0.*short\.jsonl|short\.jsonl.*grefcoco/10/0"):
        compare.run(truth, short, shards, VAL)
