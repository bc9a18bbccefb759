"""Optimizer steps with batch norm in evaluation mode, started by torchrun or alone.

```
python -m tests.support.distributed_steps SHARDS OUT STEP      trains in OUT up to STEP, from the state that is there
```

Leaves the weights after each step, the state of the last one, how many target boxes each process saw, and the sum of
each process's statistics before and after a validation.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from accelerate.utils import gather_object
from safetensors.torch import save_file
from torch.nn.modules.batchnorm import _BatchNorm

from pipelines.config.overrides import read_settings
from pipelines.config.presets import train_preset
from pipelines.training.setup import Training, setup_training, start_processes
from pipelines.training.state import restore_state, save_state
from pipelines.training.trainer import open_batches, train_step
from pipelines.training.validation import validate
from tests.support.pipeline_runs import SMALL_NETWORK

# With this epsilon an update of Adam is nearly proportional to the gradient, so that sizes count and not only signs.
SETTINGS = (
    *SMALL_NETWORK, 'splits=["val"]', "validation_limit=4", "precision=fp32", "batch_size=8", "micro_batches=2",
    "max_steps=9", "epochs=99", "optimizer.schedule=step", "optimizer.warmup_epochs=0", "optimizer.clip_norm=1",
    "optimizer.eps=1", "optimizer.encoder_lr=0.1", "optimizer.head_lr=0.1",
)  # fmt: skip


class FrozenBatchNorm(_BatchNorm):
    """Stays in evaluation mode."""

    def train(self, mode: bool = True) -> FrozenBatchNorm:
        return super().train(False)


def train_steps(shards: Path, out: Path, last: int) -> None:
    """Train in `out` up to step `last`; call it in every process."""
    settings = read_settings(train_preset("tiny"), None, SETTINGS)
    accelerator = start_processes(settings)
    training = setup_training(settings, [shards], out, accelerator)
    restore_state(training)
    for module in training.model.modules():
        if isinstance(module, _BatchNorm):
            module.__class__ = type("Frozen", (FrozenBatchNorm, type(module)), {})
    boxes: list[list[int]] = []
    for batch in open_batches(training):
        assert batch.targets is not None
        boxes.append(gather_object([sum(map(len, batch.targets.boxes))]))
        train_step(training, batch)
        training.step += 1
        if accelerator.is_main_process:
            out.mkdir(exist_ok=True)
            state = {name: value.contiguous() for name, value in training.model.state_dict().items()}
            save_file(state, out / f"weights-{training.step}.safetensors")
        if training.step == last:
            break
    save_state(training)
    # Statistics of batch norms, as far apart as other shares of the data make them, and after a validation.
    for buffer in training.model.buffers():
        buffer += accelerator.process_index
    statistics = [gather_object([sum_buffers(training)])]
    validate(training)
    statistics.append(gather_object([sum_buffers(training)]))
    if accelerator.is_main_process:
        (out / f"boxes-{last}.json").write_text(json.dumps(boxes))
        (out / f"statistics-{last}.json").write_text(json.dumps(statistics))


def sum_buffers(training: Training) -> float:
    return float(sum(buffer.sum() for buffer in training.model.buffers()))


if __name__ == "__main__":
    train_steps(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
