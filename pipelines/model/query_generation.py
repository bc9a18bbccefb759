"""Attention-based query generation: the words that matter look at the picture, and where they look become the queries.

Score Text Selector (paper, algorithm 2) → attention of the selected words to the cells → Dist-Score Point Selector →
one query for each pair of word and point.

Letters: B batch, L text tokens, N queries, C channels, h = w cells on a side.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipelines.config.model import IGVGConfig
from pipelines.model.attention import MLP, CrossAttention, FeedForward
from pipelines.model.position_encoding import build_position_map


@dataclass(frozen=True)
class SelectedWords:
    """The tokens that the Score Text Selector chose."""

    features: Tensor
    """(B, N, C), zero where there were fewer than N tokens."""
    mask: Tensor
    """(B, N) bool, False where there were fewer than N tokens."""
    indices: Tensor
    """(B, N) positions in the text."""


@dataclass(frozen=True)
class Queries:
    """What the decoder starts from."""

    features: Tensor
    """(B, N, C)."""
    points: Tensor
    """(B, N, 2) x, y in [0, 1]: the centres of the chosen cells."""
    attention_map: Tensor
    """(B, h, w) for each cell the largest attention of a selected token."""


def select_words(features: Tensor, attention_mask: Tensor, count: int, score: str) -> SelectedWords:
    """Pick the tokens with the highest scores, best first; where there are fewer than `count`, all of them in order.

    Args:
        features: (B, L, C).
        attention_mask: (B, L), 1 = token, 0 = padding.
        count: N; how many to pick.
        score: "l2", the norm of the features (paper, algorithm 2), or "mean", their mean (published checkpoints).
    """
    missing = max(0, count - features.shape[1])
    valid = F.pad(attention_mask.bool(), (0, missing))
    features = F.pad(features, (0, 0, 0, missing)) * valid[..., None].to(features.dtype)
    with torch.no_grad():
        scores = features.float().norm(dim=-1) if score == "l2" else features.float().mean(dim=-1)
        places = torch.arange(valid.shape[1], device=valid.device).expand_as(valid)
        enough = valid.sum(dim=1, keepdim=True) >= count
        by_score = torch.where(valid, scores, -torch.inf)
        by_place = -(places + valid.shape[1] * ~valid).float()
        ranked = torch.where(enough, by_score, by_place).argsort(dim=1, descending=True, stable=True)
        indices = ranked[:, :count]
    picked = features.gather(1, indices[..., None].expand(-1, -1, features.shape[-1]))
    return SelectedWords(picked, valid.gather(1, indices), indices)


@torch.no_grad()
def select_points(attention_map: Tensor, count: int, distance_weight: float) -> Tensor:
    """Pick cells that score high and lie apart (Dist-Score Point Selector).

    The first is the cell of the highest score, the sigmoid of its attention; each next one maximises
    score + distance_weight × d / diagonal, where d is the distance in cells to the nearest cell picked so far.
    Equal values go to the first in row-major order.

    Args:
        attention_map: (B, h, w).
        count: N; how many to pick, at most h × w.
        distance_weight: weight of the distance.

    Returns:
        (B, N) flat cell indices, row-major, in the order picked.
    """
    height, width = attention_map.shape[-2:]
    scores = attention_map.float().flatten(1).sigmoid()
    flat = torch.arange(height * width, device=scores.device)
    rows, columns = flat // width, flat % width
    nearest = torch.full_like(scores, torch.inf)
    available = scores
    picked = [available.argmax(dim=1, keepdim=True)]
    for _ in range(count - 1):
        last = picked[-1]
        distances = torch.hypot((rows - last // width).float(), (columns - last % width).float())
        nearest = torch.minimum(nearest, distances)
        available = available.scatter(1, last, -torch.inf)
        picked.append((available + distance_weight * nearest / math.hypot(height, width)).argmax(dim=1, keepdim=True))
    return torch.cat(picked, dim=1)


class QueryGeneration(nn.Module):
    """Text tokens and cells to queries with points.

    NOTE: the published layer starts with self-attention over zeros. Whatever its weights, that returns one vector for
    all queries (the gradient of its projections is zero: 1e-5 of 3,000 in the reference run), so here the vector itself
    is learned: `content`.
    """

    positions: Tensor

    def __init__(self, config: IGVGConfig) -> None:
        super().__init__()
        channels = config.hidden_dim
        self.count, self.score, self.distance_weight = config.num_queries, config.text_score, config.distance_weight
        self.content = nn.Parameter(torch.zeros(channels))
        self.attention = CrossAttention(channels, config.decoder_heads, config.dropout)
        self.attention_norm = nn.LayerNorm(channels)
        self.ffn = FeedForward(channels, config.generation_ffn, config.dropout)
        self.ffn_norm = nn.LayerNorm(channels)
        self.final_norm = nn.LayerNorm(channels)
        self.pair = MLP(2 * channels, channels, channels)
        self.register_buffer("positions", build_position_map(config.grid_size, channels), persistent=False)

    def forward(self, text: Tensor, attention_mask: Tensor, cells: Tensor) -> Queries:
        """Generate the queries.

        Args:
            text: (B, L, C) projected text tokens.
            attention_mask: (B, L), 1 = token, 0 = padding.
            cells: (B, h·w, C) projected picture tokens, row-major.
        """
        words = select_words(text, attention_mask, self.count, self.score)
        looked, weights = self.look(words.features, cells)
        side = math.isqrt(cells.shape[1])
        attention_map = torch.where(words.mask[..., None], weights, 0).amax(dim=1)
        attention_map = torch.unflatten(attention_map, -1, (side, side))
        chosen = select_points(attention_map, self.count, self.distance_weight)
        points = (torch.stack((chosen % side, chosen // side), dim=-1) + 0.5) / side
        at_points = cells.gather(1, chosen[..., None].expand(-1, -1, cells.shape[-1]))
        # Word and point meet by rank alone: the i-th best word with the i-th point.
        return Queries(self.pair(torch.cat((looked, at_points), dim=-1)), points, attention_map)

    def look(self, words: Tensor, cells: Tensor) -> tuple[Tensor, Tensor]:
        """Words (B, N, C) look at cells (B, h·w, C): what they see (B, N, C), and how much where (B, N, h·w)."""
        seen, weights = self.attention(self.content + words, cells + self.positions, cells)
        tokens = self.attention_norm(self.content + seen)
        return self.final_norm(self.ffn_norm(tokens + self.ffn(tokens))), weights
