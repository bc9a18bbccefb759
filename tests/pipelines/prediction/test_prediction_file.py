"""Prediction files as a whole: written, read, refused and merged."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.prediction.prediction import Prediction
from pipelines.prediction.prediction_file import merge_parts, read_predictions, write_predictions
from shards.errors import DataError
from tests.support.prediction_lines import CORNER, EMPTY, make_line


def make_prediction(index: int = 1, *, no_target: bool = False) -> Prediction:
    return Prediction(
        id=f"refcoco/{index}/2", boxes=[[0.0, 0.0, 1.5, 2.25]], scores=[0.75], mask=CORNER, no_target=no_target
    )


def list_files(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    predictions = [
        make_prediction(1),
        Prediction(id="grefcoco/3/4", boxes=[], scores=[], mask=EMPTY, no_target=True),
        Prediction(id="ref-zom/ü/4", boxes=[[1, 1, 1, 1]], scores=None, mask=EMPTY, no_target=False),
    ]
    assert write_predictions(tmp_path / "p.jsonl", predictions) == 3
    assert list(read_predictions(tmp_path / "p.jsonl")) == predictions


def test_a_line_has_the_keys_of_the_contract_in_its_order(tmp_path: Path) -> None:
    write_predictions(tmp_path / "p.jsonl", [make_prediction()])
    assert (tmp_path / "p.jsonl").read_text() == (
        '{"id":"refcoco/1/2","boxes":[[0.0,0.0,1.5,2.25]],"scores":[0.75],'
        '"mask":{"size":[3,4],"counts":"02:"},"no_target":false}\n'
    )


def test_a_file_that_breaks_off_while_it_is_written_is_not_left(tmp_path: Path) -> None:
    def fail() -> Iterator[Prediction]:
        yield make_prediction()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_predictions(tmp_path / "p.jsonl", fail())
    assert list_files(tmp_path) == []


def test_a_file_that_breaks_off_while_it_is_replaced_stays_as_it_was(tmp_path: Path) -> None:
    def fail() -> Iterator[Prediction]:
        yield make_prediction(2)
        raise ZeroDivisionError("a bug")

    write_predictions(tmp_path / "p.jsonl", [make_prediction(1)])
    with pytest.raises(ZeroDivisionError, match="a bug"):
        write_predictions(tmp_path / "p.jsonl", fail())
    assert [prediction.id for prediction in read_predictions(tmp_path / "p.jsonl")] == ["refcoco/1/2"]
    assert list_files(tmp_path) == ["p.jsonl"]


@pytest.mark.parametrize("key", ["boxes", "mask"])
@pytest.mark.parametrize("without", [{3}, {1}, {1, 2, 3}])
def test_a_line_that_lacks_what_other_lines_have_is_named(tmp_path: Path, key: str, without: set[int]) -> None:
    lines = [
        json.dumps(make_line(id=f"x/{n}/1", scores=..., **({key: ...} if n in without else {}))) for n in range(1, 5)
    ]
    (tmp_path / "p.jsonl").write_text("\n".join(lines))
    lacking, having = (3, 1) if without == {3} else (1, min({2, 3, 4} - without))
    remedy = f"give '{key}' in all lines, or in none if the model does not predict it"
    with pytest.raises(DataError, match=rf"p\.jsonl, line {lacking}: has no '{key}', but line {having} has; {remedy}"):
        list(read_predictions(tmp_path / "p.jsonl"))


@pytest.mark.parametrize("key", ["boxes", "mask"])
def test_what_is_not_predicted_is_not_written(tmp_path: Path, key: str) -> None:
    lines = [json.dumps(make_line(id=f"x/{n}/1", scores=..., **{key: ...})) for n in range(3)]
    (tmp_path / "p.jsonl").write_text("\n".join(lines))
    predictions = list(read_predictions(tmp_path / "p.jsonl"))
    write_predictions(tmp_path / "q.jsonl", predictions)
    assert all(key not in json.loads(line) for line in (tmp_path / "q.jsonl").read_text().splitlines())
    assert list(read_predictions(tmp_path / "q.jsonl")) == predictions


def test_empty_lines_are_skipped_and_still_counted(tmp_path: Path) -> None:
    line = json.dumps(make_line())
    (tmp_path / "p.jsonl").write_text(f"\n{line}\r\n \n[]\n")
    predictions = read_predictions(tmp_path / "p.jsonl")
    assert next(predictions).id == "refcoco/1/2"
    with pytest.raises(DataError, match=r"line 4: not a JSON object"):
        next(predictions)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            '[{"id": "x/1/1"}]',
            "line 1: not JSON lines, but a JSON list begins here; write each prediction as one JSON object",
        ),
        ('\n[\n {"id": "x/1/1"}\n]', "line 2: not JSON lines, but a JSON list begins here"),
        ('{\n "id": "x/1/1"\n}', "line 1: not JSON lines, but a JSON object over several lines"),
    ],
)
def test_json_that_is_not_one_object_a_line_is_named_as_what_it_is(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "p.jsonl").write_text(text)
    with pytest.raises(DataError, match=words):
        list(read_predictions(tmp_path / "p.jsonl"))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (gzip.compress(b"{}", mtime=0), "is compressed with gzip, not a prediction file; unpack it with gunzip"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid x\n",
            "is a Git LFS pointer, not a prediction file; run `git",
        ),
        (b"<!doctype html>\n<html></html>", "is an HTML page, not a prediction file"),
        ('{"id": "x/1/1"}\n'.encode("utf-16"), "is text in UTF-16, not a prediction file; save it as UTF-8"),
        (b"\x80\x04\x95", "is a pickle, not a prediction file"),
        (b"\xef\xbb\xbf[\n]", "line 1: not JSON lines, but a JSON list begins here"),
    ],
)
def test_a_file_of_another_kind_is_named_as_what_it_is(tmp_path: Path, data: bytes, words: str) -> None:
    (tmp_path / "p.jsonl").write_bytes(data)
    with pytest.raises(DataError, match=words):
        list(read_predictions(tmp_path / "p.jsonl"))


def test_a_byte_order_mark_is_skipped(tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_bytes(b"\xef\xbb\xbf" + json.dumps(make_line()).encode())
    assert [prediction.id for prediction in read_predictions(tmp_path / "p.jsonl")] == ["refcoco/1/2"]


def test_a_file_that_is_missing_is_named_with_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere\.jsonl: no such file or folder; check the path"):
        next(read_predictions(tmp_path / "nowhere.jsonl"))


def test_a_folder_instead_of_a_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is a folder, not a file; give a file"):
        next(read_predictions(tmp_path))


# Parts of several processes


def test_parts_are_joined_in_order_byte_for_byte(tmp_path: Path) -> None:
    parts = [tmp_path / "a", tmp_path / "b"]
    write_predictions(parts[0], [make_prediction(3), make_prediction(1, no_target=True)])
    write_predictions(parts[1], [make_prediction(2, no_target=True)])
    assert merge_parts(parts, tmp_path / "out") == 2
    assert (tmp_path / "out").read_bytes() == parts[0].read_bytes() + parts[1].read_bytes()


def test_no_parts_make_an_empty_file(tmp_path: Path) -> None:
    assert merge_parts([], tmp_path / "out") == 0
    assert (tmp_path / "out").read_bytes() == b""


def test_an_expression_that_two_parts_hold_is_named_and_nothing_is_left(tmp_path: Path) -> None:
    parts = [tmp_path / "a", tmp_path / "b"]
    write_predictions(parts[0], [make_prediction(1)])
    write_predictions(parts[1], [make_prediction(2), make_prediction(1)])
    with pytest.raises(DataError, match=r"/b, line 2: refcoco/1/2 was predicted twice"):
        merge_parts(parts, tmp_path / "out")
    assert list_files(tmp_path) == ["a", "b"]


def test_a_part_that_breaks_off_is_named_and_nothing_is_left(tmp_path: Path) -> None:
    part = tmp_path / "a"
    write_predictions(part, [make_prediction(1), make_prediction(2)])
    part.write_bytes(part.read_bytes()[:-9])
    with pytest.raises(DataError, match=r"/a, line 2: not JSON"):
        merge_parts([part], tmp_path / "out")
    assert list_files(tmp_path) == ["a"]


def test_a_part_whose_last_line_is_not_ended_is_named(tmp_path: Path) -> None:
    parts = [tmp_path / "a", tmp_path / "b"]
    for index, part in enumerate(parts):
        write_predictions(part, [make_prediction(index)])
    parts[0].write_bytes(parts[0].read_bytes()[:-1])
    with pytest.raises(DataError, match=r"/a, line 1: .*breaks off"):
        merge_parts(parts, tmp_path / "out")
