"""Convolution by minimal filtering: torch's own in float64 is the reference."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pipelines.model.cpu import minimal_filtering as convolution
from pipelines.model.cpu.minimal_filtering import MinimalFiltering, convolve, transform_weight


def draw(shape: tuple[int, ...], weight_shape: tuple[int, ...], seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(shape, generator=generator, requires_grad=True)
    weight = torch.randn(weight_shape, generator=generator, requires_grad=True)
    gradient = torch.randn(shape[0], weight_shape[0], *shape[2:], generator=generator)
    return features, weight, gradient


def differentiate(result: Tensor, inputs: tuple[Tensor, Tensor], gradient: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(result, inputs, gradient.to(result.dtype))


@settings(deadline=None, max_examples=25)
@given(
    batch=st.integers(1, 3), channels=st.integers(1, 9), kernels=st.integers(1, 9), height=st.integers(1, 17),
    width=st.integers(1, 17), seed=st.integers(0, 99),
)  # fmt: skip
def test_result_and_gradients_are_those_of_the_direct_convolution(batch, channels, kernels, height, width, seed):
    features, weight, gradient = draw((batch, channels, height, width), (kernels, channels, 3, 3), seed)
    result = MinimalFiltering.apply(features, weight, None)
    exact = F.conv2d(features.double(), weight.double(), padding=1)
    torch.testing.assert_close(result.double(), exact, rtol=0, atol=2e-4)
    pairs = zip(
        differentiate(result, (features, weight), gradient),
        differentiate(exact, (features, weight), gradient),
        strict=True,
    )
    for found, wanted in pairs:
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=5e-4)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_map_as_large_as_the_masks_is_exact_to_float_precision(layout):
    features, weight, _ = draw((2, 64, 80, 80), (32, 64, 3, 3))
    result = convolve(features.to(memory_format=layout), weight)
    exact = F.conv2d(features.double(), weight.double(), padding=1)
    assert (result - exact).abs().max() < 1e-5 * exact.abs().max()


def test_the_size_of_the_working_memory_changes_no_result(monkeypatch):
    features, weight, _ = draw((2, 8, 40, 40), (8, 8, 3, 3))
    whole = convolve(features, weight)
    monkeypatch.setattr(convolution, "_WORKING_BYTES", 1)
    torch.testing.assert_close(convolve(features, weight), whole, rtol=0, atol=1e-5)


def test_the_bias_is_added_to_every_pixel_and_gets_its_gradient():
    features, weight, gradient = draw((1, 4, 40, 40), (3, 4, 3, 3))
    bias = torch.tensor([1.0, -2.0, 3.0], requires_grad=True)
    (found,) = torch.autograd.grad(convolve(features, weight, bias), bias, gradient)
    torch.testing.assert_close(found, gradient.sum(dim=(0, 2, 3)))
    torch.testing.assert_close(
        convolve(features, weight, bias), F.conv2d(features, weight, bias, padding=1), rtol=0, atol=1e-4
    )


@pytest.mark.parametrize("side", [10, 20, 41])
def test_weights_transformed_beforehand_give_the_same(side):
    features, weight, _ = draw((3, 16, side, side), (8, 16, 3, 3))
    bias = torch.arange(8.0)
    with torch.no_grad():
        found = convolve(features, weight, bias, matrices=transform_weight(weight))
    exact = F.conv2d(features.double(), weight.double(), bias.double(), padding=1)
    assert (found - exact).abs().max() < 1e-5 * exact.abs().max()


def test_weights_transformed_beforehand_are_what_is_multiplied_with():
    features, weight, _ = draw((2, 4, 20, 20), (3, 4, 3, 3))
    with torch.no_grad():
        found = convolve(features, weight, matrices=2 * transform_weight(weight))
    torch.testing.assert_close(found, 2 * F.conv2d(features, weight, padding=1).detach(), rtol=0, atol=1e-4)


def test_weights_transformed_beforehand_do_not_keep_gradients_away():
    features, weight, gradient = draw((1, 4, 40, 40), (3, 4, 3, 3))
    result = convolve(features, weight, matrices=transform_weight(weight.detach()))
    for found, wanted in zip(
        differentiate(result, (features, weight), gradient),
        differentiate(convolve(features, weight), (features, weight), gradient),
        strict=True,
    ):
        assert torch.equal(found, wanted)


def test_small_maps_and_other_precisions_take_the_direct_way():
    small, weight, _ = draw((1, 4, 20, 20), (3, 4, 3, 3))
    assert torch.equal(convolve(small, weight), F.conv2d(small, weight, padding=1))
    large, weight, _ = draw((1, 4, 40, 40), (3, 4, 3, 3))
    assert torch.equal(convolve(large.double(), weight.double()), F.conv2d(large.double(), weight.double(), padding=1))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert convolve(large, weight).dtype == torch.bfloat16


@pytest.mark.parametrize("side", [40, 41])
def test_the_result_may_be_changed_in_place(side: int):
    features, weight, gradient = draw((1, 4, side, side), (3, 4, 3, 3))
    found = differentiate(convolve(features, weight).relu_(), (features, weight), gradient)
    wanted = differentiate(F.conv2d(features, weight, padding=1).relu(), (features, weight), gradient)
    torch.testing.assert_close(found[1], wanted[1], rtol=1e-4, atol=1e-2)


def test_large_maps_take_the_short_way():
    features, weight, _ = draw((1, 4, 40, 40), (3, 4, 3, 3))
    assert "MinimalFiltering" in type(convolve(features, weight).grad_fn).__name__


def test_the_compiler_sees_one_graph_of_torchs_own_convolution():
    features, weight, gradient = draw((1, 4, 40, 40), (3, 4, 3, 3))
    compiled = torch.compile(convolve, backend="aot_eager", fullgraph=True)
    assert torch.equal(compiled(features, weight), F.conv2d(features, weight, padding=1))
    for found, wanted in zip(
        differentiate(compiled(features, weight), (features, weight), gradient),
        differentiate(convolve(features, weight), (features, weight), gradient),
        strict=True,
    ):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=5e-4)


def test_shapes_are_known_without_values():
    features, weight = torch.empty(1, 4, 40, 40, device="meta"), torch.empty(3, 4, 3, 3, device="meta")
    assert convolve(features, weight).shape == (1, 3, 40, 40)


def test_a_network_used_in_inference_mode_first_can_be_trained_afterwards():
    features, weight, gradient = draw((1, 4, 40, 40), (3, 4, 3, 3))
    with torch.inference_mode():
        convolve(features, weight)
    assert all(
        found.isfinite().all() for found in differentiate(convolve(features, weight), (features, weight), gradient)
    )
