"""The base network on a GPU: expressions per second, and the share of the device's own bfloat16 matrix rate.

```
python -m tests.benchmarks.accelerator [--out FILE.json] [--dry-run]
```

`--dry-run` runs every line on the CPU with a small network; its figures are meaningless. Reference work is that of
`tests.benchmarks.network`. The last rows count how often the CPU waits for the device in one training step.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from igvg_cli.render import note, print_table
from pipelines.config.presets import train_preset
from pipelines.config.settings import TrainSettings
from pipelines.model import IGVGModel
from pipelines.runtime.precision import autocast_context, resolve_precision
from tests.benchmarks.figures import Figure
from tests.benchmarks.network import REFERENCE_FLOP, make_batch, make_step

TOKENS = 20
# Operators that copy a value of the device to Python, or whose result's shape depends on values.
WAITING = ("aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select", "aten::unique")


@dataclass(frozen=True)
class Plan:
    """Sizes to measure, and the device."""

    device: torch.device
    settings: TrainSettings
    matrix_side: int
    training_batches: tuple[int, ...]
    inference_batches: tuple[int, ...]
    repeats: int


def main() -> None:
    """Measure, print a table and write the figures."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.accelerator", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("accelerator.json"))
    parser.add_argument("--dry-run", action="store_true")
    arguments = parser.parse_args()
    if not arguments.dry_run and not torch.cuda.is_available():
        parser.error("no GPU found; --dry-run runs the same lines on the CPU")
    plan = plan_dry_run() if arguments.dry_run else plan_gpu()
    figures = measure(plan)
    name = "CPU, dry run" if arguments.dry_run else torch.cuda.get_device_name()
    title = f"{name}, torch {torch.__version__}, {datetime.now(UTC).date().isoformat()}"
    rows = [[figure.name, f"{figure.value:,.4g}", figure.unit, figure.bound] for figure in figures]
    print_table(title, ["measured", "value", "unit", "bound"], rows, left=(0, 2, 3))
    document = {"machine": title, "figures": {f"{figure.name}, {figure.unit}": figure.value for figure in figures}}
    arguments.out.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    note(f"written to {arguments.out}")


def plan_gpu() -> Plan:
    """The base network at the sizes that are reported."""
    settings = replace(train_preset("base"), precision="bf16", mask_targets="decoder")
    return Plan(torch.device("cuda"), settings, 8192, (16, 64), (1, 16, 64), 20)


def plan_dry_run() -> Plan:
    """A network of one layer, each size once."""
    tiny = train_preset("tiny")
    settings = replace(tiny, model=replace(tiny.model, encoder_layers=1))
    return Plan(torch.device("cpu"), settings, 64, (2, 4), (1, 2), 1)


def measure(plan: Plan) -> list[Figure]:
    """Rates of the device, of training and of inference, eager and compiled; and the synchronizations of a step."""
    # Products that stay in float32 use TF32 where the device has it.
    torch.set_float32_matmul_precision("high")
    rate = measure_matrix_rate(plan)
    figures = [Figure("bfloat16 matrix product", rate / 1e12, "TFLOP/s")]
    backend = "inductor" if plan.device.type == "cuda" else "eager"
    for way in ("eager", "compiled"):
        for size in plan.training_batches:
            model = IGVGModel(plan.settings.model).to(plan.device)
            network = torch.compile(model, backend=backend) if way == "compiled" else model
            batch = move_batch(make_batch(plan.settings, size, TOKENS), plan.device)
            seconds = time_device(plan, make_step(plan.settings, network, batch))
            figures += report(f"training, batch {size}, {way}", size / seconds, 3 * REFERENCE_FLOP, rate)
        model = IGVGModel(plan.settings.model).to(plan.device).eval()
        network = torch.compile(model, backend=backend) if way == "compiled" else model
        for size in plan.inference_batches:
            batch = move_batch(make_batch(plan.settings, size, TOKENS), plan.device)
            seconds = time_device(plan, make_inference(plan.settings, network, batch))
            figures += report(f"inference, batch {size}, {way}", size / seconds, REFERENCE_FLOP, rate)
    return figures + count_waits(plan)


def report(name: str, speed: float, work: float, rate: float) -> list[Figure]:
    """Expressions per second, and the share of the matrix rate that their reference work makes."""
    bound = "≥ 40" if name.startswith("training, batch 64") else ""
    return [Figure(name, speed, "expressions/s"), Figure(name, 100 * speed * work / rate, "% of the rate", bound)]


def measure_matrix_rate(plan: Plan) -> float:
    """FLOP/s of a square bfloat16 matrix product."""
    side = plan.matrix_side
    left, right = (torch.randn(side, side, device=plan.device, dtype=torch.bfloat16) for _ in range(2))
    return 2 * side**3 / time_device(plan, lambda: left @ right)


def time_device(plan: Plan, work: Callable[[], object]) -> float:
    """Seconds of one repetition, the device's queue emptied before and after all of them."""
    for _ in range(min(3, plan.repeats)):
        work()
    synchronize(plan.device)
    started = time.perf_counter()
    for _ in range(plan.repeats):
        work()
    synchronize(plan.device)
    return (time.perf_counter() - started) / plan.repeats


def synchronize(device: torch.device) -> None:
    """Wait until a device has done all its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def move_batch(batch: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """The batch on a device."""
    return {
        name: value.to(device) if isinstance(value, torch.Tensor) else value.map(lambda part: part.to(device))
        for name, value in batch.items()
    }


def make_inference(settings: TrainSettings, network: torch.nn.Module, batch: dict[str, Any]) -> Callable[[], None]:
    """One pass without gradients, in the arithmetic of `settings`."""
    device = batch["pixel_values"].device

    def infer() -> None:
        with torch.inference_mode(), autocast_context(device, resolve_precision(settings.precision, device)):
            network(batch["pixel_values"], batch["input_ids"], batch["attention_mask"])

    return infer


def count_waits(plan: Plan) -> list[Figure]:
    """Where the CPU waits for the device in one training step: operators, and CUDA's own count of synchronizations."""
    size = plan.training_batches[0]
    model = IGVGModel(plan.settings.model).to(plan.device)
    step = make_step(plan.settings, model, move_batch(make_batch(plan.settings, size, TOKENS), plan.device))
    step()
    activities = [ProfilerActivity.CPU]
    if plan.device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
    with profile(activities=activities) as profiler:
        step()
    calls = Counter({event.key: event.count for event in profiler.key_averages()})
    figures = [Figure(f"one step, {name}", float(calls[name]), "calls", "0") for name in WAITING]
    if plan.device.type == "cuda":
        torch.cuda.set_sync_debug_mode("warn")
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            step()
        torch.cuda.set_sync_debug_mode("default")
        # The matching fetches its costs once and sends its pairs once.
        figures.append(Figure("one step, synchronizations", float(len(caught)), "calls", "≤ 2"))
    return figures


if __name__ == "__main__":
    main()
