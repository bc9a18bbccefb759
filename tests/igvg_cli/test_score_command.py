"""igvg score as a user meets it: real processes on shards of drawn masks."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support.drawn_shards import fill, predict_truth, write_lines, write_shards
from tests.support.pipeline_runs import command, igvg, only_error, snapshot

KEYS = ["gIoU", "cIoU", "Pr@0.7", "Pr@0.8", "Pr@0.9", "N-acc", "T-acc", "F1score", "F1score-gIoU"]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 expressions of gRefCOCO about 3 pictures."""
    return write_shards(tmp_path_factory.mktemp("shards"))


def make_lines() -> list[dict[str, Any]]:
    """Predictions of which the second overlaps its target by a third, and has the wrong box."""
    first, second, *others = predict_truth()
    return [first, second | {"mask": fill((2, 0, 6, 4)), "boxes": [[2, 0, 6, 4]]}, *others]


def score(file: Path, shards: Path, *arguments: str | Path, split: str = "val") -> subprocess.CompletedProcess[str]:
    return igvg("score", file, "--shards", shards, "--split", split, *arguments)


def read_rows(table: str) -> dict[str, list[str]]:
    """The cells of a table's rows, by the first of them."""
    rows = ([cell.strip() for cell in line.strip("│┃").split("│")] for line in table.splitlines() if "│" in line)
    return {name: cells for name, *cells in rows}


def test_a_table_shows_every_metric_with_what_it_measures(tmp_path: Path, shards: Path) -> None:
    result = score(write_lines(tmp_path / "p.jsonl", make_lines()), shards)
    assert (result.returncode, result.stderr) == (0, "")
    rows = read_rows(result.stdout)
    assert [name for name in rows if name in KEYS] == KEYS
    # (11 + 1/3) ÷ 12 and 11 ÷ 12.
    assert (rows["gIoU"][0], rows["F1score"][0], rows["N-acc"][0]) == ("94.44", "91.67", "100.00")
    assert rows["N-acc"][1] == "100.00 to 100.00"
    assert rows["N-acc"][2] == "fraction of empty targets that are predicted empty"
    assert "grefcoco/val" in result.stdout
    assert "12 expressions (3 empty, 6 single, 3 multiple)" in result.stdout


def test_a_reader_that_has_enough_ends_the_command_without_a_word(tmp_path: Path, shards: Path) -> None:
    words = command("score", write_lines(tmp_path / "p.jsonl", make_lines()), "--shards", shards, "--split", "val")
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""


def test_json_is_one_document_and_nothing_else(tmp_path: Path, shards: Path) -> None:
    result = score(write_lines(tmp_path / "p.jsonl", make_lines()), shards, "--format", "json", "--resolution", "4")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.count("\n") == 1
    document = json.loads(result.stdout)
    assert [document[key] for key in ("dataset", "split", "expressions", "resolution")] == ["grefcoco", "val", 12, 4]
    assert list(document["metrics"]) == KEYS
    # Not rounded: columns 0 and 3 of the target's 16 pixels stay, of the predicted ones only column 3.
    assert document["metrics"]["gIoU"] == pytest.approx(100 * (11 + 2 / 4) / 12, rel=1e-12)


def test_a_metric_with_nothing_to_measure_is_a_dash(tmp_path: Path) -> None:
    shards = write_shards(tmp_path, references=((0,), (1,)), images=1)
    file = write_lines(tmp_path / "p.jsonl", predict_truth(references=((0,), (1,)), images=1))
    assert read_rows(score(file, shards).stdout)["N-acc"][0] == "–"


def test_a_metric_with_nothing_to_measure_is_null(tmp_path: Path) -> None:
    shards = write_shards(tmp_path, references=((),), images=1)
    file = write_lines(tmp_path / "p.jsonl", predict_truth(references=((),), images=1))
    document = json.loads(score(file, shards, "--format", "json").stdout)
    assert [name for name, value in document["metrics"].items() if value is None] == [*KEYS[1:5], "T-acc"]


def test_boxes_alone_that_look_normalized_are_scored_with_dashes_and_a_warning_beside_them(
    tmp_path: Path, shards: Path
) -> None:
    lines = [{"id": line["id"], "boxes": [[0.1, 0.1, 0.5, 0.5]] * bool(line["boxes"])} for line in predict_truth()]
    result = score(write_lines(tmp_path / "p.jsonl", lines), shards)
    assert result.returncode == 0
    assert result.stderr.count("\n") == 1
    assert "p.jsonl: all 9 boxes lie within 0 to 1, so they look normalized" in result.stderr
    rows = read_rows(result.stdout)
    assert (rows["gIoU"][0], rows["N-acc"][0], rows["F1score"][0]) == ("–", "100.00", "25.00")
    assert "the predictions have no masks" in result.stdout


def test_kept_scores_are_shown_again_without_work(tmp_path: Path, shards: Path) -> None:
    file, out = write_lines(tmp_path / "p.jsonl", make_lines()), tmp_path / "out"
    first = score(file, shards, "--format", "json", "--out", out)
    before = snapshot(out)
    again = score(file, shards, "--format", "json", "--out", out)
    assert (first.returncode, again.returncode) == (0, 0)
    assert again.stdout == first.stdout
    assert "is up to date" in again.stderr
    assert snapshot(out) == before


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (None, "p.jsonl: no such file or folder"),
        ("[{]\n", "p.jsonl, line 1: not JSON"),
        ([{"id": "grefcoco/9/9"}], "grefcoco/9/9: not in split 'val'"),
        ([{"id": "grefcoco/1/0", "mask": {"size": [12, 8], "counts": [96]}}], "the mask of grefcoco/1/0 has size"),
    ],
)
def test_a_bad_prediction_file_is_one_line_of_error(
    tmp_path: Path, shards: Path, lines: str | list[dict[str, Any]] | None, words: str
) -> None:
    file = tmp_path / "p.jsonl"
    if isinstance(lines, str):
        file.write_text(lines)
    elif lines:
        first, *others = predict_truth()
        write_lines(file, [first | lines[0], *others])
    result = score(file, shards, "--format", "json")
    assert words in only_error(result)
    assert result.stdout == ""


def test_shards_that_are_missing_are_one_line_of_error(tmp_path: Path) -> None:
    file = write_lines(tmp_path / "p.jsonl", make_lines())
    assert "nowhere" in only_error(score(file, tmp_path / "nowhere"))


def test_a_split_that_the_shards_do_not_hold_is_one_line_of_error(tmp_path: Path, shards: Path) -> None:
    file = write_lines(tmp_path / "p.jsonl", make_lines())
    assert "testA" in only_error(score(file, shards, split="testA"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["score", "p.jsonl"], "--shards"),
        (["score", "p.jsonl", "--shards", "x", "--split", "val", "--resolution", "-1"], "--resolution"),
        (["score", "p.jsonl", "--shards", "x", "--split", "val", "--format", "yaml"], "--format"),
    ],
)
def test_wrong_usage_ends_with_status_two(arguments: list[str], words: str) -> None:
    result = igvg(*arguments, NO_COLOR="1", TERM="dumb")
    assert result.returncode == 2
    assert words in result.stderr
    assert result.stdout == ""
