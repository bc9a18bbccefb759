"""`python -m tests.documentation.example DEMO`: draw docs/example.png, the README's image, from the report of a demo.

It shows the report's viewer, in Chromium, with an expression about several objects of which the network finds all
after training, and not at the start.
"""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

from PIL import Image

from tests.support.browser import launch_browser, open_tab
from tests.support.paths import ROOT

EXAMPLE = ROOT / "docs/example.png"
WIDTH, HEIGHT = 1200, 660


def draw_example(demo: Path, image: Path = EXAMPLE) -> str:
    """Draw the image from the latest report in the folder of `igvg demo`; returns the id of the expression."""
    page = max(demo.glob("report-*/index.html"), key=lambda file: file.stat().st_mtime, default=None)
    if page is None:
        raise SystemExit(f"{demo} holds no report; give the folder of igvg demo")
    chosen = choose_expression(read_expressions(page.parent / "data/expressions.js"))
    with launch_browser() as browser:
        address = f"{page.resolve().as_uri()}#{chosen}"
        with open_tab(browser, address, width=WIDTH, height=HEIGHT) as tab:
            tab.page.wait_for_selector("dialog[open] canvas")
            tab.page.wait_for_timeout(1000)
            tab.page.evaluate("document.activeElement.blur()")
            drawn = Image.open(io.BytesIO(tab.page.screenshot()))
    # 256 colors: a third of the bytes.
    drawn.convert("RGB").quantize(256).save(image, optimize=True)
    return chosen


def read_expressions(file: Path) -> dict[str, Any]:
    """The columns of a report's gallery."""
    text = file.read_text(encoding="utf-8")
    columns: dict[str, Any] = json.loads(text[text.index("{") : text.rindex("}") + 1])
    return columns


def choose_expression(columns: dict[str, Any]) -> str:
    """The id of the expression of which most instances are found after training, and not all at the start."""
    start, trained = columns["results"]
    found = [
        (trained["instances"][index], trained["iou"][index], name)
        for index, name in enumerate(columns["id"])
        if columns["kind"][index] == "several"
        and trained["outcome"][index] == "correct" != start["outcome"][index]
        and trained["iou"][index] is not None
    ]
    if not found:
        raise SystemExit("no expression about several objects is right after training and wrong at the start")
    return str(max(found)[2])


if __name__ == "__main__":
    print(draw_example(Path(sys.argv[1])))  # noqa: T201
