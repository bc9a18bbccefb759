"""The base network on a GPU: expressions per second, and the share of the device's own bfloat16 matrix rate.

```
python -m tests.benchmarks.accelerator [--out FILE.json] [--only TEXT …] [--minutes N] [--dry-run]
```

Rows are measured in the order of the table, and written one by one; those that `--minutes` leaves no time for are left
out. `--only` measures the rows whose name holds one of the texts. `--dry-run` runs every row on the CPU with a small
network; its figures are meaningless. Reference work is that of `tests.benchmarks.network`. fp32 multiplies in float32,
as published, tf32 rounds the factors of products to TF32. The last rows count how often the CPU waits for the device in
one training step.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import torch
from torch.profiler import ProfilerActivity, profile

from igvg_cli.render import note
from igvg_cli.tables import print_table
from pipelines.config.presets import train_preset
from pipelines.config.settings import TrainSettings
from pipelines.model import IGVGModel
from pipelines.runtime.precision import autocast_context, resolve_precision
from pipelines.training.adaptation import checkpoint_activations
from tests.benchmarks.figures import Figure
from tests.benchmarks.network import REFERENCE_FLOP, make_batch, make_step

TOKENS = 20
GB = 1e9
# Operators that copy a value of the device to Python, or whose result's shape depends on values.
WAITING = ("aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select", "aten::unique")
Arithmetic = Literal["bf16", "tf32", "fp32"]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One measurement of speed."""

    work: Literal["training", "inference"]
    batch: int
    arithmetic: Arithmetic
    compiled: bool = False
    checkpointed: bool = False

    def __str__(self) -> str:
        way = "compiled" if self.compiled else "eager"
        remark = ", activation checkpointing" if self.checkpointed else ""
        return f"{self.work}, batch {self.batch}, {self.arithmetic}, {way}{remark}"


# The most telling first: a compilation takes a minute.
ROWS = (
    Row(work="training", batch=64, arithmetic="bf16"),
    Row(work="training", batch=16, arithmetic="bf16"),
    *(Row(work="inference", batch=size, arithmetic="bf16") for size in (1, 16, 64)),
    Row(work="training", batch=64, arithmetic="tf32"),
    Row(work="training", batch=64, arithmetic="fp32"),
    Row(work="training", batch=16, arithmetic="fp32"),
    *(Row(work="inference", batch=size, arithmetic="fp32") for size in (1, 16, 64)),
    Row(work="training", batch=64, arithmetic="bf16", compiled=True),
    *(Row(work="inference", batch=size, arithmetic="bf16", compiled=True) for size in (64, 1, 16)),
    Row(work="training", batch=16, arithmetic="bf16", compiled=True),
    Row(work="training", batch=64, arithmetic="fp32", compiled=True),
    Row(work="training", batch=64, arithmetic="bf16", checkpointed=True),
)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The device, the network, and how often each row is repeated."""

    device: torch.device
    settings: TrainSettings
    matrix_side: int
    repeats: int
    batch_divisor: int = 1


def main() -> None:
    """Measure, print a table and write the figures."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.accelerator", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("accelerator.json"))
    parser.add_argument("--only", nargs="*", default=[""])
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--dry-run", action="store_true")
    arguments = parser.parse_args()
    if not arguments.dry_run and not torch.cuda.is_available():
        parser.error("no GPU found; --dry-run runs the same rows on the CPU")
    plan = plan_dry_run() if arguments.dry_run else plan_gpu()
    name = "CPU, dry run" if arguments.dry_run else torch.cuda.get_device_name()
    title = f"{name}, torch {torch.__version__}, {datetime.now(UTC).date().isoformat()}"
    figures: list[Figure] = []
    rows = [row for row in ROWS if any(text in str(row) for text in arguments.only)]
    for figure in measure(plan, rows, time.monotonic() + 60 * arguments.minutes):
        note(f"{figure.name}: {figure.value:,.4g} {figure.unit}")
        figures.append(figure)
        document = {"machine": title, "figures": {f"{figure.name}, {figure.unit}": figure.value for figure in figures}}
        arguments.out.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    cells = [[figure.name, f"{figure.value:,.4g}", figure.unit, figure.bound] for figure in figures]
    print_table(title, ["measured", "value", "unit", "bound"], cells, left=(0, 2, 3))
    note(f"written to {arguments.out}")


def plan_gpu() -> Plan:
    """The base network at the sizes that are reported."""
    settings = replace(train_preset("base"), mask_targets="decoder")
    return Plan(device=torch.device("cuda"), settings=settings, matrix_side=8192, repeats=20)


def plan_dry_run() -> Plan:
    """A network of one layer, each row once with an eighth of its batch."""
    tiny = train_preset("tiny")
    settings = replace(tiny, model=replace(tiny.model, encoder_layers=1))
    return Plan(device=torch.device("cpu"), settings=settings, matrix_side=64, repeats=1, batch_divisor=8)


def measure(plan: Plan, rows: list[Row], deadline: float) -> Iterator[Figure]:
    """The rate of the device, then of each row for which there is time; and the synchronizations of a step."""
    rate = measure_matrix_rate(plan)
    yield Figure("bfloat16 matrix product", rate / 1e12, "TFLOP/s")
    if plan.device.type == "cuda":
        yield Figure("copy in memory, bytes read and written", measure_copy_rate(plan) / 1e12, "TB/s")
    yield from count_waits(plan)
    for row in rows:
        if time.monotonic() < deadline:
            yield from measure_row(plan, row, rate)


def measure_row(plan: Plan, row: Row, rate: float) -> Iterator[Figure]:
    """Expressions per second, the share of the matrix rate that their reference work makes, and memory."""
    torch.compiler.reset()
    settings = replace(plan.settings, precision=row.arithmetic)
    size = max(1, row.batch // plan.batch_divisor)
    batch = move_batch(make_batch(settings, size, TOKENS), plan.device)
    model = IGVGModel(settings.model).to(plan.device)
    if row.checkpointed:
        checkpoint_activations(model.encoder)
    backend = "inductor" if plan.device.type == "cuda" else "eager"
    network = torch.compile(model, backend=backend) if row.compiled else model
    if plan.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    if row.work == "training":
        seconds = time_device(plan, make_step(settings, network, batch))
    else:
        seconds = time_device(plan, make_inference(settings, network.eval(), batch))
    work = REFERENCE_FLOP * (3 if row.work == "training" else 1)
    bound = "≥ 40" if (row.work, row.batch, row.arithmetic) == ("training", 64, "bf16") else ""
    yield Figure(str(row), size / seconds, "expressions/s")
    yield Figure(str(row), 100 * size / seconds * work / rate, "% of the rate", bound)
    if plan.device.type == "cuda":
        yield Figure(str(row), torch.cuda.max_memory_allocated() / GB, "GB")


def measure_matrix_rate(plan: Plan) -> float:
    """FLOP/s of a square bfloat16 matrix product."""
    side = plan.matrix_side
    left, right = (torch.randn(side, side, device=plan.device, dtype=torch.bfloat16) for _ in range(2))
    return 2 * side**3 / time_device(plan, lambda: left @ right)


def measure_copy_rate(plan: Plan) -> float:
    """Bytes per second that a copy within the device's memory reads and writes."""
    source = torch.zeros(1 << 30, dtype=torch.int32, device=plan.device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / time_device(plan, lambda: target.copy_(source))


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
    settings, size = replace(plan.settings, precision="bf16"), max(1, 16 // plan.batch_divisor)
    model = IGVGModel(settings.model).to(plan.device)
    step = make_step(settings, model, move_batch(make_batch(settings, size, TOKENS), plan.device))
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
