import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipelines.model.attention import CrossAttention, FeedForward, MSDeformAttn, SelfAttention, bilinear_coverage

SIDES = (8, 4, 2, 1)


def project_then_sample(layer: MSDeformAttn, queries: Tensor, references: Tensor, maps: list[Tensor]) -> Tensor:
    """Deformable attention in its textbook order: every pixel is projected, then sampled pixel by pixel."""
    heads, levels, points = layer.heads, layer.levels, layer.points
    offsets = layer.sampling_offsets(queries).view(*queries.shape[:2], heads, levels, points, 2)
    weights = layer.attention_weights(queries).view(*queries.shape[:2], heads, -1).softmax(-1)
    weights = weights.view(*queries.shape[:2], heads, levels, points)
    attended = torch.zeros(*queries.shape[:2], heads, queries.shape[2] // heads)
    for level, features in enumerate(maps):
        height, width = features.shape[-2:]
        values = layer.value_proj(features.permute(0, 2, 3, 1)).unflatten(-1, (heads, -1))
        for b, q, h, p in torch.cartesian_prod(
            *(torch.arange(n) for n in (*queries.shape[:2], heads, points))
        ).tolist():
            x = (references[b, q, 0] + offsets[b, q, h, level, p, 0] / width) * width - 0.5
            y = (references[b, q, 1] + offsets[b, q, h, level, p, 1] / height) * height - 0.5
            for column in (math.floor(x), math.floor(x) + 1):
                for row in (math.floor(y), math.floor(y) + 1):
                    if 0 <= column < width and 0 <= row < height:
                        weight = (1 - (x - column).abs()) * (1 - (y - row).abs()) * weights[b, q, h, level, p]
                        attended[b, q, h] += weight * values[b, row, column, h]
    return layer.output_proj(attended.flatten(2))


@pytest.fixture
def layer() -> MSDeformAttn:
    torch.manual_seed(1)
    layer = MSDeformAttn(16, heads=2, points=3, sides=SIDES)
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.4)
    return layer


def make_inputs() -> tuple[Tensor, Tensor, list[Tensor]]:
    generator = torch.Generator().manual_seed(2)
    maps = [torch.randn(2, 16, side, side, generator=generator) for side in SIDES]
    # Some reference points lie outside of the image, as those of published checkpoints may.
    return torch.randn(2, 4, 16, generator=generator), torch.rand(2, 4, 2, generator=generator) * 2.4 - 0.7, maps


@torch.no_grad()
def test_sampling_before_projecting_equals_projecting_before_sampling(layer):
    queries, references, maps = make_inputs()
    found, expected = layer(queries, references, maps), project_then_sample(layer, queries, references, maps)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_all_inputs_and_weights_of_deformable_attention_get_gradients(layer):
    queries, references, maps = make_inputs()
    for features in (queries, references, *maps):
        features.requires_grad_()
    layer(queries, references, maps).square().sum().backward()
    for tensor in (queries, references, *maps, *layer.parameters()):
        assert tensor.grad.abs().max() > 0


def test_coverage_is_what_sampling_a_map_of_ones_gives():
    locations = torch.rand(1, 500, 1, 2, generator=torch.Generator().manual_seed(3)) * 2 - 0.5
    for width, height in ((5, 3), (1, 1), (8, 1)):
        ones = torch.ones(1, 1, height, width)
        sampled = F.grid_sample(ones, 2 * locations - 1, padding_mode="zeros", align_corners=False)[0, 0]
        found = bilinear_coverage(locations, torch.tensor([float(width), float(height)]))[0]
        torch.testing.assert_close(found, sampled, rtol=0, atol=1e-5)


def test_fresh_heads_sample_one_to_four_cells_away_in_eight_directions():
    layer = MSDeformAttn(32, heads=8, points=4, sides=SIDES)
    offsets = layer.sampling_offsets.bias.view(8, 4, 4, 2)
    torch.testing.assert_close(offsets[0, 2], torch.tensor([[1.0, 0.0], [2.0, 0.0], [3.0, 0.0], [4.0, 0.0]]))
    torch.testing.assert_close(offsets[3, 0, 1], torch.tensor([-2.0, 2.0]))
    assert layer.attention_weights.weight.abs().max() == layer.sampling_offsets.weight.abs().max() == 0


def into_torch(projections: list[nn.Linear], out: nn.Linear) -> nn.MultiheadAttention:
    reference = nn.MultiheadAttention(16, 4, batch_first=True)
    reference.in_proj_weight.data = torch.cat([projection.weight for projection in projections]).data
    reference.in_proj_bias.data = torch.cat([projection.bias for projection in projections]).data
    reference.out_proj.load_state_dict(out.state_dict())
    return reference.eval()


def randomize(module: nn.Module) -> None:
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.5)


@torch.no_grad()
def test_self_attention_equals_torchs_with_positions_on_queries_and_keys():
    torch.manual_seed(0)
    layer = SelfAttention(16, 4, dropout=0.0)
    randomize(layer)
    queries, positions = torch.randn(2, 5, 16), torch.randn(2, 5, 16)
    reference = into_torch([layer.qk_proj, layer.v_proj], layer.out_proj)
    with_positions = queries + positions
    torch.testing.assert_close(
        layer(queries, positions), reference(with_positions, with_positions, queries)[0], rtol=1e-4, atol=1e-5
    )


@torch.no_grad()
def test_cross_attention_equals_torchs_and_returns_its_weights():
    torch.manual_seed(0)
    layer = CrossAttention(16, 4, dropout=0.0)
    randomize(layer)
    queries, keys, values = torch.randn(2, 3, 16), torch.randn(2, 7, 16), torch.randn(2, 7, 16)
    reference = into_torch([layer.q_proj, layer.k_proj, layer.v_proj], layer.out_proj)
    for found, expected in zip(layer(queries, keys, values), reference(queries, keys, values), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_dropout_acts_in_training_only():
    torch.manual_seed(0)
    layer, tokens = CrossAttention(16, 4, dropout=0.5), torch.randn(1, 6, 16)
    assert not torch.equal(layer(tokens, tokens, tokens)[1], layer(tokens, tokens, tokens)[1])
    layer.eval()
    torch.testing.assert_close(layer(tokens, tokens, tokens)[1].sum(-1), torch.ones(1, 6))


def test_dropout_drops_in_training_alone_and_at_the_rate_given():
    torch.manual_seed(0)
    tokens = torch.randn(64, 6, 8)
    modules = {
        "self": (SelfAttention(8, 2, 0.5), lambda module: module(tokens, tokens)),
        "cross": (CrossAttention(8, 2, 0.5), lambda module: module(tokens, tokens, tokens)[1]),
        "feed forward": (FeedForward(8, 32, 0.5), lambda module: module(tokens)),
    }
    for name, (module, run) in modules.items():
        module.eval()
        assert torch.equal(run(module), run(module)), name
        module.train()
        assert not torch.equal(run(module), run(module)), name
    # The weights that are returned have gone through dropout: the mean of two heads is zero for a quarter.
    weights = modules["cross"][1](modules["cross"][0])
    assert (weights == 0).float().mean().item() == pytest.approx(0.25, abs=0.05)


def test_a_feed_forward_network_drops_hidden_channels_and_its_output():
    torch.manual_seed(0)
    module = FeedForward(4, 4, 0.5).train()
    for linear in (module.fc1, module.fc2):
        nn.init.eye_(linear.weight)
        nn.init.zeros_(linear.bias)
    found = module(torch.ones(2000, 4))
    # Each value is kept twice, by a factor of 2 each, or it is zero.
    assert sorted(set(found.flatten().tolist())) == [0, 4]
    assert (found > 0).float().mean().item() == pytest.approx(0.25, abs=0.03)
