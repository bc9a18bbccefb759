"""Masks for boxes, from a SAM or SAM 2 checkpoint that is prompted with each box."""

from __future__ import annotations

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

    def embed(self, image: NDArray[np.uint8], compute_dtype: ComputeDtype) -> Any:
        """The model's embedding of an image (H, W, 3), for all boxes on it."""
        inputs = self._prepare(image, np.zeros((1, 4)))
        with torch.inference_mode(), autocast_context(self.model.device, compute_dtype):
            return self.model.get_image_embeddings(inputs["pixel_values"].to(self.model.device))

    def segment(
        self, image: NDArray[np.uint8], embedding: Any, boxes_xyxy: NDArray[np.float64], compute_dtype: ComputeDtype
    ) -> NDArray[np.bool_]:
        """A mask (N, H, W) for each box (N, 4) in pixels.

        Args:
            image: (H, W, 3) RGB.
            embedding: of the image.
            boxes_xyxy: x0, y0, x1, y1 each.
            compute_dtype: the model's arithmetic.
        """
        if not len(boxes_xyxy):
            return np.zeros((0, *image.shape[:2]), dtype=bool)
        inputs = self._prepare(image, boxes_xyxy)
        boxes = inputs["input_boxes"].to(self.model.device, torch.float32)
        with torch.inference_mode(), autocast_context(self.model.device, compute_dtype):
            outputs = self.model(image_embeddings=embedding, input_boxes=boxes, multimask_output=False)
        # SAM pads images, and needs the size before padding besides the original one.
        sizes = [inputs[name] for name in ("original_sizes", "reshaped_input_sizes") if name in inputs]
        masks = self.processor.post_process_masks(outputs.pred_masks.float().cpu(), *sizes)[0]
        found: NDArray[np.bool_] = masks[:, 0].numpy().astype(bool)
        return found

    def _prepare(self, image: NDArray[np.uint8], boxes_xyxy: NDArray[np.float64]) -> Any:
        with quiet():
            return self.processor(images=Image.fromarray(image), input_boxes=[boxes_xyxy.tolist()], return_tensors="pt")


def load_segmenter(folder: Path, model_class: str, processor_class: str, device: torch.device) -> BoxSegmenter:
    """The model of a folder on a device.

    Raises:
        CheckpointError: as `load_model`.
    """
    model, processor = load_model(folder, model_class, processor_class)
    return BoxSegmenter(model=model.to(device), processor=processor)
