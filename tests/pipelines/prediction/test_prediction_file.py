"""The prediction file: what is read, what is refused, and what is left behind."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.prediction.prediction import Prediction, parse_prediction
from pipelines.prediction.prediction_file import merge_parts, read_predictions, write_predictions
from shards.errors import DataError
from shards.masks import decode_mask, encode_mask
from shards.record import Rle

# 3 × 4 pixels; run lengths in COCO's compressed form, where one character from "0" on is one small number.
EMPTY: Rle = {"size": [3, 4], "counts": "<"}
"""12 pixels of background."""
CORNER: Rle = {"size": [3, 4], "counts": "02:"}
"""The upper two pixels of the first column."""


def make_line(**changes: Any) -> dict[str, Any]:
    """A line of a prediction file with other values under some keys; `...` leaves a key out."""
    line = {"id": "refcoco/1/2", "boxes": [[0, 0, 1, 2]], "scores": [0.75], "mask": CORNER, "no_target": False}
    return {key: value for key, value in (line | changes).items() if value is not ...}


def make_prediction(number: int = 1, *, no_target: bool = False) -> Prediction:
    return Prediction(
        id=f"refcoco/{number}/2", boxes=[[0.0, 0.0, 1.5, 2.25]], scores=[0.75], mask=CORNER, no_target=no_target
    )


def parse(tmp_path: Path, **changes: Any) -> Prediction:
    return parse_prediction(json.dumps(make_line(**changes)).encode(), tmp_path / "p.jsonl", 7)


def list_files(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


# Round trip


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
    def stumble() -> Iterator[Prediction]:
        yield make_prediction()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_predictions(tmp_path / "p.jsonl", stumble())
    assert list_files(tmp_path) == []


def test_a_file_that_breaks_off_while_it_is_replaced_stays_as_it_was(tmp_path: Path) -> None:
    def stumble() -> Iterator[Prediction]:
        yield make_prediction(2)
        raise ZeroDivisionError("a bug")

    write_predictions(tmp_path / "p.jsonl", [make_prediction(1)])
    with pytest.raises(ZeroDivisionError, match="a bug"):
        write_predictions(tmp_path / "p.jsonl", stumble())
    assert [prediction.id for prediction in read_predictions(tmp_path / "p.jsonl")] == ["refcoco/1/2"]
    assert list_files(tmp_path) == ["p.jsonl"]


# What other models may leave out


def test_scores_may_be_left_out(tmp_path: Path) -> None:
    assert parse(tmp_path, scores=...).scores is None


def test_scores_may_be_null(tmp_path: Path) -> None:
    assert parse(tmp_path, scores=None).scores is None


@pytest.mark.parametrize("left_out", [..., None])
@pytest.mark.parametrize(
    ("boxes", "mask", "no_target"),
    [([], EMPTY, True), ([], CORNER, False), ([[0, 0, 1, 2]], EMPTY, False), ([[0, 0, 1, 2]], CORNER, False)],
)
def test_without_a_flag_nothing_is_referred_to_if_there_is_neither_box_nor_pixel(
    tmp_path: Path, left_out: Any, boxes: list[Any], mask: Rle, no_target: bool
) -> None:
    assert parse(tmp_path, boxes=boxes, scores=..., mask=mask, no_target=left_out).no_target is no_target


@pytest.mark.parametrize(("boxes", "mask", "flag"), [([], EMPTY, False), ([[0, 0, 1, 2]], CORNER, True)])
def test_a_flag_is_taken_as_it_is_whatever_boxes_and_mask_hold(
    tmp_path: Path, boxes: list[Any], mask: Rle, flag: bool
) -> None:
    assert parse(tmp_path, boxes=boxes, scores=..., mask=mask, no_target=flag).no_target is flag


def test_run_lengths_may_be_a_list(tmp_path: Path) -> None:
    assert parse(tmp_path, mask={"size": [3, 4], "counts": [0, 2, 10]}).mask == CORNER


def test_keys_that_are_not_known_are_passed_over(tmp_path: Path) -> None:
    assert parse(tmp_path, model="another") == parse(tmp_path)


def test_boxes_without_any_area_are_taken(tmp_path: Path) -> None:
    assert parse(tmp_path, boxes=[[2, 1, 2, 1]]).boxes == [[2, 1, 2, 1]]


@pytest.mark.parametrize("left_out", [..., None])
@pytest.mark.parametrize(("boxes", "no_target"), [([], True), ([[0, 0, 1, 2]], False)])
def test_without_a_mask_nothing_is_referred_to_if_there_is_no_box(
    tmp_path: Path, left_out: Any, boxes: list[Any], no_target: bool
) -> None:
    prediction = parse(tmp_path, mask=left_out, boxes=boxes, scores=..., no_target=...)
    assert (prediction.boxes, prediction.mask, prediction.no_target) == (boxes, None, no_target)


@pytest.mark.parametrize("left_out", [..., None])
@pytest.mark.parametrize(("mask", "no_target"), [(EMPTY, True), (CORNER, False)])
def test_without_boxes_nothing_is_referred_to_if_the_mask_is_empty(
    tmp_path: Path, left_out: Any, mask: Rle, no_target: bool
) -> None:
    prediction = parse(tmp_path, boxes=left_out, scores=left_out, mask=mask, no_target=...)
    assert (prediction.boxes, prediction.scores, prediction.mask) == (None, None, mask)
    assert prediction.no_target is no_target


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


def test_empty_lines_are_passed_over_and_still_counted(tmp_path: Path) -> None:
    line = json.dumps(make_line())
    (tmp_path / "p.jsonl").write_text(f"\n{line}\r\n \n[]\n")
    predictions = read_predictions(tmp_path / "p.jsonl")
    assert next(predictions).id == "refcoco/1/2"
    with pytest.raises(DataError, match=r"line 4: not a JSON object"):
        next(predictions)


# What is refused


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"no json", "not JSON"),
        (b'{"id": "a"', "not JSON"),
        (b"{} {}", "not JSON"),
        (b"\xff\xfe\x00", "is no UTF-8: byte 1 is 0xff"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "not a JSON object"),
        (b"3", "not a JSON object"),
        (b'{"id": NaN}', "NaN is not a number in JSON"),
        (b'{"id": -Infinity}', "-Infinity is not a number in JSON"),
        (b"9" * 5000, "limit|not a JSON object"),
    ],
)
def test_a_line_that_is_no_json_object_is_named(tmp_path: Path, line: bytes, words: str) -> None:
    with pytest.raises(DataError, match=rf"p\.jsonl, line 7: .*({words})"):
        parse_prediction(line, tmp_path / "p.jsonl", 7)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"id": ...}, "has no 'id'"),
        ({"boxes": ..., "scores": ..., "mask": ...}, "has neither 'boxes' nor 'mask'"),
        ({"boxes": None, "scores": None, "mask": None}, "has neither 'boxes' nor 'mask'"),
        ({"boxes": ...}, "has 'scores', but no 'boxes' that they belong to"),
        ({"id": 12}, "id is 12, not a string"),
        ({"id": None}, "id is null, not a string"),
        ({"no_target": 1}, "no_target is 1, not true or false"),
        ({"no_target": "no"}, 'no_target is "no", not true or false'),
        ({"boxes": {"x0": 1}}, "not a list of boxes"),
        ({"boxes": [0, 0, 1, 2]}, "box 0 is not four finite numbers"),
        ({"boxes": [[0, 0, 1]]}, r"box \[0, 0, 1\] is not four finite numbers"),
        ({"boxes": [[0, 0, 1, 2, 3]]}, "is not four finite numbers"),
        ({"boxes": [[0, 0, 1, "2"]]}, "is not four finite numbers"),
        ({"boxes": [[0, 0, 1, True]]}, "is not four finite numbers"),
        ({"boxes": [[0, 0, 1, None]]}, "is not four finite numbers"),
        ({"boxes": [[0, 0, 1, [2]]]}, "is not four finite numbers"),
        ({"boxes": [[0, 0, 1e308, 2]]}, "lies beyond any image"),
        ({"boxes": [[-1e8, 0, 1, 2]]}, "lies beyond any image"),
        ({"boxes": [[2, 0, 1, 2]]}, r"box \[2, 0, 1, 2\] ends before it starts"),
        ({"boxes": [[0, 3, 1, 2]]}, r"box \[0, 3, 1, 2\] ends before it starts"),
        ({"scores": 0.75}, "scores is 0.75, not a list of numbers"),
        ({"scores": ["0.75"]}, "are not finite numbers"),
        ({"scores": [None]}, "are not finite numbers"),
        ({"scores": []}, "0 scores for 1 boxes"),
        ({"scores": [0.5, 0.75]}, "2 scores for 1 boxes"),
        ({"mask": [3, 4]}, "mask is not an object"),
        ({"mask": {"size": [3, 4]}}, "mask is not an object with 'size' and 'counts'"),
        ({"mask": {"counts": "<"}}, "mask is not an object with 'size' and 'counts'"),
        ({"mask": {"size": 12, "counts": "<"}}, r"mask size 12 is not \[height, width\]"),
        ({"mask": {"size": [3, 4, 1], "counts": "<"}}, r"is not \[height, width\]"),
        ({"mask": {"size": [3.0, 4], "counts": "<"}}, r"is not \[height, width\]"),
        ({"mask": {"size": [True, 12], "counts": "<"}}, r"is not \[height, width\]"),
        ({"mask": {"size": [0, 4], "counts": ""}}, r"is not \[height, width\]"),
        ({"mask": {"size": [-3, -4], "counts": "<"}}, r"is not \[height, width\]"),
        ({"mask": {"size": [1 << 40, 4], "counts": "<"}}, r"is not \[height, width\]"),
        ({"mask": {"size": [3, 4], "counts": ";"}}, "do not add up to the 12 pixels"),
        ({"mask": {"size": [3, 4], "counts": [12, 1]}}, "do not add up to the 12 pixels"),
        ({"mask": {"size": [3, 4], "counts": "~"}}, "no compressed string"),
        ({"mask": {"size": [3, 4], "counts": "é"}}, "do not add up|no compressed string"),
        ({"mask": {"size": [3, 4], "counts": None}}, "neither a string nor a list of whole numbers"),
        ({"mask": {"size": [3, 4], "counts": "b'02:'"}}, r"is str\(\) of bytes; write counts.decode\('ascii'\)"),
        ({"mask": {"size": [3, 4], "counts": 'b"02:"'}}, r"is str\(\) of bytes"),
        ({"mask": {"size": [3, 4], "counts": [0, 2.0, 10]}}, "counts holds 2.0, not a whole number; write int"),
    ],
)
def test_a_value_that_is_wrong_is_named_with_its_line(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError, match=rf"p\.jsonl, line 7: .*{words}"):
        parse(tmp_path, **changes)


@pytest.mark.parametrize("number", ["1e400", "-1e400", "1" + "0" * 400])
def test_a_number_beyond_double_precision_is_refused(tmp_path: Path, number: str) -> None:
    line = json.dumps(make_line(boxes=[[0, 0, 1, "N"]])).replace('"N"', number).encode()
    with pytest.raises(DataError, match=r"line 7: .*(finite|too large)"):
        parse_prediction(line, tmp_path / "p.jsonl", 7)


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
def test_a_file_of_another_kind_is_told_as_what_it_is(tmp_path: Path, data: bytes, words: str) -> None:
    (tmp_path / "p.jsonl").write_bytes(data)
    with pytest.raises(DataError, match=words):
        list(read_predictions(tmp_path / "p.jsonl"))


def test_a_byte_order_mark_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_bytes(b"\xef\xbb\xbf" + json.dumps(make_line()).encode())
    assert [prediction.id for prediction in read_predictions(tmp_path / "p.jsonl")] == ["refcoco/1/2"]


def test_the_remedy_points_to_what_a_line_holds(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="see the README for what a line holds"):
        parse(tmp_path, id=...)


def test_a_long_value_is_shortened_in_the_message(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="…") as caught:
        parse(tmp_path, boxes=["x" * 10_000])
    assert len(str(caught.value)) < 300 + len(str(tmp_path))


def test_a_file_that_is_missing_is_named_with_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere\.jsonl: no such file or folder; check the path"):
        next(read_predictions(tmp_path / "nowhere.jsonl"))


def test_a_folder_in_place_of_a_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is a folder, not a file; give a file"):
        next(read_predictions(tmp_path))


SOUND = json.dumps(make_line()).encode()


@given(st.data())
def test_a_line_damaged_anywhere_is_refused_by_its_number_or_is_a_prediction(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    file = tmp_path_factory.getbasetemp() / "p.jsonl"
    line = bytearray(SOUND)
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(line)))
        line[place : place + data.draw(st.integers(0, 4))] = data.draw(
            st.one_of(st.binary(max_size=3), st.sampled_from([b"0", b"-1", b"1e999", b"[", b"]", b'"', b"null", b"P"]))
        )
    check_answer(bytes(line), file)


@given(
    st.dictionaries(
        st.sampled_from(["id", "boxes", "scores", "mask", "no_target"]),
        st.recursive(
            st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=4)),
            lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["size", "counts"]), inner),
            max_leaves=8,
        ),
    )
)
def test_any_json_under_a_key_is_refused_by_its_line_or_is_a_prediction(
    tmp_path_factory: pytest.TempPathFactory, changes: dict[str, Any]
) -> None:
    check_answer(json.dumps(make_line() | changes).encode(), tmp_path_factory.getbasetemp() / "p.jsonl")


def check_answer(line: bytes, file: Path) -> None:
    """Either an error that names the line, or a prediction that everything later can rely on."""
    try:
        prediction, fault = parse_prediction(line, file, 31), None
    except DataError as error:
        prediction, fault = None, str(error)
    if prediction is None:
        assert f"{file}, line 31: " in str(fault)
        return
    assert isinstance(prediction.id, str)
    assert isinstance(prediction.no_target, bool)
    assert prediction.boxes is not None or prediction.mask is not None
    boxes = np.array(prediction.boxes or [], dtype=np.float64).reshape(-1, 4)
    assert np.isfinite(boxes).all()
    assert (boxes[:, 2:] >= boxes[:, :2]).all()
    if prediction.scores is not None:
        assert np.isfinite(np.array(prediction.scores, dtype=np.float64)).all()
        assert len(prediction.scores) == len(boxes)
    if prediction.mask is not None:
        assert list(decode_mask(prediction.mask).shape) == prediction.mask["size"]


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
    for number, part in enumerate(parts):
        write_predictions(part, [make_prediction(number)])
    parts[0].write_bytes(parts[0].read_bytes()[:-1])
    with pytest.raises(DataError, match=r"/a, line 1: .*breaks off"):
        merge_parts(parts, tmp_path / "out")


def test_a_mask_of_a_whole_picture_is_read(tmp_path: Path) -> None:
    whole = encode_mask(np.ones((200, 300), dtype=bool))
    assert parse(tmp_path, mask=whole).mask == whole
