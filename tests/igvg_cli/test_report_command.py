"""`igvg report`, as a user runs it: on what igvg predicted, on hostile input, and on input that is wrong."""

from __future__ import annotations

import dataclasses
import json
import shutil
import signal
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from shards.reader import ShardReader
from shards.writer import write_split
from tests.support.drawn_shards import REFERENCES, make_record, predict_truth, return_record, write_lines, write_shards
from tests.support.pipeline_runs import end, igvg, only_error, snapshot, start, wait_until
from tests.support.report_data import read_details, read_index

HOSTILE = (
    "</script><script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "line\u2028separator <!-- {{ 7*7 }} {% raw %}",
    "long " * 100_000,
)


class Elements(HTMLParser):
    """The names of the elements of a page, and their attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def test_predictions_and_their_training_are_reported(pipeline: Path, tmp_path: Path) -> None:
    words = ("report", pipeline / "found", pipeline / "run", "--shards", pipeline / "shards", "--split", "val",
             "--out", tmp_path / "report")  # fmt: skip
    result = igvg(*words)
    assert result.returncode == 0, result.stderr
    with ShardReader(pipeline / "shards", "val") as reader:
        expressions = [expression for record in reader.records() for expression in record.expressions]
        images = len(reader)
    shown = f"{len(expressions)} expressions about {images} images"
    assert result.stdout == f"{tmp_path / 'report' / 'index.html'}: {shown}\n"
    index, details = read_index(tmp_path / "report"), read_details(tmp_path / "report")
    assert index["id"] == [expression.id for expression in expressions]
    assert index["text"] == [expression.text for expression in expressions]
    lines = [json.loads(line) for line in (pipeline / "found" / "predictions.jsonl").read_text().splitlines()]
    for line, detail in zip(lines, details, strict=True):
        (found,) = detail["results"]
        # The images are small: shown as they are.
        assert found["mask"] == line["mask"]
        assert len(found["boxes"]) == len(line["boxes"])
        assert found["attention"]["size"] == [4, 4]
        assert len(found["all_points"]) == 4
    before = snapshot(tmp_path / "report")
    again = igvg(*words)
    assert "is up to date: same inputs, same settings; nothing to do" in again.stderr
    assert again.stdout == result.stdout
    assert snapshot(tmp_path / "report") == before


def test_a_page_asks_for_nothing_beyond_its_folder(pipeline: Path, tmp_path: Path) -> None:
    out = tmp_path / "report"
    assert igvg("report", pipeline / "run", "--out", out).returncode == 0
    page = Elements()
    page.feed((out / "index.html").read_text(encoding="utf-8"))
    targets = [
        value or "" for _, attributes in page.found for name, value in attributes.items() if name in ("src", "href")
    ]
    assert targets
    assert not [target for target in targets if ":" in target and not target.startswith("data:")]


def test_hostile_expressions_and_names_are_data(tmp_path: Path) -> None:
    Image.new("RGB", (12, 8)).save(tmp_path / "1.png")
    record = make_record("grefcoco", 1, "<b onload=alert(1)>.png", REFERENCES)
    expressions = tuple(
        dataclasses.replace(expression, text=text) for expression, text in zip(record.expressions, HOSTILE, strict=True)
    )
    record = dataclasses.replace(record, expressions=expressions)
    write_split(tmp_path / "shards", "val", [(record, tmp_path / "1.png")], return_record)
    file = write_lines(tmp_path / "<script>alert(2)<!--.jsonl", predict_truth(images=1))
    out = tmp_path / "report"
    result = igvg("report", file, "--shards", tmp_path / "shards", "--split", "val", "--out", out, "--bootstrap", "0")
    assert result.returncode == 0, result.stderr
    index = read_index(out)
    assert index["text"] == [*HOSTILE[:3], HOSTILE[3][:2000] + "…"]
    assert index["images"]["name"] == ["<b onload=alert(1)>.png"]
    page = Elements()
    page.feed((out / "index.html").read_text(encoding="utf-8"))
    assert not [attributes for _, attributes in page.found if any(name.startswith("on") for name in attributes)]
    assert "alert(2)<" not in (out / "index.html").read_text(encoding="utf-8")
    for script in (out / "data").iterdir():
        assert "</" not in script.read_text(encoding="ascii")


def test_wrong_input_is_one_line(pipeline: Path, tmp_path: Path) -> None:
    shards = write_shards(tmp_path / "set")
    file = write_lines(tmp_path / "p.jsonl", predict_truth())
    split, out = ("--shards", shards, "--split", "val"), ("--out", tmp_path / "report")
    assert "grefcoco/3/3" in only_error(
        igvg("report", write_lines(tmp_path / "q.jsonl", predict_truth()[:-1]), *split, *out)
    )
    assert "not in split 'val'" in only_error(igvg("report", pipeline / "found", *split, *out))
    assert "give the --shards and --split" in only_error(igvg("report", file, *out))
    assert "no such file; give a predictions.jsonl" in only_error(igvg("report", tmp_path / "nothing", *split, *out))
    damaged = shutil.copytree(pipeline / "found", tmp_path / "found")
    chunk = damaged / "raw" / "chunk-000000.npz"
    chunk.write_bytes(chunk.read_bytes()[:-100])
    error = only_error(igvg("report", damaged, "--shards", pipeline / "shards", "--split", "val", *out))
    assert "chunk-000000.npz has" in error
    tar = shards / "val" / "val-000000.tar"
    content = bytearray(tar.read_bytes())
    content[content.index(b"IHDR") + 2] ^= 0xFF
    tar.write_bytes(content)
    assert "member 000000000001.png is damaged" in only_error(igvg("report", file, *split, *out))
    assert not (tmp_path / "report").exists()


@pytest.mark.parametrize("words", [("--split", "val"), ("--shards", "nowhere"), ("--limit", "-1"), ()])
def test_wrong_usage_has_status_2(words: tuple[str, ...], tmp_path: Path) -> None:
    sources = ("p.jsonl",) if words else ()
    assert igvg("report", *sources, *words, "--out", tmp_path / "report").returncode == 2


def test_an_interrupted_report_leaves_nothing_half_written(tmp_path: Path) -> None:
    shards = write_shards(tmp_path / "set", images=400)
    file = write_lines(tmp_path / "p.jsonl", predict_truth(images=400))
    process = start(
        "report", file, "--shards", shards, "--split", "val", "--out", tmp_path / "report", "--workers", "2"
    )
    wait_until(lambda: any(tmp_path.glob(".report.*/images/*")), process)
    process.send_signal(signal.SIGINT)
    assert "Interrupted: nothing is half-written" in end(process)
    assert process.returncode == 130
    assert not (tmp_path / "report").exists()
    assert not list(tmp_path.glob(".report.*"))
