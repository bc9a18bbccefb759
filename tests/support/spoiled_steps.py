"""Trainings in which the network gets images that are not finite in some steps."""

from __future__ import annotations

import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object

from pipelines.config.overrides import read_settings
from pipelines.config.presets import train_preset
from pipelines.runtime.distributed import run_program
from pipelines.training.setup import Training, setup_training, start_processes
from pipelines.training.trainer import run_steps
from tests.support.pipeline_runs import SMALL_NETWORK

SETTINGS = (
    *SMALL_NETWORK, 'splits=["val"]', "validation_split=none", "precision=fp32", "batch_size=4", "max_steps=5",
    "epochs=99", "log_steps=1", "checkpoint_minutes=1000",
)  # fmt: skip


def spoil_steps(training: Training, steps: Collection[int]) -> None:
    """Give the network infinite pixels in training steps, counted from 1."""

    def spoil(model: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...] | None:
        return (inputs[0] * torch.inf, *inputs[1:]) if model.training and training.step + 1 in steps else None

    training.model.register_forward_pre_hook(spoil)


def train_spoiled(shards: Path, out: Path) -> None:
    """Train in every process; the second step of the second process alone is spoiled."""
    settings = read_settings(train_preset("tiny"), None, SETTINGS)
    accelerator = start_processes(settings)
    out.mkdir(parents=True, exist_ok=True)
    training = setup_training(settings, [shards], out, accelerator)
    spoil_steps(training, [2] if accelerator.process_index == 1 else [])
    run_steps(training)
    # Statistics of batch norms differ between ranks, weights and counts do not.
    found: list[Any] = gather_object([
        [training.skipped_steps, [float(weights.double().sum()) for weights in training.model.parameters()]]
    ])  # fmt: skip
    assert found[0] == found[-1]
    assert all(tensor.isfinite().all() for tensor in training.model.state_dict().values())


if __name__ == "__main__":
    run_program(lambda: train_spoiled(Path(sys.argv[1]), Path(sys.argv[2])))
