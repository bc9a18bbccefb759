"""From the cells of the encoder to maps: a feature pyramid for the decoder, a U-Net for the masks.

Letters: B batch, C channels; the maps have 4, 2, 1 and ½ times the encoder's cells on a side.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipelines.model.convolution import convolve

if TYPE_CHECKING:
    from collections.abc import Sequence


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of each pixel of a map (B, C, h, w)."""

    def forward(self, features: Tensor) -> Tensor:
        """Normalise (B, C, h, w)."""
        return super().forward(features.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Convolution(nn.Conv2d):
    """A 3 × 3 convolution of maps (B, C, h, w) that keeps their size and has no bias."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__(channels, width, 3, padding=1, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        """Maps (B, channels, h, w) to (B, width, h, w)."""
        return convolve(features, self.weight)


class FeaturePyramid(nn.Module):
    """One map to four of the same width, from fine to coarse, each on its own (SimpleFPN of ViTDet)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half, quarter = channels // 2, channels // 4
        self.finest = nn.Sequential(
            nn.ConvTranspose2d(channels, half, 2, 2),
            ChannelNorm(half),
            nn.GELU(),
            nn.ConvTranspose2d(half, quarter, 2, 2),
        )
        self.fine = nn.ConvTranspose2d(channels, half, 2, 2)
        self.lateral = nn.ModuleList(
            nn.Sequential(nn.Conv2d(width, channels, 1, bias=False), ChannelNorm(channels))
            for width in (quarter, half, channels, channels)
        )
        self.smooth = nn.ModuleList(
            nn.Sequential(Convolution(channels, channels), ChannelNorm(channels)) for _ in range(4)
        )
        for module in [*self.lateral.modules(), *self.smooth.modules()]:
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, cells: Tensor) -> list[Tensor]:
        """Cells (B, C, h, w) to maps of 4h, 2h, h and h / 2 on a side."""
        maps = [self.finest(cells), self.fine(cells), cells, F.max_pool2d(cells, 2)]
        return [smooth(lateral(level)) for level, lateral, smooth in zip(maps, self.lateral, self.smooth, strict=True)]


class UpStage(nn.Module):
    """A coarse map, enlarged to the size of a finer one and merged with it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.merge = Convolution(2 * channels, channels)
        self.merge_norm = nn.BatchNorm2d(channels)
        self.refine = Convolution(channels, channels)
        self.refine_norm = nn.BatchNorm2d(channels)

    def forward(self, coarse: Tensor, fine: Tensor) -> Tensor:
        """Maps (B, C, h, w) and (B, C, 2h, 2w) to (B, C, 2h, 2w)."""
        enlarged = F.interpolate(coarse, size=fine.shape[-2:], mode="bilinear", align_corners=True)
        merged = _convolve(torch.cat((enlarged, fine), dim=1), self.merge, self.merge_norm)
        return _convolve(merged, self.refine, self.refine_norm)


class PixelDecoder(nn.Module):
    """The pyramid to one map of pixel embeddings (U-Net)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.stages = nn.ModuleList(UpStage(channels) for _ in range(3))

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Four maps from fine to coarse to pixel embeddings (B, C, 4h, 4w)."""
        *finer, embedding = maps
        for stage, fine in zip(self.stages, reversed(finer), strict=True):
            embedding = stage(embedding, fine)
        return embedding


def _convolve(features: Tensor, convolution: Convolution, norm: nn.BatchNorm2d) -> Tensor:
    """Convolution, batch norm and ReLU; in evaluation the norm is constant and becomes part of the convolution."""
    if norm.training:
        return F.relu(norm(convolution(features)), inplace=True)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
    shift = norm.bias - norm.running_mean * scale
    weight = convolution.weight * scale[:, None, None, None]
    return F.relu(convolve(features, weight, shift), inplace=True)
