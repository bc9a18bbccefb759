"""The multi-modality encoder: BEiT-3 (Wang et al. 2023, Image as a Foreign Language).

A transformer whose picture and text tokens attend to each other, but pass through weights of their own.

Letters: B batch, I picture tokens (the class token first), L text tokens, E encoder channels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipelines.config.model import IGVGConfig
from pipelines.model.attention import attend, split_heads
from pipelines.model.position_encoding import (
    POSITION_AMPLITUDE,
    build_patch_waves,
    build_position_map,
    build_position_row,
)

# The first two rows of the text positions belong to no token (a heritage of fairseq, kept for the published files).
_UNUSED_POSITIONS = 2
# What cells of a fresh network add to the attention for each word: a few words among many cells get their share.
_ATTENTION_TO_WORDS = 1.5


class Expert(nn.Module):
    """The weights that tokens of one modality pass through in one layer."""

    def __init__(self, config: IGVGConfig) -> None:
        super().__init__()
        dim, hidden = config.encoder_dim, config.encoder_ffn
        self.attention_norm = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.mixed_norm = nn.LayerNorm(dim)
        self.out = nn.Linear(dim, dim)
        self.ffn_norm = nn.LayerNorm(dim)
        self.expand = nn.Linear(dim, hidden)
        self.hidden_norm = nn.LayerNorm(hidden)
        self.contract = nn.Linear(hidden, dim)

    def ask(self, tokens: Tensor) -> Tensor:
        """Tokens (B, T, E) to queries, keys and values side by side (B, T, 3E)."""
        qkv: Tensor = self.qkv(self.attention_norm(tokens))
        return qkv

    def answer(self, mixed: Tensor) -> Tensor:
        """Mixed values (B, T, E) to what is added to the tokens."""
        out: Tensor = self.out(self.mixed_norm(mixed))
        return out

    def think(self, tokens: Tensor) -> Tensor:
        """The feed-forward network: tokens (B, T, E) to what is added to them."""
        hidden = F.gelu(self.expand(self.ffn_norm(tokens)))
        out: Tensor = self.contract(self.hidden_norm(hidden))
        return out


class MultiwayLayer(nn.Module):
    """One layer: joint attention, then the feed-forward networks; stochastic depth drops either for whole samples."""

    def __init__(self, config: IGVGConfig, drop_path: float) -> None:
        super().__init__()
        self.heads, self.drop_path = config.encoder_heads, drop_path
        self.image = Expert(config)
        self.text = Expert(config)

    def forward(self, image: Tensor, text: Tensor, visible: Tensor) -> tuple[Tensor, Tensor]:
        """Picture tokens (B, I, E) and text tokens (B, L, E) to the same; visible (B, 1, 1, I + L) marks the keys."""
        qkv = torch.cat((self.image.ask(image), self.text.ask(text)), dim=1)
        query, key, value = (split_heads(part, self.heads) for part in qkv.chunk(3, dim=-1))
        mixed = attend(query, key, value, visible)
        mixed_image, mixed_text = torch.split(mixed.transpose(1, 2).flatten(2), [image.shape[1], text.shape[1]], dim=1)
        keep = self._draw_kept(image)
        image = _add(image, self.image.answer(mixed_image), keep)
        text = _add(text, self.text.answer(mixed_text), keep)
        keep = self._draw_kept(image)
        return _add(image, self.image.think(image), keep), _add(text, self.text.think(text), keep)

    def _draw_kept(self, tokens: Tensor) -> Tensor | None:
        """(B, 1, 1): zero where a sample skips the branch, else the inverse of the chance to be kept."""
        if not self.training or self.drop_path == 0:
            return None
        kept = 1 - self.drop_path
        return torch.rand(tokens.shape[0], 1, 1, device=tokens.device).lt(kept) / kept


def _add(tokens: Tensor, branch: Tensor, keep: Tensor | None) -> Tensor:
    """Tokens (B, T, E) and what a branch adds to each sample that keeps it."""
    return tokens + (branch if keep is None else keep * branch)


class MultiwayEncoder(nn.Module):
    """Picture and text to tokens that know of each other."""

    def __init__(self, config: IGVGConfig) -> None:
        super().__init__()
        dim, cells = config.encoder_dim, config.grid_size**2
        self.patches = nn.Conv2d(3, dim, config.patch_size, config.patch_size)
        self.class_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.image_positions = nn.Parameter(torch.empty(1 + cells, dim))
        self.words = nn.Embedding(config.vocab_size, dim)
        self.text_positions = nn.Parameter(torch.empty(config.text_positions, dim))
        rates = torch.linspace(0, config.drop_path, config.encoder_layers, device="cpu").tolist()
        self.layers = nn.ModuleList(MultiwayLayer(config, rate) for rate in rates)
        self.image_norm = nn.LayerNorm(dim)
        self.text_norm = nn.LayerNorm(dim)
        self._initialize(config)

    def _initialize(self, config: IGVGConfig) -> None:
        """Maps keep the variance of what they get, and all layers together add about as much as one token holds.

        NOTE: the published start (weights of 0.02 cut off at one deviation, random positions of deviation 1) is that of
        a pre-training. Without one, positions drown words and patches, and nothing is learnt for a long time.
        """
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear):
                adds = name.endswith((".out", ".contract"))
                depth = 2 * len(self.layers) if adds else 1
                nn.init.normal_(module.weight, std=(module.in_features * depth) ** -0.5)
                nn.init.zeros_(module.bias)
        level = (_ATTENTION_TO_WORDS / (config.encoder_dim / config.encoder_heads) ** 0.5) ** 0.5
        for layer in self.modules():
            if isinstance(layer, MultiwayLayer):
                nn.init.constant_(layer.image.qkv.bias[: config.encoder_dim], level)
                nn.init.constant_(layer.text.qkv.bias[config.encoder_dim : 2 * config.encoder_dim], level)
        cells = build_position_map(config.grid_size, config.encoder_dim)
        words = build_position_row(config.text_positions, config.encoder_dim)
        with torch.no_grad():
            self.patches.weight.copy_(build_patch_waves(config.encoder_dim, config.patch_size))
            self.image_positions.copy_(POSITION_AMPLITUDE * F.pad(cells, (0, 0, 1, 0)))
            self.text_positions.copy_(POSITION_AMPLITUDE * words)

    def forward(self, pixel_values: Tensor, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Encode a picture and a text together.

        Args:
            pixel_values: (B, 3, S, S) normalised picture.
            input_ids: (B, L).
            attention_mask: (B, L), 1 = token, 0 = padding.

        Returns:
            The cells' tokens (B, I - 1, E), row-major, and the text tokens (B, L, E); those of padding mean nothing.
        """
        image, text = self.fuse(
            self.embed_image(pixel_values), self.embed_text(input_ids, attention_mask), attention_mask
        )
        return image[:, 1:], text

    def embed_image(self, pixel_values: Tensor) -> Tensor:
        """Picture (B, 3, S, S) to tokens (B, I, E), the class token first."""
        cells = self.patches(pixel_values).flatten(2).transpose(1, 2)
        return torch.cat((self.class_token.expand(len(cells), -1, -1), cells), dim=1) + self.image_positions

    def embed_text(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Token ids (B, L) to tokens (B, L, E); padding is zero.

        Raises:
            ValueError: the text is longer than there are positions.
        """
        length, longest = input_ids.shape[1], len(self.text_positions) - _UNUSED_POSITIONS
        if length > longest:
            raise ValueError(f"a text of {length} tokens; the network has positions for {longest}")
        tokens: Tensor = self.words(input_ids) + self.text_positions[_UNUSED_POSITIONS:][:length]
        return tokens * attention_mask[..., None].to(tokens.dtype)

    def fuse(self, image: Tensor, text: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Run the layers over picture tokens (B, I, E) and text tokens (B, L, E); either may be of length 0."""
        seen = attention_mask.new_ones(image.shape[:2], dtype=torch.bool)
        visible = torch.cat((seen, attention_mask.bool()), dim=1)[:, None, None]
        for layer in self.layers:
            image, text = layer(image, text, visible)
        return self.image_norm(image), self.text_norm(text)
