"""A checkpoint in one line of Python: an image and expressions in, what they refer to out, as `igvg predict` says."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch

from pipelines.config.settings import Precision, PredictSettings
from pipelines.data.batch import Batch, Example, collate
from pipelines.data.image_input import ImageInput, load_image
from pipelines.data.processor import Processor
from pipelines.data.tokenizer import PAD_ID, check_expressions
from pipelines.data.truncation import warn_of_findings, warn_of_truncation
from pipelines.grounding import Grounding, build_grounding, build_zero_shot_grounding, postprocess_settings
from pipelines.model import IGVGModel
from pipelines.model.cpu import optimize_for_cpu
from pipelines.networks import resolve_checkpoint
from pipelines.prediction.chunks import CHUNK_SIZE, split_batches, split_chunks
from pipelines.prediction.families import change_settings, check_masks, find_family
from pipelines.prediction.predictor import predict_batches
from pipelines.pretrained import open_checkpoint, open_for_prediction
from pipelines.runtime.precision import ComputeDtype, resolve_precision
from shards.errors import SettingsError

if TYPE_CHECKING:
    from pipelines.huggingface.processing import IGVGProcessor
    from pipelines.huggingface.zero_shot_processing import ZeroShotProcessor
    from pipelines.prediction.zero_shot import ZeroShotDetector


class Grounder:
    """A model on its device with its preprocessing, ready to predict.

    Args:
        model: igvg's network in evaluation mode on the device where it runs, or a zero-shot model.
        processor: the preprocessing of the network's checkpoint; a zero-shot model has its own.
        compute_dtype: the network's arithmetic.
    """

    def __init__(
        self,
        model: IGVGModel | ZeroShotDetector,
        processor: Processor | None = None,
        compute_dtype: ComputeDtype = "fp32",
    ) -> None:
        self.model, self.processor, self.compute_dtype = model, processor, compute_dtype

    @classmethod
    def from_pretrained(
        cls,
        checkpoint: str | os.PathLike[str],
        *,
        masks: str | os.PathLike[str] | None = None,
        revision: str | None = None,
        device: torch.device | str | None = None,
        precision: Precision = "fp32",
    ) -> Self:
        """Load a checkpoint.

        Args:
            checkpoint: what `igvg predict --checkpoint` takes: a folder, a published file, a shipped network's name, a
                hub name, or a zero-shot model of transformers.
            masks: as `igvg predict --masks`: a SAM checkpoint that gives masks for the boxes of a zero-shot model.
            revision: a branch, tag or commit of a hub name.
            device: where to run; None: the accelerator, if there is one, else the CPU.
            precision: `fp32`; `bf16`: autocast to bfloat16; `auto`: `bf16` where the device supports it natively.

        Raises:
            CheckpointError, SettingsError: the checkpoint, or that for masks, cannot be used.
        """
        place = find_device(device)
        compute_dtype = resolve_precision(precision, place)
        path = resolve_checkpoint(Path(checkpoint), revision=revision)
        mask_path = None if masks is None else resolve_checkpoint(Path(masks))
        family = find_family(path)
        check_masks(family, mask_path)
        if family is not None:
            from pipelines.prediction.zero_shot import open_detector

            detector = open_detector(path, mask_path, family.settings, place, compute_dtype)
            return cls(detector, compute_dtype=compute_dtype)
        model, processor = open_for_prediction(path)
        return cls(place_model(model, place, compute_dtype), processor, compute_dtype)

    def predict(
        self,
        image: ImageInput,
        texts: str | Sequence[str],
        *,
        batch_size: int | None = None,
        threshold: float | None = None,
        **postprocess: Any,
    ) -> list[Grounding]:
        """Find what each text refers to in an image.

        Args:
            image: a path, a PIL image, an array or a tensor; see `load_image`.
            texts: one or several expressions.
            batch_size: expressions in one forward pass; None: that of `igvg predict`, 16, or 4 for zero-shot models.
            threshold: instances score above it; None: 0.7, or that of the zero-shot model's family.
            postprocess: other settings of post-processing: `mask_threshold`, `mask_source`, `existence_weighting`,
                `nms`, `nms_iou`; of a zero-shot model its family's other thresholds.

        Returns:
            One result for each text, in order.

        Raises:
            CheckpointError: a zero-shot model does not fit its processor.
            DataError: the image cannot be read.
            SettingsError: a text has no word, or a setting is unknown or invalid.
        """
        expressions = [texts] if isinstance(texts, str) else list(texts)
        if batch_size is not None and (type(batch_size) is not int or batch_size < 1):
            raise SettingsError(f"batch_size is {batch_size!r}; give a whole number of at least 1")
        if not isinstance(self.model, IGVGModel):
            given = {"batch_size": batch_size, "threshold": threshold}
            changes = {name: value for name, value in given.items() if value is not None} | postprocess
            return _detect(
                replace(self.model, settings=change_settings(self.model.family, changes)), image, expressions
            )
        defaults = PredictSettings()
        lowest = defaults.postprocess.score_threshold if threshold is None else threshold
        settings = postprocess_settings(lowest, postprocess)
        check_expressions(expressions)
        pixels = load_image(image)
        batches = self._batches(pixels, expressions, batch_size or defaults.batch_size)
        outputs = predict_batches(self.model, batches, self.compute_dtype, settings.score_threshold)
        raw = [output for batch in outputs for output in batch]
        return [build_grounding(output, settings, text, pixels) for output, text in zip(raw, expressions, strict=True)]

    def _batches(self, pixels: np.ndarray[Any, Any], texts: Sequence[str], batch_size: int) -> Iterator[Batch]:
        assert self.processor is not None
        warn_of_truncation(self.processor.tokenizer, texts, self.processor.max_tokens)
        resized = self.processor.resize(pixels)
        input_ids = self.processor.tokenize(texts)
        for batch in split_batches(split_chunks(len(texts), CHUNK_SIZE), batch_size):
            yield collate(
                [
                    Example(
                        id=str(index),
                        image=resized,
                        input_ids=input_ids[index],
                        original_size=(pixels.shape[0], pixels.shape[1]),
                        boxes=np.zeros((0, 4), dtype=np.float32),
                        masks=np.zeros((0, 0, 0), dtype=bool),
                    )
                    for index in batch
                ],
                PAD_ID,
            )


def _detect(detector: ZeroShotDetector, image: ImageInput, texts: list[str]) -> list[Grounding]:
    from pipelines.prediction.zero_shot import detect_in_image, find_cut_texts

    check_expressions(texts)
    named = ((str(row), text) for row, text in enumerate(texts))
    warn_of_findings(find_cut_texts(detector.processor.tokenizer, named, detector.max_tokens), detector.max_tokens)
    pixels = load_image(image)
    found = detect_in_image(detector, pixels, texts)
    return [build_zero_shot_grounding(each, text, pixels) for each, text in zip(found, texts, strict=True)]


def find_device(device: torch.device | str | None) -> torch.device:
    """The device itself, or where none is given the accelerator, if there is one, else the CPU.

    Raises:
        SettingsError: there is no such device.
    """
    if device is None:
        found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        return found or torch.device("cpu")
    try:
        place = torch.device(device)
        torch.empty(0, device=place)
    except (RuntimeError, AssertionError) as error:
        reason = " ".join(str(error).split())[:120]
        raise SettingsError(f"device {str(device)!r} cannot be used ({reason}); give cpu, cuda or cuda:N") from error
    return place


def place_model(model: IGVGModel, device: torch.device, compute_dtype: ComputeDtype) -> IGVGModel:
    """The model on a device, ready to predict as `igvg predict` does; on a CPU in float32 it can only predict."""
    if device.type == "cpu" and compute_dtype == "fp32":
        return optimize_for_cpu(model, copy=False)
    return model.to(device).requires_grad_(False)


def load_pretrained(
    checkpoint: str | os.PathLike[str], *, revision: str | None = None, device: torch.device | str = "cpu"
) -> tuple[Any, IGVGProcessor | ZeroShotProcessor]:
    """The network of a checkpoint, ready to predict in float32 as `igvg predict` does, and its processor.

    Its output is also a mapping, as those of transformers' models are, and holds the token ids. On a CPU igvg's
    `IGVGModel` cannot be trained or saved; `IGVGModel.from_pretrained` and transformers' Auto classes give one
    that can. Of a zero-shot checkpoint the model is that of transformers itself.

    Args:
        checkpoint: what `igvg predict --checkpoint` takes: a folder, a published file, a shipped network's name, a hub
            name, or a zero-shot model of transformers.
        revision: a branch, tag or commit of a hub name.
        device: where the network runs.

    Raises:
        CheckpointError, SettingsError: the checkpoint cannot be used.
    """
    from pipelines.huggingface.image_processing import IGVGImageProcessor
    from pipelines.huggingface.model_output import convert_output_hook
    from pipelines.huggingface.processing import IGVGProcessor

    place = find_device(device)
    path = resolve_checkpoint(Path(checkpoint), revision=revision)
    if find_family(path) is not None:
        from pipelines.huggingface.zero_shot_processing import load_zero_shot

        return load_zero_shot(path, place)
    plain, tokenizer, max_tokens = open_checkpoint(path)
    image_processor = IGVGImageProcessor(size=plain.config.image_size, max_tokens=max_tokens)
    model = place_model(plain, place, "fp32")
    model.register_forward_hook(convert_output_hook, with_kwargs=True)
    return model, IGVGProcessor(image_processor, tokenizer)
