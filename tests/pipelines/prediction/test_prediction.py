"""One line of a prediction file: what may be left out, what is refused, and that nothing else happens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.prediction.prediction import Prediction, parse_prediction
from shards.errors import DataError
from shards.masks import decode_mask, encode_mask
from shards.record import Rle
from tests.support.prediction_lines import CORNER, EMPTY, make_line


def parse(tmp_path: Path, **changes: Any) -> Prediction:
    return parse_prediction(json.dumps(make_line(**changes)).encode(), tmp_path / "p.jsonl", 7)


def test_scores_may_be_left_out(tmp_path: Path) -> None:
    assert parse(tmp_path, scores=...).scores is None


def test_scores_may_be_null(tmp_path: Path) -> None:
    assert parse(tmp_path, scores=None).scores is None


@pytest.mark.parametrize("left_out", [..., None])
@pytest.mark.parametrize(
    ("boxes", "mask", "no_target"),
    [([], EMPTY, True), ([], CORNER, False), ([[0, 0, 1, 2]], EMPTY, False), ([[0, 0, 1, 2]], CORNER, False)],
)
def test_by_default_no_target_is_true_if_there_is_neither_box_nor_pixel(
    tmp_path: Path, left_out: Any, boxes: list[Any], mask: Rle, no_target: bool
) -> None:
    assert parse(tmp_path, boxes=boxes, scores=..., mask=mask, no_target=left_out).no_target is no_target


@pytest.mark.parametrize(("boxes", "mask", "no_target"), [([], EMPTY, False), ([[0, 0, 1, 2]], CORNER, True)])
def test_no_target_is_taken_as_it_is_whatever_boxes_and_mask_hold(
    tmp_path: Path, boxes: list[Any], mask: Rle, no_target: bool
) -> None:
    assert parse(tmp_path, boxes=boxes, scores=..., mask=mask, no_target=no_target).no_target is no_target


def test_run_lengths_may_be_a_list(tmp_path: Path) -> None:
    assert parse(tmp_path, mask={"size": [3, 4], "counts": [0, 2, 10]}).mask == CORNER


def test_keys_that_are_not_known_are_skipped(tmp_path: Path) -> None:
    assert parse(tmp_path, model="another") == parse(tmp_path)


def test_boxes_without_any_area_are_taken(tmp_path: Path) -> None:
    assert parse(tmp_path, boxes=[[2, 1, 2, 1]]).boxes == [[2, 1, 2, 1]]


@pytest.mark.parametrize("left_out", [..., None])
@pytest.mark.parametrize(("boxes", "no_target"), [([], True), ([[0, 0, 1, 2]], False)])
def test_without_a_mask_no_target_is_true_if_there_is_no_box(
    tmp_path: Path, left_out: Any, boxes: list[Any], no_target: bool
) -> None:
    prediction = parse(tmp_path, mask=left_out, boxes=boxes, scores=..., no_target=...)
    assert (prediction.boxes, prediction.mask, prediction.no_target) == (boxes, None, no_target)


@pytest.mark.parametrize("left_out", [..., None])
@pytest.mark.parametrize(("mask", "no_target"), [(EMPTY, True), (CORNER, False)])
def test_without_boxes_no_target_is_true_if_the_mask_is_empty(
    tmp_path: Path, left_out: Any, mask: Rle, no_target: bool
) -> None:
    prediction = parse(tmp_path, boxes=left_out, scores=left_out, mask=mask, no_target=...)
    assert (prediction.boxes, prediction.scores, prediction.mask) == (None, None, mask)
    assert prediction.no_target is no_target


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
def test_an_invalid_value_is_named_with_its_line(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError, match=rf"p\.jsonl, line 7: .*{words}"):
        parse(tmp_path, **changes)


@pytest.mark.parametrize("number", ["1e400", "-1e400", "1" + "0" * 400])
def test_a_number_beyond_double_precision_is_refused(tmp_path: Path, number: str) -> None:
    line = json.dumps(make_line(boxes=[[0, 0, 1, "N"]])).replace('"N"', number).encode()
    with pytest.raises(DataError, match=r"line 7: .*(finite|too large)"):
        parse_prediction(line, tmp_path / "p.jsonl", 7)


def test_the_remedy_points_to_what_a_line_holds(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"see docs/formats\.md for what a line holds"):
        parse(tmp_path, id=...)


def test_a_long_value_is_shortened_in_the_message(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="…") as caught:
        parse(tmp_path, boxes=["x" * 10_000])
    assert len(str(caught.value)) < 300 + len(str(tmp_path))


VALID = json.dumps(make_line()).encode()


@given(st.data())
def test_a_line_damaged_anywhere_is_refused_by_its_line_or_is_a_prediction(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    file = tmp_path_factory.getbasetemp() / "p.jsonl"
    line = bytearray(VALID)
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(line)))
        line[start : start + data.draw(st.integers(0, 4))] = data.draw(
            st.one_of(st.binary(max_size=3), st.sampled_from([b"0", b"-1", b"1e999", b"[", b"]", b'"', b"null", b"P"]))
        )
    check_prediction(bytes(line), file)


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
    check_prediction(json.dumps(make_line() | changes).encode(), tmp_path_factory.getbasetemp() / "p.jsonl")


def check_prediction(line: bytes, file: Path) -> None:
    """Either an error that names the line, or a prediction that everything later can rely on."""
    try:
        prediction, message = parse_prediction(line, file, 31), None
    except DataError as error:
        prediction, message = None, str(error)
    if prediction is None:
        assert f"{file}, line 31: " in str(message)
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


def test_a_mask_of_a_whole_image_is_read(tmp_path: Path) -> None:
    mask = encode_mask(np.ones((200, 300), dtype=bool))
    assert parse(tmp_path, mask=mask).mask == mask
