"""What a drawn answer shows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pipelines.report.overlay import draw_overlay, pick_colors, trace_outline

GREY = np.full((60, 80, 3), 100, dtype=np.uint8)


def draw(expression: str = "the star", **changes: Any) -> np.ndarray[Any, np.dtype[np.uint8]]:
    mask = np.zeros((60, 80), dtype=bool)
    mask[20:50, 30:70] = True
    answer = {
        "mask": mask, "boxes": np.array([[30.0, 20, 70, 50]]), "scores": np.array([0.9]),
        "instance_masks": mask[None], "points": np.array([[50.0, 35]]),
    }  # fmt: skip
    return np.asarray(draw_overlay(GREY, expression, **answer | changes))


def test_the_image_is_shown_above_a_caption() -> None:
    overlay = draw()
    assert overlay.shape[1] == 80
    assert overlay.shape[0] > 60
    np.testing.assert_array_equal(overlay[:15, :25], GREY[:15, :25])


def test_a_mask_is_tinted_and_the_rest_is_not() -> None:
    overlay = draw()
    assert (overlay[25, 64] != 100).any()
    assert (overlay[5, 75] == 100).all()


def test_the_point_is_marked_in_the_color_of_its_box() -> None:
    assert tuple(draw()[35, 50].tolist()) == pick_colors(1)[0]


def test_the_answer_to_an_empty_target_is_the_image_itself() -> None:
    nothing = np.zeros((60, 80), dtype=bool)
    overlay = draw(
        mask=nothing, boxes=np.zeros((0, 4)), scores=np.zeros(0), instance_masks=nothing[None][:0],
        points=np.zeros((0, 2)),
    )  # fmt: skip
    np.testing.assert_array_equal(overlay[:60], GREY)


def test_long_phrases_take_several_lines() -> None:
    assert len(draw("the large red circle left of the small star")) > len(draw("star"))


@pytest.mark.parametrize("count", [0, 1, 10])
def test_colors_differ(count: int) -> None:
    assert len(set(pick_colors(count))) == count


def test_an_outline_is_one_pixel_inside() -> None:
    mask = np.zeros((5, 6), dtype=bool)
    mask[1:4, 1:5] = True
    outline = trace_outline(mask)
    assert outline.sum() == 10
    assert not outline[2, 2:4].any()


def test_the_image_s_border_is_no_outline() -> None:
    assert not trace_outline(np.ones((4, 5), dtype=bool)).any()


def test_the_answer_s_mask_has_a_white_outline_and_what_no_query_covers_is_tinted_white() -> None:
    instance = np.zeros((60, 80), dtype=bool)
    instance[20:50, 30:70] = True
    whole = instance.copy()
    whole[20:50, 10:30] = True
    overlay = draw(mask=whole, instance_masks=instance[None])
    alone = draw(mask=instance, instance_masks=instance[None])
    assert (overlay[20:50, 10] == 255).all()
    assert (overlay[49, 11:29] == 255).all()
    assert (overlay[35, 20] > 100).all()
    assert len(set(overlay[35, 20].tolist())) == 1
    # Where the instance lies, its color alone shows: mixed with white, the shares of the channels would differ.
    shares = [
        (level - 100) / (color - 100) for level, color in zip(overlay[46, 64].tolist(), pick_colors(1)[0], strict=True)
    ]
    assert shares == pytest.approx([shares[0]] * 3, abs=0.02)
    assert 0 < shares[0] < 1
    np.testing.assert_array_equal(overlay[46, 60:68], alone[46, 60:68])


def test_the_caption_says_where_there_is_no_target() -> None:
    nothing = np.zeros((60, 80), dtype=bool)
    empty = {
        "mask": nothing, "boxes": np.zeros((0, 4)), "scores": np.zeros(0), "instance_masks": nothing[None][:0],
        "points": np.zeros((0, 2)),
    }  # fmt: skip
    np.testing.assert_array_equal(draw("star", **empty)[60:], draw("star  (no target)")[60:])
    assert len(draw("star", **empty)) > len(draw("star"))
