"""The sizes and choices of the network; importing this loads no torch, so that settings can be read without it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

# Far beyond any use: a slip or a damaged file ends in words, not in a lack of memory.
_MOST = {
    "image_size": 4096, "encoder_dim": 8192, "encoder_layers": 128, "encoder_ffn": 1 << 15, "vocab_size": 1 << 21,
    "text_positions": 1 << 16, "hidden_dim": 4096, "num_queries": 4096, "decoder_layers": 64, "decoder_ffn": 1 << 15,
    "generation_ffn": 1 << 15, "sampling_points": 64,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class IGVGConfig:
    """Everything that decides the network's parameters and what it computes; the defaults are the paper's base model.

    Raises:
        ValueError: sizes that do not fit together.
    """

    image_size: int = 320
    """Side of the square picture the network sees, in pixels."""
    patch_size: int = 16
    """Side of a patch, in pixels; the token grid has image_size / patch_size cells a side."""
    encoder_dim: int = 768
    """Channels of the multiway encoder."""
    encoder_layers: int = 12
    """Layers of the multiway encoder."""
    encoder_heads: int = 12
    """Attention heads of the multiway encoder."""
    encoder_ffn: int = 3072
    """Hidden channels of the encoder's feed-forward networks."""
    drop_path: float = 0.1
    """Stochastic depth of the last encoder layer; earlier layers have a linear share of it."""
    vocab_size: int = 64010
    """Rows of the token embedding."""
    text_positions: int = 1024
    """Rows of the text position embedding, the first two unused."""
    hidden_dim: int = 256
    """Channels of everything after the encoder."""
    num_queries: int = 10
    """Queries, and so points and selected tokens."""
    decoder_layers: int = 3
    """Layers of the point-prior decoder."""
    decoder_heads: int = 8
    """Attention heads of the query generation and the decoder."""
    decoder_ffn: int = 1024
    """Hidden channels of the decoder's feed-forward networks."""
    generation_ffn: int = 512
    """Hidden channels of the query generation's feed-forward network."""
    sampling_points: int = 4
    """Sampling points of deformable attention per head and level."""
    dropout: float = 0.1
    """Dropout of the query generation and the decoder."""
    text_score: Literal["l2", "mean"] = "l2"
    """Score of the text selector: L2 norm (paper, algorithm 2) or mean over channels (published checkpoints)."""
    distance_weight: float = 0.003
    """Weight of the distance term in the point selector."""
    reference: Literal["shifted", "point"] = "shifted"
    """Where queries look from: point + sigmoid(linear(position)), as published, or the point itself."""
    auxiliary_boxes: Literal["paper", "published"] = "paper"
    """Box losses of earlier decoder layers: weighted as the last layer's, or by 1 as in the published training."""

    def __post_init__(self) -> None:
        for name in ("image_size", "patch_size", "encoder_dim", "encoder_layers", "encoder_heads", "encoder_ffn",
                     "vocab_size", "hidden_dim", "num_queries", "decoder_layers", "decoder_heads", "decoder_ffn",
                     "generation_ffn", "sampling_points"):  # fmt: skip
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        for name, most in _MOST.items():
            if getattr(self, name) > most:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at most {most}")
        for name, choices in (("text_score", ("l2", "mean")), ("reference", ("shifted", "point")),
                              ("auxiliary_boxes", ("paper", "published"))):  # fmt: skip
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} is {getattr(self, name)!r}; it must be {' or '.join(choices)}")
        for name in ("drop_path", "dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 0 and less than 1")
        if not math.isfinite(self.distance_weight):
            raise ValueError(f"distance_weight is {self.distance_weight}; it must be finite")
        if self.text_positions < 3:
            raise ValueError(
                f"text_positions is {self.text_positions}; the first two are unused, so it must be at least 3"
            )
        for total, part in (("image_size", "patch_size"), ("encoder_dim", "encoder_heads"),
                            ("hidden_dim", "decoder_heads")):  # fmt: skip
            if getattr(self, total) % getattr(self, part):
                raise ValueError(f"{total} {getattr(self, total)} is not a multiple of {part} {getattr(self, part)}")
        if self.hidden_dim % 4:
            raise ValueError(f"hidden_dim {self.hidden_dim} is not a multiple of 4")
        if self.grid_size % 2 or self.grid_size < 2:
            raise ValueError(f"a grid of {self.grid_size} cells a side; it must be even for the feature pyramid")
        if self.grid_size**2 < self.num_queries:
            raise ValueError(f"{self.num_queries} queries need as many cells; the grid has {self.grid_size**2}")

    @property
    def grid_size(self) -> int:
        """Cells on a side of the token grid."""
        return self.image_size // self.patch_size

    @property
    def mask_size(self) -> int:
        """Pixels on a side of the masks that the network makes."""
        return 4 * self.grid_size
