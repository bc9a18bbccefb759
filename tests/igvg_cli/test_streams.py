"""Output that is closed, full or of few characters, and names that are no text: it works, or ends in one line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from shards.masks import merge_rles
from shards.reader import ShardReader
from tests.support.pipeline_runs import command, only_error

ASCII = {"PYTHONIOENCODING": "ascii"}
# A locale of ASCII alone, which Python is not to mend.
BARE = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
NO_TEXT = os.fsdecode(b"na\xefve \xc3\xbc")


@pytest.fixture(scope="module")
def home(pipeline: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Published files, shards, and predictions in a folder whose name is not UTF-8."""
    home = tmp_path_factory.mktemp("streams")
    for name in ("published", "shards"):
        (home / name).symlink_to(pipeline / name)
    with ShardReader(home / "shards", "val") as reader:
        answers = [
            {"id": expression.id, "boxes": [], "scores": [], "mask": merge_rles([], record.height, record.width)}
            for record in reader.records()
            for expression in record.expressions
        ]
    (home / NO_TEXT).mkdir()
    (home / NO_TEXT / "predictions.jsonl").write_text("".join(f"{json.dumps(answer)}\n" for answer in answers))
    return home


def run(words: list[str | Path], redirected: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command line whose streams a shell redirects."""
    shell = ["sh", "-c", f'exec "$@" {redirected}', "sh", *command(*words)]
    return subprocess.run(shell, capture_output=True, text=True, env=os.environ | environment, timeout=120)


def list_score(home: Path, *more: str) -> list[str | Path]:
    predictions = home / NO_TEXT / "predictions.jsonl"
    return ["score", predictions, "--shards", home / "shards", "--split", "val", "--bootstrap", "0", *more]


def list_prepare(home: Path, out: Path) -> list[str | Path]:
    images = home / "published" / "images" / "train2014"
    annotations = home / "published" / "grefcoco"
    return ["prepare", "grefcoco", "--annotations", annotations, "--images", images, "--out", out, "--workers", "0"]


@pytest.mark.parametrize("environment", [ASCII, BARE], ids=["ASCII streams", "ASCII locale"])
def test_signs_are_spelt_out_where_streams_hold_ascii_alone(
    home: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    result = run(list_prepare(home, tmp_path / NO_TEXT), **environment)
    assert result.returncode == 0, result.stderr
    assert result.stdout.isascii()
    assert "grefcoco -> " in result.stdout
    again = run(list_prepare(home, tmp_path / NO_TEXT), **environment)
    assert "is up to date" in again.stderr


def test_help_is_shown_on_a_stream_of_ascii_alone() -> None:
    result = run(["--help"], **ASCII)
    assert result.returncode == 0, result.stderr
    assert "prepare -> train" in result.stdout


@pytest.mark.parametrize("environment", [{}, ASCII, BARE], ids=["UTF-8", "ASCII streams", "ASCII locale"])
def test_a_json_document_gives_back_names_that_are_no_text(home: Path, environment: dict[str, str]) -> None:
    predictions = str(home / NO_TEXT / "predictions.jsonl")
    split = ["--shards", home / "shards", "--split", "val", "--bootstrap", "0", "--format", "json"]
    result = run(["compare", predictions, predictions, *split], **environment)
    assert result.returncode == 0, result.stderr
    # Names are bytes to the system: which of them are letters depends on the locale.
    assert os.fsencode(json.loads(result.stdout)["a"]["predictions"]) == os.fsencode(predictions)


def test_an_error_names_a_file_whose_name_is_no_text(home: Path) -> None:
    error = only_error(run(["score", f"{NO_TEXT}.jsonl", "--shards", home / "shards", "--split", "val"]))
    assert r"na\xefve ü.jsonl: " in error


@pytest.mark.parametrize("environment", [{}, BARE], ids=["UTF-8", "ASCII locale"])
def test_a_text_to_look_for_is_utf_8_whatever_the_locale(
    home: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    image = next((home / "published" / "images" / "train2014").iterdir())
    words: list[str | Path] = ["predict", "--checkpoint", "shapes", "--image", image, "--out", tmp_path / "out"]
    error = only_error(run([*words, "--text", "red circle", "--text", NO_TEXT], **environment))
    assert "is not UTF-8" in error
    assert r'--text "na\xefve' in error
    if environment:
        result = run([*words, "--text", "red çircle"], **environment)
        assert result.returncode == 0, result.stderr
        record = json.loads((tmp_path / "out" / "artifact.json").read_text())
        assert record["options"]["texts"] == ["red çircle"]


def test_an_artifact_remembers_names_that_are_no_text(home: Path, tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for file in (home / "published" / "images" / "train2014").iterdir():
        (images / file.name).symlink_to(file)
    (images / f"{NO_TEXT}.jpg").symlink_to(next((home / "published" / "images" / "train2014").iterdir()))
    words = ["prepare", "grefcoco", "--images", images, "--out", tmp_path / NO_TEXT]
    words += ["--annotations", home / "published" / "grefcoco"]
    for expected in ("", "is up to date"):
        result = run([*words, "--workers", "0"])
        assert result.returncode == 0, result.stderr
        assert expected in result.stderr
    json.loads((tmp_path / NO_TEXT / "artifact.json").read_bytes().decode())


@pytest.mark.parametrize("redirected", [">&-", ">/dev/full"], ids=["closed", "full"])
def test_a_result_that_would_only_be_printed_is_not_worked_out_for_nobody(home: Path, redirected: str) -> None:
    error = only_error(run(list_score(home), redirected))
    assert "standard output" in error


def test_output_to_nowhere_is_no_error(home: Path) -> None:
    assert run(list_score(home), ">/dev/null").returncode == 0


def test_a_stage_without_standard_output_leaves_its_artifact(home: Path, tmp_path: Path) -> None:
    assert run(list_prepare(home, tmp_path / "closed"), ">&-").returncode == 0
    assert (tmp_path / "closed" / "artifact.json").exists()
    error = only_error(run(list_prepare(home, tmp_path / "full"), ">/dev/full"))
    assert "standard output: there is no space left" in error
    assert (tmp_path / "full" / "artifact.json").exists()


@pytest.mark.parametrize("redirected", ["2>&-", "2>/dev/full"], ids=["closed", "full"])
def test_without_standard_error_the_result_is_the_same(home: Path, redirected: str) -> None:
    # The second time there is a note to print.
    for _ in range(2):
        result = run(list_score(home, "--format", "json", "--out", str(home / f"scores{redirected[-1]}")), redirected)
        assert result.returncode == 0
        assert json.loads(result.stdout)["dataset"] == "grefcoco"
    assert run(["score", "nowhere.jsonl", "--shards", home / "shards", "--split", "val"], redirected).returncode == 1


def test_all_streams_may_be_closed(home: Path, tmp_path: Path) -> None:
    assert run(list_prepare(home, tmp_path / "shards"), "<&- >&- 2>&-").returncode == 0
    assert (tmp_path / "shards" / "artifact.json").exists()


def test_what_libraries_print_to_a_closed_stream_goes_into_no_file(tmp_path: Path) -> None:
    code = (
        "import os, sys, igvg_cli.streams as s; s.open_streams(); file = open(sys.argv[1], 'w'); os.write(1, b'noise')"
    )
    words = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", sys.executable, "-c", f"{code}; os.write(2, b'noise')"]
    assert subprocess.run([*words, str(tmp_path / "file")], timeout=60).returncode == 0
    assert (tmp_path / "file").read_bytes() == b""


def test_a_reader_that_has_read_enough_is_no_error(home: Path, tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    words = command(*list_prepare(home, tmp_path / "shards"))
    result = subprocess.run(words, stdout=writing, stderr=subprocess.PIPE, text=True, timeout=120)
    os.close(writing)
    assert result.stderr == ""
    assert (tmp_path / "shards" / "artifact.json").exists()
