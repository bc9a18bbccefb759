"""Masks in the browser equal those of COCO's own code."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from playwright.sync_api import Page

from shards.masks import encode_mask, rle_area
from tests.support.browser import launch_browser, needs_chromium, open_tab
from tests.support.paths import ROOT

pytestmark = needs_chromium

STATIC = ROOT / "pipelines" / "report" / "static"
# Height, width, share of pixels inside.
DRAWN = [(1, 1, 0), (1, 1, 1), (7, 5, 0.5), (1, 40, 0.5), (40, 1, 0.5), (64, 48, 0.02), (48, 64, 0.98), (3, 900, 0.5)]
FILL = """
(mask) => {
  const [height, width] = mask.size;
  const context = new OffscreenCanvas(width, height).getContext("2d");
  context.fill(igvg.masks.toPath(mask), "evenodd");
  return [...context.getImageData(0, 0, width, height).data].filter((_, index) => index % 4 === 3);
}
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """A page with nothing but masks.js."""
    file = tmp_path_factory.mktemp("page") / "page.html"
    file.write_text(f"<!doctype html><script>{(STATIC / 'masks.js').read_text(encoding='utf-8')}</script>")
    with launch_browser() as browser, open_tab(browser, file) as tab:
        yield tab.page


def draw_mask(height: int, width: int, share: float) -> NDArray[np.bool_]:
    return np.random.default_rng(height * width).random((height, width)) < share


def read_rows(values: list[int], mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    return np.asarray(values, dtype=bool).reshape(mask.shape)


@pytest.mark.parametrize("drawn", DRAWN, ids=str)
def test_pixels_equal_those_that_coco_encoded(page: Page, drawn: tuple[int, int, float]) -> None:
    mask = draw_mask(*drawn)
    rle: dict[str, Any] = {**encode_mask(mask)}
    assert np.array_equal(read_rows(page.evaluate("(mask) => [...igvg.masks.decodeMask(mask)]", rle), mask), mask)
    assert page.evaluate("(mask) => igvg.masks.countPixels(mask)", rle) == rle_area(encode_mask(mask))


@pytest.mark.parametrize("drawn", DRAWN, ids=str)
def test_the_filled_outline_is_the_mask(page: Page, drawn: tuple[int, int, float]) -> None:
    mask = draw_mask(*drawn)
    assert np.array_equal(read_rows(page.evaluate(FILL, encode_mask(mask)), mask), mask)


def test_an_outline_turns_at_every_corner_and_leaves_none_out(page: Page) -> None:
    mask = np.zeros((4, 6), dtype=bool)
    mask[1:3, 1:5] = True
    (loop,) = page.evaluate("(mask) => igvg.masks.traceOutlines(mask)", encode_mask(mask))
    assert loop == [[1, 1], [5, 1], [5, 3], [1, 3]]


def test_pixels_that_touch_in_a_corner_alone_have_outlines_of_their_own(page: Page) -> None:
    mask = np.eye(2, dtype=bool)
    assert len(page.evaluate("(mask) => igvg.masks.traceOutlines(mask)", encode_mask(mask))) == 2


@pytest.mark.parametrize("step", [2, 3, 7])
def test_coarse_outlines_are_those_of_the_middle_pixels_of_blocks(page: Page, step: int) -> None:
    mask = draw_mask(6 * step, 4 * step, 0.5)
    blocks = np.repeat(np.repeat(mask[step // 2 :: step, step // 2 :: step], step, axis=0), step, axis=1)
    call = "([mask, step]) => igvg.masks.traceOutlines(mask, step).map((loop) => loop.join(' ')).sort()"
    exact = "(mask) => igvg.masks.traceOutlines(mask).map((loop) => loop.join(' ')).sort()"
    assert page.evaluate(call, [encode_mask(mask), step]) == page.evaluate(exact, encode_mask(blocks))


@pytest.mark.parametrize("size", [[2, 3], [4, 4]], ids=["too small", "too large"])
def test_run_lengths_of_another_size_are_refused(page: Page, size: list[int]) -> None:
    rle = {**encode_mask(np.eye(3, dtype=bool)), "size": size}
    call = "(mask) => { try { igvg.masks.decodeMask(mask); } catch (error) { return error.message; } }"
    assert "a mask of" in page.evaluate(call, rle)
