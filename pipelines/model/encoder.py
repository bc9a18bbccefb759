"""The multimodal encoder: BEiT-3 (Wang et al. 2023, Image as a Foreign Language).

A multiway transformer: image and text tokens attend to each other, but each modality has weights of its own.

Letters: B batch, I image tokens (the class token first), L text tokens, T tokens of one modality, E encoder channels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipelines.config.model import IGVGConfig
from pipelines.model.attention import merge_heads, split_heads
from pipelines.model.position_encoding import (
    POSITION_AMPLITUDE,
    dct_patch_filters,
    sine_position_embedding_1d,
    sine_position_embedding_2d,
)

# The first two rows of the text positions belong to no token, as in fairseq and the published files.
_UNUSED_POSITIONS = 2
# Logit that an image token of a fresh network adds to every text token: there are few text and many image tokens.
_TEXT_LOGIT = 1.5


class ModalityExpert(nn.Module):
    """The weights of one modality in one layer, with BEiT-3's additional norms inside both branches (sub-LN)."""

    def __init__(self, config: IGVGConfig) -> None:
        super().__init__()
        dim, hidden = config.encoder_dim, config.encoder_ffn
        self.attn_norm = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.inner_attn_norm = nn.LayerNorm(dim)
        self.out_proj = nn.Linear(dim, dim)
        self.ffn_norm = nn.LayerNorm(dim)
        self.fc1 = nn.Linear(dim, hidden)
        self.inner_ffn_norm = nn.LayerNorm(hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def project_qkv(self, tokens: Tensor) -> Tensor:
        """Tokens (B, T, E) to queries, keys and values (B, T, 3E)."""
        qkv: Tensor = self.qkv(self.attn_norm(tokens))
        return qkv

    def project_output(self, attended: Tensor) -> Tensor:
        """Attention output (B, T, E) to the residual (B, T, E)."""
        residual: Tensor = self.out_proj(self.inner_attn_norm(attended))
        return residual

    def feed_forward(self, tokens: Tensor) -> Tensor:
        """Tokens (B, T, E) to the residual (B, T, E)."""
        hidden = F.gelu(self.fc1(self.ffn_norm(tokens)))
        residual: Tensor = self.fc2(self.inner_ffn_norm(hidden))
        return residual


class DropPath(nn.Module):
    """Stochastic depth: in training the residuals of whole samples are dropped, the others scaled by 1 / (1 - rate)."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, image: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        """Residuals (B, I, E) and (B, L, E) to the same; a sample loses both or none."""
        if not self.training or self.rate == 0:
            return image, text
        kept = 1 - self.rate
        scale = torch.rand(image.shape[0], 1, 1, device=image.device).lt(kept) / kept
        return scale * image, scale * text


class MultiwayLayer(nn.Module):
    """Joint self-attention, then a feed-forward network for each modality."""

    def __init__(self, config: IGVGConfig, drop_path: float) -> None:
        super().__init__()
        self.heads = config.encoder_heads
        self.image_expert = ModalityExpert(config)
        self.text_expert = ModalityExpert(config)
        self.drop_path = DropPath(drop_path)

    def forward(self, image: Tensor, text: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Image tokens (B, I, E) and text tokens (B, L, E) to the same; attention_mask (B, 1, 1, I + L) bool."""
        qkv = torch.cat((self.image_expert.project_qkv(image), self.text_expert.project_qkv(text)), dim=1)
        query, key, value = (split_heads(part, self.heads) for part in qkv.chunk(3, dim=-1))
        attended = merge_heads(F.scaled_dot_product_attention(query, key, value, attn_mask=attention_mask))
        attended_image, attended_text = torch.split(attended, [image.shape[1], text.shape[1]], dim=1)
        image_residual, text_residual = self.drop_path(
            self.image_expert.project_output(attended_image), self.text_expert.project_output(attended_text)
        )
        image, text = image + image_residual, text + text_residual
        image_residual, text_residual = self.drop_path(
            self.image_expert.feed_forward(image), self.text_expert.feed_forward(text)
        )
        return image + image_residual, text + text_residual


class MultiwayEncoder(nn.Module):
    """Image and text to contextualized tokens."""

    def __init__(self, config: IGVGConfig) -> None:
        super().__init__()
        dim, num_patches = config.encoder_dim, config.grid_size**2
        self.patch_embed = nn.Conv2d(3, dim, config.patch_size, config.patch_size)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.image_pos_embed = nn.Parameter(torch.empty(1 + num_patches, dim))
        self.text_embed = nn.Embedding(config.vocab_size, dim)
        self.text_pos_embed = nn.Parameter(torch.empty(config.text_positions, dim))
        rates = torch.linspace(0, config.drop_path, config.encoder_layers, device="cpu").tolist()
        self.layers = nn.ModuleList(MultiwayLayer(config, rate) for rate in rates)
        self.image_norm = nn.LayerNorm(dim)
        self.text_norm = nn.LayerNorm(dim)
        self._initialize(config)

    def _initialize(self, config: IGVGConfig) -> None:
        """Linear maps keep the variance of their input; the residuals of all layers together have that of one token.

        NOTE: the published initialization (weights of 0.02 truncated at one standard deviation, positions of standard
        deviation 1) precedes a pre-training. Without one, the positions dominate the patches and the text, and the loss
        does not fall for a long time.
        """
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear):
                num_residuals = 2 * len(self.layers) if name.endswith((".out_proj", ".fc2")) else 1
                nn.init.normal_(module.weight, std=(module.in_features * num_residuals) ** -0.5)
                nn.init.zeros_(module.bias)
        bias = (_TEXT_LOGIT / (config.encoder_dim / config.encoder_heads) ** 0.5) ** 0.5
        for layer in self.modules():
            if isinstance(layer, MultiwayLayer):
                nn.init.constant_(layer.image_expert.qkv.bias[: config.encoder_dim], bias)
                nn.init.constant_(layer.text_expert.qkv.bias[config.encoder_dim : 2 * config.encoder_dim], bias)
        patch_positions = sine_position_embedding_2d(config.grid_size, config.encoder_dim)
        text_positions = sine_position_embedding_1d(config.text_positions, config.encoder_dim)
        with torch.no_grad():
            self.patch_embed.weight.copy_(dct_patch_filters(config.encoder_dim, config.patch_size))
            self.image_pos_embed.copy_(POSITION_AMPLITUDE * F.pad(patch_positions, (0, 0, 1, 0)))
            self.text_pos_embed.copy_(POSITION_AMPLITUDE * text_positions)

    def forward(self, pixel_values: Tensor, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Encode an image and a text together.

        Args:
            pixel_values: (B, 3, S, S) normalized image.
            input_ids: (B, L).
            attention_mask: (B, L), 1 = token, 0 = padding.

        Returns:
            The patch tokens (B, I - 1, E), row-major, and the text tokens (B, L, E); those of padding are meaningless.
        """
        image, text = self.encode(
            self.embed_image(pixel_values), self.embed_text(input_ids, attention_mask), attention_mask
        )
        return image[:, 1:], text

    def embed_image(self, pixel_values: Tensor) -> Tensor:
        """Image (B, 3, S, S) to tokens (B, I, E), the class token first."""
        patch_tokens = self.patch_embed(pixel_values).flatten(2).transpose(1, 2)
        cls_token = self.cls_token.expand(len(patch_tokens), -1, -1)
        return torch.cat((cls_token, patch_tokens), dim=1) + self.image_pos_embed

    @property
    def max_text_tokens(self) -> int:
        """The length of the longest text."""
        return len(self.text_pos_embed) - _UNUSED_POSITIONS

    def embed_text(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Token ids (B, L) to tokens (B, L, E); padding is zero.

        Raises:
            ValueError: the text is longer than there are positions.
        """
        length, max_length = input_ids.shape[1], self.max_text_tokens
        if length > max_length:
            raise ValueError(f"expected input_ids (B, L) with L ≤ {max_length}, got L = {length}")
        tokens: Tensor = self.text_embed(input_ids) + self.text_pos_embed[_UNUSED_POSITIONS:][:length]
        return tokens * attention_mask[..., None].to(tokens.dtype)

    def encode(self, image: Tensor, text: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Run the layers over image tokens (B, I, E) and text tokens (B, L, E); I or L may be 0."""
        image_mask = attention_mask.new_ones(image.shape[:2], dtype=torch.bool)
        joint_mask = torch.cat((image_mask, attention_mask.bool()), dim=1)[:, None, None]
        for layer in self.layers:
            image, text = layer(image, text, joint_mask)
        return self.image_norm(image), self.text_norm(text)
