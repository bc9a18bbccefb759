"""From the cells of the encoder to maps: a feature pyramid for the decoder, a U-Net for the masks.

Letters: B batch, C channels, K channels of a convolution's result; the maps have 4, 2, 1 and ½ times the encoder's
cells on a side.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipelines.model.cpu.minimal_filtering import convolve, is_plain, transform_weight
from pipelines.model.derived import Derived

_NORM_EPS = 1e-5


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of each pixel of a map (B, C, h, w)."""

    def forward(self, features: Tensor) -> Tensor:
        """Normalise (B, C, h, w)."""
        return super().forward(features.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Convolution(nn.Conv2d):
    """A 3 × 3 convolution of maps (B, C, h, w) that keeps their size and has no bias."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__(channels, width, 3, padding=1, bias=False)
        self.kernel = Derived(_make_kernel)

    def forward(self, features: Tensor, norm: nn.BatchNorm2d | None = None) -> Tensor:
        """Maps (B, channels, h, w) to (B, width, h, w), with a norm: batch-normalised.

        In evaluation the norm is constant and becomes part of the weights.
        """
        if norm is None:
            return self._convolve(features, self.weight)
        if norm.training:
            # Torch does not count this change of the norm's statistics.
            self.kernel.forget()
            normalised: Tensor = norm(self._convolve(features, self.weight))
            return normalised
        assert norm.running_mean is not None
        assert norm.running_var is not None
        assert norm.eps == _NORM_EPS
        return self._convolve(features, self.weight, norm.weight, norm.bias, norm.running_mean, norm.running_var)

    def _convolve(self, features: Tensor, *weights: Tensor) -> Tensor:
        """Maps (B, channels, h, w) to (B, width, h, w); the weights are those that `_fold` takes."""
        kept = None
        if not torch.is_grad_enabled() and is_plain(features, self.weight):
            kept = self.kernel.get(*weights)
        if kept is None:
            return convolve(features, *_fold(*weights))
        weight, bias, matrices = kept
        return convolve(features, weight, bias, matrices=matrices)


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
        self.merge_norm = nn.BatchNorm2d(channels, eps=_NORM_EPS)
        self.refine = Convolution(channels, channels)
        self.refine_norm = nn.BatchNorm2d(channels, eps=_NORM_EPS)

    def forward(self, coarse: Tensor, fine: Tensor) -> Tensor:
        """Maps (B, C, h, w) and (B, C, 2h, 2w) to (B, C, 2h, 2w)."""
        enlarged = F.interpolate(coarse, size=fine.shape[-2:], mode="bilinear", align_corners=True)
        merged = F.relu(self.merge(torch.cat((enlarged, fine), dim=1), self.merge_norm), inplace=True)
        return F.relu(self.refine(merged, self.refine_norm), inplace=True)


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


def _fold(
    weight: Tensor,
    norm_weight: Tensor | None = None,
    norm_bias: Tensor | None = None,
    mean: Tensor | None = None,
    variance: Tensor | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Weights (K, C, 3, 3) and the constants (K,) of a batch norm behind them to weights and bias of both at once."""
    if norm_weight is None or norm_bias is None or mean is None or variance is None:
        return weight, None
    scale = norm_weight * (variance + _NORM_EPS).rsqrt()
    return weight * scale[:, None, None, None], norm_bias - mean * scale


def _make_kernel(*weights: Tensor) -> tuple[Tensor, Tensor | None, Tensor]:
    """As `_fold`, and its weights transformed (36, C, K)."""
    weight, bias = _fold(*weights)
    return weight, bias, transform_weight(weight).contiguous()
