"""Lines of prediction files, as tests write them."""

from __future__ import annotations

from typing import Any

from shards.record import Rle

# 3 × 4 pixels; run lengths in COCO's compressed form, where one character from "0" on is one small number.
EMPTY: Rle = {"size": [3, 4], "counts": "<"}
"""12 pixels of background."""
CORNER: Rle = {"size": [3, 4], "counts": "02:"}
"""The upper two pixels of the first column."""


def make_line(**changes: Any) -> dict[str, Any]:
    """A line of a prediction file with other values under some keys; `...` leaves a key out."""
    line = {"id": "refcoco/1/2", "boxes": [[0, 0, 1, 2]], "scores": [0.75], "mask": CORNER, "no_target": False}
    return {key: value for key, value in (line | changes).items() if value is not ...}
