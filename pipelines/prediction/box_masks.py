"""Masks for boxes, from a SAM or SAM 2 checkpoint that is prompted with each box."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from pipelines.prediction.transformers_model import load_model, quiet
from pipelines.runtime.precision import ComputeDtype, autocast_context


@dataclass(frozen=True, kw_only=True)
class BoxSegmenter:
    """A model that gives a mask for a box."""

    model: Any
    processor: Any

    def segment(
        self, image: NDArray[np.uint8], boxes_xyxy: Sequence[NDArray[np.float64]], compute_dtype: ComputeDtype
    ) -> list[NDArray[np.bool_]]:
        """A mask for each box, (N, H, W) for each expression; the image is prepared and encoded once for all.

        Args:
            image: (H, W, 3) RGB.
            boxes_xyxy: for each expression (N, 4) x0, y0, x1, y1 in pixels.
            compute_dtype: the model's arithmetic.
        """
        nothing = np.zeros((0, *image.shape[:2]), dtype=bool)
        counts = [len(boxes) for boxes in boxes_xyxy]
        if not any(counts):
            return [nothing] * len(counts)
        device = self.model.device
        with quiet():
            prompts = [np.concatenate(boxes_xyxy).tolist()]
            inputs = self.processor(images=Image.fromarray(image), input_boxes=prompts, return_tensors="pt")
        with torch.inference_mode(), autocast_context(device, compute_dtype):
            embedding = self.model.get_image_embeddings(inputs["pixel_values"].to(device))
        # SAM pads images, and needs the size before padding besides the original one.
        sizes = [inputs[name] for name in ("original_sizes", "reshaped_input_sizes") if name in inputs]
        boxes = inputs["input_boxes"].to(device, torch.float32).split(counts, dim=1)
        return [self._decode(embedding, each, sizes, compute_dtype) if each.shape[1] else nothing for each in boxes]

    def _decode(
        self, embedding: Any, boxes: torch.Tensor, sizes: Sequence[Any], compute_dtype: ComputeDtype
    ) -> NDArray[np.bool_]:
        """The masks (N, H, W) of boxes (1, N, 4) in the processor's coordinates."""
        with torch.inference_mode(), autocast_context(self.model.device, compute_dtype):
            outputs = self.model(image_embeddings=embedding, input_boxes=boxes, multimask_output=False)
        masks = self.processor.post_process_masks(outputs.pred_masks.float().cpu(), *sizes)[0]
        found: NDArray[np.bool_] = masks[:, 0].numpy().astype(bool)
        return found


def load_segmenter(folder: Path, model_class: str, processor_class: str, device: torch.device) -> BoxSegmenter:
    """The model of a folder on a device.

    Raises:
        CheckpointError: as `load_model`.
    """
    model, processor = load_model(folder, model_class, processor_class)
    return BoxSegmenter(model=model.to(device), processor=processor)
