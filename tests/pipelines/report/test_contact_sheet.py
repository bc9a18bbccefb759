"""Contact sheets: every overlay is on them, in the order of the tiles, at a size that a person can read."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from pipelines.report.contact_sheet import Panel, Tile, draw_sheet

COLORS = [(200, 30, 30), (30, 200, 30), (30, 30, 200), (200, 200, 30), (200, 30, 200), (30, 200, 200), (90, 10, 150)]


def make_tiles(sizes: list[tuple[int, int]], panels: int = 1) -> list[Tile]:
    colors = iter(COLORS * 10)
    return [
        Tile(
            title=f"tile {number}",
            panels=tuple(Panel(title="", overlay=Image.new("RGB", size, next(colors))) for _ in range(panels)),
        )
        for number, size in enumerate(sizes)
    ]


def find_color(sheet: Image.Image, color: tuple[int, int, int]) -> tuple[int, int, int, int]:
    """The box x0, y0, x1, y1 of all pixels of a color."""
    rows, columns = np.nonzero((np.asarray(sheet) == color).all(axis=2))
    return int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1


@pytest.mark.parametrize("panels", [1, 2])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_every_overlay_is_whole_and_they_do_not_overlap(count: int, panels: int) -> None:
    sizes = [(640, 500), (400, 640), (330, 200)][:count]
    sheet = draw_sheet(make_tiles(sizes, panels))
    boxes = []
    for index in range(count * panels):
        x0, y0, x1, y1 = find_color(sheet, COLORS[index])
        assert (x1 - x0, y1 - y0) == sizes[index // panels]
        assert (np.asarray(sheet)[y0:y1, x0:x1] == COLORS[index]).all()
        boxes.append((y0 // 100, x0))
    assert sheet.width <= 4000


def test_tiles_stand_in_rows_from_left_to_right() -> None:
    sheet = draw_sheet(make_tiles([(640, 640)] * 4))
    corners = [find_color(sheet, color)[:2] for color in COLORS[:4]]
    assert corners[0][1] == corners[1][1] < corners[2][1] == corners[3][1]
    assert corners[0][0] == corners[2][0] < corners[1][0] == corners[3][0]


def test_large_overlays_are_reduced_and_panels_are_never_narrower_than_320_pixels() -> None:
    sheet = draw_sheet(make_tiles([(4000, 1000)]))
    x0, y0, x1, y1 = find_color(sheet, COLORS[0])
    assert (x1 - x0, y1 - y0) == (640, 160)
    many = draw_sheet(make_tiles([(640, 640)] * 30))
    assert find_color(many, COLORS[0])[2] - find_color(many, COLORS[0])[0] >= 320
