"""Waves that a fresh network starts from: positions that tell near from far, and patches that tell edges from areas.

A published encoder replaces both; from scratch on little data they decide whether shapes are learnt at all.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

# Against tokens of deviation 1 and more: enough to tell places apart, too little to drown what is there.
POSITION_AMPLITUDE = 0.5
_PATCH_AMPLITUDE = 10.0
# In pictures of objects contrast falls about as the frequency; a bit more than that is given back.
_WHITENING = 1.5
# Grey, red against green, yellow against blue: orthogonal.
_COLOURS = ((1.0, 1.0, 1.0), (1.0, -1.0, 0.0), (1.0, 1.0, -2.0))


def build_position_map(side: int, channels: int) -> Tensor:
    """Sine positions of the cells, (side², channels) row-major: the first half tells rows, the second columns."""
    half = channels // 2
    where = torch.arange(1, side + 1, dtype=torch.float32, device="cpu") / (side + 1e-6) * (2 * math.pi)
    waves = _interleave(where, half)
    rows, columns = waves[:, None].expand(side, side, half), waves[None].expand(side, side, half)
    return torch.cat((rows, columns), dim=-1).flatten(0, 1)


def build_position_row(length: int, channels: int) -> Tensor:
    """Sine positions of the words, (length, channels)."""
    return _interleave(torch.arange(length, dtype=torch.float32, device="cpu"), channels)


def build_patch_waves(channels: int, side: int) -> Tensor:
    """Weights (channels, 3, side, side) that split a patch into cosine waves, the lowest frequencies first.

    Each wave comes in grey, red against green and yellow against blue. Higher ones are amplified, so that edges count
    as much as the mean colour, which otherwise is nearly all that a token holds.
    """
    place = torch.arange(side, dtype=torch.float32, device="cpu")
    waves = torch.cos(math.pi / side * place[:, None] * (place + 0.5))
    waves = waves / waves.norm(dim=1, keepdim=True)
    colours = torch.tensor(_COLOURS, device="cpu")
    colours = colours / colours.norm(dim=1, keepdim=True)
    pairs = sorted((math.hypot(row, column), row, column) for row in range(side) for column in range(side))
    weights = torch.zeros(channels, 3, side, side, device="cpu")
    for number, (frequency, row, column) in enumerate(pairs[: math.ceil(channels / 3)]):
        amplitude = _PATCH_AMPLITUDE / side * (1 + frequency) ** _WHITENING
        wave = amplitude * torch.outer(waves[row], waves[column])
        for colour, at in zip(colours, range(3 * number, channels), strict=False):
            weights[at] = colour[:, None, None] * wave
    return weights


def _interleave(where: Tensor, channels: int) -> Tensor:
    """Sines in even channels, cosines in odd ones, slower and slower: (n,) to (n, channels)."""
    index = torch.arange(channels, dtype=torch.float32, device="cpu")
    angles = where[:, None] / 10000 ** (2 * (index // 2) / channels)
    return torch.where(index % 2 == 0, angles.sin(), angles.cos())
