"""3 × 3 convolutions in a quarter of the multiplications, for the float32 maps of a CPU.

Winograd's minimal filtering F(4 × 4, 3 × 3) (Lavin and Gray 2016, Fast Algorithms for Convolutional Neural Networks):
tiles of 6 × 6 pixels, one for each 4 × 4 of the result, are transformed, multiplied with the transformed weights as 36
matrix products, and transformed back. Elsewhere torch's own convolution is the faster one.

Letters: B batch, C channels, K channels of the result, P tiles, 36 = 6 × 6 places of a tile, 16 = 4 × 4 of the result.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

STEP, TILE, TAPS = 4, 6, 3
# Where polynomials are evaluated, besides infinity; with the usual 0, ±1, ±2 rounding errors are twice as large.
_POINTS = (0.0, 0.75, -0.75, 1.5, -1.5)
# Transformed tiles at a time: small enough for a cache, and for memory that the C library keeps and gives again.
_WORKING_BYTES = 16 << 20
# Below so many pixels the transforms take longer than the products they save; where the weights are transformed
# beforehand, maps of 20 × 20 gain, those of 10 × 10 do not.
_FEWEST_PX, _FEWEST_PX_TRANSFORMED = 1600, 400


def convolve(features: Tensor, weight: Tensor, bias: Tensor | None = None, *, matrices: Tensor | None = None) -> Tensor:
    """3 × 3 convolution with stride 1 and a border of zeros.

    Args:
        features: (B, C, h, w).
        weight: (K, C, 3, 3).
        bias: (K,).
        matrices: (36, C, K) what `transform_weight` made of the weights, where it is at hand and no gradients are
            wanted.

    Returns:
        (B, K, h, w).
    """
    fewest = _FEWEST_PX if matrices is None else _FEWEST_PX_TRANSFORMED
    if not is_plain(features, weight) or features.shape[-2:].numel() < fewest:
        return F.conv2d(features, weight, bias, padding=1)
    if matrices is not None and not torch.is_grad_enabled():
        return _filter(features, matrices, bias)
    result: Tensor = MinimalFiltering.apply(features, weight, bias)  # type: ignore[no-untyped-call]
    return result


def is_plain(tensor: Tensor, weight: Tensor) -> bool:
    """Whether torch computes with both as they are: float32 on a CPU, neither cast by autocast nor compiled."""
    return (
        tensor.is_cpu
        and weight.is_cpu
        and tensor.dtype == weight.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
    )


def transform_weight(weight: Tensor) -> Tensor:
    """Weights (K, C, 3, 3) to the matrices (36, C, K) that tiles are multiplied with, one for each of their places."""
    kernels, channels = weight.shape[:2]
    flat = weight.reshape(kernels * channels, TAPS**2)
    return (_WEIGHTS @ flat.t()).view(TILE**2, kernels, channels).transpose(1, 2)


class MinimalFiltering(torch.autograd.Function):
    """Winograd's convolution and its gradients, which are convolutions and products of transformed tiles, too."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Maps (B, C, h, w), weights (K, C, 3, 3) and bias (K,) to (B, K, h, w)."""
        ctx.save_for_backward(features, weight)
        return _filter(features, transform_weight(weight), bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """The gradient (B, K, h, w) to those of the maps, the weights and the bias."""
        (gradient,) = gradients
        features, weight = ctx.saved_tensors
        wants_features, wants_weight, wants_bias = ctx.needs_input_grad
        # What a pixel gives to its neighbours comes back from them: the same filter, turned round.
        turned = weight.flip(2, 3).transpose(0, 1)
        return (
            _filter(gradient, transform_weight(turned), None) if wants_features else None,
            _correlate(features, gradient) if wants_weight else None,
            gradient.sum(dim=(0, 2, 3)) if wants_bias else None,
        )


def _filter(features: Tensor, matrices: Tensor, bias: Tensor | None) -> Tensor:
    """Maps (B, C, h, w), transformed weights (36, C, K) and bias (K,) to (B, K, h, w)."""
    batch, _, height, width = features.shape
    kernels = matrices.shape[2]
    tiles = _cut_tiles(features)
    rows, columns = tiles.shape[1:3]
    size = (batch, kernels, STEP * rows, STEP * columns)
    result = torch.empty(size, dtype=features.dtype, device=features.device, memory_format=torch.channels_last)
    places = result.permute(0, 2, 3, 1).view(batch, rows, STEP, columns, STEP, kernels).transpose(2, 3)
    for band in _list_bands(tiles, kernels):
        products = torch.bmm(_transform(tiles[band], _TILES).transpose(0, 1), matrices)
        pixels, place = _transform(products.transpose(0, 1), _RESULT), places[band]
        if bias is None:
            place.copy_(pixels.view(place.shape))
        else:
            torch.add(pixels.view(place.shape), bias, out=place)
    # Not even a view of all of it, so that what follows may change it in place.
    whole = result.shape[-2:] == (height, width)
    return result if whole else result[..., :height, :width].contiguous(memory_format=torch.channels_last)


def _correlate(features: Tensor, gradient: Tensor) -> Tensor:
    """The gradient (K, C, 3, 3) of the weights from maps (B, C, h, w) and the result's gradient (B, K, h, w)."""
    channels, kernels = features.shape[1], gradient.shape[1]
    tiles, answers = _cut_tiles(features), _cut_answers(gradient)
    total = features.new_zeros(TILE**2, kernels, channels)
    for band in _list_bands(tiles, kernels):
        transformed = _transform(tiles[band], _TILES)
        answered = _transform(answers[band], _RESULT.t())
        total.baddbmm_(answered.permute(1, 2, 0), transformed.transpose(0, 1))
    flat = total.view(TILE**2, -1).t() @ _WEIGHTS
    return flat.view(kernels, channels, TAPS, TAPS)


def _cut_tiles(features: Tensor) -> Tensor:
    """Maps (B, C, h, w) to a view of their overlapping tiles (B, rows, columns, 6, 6, C), zero beyond the border."""
    height, width = features.shape[-2:]
    padding = (0, 0, 1, 1 + -width % STEP, 1, 1 + -height % STEP)
    padded = F.pad(features.permute(0, 2, 3, 1), padding)
    return padded.unfold(1, TILE, STEP).unfold(2, TILE, STEP).permute(0, 1, 2, 4, 5, 3)


def _cut_answers(gradient: Tensor) -> Tensor:
    """Gradients (B, K, h, w) to a view of the 4 × 4 pixels of each tile (B, rows, columns, 4, 4, K)."""
    height, width = gradient.shape[-2:]
    padded = F.pad(gradient.permute(0, 2, 3, 1), (0, 0, 0, -width % STEP, 0, -height % STEP))
    return padded.unfold(1, STEP, STEP).unfold(2, STEP, STEP).permute(0, 1, 2, 4, 5, 3)


def _list_bands(tiles: Tensor, kernels: int) -> Iterator[tuple[slice, slice]]:
    """Pictures and rows of tiles (B, rows, columns, 6, 6, C) that fit at once when transformed."""
    batch, rows, columns, _, _, channels = tiles.shape
    most = max(1, _WORKING_BYTES // (TILE**2 * columns * max(channels, kernels) * tiles.element_size()))
    pictures = max(1, most // rows)
    for picture in range(0, batch, pictures):
        for row in range(0, rows, most):
            yield slice(picture, picture + pictures), slice(row, row + most)


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
    for place in points:
        others = [other for other in points if other != place]
        scale = math.prod(place - other for other in others)
        tiles.append([*_expand_roots(others), 0.0])
        weights.append([place**power / scale for power in range(TAPS)])
        result.append([place**power for power in range(STEP)])
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


_TILES, _WEIGHTS, _RESULT = _derive_matrices(_POINTS)
