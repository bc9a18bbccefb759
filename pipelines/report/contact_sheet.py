"""A contact sheet: overlays of several examples on one image, each under a line that says what it is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from pipelines.report.overlay_canvas import FRAME_COLOR, MIN_WIDTH
from pipelines.report.overlay_colors import WHITE, Color
from pipelines.report.overlay_text import wrap_text

PANEL_SIDE = 640
"""Pixels of a panel's longer side; 480 on sheets of many."""
_SMALL_SIDE, _MANY = 480, 24
_GAP, _FONT = 12, 18
_PAGE_COLOR: Color = (64, 64, 64)


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One overlay of a tile."""

    title: str
    """Stands above it, e.g. "prediction"; may be empty."""
    overlay: Image.Image


@dataclass(frozen=True, kw_only=True)
class Tile:
    """One example: a title, and its panels side by side."""

    title: str
    panels: tuple[Panel, ...]


def draw_sheet(tiles: Sequence[Tile]) -> Image.Image:
    """Arrange tiles in rows from left to right, in about as many columns as rows; at least one tile."""
    panels = max(len(tile.panels) for tile in tiles)
    side = PANEL_SIDE if sum(len(tile.panels) for tile in tiles) <= _MANY else _SMALL_SIDE
    overlays = [[_fit(panel.overlay, side) for panel in tile.panels] for tile in tiles]
    # Sheets of upright images are narrower.
    panel_width = max(MIN_WIDTH, *(overlay.width for shown in overlays for overlay in shown))
    width = panels * panel_width + (panels - 1) * _GAP
    drawn = [_draw_tile(tile, shown, panel_width, width) for tile, shown in zip(tiles, overlays, strict=True)]
    columns = max(1, min(len(drawn), round(math.sqrt(len(drawn) / panels))))
    rows = [drawn[first : first + columns] for first in range(0, len(drawn), columns)]
    heights = [max(tile.height for tile in row) for row in rows]
    sheet = Image.new(
        "RGB", (columns * (width + _GAP) + _GAP, sum(heights) + _GAP * (len(rows) + 1)), _PAGE_COLOR
    )  # fmt: skip
    top = _GAP
    for row, height in zip(rows, heights, strict=True):
        for column, tile in enumerate(row):
            sheet.paste(tile, (_GAP + column * (width + _GAP), top))
        top += height + _GAP
    return sheet


def _draw_tile(tile: Tile, overlays: Sequence[Image.Image], panel_width: int, width: int) -> Image.Image:
    """A tile of a fixed width, as high as its panels and titles need."""
    head = wrap_text(tile.title, _FONT, width - _GAP, max_lines=2)
    captions = [wrap_text(panel.title, _FONT, panel_width - _GAP, max_lines=1) for panel in tile.panels]
    titled = any(panel.title for panel in tile.panels)
    top = head.height + (max(caption.height for caption in captions) if titled else 0) + _GAP
    drawn = Image.new("RGB", (width, top + max(overlay.height for overlay in overlays)), FRAME_COLOR)
    head.draw(drawn, (_GAP // 2, _GAP // 2, width - _GAP // 2, head.height), WHITE)
    for index, (overlay, caption) in enumerate(zip(overlays, captions, strict=True)):
        left = index * (panel_width + _GAP)
        caption.draw(drawn, (left + _GAP // 2, head.height + _GAP // 2, left + panel_width, top), WHITE)
        drawn.paste(overlay, (left + (panel_width - overlay.width) // 2, top))
    return drawn


def _fit(overlay: Image.Image, side: int) -> Image.Image:
    """An overlay at most `side` pixels wide, and at most half as high again."""
    scale = min(1.0, side / overlay.width, 1.5 * side / overlay.height)
    if scale == 1:
        return overlay
    size = max(1, round(overlay.width * scale)), max(1, round(overlay.height * scale))
    return overlay.resize(size, Image.Resampling.LANCZOS)
