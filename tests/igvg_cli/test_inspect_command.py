"""`igvg inspect` as a user runs it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.support.drawn_shards import predict_truth, write_lines, write_shards
from tests.support.pipeline_runs import command, igvg, only_error, snapshot
from tests.support.terminals import run_in_terminal, strip_escapes


def test_an_artifact_is_described_without_touching_it(pipeline: Path) -> None:
    before = snapshot(pipeline / "found")
    result = igvg("inspect", pipeline / "found")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith(f"{pipeline / 'found'}: predictions (igvg predict)\n")
    record = json.loads((pipeline / "found" / "artifact.json").read_text())
    assert record["inputs"]["shards"][:12] in result.stdout
    assert "as by default: batch_size 16; precision fp32" in result.stdout
    assert f"igvg {record['versions']['igvg']}" in result.stdout
    assert snapshot(pipeline / "found") == before


def test_json_is_one_document(pipeline: Path, tmp_path: Path) -> None:
    sheet = tmp_path / "sheet.png"
    result = igvg("inspect", pipeline / "shards", "--examples", "3", "--out", sheet, "--format", "json")
    document = json.loads(result.stdout)
    assert (document["kind"], document["examples"]) == ("prepare", {"file": str(sheet), "count": 3})


def test_no_torch_is_loaded_for_what_needs_none(pipeline: Path) -> None:
    for name in ("shards", "run", "found", "scores", "run/model.safetensors", "found/raw"):
        code = (
            "import sys\nfrom pathlib import Path\nfrom pipelines.inspection.inspection import inspect_path\n"
            "from pipelines.inspection.verification import verify\n"
            f"path = Path({str(pipeline / name)!r})\ninspect_path(path)\n"
            "path.is_dir() and verify(path, full=True)\n"
            "assert not {'torch', 'transformers', 'altair'} & set(sys.modules)"
        )
        subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_the_sheet_of_shards_lies_in_the_working_directory(pipeline: Path, tmp_path: Path) -> None:
    words = command("inspect", pipeline / "shards", "--examples", "4")
    result = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1] == "shards-examples.png: 4 examples"
    first = (tmp_path / "shards-examples.png").read_bytes()
    with Image.open(tmp_path / "shards-examples.png") as sheet:
        assert min(sheet.size) > 640
    # Again, over the first one.
    subprocess.run(words, cwd=tmp_path, check=True, capture_output=True, timeout=120)
    assert (tmp_path / "shards-examples.png").read_bytes() == first


def test_predictions_are_drawn_beside_their_targets(pipeline: Path, tmp_path: Path) -> None:
    alone, pair = tmp_path / "alone.png", tmp_path / "pair.png"
    assert igvg("inspect", pipeline / "shards" / "val", "--examples", "1", "--out", alone).returncode == 0
    assert igvg("inspect", pipeline / "found", "--examples", "1", "--out", pair).returncode == 0
    with Image.open(alone) as one, Image.open(pair) as two:
        assert two.width > 1.8 * one.width


def test_shards_of_predictions_are_given_where_they_are_not_found(tmp_path: Path) -> None:
    shards = write_shards(tmp_path / "data")
    lines = [{"id": line["id"], "mask": line["mask"]} for line in predict_truth()]
    file = write_lines(tmp_path / "theirs.jsonl", lines)
    sheet = tmp_path / "sheet.png"
    error = only_error(igvg("inspect", file, "--examples", "3", "--out", sheet))
    assert "give --shards" in error
    assert not sheet.exists()
    result = igvg("inspect", file, "--examples", "3", "--out", sheet, "--shards", shards)
    assert result.returncode == 0, result.stderr
    assert sheet.is_file()


def test_predictions_of_other_shards_are_refused(pipeline: Path, tmp_path: Path) -> None:
    file = write_lines(tmp_path / "theirs.jsonl", predict_truth())
    words = ("inspect", file, "--examples", "3", "--out", tmp_path / "sheet.png", "--shards", pipeline / "shards")
    assert "is about none of the expressions" in only_error(igvg(*words))


@pytest.mark.parametrize(
    ("name", "said"),
    [("none", "no such file or folder"), ("empty", "looked for artifact.json"), ("notes.txt", "looked for shards")],
)
def test_unknown_things_are_one_line(tmp_path: Path, name: str, said: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("hello")
    assert said in only_error(igvg("inspect", tmp_path / name))


def test_other_files_are_not_overwritten_by_a_sheet(pipeline: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    words = ("inspect", pipeline / "shards", "--examples", "1", "--out", tmp_path / "notes.txt")
    assert "not a contact sheet" in only_error(igvg(*words))
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_what_holds_no_examples_says_so(pipeline: Path, tmp_path: Path) -> None:
    result = igvg("inspect", pipeline / "run", "--examples", "1", "--out", tmp_path / "a.png")
    assert "holds no examples to draw" in only_error(result)
    assert igvg("inspect", pipeline / "run", "--out", tmp_path / "a.png").returncode == 2


@pytest.mark.parametrize("width", [60, 160])
def test_lines_fit_terminals_and_break_between_words(pipeline: Path, width: int) -> None:
    for words in (("inspect", "scores"), ("inspect", "run"), ("inspect", "shards"), ("verify", "found", "--full")):
        status, written = run_in_terminal(command(words[0], pipeline / words[1], *words[2:], "--quiet"), width)
        assert status == 0, written
        lines = strip_escapes(written).splitlines()
        # A path may be longer than the terminal is wide, and stays whole.
        assert all(len(line) <= width or str(pipeline) in line for line in lines), words
        if words[1] == "run":
            text = " ".join(strip_escapes(written).split())
            assert "loss.auxiliary_boxes paper; optimizer.encoder_lr 0.0007" in text
