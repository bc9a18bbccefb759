"""The point-prior decoder: queries that know their point look around it in the feature pyramid.

Letters: B batch, N queries, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from pipelines.config.model import IGVGConfig
from pipelines.model.attention import DeformableAttention, FeedForward, SelfAttention


class DecoderLayer(nn.Module):
    """Queries look at each other, then at the pyramid, then think; each followed by a norm."""

    def __init__(self, config: IGVGConfig, sides: Sequence[int]) -> None:
        super().__init__()
        channels, heads = config.hidden_dim, config.decoder_heads
        self.attention = SelfAttention(channels, heads, config.dropout)
        self.attention_norm = nn.LayerNorm(channels)
        self.sampling = DeformableAttention(channels, heads, config.sampling_points, sides)
        self.sampling_dropout = nn.Dropout(config.dropout)
        self.sampling_norm = nn.LayerNorm(channels)
        self.ffn = FeedForward(channels, config.decoder_ffn, config.dropout)
        self.ffn_norm = nn.LayerNorm(channels)

    def forward(self, queries: Tensor, positions: Tensor, references: Tensor, maps: Sequence[Tensor]) -> Tensor:
        """Queries (B, N, C) with positions (B, N, C) and references (B, N, 2) to (B, N, C)."""
        queries = self.attention_norm(queries + self.attention(queries, positions))
        sampled = self.sampling_dropout(self.sampling(queries + positions, references, maps))
        queries = self.sampling_norm(queries + sampled)
        out: Tensor = self.ffn_norm(queries + self.ffn(queries))
        return out


class PointDecoder(nn.Module):
    """A few layers over the same references; every layer's queries are returned."""

    def __init__(self, config: IGVGConfig) -> None:
        super().__init__()
        grid = config.grid_size
        self.positions = nn.Linear(2, config.hidden_dim)
        self.shift = nn.Linear(config.hidden_dim, 2) if config.reference == "shifted" else None
        sides = (4 * grid, 2 * grid, grid, grid // 2)
        self.layers = nn.ModuleList(DecoderLayer(config, sides) for _ in range(config.decoder_layers))
        if self.shift is not None:
            nn.init.xavier_normal_(self.shift.weight)
            nn.init.zeros_(self.shift.bias)

    def forward(self, queries: Tensor, points: Tensor, maps: Sequence[Tensor]) -> tuple[list[Tensor], Tensor]:
        """Run the layers.

        Args:
            queries: (B, N, C).
            points: (B, N, 2) x, y in [0, 1].
            maps: four maps (B, C, side, side) from fine to coarse.

        Returns:
            The queries after each layer, (B, N, C) each, and their references (B, N, 2).
        """
        positions = self.positions(points)
        references = self.place_references(points, positions)
        # Once for all layers: half precision would be widened, and its gradients narrowed, in each.
        maps = [level.to(references.dtype) for level in maps]
        states = []
        for layer in self.layers:
            queries = layer(queries, positions, references, maps)
            states.append(queries)
        return states, references

    def place_references(self, points: Tensor, positions: Tensor) -> Tensor:
        """Where the queries look from: x, y (B, N, 2).

        NOTE: the published code adds a learned shift of 0 to 1 to the point and does not clip the sum, so that
        references lie between 0 and 2 ("shifted"); "point" is the point itself.
        """
        return points if self.shift is None else points + self.shift(positions).sigmoid()
