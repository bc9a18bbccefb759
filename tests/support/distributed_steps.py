"""Optimizer steps of one process or several, for comparisons.

```
python -m tests.support.distributed_steps SHARDS OUT STEP [KEY=VALUE …]   trains up to STEP, from the state in OUT
```

Leaves the weights and the losses of each step, the state and the checkpoint of the last one, how many target boxes each
process saw, how many memory blocks the gradients have, the sum of each process's statistics before and after a
validation, and how much of freed memory stayed.
"""

from __future__ import annotations

import json
import resource
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from accelerate.utils import gather_object
from safetensors.torch import save_file
from torch.distributed.tensor import DTensor

from pipelines.config.overrides import read_settings
from pipelines.config.presets import train_preset
from pipelines.runtime.distributed import run_program
from pipelines.training.setup import Training, setup_training, start_processes
from pipelines.training.sharding import gather_model
from pipelines.training.state import restore_state, save_state
from pipelines.training.trainer import average_losses, open_batches, train_step, validate_and_save_best
from tests.support.pipeline_runs import SMALL_NETWORK

SETTINGS = (
    *SMALL_NETWORK, 'splits=["val"]', "validation_limit=4", "precision=fp32", "max_steps=99", "epochs=99",
    "optimizer.schedule=step", "optimizer.warmup_epochs=0", "optimizer.clip_norm=1",
)  # fmt: skip


def train_steps(shards: Path, out: Path, last: int, changes: Sequence[str] = ()) -> None:
    """Train in `out` up to step `last`; call it in every process."""
    settings = read_settings(train_preset("tiny"), None, (*SETTINGS, *changes))
    accelerator = start_processes(settings)
    kept = measure_kept_memory()
    training = setup_training(settings, [shards], out, accelerator)
    restore_state(training)
    boxes: list[list[int]] = []
    losses: list[dict[str, float]] = []
    blocks: set[int] = set()
    training.optimizer.register_step_pre_hook(lambda *_: blocks.add(count_gradient_blocks(training)))
    for batch in open_batches(training):
        assert batch.targets is not None
        boxes.append(gather_object([sum(map(len, batch.targets.boxes))]))
        step_losses = average_losses(train_step(training, batch).losses, accelerator)
        losses.append({name: value.item() for name, value in step_losses.items()})
        training.step += 1
        model = gather_model(training.model, accelerator)
        if model and accelerator.is_main_process:
            state = {name: value.contiguous() for name, value in model.state_dict().items()}
            out.mkdir(exist_ok=True)
            save_file(state, out / f"weights-{training.step}.safetensors")
        if training.step == last:
            break
    save_state(training)
    # Statistics of batch norms, as far apart as other shares of the data make them, and after a validation.
    for buffer in training.model.buffers():
        buffer += accelerator.process_index
    statistics = [gather_object([sum_buffers(training)])]
    validate_and_save_best(training)
    statistics.append(gather_object([sum_buffers(training)]))
    if accelerator.is_main_process:
        found = {"boxes": boxes, "losses": losses, "statistics": statistics, "blocks": sorted(blocks), "kept": kept}
        (out / f"steps-{last}.json").write_text(json.dumps(found))


def measure_kept_memory() -> float:
    """Megabytes of a freed tensor of 64 that this process keeps."""
    before = read_memory()
    torch.ones(1 << 24)
    return read_memory() - before


def read_memory() -> float:
    """Resident memory, in megabytes."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize() / (1 << 20)


def sum_buffers(training: Training) -> float:
    return float(sum(buffer.sum() for buffer in training.model.buffers()))


def count_gradient_blocks(training: Training) -> int:
    """Blocks of memory that all gradients lie in."""
    gradients = [parameter.grad for parameter in training.model.parameters() if parameter.grad is not None]
    return len({gradient.untyped_storage().data_ptr() for gradient in gradients if not isinstance(gradient, DTensor)})


if __name__ == "__main__":
    torch.set_num_threads(1)
    run_program(lambda: train_steps(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4:]))
