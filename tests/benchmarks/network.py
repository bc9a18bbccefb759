"""The network's cost: seconds × measured matrix rate ÷ reference work, and the rate at which `tiny` trains.

Reference work is 130.5 GFLOP per image for one forward pass of the base size at 320 pixels and 50 tokens, three times
that for a training step: the work of the published network. A cost of 1 is as fast as that work in matrix products.

The published code took 2.3 to 2.6 s for a forward pass of two images and 11 to 12 s for a training step, on two cores
with AVX2 at 148 to 137 GFLOP/s. That is a cost of 2.3 × 148 ÷ 261 = 2.6 × 137 ÷ 261 = 1.30 to 1.36 forward, and of
11 × 148 ÷ 783 = 12 × 137 ÷ 783 = 2.08 to 2.10 a step. The bounds are 0.65 of 1.30 = 0.85 for a forward pass after
`optimize_for_cpu` and 0.68 of 2.08 = 1.41 for a step with plain layers. They are shown at such rates
alone: where matrix products are faster, the rest of the network weighs more and both codes cost more.
`ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2` keeps a newer CPU to AVX2, MKL_ENABLE_INSTRUCTIONS=AVX2 also its
matrix products.
"""

from __future__ import annotations

import math
import resource
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from pipelines.config.presets import train_preset
from pipelines.config.settings import TrainSettings
from pipelines.data.batch import Targets
from pipelines.model import IGVGModel
from pipelines.model.cpu import optimize_for_cpu
from pipelines.runtime.memory import keep_freed_memory
from pipelines.runtime.precision import autocast_context, products_context, resolve_precision
from pipelines.training.losses import compute_losses
from pipelines.training.optimizer import build_optimizer
from tests.benchmarks.figures import Figure, time_best

REFERENCE_FLOP = 130.5e9
# The bounds hold up to this rate of matrix products.
MAX_RATE = 150e9
SIDE = 2048
ROUNDS = 6
# The published code pads every text to 50 tokens.
TOKENS = 50
KIB, GB = 1 << 10, 1e9
FORWARD, OPTIMIZED, STEP = "forward, plain layers", "forward, optimize_for_cpu", "training step, plain layers"
# Reference work of two images and the bound of the cost.
WORK = {
    FORWARD: (2 * REFERENCE_FLOP, ""),
    OPTIMIZED: (2 * REFERENCE_FLOP, "≤ 0.85"),
    STEP: (6 * REFERENCE_FLOP, "≤ 1.41"),
}


def measure() -> list[Figure]:
    """Cost and memory of the base network at batch 2, and examples per second of `tiny`."""
    # As training does on a CPU.
    keep_freed_memory()
    base = train_preset("base")
    model = IGVGModel(base.model)
    batch = make_batch(base, 2, TOKENS)
    run_forward(model, batch)
    forward_peak = measure_peak()
    step = make_step(base, model, batch)
    step()
    # Before there is a second copy of the weights.
    step_peak = measure_peak()
    optimized = optimize_for_cpu(model)
    seconds, rate = measure_in_turns({
        FORWARD: partial(run_forward, model, batch),
        OPTIMIZED: partial(run_forward, optimized, batch),
        STEP: step,
    })  # fmt: skip
    work = count_work(model, batch) / 2
    del model, optimized, step
    tiny = train_preset("tiny")
    tiny_step = time_best(make_step(tiny, IGVGModel(tiny.model), make_batch(tiny, tiny.batch_size, 9)), repeats=5)
    return [
        Figure("matrix products", rate / 1e9, "GFLOP/s"),
        *(Figure(f"base, batch 2, {name}", seconds[name], "s") for name in WORK),
        *(
            Figure(f"base, batch 2, {name}", seconds[name] * rate / flop, "cost", bound if rate < MAX_RATE else "")
            for name, (flop, bound) in WORK.items()
        ),
        Figure("base, forward, optimize_for_cpu ÷ plain layers", seconds[OPTIMIZED] / seconds[FORWARD], "", "≤ 1"),
        Figure("base, forward, peak memory", forward_peak, "GB"),
        Figure("base, training step, peak memory", step_peak, "GB", "≤ 6"),
        Figure("base, forward, work of one image", work / 1e9, "GFLOP"),
        Figure("base, forward, work", work / REFERENCE_FLOP, "least cost"),
        Figure("tiny, training", tiny.batch_size / tiny_step, "expressions/s"),
    ]


def measure_in_turns(ways: Mapping[str, Callable[[], None]]) -> tuple[dict[str, float], float]:
    """Seconds of the fastest run of each way, and FLOP/s of the fastest matrix product.

    All are measured in turns and the best of each counts, since other programs slow a machine for seconds on end.
    """
    seconds, rate = dict.fromkeys(ways, math.inf), 0.0
    for _ in range(ROUNDS):
        for name, work in ways.items():
            rate = max(rate, measure_matrix_rate())
            started = time.perf_counter()
            work()
            seconds[name] = min(seconds[name], time.perf_counter() - started)
    return seconds, rate


def count_work(model: IGVGModel, batch: dict[str, Any]) -> float:
    """Floating-point operations of the products of one forward pass.

    PyTorch's counter leaves out attention on a CPU, so the two products of every encoder layer's are added.
    """
    with FlopCounterMode(display=False) as counter:
        run_forward(model, batch)
    config, size = model.config, len(batch["input_ids"])
    tokens = 1 + config.grid_size**2 + batch["input_ids"].shape[1]
    return counter.get_total_flops() + 4 * size * config.encoder_layers * tokens**2 * config.encoder_dim


def measure_peak() -> float:
    """The most memory of this process so far in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * KIB / GB


def measure_matrix_rate() -> float:
    """FLOP/s of a 2048³ float32 matrix product."""
    left, right = torch.randn(SIDE, SIDE), torch.randn(SIDE, SIDE)
    return 2 * SIDE**3 / time_best(lambda: left @ right, repeats=5)


def make_batch(settings: TrainSettings, size: int, tokens: int) -> dict[str, Any]:
    """Random images and texts; every other expression has two targets."""
    side, mask_side = settings.model.image_size, settings.model.image_size
    if settings.mask_targets == "decoder":
        mask_side = settings.model.mask_size
    counts = [2 * (number % 2) for number in range(size)]
    masks = [torch.rand(count, mask_side, mask_side) > 0.8 for count in counts]
    return {
        "pixel_values": torch.randn(size, 3, side, side),
        "input_ids": torch.randint(4, 900, (size, tokens)),
        "attention_mask": torch.ones(size, tokens, dtype=torch.int64),
        "targets": Targets(
            boxes=[torch.rand(count, 4) * 0.3 + 0.2 for count in counts],
            instance_masks=masks,
            global_masks=torch.stack([mask.any(dim=0) for mask in masks]),
            exists=torch.tensor(counts) > 0,
        ),
    }


def run_forward(model: IGVGModel, batch: dict[str, Any]) -> None:
    """One pass without gradients."""
    model.eval()
    with torch.inference_mode():
        model(batch["pixel_values"], batch["input_ids"], batch["attention_mask"])


def make_step(settings: TrainSettings, model: torch.nn.Module, batch: dict[str, Any]) -> Callable[[], None]:
    """A whole training step: forward, losses, backward, clip, Adam."""
    optimizer = build_optimizer(model, settings.optimizer)
    device = batch["pixel_values"].device
    compute_dtype = resolve_precision(settings.precision, device)

    def step() -> None:
        model.train()
        with products_context(device, compute_dtype):
            with autocast_context(device, compute_dtype):
                output = model(batch["pixel_values"], batch["input_ids"], batch["attention_mask"])
            losses = compute_losses(output, batch["targets"], settings.matching, settings.loss)
            losses["total"].backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), settings.optimizer.clip_norm or 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step
