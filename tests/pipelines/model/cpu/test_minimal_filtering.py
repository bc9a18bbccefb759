"""Convolution by minimal filtering; torch's own in float64 is the reference."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from pipelines.model.cpu import minimal_filtering as module
from pipelines.model.cpu.minimal_filtering import MinimalFilteringConv2d, minimal_filtering, transform_weight


def draw(shape: tuple[int, ...], weight_shape: tuple[int, ...], seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Features, weights and bias."""
    generator = torch.Generator().manual_seed(seed)
    shapes = (shape, weight_shape, weight_shape[:1])
    features, weight, bias = (torch.randn(each, generator=generator) for each in shapes)
    return features, weight, bias


def draw_conv(channels: int, kernels: int) -> nn.Conv2d:
    torch.manual_seed(0)
    return nn.Conv2d(channels, kernels, 3, padding=1)


@settings(deadline=None, max_examples=25)
@given(
    batch=st.integers(1, 3), channels=st.integers(1, 9), kernels=st.integers(1, 9), height=st.integers(1, 17),
    width=st.integers(1, 17), seed=st.integers(0, 99),
)  # fmt: skip
def test_the_result_is_that_of_the_direct_convolution(batch, channels, kernels, height, width, seed):
    features, weight, bias = draw((batch, channels, height, width), (kernels, channels, 3, 3), seed)
    result = minimal_filtering(features, transform_weight(weight), bias)
    exact = F.conv2d(features.double(), weight.double(), bias.double(), padding=1)
    torch.testing.assert_close(result.double(), exact, rtol=0, atol=2e-4)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_map_as_large_as_the_masks_is_exact_to_float_precision(layout):
    features, weight, _ = draw((2, 64, 80, 80), (32, 64, 3, 3))
    result = minimal_filtering(features.to(memory_format=layout), transform_weight(weight), None)
    exact = F.conv2d(features.double(), weight.double(), padding=1)
    assert (result - exact).abs().max() < 1e-5 * exact.abs().max()


def test_the_size_of_the_working_memory_changes_no_result(monkeypatch):
    features, weight, bias = draw((2, 8, 40, 40), (8, 8, 3, 3))
    whole = minimal_filtering(features, transform_weight(weight), bias)
    monkeypatch.setattr(module, "_WORKING_BYTES", 1)
    torch.testing.assert_close(minimal_filtering(features, transform_weight(weight), bias), whole, rtol=0, atol=1e-5)


@torch.no_grad()
def test_small_maps_other_types_and_autocast_take_torchs_own_convolution():
    conv = draw_conv(4, 3)
    replaced = MinimalFilteringConv2d(conv)
    small, large = torch.randn(1, 4, 10, 10), torch.randn(1, 4, 40, 40)
    assert torch.equal(replaced(small), conv(small))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert replaced(large).dtype == torch.bfloat16
        assert torch.equal(replaced(large), conv(large))
    assert not torch.equal(replaced(large), conv(large))
    assert torch.equal(replaced.double()(large.double()), conv.double()(large.double()))


@torch.no_grad()
@pytest.mark.parametrize("side", [20, 40, 41])
def test_large_maps_multiply_with_the_transformed_weights_and_the_result_may_be_changed_in_place(side):
    conv = draw_conv(4, 3)
    replaced = MinimalFilteringConv2d(conv)
    features = torch.randn(2, 4, side, side)
    expected = conv(features)
    torch.testing.assert_close(replaced(features).relu_(), expected.relu(), rtol=0, atol=1e-4)
    replaced.matrices.mul_(2)
    replaced.bias.mul_(2)
    torch.testing.assert_close(replaced(features), 2 * expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("changes", [{"stride": 2}, {"padding": 0}, {"dilation": 2}, {"groups": 2}, {"kernel_size": 5}])
def test_other_convolutions_cannot_be_replaced(changes):
    with pytest.raises(AssertionError):
        MinimalFilteringConv2d(nn.Conv2d(4, 4, **({"kernel_size": 3, "padding": 1} | changes)))
