"""How fast a training goes between two lines of its log, and how long it waits for data."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass

import torch

from pipelines.data.batch import Batch


@dataclass(frozen=True, kw_only=True)
class StepSpeed:
    """Of the steps since the last line of the log, by the clock of this process."""

    expressions_per_second: float
    """Over all processes; validations and saved states in between count, too."""
    data_wait: float
    """The share of the time in which this process waited for a batch, in [0, 1]."""
    peak_memory_mb: float
    """The most memory so far, in 10⁶ bytes: tensors on a GPU, the whole process (without workers) on a CPU."""


class StepTimer:
    """Measures from its construction to the first `lap`, and then from lap to lap."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._started = time.monotonic()
        self._waited = 0.0
        self._examples = 0

    def time_batches(self, batches: Iterator[Batch], batch_size: int) -> Generator[Batch, None, None]:
        """The same batches; counts `batch_size` examples for each, over all processes, and the time until it is there.

        Closing it leaves `batches` open.
        """
        while True:
            begun = time.monotonic()
            batch = next(batches, None)
            self._waited += time.monotonic() - begun
            if batch is None:
                return
            self._examples += batch_size
            yield batch

    def lap(self) -> StepSpeed:
        """The speed since the last lap."""
        now = time.monotonic()
        seconds = max(now - self._started, 1e-9)
        speed = StepSpeed(
            expressions_per_second=self._examples / seconds,
            data_wait=self._waited / seconds,
            peak_memory_mb=measure_peak_memory(self._device) / 1e6,
        )
        self._started, self._waited, self._examples = now, 0.0, 0
        return speed


def measure_peak_memory(device: torch.device) -> int:
    """The most bytes of tensors on a CUDA device so far; of another device, the most that this process took."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    # Kibibytes on Linux, bytes on macOS (getrusage(2) of each).
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
