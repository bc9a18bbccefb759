"""The log of a training."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from pipelines.training.log import StepResult, TrainingLog
from pipelines.training.step_timer import StepSpeed

RATES = {"encoder": 5e-5, "head": 5e-4}
SPEED = StepSpeed(expressions_per_second=12.345, data_wait=0.01234, peak_memory_mb=512.34)


def write_some(file: Path) -> TrainingLog:
    log = TrainingLog(file)
    for step in (10, 20, 30):
        result = StepResult(
            losses={"total": torch.tensor(1 / step)},
            gradient_norm=torch.tensor(0.5),
            skipped=torch.zeros(()),
            overflowed=torch.zeros(()),
        )
        log.write_step(step, step / 100, result, SPEED, RATES)
    return log


def read_steps(file: Path) -> list[int]:
    return [json.loads(line)["step"] for line in file.read_text().splitlines()]


def test_every_line_is_an_object_of_its_own(tmp_path: Path) -> None:
    write_some(tmp_path / "log.jsonl").write_scores(30, 0.3, {"grefcoco": {"gIoU": 51.5, "N-acc": None}})
    first, *_, last = map(json.loads, (tmp_path / "log.jsonl").read_text().splitlines())
    assert first == {
        "step": 10,
        "epoch": 0.1,
        "expressions_per_second": 12.35,
        "data_wait": 0.0123,
        "peak_memory_mb": 512.3,
        "gradient_norm": 0.5,
        "learning_rates": {"encoder": 5e-5, "head": 5e-4},
        "losses": {"total": 0.1},
    }
    assert last["scores"] == {"grefcoco": {"gIoU": 51.5, "N-acc": None}}


def test_what_came_after_the_state_is_forgotten(tmp_path: Path) -> None:
    write_some(tmp_path / "log.jsonl").forget_after(20)
    assert read_steps(tmp_path / "log.jsonl") == [10, 20]


def test_a_line_of_bytes_that_are_no_text_is_forgotten(tmp_path: Path) -> None:
    log = write_some(tmp_path / "log.jsonl")
    with (tmp_path / "log.jsonl").open("ab") as stream:
        stream.write(b"\xff\xfe\x00\n")
    log.forget_after(30)
    assert read_steps(tmp_path / "log.jsonl") == [10, 20, 30]


def test_a_line_cut_short_is_forgotten(tmp_path: Path) -> None:
    log = write_some(tmp_path / "log.jsonl")
    with log.file.open("a") as stream:
        stream.write('{"step": 3')
    log.forget_after(100)
    assert read_steps(log.file) == [10, 20, 30]


def test_other_processes_write_nothing(tmp_path: Path) -> None:
    log = TrainingLog(tmp_path / "log.jsonl", writes=False)
    log.write_scores(1, 0.1, {})
    log.forget_after(0)
    assert not log.file.exists()


def test_values_that_are_not_finite_are_null_so_that_every_line_is_json(tmp_path: Path) -> None:
    log = TrainingLog(tmp_path / "log.jsonl")
    losses = {"total": torch.tensor(float("nan")), "boxes": torch.tensor(float("inf"))}
    result = StepResult(
        losses=losses, gradient_norm=torch.tensor(float("inf")), skipped=torch.ones(()), overflowed=torch.zeros(())
    )
    log.write_step(1, 0.1, result, SPEED, RATES)
    assert "NaN" not in (tmp_path / "log.jsonl").read_text()
    (line,) = map(json.loads, (tmp_path / "log.jsonl").read_text().splitlines())
    assert line["losses"] == {"total": None, "boxes": None}
    assert line["gradient_norm"] is None
