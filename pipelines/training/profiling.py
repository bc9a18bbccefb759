"""A profile of a few training steps: a trace for Chrome and Perfetto, the most expensive operations, and what waits.

The trace is that of `torch.profiler`. Synchronizations with a CUDA device are those that PyTorch itself reports
(`torch.cuda.set_sync_debug_mode`).
"""

from __future__ import annotations

import contextlib
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.autograd import DeviceType  # type: ignore[attr-defined]
from torch.profiler import ProfilerActivity, profile

from shards.files import replace_file
from shards.progress import log

PROFILE_FOLDER = "profile"
TRACE = "trace.json"
WARMUP_STEPS = 3
"""Steps before the recorded ones: the first ones allocate memory and choose algorithms."""
SHOWN_OPERATIONS = 10
_STEP = "train_step"
_NOTHING_WAITS = "on a CPU nothing waits for a device; on a GPU the places that do would be listed here"


@dataclass(frozen=True, kw_only=True)
class Operation:
    """An operation in the recorded steps."""

    name: str
    calls: int
    milliseconds: float
    """Of all calls, on the GPU or else on the CPU, without the operations that it calls."""


class StepProfiler:
    """Records `count` steps after a few others; does nothing with a count of 0.

    The trace also shows what the process does between the steps, as validation; what is printed is that of the steps.

    Args:
        count: steps to record.
        folder: where the folder `profile` with the trace goes.
        device: on which the training runs.
    """

    def __init__(self, count: int, folder: Path, device: torch.device) -> None:
        self._count, self._file = count, folder / PROFILE_FOLDER / TRACE
        self._device, self._on_gpu = device, device.type == "cuda"
        self._step = 0
        self._profile: profile | None = None
        self._waits: Counter[str] = Counter()

    def __enter__(self) -> StepProfiler:
        return self

    def __exit__(self, *error: object) -> None:
        """End the recording of a training that is over before all steps are recorded, or say that none was."""
        if self._profile:
            if error[0] is None:
                self._finish(self._profile)
            else:
                self._profile.stop()
        elif self._count and self._step <= WARMUP_STEPS and error[0] is None:
            log(f"no trace is recorded: that begins after {WARMUP_STEPS} steps, and the training took {self._step}")

    @contextlib.contextmanager
    def step(self) -> Iterator[None]:
        """One training step."""
        if self._count and self._step == WARMUP_STEPS:
            self._profile = self._start()
        with self._record() if self._profile else contextlib.nullcontext():
            yield
        self._step += 1
        if self._profile and self._step == WARMUP_STEPS + self._count:
            self._finish(self._profile)
            self._profile = None

    def _start(self) -> profile:
        recording = profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if self._on_gpu else [])])
        recording.start()
        return recording

    @contextlib.contextmanager
    def _record(self) -> Iterator[None]:
        with torch.profiler.record_function(_STEP), contextlib.ExitStack() as stack:
            found: list[warnings.WarningMessage] = []
            if self._on_gpu:
                found = stack.enter_context(warnings.catch_warnings(record=True))
                warnings.simplefilter("always")
                torch.cuda.set_sync_debug_mode("warn")
                stack.callback(torch.cuda.set_sync_debug_mode, "default")
            yield
            self._waits.update(f"{warning.filename}:{warning.lineno}" for warning in found)

    def _finish(self, recording: profile) -> None:
        if self._on_gpu:
            torch.cuda.synchronize(self._device)
        recording.stop()
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with replace_file(self._file) as temporary:
            recording.export_chrome_trace(str(temporary))
        steps = self._step - WARMUP_STEPS
        operations = list_operations(recording, on_gpu=self._on_gpu)
        waits = describe_waits(self._waits, steps) if self._on_gpu else [_NOTHING_WAITS]
        for line in (*describe_operations(operations, steps, on_gpu=self._on_gpu), *waits):
            log(line)
        log(f"the trace of {steps} steps is {self._file}: open it in chrome://tracing or https://ui.perfetto.dev")


def list_operations(recording: profile, *, on_gpu: bool) -> list[Operation]:
    """The operations of the recorded steps, the most expensive first."""
    found = recording.events()  # type: ignore[no-untyped-call]
    events = [event for event in found or () if event.device_type == DeviceType.CPU]
    steps = [event.time_range for event in events if event.name == _STEP]
    calls: Counter[str] = Counter()
    microseconds: Counter[str] = Counter()
    for event in events:
        # The backward pass runs in a thread of its own: its operations are those that begin during a step.
        if event.name != _STEP and any(step.start <= event.time_range.start < step.end for step in steps):
            calls[event.name] += 1
            microseconds[event.name] += event.self_device_time_total if on_gpu else event.self_cpu_time_total
    return [
        Operation(name=name, calls=calls[name], milliseconds=total / 1000) for name, total in microseconds.most_common()
    ]


def describe_operations(operations: Sequence[Operation], steps: int, *, on_gpu: bool) -> list[str]:
    """A heading, and a line for each of the most expensive operations with its time a step and its share."""
    total = sum(operation.milliseconds for operation in operations)
    where = "GPU" if on_gpu else "CPU"
    lines = [f"{total / steps:.1f} ms of {where} time a step; the {SHOWN_OPERATIONS} most expensive operations:"]
    for operation in operations[:SHOWN_OPERATIONS]:
        share = 100 * operation.milliseconds / total if total else 0.0
        calls = operation.calls / steps
        lines.append(f"  {operation.milliseconds / steps:8.2f} ms {share:5.1f} %  {calls:g} × {operation.name}")
    return lines


def describe_waits(waits: Counter[str], steps: int) -> list[str]:
    """A heading, and a line for each place where Python waits for the GPU."""
    if not waits:
        return ["nothing waits for the GPU"]
    heading = f"{waits.total() / steps:g} times a step Python waits for the GPU:"
    return [heading, *(f"  {count / steps:g} × {place}" for place, count in waits.most_common())]
