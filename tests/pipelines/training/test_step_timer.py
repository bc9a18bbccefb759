"""The speed of a training between two lines of its log."""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator
from typing import Any, cast

import pytest
import torch

from pipelines.data.batch import Batch
from pipelines.training.step_timer import StepTimer

CPU = torch.device("cpu")


def wait_for_batches(count: int, seconds: float) -> Iterator[Batch]:
    for index in range(count):
        time.sleep(seconds)
        yield cast("Batch", cast("Any", index))


def test_the_share_of_waiting_is_that_of_the_time_since_the_last_lap() -> None:
    timer = StepTimer(CPU)
    for _ in timer.time_batches(wait_for_batches(4, 0.05), batch_size=8):
        time.sleep(0.05)
    first = timer.lap()
    time.sleep(0.05)
    second = timer.lap()
    assert first.data_wait == pytest.approx(0.5, abs=0.15)
    assert second.data_wait == 0


def test_the_rate_counts_the_examples_of_all_processes_since_the_last_lap() -> None:
    timer = StepTimer(CPU)
    batches = timer.time_batches(wait_for_batches(6, 0.05), batch_size=8)
    for _ in range(4):
        next(batches)
    first = timer.lap()
    for _ in range(2):
        next(batches)
    second = timer.lap()
    assert 8 / 0.05 * 0.5 < first.expressions_per_second <= 8 / 0.05
    assert 8 / 0.05 * 0.5 < second.expressions_per_second <= 8 / 0.05


def test_batches_come_as_they_are_and_their_end_ends_them() -> None:
    assert list(StepTimer(CPU).time_batches(wait_for_batches(3, 0), batch_size=1)) == [0, 1, 2]


def test_memory_on_a_cpu_is_that_of_the_process() -> None:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    held = bytearray(peak + 50_000_000)
    held[::4096] = b"x" * len(held[::4096])
    assert StepTimer(CPU).lap().peak_memory_mb * 1e6 >= peak + 50_000_000
