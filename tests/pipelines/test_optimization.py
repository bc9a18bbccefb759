"""The learning rates: the published steps, and the cosine."""

import pytest
import torch

from pipelines.optimization import build_optimizer, compute_rate_factor, set_rates
from pipelines.settings import OptimizerSettings


def test_the_published_schedule_halves_the_first_epoch_and_decays_from_the_seventh() -> None:
    settings = OptimizerSettings()
    factors = [compute_rate_factor(settings, 100 * epoch + 50, 100, 1000) for epoch in range(10)]
    assert factors == pytest.approx([0.5, 1, 1, 1, 1, 1, 0.1, 0.1, 0.1, 0.1])


def test_the_cosine_rises_to_one_and_falls_to_zero() -> None:
    settings = OptimizerSettings(schedule="cosine", warmup_epochs=0.5)
    factors = [compute_rate_factor(settings, step, 100, 1000) for step in range(1001)]
    assert factors[0] < 0.05
    assert max(factors) == pytest.approx(1.0)
    assert factors.index(max(factors)) == 50
    assert factors[1000] == pytest.approx(0.0)


def test_encoder_and_head_have_their_own_rates_scaled_together() -> None:
    model = torch.nn.ModuleDict({"encoder": torch.nn.Linear(2, 2), "head": torch.nn.Linear(2, 1)})
    optimizer = build_optimizer(model, OptimizerSettings())
    set_rates(optimizer, 0.5)
    assert [group["lr"] for group in optimizer.param_groups] == [2.5e-5, 2.5e-4]
    assert [len(group["params"]) for group in optimizer.param_groups] == [2, 2]
