"""Maps of the pixel decoder: convolution and batch norm are one in evaluation."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipelines.model.pixel_decoder import Convolution, PixelDecoder

SIDES = (5, 20, 40)


def draw_norm(channels: int) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(channels)
    with torch.no_grad():
        for tensor in (norm.weight, norm.bias, norm.running_mean):
            tensor.normal_()
        norm.running_var.uniform_(0.5, 2)
    return norm


def compute_directly(convolution: Convolution, norm: nn.BatchNorm2d, features: Tensor) -> Tensor:
    convolved = F.conv2d(features.double(), convolution.weight.double(), padding=1)
    constants = (norm.running_mean.double(), norm.running_var.double(), norm.weight.double(), norm.bias.double())
    return F.batch_norm(convolved, *constants, eps=norm.eps)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("gradients", [True, False])
def test_in_evaluation_the_result_is_that_of_convolution_and_norm(side, gradients):
    convolution, norm = Convolution(8, 6).eval(), draw_norm(6).eval()
    features = torch.randn(2, 8, side, side)
    with torch.set_grad_enabled(gradients):
        for _ in range(2):
            found = convolution(features, norm).double()
            torch.testing.assert_close(found, compute_directly(convolution, norm, features), rtol=0, atol=1e-4)


def test_statistics_that_change_show_in_the_next_result():
    convolution, norm = Convolution(8, 6).eval(), draw_norm(6)
    features = torch.randn(2, 8, 20, 20)
    with torch.no_grad():
        convolution(features, norm.eval())
        with torch.autocast("cpu", dtype=torch.bfloat16):
            convolution(3 * features + 1, norm.train())
        found = convolution(features, norm.eval()).double()
        torch.testing.assert_close(found, compute_directly(convolution, norm, features), rtol=0, atol=1e-4)


def test_a_norm_in_training_uses_the_statistics_of_the_batch():
    convolution, norm = Convolution(8, 6), draw_norm(6)
    convolved = F.conv2d(torch.ones(2, 8, 20, 20), convolution.weight, padding=1)
    wanted = F.batch_norm(convolved, None, None, norm.weight, norm.bias, training=True, eps=norm.eps)
    torch.testing.assert_close(convolution(torch.ones(2, 8, 20, 20), norm), wanted, rtol=0, atol=1e-4)


def test_without_gradients_the_weights_are_folded_and_transformed_once():
    convolution, norm = Convolution(8, 6).eval(), draw_norm(6).eval()
    with torch.no_grad():
        convolution(torch.randn(2, 8, 20, 20), norm)
        kept = convolution.kernel._kept
        convolution(torch.randn(2, 8, 20, 20), norm)
    assert kept is not None
    assert convolution.kernel._kept is kept


@pytest.mark.parametrize("training", [True, False])
def test_hooks_see_a_convolution_once(training):
    convolution, norm, seen = Convolution(8, 6).train(training), draw_norm(6).train(training), []
    convolution.register_forward_hook(lambda module, inputs, output: seen.append(output))
    result = convolution(torch.randn(2, 8, 20, 20), norm)
    assert len(seen) == 1
    assert seen[0] is result


@pytest.mark.parametrize("fused", [True, False])
def test_a_step_of_an_optimizer_in_evaluation_mode_shows_in_the_next_result(fused):
    torch.manual_seed(0)
    decoder = PixelDecoder(8).eval()
    maps = [torch.randn(1, 8, side, side) for side in (40, 20, 10, 5)]
    with torch.no_grad():
        before = decoder(maps)
    decoder(maps).square().mean().backward()
    torch.optim.Adam(decoder.parameters(), lr=0.1, fused=fused).step()
    with torch.no_grad():
        after = decoder(maps)
    assert not torch.allclose(after, before, atol=1e-2)
    torch.testing.assert_close(after, decoder(maps).detach(), rtol=0, atol=1e-4)
