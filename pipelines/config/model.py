"""The configuration of the network."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

# Upper bounds lie far above any use: a typing error or a damaged file is refused before memory is allocated.
_Size = Annotated[int, Field(strict=True, ge=1)]
_Rate = Annotated[float, Field(strict=True, ge=0, lt=1)]


ADDED_KEYS: dict[str, object] = {"point_selector": "score"}
"""Keys of later versions, and the values under which networks are as before: they are not written."""


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class IGVGConfig:
    """Everything that decides the network's parameters and what it computes; the defaults are the paper's base model.

    Raises:
        pydantic.ValidationError: a value is out of range, or sizes do not fit together; a ValueError.
    """

    image_size: Annotated[_Size, Field(le=4096)] = 320
    """Side of the square image that the network takes, in pixels."""
    patch_size: _Size = 16
    """Side of a patch, in pixels; the patch grid has image_size / patch_size rows and columns."""
    encoder_dim: Annotated[_Size, Field(le=8192)] = 768
    """Channels of the multiway encoder."""
    encoder_layers: Annotated[_Size, Field(le=128)] = 12
    """Layers of the multiway encoder."""
    encoder_heads: _Size = 12
    """Attention heads of the multiway encoder."""
    encoder_ffn: Annotated[_Size, Field(le=1 << 15)] = 3072
    """Hidden channels of the encoder's feed-forward networks."""
    drop_path: _Rate = 0.1
    """Stochastic depth of the last encoder layer; the rate grows linearly from 0 at the first."""
    vocab_size: Annotated[_Size, Field(le=1 << 21)] = 64010
    """Rows of the token embedding."""
    text_positions: Annotated[int, Field(strict=True, ge=3, le=1 << 16)] = 1024
    """Rows of the text position embedding; the first two are unused."""
    hidden_dim: Annotated[_Size, Field(multiple_of=4, le=4096)] = 256
    """Channels of everything after the encoder."""
    num_queries: Annotated[_Size, Field(le=4096)] = 10
    """Queries of an image, each with a point and a selected text token."""
    decoder_layers: Annotated[_Size, Field(le=64)] = 3
    """Layers of the point-prior decoder."""
    decoder_heads: _Size = 8
    """Attention heads of the query generation and the decoder."""
    decoder_ffn: Annotated[_Size, Field(le=1 << 15)] = 1024
    """Hidden channels of the decoder's feed-forward networks."""
    generation_ffn: Annotated[_Size, Field(le=1 << 15)] = 512
    """Hidden channels of the query generation's feed-forward network."""
    sampling_points: Annotated[_Size, Field(le=64)] = 4
    """Sampling points of deformable attention per head and level."""
    dropout: _Rate = 0.1
    """Dropout of the query generation and the decoder."""
    text_score: Literal["l2", "mean", "none"] = "l2"
    """Score of the text selector: L2 norm (paper, algorithm 2) or mean over channels (published checkpoints); `none`:
    no selection, every query takes the mean of all text tokens."""
    point_selector: Literal["score", "grid"] = "score"
    """How queries get their points: Dist-Score Point Selector (paper), or one evenly spread grid for all images."""
    distance_weight: Annotated[float, Field(strict=True, allow_inf_nan=False)] = 0.003
    """Weight of the distance term in the point selector."""
    reference: Literal["shifted", "point"] = "shifted"
    """Reference points of the decoder: point + sigmoid(linear(position)), as published, or the point itself."""

    def __post_init__(self) -> None:
        for total, part in (("image_size", "patch_size"), ("encoder_dim", "encoder_heads"),
                            ("hidden_dim", "decoder_heads")):  # fmt: skip
            size, unit = getattr(self, total), getattr(self, part)
            if size % unit:
                # The grid of patches has an even number of rows.
                step = 2 * unit if total == "image_size" else unit
                lower = max(size // step, 1) * step
                remedy = f"set model.{total}={lower} or {lower + step}, or take another preset"
                raise ValueError(f"{total} {size} is not a multiple of {part} {unit}; {remedy}")
        if self.grid_size % 2:
            raise ValueError(f"a grid of {self.grid_size} patches a side; it must be even for the feature pyramid")
        if self.grid_size**2 < self.num_queries:
            raise ValueError(f"{self.num_queries} queries need as many patches; the grid has {self.grid_size**2}")

    @property
    def grid_size(self) -> int:
        """Rows and columns of the patch grid."""
        return self.image_size // self.patch_size

    @property
    def mask_size(self) -> int:
        """Side of the network's mask logits, in pixels."""
        return 4 * self.grid_size
