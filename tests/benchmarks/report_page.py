"""The page of a report with 5,000 expressions in Chromium: opening, scrolling, filtering, looking at one expression."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from playwright.sync_api import Page

from tests.benchmarks.figures import Figure
from tests.support.browser import CHROMIUM, launch_browser, open_tab
from tests.support.drawn_report import write_report

EXPRESSIONS, IMAGES, SCALE = 5_000, 60, 4

# Milliseconds from the start of the navigation until the tiles are painted.
_OPENED = """
() => new Promise((resolve) => {
  const finish = () => requestAnimationFrame(() => setTimeout(() => resolve(performance.now())));
  const look = () => (document.querySelector(".tile") ? finish() : setTimeout(look, 5));
  look();
})
"""
# Milliseconds of each frame while the page scrolls by 60 pixels a frame.
_SCROLLED = """
() => new Promise((resolve) => {
  const frames = [];
  let last = performance.now();
  const step = () => {
    const now = performance.now();
    frames.push(now - last);
    last = now;
    scrollBy({ top: 60, behavior: "instant" });
    if (frames.length < 240) requestAnimationFrame(step);
    else resolve(frames.slice(1));
  };
  requestAnimationFrame(step);
})
"""
# Milliseconds until the frame after a change of the text filter.
_FILTERED = """
() => new Promise((resolve) => {
  const started = performance.now();
  const field = document.getElementById("search");
  field.value = "red circle";
  field.dispatchEvent(new Event("input", { bubbles: true }));
  requestAnimationFrame(() => setTimeout(() => resolve(performance.now() - started)));
})
"""
# Milliseconds from a link to the layers of an expression of another chunk.
_VIEWED = """
() => new Promise((resolve) => {
  const started = performance.now();
  location.hash = "#grefcoco/4321/4321";
  const finish = () => resolve(performance.now() - started);
  const look = () => (document.querySelector("#viewer canvas") ? finish() : setTimeout(look, 2));
  look();
})
"""


def measure() -> list[Figure]:
    """Times of a drawn report; nothing where there is no Chromium."""
    if CHROMIUM is None:
        return []
    with tempfile.TemporaryDirectory() as folder, launch_browser() as browser:
        page = write_report(Path(folder) / "report", expressions=EXPRESSIONS, images=IMAGES, scale=SCALE)
        opened = min(_open(browser, page) for _ in range(3))
        with open_tab(browser, page) as tab:
            frames = sorted(tab.page.evaluate(_SCROLLED))
            filtered = tab.page.evaluate(_FILTERED)
            viewed = tab.page.evaluate(_VIEWED)
            tiles = _count_elements(tab.page)
    name = f"page of {EXPRESSIONS:,} expressions"
    return [
        Figure(f"{name}, opened", opened / 1000, "s", "≤ 2"),
        Figure(f"{name}, frame of scrolling, median", frames[len(frames) // 2], "ms"),
        Figure(f"{name}, frame of scrolling, 95th percentile", frames[int(0.95 * len(frames))], "ms"),
        Figure(f"{name}, text filter", filtered, "ms"),
        Figure(f"{name}, expression opened", viewed, "ms"),
        Figure(f"{name}, elements", tiles, ""),
    ]


def _open(browser: Any, page: Path) -> float:
    with open_tab(browser, page) as tab:
        opened: float = tab.page.evaluate(_OPENED)
        return opened


def _count_elements(page: Page) -> int:
    count: int = page.evaluate("document.querySelectorAll('*').length")
    return count
