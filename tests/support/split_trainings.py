"""Trainings of processes that hold the whole network each, and of processes that split it, one after the other.

```
torchrun … -m tests.support.split_trainings SHARDS OUT   leaves OUT/CASE/whole.pt and OUT/CASE/split.pt
```

Each training takes two steps, saves its state, and is opened again for two more.
"""

from __future__ import annotations

import json
import math
import os
import sys
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from pipelines.config.overrides import read_settings
from pipelines.config.presets import train_preset
from pipelines.runtime.distributed import run_program
from pipelines.runtime.launch import USE_FSDP
from pipelines.training.setup import Training, setup_training, start_processes
from pipelines.training.sharding import gather_model, is_sharded
from pipelines.training.split_tensors import full_tensor
from pipelines.training.state import restore_state
from pipelines.training.trainer import run_steps
from pipelines.training.validation import validate
from tests.support.pipeline_runs import SMALL_NETWORK
from tests.support.spoiled_steps import spoil_steps

STEPS = (2, 4)
VALIDATED = 5
"""Expressions of a validation: the processes have parts of different sizes."""
# All that chance decides is at work, and each process normalizes with its own part. Adam's epsilon is that of
# test_distributed_steps.py.
SETTINGS = (
    *SMALL_NETWORK, 'splits=["val"]', "precision=fp32", "batch_size=8", "epochs=99", "log_steps=1",
    "checkpoint_minutes=0.0001", "keep_states=1", f"validation_limit={VALIDATED}", "validation_epochs=1",
    "keep_validation_predictions=true", "postprocess.score_threshold=0.1", "optimizer.schedule=step",
    "optimizer.warmup_epochs=0", "optimizer.eps=1e-3", "optimizer.clip_norm=1", "model.encoder_layers=2",
    "model.drop_path=0.3", "model.dropout=0.1",
)  # fmt: skip
CASES = {
    "micro_batches": ("micro_batches=2", "frozen_batchnorm=true", "ema_decay=0.5", "activation_checkpointing=true"),
    "skipped": ("frozen_encoder_layers=1", "ema_decay=0.5"),
    "bf16": ("precision=bf16",),
}
SPOILED = {"skipped": 2}
"""The steps in which the images of the second process are not finite."""


def train_case(name: str, shards: Path, out: Path, accelerator: Accelerator) -> dict[str, Any]:
    """The losses, weights, averages and moments of a training; call it in every process."""
    for last in STEPS:
        settings = read_settings(train_preset("tiny"), None, (*SETTINGS, *CASES[name], f"max_steps={last}"))
        torch.manual_seed(settings.seed)
        training = setup_training(settings, [shards], out, accelerator)
        restore_state(training)
        # As after a kill while validating: the network computes in inference mode first.
        validate(training)
        spoil_steps(training, [SPOILED[name]] if name in SPOILED and accelerator.process_index == 1 else [])
        run_steps(training)
    accelerator.wait_for_everyone()
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    steps = [{"norm": line["gradient_norm"], **line["losses"]} for line in lines if "losses" in line]
    # What is not finite is null.
    return {
        "split": is_sharded(training.model),
        "skipped": training.skipped_steps,
        "validated": [
            json.loads(line)["id"]
            for file in sorted(out.glob("validation/*/*.jsonl"))
            for line in file.read_text().splitlines()
        ],
        "steps": [{key: math.nan if value is None else value for key, value in step.items()} for step in steps],
        **gather_tensors(training),
    }


def gather_tensors(training: Training) -> dict[str, Any]:
    """Whole tensors by kind and name."""
    models = {"weights": training.model} | ({"averages": training.ema.model} if training.ema else {})
    whole = {kind: gather_model(model, training.accelerator) for kind, model in models.items()}
    moments = {
        f"{kind} {name}": full_tensor(value).clone()
        for name, parameter in training.model.named_parameters()
        for kind, value in training.optimizer.state.get(parameter, {}).items()
    }
    return {"moments": moments} | {kind: model.state_dict() for kind, model in whole.items() if model}


def main() -> None:
    """Train every case both ways."""
    torch.set_num_threads(1)
    shards, home = Path(sys.argv[1]), Path(sys.argv[2])
    # Accelerate has one state for a process: the settings of all cases start it alike.
    accelerator = start_processes(read_settings(train_preset("tiny"), None, SETTINGS))
    for name in CASES:
        for kind, value in (("whole", "false"), ("split", "true")):
            os.environ[USE_FSDP] = value
            out = home / name / kind
            out.mkdir(parents=True, exist_ok=True)
            found = train_case(name, shards, out, accelerator)
            if accelerator.is_main_process:
                torch.save(found, home / name / f"{kind}.pt")


if __name__ == "__main__":
    run_program(main)
