"""Zero-shot detection: images and expressions in, boxes and perhaps masks out, by a model of transformers.

Letters: N boxes of one expression; H, W the original image's size in pixels.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from pipelines.config.settings import ZeroShotSettings
from pipelines.data.image_text import ImageTextDataset
from pipelines.data.loader import read_ahead
from pipelines.prediction.box_masks import BoxSegmenter
from pipelines.prediction.families import Family, Size
from pipelines.prediction.prediction import Prediction
from pipelines.prediction.transformers_model import explain_use, quiet
from pipelines.runtime.precision import ComputeDtype, autocast_context
from shards.errors import CheckpointError
from shards.masks import encode_mask


@dataclass(frozen=True, slots=True, kw_only=True)
class Detections:
    """The boxes of one expression, in pixels of the original image."""

    id: str
    size: Size
    boxes: NDArray[np.float64]
    """(N, 4) x0, y0, x1, y1, inside the image and with an area."""
    scores: NDArray[np.float64]
    """(N,) in [0, 1]."""
    labels: tuple[str, ...]
    """For each box the words that it was found by; empty if the family does not say."""
    masks: NDArray[np.bool_] | None
    """(N, H, W); None if the model gives none."""

    @property
    def mask(self) -> NDArray[np.bool_] | None:
        """(H, W), the union of the masks."""
        if self.masks is None:
            return None
        union: NDArray[np.bool_] = np.logical_or.reduce(self.masks, axis=0)
        return union


@dataclass(frozen=True, slots=True, kw_only=True)
class ZeroShotBatch:
    """Some expressions as the model takes them, pickled without shared memory."""

    ids: list[str]
    sizes: list[Size]
    inputs: dict[str, NDArray[Any]]
    images: list[NDArray[np.uint8]]
    """(H, W, 3) of each expression; neighbors with the same image share the array; none without a mask model."""


@dataclass(frozen=True, kw_only=True)
class ZeroShotDetector:
    """A model on its device and how it is asked."""

    family: Family
    model: Any
    processor: Any
    max_tokens: int
    """Tokens of an expression at most."""
    settings: ZeroShotSettings
    compute_dtype: ComputeDtype
    segmenter: BoxSegmenter | None = None
    """Gives masks for the boxes."""

    def detect(self, batch: ZeroShotBatch) -> list[Detections]:
        """The boxes, and masks if there is a model for them, of each expression.

        Raises:
            CheckpointError: the model gives numbers that are not finite, or does not fit its processor.
        """
        device = self.model.device
        inputs = {name: torch.from_numpy(values).to(device) for name, values in batch.inputs.items()}
        if self.family.forget:
            self.family.forget(self.model)
        with torch.inference_mode(), quiet(), explain_use():
            with autocast_context(device, self.compute_dtype):
                outputs = self.model(**inputs)
            # bfloat16 has no room for the coordinates of boxes.
            for name, value in outputs.items():
                if isinstance(value, torch.Tensor) and value.dtype == torch.bfloat16:
                    outputs[name] = value.float()
            answers = self.family.postprocess(self.processor, outputs, inputs, batch.sizes, self.settings)
        found = [
            _read_answer(answer, name, size) for name, size, answer in zip(batch.ids, batch.sizes, answers, strict=True)
        ]
        return found if self.segmenter is None else self._add_masks(self.segmenter, batch, found)

    def _add_masks(self, segmenter: BoxSegmenter, batch: ZeroShotBatch, found: list[Detections]) -> list[Detections]:
        last: NDArray[np.uint8] | None = None
        embedding: Any = None
        segmented = []
        for image, detections in zip(batch.images, found, strict=True):
            if len(detections.boxes) and image is not last:
                last, embedding = image, segmenter.embed(image, self.compute_dtype)
            masks = segmenter.segment(image, embedding, detections.boxes, self.compute_dtype)
            segmented.append(replace(detections, masks=masks))
        return segmented


def detect_in_order(
    detector: ZeroShotDetector, data: ImageTextDataset, batch_indices: Iterable[range]
) -> Generator[Detections, None, None]:
    """The detections of each expression of some batches, in order; closing the generator ends the workers."""
    prepare = partial(
        prepare_batch, data, detector.family, detector.processor, detector.max_tokens, detector.segmenter is not None
    )
    batches = read_ahead(prepare, batch_indices, workers=detector.settings.workers)
    with contextlib.closing(batches):
        for batch in batches:
            yield from detector.detect(batch)


def prepare_batch(
    data: ImageTextDataset, family: Family, processor: Any, max_tokens: int, keep_images: bool, indices: list[int]
) -> ZeroShotBatch:
    """The examples of some indices, prepared by the family's processor.

    Raises:
        CheckpointError: the processor cannot prepare them.
        DataError: an image or record is damaged.
    """
    examples = [data[index] for index in indices]
    images = [example.image for example in examples]
    texts = [fit_text(processor.tokenizer, example.text, max_tokens) for example in examples]
    with quiet(), explain_use():
        inputs = family.prepare(processor, [Image.fromarray(image) for image in images], texts)
    return ZeroShotBatch(
        ids=[example.id for example in examples],
        sizes=[(image.shape[0], image.shape[1]) for image in images],
        inputs={name: np.asarray(values) for name, values in inputs.items()},
        images=images if keep_images else [],
    )


def count_tokens(tokenizer: Any, text: str) -> int:
    """Tokens of a text, including those that begin and end it."""
    return len(tokenizer(text, truncation=False, verbose=False)["input_ids"])


def fit_text(tokenizer: Any, text: str, max_tokens: int) -> str:
    """The text, without the last words, or the end of its only word, if it has more tokens than the model takes."""
    while count_tokens(tokenizer, text) > max_tokens:
        words = text.split()
        text = " ".join(words[:-1]) if len(words) > 1 else text.strip()[: len(text.strip()) * 3 // 4]
    return text


def encode_detections(detections: Detections) -> Prediction:
    """The prediction of one expression: its mask is the union of the masks."""
    mask = detections.mask
    return Prediction(
        id=detections.id,
        boxes=detections.boxes.tolist(),
        scores=detections.scores.tolist(),
        mask=None if mask is None else encode_mask(mask),
        no_target=len(detections.boxes) == 0,
    )


def _read_answer(answer: dict[str, Any], name: str, size: Size) -> Detections:
    """Boxes are clipped to the image; those without an area inside it are left out."""
    height, width = size
    boxes = answer["boxes"].double().cpu().numpy().reshape(-1, 4)
    scores = answer["scores"].double().cpu().numpy()
    if not (np.isfinite(boxes).all() and np.isfinite(scores).all()):
        raise CheckpointError(f"the model gives numbers that are not finite for {name}; try --set precision=fp32")
    boxes = boxes.clip(0, (width, height, width, height))
    kept = np.flatnonzero((boxes[:, 2:] > boxes[:, :2]).all(axis=1))
    labels = answer["text_labels"] if answer.get("text_labels") else ()
    masks = answer.get("masks")
    return Detections(
        id=name,
        size=size,
        boxes=boxes[kept],
        scores=scores[kept],
        labels=tuple(labels[index] for index in kept) if labels else (),
        masks=None if masks is None else masks.cpu().numpy().astype(bool).reshape(-1, height, width)[kept],
    )
