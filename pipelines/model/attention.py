"""Attention and feed-forward blocks of the query generation and the decoder.

Letters: B batch, Q queries, C channels, M memory tokens, H heads, D = C / H, K levels, P sampling points.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def split_heads(tokens: Tensor, heads: int) -> Tensor:
    """(B, L, C) to (B, H, L, D)."""
    return torch.unflatten(tokens, -1, (heads, -1)).transpose(1, 2)


def attend(query: Tensor, key: Tensor, value: Tensor, visible: Tensor | None = None, dropout: float = 0.0) -> Tensor:
    """Scaled dot-product attention: (B, H, Q, D), (B, H, M, D) twice to (B, H, Q, D).

    Args:
        query: what looks.
        key: where it may look.
        value: what it sees there.
        visible: (B, 1, 1, M) bool; hidden keys are not looked at. None: all are visible.
        dropout: of the weights.
    """
    if query.is_cpu and torch.is_autocast_enabled("cpu") and torch.is_grad_enabled() and not dropout:
        # In bfloat16 the fused kernel's backward pass takes six times as long on a CPU as these products do.
        return _attend_in_products(query, key, value, visible)
    return F.scaled_dot_product_attention(query, key, value, attn_mask=visible, dropout_p=dropout)


def _attend_in_products(query: Tensor, key: Tensor, value: Tensor, visible: Tensor | None) -> Tensor:
    batch, heads, length, channels = query.shape
    bias = query.new_zeros(batch, 1, 1, key.shape[2])
    if visible is not None:
        bias = bias.masked_fill(~visible, -torch.inf)
    bias = bias.expand(-1, heads, length, -1).flatten(0, 1)
    keys = key.flatten(0, 1).transpose(1, 2)
    weights = torch.baddbmm(bias, query.flatten(0, 1), keys, alpha=channels**-0.5).softmax(dim=-1)
    return torch.bmm(weights.to(value.dtype), value.flatten(0, 1)).view(batch, heads, length, -1)


class SelfAttention(nn.Module):
    """Attention among queries; positions take part in where to look, not in what is passed on."""

    def __init__(self, channels: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.query_key = nn.Linear(channels, 2 * channels)
        self.value = nn.Linear(channels, channels)
        self.out = nn.Linear(channels, channels)
        _initialize_linears(self)

    def forward(self, queries: Tensor, positions: Tensor) -> Tensor:
        """Queries (B, Q, C) and their positions (B, Q, C) to (B, Q, C)."""
        query, key = self.query_key(queries + positions).chunk(2, dim=-1)
        mixed = attend(
            split_heads(query, self.heads),
            split_heads(key, self.heads),
            split_heads(self.value(queries), self.heads),
            dropout=self.dropout if self.training else 0.0,
        )
        out: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return out


class CrossAttention(nn.Module):
    """Attention of queries to a memory that also returns where they looked."""

    def __init__(self, channels: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.query = nn.Linear(channels, channels)
        self.key = nn.Linear(channels, channels)
        self.value = nn.Linear(channels, channels)
        self.out = nn.Linear(channels, channels)
        _initialize_linears(self)

    def forward(self, queries: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Queries (B, Q, C), keys and values (B, M, C) to (B, Q, C) and the mean over heads of the weights (B, Q, M).

        NOTE: in training the weights returned have gone through dropout, as in the published code.
        """
        query = split_heads(self.query(queries), self.heads)
        key = split_heads(self.key(keys), self.heads)
        weights = (query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])).float().softmax(dim=-1)
        weights = F.dropout(weights, self.dropout, self.training)
        mixed = weights @ split_heads(self.value(values), self.heads)
        return self.out(mixed.transpose(1, 2).flatten(2)), weights.mean(dim=1)


class DeformableAttention(nn.Module):
    """Each query looks at a few learned places around its reference point, on every level of a pyramid.

    The places are sampled from the raw maps and only what was sampled is projected: a projection is linear, so this
    equals projecting all of the maps first (8,500 tokens at 320 pixels against 80 samples). Its bias enters as often
    as a sample lies inside the map, since outside counts as zero.
    """

    sizes: Tensor

    def __init__(self, channels: int, heads: int, points: int, sides: Sequence[int]) -> None:
        super().__init__()
        levels = len(sides)
        self.heads = heads
        self.shape = (heads, levels, points)
        self.offsets = nn.Linear(channels, heads * levels * points * 2)
        self.weights = nn.Linear(channels, heads * levels * points)
        self.value = nn.Linear(channels, channels)
        self.out = nn.Linear(channels, channels)
        sizes = torch.tensor(sides, dtype=torch.float32, device="cpu")
        self.register_buffer("sizes", sizes[:, None, None], persistent=False)
        self._initialize()

    def _initialize(self) -> None:
        """Heads look in evenly spread directions, the n-th point n cells away; all samples weigh the same."""
        _initialize_linears(self)
        heads, levels, points = self.shape
        angles = torch.arange(heads, dtype=torch.float32) * (2 * math.pi / heads)
        directions = torch.stack((angles.cos(), angles.sin()), dim=-1)
        directions = directions / directions.abs().amax(dim=-1, keepdim=True)
        steps = torch.arange(1, points + 1, dtype=torch.float32)
        bias = (directions[:, None, None] * steps[:, None]).expand(heads, levels, points, 2)
        nn.init.zeros_(self.offsets.weight)
        nn.init.zeros_(self.weights.weight)
        with torch.no_grad():
            self.offsets.bias.copy_(bias.flatten())

    def forward(self, queries: Tensor, references: Tensor, maps: Sequence[Tensor]) -> Tensor:
        """What queries see.

        Args:
            queries: (B, Q, C) with their positions added.
            references: (B, Q, 2) x, y in fractions of the picture.
            maps: K maps (B, C, side, side).

        Returns:
            (B, Q, C).
        """
        heads, levels, points = self.shape
        offsets = self.offsets(queries).unflatten(-1, (heads, levels, points, 2))
        weights = self.weights(queries).unflatten(-1, (heads, levels * points)).float().softmax(dim=-1)
        weights = weights.unflatten(-1, (levels, points))
        places = references[:, :, None, None, None] + offsets / self.sizes
        seen, inside = sample_maps(maps, places, weights), (weights * cover(places, self.sizes)).sum((-2, -1))
        by_head = torch.unflatten(self.value.weight, 0, (heads, -1))
        values = torch.einsum("bchq,hdc->bqhd", seen, by_head) + inside[..., None] * self.value.bias.view(heads, -1)
        out: Tensor = self.out(values.flatten(2))
        return out


def sample_maps(maps: Sequence[Tensor], places: Tensor, weights: Tensor) -> Tensor:
    """Weighted sum over levels and points of bilinear samples; zero outside of the maps.

    Args:
        maps: K maps (B, C, side, side).
        places: (B, Q, H, K, P, 2) x, y in fractions of the picture; pixel centres lie at (i + 0.5) / side.
        weights: (B, Q, H, K, P).

    Returns:
        (B, C, H, Q).
    """
    grid = (2 * places - 1).transpose(1, 2).flatten(1, 2)
    shares = weights.transpose(1, 2).flatten(1, 2).unsqueeze(1)
    total = torch.zeros((), device=weights.device)
    for level, features in enumerate(maps):
        samples = F.grid_sample(features.to(grid.dtype), grid[:, :, level], padding_mode="zeros", align_corners=False)
        total = total + (samples * shares[:, :, :, level]).sum(dim=-1)
    return torch.unflatten(total, -1, (weights.shape[2], -1))


def cover(places: Tensor, sizes: Tensor) -> Tensor:
    """How much of the bilinear weight of each place falls inside a map of `sizes` cells: (…, 2) to (…), 0 to 1."""
    cells = places * sizes
    along = torch.minimum(cells, sizes - cells) + 0.5
    # `Tensor.prod` would do, but its gradient looks for zeros and waits for the device.
    inside = along.clamp(0, 1)
    return inside[..., 0] * inside[..., 1]


class FeedForward(nn.Module):
    """Two linear maps with a ReLU between."""

    def __init__(self, channels: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.expand = nn.Linear(channels, hidden)
        self.contract = nn.Linear(hidden, channels)
        self.dropout = nn.Dropout(dropout)
        nn.init.xavier_uniform_(self.expand.weight)
        nn.init.xavier_uniform_(self.contract.weight)

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens (…, C) to (…, C), without the residual."""
        out: Tensor = self.dropout(self.contract(self.dropout(F.relu(self.expand(tokens)))))
        return out


class MLP(nn.Module):
    """Three linear maps with ReLUs between."""

    def __init__(self, inputs: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.first = nn.Linear(inputs, hidden)
        self.second = nn.Linear(hidden, hidden)
        self.last = nn.Linear(hidden, outputs)

    def embed(self, tokens: Tensor) -> Tensor:
        """Tokens (…, inputs) to the hidden channels before the last map (…, hidden)."""
        return F.relu(self.second(F.relu(self.first(tokens))))

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens (…, inputs) to (…, outputs)."""
        out: Tensor = self.last(self.embed(tokens))
        return out


def _initialize_linears(module: nn.Module) -> None:
    for child in module.children():
        if isinstance(child, nn.Linear):
            nn.init.xavier_uniform_(child.weight)
            nn.init.zeros_(child.bias)
