"""The data files of a report, read as the page's scripts are given them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def read_index(report: Path) -> dict[str, Any]:
    """The argument of `loadExpressions`."""
    (index,) = read_arguments(report / "data" / "expressions.js", "loadExpressions")
    return index


def read_details(report: Path) -> list[dict[str, Any]]:
    """All details, in the order of the index."""
    details: list[dict[str, Any]] = []
    for number, file in enumerate(sorted((report / "data").glob("details-*.js"))):
        chunk, listed = read_arguments(file, "loadDetails")
        assert chunk == number
        details += listed
    return details


def read_arguments(file: Path, function: str) -> list[Any]:
    """The arguments that a script calls a function with."""
    text = file.read_text(encoding="ascii")
    start, end = f"igvg.{function}(", ");\n"
    assert text.startswith(start)
    assert text.endswith(end)
    arguments: list[Any] = json.loads(f"[{text.removeprefix(start).removesuffix(end)}]")
    return arguments
