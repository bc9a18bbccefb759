"""Attention-based query generation: the highest-scoring text tokens attend to the image, and yield queries with points.

Score Text Selector (paper, algorithm 2) → cross-attention of the selected tokens to the patch tokens → Dist-Score Point
Selector → one query for each pair of token and point.

Letters: B batch, L text tokens, Q queries, C channels, h = w patches on a side.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipelines.config.model import IGVGConfig
from pipelines.model.attention import MLP, CrossAttention, FeedForward
from pipelines.model.position_encoding import sine_position_embedding_2d


@dataclass(frozen=True)
class SelectedTokens:
    """The text tokens that the Score Text Selector chose."""

    features: Tensor
    """(B, Q, C), zero where there were fewer than Q tokens."""
    mask: Tensor
    """(B, Q) bool, False where there were fewer than Q tokens."""
    indices: Tensor
    """(B, Q) positions in the text."""


@dataclass(frozen=True)
class Queries:
    """The decoder's input."""

    features: Tensor
    """(B, Q, C)."""
    points: Tensor
    """(B, Q, 2) x, y in [0, 1]: the centers of the selected patches."""
    attention_map: Tensor
    """(B, h, w) for each patch the largest attention of a selected token."""


def select_text_tokens(features: Tensor, attention_mask: Tensor, num_queries: int, score: str) -> SelectedTokens:
    """Select the tokens with the highest scores, best first; if there are fewer than Q, all of them in order.

    Args:
        features: (B, L, C).
        attention_mask: (B, L), 1 = token, 0 = padding.
        num_queries: Q.
        score: "l2", the norm of the features (paper, algorithm 2), or "mean", their mean (published checkpoints).
    """
    missing = max(0, num_queries - features.shape[1])
    valid = F.pad(attention_mask.bool(), (0, missing))
    features = F.pad(features, (0, 0, 0, missing)) * valid[..., None].to(features.dtype)
    with torch.no_grad():
        scores = features.float().norm(dim=-1) if score == "l2" else features.float().mean(dim=-1)
        positions = torch.arange(valid.shape[1], device=valid.device).expand_as(valid)
        enough = valid.sum(dim=1, keepdim=True) >= num_queries
        by_score = torch.where(valid, scores, -torch.inf)
        by_position = -(positions + valid.shape[1] * ~valid).float()
        ranked = torch.where(enough, by_score, by_position).argsort(dim=1, descending=True, stable=True)
        indices = ranked[:, :num_queries]
    selected = features.gather(1, indices[..., None].expand(-1, -1, features.shape[-1]))
    return SelectedTokens(selected, valid.gather(1, indices), indices)


def average_text_tokens(features: Tensor, attention_mask: Tensor, num_queries: int) -> SelectedTokens:
    """The mean of the text tokens (B, L, C) for every query: what is left without a Score Text Selector.

    `indices` are those of the first token. Other arguments as of `select_text_tokens`.
    """
    weights = attention_mask.to(features.dtype)[..., None]
    mean = (features * weights).sum(dim=1, keepdim=True) / weights.sum(dim=1, keepdim=True)
    indices = torch.zeros(len(features), num_queries, dtype=torch.long, device=features.device)
    return SelectedTokens(mean.expand(-1, num_queries, -1), torch.ones_like(indices, dtype=torch.bool), indices)


def spread_points(num_queries: int, side: int) -> list[int]:
    """Flat row-major indices of Q patches in rows of nearly equal length, evenly spread over side × side patches.

    These are the points without a Dist-Score Point Selector: the same for every image and text.
    """
    num_rows = min(side, math.ceil(math.sqrt(num_queries)))
    # Row r holds the queries from r × Q / rows on.
    ends = [(row + 1) * num_queries // num_rows for row in range(num_rows)]
    indices = []
    for row, (start, end) in enumerate(zip([0, *ends], ends, strict=False)):
        y = (2 * row + 1) * side // (2 * num_rows)
        length = end - start
        indices += [y * side + (2 * column + 1) * side // (2 * length) for column in range(length)]
    return indices


@torch.no_grad()
def select_points(attention_map: Tensor, num_queries: int, distance_weight: float) -> Tensor:
    """Select patches that score high and lie apart (Dist-Score Point Selector).

    The first has the highest score, the sigmoid of its attention; each next one maximizes
    score + distance_weight × d / diagonal, where d is the distance in patches to the nearest one selected so far.
    Ties go to the first in row-major order.

    Args:
        attention_map: (B, h, w).
        num_queries: Q, at most h × w.
        distance_weight: weight of the distance.

    Returns:
        (B, Q) flat patch indices, row-major, in the order of selection.
    """
    height, width = attention_map.shape[-2:]
    scores = attention_map.float().flatten(1).sigmoid()
    flat = torch.arange(height * width, device=scores.device)
    rows, columns = flat // width, flat % width
    nearest = torch.full_like(scores, torch.inf)
    available = scores
    selected = [available.argmax(dim=1, keepdim=True)]
    for _ in range(num_queries - 1):
        last = selected[-1]
        distances = torch.hypot((rows - last // width).float(), (columns - last % width).float())
        nearest = torch.minimum(nearest, distances)
        available = available.scatter(1, last, -torch.inf)
        selected.append((available + distance_weight * nearest / math.hypot(height, width)).argmax(dim=1, keepdim=True))
    return torch.cat(selected, dim=1)


class QueryGeneration(nn.Module):
    """Text and patch tokens to queries with points.

    NOTE: the published layer starts with self-attention over zeros. Whatever its weights, that returns one vector for
    all queries (the gradient of its projections is zero: 1e-5 of 3,000 in the reference run), so here the vector itself
    is learned: `content_query`.
    """

    image_pos_embed: Tensor

    def __init__(self, config: IGVGConfig) -> None:
        super().__init__()
        channels = config.hidden_dim
        self.num_queries, self.distance_weight = config.num_queries, config.distance_weight
        self.text_score: str = config.text_score
        self.point_selector: str = config.point_selector
        self.content_query = nn.Parameter(torch.zeros(channels))
        self.cross_attn = CrossAttention(channels, config.decoder_heads, config.dropout)
        self.cross_attn_norm = nn.LayerNorm(channels)
        self.ffn = FeedForward(channels, config.generation_ffn, config.dropout)
        self.ffn_norm = nn.LayerNorm(channels)
        self.final_norm = nn.LayerNorm(channels)
        self.fusion_mlp = MLP(2 * channels, channels, channels)
        image_pos_embed = sine_position_embedding_2d(config.grid_size, channels)
        self.register_buffer("image_pos_embed", image_pos_embed, persistent=False)

    def forward(self, text_tokens: Tensor, attention_mask: Tensor, patch_tokens: Tensor) -> Queries:
        """Generate the queries.

        Args:
            text_tokens: (B, L, C) projected text tokens.
            attention_mask: (B, L), 1 = token, 0 = padding.
            patch_tokens: (B, h·w, C) projected patch tokens, row-major.
        """
        if self.text_score == "none":
            selected = average_text_tokens(text_tokens, attention_mask, self.num_queries)
        else:
            selected = select_text_tokens(text_tokens, attention_mask, self.num_queries, self.text_score)
        attended, weights = self.attend_to_image(selected.features, patch_tokens)
        side = math.isqrt(patch_tokens.shape[1])
        attention_map = torch.where(selected.mask[..., None], weights, 0).amax(dim=1)
        attention_map = torch.unflatten(attention_map, -1, (side, side))
        if self.point_selector == "grid":
            grid = torch.tensor(spread_points(self.num_queries, side), device=attention_map.device)
            indices = grid.expand(len(attention_map), -1)
        else:
            indices = select_points(attention_map, self.num_queries, self.distance_weight)
        points = (torch.stack((indices % side, indices // side), dim=-1) + 0.5) / side
        at_points = patch_tokens.gather(1, indices[..., None].expand(-1, -1, patch_tokens.shape[-1]))
        # Tokens and points are paired by rank alone: the i-th best token with the i-th point.
        return Queries(self.fusion_mlp(torch.cat((attended, at_points), dim=-1)), points, attention_map)

    def attend_to_image(self, text_tokens: Tensor, patch_tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Text (B, Q, C) and patch tokens (B, h·w, C) to attended tokens (B, Q, C) and their weights (B, Q, h·w)."""
        attended, weights = self.cross_attn(
            self.content_query + text_tokens, patch_tokens + self.image_pos_embed, patch_tokens
        )
        tokens = self.cross_attn_norm(self.content_query + attended)
        return self.final_norm(self.ffn_norm(tokens + self.ffn(tokens))), weights
