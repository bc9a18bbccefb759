"""Pages in headless Chromium: what they log, which addresses they ask for, and the contrast of their text."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CHROMIUM = next((path for name in _NAMES if (path := shutil.which(name))), None)

needs_chromium = pytest.mark.skipif(
    CHROMIUM is None, reason=f"no Chromium: none of {', '.join(_NAMES)} is in PATH (make setup installs it)"
)


@dataclass
class Tab:
    """An open page, and what happened in it so far."""

    page: Page
    errors: list[str] = field(default_factory=list)
    """Uncaught errors, console errors and requests that failed."""
    requests: list[str] = field(default_factory=list)
    """URLs, in order."""

    def record(self) -> None:
        """Collect from now on."""
        self.page.on("pageerror", lambda error: self.errors.append(f"uncaught: {error}"))
        self.page.on("requestfailed", lambda request: self.errors.append(f"failed: {request.url} {request.failure}"))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on(
            "console", lambda line: self.errors.append(f"console: {line.text}") if line.type == "error" else None
        )


@contextmanager
def launch_browser() -> Iterator[Browser]:
    """A headless Chromium; one at a time in a process. Tests that call it carry the mark `needs_chromium`."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def open_tab(
    browser: Browser,
    url: str | Path,
    *,
    width: int = 1400,
    height: int = 900,
    dark: bool = False,
    pixel_ratio: float = 1,
    expect_errors: bool = False,
) -> Iterator[Tab]:
    """Open a file or an address in a fresh profile.

    Args:
        browser: from `launch_browser`.
        url: a URL, or the path of a file.
        width: CSS pixels.
        height: CSS pixels.
        dark: the color scheme that the reader prefers.
        pixel_ratio: device pixels per CSS pixel.
        expect_errors: otherwise an error in the page fails the test when the block ends without one of its own.
    """
    context = browser.new_context(
        viewport={"width": width, "height": height},
        color_scheme="dark" if dark else "light",
        device_scale_factor=pixel_ratio,
    )
    context.set_default_timeout(10_000)
    try:
        tab = Tab(context.new_page())
        tab.record()
        tab.page.goto(url.resolve().as_uri() if isinstance(url, Path) else url)
        yield tab
        if not expect_errors:
            assert tab.errors == []
    finally:
        context.close()


CONTROLS = "button, input, select, textarea, a[href], summary, [role=button], [tabindex]:not([tabindex='-1'])"


def list_unnamed_controls(page: Page) -> list[str]:
    """The HTML of visible controls without an accessible name."""
    names = """
    (selector) => [...document.querySelectorAll(selector)].filter((element) => {
      if (!element.checkVisibility()) return false;
      const named = (element.getAttribute("aria-labelledby") ?? "").split(" ").map((id) => document.getElementById(id));
      const texts = [
        element.getAttribute("aria-label"), ...named.map((other) => other?.textContent),
        ...[...(element.labels ?? [])].map((label) => label.textContent), element.getAttribute("title"),
        ["INPUT", "SELECT", "TEXTAREA"].includes(element.tagName) ? "" : element.textContent,
        ...[...element.querySelectorAll("img[alt]")].map((image) => image.alt),
      ];
      return !texts.some((text) => text?.trim());
    }).map((element) => element.outerHTML.slice(0, 200))
    """
    found: list[str] = page.evaluate(names, CONTROLS)
    return found


def list_low_contrast(page: Page, least: float = 4.5) -> list[str]:
    """Visible texts with too little contrast to the background color behind them (WCAG 2.2, success criterion 1.4.3).

    Text over images and gradients is measured against the color below them.
    """
    found: list[str] = page.evaluate(_CONTRAST, least)
    return found


_CONTRAST = """
(least) => {
  const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  const toRgba = (color) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = color;
    canvas.fillRect(0, 0, 1, 1);
    const [red, green, blue, alpha] = canvas.getImageData(0, 0, 1, 1).data;
    return [red, green, blue, alpha / 255];
  };
  const blend = (over, under) =>
    [0, 1, 2].map((i) => over[3] * over[i] + (1 - over[3]) * under[i]).concat(1);
  const findBackground = (element) => {
    const colors = [];
    for (let e = element; e; e = e.parentElement) {
      colors.push(toRgba(getComputedStyle(e).backgroundColor));
      if (colors.at(-1)[3] === 1) break;
    }
    return colors.reduceRight((under, over) => blend(over, under), toRgba("Canvas"));
  };
  const findOpacity = (element) => {
    let opacity = 1;
    for (let e = element; e; e = e.parentElement) opacity *= Number(getComputedStyle(e).opacity);
    return opacity;
  };
  const luminance = (color) => color.slice(0, 3).map((c) => c / 255)
    .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const low = new Set();
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.textContent.trim() || ["SCRIPT", "STYLE"].includes(element.tagName)) continue;
    if (!element.checkVisibility({ opacityProperty: true, visibilityProperty: true })) continue;
    if (element.closest(":disabled")) continue;
    const background = findBackground(element);
    const svg = element instanceof SVGElement;
    const ink = toRgba(svg ? getComputedStyle(element).fill : getComputedStyle(element).color);
    ink[3] *= findOpacity(element);
    const [a, b] = [luminance(blend(ink, background)), luminance(background)];
    const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (contrast < least) low.add(`${contrast.toFixed(2)}: ${walker.currentNode.textContent.trim().slice(0, 60)}`);
  }
  return [...low];
}
"""
