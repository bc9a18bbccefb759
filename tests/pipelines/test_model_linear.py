"""Linear maps are torch's, whatever library multiplies."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pipelines.model import linear
from pipelines.model.linear import Linear


@pytest.mark.parametrize("packs", [True, False])
def test_without_gradients_the_result_is_torchs_to_float_precision(packs):
    module, tokens = Linear(96, 40, packs=packs).eval(), torch.randn(2, 7, 96)
    exact = F.linear(tokens.double(), module.weight.double(), module.bias.double())
    with torch.inference_mode():
        torch.testing.assert_close(module(tokens).double(), exact.detach(), rtol=0, atol=1e-5)


def list_operators(module: Linear, tokens: Tensor) -> set[str]:
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        module(tokens)
    return {event.key for event in profiler.key_averages()}


def test_without_gradients_the_operator_is_used_and_with_them_it_is_not():
    module, tokens = Linear(96, 40, packs=True), torch.randn(2, 7, 96)
    assert "mkldnn::_linear_pointwise" not in list_operators(module, tokens)
    with torch.no_grad():
        assert "mkldnn::_linear_pointwise" in list_operators(module, tokens)


def test_weights_are_laid_out_once_in_evaluation_and_never_in_training():
    module, tokens = Linear(96, 40, packs=True), torch.randn(2, 7, 96)
    with torch.no_grad():
        assert "mkldnn::_reorder_linear_weight" not in list_operators(module, tokens)
        assert "mkldnn::_reorder_linear_weight" in list_operators(module.eval(), tokens)
        assert "mkldnn::_reorder_linear_weight" not in list_operators(module, tokens)


@pytest.mark.parametrize("fused", [True, False])
def test_a_step_of_an_optimizer_shows_in_the_next_result(fused):
    module, tokens = Linear(96, 40, packs=True).eval(), torch.randn(2, 7, 96)
    module(tokens).sum().backward()
    with torch.no_grad():
        module(tokens)
    torch.optim.Adam(module.parameters(), lr=0.1, fused=fused).step()
    with torch.no_grad():
        wanted = F.linear(tokens, module.weight, module.bias)
        torch.testing.assert_close(module(tokens), wanted, rtol=0, atol=1e-4)


def test_weights_and_tokens_of_different_devices_are_an_error():
    with torch.inference_mode(), pytest.raises(RuntimeError, match="meta"):
        Linear(6, 4, packs=True).to("meta")(torch.randn(2, 3, 6))


def test_without_the_operator_the_result_is_the_same(monkeypatch):
    module, tokens = Linear(96, 40, packs=True), torch.randn(2, 7, 96)
    with torch.inference_mode():
        there = module(tokens)
        monkeypatch.setattr(linear, "_ONEDNN", None)
        torch.testing.assert_close(module(tokens), there, rtol=0, atol=1e-5)


def test_gradients_reach_weights_and_tokens():
    module, tokens = Linear(6, 4, packs=True), torch.randn(2, 3, 6, requires_grad=True)
    module(tokens).sum().backward()
    torch.testing.assert_close(tokens.grad, module.weight.sum(0).detach().expand(2, 3, 6))
    torch.testing.assert_close(module.bias.grad, torch.full((4,), 6.0))


def test_no_tokens_give_no_tokens():
    with torch.inference_mode():
        assert Linear(6, 4, packs=True)(torch.zeros(2, 0, 6)).shape == (2, 0, 4)


def test_autocast_computes_in_bfloat16():
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        assert Linear(6, 4, packs=True)(torch.randn(2, 3, 6)).dtype == torch.bfloat16
