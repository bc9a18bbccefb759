"""log.jsonl: a JSON object per line, about a step every few steps and about every validation."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from pipelines.training.step_timer import StepSpeed
from pipelines.training.trackers import RunTrackers, flatten_line
from shards.files import name_file, replace_file
from shards.progress import report_values


@dataclass(frozen=True, kw_only=True, eq=False)
class StepResult:
    """What an optimizer step measured, detached, on its device."""

    losses: Mapping[str, Tensor]
    """The scalars of `compute_losses`, of this rank's part of the batch; logged is their mean over all ranks."""
    gradient_norm: Tensor
    """L2 norm of the gradient over all parameters before clipping, a scalar."""
    skipped: Tensor
    """1 if all ranks skipped the step because a loss or the gradient is not finite, else 0; scalar, float."""
    overflowed: Tensor
    """1 if only the scaled gradient of float16 is not finite on this rank, which lowers the scale, else 0; scalar."""
    loss_scale: float | None = None
    """The factor on the losses of the next step in float16; None in other precisions, and before it is read."""


class TrainingLog:
    """Appends to a file; does nothing if `writes` is false, as on all ranks but 0.

    Lines about steps and validations also go to `trackers` and to the progress sink.
    """

    def __init__(self, file: Path, *, writes: bool = True) -> None:
        self.file, self.writes = file, writes
        self.trackers = RunTrackers()

    def forget_after(self, step: int, *, scored: bool = True) -> None:
        """Drop the lines after the step from which a training is resumed; without `scored` also this step's scores."""
        if not self.writes or not self.file.exists():
            return
        lines = self.file.read_text(encoding="utf-8", errors="replace").splitlines()
        kept = [line for line in lines if _step_of(line) <= step and (scored or not _holds_scores(line, step))]
        with replace_file(self.file) as temporary:
            temporary.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")

    def write_start(self, step: int, epoch: float, **facts: Any) -> None:
        """Write a line where a training begins or is resumed."""
        self.append({"step": step, "epoch": round(epoch, 4), "start": facts})

    def write_step(
        self, step: int, epoch: float, result: StepResult, speed: StepSpeed, learning_rates: Mapping[str, float]
    ) -> dict[str, Any]:
        """Write a line about a step and return it; values that are not finite are null.

        Reading the values waits for the device.
        """
        losses = {name: _round(value.item()) for name, value in result.losses.items()}
        line = {
            "step": step,
            "epoch": round(epoch, 4),
            "expressions_per_second": round(speed.expressions_per_second, 2),
            "data_wait": round(speed.data_wait, 4),
            "peak_memory_mb": round(speed.peak_memory_mb, 1),
            "gradient_norm": _round(result.gradient_norm.item()),
            "learning_rates": dict(learning_rates),
            "losses": losses,
        }
        if result.loss_scale is not None:
            line |= {"loss_scale": result.loss_scale, "overflowed": int(result.overflowed.item())}
        self.append(line)
        return line

    def write_scores(self, step: int, epoch: float, scores: Mapping[str, Any]) -> dict[str, Any]:
        """Write a line of validation metrics, by shard folder, and return it."""
        line = {"step": step, "epoch": round(epoch, 4), "scores": dict(scores)}
        self.append(line)
        return line

    def append(self, line: Mapping[str, Any]) -> None:
        """Write a line, and hand its numbers to the trackers and the progress sink."""
        if self.writes:
            with name_file(self.file), self.file.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(line, allow_nan=False) + "\n")
            if "start" not in line:
                values = flatten_line(line)
                self.trackers.write(line["step"], values)
                report_values(values)


def _round(value: float) -> float | None:
    return round(value, 6) if math.isfinite(value) else None


def _step_of(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")  # an incomplete line of a training that was killed


def _holds_scores(line: str, step: int) -> bool:
    return _step_of(line) == step and "scores" in json.loads(line)
