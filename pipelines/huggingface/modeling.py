"""The network as a transformers model: transformers loads, saves and places it, its modules and their names stay."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn
from transformers.modeling_utils import PreTrainedModel

from pipelines.huggingface.configuration import IGVGPretrainedConfig
from pipelines.huggingface.model_output import IGVGObjectDetectionOutput, convert_output
from pipelines.model.igvg import IGVGModel
from pipelines.model.serialization import report_mismatch

_HALF = (torch.bfloat16, torch.float16)


class IGVGForZeroShotObjectDetection(IGVGModel, PreTrainedModel):  # type: ignore[misc]  # transformers has no types
    """`IGVGModel` for transformers' Auto classes: the same modules, tensors and results.

    Args:
        config: the network's sizes and choices.
    """

    config: IGVGPretrainedConfig
    config_class = IGVGPretrainedConfig
    base_model_prefix = ""
    main_input_name = "pixel_values"
    supports_gradient_checkpointing = False

    def __init__(self, config: IGVGPretrainedConfig) -> None:
        PreTrainedModel.__init__(self, config)
        self._build_modules(config.to_network())
        PreTrainedModel.post_init(self)

    def forward(  # type: ignore[override]  # transformers' output is another class with the same fields
        self,
        pixel_values: Tensor,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,  # noqa: ARG002  # tokenizers of transformers make it
        return_dict: bool | None = None,
    ) -> IGVGObjectDetectionOutput | tuple[Any, ...]:
        """As `IGVGModel.forward`; without an `attention_mask` every token counts.

        With weights in bfloat16 or float16 the network runs under autocast to that type.
        """
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        # Positions, softmax and sampling points are computed in float32 whatever the type of the weights.
        dtype, device = self.class_head.weight.dtype, pixel_values.device.type
        with torch.autocast(device, dtype=dtype) if dtype in _HALF else contextlib.nullcontext():
            named = convert_output(super().forward(pixel_values, input_ids, mask), input_ids)
        return named.to_tuple() if return_dict is False else named

    @classmethod
    def from_pretrained(  # type: ignore[override]  # transformers' signature, not that of the plain network
        cls, name: str | Path, *inputs: Any, output_loading_info: bool = False, **options: Any
    ) -> Self | tuple[Self, dict[str, Any]]:
        """As in transformers, with two differences.

        Missing and unexpected tensors and those of the wrong shape are errors. Without a `dtype` (or with "auto")
        weights in float16 are widened to float32, as everywhere in igvg.

        Raises:
            CheckpointError: the tensors or the configuration do not fit the network.
        """
        for key in ("dtype", "torch_dtype"):
            if options.get(key) == "auto":
                del options[key]
        options.setdefault("torch_dtype" if "torch_dtype" in options else "dtype", torch.float32)
        load = super(IGVGModel, cls).from_pretrained
        # Mismatched shapes are collected, and reported with the others.
        options["ignore_mismatched_sizes"] = True
        with _without_report():
            model, found = load(name, *inputs, output_loading_info=True, **options)
        # transformers 5 gives the shapes, too.
        shapes = [key if isinstance(key, str) else f"{key[0]} is {list(key[1])}, not {list(key[2])}"
                  for key in found["mismatched_keys"]]  # fmt: skip
        report_mismatch(str(name), found["missing_keys"], found["unexpected_keys"], shapes)
        model.restore_constants()
        return (model, found) if output_loading_info else model

    def save_pretrained(self, *inputs: Any, **options: Any) -> None:
        """As in transformers."""
        super(IGVGModel, self).save_pretrained(*inputs, **options)

    def restore_constants(self) -> None:
        """Compute the buffers again that checkpoints do not hold: transformers leaves them uninitialized."""
        with torch.device("meta"):
            fresh = IGVGModel(self.config.to_network())
        for name, buffer in fresh.named_buffers():
            if not buffer.is_meta:
                self.get_buffer(name).copy_(buffer)

    def _init_weights(self, module: nn.Module) -> None:
        """Leave weights as the modules drew them."""


@contextlib.contextmanager
def _without_report() -> Iterator[None]:
    """Keep transformers from logging which tensors do not fit: the error says it."""
    logger = logging.getLogger(PreTrainedModel.__module__)
    # A level that is set on this logger itself makes transformers log which layers tensor parallelism leaves out.
    logger.addFilter(_is_error)
    try:
        yield
    finally:
        logger.removeFilter(_is_error)


def _is_error(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.ERROR
