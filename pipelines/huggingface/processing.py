"""The processor for transformers: images and expressions to the network's inputs, and its outputs to results."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.feature_extraction_utils import BatchFeature
from transformers.processing_utils import ProcessorMixin

from pipelines.data.image_input import ImageInput, list_batch
from pipelines.data.tokenizer import PAD_ID, check_expressions, tokenize_expressions
from pipelines.data.truncation import warn_of_truncation
from pipelines.grounding import Grounding, build_grounding, postprocess_settings
from pipelines.huggingface.image_processing import IGVGImageProcessor
from pipelines.huggingface.outputs import TargetSizes, merge_segments, unpack_rows
from shards.errors import SettingsError

Texts = str | Sequence[str] | Sequence[Sequence[str]]
"""One expression, one for each image (or several for one image), or a list for each image."""


# Expressions whose token ids are kept to name results.
_REMEMBERED = 10_000


class IGVGProcessor(ProcessorMixin):  # type: ignore[misc]  # transformers has no types
    """Prepares images and expressions for the network, and turns its outputs into results."""

    if hasattr(ProcessorMixin, "attributes"):  # transformers 4; 5 reads the parameters of __init__
        attributes = ["image_processor", "tokenizer"]
        image_processor_class, tokenizer_class = "AutoImageProcessor", "AutoTokenizer"

    def __init__(self, image_processor: IGVGImageProcessor, tokenizer: Any) -> None:
        super().__init__(image_processor, tokenizer)
        self._seen: dict[tuple[int, ...], str] = {}

    def __call__(
        self,
        images: ImageInput | Sequence[ImageInput] | None = None,
        text: Texts | None = None,
        return_tensors: str | None = None,
        padding: bool | str = True,
    ) -> BatchFeature:
        """The network's inputs, one row for each expression.

        Args:
            images: one image or several, as `load_image` takes them: path, PIL image, array or tensor.
            text: one expression, which goes to every image; a list with one for each image, or for the one image; or
                a list of lists, several for each image. Rows follow in this order.
            return_tensors: `pt` or `np`.
            padding: rows are padded to the longest; there is nothing else.

        Returns:
            `pixel_values` (B, 3, S, S), `input_ids` (B, L) and `attention_mask` (B, L), of what was given.

        Raises:
            DataError: an image cannot be read.
            SettingsError: an expression has no word, or there are other expressions than images.
        """
        if padding not in (True, "longest"):
            raise SettingsError(f"padding is {padding!r}; rows are padded to the longest (True)")
        if images is None and text is None:
            raise SettingsError("give images, text or both")
        data: dict[str, Tensor] = {}
        batch = [] if images is None else list_batch(images)
        rows, expressions = list(range(len(batch))), list[str]()
        if text is not None:
            rows, expressions = pair_texts(text, len(batch) if images is not None else None)
        if images is not None:
            pixels: Tensor = self.image_processor(batch)["pixel_values"]
            data["pixel_values"] = pixels if rows == list(range(len(batch))) else pixels[rows]
        if text is not None:
            data |= self._tokenize(expressions)
        return BatchFeature(data, tensor_type=return_tensors)

    @property
    def model_input_names(self) -> list[str]:
        """What the network takes."""
        return ["pixel_values", "input_ids", "attention_mask"]

    def post_process_grounding(
        self,
        outputs: Any,
        target_sizes: TargetSizes | None = None,
        threshold: float = 0.7,
        text_labels: Sequence[str] | Sequence[Sequence[str]] | None = None,
        **postprocess: Any,
    ) -> list[Grounding]:
        """What each row's expression refers to, as `igvg predict` says.

        Args:
            outputs: of the network.
            target_sizes: (height, width) of each row's image in pixels, or one for all; None: the network's square.
            threshold: instances score above it.
            text_labels: the rows' expressions; None: those that this processor made the token ids of.
            postprocess: other settings: `mask_threshold`, `mask_source`, `existence_weighting`, `nms`, `nms_iou`.

        Raises:
            SettingsError: an unknown or invalid setting, or other sizes or labels than rows.
        """
        settings = postprocess_settings(threshold, postprocess)
        side = self.image_processor.image_size
        raw = unpack_rows(
            outputs, target_sizes if target_sizes is not None else [(side, side)], side, settings.score_threshold
        )
        texts = self._list_texts(text_labels, outputs, len(raw))
        return [build_grounding(row, settings, text) for row, text in zip(raw, texts, strict=True)]

    def post_process_grounded_object_detection(
        self,
        outputs: Any,
        input_ids: Tensor | None = None,
        threshold: float = 0.7,
        target_sizes: TargetSizes | None = None,
        text_labels: Sequence[str] | Sequence[Sequence[str]] | None = None,
    ) -> list[dict[str, Any]]:
        """For each row `scores`, `labels`, `boxes` and `text_labels`, as Grounding DINO's processor returns them.

        Args:
            outputs: of the network.
            input_ids: (B, L) the rows' token ids; None: those of the outputs.
            threshold: detections score above it.
            target_sizes: (height, width) of each row's image in pixels; None: boxes in fractions of the image.
            text_labels: the rows' expressions; None: those that this processor made the token ids of.
        """
        found = self.image_processor.post_process_object_detection(outputs, threshold, target_sizes)
        texts = self._list_texts(text_labels, outputs, len(found), input_ids)
        return [
            {**row, "text_labels": None if text is None else [text] * len(row["boxes"])}
            for row, text in zip(found, texts, strict=True)
        ]

    def post_process_instance_segmentation(
        self,
        outputs: Any,
        threshold: float = 0.7,
        mask_threshold: float = 0.5,
        target_sizes: TargetSizes | None = None,
        return_binary_maps: bool = False,
    ) -> list[dict[str, Any]]:
        """For each row `segmentation` and `segments_info`, as Mask2Former's processor returns them.

        Args:
            outputs: of the network.
            threshold: instances score above it.
            mask_threshold: a pixel belongs to a mask if its probability is at least this.
            target_sizes: (height, width) of each row's image in pixels; None: the network's square.
            return_binary_maps: one map for each instance instead of one map of ids.
        """
        found = self.post_process_grounding(outputs, target_sizes, threshold, mask_threshold=mask_threshold)
        return [
            merge_segments(row.masks, row.scores, binary_maps=return_binary_maps)
            for row in found
            if row.masks is not None
        ]

    def save_pretrained(self, save_directory: str | os.PathLike[str], push_to_hub: bool = False, **options: Any) -> Any:
        """As in transformers, and preprocessor_config.json, which `igvg predict` reads."""
        self.image_processor.save_pretrained(save_directory)
        return super().save_pretrained(save_directory, push_to_hub=push_to_hub, **options)

    def _tokenize(self, expressions: list[str]) -> dict[str, Tensor]:
        warn_of_truncation(self.tokenizer, expressions, self.image_processor.max_tokens)
        ids = tokenize_expressions(self.tokenizer, expressions, self.image_processor.max_tokens)
        longest = max(map(len, ids))
        self._seen |= zip(map(tuple, ids), expressions, strict=True)
        for oldest in list(self._seen)[:-_REMEMBERED]:
            del self._seen[oldest]
        padded = torch.tensor([[*row, *[PAD_ID] * (longest - len(row))] for row in ids])
        attention_mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in ids])
        return {"input_ids": padded, "attention_mask": attention_mask}

    def _list_texts(
        self, text_labels: Any, outputs: Any, rows: int, input_ids: Tensor | None = None
    ) -> Sequence[str | None]:
        if text_labels is None:
            ids = input_ids if input_ids is not None else getattr(outputs, "input_ids", None)
            return [None] * rows if ids is None else [self._name_tokens(row) for row in ids.tolist()]
        return name_rows(text_labels, rows)

    def _name_tokens(self, ids: list[int]) -> str:
        """The expression that this processor made these ids of, else their words."""
        unpadded = tuple(token for token in ids if token != PAD_ID)
        return self._seen.get(unpadded) or str(self.tokenizer.decode(unpadded, skip_special_tokens=True))


def name_rows(text_labels: Any, rows: int) -> list[str]:
    """The expression of each row; a list of words for a row is joined.

    Raises:
        SettingsError: there are other expressions than rows.
    """
    texts = [text_labels] if isinstance(text_labels, str) else list(text_labels)
    texts = [text if isinstance(text, str) else " ".join(text) for text in texts]
    if len(texts) != rows:
        raise SettingsError(f"{len(texts)} text_labels for {rows} rows of outputs; give the expression of each")
    return texts


def pair_texts(text: Texts, images: int | None) -> tuple[list[int], list[str]]:
    """The image index and the expression of each row.

    Args:
        text: as the processor takes it.
        images: number of images; None without images.

    Raises:
        SettingsError: an expression has no word, or there are other expressions than images.
    """
    count = images if images is not None else 1
    if not isinstance(text, str | Sequence):
        raise SettingsError(f"text is of type {type(text).__name__}; give an expression or a list of them")
    lists: list[list[Any]]
    if isinstance(text, str):
        lists = [[text]] * count
    elif any(isinstance(each, list | tuple) for each in text):
        lists = [list(each) if isinstance(each, list | tuple) else [each] for each in text]
    elif count == 1:
        lists = [list(text)]
    else:
        lists = [[each] for each in text]
    if images is not None and len(lists) != count:
        raise SettingsError(f"{len(lists)} expressions or lists of them for {count} images; give one for each image")
    pairs = [(index, each) for index, several in enumerate(lists) for each in several]
    check_expressions([each for _, each in pairs])
    return [index for index, _ in pairs], [each for _, each in pairs]
