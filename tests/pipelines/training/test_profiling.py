"""The profile of a few training steps."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from pipelines.training.profiling import StepProfiler, describe_operations, describe_waits, list_operations
from pipelines.training.trainer import run_steps
from shards.progress import set_sink
from tests.support.small_training import open_small, write_set


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_set(tmp_path_factory.mktemp("profiled"))


def run_profiled(shards: Path, out: Path, **changes: Any) -> list[str]:
    """Train; returns the log lines."""
    lines: list[str] = []
    with set_sink(log=lines.append):
        run_steps(open_small(shards, out, **changes))
    return lines


def read_events(out: Path) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = json.loads((out / "profile" / "trace.json").read_text())["traceEvents"]
    return events


def test_a_training_leaves_a_trace_of_so_many_steps_and_says_what_they_cost(shards: Path, tmp_path: Path) -> None:
    lines = run_profiled(shards, tmp_path, max_steps=6, epochs=9, profile_steps=2)
    events = read_events(tmp_path)
    (heading,) = [line for line in lines if "most expensive" in line]
    operations = lines[lines.index(heading) + 1 :][:10]
    assert sum(event.get("name") == "train_step" for event in events if event.get("cat") == "user_annotation") == 2
    # What Chrome's and Perfetto's JSON importers need of a complete event ("Trace Event Format").
    assert all({"ph", "pid", "tid", "ts", "dur", "name"} <= event.keys() for event in events if event["ph"] == "X")
    assert all(" ms " in line and " × " in line for line in operations)
    assert any("aten::" in line for line in operations)
    assert any("on a CPU nothing waits" in line for line in lines)
    assert any("the trace of 2 steps" in line for line in lines)


def test_without_a_count_nothing_is_recorded(shards: Path, tmp_path: Path) -> None:
    run_profiled(shards, tmp_path, max_steps=5, epochs=9)
    assert not (tmp_path / "profile").exists()


def test_a_training_that_ends_before_leaves_what_was_recorded(shards: Path, tmp_path: Path) -> None:
    lines = run_profiled(shards, tmp_path, max_steps=5, epochs=9, profile_steps=50)
    assert any("the trace of 2 steps" in line for line in lines)


def test_a_training_that_ends_before_any_step_is_recorded_says_so(shards: Path, tmp_path: Path) -> None:
    lines = run_profiled(shards, tmp_path, max_steps=3, epochs=9, profile_steps=2)
    assert "no trace is recorded: that begins after 3 steps, and the training took 3" in lines
    assert not (tmp_path / "profile").exists()


def test_a_training_is_the_same_with_and_without_a_profile(shards: Path, tmp_path: Path) -> None:
    trainings = [
        open_small(shards, tmp_path / str(steps), max_steps=6, epochs=9, profile_steps=steps) for steps in (0, 2)
    ]
    for training in trainings:
        torch.manual_seed(0)
        run_steps(training)
    first, second = (training.model.state_dict() for training in trainings)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_what_happens_between_steps_is_not_counted() -> None:
    with profile(activities=[ProfilerActivity.CPU]) as recording:
        for _ in range(2):
            with torch.profiler.record_function("train_step"):
                torch.ones(64, 64).exp()
            torch.ones(64, 64).cos()
    calls = {operation.name: operation.calls for operation in list_operations(recording, on_gpu=False)}
    assert calls["aten::exp"] == 2
    assert "aten::cos" not in calls


def test_operations_of_the_backward_pass_are_counted_though_another_thread_runs_them() -> None:
    weight = torch.ones(64, 64, requires_grad=True)
    with profile(activities=[ProfilerActivity.CPU]) as recording, torch.profiler.record_function("train_step"):
        weight.cos().sum().backward()
    assert "aten::sin" in {operation.name for operation in list_operations(recording, on_gpu=False)}


def test_operations_are_shown_with_their_time_and_calls_a_step() -> None:
    with profile(activities=[ProfilerActivity.CPU]) as recording:
        for _ in range(2):
            with torch.profiler.record_function("train_step"):
                for _ in range(3):
                    torch.ones(256, 256) @ torch.ones(256, 256)
    heading, *lines = describe_operations(list_operations(recording, on_gpu=False), 2, on_gpu=False)
    assert "ms of CPU time a step" in heading
    assert [line for line in lines if line.endswith(" 3 × aten::mm")] == [lines[0]]


def test_places_that_wait_for_a_gpu_are_listed_by_their_count_a_step() -> None:
    waits = Counter({"matcher.py:90": 4, "trainer.py:12": 2})
    assert describe_waits(waits, 2) == [
        "3 times a step Python waits for the GPU:",
        "  2 × matcher.py:90",
        "  1 × trainer.py:12",
    ]
    assert describe_waits(Counter(), 2) == ["nothing waits for the GPU"]


def test_an_error_in_a_step_ends_the_recording_and_stays_the_error(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        fail_at_the_fifth_step(tmp_path)
    assert not (tmp_path / "profile").exists()
    with profile(activities=[ProfilerActivity.CPU]):
        torch.ones(2).exp()


def fail_at_the_fifth_step(out: Path) -> None:
    with StepProfiler(9, out, torch.device("cpu")) as profiler:
        for step in range(9):
            with profiler.step():
                1 / (4 - step)
