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
    """(B, Q, C) to (B, H, Q, D)."""
    return torch.unflatten(tokens, -1, (heads, -1)).transpose(1, 2)


def merge_heads(tokens: Tensor) -> Tensor:
    """(B, H, Q, D) to (B, Q, C)."""
    return tokens.transpose(1, 2).flatten(2)


class SelfAttention(nn.Module):
    """Self-attention of queries; position embeddings are added to queries and keys, not to values (DETR)."""

    def __init__(self, channels: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.qk_proj = nn.Linear(channels, 2 * channels)
        self.v_proj = nn.Linear(channels, channels)
        self.out_proj = nn.Linear(channels, channels)
        _initialize_linears(self)

    def forward(self, queries: Tensor, query_pos: Tensor) -> Tensor:
        """Queries (B, Q, C) and their position embeddings (B, Q, C) to (B, Q, C)."""
        query, key = self.qk_proj(queries + query_pos).chunk(2, dim=-1)
        attended = F.scaled_dot_product_attention(
            split_heads(query, self.heads),
            split_heads(key, self.heads),
            split_heads(self.v_proj(queries), self.heads),
            dropout_p=self.dropout if self.training else 0.0,
        )
        out: Tensor = self.out_proj(merge_heads(attended))
        return out


class CrossAttention(nn.Module):
    """Attention of queries to a memory that also returns its weights."""

    def __init__(self, channels: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.q_proj = nn.Linear(channels, channels)
        self.k_proj = nn.Linear(channels, channels)
        self.v_proj = nn.Linear(channels, channels)
        self.out_proj = nn.Linear(channels, channels)
        _initialize_linears(self)

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Query (B, Q, C), key and value (B, M, C) to (B, Q, C) and the weights' mean over heads (B, Q, M).

        NOTE: in training the weights returned have gone through dropout, as in the published code.
        """
        query = split_heads(self.q_proj(query), self.heads)
        key = split_heads(self.k_proj(key), self.heads)
        weights = (query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])).float().softmax(dim=-1)
        weights = F.dropout(weights, self.dropout, self.training)
        attended = weights @ split_heads(self.v_proj(value), self.heads)
        return self.out_proj(merge_heads(attended)), weights.mean(dim=1)


class MSDeformAttn(nn.Module):
    """Multi-scale deformable attention (Zhu et al. 2021, Deformable DETR, equation 3).

    Values are sampled from the raw maps and only the samples are projected: a projection is linear, so this equals
    projecting all of the maps first (8,500 tokens at 320 pixels against 80 samples). Samples outside of a map are zero
    and get no bias of the projection: the bias is weighted by the part of the bilinear weights that lies inside.
    """

    spatial_shapes: Tensor

    def __init__(self, channels: int, heads: int, points: int, sides: Sequence[int]) -> None:
        super().__init__()
        levels = len(sides)
        self.heads, self.levels, self.points = heads, levels, points
        self.sampling_offsets = nn.Linear(channels, heads * levels * points * 2)
        self.attention_weights = nn.Linear(channels, heads * levels * points)
        self.value_proj = nn.Linear(channels, channels)
        self.output_proj = nn.Linear(channels, channels)
        spatial_shapes = torch.tensor(sides, dtype=torch.float32, device="cpu")
        self.register_buffer("spatial_shapes", spatial_shapes[:, None, None], persistent=False)
        self._initialize()

    def _initialize(self) -> None:
        """The heads' offsets point in evenly spread directions, point n lies n cells away; all weights are equal."""
        _initialize_linears(self)
        # On the meta device torch would load its compiler for this arithmetic, which takes half a second.
        angles = torch.arange(self.heads, dtype=torch.float32, device="cpu") * (2 * math.pi / self.heads)
        directions = torch.stack((angles.cos(), angles.sin()), dim=-1)
        directions = directions / directions.abs().amax(dim=-1, keepdim=True)
        distances = torch.arange(1, self.points + 1, dtype=torch.float32, device="cpu")
        bias = (directions[:, None, None] * distances[:, None]).expand(self.heads, self.levels, self.points, 2)
        nn.init.zeros_(self.sampling_offsets.weight)
        nn.init.zeros_(self.attention_weights.weight)
        with torch.no_grad():
            self.sampling_offsets.bias.copy_(bias.flatten())

    def forward(self, queries: Tensor, reference_points: Tensor, feature_maps: Sequence[Tensor]) -> Tensor:
        """Attend to the maps around reference points.

        Args:
            queries: (B, Q, C) with their position embeddings added.
            reference_points: (B, Q, 2) x, y in fractions of the image.
            feature_maps: K maps (B, C, side, side).

        Returns:
            (B, Q, C).
        """
        heads, levels, points = self.heads, self.levels, self.points
        offsets = self.sampling_offsets(queries).unflatten(-1, (heads, levels, points, 2))
        weights = self.attention_weights(queries).unflatten(-1, (heads, levels * points)).float().softmax(dim=-1)
        weights = weights.unflatten(-1, (levels, points))
        locations = reference_points[:, :, None, None, None] + offsets / self.spatial_shapes
        sampled = multi_scale_deformable_attention(feature_maps, locations, weights)
        coverage = (weights * bilinear_coverage(locations, self.spatial_shapes)).sum((-2, -1))
        weight_by_head = torch.unflatten(self.value_proj.weight, 0, (heads, -1))
        values = torch.einsum("bchq,hdc->bqhd", sampled, weight_by_head)
        values = values + coverage[..., None] * self.value_proj.bias.view(heads, -1)
        out: Tensor = self.output_proj(values.flatten(2))
        return out


def multi_scale_deformable_attention(
    feature_maps: Sequence[Tensor], sampling_locations: Tensor, attention_weights: Tensor
) -> Tensor:
    """Weighted sum over levels and points of bilinear samples; zero outside of the maps.

    Args:
        feature_maps: K maps (B, C, side, side).
        sampling_locations: (B, Q, H, K, P, 2) x, y in fractions of the image; pixel centers lie at (i + 0.5) / side.
        attention_weights: (B, Q, H, K, P).

    Returns:
        (B, C, H, Q): unlike in Deformable DETR every head gets all channels, since the maps are not yet projected.
    """
    grid = (2 * sampling_locations - 1).transpose(1, 2).flatten(1, 2)
    weights = attention_weights.transpose(1, 2).flatten(1, 2).unsqueeze(1)
    total = torch.zeros((), device=weights.device)
    for level, features in enumerate(feature_maps):
        samples = F.grid_sample(features.to(grid.dtype), grid[:, :, level], padding_mode="zeros", align_corners=False)
        total = total + (samples * weights[:, :, :, level]).sum(dim=-1)
    return torch.unflatten(total, -1, (attention_weights.shape[2], -1))


def bilinear_coverage(sampling_locations: Tensor, spatial_shapes: Tensor) -> Tensor:
    """The part of each sample's bilinear weights that lies inside a map: (…, 2) to (…) in [0, 1].

    It is what sampling a map of ones gives. spatial_shapes: width and height in cells, broadcast.
    """
    cells = sampling_locations * spatial_shapes
    inside = (torch.minimum(cells, spatial_shapes - cells) + 0.5).clamp(0, 1)
    # The gradient of `Tensor.prod` would synchronize with the device.
    return inside[..., 0] * inside[..., 1]


class FeedForward(nn.Module):
    """Two linear maps with a ReLU between, and dropout after both."""

    def __init__(self, channels: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, hidden)
        self.fc2 = nn.Linear(hidden, channels)
        self.dropout = nn.Dropout(dropout)
        nn.init.xavier_uniform_(self.fc1.weight)
        nn.init.xavier_uniform_(self.fc2.weight)

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens (…, C) to (…, C), without the residual."""
        out: Tensor = self.dropout(self.fc2(self.dropout(F.relu(self.fc1(tokens)))))
        return out


class MLP(nn.Module):
    """Three linear maps with ReLUs between."""

    def __init__(self, inputs: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(inputs, hidden)
        self.fc2 = nn.Linear(hidden, hidden)
        self.fc3 = nn.Linear(hidden, outputs)

    def forward_hidden(self, tokens: Tensor) -> Tensor:
        """Tokens (…, inputs) to the input of the last map (…, hidden)."""
        return F.relu(self.fc2(F.relu(self.fc1(tokens))))

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens (…, inputs) to (…, outputs)."""
        out: Tensor = self.fc3(self.forward_hidden(tokens))
        return out


def _initialize_linears(module: nn.Module) -> None:
    for child in module.children():
        if isinstance(child, nn.Linear):
            nn.init.xavier_uniform_(child.weight)
            nn.init.zeros_(child.bias)
