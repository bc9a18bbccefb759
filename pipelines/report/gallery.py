"""What the gallery of a report shows of a split: a row and a detail for each expression, as the page's scripts read it.

`GalleryIndex` is `data/expressions.js`, loaded with the page: everything to filter and sort by. Details are in
`data/details-0000.js` …, `DETAILS_SIZE` expressions each, loaded when one of them is opened. Pages opened from a disk
may load scripts but no JSON, so each file calls a function. Coordinates are in pixels of the image file shown.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shards.record import Rle

DETAILS_SIZE = 100
"""Expressions of each file of details."""
LONGEST_TEXT = 2000
"""Characters of an expression that the page holds; what is beyond is cut off."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownImage:
    """An image file of the report."""

    file: str
    """In images/ and thumbnails/."""
    name: str
    """The file name of the original."""
    width: int
    """Pixels of the file in images/."""
    height: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownResult:
    """What one set of predictions says about an expression, as far as one filters and sorts by it."""

    outcome: str
    """A value of `OutcomeKind`."""
    iou: float
    """Percent."""
    instances: int | None
    """Number of predicted boxes; None: the predictions have none."""
    existence: float | None
    """The probability that a target exists; None without raw outputs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownExpression:
    """One row of the gallery's index."""

    id: str
    text: str
    image: int
    """Index of the image."""
    num_targets: int
    results: tuple[ShownResult, ...]
    """One for each set of predictions."""

    @property
    def kind(self) -> str:
        """The kind of the target by its number of instances."""
        return "none" if not self.num_targets else "one" if self.num_targets == 1 else "several"


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkLayers:
    """What raw outputs add to a prediction."""

    instance_masks: list[Rle] | None
    """One for each box; None where they were not kept."""
    global_mask: Rle
    points: list[list[float]]
    """x, y of the reference point of each box's query."""
    all_points: list[list[float]]
    """x, y of every query's reference point."""
    attention_map: NDArray[np.uint8] | None
    """(h, w), over the whole image."""
    existence: float
    """The probability that a target exists."""

    def to_json(self) -> dict[str, Any]:
        """The layers as the page's scripts read them."""
        attention = self.attention_map
        return {
            "instance_masks": self.instance_masks,
            "global_mask": self.global_mask,
            "points": self.points,
            "all_points": self.all_points,
            "attention": None if attention is None else encode_attention(attention),
            "existence": round(self.existence, 4),
        }


_NO_LAYERS: dict[str, Any] = dict.fromkeys(
    ("instance_masks", "global_mask", "points", "all_points", "attention", "existence")
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultLayers:
    """The layers of one prediction; what the model does not predict is None."""

    boxes: list[list[float]] | None
    scores: list[float] | None
    mask: Rle | None
    network: NetworkLayers | None
    """None without raw outputs."""

    def to_json(self) -> dict[str, Any]:
        """The layers as the page's scripts read them."""
        network = self.network.to_json() if self.network else _NO_LAYERS
        return {"boxes": self.boxes, "scores": self.scores, "mask": self.mask} | network


@dataclass(frozen=True, slots=True, kw_only=True)
class GalleryDetail:
    """Everything that is drawn of one expression."""

    target_boxes: list[list[float]]
    target_masks: list[Rle]
    """One for each box."""
    results: tuple[ResultLayers, ...]
    """One for each set of predictions."""

    def to_json(self) -> dict[str, Any]:
        """The detail as the page's scripts read it."""
        truth = {"boxes": self.target_boxes, "masks": self.target_masks}
        return {"truth": truth, "results": [result.to_json() for result in self.results]}


@dataclass(frozen=True, kw_only=True)
class GalleryIndex:
    """All rows of a gallery."""

    sets: tuple[str, ...]
    """The names of the sets of predictions."""
    images: Sequence[ShownImage]
    expressions: Sequence[ShownExpression]

    def to_json(self) -> dict[str, Any]:
        """The index as columns, as the page's scripts read it."""
        columns = range(len(self.sets))
        return {
            "sets": list(self.sets),
            "details_size": DETAILS_SIZE,
            "images": {
                name: [getattr(image, name) for image in self.images] for name in ("file", "name", "width", "height")
            },
            **{name: [getattr(row, name) for row in self.expressions] for name in ("id", "text", "image", "kind")},
            "results": [
                {
                    name: [getattr(row.results[column], name) for row in self.expressions]
                    for name in ("outcome", "iou", "instances", "existence")
                }
                for column in columns
            ],
        }


def encode_attention(attention_map: NDArray[np.uint8]) -> dict[str, Any]:
    """An attention map (h, w) as size and base64 of its rows."""
    values = base64.b64encode(np.ascontiguousarray(attention_map).tobytes()).decode("ascii")
    return {"size": list(attention_map.shape), "values": values}


def cut_text(text: str) -> str:
    """A text without what is beyond `LONGEST_TEXT`."""
    return text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT]}…"


def format_script(function: str, *arguments: str) -> bytes:
    """A script that calls a function with arguments given as JSON by `dump_argument`."""
    return f"igvg.{function}({','.join(arguments)});\n".encode("ascii")


def dump_argument(value: Any) -> str:
    """A value as JSON that is also JavaScript, and harmless inside an HTML page, whatever its texts hold.

    It is ASCII alone: escapes stand for U+2028, which ends a line of JavaScript, and for surrogates.
    """
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return text.replace("</", "<\\/").replace("<!--", "\\u003c!--")
