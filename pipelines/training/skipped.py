"""Steps whose loss or gradient is not finite: skipped on the device, counted and recorded.

Whether a step is skipped is decided on the device, and the optimizer is told there. The host learns it one step later,
when the value has been copied, so that no step waits for the device.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from pipelines.data.batch import Batch
from pipelines.runtime.host_copy import HostCopy
from pipelines.training.divergence import DivergenceError
from pipelines.training.log import StepResult, TrainingLog
from pipelines.training.setup import Training
from shards.progress import log

SKIPPED_STEPS = "skipped.jsonl"
# From the first scale, 2 to the power of 10, far below the one at which gradients of float32 would fit float16.
_MAX_OVERFLOWS = 32


class BatchNormStatistics:
    """The running statistics of a network's batch norms before a step, put back if the step is skipped."""

    def __init__(self, model: nn.Module) -> None:
        norms = [module for module in model.modules() if isinstance(module, _BatchNorm) and module.training]
        self._buffers = [buffer for norm in norms for buffer in norm.buffers(recurse=False)]
        self._before = [buffer.clone() for buffer in self._buffers]

    def restore(self, skipped: Tensor) -> None:
        """Put the statistics back where `skipped` is not 0, without waiting for its value."""
        for buffer, before in zip(self._buffers, self._before, strict=True):
            buffer.copy_(torch.where(skipped.bool(), before, buffer))


def find_skipped(losses: Tensor, gradient_norm: Tensor, accelerator: Accelerator) -> Tensor:
    """1 if a loss or the gradient norm of any rank is not finite, else 0: a scalar, float, the same on all ranks."""
    finite = losses.isfinite().all() & gradient_norm.isfinite()
    skipped = (~finite).float()
    if accelerator.num_processes == 1:
        return skipped
    # Gradients are the mean over all ranks, but a loss may be infinite where its gradient is not.
    reduced: Tensor = accelerator.reduce(skipped, reduction="sum")
    return reduced.clamp(max=1)


class SkippedSteps:
    """Counts skipped steps, and writes their expressions and losses to skipped.jsonl."""

    def __init__(self, training: Training) -> None:
        self._training = training
        self._pending: tuple[int, Batch, StepResult, HostCopy] | None = None
        self._log = TrainingLog(training.out / SKIPPED_STEPS, writes=training.accelerator.is_main_process)
        self._log.forget_after(training.step)
        self._overflows_in_a_row = 0

    def add(self, batch: Batch, result: StepResult) -> None:
        """Take note of the step that was just made, with this rank's part of its batch; judges the one before.

        Raises:
            DivergenceError: on every rank: too many steps in a row were skipped.
        """
        pending = (self._training.step, batch, result, HostCopy(self._reduce(result)))
        self.settle()
        self._pending = pending

    def settle(self) -> None:
        """Judge the last step, waiting for it.

        Raises:
            DivergenceError: on every rank: too many steps in a row were skipped.
        """
        if self._pending is None:
            return
        training, (step, batch, result, copied) = self._training, self._pending
        self._pending = None
        last_input = batch.split(training.settings.micro_batches)[-1]
        skipped, overflowed = copied.read().tolist()
        if overflowed:
            self._count_overflow()
            return
        self._overflows_in_a_row = 0
        if not skipped:
            training.skipped_in_a_row = 0
            training.last_micro_batch = last_input
            return
        # Until a step is finite there is no better input to try weights on.
        training.last_micro_batch = training.last_micro_batch or last_input
        training.skipped_steps += 1
        training.skipped_in_a_row += 1
        self._write(step, batch, result)
        if training.skipped_in_a_row >= training.settings.max_skipped_steps or self._has_learned_nothing():
            many = f"{training.skipped_in_a_row} steps in a row have" if training.skipped_in_a_row > 1 else "a step has"
            raise DivergenceError(f"{many} losses or gradients that are not finite: training has diverged",
                                  on_all_ranks=True)  # fmt: skip

    def _reduce(self, result: StepResult) -> Tensor:
        """Whether the step was skipped, and whether only for an overflow: on all ranks, whose losses may differ."""
        overflowed = result.overflowed
        if self._training.accelerator.num_processes > 1 and self._training.scaler.is_enabled():
            overflowed = self._training.accelerator.reduce(overflowed, reduction="mean").floor()
        return torch.stack([result.skipped, overflowed])

    def _count_overflow(self) -> None:
        """The scale of float16 begins too high, and each overflow halves it: only many in a row are a divergence."""
        self._training.overflowed_steps += 1
        self._overflows_in_a_row += 1
        if self._overflows_in_a_row >= _MAX_OVERFLOWS or self._has_learned_nothing():
            steps = f"{self._overflows_in_a_row} steps in a row" if self._overflows_in_a_row > 1 else "a step"
            raise DivergenceError(f"gradients overflow at every scale of float16 in {steps}: training has diverged",
                                  on_all_ranks=True)  # fmt: skip

    def _has_learned_nothing(self) -> bool:
        """Whether every step of the whole training was skipped: a short one may end before many in a row are."""
        training = self._training
        return training.skipped_steps + training.overflowed_steps == training.total_steps

    def _write(self, step: int, batch: Batch, result: StepResult) -> None:
        """Write a line for each rank. All ranks come here for the same step."""
        training = self._training
        rank = training.accelerator.process_index
        losses = {name: describe_number(value.item()) for name, value in result.losses.items()}
        line = {"step": step, "rank": rank, "ids": list(batch.ids), "losses": losses,
                "gradient_norm": describe_number(result.gradient_norm.item())}  # fmt: skip
        lines: list[dict[str, Any]] = gather_object([line])
        for each in lines:
            self._log.append(each)
        if training.accelerator.is_main_process:
            log(f"step {step:,} is skipped: its loss or gradient is not finite; {self._log.file} has its expressions "
                "and losses")  # fmt: skip


def describe_number(value: float) -> float | str:
    """A number that JSON can hold: `nan`, `inf` and `-inf` become texts."""
    return round(value, 6) if math.isfinite(value) else str(value)
