"""Predictions that are well-formed and still dangerous, and errors that occur more than once."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.config.settings import ScoreSettings
from pipelines.evaluation.metrics.outcomes import count_mask_pixels
from pipelines.prediction.prediction import parse_prediction
from pipelines.stages import score
from shards.errors import DataError
from shards.masks import decode_mask, decode_rle_counts, encode_mask, merge_rles, rle_to_box
from tests.support.drawn_shards import fill, predict_truth, write_lines, write_shards

Line = dict[str, Any]
HEIGHT, WIDTH = 3, 4


def read_mask(counts: list[int] | str, height: int = HEIGHT, width: int = WIDTH) -> Any:
    line = {"id": "x/1/1", "boxes": [], "mask": {"size": [height, width], "counts": counts}}
    return parse_prediction(json.dumps(line).encode(), Path("p.jsonl"), 1).mask


def compress(runs: list[int]) -> str:
    """COCO's string for run lengths as they are, runs of no pixels included."""
    text = ""
    for position, run in enumerate(runs):
        rest, more = run - (runs[position - 2] if position > 2 else 0), True
        while more:
            group, rest = rest & 0x1F, rest >> 5
            more = rest != (-1 if group & 0x10 else 0)
            text += chr(48 + group + 0x20 * more)
    return text


def paint(runs: list[int], height: int = HEIGHT, width: int = WIDTH) -> Any:
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(width, height).T


def sort_cuts(cuts: list[int]) -> list[int]:
    bounds = [0, *sorted(cuts), HEIGHT * WIDTH]
    return [end - start for start, end in pairwise(bounds)]


runs_with_zeros = st.lists(st.integers(0, HEIGHT * WIDTH), max_size=30).map(sort_cuts)
"""Run lengths of a small image; equal cuts leave runs of no pixels."""


@pytest.mark.parametrize("form", [list, compress])
def test_a_run_of_no_pixels_does_not_end_the_mask(form: Any) -> None:
    # COCO's merge stops where both masks have a run of no pixels: it would count an intersection of 0 pixels here.
    runs = [3, 0, 2, 5, 2]
    mask = read_mask(form(runs))
    assert count_mask_pixels(mask, mask) == (5, 5, 5)


@pytest.mark.parametrize("form", [list, compress])
def test_thousands_of_runs_of_no_pixels_leave_memory_alone(form: Any) -> None:
    # COCO's merge takes memory for one run a pixel: these would be written past its end.
    mask = read_mask(form([0] * 4000 + [1]), 1, 1)
    assert decode_rle_counts(mask["counts"].encode()).tolist() == [1]
    assert count_mask_pixels(mask, encode_mask(np.ones((1, 1), dtype=bool))) == (0, 1, 0)


def test_a_first_run_of_no_pixels_is_how_masks_start_at_the_corner() -> None:
    assert read_mask("02:") == {"size": [3, 4], "counts": "02:"}


@pytest.mark.parametrize("form", [list, compress])
@given(data=st.data())
def test_whatever_run_lengths_are_read_pixels_are_counted_exactly(form: Any, data: st.DataObject) -> None:
    first, second = data.draw(runs_with_zeros), data.draw(runs_with_zeros)
    masks, pixels = [read_mask(form(runs)) for runs in (first, second)], [paint(first), paint(second)]
    for mask, painted in zip(masks, pixels, strict=True):
        assert (decode_mask(mask) == painted).all()
        assert rle_to_box(mask) == rle_to_box(encode_mask(painted))
    assert count_mask_pixels(*masks) == (pixels[0].sum(), pixels[1].sum(), (pixels[0] & pixels[1]).sum())
    assert (decode_mask(merge_rles(masks, HEIGHT, WIDTH)) == (pixels[0] | pixels[1])).all()


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ('{"id":"a","id":"b","boxes":[],"mask":{"size":[1,1],"counts":[1]}}', "id"),
        ('{"id":"a","boxes":[],"mask":{"size":[1,1],"counts":[1],"counts":[0,1]}}', "counts"),
        ('{"id":"a","boxes":[],"mask":{"size":[1,1],"counts":[1]},"extra":{"x":1,"x":1}}', "x"),
    ],
)
def test_a_key_that_occurs_twice_is_refused(line: str, key: str) -> None:
    with pytest.raises(DataError, match=rf'p\.jsonl, line 7: has "{key}" more than once'):
        parse_prediction(line.encode(), Path("p.jsonl"), 7)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shards(tmp_path_factory.mktemp("shards"))


def refuse(folder: Path, shards: Path, lines: list[Line]) -> str:
    with pytest.raises(DataError) as caught:
        score.run(write_lines(folder / "p.jsonl", lines), shards, ScoreSettings(split="val"))
    return str(caught.value)


def test_the_first_of_several_expressions_given_twice_are_named_once(tmp_path: Path, shards: Path) -> None:
    lines = predict_truth()
    message = refuse(tmp_path, shards, lines[:2] + lines[:2] + lines + lines[3:5])
    assert message.endswith(
        "p.jsonl: grefcoco/1/0, grefcoco/1/1, grefcoco/1/3 and 1 more are given twice; keep one line of each"
    )


def test_the_first_of_several_masks_of_wrong_sizes_are_named_and_the_others_counted(
    tmp_path: Path, shards: Path
) -> None:
    wrong = {"size": [1, 1], "counts": [1]}
    message = refuse(tmp_path, shards, [line | {"mask": wrong if n > 6 else fill()} for n, line in
                                        enumerate(predict_truth())])  # fmt: skip
    for name in ("grefcoco/2/3", "grefcoco/3/0", "grefcoco/3/1"):
        assert f"the mask of {name} has size [1, 1], its image [8, 12]" in message
    assert "grefcoco/3/2" not in message
    assert message.startswith(f"{tmp_path / 'p.jsonl'}: ")
    assert message.endswith("and 2 more; give masks at the original image's size")
