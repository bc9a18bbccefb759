"""The network after its encoder, against its equations written out with torch's plain functions."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipelines.model import IGVGModel
from pipelines.model.query_generation import select_points, select_text_tokens
from tests.support.small_network import CONFIG

# "shifted" references lie anywhere from 0 to 2; five tokens are fewer than the six queries.
SIZES = replace(CONFIG, reference="shifted", decoder_layers=2, num_queries=6, hidden_dim=16, decoder_heads=2)


@pytest.fixture(scope="module")
def model() -> IGVGModel:
    torch.manual_seed(0)
    model = IGVGModel(SIZES).eval()
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        if parameter.dim() < 2 or not parameter.any():
            parameter.data.normal_(std=0.4, generator=generator)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(std=0.3, generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
    return model


@pytest.fixture(scope="module")
def encoded() -> tuple[Tensor, Tensor, Tensor]:
    """Text tokens (2, 5, C), their mask, and patch_tokens (2, 16, C)."""
    generator = torch.Generator().manual_seed(2)
    text, patch_tokens = (
        torch.randn(2, count, SIZES.hidden_dim, generator=generator) for count in (5, SIZES.grid_size**2)
    )
    return text, torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]]), patch_tokens


def attend_in_full(query: Tensor, key: Tensor, value: Tensor, heads: int) -> tuple[Tensor, Tensor]:
    """Projected (B, Q, C) and (B, M, C) twice to outputs (B, Q, C) and the weights by head (B, H, Q, M)."""
    width = query.shape[-1] // heads
    output, all_weights = [], []
    for head in range(heads):
        part = slice(head * width, (head + 1) * width)
        weights = (query[..., part] @ key[..., part].transpose(1, 2) / math.sqrt(width)).softmax(dim=-1)
        output.append(weights @ value[..., part])
        all_weights.append(weights)
    return torch.cat(output, dim=-1), torch.stack(all_weights, dim=1)


def feed_forward(block: nn.Module, tokens: Tensor) -> Tensor:
    return block.fc2(block.fc1(tokens).clamp(min=0))


def run_mlp(mlp: nn.Module, tokens: Tensor) -> Tensor:
    return mlp.fc3(mlp.fc2(mlp.fc1(tokens).clamp(min=0)).clamp(min=0))


def normalize_channels(norm: nn.LayerNorm, features: Tensor) -> Tensor:
    centered = features - features.mean(dim=1, keepdim=True)
    scaled = centered / (centered.square().mean(dim=1, keepdim=True) + 1e-5).sqrt()
    return scaled * norm.weight[:, None, None] + norm.bias[:, None, None]


@torch.no_grad()
def test_queries_fuse_attended_text_tokens_with_the_patch_tokens_at_their_points(model, encoded) -> None:
    block, (text, mask, patch_tokens) = model.query_generation, encoded
    found = block(text, mask, patch_tokens)
    selected = select_text_tokens(text, mask, SIZES.num_queries, SIZES.text_score)
    attention = block.cross_attn
    output, weights = attend_in_full(
        attention.q_proj(block.content_query + selected.features),
        attention.k_proj(patch_tokens + block.image_pos_embed), attention.v_proj(patch_tokens), SIZES.decoder_heads,
    )  # fmt: skip
    tokens = block.cross_attn_norm(block.content_query + attention.out_proj(output))
    attended = block.final_norm(block.ffn_norm(tokens + feed_forward(block.ffn, tokens)))
    side = SIZES.grid_size
    for sample, count in enumerate((5, 2)):
        # Padding of the selection does not count.
        largest = weights[sample, :, :count].mean(dim=0).amax(dim=0).view(side, side)
        torch.testing.assert_close(found.attention_map[sample], largest)
        indices = select_points(largest[None], SIZES.num_queries, SIZES.distance_weight)[0].tolist()
        points = [((cell % side + 0.5) / side, (cell // side + 0.5) / side) for cell in indices]
        torch.testing.assert_close(found.points[sample], torch.tensor(points))
        pairs = torch.cat((attended[sample], patch_tokens[sample, indices]), dim=-1)
        torch.testing.assert_close(found.features[sample], run_mlp(block.fusion_mlp, pairs), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_a_decoder_layer_is_self_attention_deformable_attention_and_a_feed_forward_network(model) -> None:
    decoder, generator = model.decoder, torch.Generator().manual_seed(3)
    queries, points = torch.randn(2, 6, 16, generator=generator), torch.rand(2, 6, 2, generator=generator)
    maps = [torch.randn(2, 16, side, side, generator=generator) for side in (16, 8, 4, 2)]
    states, references = decoder(queries, points, maps)
    query_pos = decoder.query_pos_embed(points)
    expected = points + torch.sigmoid(decoder.reference_offset(query_pos))
    torch.testing.assert_close(references, expected)
    assert 1 < references.max() < 2
    for layer, state in zip(decoder.layers, states, strict=True):
        query, key = layer.self_attn.qk_proj(queries + query_pos).chunk(2, dim=-1)
        output, _ = attend_in_full(query, key, layer.self_attn.v_proj(queries), SIZES.decoder_heads)
        queries = layer.self_attn_norm(queries + layer.self_attn.out_proj(output))
        queries = layer.cross_attn_norm(queries + layer.cross_attn(queries + query_pos, expected, maps))
        queries = layer.ffn_norm(queries + feed_forward(layer.ffn, queries))
        torch.testing.assert_close(state, queries, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_the_pyramid_has_four_two_one_and_half_times_the_patches_on_a_side(model) -> None:
    pyramid = model.feature_pyramid
    patch_tokens = torch.randn(2, 16, 4, 4, generator=torch.Generator().manual_seed(4))
    first, norm, _, second = pyramid.up4
    finest = F.conv_transpose2d(patch_tokens, first.weight, first.bias, stride=2)
    finest = F.conv_transpose2d(F.gelu(normalize_channels(norm, finest)), second.weight, second.bias, stride=2)
    fine = F.conv_transpose2d(patch_tokens, pyramid.up2.weight, pyramid.up2.bias, stride=2)
    coarse = patch_tokens.unflatten(2, (2, 2)).unflatten(4, (2, 2)).amax(dim=(3, 5))
    levels = zip(
        (finest, fine, patch_tokens, coarse),
        pyramid.lateral_convs,
        pyramid.fpn_convs,
        pyramid(patch_tokens),
        strict=True,
    )
    for number, (features, lateral, smooth, found) in enumerate(levels):
        features = normalize_channels(lateral[1], F.conv2d(features, lateral[0].weight))
        features = normalize_channels(smooth[1], F.conv2d(features, smooth[0].weight, padding=1))
        assert found.shape[-1] == (16, 8, 4, 2)[number]
        torch.testing.assert_close(found, features, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_the_pixel_decoder_merges_from_coarse_to_fine(model) -> None:
    generator = torch.Generator().manual_seed(5)
    maps = [torch.randn(2, 16, side, side, generator=generator) for side in (16, 8, 4, 2)]
    pixels = maps[3]
    for block, fine in zip(model.pixel_decoder.blocks, (maps[2], maps[1], maps[0]), strict=True):
        enlarged = F.interpolate(pixels, scale_factor=2, mode="bilinear", align_corners=True)
        pixels = torch.cat((enlarged, fine), dim=1)
        for convolution, norm in ((block.conv1, block.bn1), (block.conv2, block.bn2)):
            pixels = F.conv2d(pixels, convolution.weight, padding=1)
            pixels = F.batch_norm(pixels, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=1e-5)
            pixels = pixels.clamp(min=0)
    torch.testing.assert_close(model.pixel_decoder(maps), pixels, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_every_head_computes_its_equation(model) -> None:
    generator = torch.Generator().manual_seed(6)
    pixels = torch.randn(2, 3, 32, 32, generator=generator)
    ids, mask = torch.randint(4, 40, (2, 5), generator=generator), torch.ones(2, 5, dtype=torch.int64)
    output = model(pixels, ids, mask)
    patch_tokens, text = model.encoder(pixels, ids, mask)
    patch_tokens, text = patch_tokens @ model.image_projection.weight.T, text @ model.text_projection.weight.T
    queries = model.query_generation(text, mask, patch_tokens)
    maps = model.feature_pyramid(patch_tokens.transpose(1, 2).reshape(2, 16, 4, 4))
    states, references = model.decoder(queries.features, queries.points, maps)
    embeddings = model.pixel_decoder(maps)
    inside = references.clamp(0, 1)
    shift = torch.log(inside.clamp(min=1e-3) / (1 - inside).clamp(min=1e-3))
    logits, boxes = [*output.aux_class_logits, output.class_logits], [*output.aux_boxes, output.boxes]
    assert len(states) == len(logits) == len(boxes) == 2
    for state, found_logits, found_boxes in zip(states, logits, boxes, strict=True):
        torch.testing.assert_close(found_logits, state @ model.class_head.weight.T + model.class_head.bias)
        deltas = run_mlp(model.box_head, state)
        expected = torch.cat((deltas[..., :2] + shift, deltas[..., 2:]), dim=-1).sigmoid()
        torch.testing.assert_close(found_boxes, expected, rtol=1e-4, atol=1e-5)
    for query in range(SIZES.num_queries):
        expected = (states[-1][:, query, :, None, None] * embeddings).sum(dim=1)
        torch.testing.assert_close(output.instance_mask_logits[:, query], expected, rtol=1e-4, atol=1e-3)
    whole = (model.global_mask_head.weight[0] * embeddings).sum(dim=1, keepdim=True) + model.global_mask_head.bias
    torch.testing.assert_close(output.global_mask_logits, whole, rtol=1e-4, atol=1e-4)
    existence = run_mlp(model.existence_head, embeddings.flatten(2).transpose(1, 2)).mean(dim=1)
    torch.testing.assert_close(output.existence_logits, existence, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(output.points, queries.points)
