"""One step of a training and one validation: every setting that ought to decide something does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch

from pipelines.config.settings import OptimizerSettings
from pipelines.data.batch import Batch, collate
from pipelines.data.cut_expressions import CutExpressions
from pipelines.data.tokenizer import PAD_ID
from pipelines.training.setup import Training, list_parts
from pipelines.training.state import restore_state, save_state
from pipelines.training.trainer import open_batches, train, train_step
from pipelines.training.validation import validate
from shards.errors import DataError
from shards.progress import set_sink
from tests.support.small_training import MODEL, open_small, write_set

QUIET = replace(MODEL, drop_path=0.0, dropout=0.0)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_set(tmp_path_factory.mktemp("training"))


def gather(training: Training, indices: Sequence[int]) -> Batch:
    """The batch of some examples; those of a image are its four, about no, one, the other and both targets."""
    return collate([training.data[index] for index in indices], PAD_ID)


def measure_step(training: Training, batch: Batch) -> dict[str, torch.Tensor]:
    """The gradients with which the optimizer takes a step, in full precision."""
    gradients: dict[str, torch.Tensor] = {}

    def keep(*_: object) -> None:
        for name, parameter in training.model.named_parameters():
            if parameter.grad is not None:
                gradients[name] = parameter.grad.double()

    hook = training.optimizer.register_step_pre_hook(keep)
    train_step(training, batch)
    hook.remove()
    return gradients


def measure_norm(gradients: dict[str, torch.Tensor]) -> float:
    return float(torch.stack([gradient.norm() for gradient in gradients.values()]).norm())


# Learning rates and gradients


@pytest.mark.parametrize(("step", "factor"), [(0, 0.5), (2, 0.5), (3, 1.0), (5, 1.0), (6, 0.1), (9, 0.01)], ids=str)
def test_a_step_is_taken_at_the_base_rates_times_the_schedule_s_factor(
    shards: Path, tmp_path: Path, step: int, factor: float
) -> None:
    optimizer = OptimizerSettings(
        encoder_lr=2e-4, head_lr=3e-3, warmup_epochs=1, warmup_factor=0.5, decay_epochs=(3, 4), decay_factor=0.1
    )
    # Three steps are an epoch.
    training = open_small(shards, tmp_path, epochs=5, optimizer=optimizer)
    training.step = step
    rates: list[float] = []
    training.optimizer.register_step_pre_hook(
        lambda optimizer, *_: rates.extend(group["lr"] for group in optimizer.param_groups)
    )
    train_step(training, gather(training, range(4)))
    assert rates == pytest.approx([2e-4 * factor, 3e-3 * factor])


def test_a_step_changes_every_weight_of_the_network(shards: Path, tmp_path: Path) -> None:
    training = open_small(shards, tmp_path, model=QUIET)
    before = {name: parameter.detach().clone() for name, parameter in training.model.named_parameters()}
    train_step(training, gather(training, range(4)))
    after = dict(training.model.named_parameters())
    assert [name for name in before if torch.equal(before[name], after[name])] == []


def test_gradients_are_cut_to_the_norm_that_is_set_and_keep_their_direction(shards: Path, tmp_path: Path) -> None:
    found = {}
    for norm in (0.0, 0.01):
        training = open_small(shards, tmp_path / str(norm), model=QUIET, optimizer=OptimizerSettings(clip_norm=norm))
        found[norm] = measure_step(training, gather(training, range(4)))
    whole, cut = measure_norm(found[0.0]), measure_norm(found[0.01])
    assert whole > 0.1
    assert cut == pytest.approx(0.01, rel=1e-3)
    for name, gradient in found[0.0].items():
        torch.testing.assert_close(found[0.01][name], gradient * (0.01 / whole), rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("clip_norm", [0.0, 0.01])
def test_the_gradient_norm_of_a_step_is_that_before_clipping(shards: Path, tmp_path: Path, clip_norm: float) -> None:
    plain = open_small(shards, tmp_path / "plain", model=QUIET, optimizer=OptimizerSettings(clip_norm=0))
    whole = measure_norm(measure_step(plain, gather(plain, range(4))))
    training = open_small(shards, tmp_path / "run", model=QUIET, optimizer=OptimizerSettings(clip_norm=clip_norm))
    assert float(train_step(training, gather(training, range(4))).gradient_norm) == pytest.approx(whole, rel=1e-5)


def test_a_gradient_of_one_step_is_forgotten_in_the_next(shards: Path, tmp_path: Path) -> None:
    slow = OptimizerSettings(encoder_lr=1e-30, head_lr=1e-30, clip_norm=0)
    training = open_small(shards, tmp_path, model=QUIET, optimizer=slow)
    first, second = (measure_norm(measure_step(training, gather(training, range(4)))) for _ in range(2))
    assert second == pytest.approx(first, rel=1e-4)


def test_dropout_differs_from_step_to_step(shards: Path, tmp_path: Path) -> None:
    slow = OptimizerSettings(encoder_lr=1e-30, head_lr=1e-30, clip_norm=0)
    training = open_small(shards, tmp_path, optimizer=slow)
    losses = []
    for step in (0, 0, 1):
        training.step = step
        losses.append(float(train_step(training, gather(training, range(4))).losses["total"]))
    assert losses[0] == losses[1] != losses[2]


# Micro-batches


@pytest.mark.parametrize("indices", [(0, 1, 2, 3, 0, 1, 2, 3), (0, 1, 4, 5, 2, 8, 6, 4)])
def test_the_gradient_of_two_micro_batches_is_the_mean_of_theirs(
    shards: Path, tmp_path: Path, indices: tuple[int, ...]
) -> None:
    """Both halves have as many boxes, so each on its own is normalised as in the whole."""
    plain = OptimizerSettings(clip_norm=0)

    def measure(chosen: Sequence[int], micro_batches: int) -> dict[str, torch.Tensor]:
        training = open_small(
            shards, tmp_path / f"{chosen}", model=QUIET, optimizer=plain, micro_batches=micro_batches, batch_size=8
        )
        return measure_step(training, gather(training, chosen))

    both, first, second = measure(indices, 2), measure(indices[:4], 1), measure(indices[4:], 1)
    for name, gradient in both.items():
        torch.testing.assert_close(gradient, (first[name] + second[name]) / 2, rtol=1e-3, atol=1e-5, msg=name)
    if indices[:4] == indices[4:]:
        # The statistics of the batch norms are the same, too.
        for name, gradient in measure(indices, 1).items():
            torch.testing.assert_close(both[name], gradient, rtol=1e-3, atol=1e-5, msg=name)


# Precision


def record_forward(training: Training) -> list[dict[str, Any]]:
    """What holds whenever the network runs from now on."""
    calls: list[dict[str, Any]] = []

    def note(model: torch.nn.Module, inputs: tuple[torch.Tensor, ...], output: Any) -> None:
        calls.append({
            "bf16": torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16,
            "output": output.class_logits.dtype,
            "training": model.training or any(module.training for module in model.modules()),
            "expressions": len(inputs[0]),
            "gradients": torch.is_grad_enabled(),
        })  # fmt: skip

    training.model.register_forward_hook(note)
    return calls


@pytest.mark.parametrize(("precision", "half"), [("fp32", False), ("bf16", True)])
def test_the_network_trains_and_is_scored_in_the_precision_that_is_set(
    shards: Path, tmp_path: Path, precision: str, half: bool
) -> None:
    training = open_small(shards, tmp_path, precision=precision)
    calls = record_forward(training)
    train_step(training, gather(training, range(4)))
    validate(training)
    assert len(calls) > 1
    assert [call["bf16"] for call in calls] == [half] * len(calls)
    assert calls[0]["output"] == (torch.bfloat16 if half else torch.float32)
    assert {parameter.dtype for parameter in training.model.parameters()} == {torch.float32}


def test_gradients_in_float16_are_scaled_and_those_that_overflow_change_nothing(shards: Path, tmp_path: Path) -> None:
    """On a CPU float16 is refused by settings alone: its products are slow there, and right."""
    plain = measure_step(
        open_small(shards, tmp_path, model=QUIET), gather(training := open_half(shards, tmp_path), range(4))
    )
    half = measure_step(training, gather(training, range(4)))
    for name in ("box_head.fc3.weight", "encoder.patch_embed.weight"):
        assert (half[name] - plain[name]).norm() < 0.05 * plain[name].norm()
    before = {name: tensor.clone() for name, tensor in training.model.named_parameters()}
    training.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**100)
    train_step(training, gather(training, range(4)))
    assert training.scaler.get_scale() == 2.0**99
    assert [name for name, tensor in training.model.named_parameters() if not torch.equal(tensor, before[name])] == []


def test_the_scale_of_gradients_outlasts_a_stop(shards: Path, tmp_path: Path) -> None:
    training = open_half(shards, tmp_path)
    training.scaler = torch.amp.GradScaler("cpu", init_scale=1024, growth_interval=2)
    for _ in range(3):
        train_step(training, gather(training, range(4)))
        training.step += 1
    save_state(training)
    resumed = open_half(shards, tmp_path)
    restore_state(resumed)
    assert resumed.scaler.state_dict() == training.scaler.state_dict()
    assert resumed.scaler.state_dict() | {"scale": 2048.0, "_growth_tracker": 1} == resumed.scaler.state_dict()


def open_half(shards: Path, out: Path) -> Training:
    """A training in float16."""
    training = open_small(shards, out, model=QUIET)
    training.compute_dtype, training.scaler = "fp16", torch.amp.GradScaler("cpu")
    return training


# Targets


@pytest.mark.parametrize(("mask_targets", "side"), [("image", 32), ("decoder", 16)])
def test_target_masks_have_the_side_that_is_set(shards: Path, tmp_path: Path, mask_targets: str, side: int) -> None:
    training = open_small(shards, tmp_path, mask_targets=mask_targets)
    batch = next(open_batches(training))
    assert batch.targets is not None
    assert batch.targets.global_masks.shape == (4, side, side)


def test_batches_go_on_from_the_step_where_the_training_was_left(shards: Path, tmp_path: Path) -> None:
    training = open_small(shards, tmp_path, epochs=2)
    whole = [batch.ids for batch in open_batches(training)]
    assert len(whole) == training.total_steps == 6
    assert sorted(chain(*whole[:3])) == sorted(chain(*whole[3:]))
    assert len(set(chain(*whole))) == 12
    assert whole[:3] != whole[3:]
    training.step = 4
    assert [batch.ids for batch in open_batches(training)] == whole[4:]


def test_another_seed_is_another_order(shards: Path, tmp_path: Path) -> None:
    orders = [
        [batch.ids for batch in open_batches(open_small(shards, tmp_path, epochs=2, seed=seed))] for seed in (1, 2)
    ]
    assert orders[0] != orders[1]


def test_a_folder_without_the_splits_to_train_on_is_named_with_those_it_has(shards: Path) -> None:
    assert list_parts([shards, shards], ["train", "val"]) == [(shards, "val"), (shards, "val")]
    with pytest.raises(DataError, match=r"none of the splits to train on \(train\); set splits to some of val"):
        list_parts([shards], ["train"])


# Validation


@pytest.mark.parametrize(("limit", "scored"), [(0, 12), (5, 5), (100, 12)])
def test_a_validation_predicts_as_many_expressions_as_are_set_and_learns_nothing(
    shards: Path, tmp_path: Path, limit: int, scored: int
) -> None:
    training = open_small(shards, tmp_path, validation_limit=limit)
    training.model.train()
    before = {name: tensor.clone() for name, tensor in training.model.state_dict().items()}
    random = torch.get_rng_state()
    calls = record_forward(training)
    validate(training)
    assert sum(call["expressions"] for call in calls) == scored
    assert not any(call["training"] or call["gradients"] for call in calls)
    assert training.model.training
    assert torch.equal(torch.get_rng_state(), random)
    assert [name for name, tensor in training.model.state_dict().items() if not torch.equal(tensor, before[name])] == []


@pytest.mark.parametrize(("validation_epochs", "steps"), [(1, [3, 6, 9, 11]), (2, [6, 11]), (5, [11])])
def test_a_validation_comes_after_every_stretch_of_epochs_and_after_the_last_step(
    shards: Path, tmp_path: Path, validation_epochs: int, steps: list[int]
) -> None:
    training = open_small(shards, tmp_path, epochs=4, max_steps=11, validation_epochs=validation_epochs)
    should_validate = []
    for step in range(1, training.total_steps + 1):
        training.step = step
        should_validate += [step] if training.should_validate else []
    assert should_validate == steps


# Expressions that are cut


def test_training_expressions_that_are_cut_are_counted_and_told(shards: Path, tmp_path: Path) -> None:
    training = open_small(shards, tmp_path)
    lines: list[str] = []
    longest = max(len(training.data[number].input_ids) for number in range(len(training.data)))
    for limit, count in ((longest, 0), (longest - 1, len(training.data))):
        training.data.processor = replace(training.data.processor, max_tokens=limit)
        with set_sink(log=lines.append):
            assert CutExpressions(training.data).count == count
    assert len(lines) == 1
    assert f"12 expressions have more than the {longest - 1} tokens" in lines[0]


def test_expressions_that_are_cut_are_told_while_the_training_runs(shards: Path, tmp_path: Path) -> None:
    training = open_small(shards, tmp_path, max_steps=3, validation_split="none")
    training.data.processor = replace(training.data.processor, max_tokens=3)
    lines: list[tuple[int, str]] = []
    training.cut = CutExpressions(training.data)
    while not training.cut.is_counted:
        pass
    with set_sink(log=lambda line: lines.append((training.step, line))):
        train(training)
    assert [step for step, line in lines if "more than the 3 tokens" in line] == [1]
    assert training.cut.count == len(training.data)
