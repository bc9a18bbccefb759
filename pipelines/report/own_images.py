"""Overlays of the user's own images, as `igvg predict --image` writes them."""

from __future__ import annotations

import hashlib

import numpy as np
from PIL import Image

from pipelines.config.settings import PostprocessSettings
from pipelines.data.datasets import ImageFolderDataset
from pipelines.data.image_decoding import read_image
from pipelines.data.image_text import FolderImageTexts
from pipelines.prediction.detections import Detections
from pipelines.prediction.postprocess import GroundingResult, postprocess_instance_masks
from pipelines.prediction.raw_output import RawOutput
from pipelines.report.overlay import OverlayContent, draw_overlay

# Bytes: the longest file name on most file systems is 255, less the digest, index and extension.
_LONGEST_NAME = 200


def draw_result(
    data: ImageFolderDataset, index: int, raw: RawOutput, result: GroundingResult, *, settings: PostprocessSettings
) -> tuple[str, Image.Image]:
    """The file name and the overlay of the result for one example of the user's own images."""
    image, text = divmod(index, len(data.texts))
    content = OverlayContent(
        boxes=result.boxes,
        scores=result.scores,
        mask=result.mask,
        instance_masks=postprocess_instance_masks(raw, result.queries, settings),
        points=result.points,
    )
    return name_overlay(data.names[image], text), draw_overlay(read_image(data.files[image]), data.texts[text], content)


def draw_detections(data: FolderImageTexts, index: int, found: Detections) -> tuple[str, Image.Image]:
    """The file name and the overlay of what a zero-shot model found for one example of the user's own images.

    The words that boxes were found by stand in brackets behind the expression.
    """
    image, text = divmod(index, len(data.image_texts))
    words = [label for label in dict.fromkeys(found.labels) if label.strip()]
    nothing = np.zeros((len(found.boxes), *found.size), dtype=bool)
    content = OverlayContent(
        boxes=found.boxes,
        scores=found.scores,
        mask=np.zeros(found.size, dtype=bool) if found.mask is None else found.mask,
        instance_masks=nothing if found.masks is None else found.masks,
    )
    caption = f"{data.image_texts[text]}  [{', '.join(words)}]" if words else data.image_texts[text]
    return name_overlay(data.names[image], text), draw_overlay(read_image(data.images.files[image]), caption, content)


def name_overlay(image: str, text: int) -> str:
    """The file name of the overlay for the name of an image and the index of a text."""
    # Two images may differ in their ending alone.
    stem, dot, ending = image.rpartition(".")
    name = f"{stem}-{ending}" if dot else image
    if len(name.encode()) > _LONGEST_NAME:
        digest = hashlib.sha256(image.encode()).hexdigest()[:8]
        name = f"{name.encode()[: _LONGEST_NAME - 10].decode(errors='ignore')}-{digest}"
    return f"{name}-{text}.png"
