"""Captions and labels of overlays."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from pipelines.report.overlay_labels import place_labels
from pipelines.report.overlay_text import MAX_LINES, choose_font, load_font, measure_text, wrap_text


def test_long_expressions_take_several_lines_that_fit() -> None:
    block = wrap_text("the large red circle left of the small star", 16, 150)
    assert len(block.lines) > 1
    assert " ".join(block.lines) == "the large red circle left of the small star"
    assert all(measure_text(line, block.font)[0] <= 150 for line in block.lines)


@pytest.mark.parametrize("text", ["word " * 5000, "x" * 100_000, "the " + "y" * 3000])
def test_a_huge_expression_ends_in_an_ellipsis(text: str) -> None:
    block = wrap_text(text, 16, 300)
    assert len(block.lines) == MAX_LINES
    assert block.lines[-1].endswith("…")
    assert all(measure_text(line, block.font)[0] <= 300 for line in block.lines)


def test_a_word_that_is_longer_than_a_line_is_broken() -> None:
    block = wrap_text("see " + "x" * 60, 16, 200)
    assert "".join(block.lines) == "see" + "x" * 60
    assert len(block.lines) < MAX_LINES


@pytest.mark.parametrize(("text", "line"), [("", ""), (" \t", ""), ("two\nlines\x00here", "two lines here")])
def test_characters_that_cannot_be_printed_become_spaces(text: str, line: str) -> None:
    assert wrap_text(text, 16, 300).lines == (line,)


@pytest.mark.parametrize(("text", "expected"), [("car 1", False), ("12 שלום car", True), ("مرحبا", True), ("…", False)])
def test_text_is_right_to_left_by_its_first_letter(text: str, expected: bool) -> None:
    block = wrap_text(text, 16, 300)
    assert block.right_to_left is expected
    image = Image.new("RGB", (400, 60))
    block.draw(image, (20, 0, 380, 60), (255, 255, 255))
    columns = np.flatnonzero(np.asarray(image).any(axis=(0, 2)))
    assert bool(columns[-1] > 370) is expected
    assert bool(columns[0] < 30) is not expected


def test_a_font_is_chosen_that_has_the_characters_if_the_system_has_one() -> None:
    assert choose_font("thecar", 20) is load_font(None, 20)
    try:
        load_font("DejaVuSans.ttf", 20)
    except OSError:
        pytest.skip("the system has no DejaVu Sans")
    assert choose_font("машина", 20).getname()[0] == "DejaVu Sans"  # type: ignore[union-attr]


def test_characters_that_the_system_may_have_no_font_for_are_drawn_all_the_same() -> None:
    block = wrap_text("雪", 16, 300)
    image = Image.new("RGB", (100, 40))
    block.draw(image, (0, 0, 100, 40), (255, 255, 255))
    assert image.getbbox() is not None


CANVAS = (640, 480)


def overlaps(corners: list[tuple[int, int]], size: tuple[int, int]) -> int:
    return sum(
        abs(one[0] - other[0]) < size[0] and abs(one[1] - other[1]) < size[1]
        for index, one in enumerate(corners)
        for other in corners[:index]
    )


def test_a_label_stands_above_its_box() -> None:
    assert place_labels([(100, 100, 200, 200)], [(50, 20)], CANVAS) == [(100, 80)]


@pytest.mark.parametrize(
    "box", [(0, 0, 20, 20), (630, 0, 640, 20), (0, 470, 10, 480), (0, 0, 640, 480), (-9, -9, 900, 900)]
)
def test_labels_are_inside_the_canvas(box: tuple[int, int, int, int]) -> None:
    ((x, y),) = place_labels([box], [(50, 20)], CANVAS)
    assert 0 <= x <= 590
    assert 0 <= y <= 460


@pytest.mark.parametrize("box", [(100, 100, 200, 200), (0, 0, 640, 480), (635, 475, 640, 480)])
@pytest.mark.parametrize("count", [2, 9, 20])
def test_labels_of_one_box_do_not_cover_each_other(box: tuple[int, int, int, int], count: int) -> None:
    assert not overlaps(place_labels([box] * count, [(50, 20)] * count, CANVAS), (50, 20))


def test_more_labels_than_the_canvas_holds_are_placed_all_the_same() -> None:
    corners = place_labels([(0, 0, 40, 30)] * 30, [(30, 20)] * 30, (60, 40))
    assert len(corners) == 30
    assert all(0 <= x <= 30 and 0 <= y <= 20 for x, y in corners)


def test_a_label_that_is_larger_than_the_canvas_begins_in_its_corner() -> None:
    assert place_labels([(0, 0, 1, 1)], [(50, 20)], (10, 10)) == [(0, 0)]
