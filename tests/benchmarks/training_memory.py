"""What frozen encoder layers and activation checkpointing save: memory and processor time of a training step.

```
python -m tests.benchmarks.training_memory [--batch N] [--preset tiny|base|large]
```

The network of a preset in float32, on the CPU; base takes images of 320 pixels. Kept are the tensors that the backward
pass reads, weights apart; weights, gradients and Adam's moments (AMSGrad has three, tiny two) take 20 or 16 bytes a
trained parameter and 4 a frozen one. Time is that of the processor, so that other programs disturb it little; the
faster of two steps counts.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace

import torch

from igvg_cli.tables import print_table
from pipelines.config.presets import train_preset
from pipelines.model import IGVGModel
from pipelines.training.adaptation import checkpoint_activations, freeze_encoder_layers
from tests.benchmarks.network import GB, make_batch, make_step

TOKENS = 20
COLUMNS = ("", "trained parameters", "weights to moments", "kept activations", "processor time")


def count_kept_bytes(model: torch.nn.Module, work: Callable[[], object]) -> int:
    """Bytes of the tensors that `work` keeps for a backward pass, without those of the parameters."""
    parameters = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, int] = {}
    # Alive until the count is done, so that no two of them have the same address.
    tensors: list[torch.Tensor] = []

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            kept[storage.data_ptr()] = storage.nbytes()
            tensors.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        work()
    return sum(kept.values())


def main() -> None:
    """Print a row for each way to train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--preset", choices=("tiny", "base", "large"), default="base")
    arguments = parser.parse_args()
    size = arguments.batch
    settings = replace(train_preset(arguments.preset), precision="fp32")
    layers = settings.model.encoder_layers
    frozen_rows = [(f"frozen_encoder_layers={count}", count, False) for count in (layers // 2, layers)]
    batch = make_batch(settings, size, TOKENS)
    rows: list[list[str]] = []
    for name, frozen, again in (("as published", 0, False), ("activation_checkpointing", 0, True), *frozen_rows):
        torch.manual_seed(0)
        model = IGVGModel(settings.model).train()
        freeze_encoder_layers(model.encoder, frozen)
        if again:
            checkpoint_activations(model.encoder)
        step = make_step(settings, model, batch)
        kept = count_kept_bytes(model, step)
        seconds = []
        for _ in range(2):
            started = time.process_time()
            step()
            seconds.append(time.process_time() - started)
        count = sum(parameter.numel() for parameter in model.parameters())
        trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
        memory = f"{(4 * (3 + settings.optimizer.amsgrad) * trained + 4 * count) / GB:.3g} GB"
        rows.append([name, f"{trained / 1e6:.1f} million", memory, f"{kept / GB:.3g} GB", f"{min(seconds):.2g} s"])
    print_table(f"training step of {arguments.preset}", COLUMNS, rows)


if __name__ == "__main__":
    main()
