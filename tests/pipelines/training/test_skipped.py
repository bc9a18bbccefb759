"""A step whose loss or gradient is not finite changes nothing, is recorded, and is not waited for."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from pipelines.training.divergence import DivergenceError
from pipelines.training.setup import Training
from pipelines.training.skipped import SKIPPED_STEPS
from pipelines.training.state_files import read_state
from pipelines.training.trainer import open_batches, run_steps, train_step
from shards.progress import set_sink
from tests.support.launched_processes import torchrun
from tests.support.small_training import open_small, write_set
from tests.support.spoiled_steps import spoil_steps


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_set(tmp_path_factory.mktemp("skipped"))


def copy_tensors(training: Training) -> dict[str, torch.Tensor]:
    """Everything that a step may change: weights, statistics of batch norms and the optimizer's state."""
    tensors = {name: tensor.clone() for name, tensor in training.model.state_dict().items()}
    for index, values in training.optimizer.state_dict()["state"].items():
        tensors |= {f"{name} of {index}": tensor.clone() for name, tensor in values.items()}
    return tensors


def list_changed(before: dict[str, torch.Tensor], training: Training) -> list[str]:
    after = copy_tensors(training)
    return [name for name in before if not torch.equal(before[name], after[name])]


def read_skipped(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line, parse_constant=pytest.fail) for line in (folder / SKIPPED_STEPS).read_text().splitlines()]


def spoil_images(training: Training) -> None:
    spoil_steps(training, [training.step + 1])


def spoil_gradient(training: Training) -> None:
    """The loss stays finite."""
    training.model.class_head.weight.register_hook(lambda gradient: gradient * torch.inf)


def spoil_points(training: Training) -> None:
    """Of all outputs only the matcher uses this one."""

    def spoil(model: torch.nn.Module, inputs: Any, output: Any) -> None:
        output.points.data.fill_(torch.nan)

    training.model.register_forward_hook(spoil)


@pytest.mark.parametrize("spoil", [spoil_images, spoil_gradient, spoil_points])
@pytest.mark.parametrize("micro_batches", [1, 2])
def test_a_step_that_is_not_finite_changes_no_tensor(
    shards: Path, tmp_path: Path, spoil: Callable[[Training], None], micro_batches: int
) -> None:
    training = open_small(shards, tmp_path, epochs=3, micro_batches=micro_batches)
    batches = open_batches(training)
    assert train_step(training, next(batches)).skipped.item() == 0
    training.step = 1
    spoil(training)
    before = copy_tensors(training)
    result = train_step(training, next(batches))
    assert result.skipped.item() == 1
    assert result.losses["total"].isfinite() == (spoil is spoil_gradient)
    assert list_changed(before, training) == []
    assert all(parameter.grad is None for parameter in training.model.parameters())


def test_the_training_goes_on_with_the_next_step_of_the_schedule_and_the_next_batch(
    shards: Path, tmp_path: Path
) -> None:
    lines: list[str] = []
    training = open_small(shards, tmp_path / "run", epochs=3, max_steps=7, validation_split="none")
    spoil_steps(training, [2, 3, 5])
    ids = [batch.ids for batch in open_batches(training)]
    with set_sink(log=lines.append):
        run_steps(training)
    assert (training.step, training.skipped_steps, training.skipped_in_a_row) == (7, 3, 0)
    skipped = read_skipped(tmp_path / "run")
    assert [(line["step"], line["rank"], line["ids"]) for line in skipped] == [(n, 0, ids[n - 1]) for n in (2, 3, 5)]
    assert all(line["losses"]["total"] == line["gradient_norm"] == "nan" for line in skipped)
    told = [line for line in lines if "skipped" in line]
    assert [re.match(r"step (\d) is skipped: its loss or gradient is not finite; ", line)[1] for line in told] == [
        "2", "3", "5"
    ]  # type: ignore[index]  # fmt: skip
    logged = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [line["losses"]["total"] is None for line in logged if "losses" in line] == [
        step in (2, 3, 5) for step in range(1, 8)
    ]
    assert not any(tensor.isnan().any() for tensor in training.model.state_dict().values())


@pytest.mark.parametrize("log_steps", [1, 100])
def test_so_many_in_a_row_as_are_set_end_the_training_and_keep_its_state(
    shards: Path, tmp_path: Path, log_steps: int
) -> None:
    words: dict[str, Any] = {"epochs": 5, "max_skipped_steps": 3, "log_steps": log_steps, "validation_split": "none"}
    training = open_small(shards, tmp_path / "run", **words)
    spoil_steps(training, [2, 3, 5, 6, 7, 8])
    with pytest.raises(DivergenceError, match="3 steps in a row have losses or gradients that are not finite"):
        run_steps(training)
    assert [line["step"] for line in read_skipped(tmp_path / "run")] == [2, 3, 5, 6, 7]
    state = read_state(tmp_path / "run" / "state")
    assert state is not None
    assert state["step"] == 6
    assert all(tensor.isfinite().all() for tensor in state["model"].values())


@pytest.mark.parametrize("steps", [1, 3])
def test_a_training_of_which_every_step_is_skipped_has_diverged(shards: Path, tmp_path: Path, steps: int) -> None:
    training = open_small(shards, tmp_path / "run", max_steps=steps)
    spoil_steps(training, range(1, steps + 1))
    with pytest.raises(DivergenceError, match=r"a step has losses|3 steps in a row have losses"):
        run_steps(training)
    assert not (tmp_path / "run" / "model.safetensors").exists()
    assert not (tmp_path / "run" / "state").exists()


@pytest.mark.parametrize("steps", [1, 2])
def test_a_training_of_which_every_step_overflows_has_diverged(shards: Path, tmp_path: Path, steps: int) -> None:
    training = open_small(shards, tmp_path / "run", max_steps=steps)
    training.scaler = torch.amp.GradScaler("cpu")
    spoil_gradient(training)
    with pytest.raises(DivergenceError, match=r"at every scale of float16 in (a step|2 steps in a row): training has"):
        run_steps(training)
    assert not (tmp_path / "run" / "model.safetensors").exists()


def test_steps_in_which_float16_overflows_are_not_counted_and_32_in_a_row_end_the_training(
    shards: Path, tmp_path: Path
) -> None:
    words: dict[str, Any] = {"epochs": 99, "max_steps": 70, "max_skipped_steps": 1, "validation_split": "none"}
    training = open_small(shards, tmp_path / "run", **words)
    # The scale is far too high for 31 steps, then a step is finite.
    training.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=10**6)
    scale = training.model.class_head.weight.register_hook(
        lambda gradient: gradient * torch.inf if training.step % 32 != 31 or training.step > 32 else gradient
    )
    with pytest.raises(DivergenceError, match="overflow at every scale of float16 in 32 steps in a row"):
        run_steps(training)
    scale.remove()
    assert (training.skipped_steps, training.skipped_in_a_row) == (0, 0)
    assert not (tmp_path / "run" / SKIPPED_STEPS).exists()
    logged = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    norms = {line["step"]: line["gradient_norm"] for line in logged if "losses" in line}
    assert [step for step, norm in norms.items() if norm is not None] == [32]
    lines = [line for line in logged if "losses" in line]
    assert all(line["overflowed"] == (line["step"] != 32) for line in lines)
    assert [line["loss_scale"] for line in lines[30:33]] == [2.0**-21, 2.0**-21, 2.0**-22]
    assert training.overflowed_steps == 63
    # The step after the last overflow may be made already when that is judged.
    assert 64 <= max(norms) <= 65


def test_the_count_goes_on_over_a_stop_and_lines_of_steps_that_are_repeated_go(shards: Path, tmp_path: Path) -> None:
    words: dict[str, Any] = {"epochs": 5, "max_steps": 9, "max_skipped_steps": 3, "validation_split": "none"}
    training = open_small(shards, tmp_path / "run", **words, checkpoint_minutes=0.0)
    spoil_steps(training, [3, 4])

    def stop(done: int, total: int, remark: str) -> None:
        if done == 5:
            raise InterruptedError

    with pytest.raises(InterruptedError), set_sink(progress=stop):
        run_steps(training)
    continued = open_small(shards, tmp_path / "run", **words)
    assert (continued.step, continued.skipped_steps, continued.skipped_in_a_row) == (4, 2, 2)
    with (tmp_path / "run" / SKIPPED_STEPS).open("a") as stream:
        stream.write('{"step": 5, "rank": 0}\n')
    spoil_steps(continued, [5])
    with pytest.raises(DivergenceError, match="3 steps in a row"):
        run_steps(continued)
    assert [line["step"] for line in read_skipped(tmp_path / "run")] == [3, 4, 5]
    assert "ids" in read_skipped(tmp_path / "run")[-1]


def test_all_processes_skip_a_step_that_is_not_finite_in_one_of_them(shards: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    result = torchrun("-m", "tests.support.spoiled_steps", shards, out)
    assert result.returncode == 0, result.stderr
    lines = read_skipped(out)
    assert [(line["step"], line["rank"], len(line["ids"])) for line in lines] == [(2, 0, 2), (2, 1, 2)]
    assert isinstance(lines[0]["losses"]["total"], float)
    assert lines[1]["losses"]["total"] == lines[0]["gradient_norm"] == "nan"
