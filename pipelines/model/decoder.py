"""The point-prior decoder: queries attend to the feature pyramid around the points that they come with.

Letters: B batch, Q queries, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from pipelines.config.model import IGVGConfig
from pipelines.model.attention import FeedForward, MSDeformAttn, SelfAttention


class DecoderLayer(nn.Module):
    """Self-attention, deformable cross-attention and a feed-forward network, each followed by a norm (post-norm)."""

    def __init__(self, config: IGVGConfig, sides: Sequence[int]) -> None:
        super().__init__()
        channels, heads = config.hidden_dim, config.decoder_heads
        self.self_attn = SelfAttention(channels, heads, config.dropout)
        self.self_attn_norm = nn.LayerNorm(channels)
        self.cross_attn = MSDeformAttn(channels, heads, config.sampling_points, sides)
        self.cross_attn_dropout = nn.Dropout(config.dropout)
        self.cross_attn_norm = nn.LayerNorm(channels)
        self.ffn = FeedForward(channels, config.decoder_ffn, config.dropout)
        self.ffn_norm = nn.LayerNorm(channels)

    def forward(
        self, queries: Tensor, query_pos: Tensor, reference_points: Tensor, feature_maps: Sequence[Tensor]
    ) -> Tensor:
        """Queries and their position embeddings (B, Q, C) and reference points (B, Q, 2) to queries (B, Q, C)."""
        queries = self.self_attn_norm(queries + self.self_attn(queries, query_pos))
        attended = self.cross_attn_dropout(self.cross_attn(queries + query_pos, reference_points, feature_maps))
        queries = self.cross_attn_norm(queries + attended)
        out: Tensor = self.ffn_norm(queries + self.ffn(queries))
        return out


class PointPriorDecoder(nn.Module):
    """Decoder layers that share their reference points; the queries after every layer are returned."""

    def __init__(self, config: IGVGConfig) -> None:
        super().__init__()
        grid = config.grid_size
        self.query_pos_embed = nn.Linear(2, config.hidden_dim)
        self.reference_offset = nn.Linear(config.hidden_dim, 2) if config.reference == "shifted" else None
        sides = (4 * grid, 2 * grid, grid, grid // 2)
        self.layers = nn.ModuleList(DecoderLayer(config, sides) for _ in range(config.decoder_layers))
        if self.reference_offset is not None:
            nn.init.xavier_normal_(self.reference_offset.weight)
            nn.init.zeros_(self.reference_offset.bias)

    def forward(self, queries: Tensor, points: Tensor, feature_maps: Sequence[Tensor]) -> tuple[list[Tensor], Tensor]:
        """Run the layers.

        Args:
            queries: (B, Q, C).
            points: (B, Q, 2) x, y in [0, 1].
            feature_maps: four maps (B, C, side, side) from fine to coarse.

        Returns:
            The queries after each layer, (B, Q, C) each, and their reference points (B, Q, 2).
        """
        query_pos = self.query_pos_embed(points)
        reference_points = self.compute_reference_points(points, query_pos)
        # Once for all layers: under autocast each would widen the maps, and narrow their gradients, again.
        feature_maps = [features.to(reference_points.dtype) for features in feature_maps]
        states = []
        for layer in self.layers:
            queries = layer(queries, query_pos, reference_points, feature_maps)
            states.append(queries)
        return states, reference_points

    def compute_reference_points(self, points: Tensor, query_pos: Tensor) -> Tensor:
        """Points (B, Q, 2) and position embeddings (B, Q, C) to reference points x, y (B, Q, 2).

        NOTE: the published code adds a learned offset of 0 to 1 to the point and does not clip the sum, so that
        reference points lie between 0 and 2 ("shifted"); "point" is the point itself.
        """
        if self.reference_offset is None:
            return points
        reference_points: Tensor = points + self.reference_offset(query_pos).sigmoid()
        return reference_points
