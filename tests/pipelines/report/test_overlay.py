"""What an overlay shows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pipelines.report.overlay import DEFAULT_LAYERS, OverlayContent, draw_overlay, project_box
from pipelines.report.overlay_canvas import MAX_PIXELS, plan_canvas, resize_mask, trace_edge
from pipelines.report.overlay_colors import OKABE_ITO, WHITE, contrast_ratio, pick_colors, pick_text_color

Pixels = NDArray[np.uint8]
SIZE = (800, 600)
"""Width and height: drawn as they are."""
GRAY = np.full((600, 800, 3), 100, dtype=np.uint8)
NOTHING = OverlayContent(
    boxes=np.zeros((0, 4)),
    scores=np.zeros(0),
    mask=np.zeros((600, 800), dtype=bool),
    instance_masks=np.zeros((0, 600, 800), dtype=bool),
    points=np.zeros((0, 2)),
)


def content(**changes: Any) -> OverlayContent:
    mask = np.zeros((600, 800), dtype=bool)
    mask[200:500, 300:700] = True
    values = {
        "boxes": np.array([[300.0, 200, 700, 500]]), "scores": np.array([0.9]), "mask": mask,
        "instance_masks": mask[None], "points": np.array([[500.0, 350]]),
    }  # fmt: skip
    return OverlayContent(**values | changes)


def draw(expression: str = "the star", show: Any = DEFAULT_LAYERS, **changes: Any) -> Pixels:
    return np.asarray(draw_overlay(GRAY, expression, content(**changes), show=show))


def test_the_image_is_shown_above_a_caption() -> None:
    overlay = draw()
    assert overlay.shape[1] == 800
    assert overlay.shape[0] > 600
    np.testing.assert_array_equal(overlay[:150, :250], GRAY[:150, :250])


def test_a_mask_is_tinted_in_the_color_of_its_instance_and_the_rest_is_not() -> None:
    overlay = draw()
    shares = [
        (level - 100) / (color - 100)
        for level, color in zip(overlay[250, 640].tolist(), pick_colors(1)[0], strict=True)
        if abs(color - 100) > 70
    ]
    assert shares == pytest.approx([0.45] * len(shares), abs=0.02)
    assert (overlay[50, 750] == 100).all()


def test_what_no_instance_covers_of_the_mask_is_tinted_white() -> None:
    whole = content().mask.copy()
    whole[200:500, 100:300] = True
    overlay = draw(mask=whole)
    assert (overlay[350, 100] == 255).all()
    assert (overlay[350, 200] > 100).all()
    assert len(set(overlay[350, 200].tolist())) == 1


def test_the_point_is_marked_in_the_color_of_its_box() -> None:
    assert tuple(draw()[350, 500].tolist()) == pick_colors(1)[0]


@pytest.mark.parametrize("layer", DEFAULT_LAYERS)
def test_each_layer_shows_what_the_others_do_not(layer: str) -> None:
    alone, rest, every, none = draw(show={layer}), draw(show=set(DEFAULT_LAYERS) - {layer}), draw(), draw(show=())
    assert (alone != none).any()
    assert (rest != every).any()
    mask, edge, point = every[250, 640], every[200, 500], every[350, 500]
    shown = {"masks": mask, "boxes": edge, "points": point}[layer]
    places = {"masks": (250, 640), "boxes": (200, 500), "points": (350, 500)}
    np.testing.assert_array_equal(alone[places[layer]], shown)
    assert (none[places[layer]] == 100).all()


def test_without_a_target_a_banner_says_so_and_no_mask_is_drawn_even_if_the_result_has_one() -> None:
    empty, filled = (
        np.asarray(draw_overlay(GRAY, "star", OverlayContent(
            boxes=NOTHING.boxes, scores=NOTHING.scores, mask=mask, instance_masks=NOTHING.instance_masks)))
        for mask in (NOTHING.mask, content().mask)
    )  # fmt: skip
    np.testing.assert_array_equal(empty, filled)
    banner = len(empty) - len(draw("star"))
    assert banner > 20
    assert tuple(empty[2, 2].tolist()) == OKABE_ITO[5]
    np.testing.assert_array_equal(empty[banner : banner + 600], GRAY)
    np.testing.assert_array_equal(empty[banner + 600 :], draw("star")[600:])


@pytest.mark.parametrize(
    ("size", "expected"),
    [((150, 100), (640, 427)), ((1, 1), (640, 640)), ((640, 480), (640, 480)), ((4000, 3000), (2309, 1732)),
     ((10000, 100), (10000, 100)), ((600, 2), (640, 2)), ((30000, 2), (30000, 2))],
)  # fmt: skip
def test_small_images_are_enlarged_and_large_ones_reduced(size: tuple[int, int], expected: tuple[int, int]) -> None:
    canvas = plan_canvas(*size)
    assert canvas.size == expected
    assert max(canvas.size) >= 640
    assert canvas.size[0] * canvas.size[1] <= MAX_PIXELS * 1.001
    assert min(canvas.full_size) >= 120
    assert canvas.font_size >= 14


def test_boxes_and_masks_are_drawn_at_the_enlarged_resolution() -> None:
    small = np.full((75, 100, 3), 100, dtype=np.uint8)
    mask = np.zeros((75, 100), dtype=bool)
    mask[20:60, 30:80] = True
    found = OverlayContent(
        boxes=np.array([[30.0, 20, 80, 60]]), scores=np.array([0.5]), mask=mask, instance_masks=mask[None]
    )
    overlay = np.asarray(draw_overlay(small, "star", found, show={"masks"}))
    assert project_box(found.boxes[0], plan_canvas(100, 75)) == pytest.approx((192, 128, 512, 384))
    tinted = np.flatnonzero((overlay[320] != 100).any(axis=1))
    assert abs(tinted[0] - 192) <= 1
    assert abs(tinted[-1] - 511) <= 1
    # A clean edge: from the image to the outline within two pixels.
    assert (overlay[320, tinted[0] + 1] > 200).all()


def test_an_image_that_was_reduced_before_is_drawn_with_the_boxes_of_the_original() -> None:
    quarter = np.full((150, 200, 3), 100, dtype=np.uint8)
    overlay = draw_overlay(quarter, "the star", content(), image_size=SIZE)
    np.testing.assert_array_equal(np.asarray(overlay), draw())


def test_the_edge_of_a_slanted_mask_has_no_steps() -> None:
    rows, columns = np.mgrid[:80, :80]
    coverage = np.asarray(resize_mask(rows > columns, plan_canvas(80, 80))).astype(int)
    starts = (coverage > 127).argmax(axis=0)[100:540]
    assert np.abs(np.diff(starts)).max() <= 2


def test_the_image_s_border_is_no_edge_of_a_mask() -> None:
    whole = Image.new("L", (50, 40), 255)
    assert trace_edge(whole, 2).getbbox() is None
    half = Image.new("L", (50, 40))
    half.paste(255, (0, 0, 20, 40))
    assert trace_edge(half, 2).getbbox() == (18, 0, 20, 40)


def test_every_instance_has_a_label_inside_the_image() -> None:
    corners = np.array([[0.0, 0, 30, 30], [770, 0, 800, 30], [0, 570, 30, 600], [770, 570, 800, 600]])
    masks = np.zeros((4, 600, 800), dtype=bool)
    overlay = draw(boxes=corners, scores=np.full(4, 0.9), mask=masks[0], instance_masks=masks, points=None)
    for color in pick_colors(4):
        rows, columns = np.nonzero((overlay == color).all(axis=2))
        assert len(rows) > 400, "a filled label"
        assert rows.max() < 600
        assert columns.max() - columns.min() > 35


def test_without_scores_labels_are_numbers_alone() -> None:
    numbers, scores = (draw(scores=values, show={"masks"}, points=None) for values in (None, np.array([0.9])))
    widths = [np.ptp(np.nonzero((one == pick_colors(1)[0]).all(axis=2))[1]) for one in (numbers, scores)]
    assert widths[0] < widths[1] - 15


def test_without_boxes_labels_stand_in_the_middle() -> None:
    overlay = draw(show={"masks"}, points=None)
    rows, columns = np.nonzero((overlay == pick_colors(1)[0]).all(axis=2))
    assert 480 < columns.mean() < 520
    assert 330 < rows.mean() < 370


@pytest.mark.parametrize("count", [0, 1, 7, 35])
def test_colors_differ(count: int) -> None:
    assert len(set(pick_colors(count))) == count


def test_more_instances_than_colors_are_colored_all_the_same() -> None:
    assert len(pick_colors(100)) == 100


def test_text_can_be_read_on_every_color() -> None:
    assert contrast_ratio((0, 0, 0), WHITE) == pytest.approx(21)
    for color in pick_colors(35):
        assert contrast_ratio(color, pick_text_color(color)) >= 4.5


def test_the_attention_map_is_laid_over_the_image_where_it_is_high() -> None:
    attention = np.zeros((10, 10), dtype=np.uint8)
    attention[2, 2] = 255
    plain, heat = (draw(show={"attention"}, attention=one) for one in (np.zeros_like(attention), attention))
    assert (plain[:600] < GRAY).all()
    assert heat[150, 200, 0] > 150 > 100 > heat[150, 200, 2]
    np.testing.assert_array_equal(heat[400:], plain[400:])


def test_attention_is_shown_only_if_it_is_asked_for_and_there_is_one() -> None:
    attention = np.full((10, 10), 200, dtype=np.uint8)
    np.testing.assert_array_equal(draw(attention=attention), draw())
    np.testing.assert_array_equal(draw(show={"attention"}), draw(show=()))
    assert (draw(show={*DEFAULT_LAYERS, "attention"}, attention=attention) != draw()).any()
