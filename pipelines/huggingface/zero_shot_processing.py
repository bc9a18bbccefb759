"""Zero-shot models of transformers in the steps of `load_pretrained`: inputs, the model's outputs, results."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers.feature_extraction_utils import BatchFeature

from pipelines.data.image_input import ImageInput, list_batch, load_image
from pipelines.data.truncation import warn_of_findings
from pipelines.grounding import Grounding, build_zero_shot_grounding
from pipelines.huggingface.outputs import TargetSizes, list_sizes
from pipelines.huggingface.processing import Texts, name_rows, pair_texts
from pipelines.prediction.families import Family, change_settings, find_family
from pipelines.prediction.zero_shot import (
    find_cut_texts,
    fit_text,
    open_detector,
    postprocess_outputs,
    prepare_inputs,
    read_detections,
)


class ZeroShotProcessor:
    """Prepares images and expressions for a zero-shot model, and turns its outputs into results, as `igvg predict`.

    Args:
        family: of the model.
        processor: the family's own, of transformers.
        max_tokens: of an expression; longer ones lose their last words.
    """

    def __init__(self, family: Family, processor: Any, max_tokens: int) -> None:
        self.family, self.processor, self.max_tokens = family, processor, max_tokens

    def __call__(
        self, images: ImageInput | Sequence[ImageInput], text: Texts, return_tensors: str = "pt"
    ) -> BatchFeature:
        """The model's inputs, one row for each expression, as the family's own processor makes them.

        Args:
            images: as the processor of igvg's networks takes them.
            text: likewise.
            return_tensors: `pt` or `np`.

        Raises:
            CheckpointError: the family's processor cannot prepare them.
            DataError: an image cannot be read.
            SettingsError: an expression has no word, or there are other expressions than images.
        """
        pixels = [load_image(image) for image in list_batch(images)]
        rows, expressions = pair_texts(text, len(pixels))
        named = ((str(row), each) for row, each in enumerate(expressions))
        warn_of_findings(find_cut_texts(self.processor.tokenizer, named, self.max_tokens), self.max_tokens)
        texts = [fit_text(self.processor.tokenizer, each, self.max_tokens) for each in expressions]
        inputs = prepare_inputs(self.family, self.processor, [pixels[row] for row in rows], texts)
        return BatchFeature(inputs.to_tensors(torch.device("cpu")), tensor_type=return_tensors)

    def post_process_grounding(
        self,
        outputs: Any,
        target_sizes: TargetSizes,
        threshold: float | None = None,
        text_labels: Sequence[str] | Sequence[Sequence[str]] | None = None,
        **thresholds: float,
    ) -> list[Grounding]:
        """What each row's expression refers to, as `igvg predict` says.

        Args:
            outputs: of the model.
            target_sizes: (height, width) of each row's image in pixels, or one for all.
            threshold: instances score above it; None: that of the family.
            text_labels: the rows' expressions; None: the results do not name them.
            thresholds: the family's other thresholds.

        Raises:
            CheckpointError: the outputs hold numbers that are not finite.
            SettingsError: an unknown or invalid threshold, or other sizes or labels than rows.
        """
        given = {} if threshold is None else {"threshold": threshold}
        settings = change_settings(self.family, given | thresholds)
        # Families name their outputs differently; all of them have a row for each expression.
        rows = next(len(value) for value in outputs.values() if isinstance(value, torch.Tensor) and value.ndim)
        sizes = list_sizes(target_sizes, rows)
        answers = postprocess_outputs(self.family, self.processor, outputs, sizes, settings)
        found = read_detections(outputs, answers, [f"row {row}" for row in range(len(sizes))], sizes)
        texts = [None] * len(sizes) if text_labels is None else name_rows(text_labels, len(sizes))
        return [build_zero_shot_grounding(each, text) for each, text in zip(found, texts, strict=True)]


def load_zero_shot(checkpoint: Path, device: torch.device) -> tuple[Any, ZeroShotProcessor]:
    """The transformers model of a zero-shot checkpoint, in float32 on a device, and its processor.

    Raises:
        CheckpointError: it cannot be used.
    """
    family = find_family(checkpoint)
    assert family is not None
    detector = open_detector(checkpoint, None, family.settings, device, "fp32")
    model = detector.model
    if (forget := family.forget) is not None:
        model.register_forward_pre_hook(lambda module, _: forget(module))
    return model, ZeroShotProcessor(family, detector.processor, detector.max_tokens)
