"""`igvg sweep` and `igvg predict --from`, as a user runs them."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

from pipelines.stages.artifact import Stage, read_artifact
from pipelines.stages.inputs import locate_raw
from shards.reader import ShardReader
from tests.support.drawn_outputs import draw_outputs, write_outputs
from tests.support.drawn_shards import write_shards
from tests.support.pipeline_runs import igvg, only_error, snapshot


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    return write_shards(tmp_path)


@pytest.fixture
def raw(tmp_path: Path, shards: Path) -> Path:
    with ShardReader(shards, "val") as reader:
        return write_outputs(tmp_path / "predicted" / "raw", draw_outputs(list(reader.records())))


def test_a_chosen_setting_predicts_and_scores_what_the_sweep_said(raw: Path, shards: Path, tmp_path: Path) -> None:
    words = ("--shards", shards, "--split", "val", "--format", "json")
    swept = igvg("sweep", raw.parent, *words, "--vary", "mask_source=global,instance", "--set", "score_threshold=0.3")
    assert swept.returncode == 0, swept.stderr
    rows = json.loads(swept.stdout)["settings"]
    for row in rows:
        source = row["settings"]["mask_source"]
        out = tmp_path / source
        result = igvg(
            "predict", "--from", raw, "--out", out, "--set", "postprocess.score_threshold=0.3",
            "--set", f"postprocess.mask_source={source}",
        )  # fmt: skip
        assert result.returncode == 0, result.stderr
        assert json.loads(igvg("score", out, *words).stdout)["metrics"] == row["metrics"]
    assert rows[0]["metrics"] != rows[1]["metrics"]


def test_tables_of_the_paper_show_their_columns_and_mark_the_best(raw: Path, shards: Path) -> None:
    result = igvg("sweep", raw, "--shards", shards, "--split", "val", "--grid", "table-11")
    assert result.returncode == 0, result.stderr
    heading, *lines = [line for line in result.stdout.splitlines() if "│" in line or "┃" in line]
    assert heading.replace("┃", " ").split() == ["mask_source", "gIoU", "cIoU"]
    assert [line.replace("│", " ").split()[0] for line in lines] == ["global", "instance", "merge"]
    assert sum(line.count("*") for line in lines) >= 2
    assert result.stderr == ""


def test_csv_names_the_metrics_of_which_a_row_is_the_best(raw: Path, shards: Path) -> None:
    words = ("sweep", raw, "--shards", shards, "--split", "val", "--vary", "score_threshold=0.2,0.5,0.9")
    rows = list(csv.DictReader(io.StringIO(igvg(*words, "--format", "csv").stdout)))
    document = json.loads(igvg(*words, "--format", "json").stdout)
    assert [float(row["score_threshold"]) for row in rows] == [0.2, 0.5, 0.9]
    assert [float(row["gIoU"]) for row in rows] == [row["metrics"]["gIoU"] for row in document["settings"]]
    for place, row in enumerate(rows):
        assert ("gIoU" in row["best"].split()) == (place in document["best"]["gIoU"])


def test_predicting_again_is_recognized_and_other_settings_are_named(raw: Path, tmp_path: Path) -> None:
    words = ("predict", "--from", raw, "--out", tmp_path / "again")
    assert igvg(*words).returncode == 0
    before = snapshot(tmp_path / "again")
    result = igvg(*words)
    assert result.returncode == 0
    assert "up to date" in result.stderr
    assert snapshot(tmp_path / "again") == before
    assert "postprocess.nms False → True" in only_error(igvg(*words, "--set", "postprocess.nms=true"))
    assert igvg(*words, "--set", "postprocess.nms=true", "--force").returncode == 0
    assert read_artifact(tmp_path / "again", "predict").options["postprocess"]["nms"] is True


def test_the_folder_that_is_read_is_never_replaced(raw: Path, tmp_path: Path) -> None:
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "raw").symlink_to(raw)
    before = snapshot(raw)
    for out in (raw, raw.parent, raw / "new"):
        assert "holds the raw outputs that are read" in only_error(
            igvg("predict", "--from", raw, "--out", out, "--force")
        )
    words = ("predict", "--from", tmp_path / "linked", "--out", tmp_path / "linked", "--force")
    assert "holds the raw outputs that are read" in only_error(igvg(*words))
    assert snapshot(raw) == before


def test_what_fails_leaves_the_older_predictions_as_they_were(raw: Path, tmp_path: Path) -> None:
    words = ("predict", "--from", raw, "--out", tmp_path / "again")
    assert igvg(*words).returncode == 0
    before = snapshot(tmp_path)
    assert "mask" in only_error(igvg(*words, "--set", "postprocess.score_threshold=0.01", "--force"))
    assert snapshot(tmp_path) == before
    chunk = raw / "chunk-000002.npz"
    chunk.write_bytes(chunk.read_bytes()[:-100])
    before = snapshot(tmp_path)
    assert "chunk-000002.npz" in only_error(igvg(*words, "--force"))
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ("{", "is damaged"),
        ("[" * 100_000, "is damaged"),
        ('{"stage": "score", "fingerprint": "", "inputs": {}, "options": {}}', "was made by igvg score"),
        ('{"stage": "predict", "fingerprint": "", "inputs": {}, "options": {"postprocess": []}}', "is damaged"),
        ('{"stage": "predict", "fingerprint": "", "inputs": {}, "options": {"postprocess": {"nmz": 1}}}', "nms"),
        ('{"stage": "predict", "fingerprint": "", "inputs": {}, "options": {}, "files": {"raw/index.json": 1}}',
         "index.json has"),
    ],
)  # fmt: skip
def test_a_record_that_contradicts_the_outputs_is_named(raw: Path, shards: Path, record: str, words: str) -> None:
    (raw.parent / "artifact.json").write_text(record)
    error = only_error(igvg("sweep", raw.parent, "--shards", shards, "--split", "val", "--grid", "table-11"))
    assert words in error


def test_an_unfinished_prediction_is_not_swept(raw: Path, shards: Path) -> None:
    (raw.parent / "unfinished.json").write_text("{}")
    error = only_error(igvg("sweep", raw, "--shards", shards, "--split", "val", "--grid", "table-11"))
    assert "the prediction is unfinished" in error


def test_a_finished_prediction_is_used_even_if_its_process_was_killed_right_after(raw: Path) -> None:
    Stage(name="predict", out=raw.parent, inputs={}, options={}).finish({})
    (raw.parent / "unfinished.json").write_text("{}")
    assert locate_raw(raw) == raw


def test_settings_that_do_not_enter_are_wrong_usage(raw: Path, tmp_path: Path) -> None:
    assert igvg("predict", "--from", raw, "--out", tmp_path / "o", "--set", "precision=bf16").returncode == 2


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("--grid", "table-13"), "no grid 'table-13'"),
        (("--vary", "score_treshold=0.5"), "did you mean score_threshold"),
        (("--vary", "score_threshold=0.01"), "the raw outputs keep the masks"),
        ((), "nothing to sweep"),
        (("--grid", "table-11", "--set", "nms_io=0.5"), "did you mean nms_iou"),
    ],
)
def test_wrong_grids_are_one_line(raw: Path, shards: Path, words: tuple[str, ...], error: str) -> None:
    assert error in only_error(igvg("sweep", raw, "--shards", shards, "--split", "val", *words))


def test_a_folder_without_raw_outputs_is_named(tmp_path: Path, shards: Path) -> None:
    (tmp_path / "empty").mkdir()
    error = only_error(igvg("sweep", tmp_path / "empty", "--shards", shards, "--split", "val", "--grid", "table-11"))
    assert "holds no finished raw outputs" in error


def test_a_damaged_chunk_is_named_and_leaves_no_predictions(raw: Path, shards: Path, tmp_path: Path) -> None:
    chunk = raw / "chunk-000001.npz"
    chunk.write_bytes(chunk.read_bytes()[:-200])
    words = ("sweep", raw, "--shards", shards, "--split", "val", "--grid", "table-11")
    assert "chunk-000001.npz" in only_error(igvg(*words))
    assert "chunk-000001.npz" in only_error(igvg("predict", "--from", raw, "--out", tmp_path / "again"))
    assert not (tmp_path / "again" / "predictions.jsonl").exists()


@pytest.mark.parametrize(
    "words",
    [
        ("--from", "x", "--checkpoint", "y"),
        ("--from", "x", "--shards", "y", "--split", "val"),
        ("--shards", "y", "--split", "val"),
        (),
    ],
)
def test_from_stands_for_checkpoint_and_images(tmp_path: Path, words: tuple[str, ...]) -> None:
    assert igvg("predict", *words, "--out", tmp_path / "out").returncode == 2
