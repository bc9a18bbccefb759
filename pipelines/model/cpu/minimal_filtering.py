"""3 × 3 convolutions with a quarter of the multiplications, for float32 inference on a CPU.

Winograd's minimal filtering F(4 × 4, 3 × 3) (Lavin and Gray 2016, Fast Algorithms for Convolutional Neural Networks):
tiles of 6 × 6 pixels, one for each 4 × 4 of the result, are transformed, multiplied by the transformed weights as 36
matrix products, and transformed back.

Letters: B batch, C input channels, K output channels, P tiles, 36 = 6 × 6 pixels of a tile, 16 = 4 × 4 of the result.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

STEP, TILE, TAPS = 4, 6, 3
# Where polynomials are evaluated, besides infinity; with the usual 0, ±1, ±2 rounding errors are twice as large.
_POINTS = (0.0, 0.75, -0.75, 1.5, -1.5)
# Transformed tiles at a time: small enough for a cache, and for memory that the C library keeps and reuses.
_WORKING_BYTES = 16 << 20
# Maps of 20 × 20 pixels gain; on those of 10 × 10 the transforms take longer than the products that they save.
_MIN_PIXELS = 400


class MinimalFilteringConv2d(nn.Module):
    """An inference-only copy of a 3 × 3 convolution with stride 1 and zero padding of 1.

    Maps of less than 400 pixels, other types than float32 and autocast take torch's own convolution.
    """

    weight: Tensor
    bias: Tensor | None
    matrices: Tensor

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        assert (conv.kernel_size, conv.stride, conv.padding) == ((TAPS, TAPS), (1, 1), (1, 1))
        assert (conv.dilation, conv.groups, conv.padding_mode) == ((1, 1), 1, "zeros")
        self.register_buffer("weight", conv.weight.detach())
        self.register_buffer("bias", None if conv.bias is None else conv.bias.detach())
        self.register_buffer("matrices", transform_weight(conv.weight.detach()).contiguous())

    def forward(self, features: Tensor) -> Tensor:
        """Maps (B, C, h, w) to (B, K, h, w)."""
        small = features.shape[-2:].numel() < _MIN_PIXELS
        if small or features.dtype != torch.float32 or torch.is_autocast_enabled("cpu"):
            return F.conv2d(features, self.weight, self.bias, padding=1)
        return minimal_filtering(features, self.matrices, self.bias)


def transform_weight(weight: Tensor) -> Tensor:
    """Weights (K, C, 3, 3) to the matrices (36, C, K) that the pixels of transformed tiles are multiplied by."""
    kernels, channels = weight.shape[:2]
    flat = weight.reshape(kernels * channels, TAPS**2)
    return (_WEIGHT_TRANSFORM @ flat.t()).view(TILE**2, kernels, channels).transpose(1, 2)


def minimal_filtering(features: Tensor, matrices: Tensor, bias: Tensor | None) -> Tensor:
    """Convolve maps (B, C, h, w) with transformed weights (36, C, K) and bias (K,) to (B, K, h, w)."""
    batch, _, height, width = features.shape
    kernels = matrices.shape[2]
    tiles = _cut_tiles(features)
    rows, columns = tiles.shape[1:3]
    size = (batch, kernels, STEP * rows, STEP * columns)
    result = torch.empty(size, dtype=features.dtype, device=features.device, memory_format=torch.channels_last)
    result_tiles = result.permute(0, 2, 3, 1).view(batch, rows, STEP, columns, STEP, kernels).transpose(2, 3)
    for band in _list_bands(tiles, kernels):
        products = torch.bmm(_transform(tiles[band], _TILE_TRANSFORM).transpose(0, 1), matrices)
        pixels, target = _transform(products.transpose(0, 1), _RESULT_TRANSFORM), result_tiles[band]
        if bias is None:
            target.copy_(pixels.view(target.shape))
        else:
            torch.add(pixels.view(target.shape), bias, out=target)
    return result[..., :height, :width]


def _cut_tiles(features: Tensor) -> Tensor:
    """Maps (B, C, h, w) to a view of their overlapping tiles (B, rows, columns, 6, 6, C), padded with zeros."""
    height, width = features.shape[-2:]
    padding = (0, 0, 1, 1 + -width % STEP, 1, 1 + -height % STEP)
    padded = F.pad(features.permute(0, 2, 3, 1), padding)
    return padded.unfold(1, TILE, STEP).unfold(2, TILE, STEP).permute(0, 1, 2, 4, 5, 3)


def _list_bands(tiles: Tensor, kernels: int) -> Iterator[tuple[slice, slice]]:
    """Images and rows of tiles (B, rows, columns, 6, 6, C) whose transforms fit into the working memory."""
    batch, rows, columns, _, _, channels = tiles.shape
    most = max(1, _WORKING_BYTES // (TILE**2 * columns * max(channels, kernels) * tiles.element_size()))
    images = max(1, most // rows)
    for image in range(0, batch, images):
        for row in range(0, rows, most):
            yield slice(image, image + images), slice(row, row + most)


def _transform(tiles: Tensor, matrix: Tensor) -> Tensor:
    """Apply a matrix (i·i, j·j) to the sides of P tiles (…, j, j, C) or (P, j·j, C); gives (P, i·i, C)."""
    flat = tiles.reshape(-1, matrix.shape[1], tiles.shape[-1])
    return torch.bmm(matrix.expand(len(flat), -1, -1), flat)


def _derive_matrices(points: Sequence[float]) -> tuple[Tensor, Tensor, Tensor]:
    """Toom and Cook's matrices for both directions at once: of tiles (36, 36), weights (36, 9) and results (16, 36).

    Polynomials are evaluated at the points and at infinity, multiplied there, and interpolated (Lavin and Gray 2016,
    section 4, with Bᵀ, G and Aᵀ for the three).
    """
    tiles, weights, result = [], [], []
    for point in points:
        others = [other for other in points if other != point]
        scale = math.prod(point - other for other in others)
        tiles.append([*_expand_roots(others), 0.0])
        weights.append([point**power / scale for power in range(TAPS)])
        result.append([point**power for power in range(STEP)])
    tiles.append(_expand_roots(points))
    weights.append([0.0] * (TAPS - 1) + [1.0])
    result.append([0.0] * (STEP - 1) + [1.0])
    one_way = [torch.tensor(rows, dtype=torch.float64, device="cpu") for rows in (tiles, weights, result)]
    one_way[2] = one_way[2].t()
    both = [torch.kron(matrix, matrix).float() for matrix in one_way]
    return both[0], both[1], both[2]


def _expand_roots(roots: Sequence[float]) -> list[float]:
    """The coefficients of the polynomial with these roots, from the constant on."""
    coefficients = [1.0]
    for root in roots:
        shifted, scaled = [0.0, *coefficients], [*(root * value for value in coefficients), 0.0]
        coefficients = [high - low for high, low in zip(shifted, scaled, strict=True)]
    return coefficients


_TILE_TRANSFORM, _WEIGHT_TRANSFORM, _RESULT_TRANSFORM = _derive_matrices(_POINTS)
