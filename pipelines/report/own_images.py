"""Overlays of the user's own images, as `igvg predict --image` writes them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipelines.config.settings import PostprocessSettings
from pipelines.data.image_decoding import read_image
from pipelines.data.image_queries import CheckedImages
from pipelines.prediction.detections import Detections
from pipelines.prediction.postprocess import GroundingResult, merge_square_masks, square_instance_masks
from pipelines.prediction.raw_output import RawOutput
from pipelines.report.overlay import Layer, OverlayContent, draw_overlay
from pipelines.report.overlay_canvas import draw_image, plan_canvas

# Bytes: the longest file name on most file systems is 255, less the digest, index and extension.
_LONGEST_NAME = 200


@dataclass(frozen=True, kw_only=True)
class _OpenImage:
    index: int
    pixels: NDArray[np.uint8]
    """At the size of its overlays."""


class OverlayArtist:
    """Draws overlays; the image of the last one is kept at the size of an overlay."""

    def __init__(self, images: CheckedImages, show: tuple[Layer, ...]) -> None:
        self.images, self.show = images, show
        self._last: _OpenImage | None = None

    def draw_result(
        self, index: int, raw: RawOutput, result: GroundingResult, *, settings: PostprocessSettings
    ) -> tuple[str, Image.Image]:
        """The file name and the overlay of the network's result for one pair of image and text."""
        content = OverlayContent(
            boxes=result.boxes,
            scores=result.scores,
            mask=merge_square_masks(raw, result.queries, settings),
            instance_masks=square_instance_masks(raw, result.queries, settings),
            points=result.points,
            attention=raw.attention_map,
        )
        return self._draw(index, content)

    def draw_detections(self, index: int, found: Detections) -> tuple[str, Image.Image]:
        """The file name and the overlay of what a zero-shot model found for one pair of image and text.

        The words that boxes were found by stand in brackets behind the expression.
        """
        words = [label for label in dict.fromkeys(found.labels) if label.strip()]
        nothing = np.zeros((len(found.boxes), 1, 1), dtype=bool)
        content = OverlayContent(
            boxes=found.boxes,
            scores=found.scores,
            mask=np.zeros((1, 1), dtype=bool) if found.mask is None else found.mask,
            instance_masks=nothing if found.masks is None else found.masks,
        )
        return self._draw(index, content, f"  [{', '.join(words)}]" if words else "")

    def _draw(self, index: int, content: OverlayContent, remark: str = "") -> tuple[str, Image.Image]:
        image, text = self.images.pairs[index]
        height, width = self.images.sizes[image]
        if self._last is None or self._last.index != image:
            drawn = draw_image(read_image(self.images.files[image]), plan_canvas(width, height))
            self._last = _OpenImage(index=image, pixels=np.asarray(drawn))
        caption = f"{self.images.texts[text]}{remark}"
        overlay = draw_overlay(self._last.pixels, caption, content, show=self.show, image_size=(width, height))
        return name_overlay(self.images.names[image], text), overlay


def name_overlay(image: str, text: int) -> str:
    """The file name of the overlay for the name of an image and the index of a text."""
    # Two images may differ in their ending alone.
    stem, dot, ending = image.rpartition(".")
    name = f"{stem}-{ending}" if dot else image
    if len(name.encode()) > _LONGEST_NAME:
        digest = hashlib.sha256(image.encode()).hexdigest()[:8]
        name = f"{name.encode()[: _LONGEST_NAME - 10].decode(errors='ignore')}-{digest}"
    return f"{name}-{text}.png"
