"""`python -m tests.documentation`: write the pages and drawings that come from the code.

`tests/test_documentation.py` holds that the committed ones are what this gives.
"""

from __future__ import annotations

from pathlib import Path

from tests.documentation import metric_drawings, network_drawings
from tests.documentation.components import format_components
from tests.documentation.errors import format_errors
from tests.documentation.settings import format_settings
from tests.support.paths import ROOT

DOCS = ROOT / "docs"


def generate() -> dict[Path, str]:
    """The text of every generated file."""
    pages = {DOCS / "errors.md": format_errors(), DOCS / "settings.md": format_settings()}
    pages[DOCS / "components.md"] = format_components(DOCS / "components.md", DOCS / "assets" / "components.json")
    drawings = {**metric_drawings.DRAWINGS, **network_drawings.DRAWINGS}
    return pages | {DOCS / "assets" / name: draw().render() for name, draw in drawings.items()}


def main() -> None:
    """Write the files that differ."""
    for file, text in generate().items():
        file.parent.mkdir(exist_ok=True)
        if not file.exists() or file.read_text(encoding="utf-8") != text:
            file.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
