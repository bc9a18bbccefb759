"""The network after its encoder, against its equations written out with torch's plain functions."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipelines.model import IGVGModel
from pipelines.model.query_generation import select_points, select_words
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
    """Text tokens (2, 5, C), their mask, and cells (2, 16, C)."""
    generator = torch.Generator().manual_seed(2)
    text, cells = (torch.randn(2, count, SIZES.hidden_dim, generator=generator) for count in (5, SIZES.grid_size**2))
    return text, torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]]), cells


def attend_in_full(query: Tensor, key: Tensor, value: Tensor, heads: int) -> tuple[Tensor, Tensor]:
    """Projected (B, Q, C) and (B, M, C) twice to what is seen (B, Q, C) and the weights by head (B, H, Q, M)."""
    width = query.shape[-1] // heads
    seen, shares = [], []
    for head in range(heads):
        part = slice(head * width, (head + 1) * width)
        weights = (query[..., part] @ key[..., part].transpose(1, 2) / math.sqrt(width)).softmax(dim=-1)
        seen.append(weights @ value[..., part])
        shares.append(weights)
    return torch.cat(seen, dim=-1), torch.stack(shares, dim=1)


def feed_forward(block: nn.Module, tokens: Tensor) -> Tensor:
    return block.contract(block.expand(tokens).clamp(min=0))


def run_mlp(mlp: nn.Module, tokens: Tensor) -> Tensor:
    return mlp.last(mlp.second(mlp.first(tokens).clamp(min=0)).clamp(min=0))


def normalize_channels(norm: nn.LayerNorm, features: Tensor) -> Tensor:
    centered = features - features.mean(dim=1, keepdim=True)
    scaled = centered / (centered.square().mean(dim=1, keepdim=True) + 1e-5).sqrt()
    return scaled * norm.weight[:, None, None] + norm.bias[:, None, None]


@torch.no_grad()
def test_queries_are_made_of_words_that_looked_and_of_the_cells_at_their_points(model, encoded) -> None:
    block, (text, mask, cells) = model.generation, encoded
    found = block(text, mask, cells)
    words = select_words(text, mask, SIZES.num_queries, SIZES.text_score)
    attention = block.attention
    seen, weights = attend_in_full(
        attention.query(block.content + words.features), attention.key(cells + block.positions),
        attention.value(cells), SIZES.decoder_heads,
    )  # fmt: skip
    tokens = block.attention_norm(block.content + attention.out(seen))
    looked = block.final_norm(block.ffn_norm(tokens + feed_forward(block.ffn, tokens)))
    side = SIZES.grid_size
    for sample, count in enumerate((5, 2)):
        # Only tokens count: what fills up the selection looks nowhere.
        largest = weights[sample, :, :count].mean(dim=0).amax(dim=0).view(side, side)
        torch.testing.assert_close(found.attention_map[sample], largest)
        chosen = select_points(largest[None], SIZES.num_queries, SIZES.distance_weight)[0].tolist()
        points = [((cell % side + 0.5) / side, (cell // side + 0.5) / side) for cell in chosen]
        torch.testing.assert_close(found.points[sample], torch.tensor(points))
        pairs = torch.cat((looked[sample], cells[sample, chosen]), dim=-1)
        torch.testing.assert_close(found.features[sample], run_mlp(block.pair, pairs), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_a_decoder_layer_attends_samples_around_its_references_and_thinks(model) -> None:
    decoder, generator = model.decoder, torch.Generator().manual_seed(3)
    queries, points = torch.randn(2, 6, 16, generator=generator), torch.rand(2, 6, 2, generator=generator)
    maps = [torch.randn(2, 16, side, side, generator=generator) for side in (16, 8, 4, 2)]
    states, references = decoder(queries, points, maps)
    positions = decoder.positions(points)
    expected = points + torch.sigmoid(decoder.shift(positions))
    torch.testing.assert_close(references, expected)
    assert 1 < references.max() < 2
    for layer, state in zip(decoder.layers, states, strict=True):
        query, key = layer.attention.query_key(queries + positions).chunk(2, dim=-1)
        seen, _ = attend_in_full(query, key, layer.attention.value(queries), SIZES.decoder_heads)
        queries = layer.attention_norm(queries + layer.attention.out(seen))
        queries = layer.sampling_norm(queries + layer.sampling(queries + positions, expected, maps))
        queries = layer.ffn_norm(queries + feed_forward(layer.ffn, queries))
        torch.testing.assert_close(state, queries, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_the_pyramid_has_four_two_one_and_half_times_the_cells(model) -> None:
    pyramid = model.pyramid
    cells = torch.randn(2, 16, 4, 4, generator=torch.Generator().manual_seed(4))
    first, norm, _, second = pyramid.finest
    finest = F.conv_transpose2d(cells, first.weight, first.bias, stride=2)
    finest = F.conv_transpose2d(F.gelu(normalize_channels(norm, finest)), second.weight, second.bias, stride=2)
    fine = F.conv_transpose2d(cells, pyramid.fine.weight, pyramid.fine.bias, stride=2)
    coarse = cells.unflatten(2, (2, 2)).unflatten(4, (2, 2)).amax(dim=(3, 5))
    levels = zip((finest, fine, cells, coarse), pyramid.lateral, pyramid.smooth, pyramid(cells), strict=True)
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
    for stage, fine in zip(model.pixel_decoder.stages, (maps[2], maps[1], maps[0]), strict=True):
        enlarged = F.interpolate(pixels, scale_factor=2, mode="bilinear", align_corners=True)
        pixels = torch.cat((enlarged, fine), dim=1)
        for convolution, norm in ((stage.merge, stage.merge_norm), (stage.refine, stage.refine_norm)):
            pixels = F.conv2d(pixels, convolution.weight, padding=1)
            pixels = F.batch_norm(pixels, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=1e-5)
            pixels = pixels.clamp(min=0)
    torch.testing.assert_close(model.pixel_decoder(maps), pixels, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_every_head_says_what_its_equation_says(model) -> None:
    generator = torch.Generator().manual_seed(6)
    pixels = torch.randn(2, 3, 32, 32, generator=generator)
    ids, mask = torch.randint(4, 40, (2, 5), generator=generator), torch.ones(2, 5, dtype=torch.int64)
    output = model(pixels, ids, mask)
    cells, text = model.encoder(pixels, ids, mask)
    cells, text = cells @ model.image_projection.weight.T, text @ model.text_projection.weight.T
    queries = model.generation(text, mask, cells)
    maps = model.pyramid(cells.transpose(1, 2).reshape(2, 16, 4, 4))
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
    whole = (model.global_head.weight[0] * embeddings).sum(dim=1, keepdim=True) + model.global_head.bias
    torch.testing.assert_close(output.global_mask_logits, whole, rtol=1e-4, atol=1e-4)
    existence = run_mlp(model.existence_head, embeddings.flatten(2).transpose(1, 2)).mean(dim=1)
    torch.testing.assert_close(output.existence_logits, existence, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(output.points, queries.points)
