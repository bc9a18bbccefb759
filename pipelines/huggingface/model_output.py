"""The network's output as transformers' outputs are: attributes, a mapping and a tuple at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from torch import Tensor, nn
from transformers.utils import ModelOutput

from pipelines.model.igvg import IGVGOutput


@dataclass
class IGVGObjectDetectionOutput(ModelOutput):  # type: ignore[misc]  # transformers has no types
    """`IGVGOutput` as transformers' outputs are: also a mapping and a tuple; `logits` and `pred_boxes` as in DETR."""

    class_logits: Tensor | None = None
    boxes: Tensor | None = None
    points: Tensor | None = None
    instance_mask_logits: Tensor | None = None
    global_mask_logits: Tensor | None = None
    existence_logits: Tensor | None = None
    attention_map: Tensor | None = None
    aux_class_logits: tuple[Tensor, ...] | None = None
    aux_boxes: tuple[Tensor, ...] | None = None
    input_ids: Tensor | None = None
    """(B, L) the token ids of the expressions, as in Grounding DINO's output."""

    # Not fields: a mapping has each tensor once.
    @property
    def logits(self) -> Tensor | None:
        """(B, Q, 2): target, no object."""
        return self.class_logits

    @property
    def pred_boxes(self) -> Tensor | None:
        """(B, Q, 4) cx, cy, w, h in [0, 1]."""
        return self.boxes


def convert_output(output: IGVGOutput, input_ids: Tensor | None) -> IGVGObjectDetectionOutput:
    """The same tensors, and the token ids (B, L) that they were computed from."""
    values = {field.name: getattr(output, field.name) for field in fields(IGVGOutput)}
    values |= {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
    return IGVGObjectDetectionOutput(**values, input_ids=input_ids)


def convert_output_hook(
    module: nn.Module, arguments: tuple[Any, ...], named: Mapping[str, Any], output: IGVGOutput
) -> IGVGObjectDetectionOutput:
    """A forward hook with which the plain network returns transformers' output."""
    del module
    return convert_output(output, named["input_ids"] if "input_ids" in named else arguments[1])
