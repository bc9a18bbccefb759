"""The image processor for transformers: igvg's resize and normalization, and the boxes that pipelines ask for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers.feature_extraction_utils import BatchFeature
from transformers.image_processing_utils import BaseImageProcessor

from pipelines.data.image_input import ImageInput, list_batch, load_image
from pipelines.data.image_transforms import normalize_images, resize_image
from pipelines.data.preprocessor_config import (
    PREPROCESSOR_FILE,
    PREPROCESSOR_LABELS,
    check_preprocessing,
    describe_preprocessing,
    read_image_side,
)
from pipelines.huggingface.outputs import TargetSizes, detect_objects


class IGVGImageProcessor(BaseImageProcessor):  # type: ignore[misc]  # transformers has no types
    """Stretches images to the network's square, bilinear without antialiasing, and normalizes them.

    Args:
        size: `{"height": side, "width": side}`, the network's square in pixels.
        max_tokens: tokens of an expression at most; kept here because preprocessing has one file.
        values: the other keys of preprocessor_config.json, which have one possible value each.

    Raises:
        CheckpointError: an unknown key (names the nearest), or another value.
    """

    model_input_names = ["pixel_values"]  # noqa: RUF012  # as transformers declares it

    def __init__(self, size: Any = None, max_tokens: int = 50, **values: Any) -> None:
        side = read_image_side({"height": 320, "width": 320} if size is None else size, PREPROCESSOR_FILE)
        check_preprocessing(values, PREPROCESSOR_FILE)
        super().__init__(**{
            name: value for name, value in values.items() if name in PREPROCESSOR_LABELS - {"image_processor_type"}
        })  # fmt: skip
        kept = describe_preprocessing(side, max_tokens)
        for name, value in kept.items():
            setattr(self, name, value)

    @property
    def image_size(self) -> int:
        """Side of the network's square image, in pixels."""
        return int(self.size["height"])

    def preprocess(self, images: ImageInput | Sequence[ImageInput], return_tensors: str | None = None) -> BatchFeature:
        """One image or several, as `load_image` takes them, to `pixel_values` (B, 3, S, S) float32.

        Raises:
            DataError: an image cannot be read.
        """
        resized = np.stack([resize_image(load_image(image), self.image_size) for image in list_batch(images)])
        return BatchFeature({"pixel_values": normalize_images(torch.from_numpy(resized))}, tensor_type=return_tensors)

    def post_process_object_detection(
        self, outputs: Any, threshold: float = 0.1, target_sizes: TargetSizes | None = None
    ) -> list[dict[str, torch.Tensor]]:
        """Boxes above a score, as transformers' zero-shot models return them.

        Args:
            outputs: of the network, for one expression a row.
            threshold: detections score above it.
            target_sizes: (B, 2) height, width of the images in pixels; None: boxes in fractions of the image.

        Returns:
            For each row `scores` (N,), `labels` (N,) zeros and `boxes` (N, 4) x0, y0, x1, y1, float32 on the CPU.
        """
        return detect_objects(outputs, threshold, target_sizes)
