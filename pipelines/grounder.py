"""A checkpoint in one line of Python: an image and expressions in, what they refer to out, as `igvg predict` says."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch

from pipelines.config.settings import Precision
from pipelines.data.batch import Batch, Example, collate
from pipelines.data.image_input import ImageInput, load_image
from pipelines.data.processor import Processor
from pipelines.data.tokenizer import PAD_ID, check_expressions
from pipelines.grounding import Grounding, build_grounding, postprocess_settings
from pipelines.model import IGVGModel
from pipelines.model.cpu import optimize_for_cpu
from pipelines.prediction.predictor import predict_batches
from pipelines.pretrained import open_checkpoint
from pipelines.runtime.precision import ComputeDtype, resolve_precision
from shards.errors import SettingsError

if TYPE_CHECKING:
    from pipelines.huggingface.processing import IGVGProcessor


class Grounder:
    """A network on its device with its preprocessing, ready to predict.

    Args:
        model: in evaluation mode, on the device where it runs.
        processor: the preprocessing of its checkpoint.
        compute_dtype: the network's arithmetic.
    """

    def __init__(self, model: IGVGModel, processor: Processor, compute_dtype: ComputeDtype = "fp32") -> None:
        self.model, self.processor, self.compute_dtype = model, processor, compute_dtype

    @classmethod
    def from_pretrained(
        cls,
        checkpoint: str | os.PathLike[str],
        *,
        revision: str | None = None,
        device: torch.device | str | None = None,
        precision: Precision = "fp32",
    ) -> Self:
        """Load a checkpoint.

        Args:
            checkpoint: what `igvg predict --checkpoint` takes: a folder, a published file, a shipped network's name, or
                a hub name.
            revision: a branch, tag or commit of a hub name.
            device: where to run; None: the accelerator, if there is one, else the CPU.
            precision: `fp32`; `bf16`: autocast to bfloat16; `auto`: `bf16` where the device supports it natively.

        Raises:
            CheckpointError, SettingsError: the checkpoint cannot be used.
        """
        place = find_device(device)
        compute_dtype = resolve_precision(precision, place)
        model, tokenizer, max_tokens = open_checkpoint(checkpoint, revision=revision)
        processor = Processor(tokenizer=tokenizer, max_tokens=max_tokens, image_size=model.config.image_size)
        return cls(place_model(model, place, compute_dtype), processor, compute_dtype)

    def predict(
        self,
        image: ImageInput,
        texts: str | Sequence[str],
        *,
        batch_size: int = 16,
        threshold: float = 0.7,
        **postprocess: Any,
    ) -> list[Grounding]:
        """Find what each text refers to in an image.

        Args:
            image: a path, a PIL image, an array or a tensor; see `load_image`.
            texts: one or several expressions.
            batch_size: expressions in one forward pass.
            threshold: instances score above it.
            postprocess: other settings of post-processing: `mask_threshold`, `mask_source`, `existence_weighting`,
                `nms`, `nms_iou`.

        Returns:
            One result for each text, in order.

        Raises:
            DataError: the image cannot be read.
            SettingsError: a text has no word, or a setting is unknown or invalid.
        """
        expressions = [texts] if isinstance(texts, str) else list(texts)
        settings = postprocess_settings(threshold, postprocess)
        if type(batch_size) is not int or batch_size < 1:
            raise SettingsError(f"batch_size is {batch_size!r}; give a whole number of at least 1")
        check_expressions(expressions)
        pixels = load_image(image)
        batches = self._batches(pixels, expressions, batch_size)
        outputs = predict_batches(self.model, batches, self.compute_dtype, settings.score_threshold)
        raw = [output for batch in outputs for output in batch]
        return [build_grounding(output, settings, text, pixels) for output, text in zip(raw, expressions, strict=True)]

    def _batches(self, pixels: np.ndarray[Any, Any], texts: Sequence[str], batch_size: int) -> Iterator[Batch]:
        resized = self.processor.resize(pixels)
        input_ids = self.processor.tokenize(texts)
        for start in range(0, len(texts), batch_size):
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
                    for index in range(start, min(start + batch_size, len(texts)))
                ],
                PAD_ID,
            )


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
) -> tuple[IGVGModel, IGVGProcessor]:
    """The network of a checkpoint, ready to predict in float32 as `igvg predict` does, and its processor.

    Its output is also a mapping, as those of transformers' models are, and holds the token ids. On a CPU the network
    cannot be trained or saved; `IGVGModel.from_pretrained` and transformers' Auto classes give one that can.

    Args:
        checkpoint: what `igvg predict --checkpoint` takes: a folder, a published file, a shipped network's name, or a
            hub name.
        revision: a branch, tag or commit of a hub name.
        device: where the network runs.

    Raises:
        CheckpointError, SettingsError: the checkpoint cannot be used.
    """
    from pipelines.huggingface.image_processing import IGVGImageProcessor
    from pipelines.huggingface.model_output import convert_output_hook
    from pipelines.huggingface.processing import IGVGProcessor

    place = find_device(device)
    plain, tokenizer, max_tokens = open_checkpoint(checkpoint, revision=revision)
    image_processor = IGVGImageProcessor(size=plain.config.image_size, max_tokens=max_tokens)
    model = place_model(plain, place, "fp32")
    model.register_forward_hook(convert_output_hook, with_kwargs=True)
    return model, IGVGProcessor(image_processor, tokenizer)
