"""The learning rates: the published steps, and the cosine."""

import pytest
import torch

from pipelines.config.settings import OptimizerSettings
from pipelines.training.optimizer import build_optimizer, learning_rates, lr_factor, set_learning_rates


def test_the_published_schedule_halves_the_first_epoch_and_decays_from_the_seventh() -> None:
    settings = OptimizerSettings()
    factors = [lr_factor(settings, 100 * epoch + 50, 100, 1000) for epoch in range(10)]
    assert factors == pytest.approx([0.5, 1, 1, 1, 1, 1, 0.1, 0.1, 0.1, 0.1])


def test_the_cosine_rises_to_one_and_falls_to_zero() -> None:
    settings = OptimizerSettings(schedule="cosine", warmup_epochs=0.5)
    factors = [lr_factor(settings, step, 100, 1000) for step in range(1001)]
    assert factors[0] < 0.05
    assert max(factors) == pytest.approx(1.0)
    assert factors.index(max(factors)) == 50
    assert factors[1000] == pytest.approx(0.0)


def test_encoder_and_head_have_their_own_rates_scaled_together() -> None:
    model = torch.nn.ModuleDict({"encoder": torch.nn.Linear(2, 2), "head": torch.nn.Linear(2, 1)})
    optimizer = build_optimizer(model, OptimizerSettings())
    set_learning_rates(optimizer, 0.5)
    assert [group["lr"] for group in optimizer.param_groups] == [2.5e-5, 2.5e-4]
    assert learning_rates(optimizer) == {"encoder": 2.5e-5, "head": 2.5e-4}
    assert [len(group["params"]) for group in optimizer.param_groups] == [2, 2]


def test_adam_takes_the_settings_and_only_the_parameters_that_train() -> None:
    model = torch.nn.ModuleDict({"encoder": torch.nn.Linear(2, 2), "head": torch.nn.Linear(2, 1)})
    model["head"].bias.requires_grad_(False)
    settings = OptimizerSettings(encoder_lr=1e-3, head_lr=2e-3, betas=(0.5, 0.6), eps=0.01, amsgrad=False)
    optimizer = build_optimizer(model, settings)
    assert [[id(parameter) for parameter in group["params"]] for group in optimizer.param_groups] == [
        [id(model["encoder"].weight), id(model["encoder"].bias)], [id(model["head"].weight)],
    ]  # fmt: skip
    for group, rate in zip(optimizer.param_groups, (1e-3, 2e-3), strict=True):
        found = [group[name] for name in ("lr", "betas", "eps", "amsgrad", "weight_decay")]
        assert found == [rate, (0.5, 0.6), 0.01, False, 0]
    assert build_optimizer(model, OptimizerSettings()).param_groups[0]["amsgrad"] is True


@pytest.mark.parametrize(("step", "factor"), [(99, 0.5), (100, 1.0), (199, 1.0), (200, 0.1), (299, 0.1), (300, 0.01)])
def test_a_factor_holds_from_the_first_step_of_an_epoch_to_its_last(step: int, factor: float) -> None:
    settings = OptimizerSettings(warmup_epochs=1, warmup_factor=0.5, decay_epochs=(3, 4), decay_factor=0.1)
    assert lr_factor(settings, step, 100, 1000) == pytest.approx(factor)


def test_the_cosine_s_warm_up_is_a_straight_line_from_the_first_step_on() -> None:
    settings = OptimizerSettings(schedule="cosine", warmup_epochs=0.5)
    assert [lr_factor(settings, step, 8, 100) for step in range(5)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1])
    # A training shorter than its warm-up rises for half of its steps.
    assert [lr_factor(settings, step, 100, 4) for step in range(3)] == pytest.approx([1 / 3, 2 / 3, 1])
