"""Zero-shot detection: images and expressions in, boxes and perhaps masks out, by a model of transformers.

Letters: N boxes of one expression; H, W the original image's size in pixels.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from pipelines.config.settings import ZeroShotSettings
from pipelines.data.image_text import ImageText, ImageTextDataset
from pipelines.data.loader import read_ahead
from pipelines.data.truncation import Finding
from pipelines.prediction.box_masks import BoxSegmenter, load_segmenter
from pipelines.prediction.chunks import CHUNK_SIZE, split_batches, split_chunks
from pipelines.prediction.detections import Detections
from pipelines.prediction.families import Answers, Family, Size, find_family, find_mask_classes, model_folder
from pipelines.prediction.transformers_model import explain_use, load_model, quiet
from pipelines.runtime.precision import ComputeDtype, autocast_context
from shards.errors import CheckpointError

# The inputs with a row for each image; the others have one for each expression.
_IMAGE_INPUTS = frozenset({"pixel_values", "pixel_mask", "original_sizes"})


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedInputs:
    """What a family's processor makes of images and expressions; an image that neighbors share is prepared once."""

    values: dict[str, NDArray[Any]]
    image_rows: list[int]
    """For each expression the row of its image."""

    def to_tensors(self, device: torch.device) -> dict[str, torch.Tensor]:
        """The model's inputs on a device, with a row for each expression."""
        tensors = {name: torch.from_numpy(values).to(device) for name, values in self.values.items()}
        if self.image_rows == list(range(len(self.image_rows))):
            return tensors
        return tensors | {name: tensors[name][self.image_rows] for name in tensors if name in _IMAGE_INPUTS}


@dataclass(frozen=True, slots=True, kw_only=True)
class ZeroShotBatch:
    """Some expressions as the model takes them, pickled without shared memory."""

    ids: list[str]
    sizes: list[Size]
    inputs: PreparedInputs
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
        inputs = batch.inputs.to_tensors(device)
        if self.family.forget:
            self.family.forget(self.model)
        with torch.inference_mode(), quiet(), explain_use():
            with autocast_context(device, self.compute_dtype):
                outputs = self.model(**inputs)
            answers = postprocess_outputs(self.family, self.processor, outputs, batch.sizes, self.settings)
        found = read_detections(outputs, answers, batch.ids, batch.sizes)
        return found if self.segmenter is None else self._add_masks(self.segmenter, batch, found)

    def _add_masks(self, segmenter: BoxSegmenter, batch: ZeroShotBatch, found: list[Detections]) -> list[Detections]:
        segmented: list[Detections] = []
        for _, neighbors in itertools.groupby(zip(batch.images, found, strict=True), key=lambda pair: id(pair[0])):
            images, detections = zip(*neighbors, strict=True)
            masks = segmenter.segment(images[0], [each.boxes for each in detections], self.compute_dtype)
            segmented += [replace(each, masks=mask) for each, mask in zip(detections, masks, strict=True)]
        return segmented


def open_detector(
    checkpoint: Path,
    masks: Path | None,
    settings: ZeroShotSettings,
    device: torch.device,
    compute_dtype: ComputeDtype,
) -> ZeroShotDetector:
    """The model of a checkpoint of a zero-shot family on a device, and that of `masks` if it is given.

    Raises:
        CheckpointError: one of them cannot be used.
    """
    family = find_family(checkpoint)
    assert family is not None
    model, processor = load_model(model_folder(checkpoint), family.model_class, family.processor_class)
    segmenter = None if masks is None else load_segmenter(model_folder(masks), *find_mask_classes(masks), device)
    return ZeroShotDetector(
        family=family,
        # The rounding of products depends on whether weights could have gradients, also where none are computed.
        model=model.to(device).requires_grad_(False),
        processor=processor,
        max_tokens=family.read_max_tokens(model.config),
        settings=settings,
        compute_dtype=compute_dtype,
        segmenter=segmenter,
    )


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


def detect_in_image(
    detector: ZeroShotDetector, image: NDArray[np.uint8], texts: Sequence[str]
) -> Generator[Detections, None, None]:
    """The detections of each text in one image (H, W, 3), in the batches of `igvg predict`."""
    for batch in split_batches(split_chunks(len(texts), CHUNK_SIZE), detector.settings.batch_size):
        examples = [ImageText(id=str(index), image=image, text=texts[index]) for index in batch]
        yield from detector.detect(
            prepare_examples(
                examples,
                detector.family,
                detector.processor,
                detector.max_tokens,
                keep_images=detector.segmenter is not None,
            )
        )


def prepare_batch(
    data: ImageTextDataset, family: Family, processor: Any, max_tokens: int, keep_images: bool, indices: list[int]
) -> ZeroShotBatch:
    """The examples of some indices, prepared by the family's processor.

    Raises:
        CheckpointError: the processor cannot prepare them.
        DataError: an image or record is damaged.
    """
    return prepare_examples([data[index] for index in indices], family, processor, max_tokens, keep_images=keep_images)


def prepare_examples(
    examples: Sequence[ImageText], family: Family, processor: Any, max_tokens: int, *, keep_images: bool
) -> ZeroShotBatch:
    """Some examples, prepared by the family's processor; texts are cut at `max_tokens`.

    Raises:
        CheckpointError: the processor cannot prepare them.
    """
    images = [example.image for example in examples]
    texts = [fit_text(processor.tokenizer, example.text, max_tokens) for example in examples]
    return ZeroShotBatch(
        ids=[example.id for example in examples],
        sizes=[(image.shape[0], image.shape[1]) for image in images],
        inputs=prepare_inputs(family, processor, images, texts),
        images=images if keep_images else [],
    )


def prepare_inputs(
    family: Family, processor: Any, images: Sequence[NDArray[np.uint8]], texts: list[str]
) -> PreparedInputs:
    """Images (H, W, 3) and as many expressions, prepared by the family's processor.

    Raises:
        CheckpointError: the processor cannot prepare them.
    """
    distinct: list[NDArray[np.uint8]] = []
    image_rows: list[int] = []
    for image in images:
        if not distinct or image is not distinct[-1]:
            distinct.append(image)
        image_rows.append(len(distinct) - 1)
    with quiet(), explain_use():
        # The processors of all families prepare images and texts apart from each other.
        inputs = family.prepare(processor, [Image.fromarray(image) for image in distinct], texts)
    return PreparedInputs(values={name: np.asarray(values) for name, values in inputs.items()}, image_rows=image_rows)


def postprocess_outputs(
    family: Family, processor: Any, outputs: Any, sizes: Sequence[Size], settings: ZeroShotSettings
) -> Answers:
    """What the family's processor answers; outputs in bfloat16, which has no room for coordinates, are widened."""
    for name, value in outputs.items():
        if isinstance(value, torch.Tensor) and value.dtype == torch.bfloat16:
            outputs[name] = value.float()
    return family.postprocess(processor, outputs, sizes, settings)


def count_tokens(tokenizer: Any, text: str) -> int:
    """Tokens of a text, including those that begin and end it."""
    return len(tokenizer(text, truncation=False, verbose=False)["input_ids"])


def find_cut_texts(tokenizer: Any, texts: Iterable[tuple[str, str]], max_tokens: int) -> Iterator[Finding]:
    """The texts, pairs of id and text, that have more tokens than the model takes."""
    for name, text in texts:
        tokens = count_tokens(tokenizer, text)
        if tokens > max_tokens:
            yield Finding(id=name, text=text, kind="cut", tokens=tokens)


def fit_text(tokenizer: Any, text: str, max_tokens: int) -> str:
    """The text, without the last words, or the end of its only word, if it has more tokens than the model takes."""
    while count_tokens(tokenizer, text) > max_tokens:
        words = text.split()
        text = " ".join(words[:-1]) if len(words) > 1 else text.strip()[: len(text.strip()) * 3 // 4]
    return text


def read_detections(outputs: Any, answers: Answers, ids: Sequence[str], sizes: Sequence[Size]) -> list[Detections]:
    """The detections of each expression: boxes clipped to the image, without those that have no area inside it.

    Args:
        outputs: of the model.
        answers: of the family's processor.
        ids: of the expressions; errors name them.
        sizes: of their images.

    Raises:
        CheckpointError: the model gives numbers that are not finite.
    """
    logits = outputs.get("presence_logits")
    existence = [None] * len(ids) if logits is None else logits.double().sigmoid().flatten().tolist()
    return [_read_answer(*each) for each in zip(answers, ids, sizes, existence, strict=True)]


def _read_answer(answer: dict[str, Any], name: str, size: Size, existence: float | None) -> Detections:
    height, width = size
    boxes = answer["boxes"].double().cpu().numpy().reshape(-1, 4)
    scores = answer["scores"].double().cpu().numpy()
    if not (np.isfinite(boxes).all() and np.isfinite(scores).all()):
        raise CheckpointError(f"the model gives numbers that are not finite for {name}; use precision=fp32")
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
        existence=existence,
    )
