"""The network's cost: seconds × measured matrix rate ÷ reference work, and the rate at which `tiny` trains.

Reference work is 130.5 GFLOP per picture for one forward pass of the base size at 320 pixels, three times that for a
training step: what the published network computes. A cost of 1 means as fast as that work in plain matrix products.
"""

from __future__ import annotations

import math
import resource
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from pipelines.config.presets import train_preset
from pipelines.config.settings import TrainSettings
from pipelines.data.batch import Targets
from pipelines.model import IGVGModel
from pipelines.runtime.memory import keep_freed_memory
from pipelines.runtime.precision import autocast_context, resolve_precision
from pipelines.training.losses import compute_losses
from pipelines.training.optimizer import build_optimizer
from tests.benchmarks.figures import Figure, time_best

REFERENCE_FLOP = 130.5e9
SIDE = 2048
ROUNDS = 8
# The published code fills every text up to 50 tokens and computes them all; here the longest text of a batch decides.
# 19 is the length of the longest text among the published network's reference inputs.
MOST_TOKENS, FEW_TOKENS = 50, 19
KIB, GB = 1 << 10, 1e9


def measure() -> list[Figure]:
    """Cost of the base network at batch 2 and what its parts save, and examples per second of `tiny`."""
    # As training does on a CPU.
    keep_freed_memory()
    base = train_preset("base")
    model = IGVGModel(base.model)
    batch, short = make_batch(base, 2, MOST_TOKENS), make_batch(base, 2, MOST_TOKENS)
    short["attention_mask"][:, FEW_TOKENS:] = 0
    figures = []
    for tokens, inputs, bound in ((MOST_TOKENS, batch, "≤ 0.95"), (FEW_TOKENS, short, "")):
        name = f"base, forward, batch 2, {tokens} of {MOST_TOKENS} tokens"
        forward = partial(run_forward, model, inputs)
        figures += measure_cost(name, forward, flop=2 * REFERENCE_FLOP, bound=bound)
    figures.append(Figure("base, forward, peak memory", measure_peak(), "GB"))
    compute_dtype = count_work(model, batch) / 2
    figures += [
        Figure("base, forward, work of one picture", compute_dtype / 1e9, "GFLOP"),
        Figure("base, forward, work", compute_dtype / REFERENCE_FLOP, "least cost"),
    ]
    step = make_step(base, model, batch)
    figures += measure_cost("base, training step, batch 2", step, flop=6 * REFERENCE_FLOP, bound="≤ 1.25")
    peak = measure_peak()
    tiny = train_preset("tiny")
    tiny_step = time_best(make_step(tiny, IGVGModel(tiny.model), make_batch(tiny, tiny.batch_size, 9)), repeats=5)
    return [
        *figures,
        Figure("base, training step, peak memory", peak, "GB", "≤ 6"),
        Figure("tiny, training", tiny.batch_size / tiny_step, "expressions/s"),
    ]


def measure_cost(name: str, work: Callable[[], None], *, flop: float, bound: str) -> list[Figure]:
    """Seconds, and cost by the rate of matrix products at the same time.

    Both are measured in turns and the best of either counts, since other programs slow a machine for seconds on end.
    """
    seconds, rate = math.inf, 0.0
    work()
    for _ in range(ROUNDS):
        rate = max(rate, measure_matrix_rate())
        seconds = min(seconds, time_best(work, repeats=1, warm_up=0))
    return [
        Figure(name, seconds, "s"),
        Figure(f"{name}, matrix products meanwhile", rate / 1e9, "GFLOP/s"),
        Figure(name, seconds * rate / flop, "cost", bound),
    ]


def count_work(model: IGVGModel, batch: dict[str, Any]) -> float:
    """Floating-point operations of the products of one forward pass.

    Torch's counter does not know attention on a CPU. Added are the products of queries and keys, and of weights and
    values, of every encoder layer.
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
    """Random pictures and texts; every other expression has two targets."""
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

    def step() -> None:
        model.train()
        with autocast_context(
            batch["pixel_values"].device, resolve_precision(settings.precision, batch["pixel_values"].device)
        ):
            output = model(batch["pixel_values"], batch["input_ids"], batch["attention_mask"])
        losses = compute_losses(output, batch["targets"], settings.matching, settings.loss)
        losses["total"].backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), settings.optimizer.clip_norm or 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step
