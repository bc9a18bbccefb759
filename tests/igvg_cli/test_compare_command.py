"""igvg compare as a user meets it."""

from __future__ import annotations

import json
from pathlib import Path

from pipelines.config.settings import ScoreSettings
from pipelines.stages import score
from tests.support.drawn_shards import fill, predict_truth, write_lines, write_shards
from tests.support.pipeline_runs import igvg, only_error


def test_the_table_shows_both_scores_the_difference_and_its_interval(tmp_path: Path) -> None:
    shards, lines = write_shards(tmp_path), predict_truth()
    truth = write_lines(tmp_path / "truth.jsonl", lines)
    lines[1] |= {"mask": fill((2, 0, 6, 4))}
    result = igvg("compare", truth, write_lines(tmp_path / "b.jsonl", lines), "--shards", shards, "--split", "val")
    assert (result.returncode, result.stderr) == (0, "")
    row = next(line for line in result.stdout.splitlines() if "gIoU" in line)
    cells = [cell.strip() for cell in row.strip("│").split("│")]
    assert cells[:4] == ["gIoU", "100.00", "94.44", "-5.56"]
    assert cells[4].startswith("-16.67 to ")
    assert "12 expressions: A better on 1, B on 0, neither on 11" in result.stdout
    assert "grefcoco/1/1" in result.stdout


def test_json_is_one_document_and_nothing_else(tmp_path: Path) -> None:
    shards, truth = write_shards(tmp_path), write_lines(tmp_path / "truth.jsonl", predict_truth())
    result = igvg("compare", truth, truth, "--shards", shards, "--split", "val", "--format", "json")
    assert (result.returncode, result.stderr) == (0, "")
    document = json.loads(result.stdout)
    assert set(document["differences"].values()) == {0.0}
    assert document["intervals"].keys() == document["differences"].keys()


def test_options_reach_the_scoring_of_both_sides(tmp_path: Path) -> None:
    shards, lines = write_shards(tmp_path), predict_truth()
    truth = write_lines(tmp_path / "truth.jsonl", lines)
    lines[1] |= {"mask": fill((0, 0, 3, 4))}
    worse = write_lines(tmp_path / "worse.jsonl", lines)
    result = igvg("compare", truth, worse, "--shards", shards, "--split", "val", "--resolution", "3",
                  "--bootstrap", "0", "--most", "0", "--format", "json")  # fmt: skip
    document = json.loads(result.stdout)
    assert (document["resolution"], document["differing"]) == (3, [])
    assert "intervals" not in document
    for side, file in (("a", truth), ("b", worse)):
        plain, square = (
            score.run(file, shards, ScoreSettings(split="val", resolution=resolution)).report.to_json()["metrics"]
            for resolution in (0, 3)
        )
        assert document[side]["metrics"] == square
        assert (square == plain) is (side == "a")


def test_a_damaged_side_is_named(tmp_path: Path) -> None:
    shards, truth = write_shards(tmp_path), write_lines(tmp_path / "truth.jsonl", predict_truth())
    broken = tmp_path / "broken.jsonl"
    broken.write_text(truth.read_text() + "{")
    error = only_error(igvg("compare", truth, broken, "--shards", shards, "--split", "val"))
    assert "broken.jsonl" in error
    assert "line 13" in error
