"""Sine position embeddings, and the cosine filters that the patch embedding of a fresh network starts from.

A published encoder replaces both; trained from scratch on little data, the network learns shapes only with them.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

# Tokens have a standard deviation of 1 or more: enough to tell positions apart without dominating the content.
POSITION_AMPLITUDE = 0.5
_PATCH_AMPLITUDE = 10.0
# The contrast of natural images falls about as 1 / frequency; slightly more than that is given back.
_WHITENING = 1.5
# Gray, red–green, yellow–blue: orthogonal.
_COLOR_AXES = ((1.0, 1.0, 1.0), (1.0, -1.0, 0.0), (1.0, 1.0, -2.0))


def sine_position_embedding_2d(side: int, channels: int) -> Tensor:
    """Sine embeddings of a square grid, (side², channels) row-major: rows in the first half, columns in the second."""
    half = channels // 2
    positions = torch.arange(1, side + 1, dtype=torch.float32, device="cpu") / (side + 1e-6) * (2 * math.pi)
    embedding = _interleave(positions, half)
    rows, columns = embedding[:, None].expand(side, side, half), embedding[None].expand(side, side, half)
    return torch.cat((rows, columns), dim=-1).flatten(0, 1)


def sine_position_embedding_1d(length: int, channels: int) -> Tensor:
    """Sine embeddings of a sequence, (length, channels)."""
    return _interleave(torch.arange(length, dtype=torch.float32, device="cpu"), channels)


def dct_patch_filters(channels: int, side: int) -> Tensor:
    """Discrete cosine filters (channels, 3, side, side) for a patch embedding, lowest frequencies first.

    Each frequency comes in gray, red–green and yellow–blue. Higher frequencies are amplified, so that edges weigh as
    much as the mean color, which would otherwise dominate the token.
    """
    index = torch.arange(side, dtype=torch.float32, device="cpu")
    cosines = torch.cos(math.pi / side * index[:, None] * (index + 0.5))
    cosines = cosines / cosines.norm(dim=1, keepdim=True)
    colors = torch.tensor(_COLOR_AXES, device="cpu")
    colors = colors / colors.norm(dim=1, keepdim=True)
    frequencies = sorted((math.hypot(row, column), row, column) for row in range(side) for column in range(side))
    filters = torch.zeros(channels, 3, side, side, device="cpu")
    for rank, (frequency, row, column) in enumerate(frequencies[: math.ceil(channels / 3)]):
        amplitude = _PATCH_AMPLITUDE / side * (1 + frequency) ** _WHITENING
        pattern = amplitude * torch.outer(cosines[row], cosines[column])
        for color, channel in zip(colors, range(3 * rank, channels), strict=False):
            filters[channel] = color[:, None, None] * pattern
    return filters


def _interleave(positions: Tensor, channels: int) -> Tensor:
    """Sines in even channels, cosines in odd ones, of falling frequencies: (n,) to (n, channels)."""
    index = torch.arange(channels, dtype=torch.float32, device="cpu")
    angles = positions[:, None] / 10000 ** (2 * (index // 2) / channels)
    return torch.where(index % 2 == 0, angles.sin(), angles.cos())
