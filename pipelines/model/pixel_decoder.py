"""From patch features to maps: a feature pyramid for the decoder, a U-Net for the masks.

Letters: B batch, C channels, h = w patches on a side; the pyramid's maps have 4h, 2h, h and h / 2 on a side.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class LayerNorm2d(nn.LayerNorm):
    """Layer norm over the channels of each pixel of a map (B, C, h, w).

    NOTE: the published code runs with eps 1e-5, not with the 1e-6 of its class's default.
    """

    def forward(self, features: Tensor) -> Tensor:
        """Normalize (B, C, h, w)."""
        return super().forward(features.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class SimpleFeaturePyramid(nn.Module):
    """One map to four of the same width, from fine to coarse (ViTDet: Li et al. 2022, section 3)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half, quarter = channels // 2, channels // 4
        self.up4 = nn.Sequential(
            nn.ConvTranspose2d(channels, half, 2, 2),
            LayerNorm2d(half),
            nn.GELU(),
            nn.ConvTranspose2d(half, quarter, 2, 2),
        )
        self.up2 = nn.ConvTranspose2d(channels, half, 2, 2)
        self.lateral_convs = nn.ModuleList(
            nn.Sequential(nn.Conv2d(width, channels, 1, bias=False), LayerNorm2d(channels))
            for width in (quarter, half, channels, channels)
        )
        self.fpn_convs = nn.ModuleList(
            nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1, bias=False), LayerNorm2d(channels))
            for _ in range(4)
        )
        for module in [*self.lateral_convs.modules(), *self.fpn_convs.modules()]:
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, features: Tensor) -> list[Tensor]:
        """Patch features (B, C, h, w) to maps (B, C, side, side) of 4h, 2h, h and h / 2 on a side."""
        scaled = [self.up4(features), self.up2(features), features, F.max_pool2d(features, 2)]
        return [
            fpn_conv(lateral_conv(level))
            for level, lateral_conv, fpn_conv in zip(scaled, self.lateral_convs, self.fpn_convs, strict=True)
        ]


class UNetBlock(nn.Module):
    """Upsamples a coarse map to the size of a finer one, concatenates both and convolves twice."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(2 * channels, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, coarse: Tensor, fine: Tensor) -> Tensor:
        """Maps (B, C, h, w) and (B, C, 2h, 2w) to (B, C, 2h, 2w)."""
        upsampled = F.interpolate(coarse, size=fine.shape[-2:], mode="bilinear", align_corners=True)
        features = F.relu(self.bn1(self.conv1(torch.cat((upsampled, fine), dim=1))), inplace=True)
        return F.relu(self.bn2(self.conv2(features)), inplace=True)


class PixelDecoder(nn.Module):
    """The pyramid to one map of pixel embeddings (U-Net)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(UNetBlock(channels) for _ in range(3))

    def forward(self, feature_maps: Sequence[Tensor]) -> Tensor:
        """Four maps from fine to coarse to pixel embeddings (B, C, 4h, 4w)."""
        *finer, embeddings = feature_maps
        for block, fine in zip(self.blocks, reversed(finer), strict=True):
            embeddings = block(embeddings, fine)
        return embeddings
