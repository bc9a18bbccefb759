"""What training the base network costs on N GPUs, and what larger data take: the tables of docs/scaling.md.

```
python -m tests.benchmarks.scaling           prints the tables
python -m tests.benchmarks.scaling --write   writes them into the page
python -m tests.benchmarks.scaling --count   counts the work and the kept activations of the base network again
```

Everything follows from the constants below, the settings of the presets and the figures in docs/costs.md.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache

import torch

from igvg_cli.render import note
from pipelines.config.presets import BASE, LARGE, train_preset
from pipelines.config.settings import TrainSettings
from pipelines.model import IGVGModel
from pipelines.training.losses import compute_losses
from shards.remote_cache import DEFAULT_LIMIT
from shards.writer import BYTES_PER_SHARD, RECORDS_PER_SHARD
from tests.benchmarks.network import count_work, make_batch
from tests.support.paths import ROOT

PAGE, COSTS = ROOT / "docs" / "scaling.md", ROOT / "docs" / "costs.md"
PRESET: TrainSettings = train_preset("base")
GB, MB, HOUR = 1e9, 1e6, 3600.0

# gRefCOCO as released: 259,859 expressions without val, testA and testB; 19,994 images without theirs.
EXPRESSIONS, IMAGES = 259_859 - 14_229 - 19_200 - 16_063, 19_994 - 1_500 - 2 * 750
# COCO train2014: 82,783 images in 13 GB.
IMAGE_BYTES = 13e9 / 82_783
# `--count`: one forward pass with 50 tokens; what one expression keeps for the backward pass in float32, 20 tokens.
FORWARD_FLOP, KEPT_BYTES = 127.1e9, 443e6
# Weights, gradients and Adam's two moments with AMSGrad's largest one, of 4 bytes each.
WEIGHT, GRADIENT, MOMENTS = 4, 4, 12
# Bytes a second in one direction: NVLink 4 of a GPU, PCIe 4.0 × 16, 100 Gb Ethernet of a machine.
LINKS = {"NVLink": 450e9, "PCIe 4.0 × 16": 32e9, "100 Gb Ethernet": 12.5e9}
GPUS_PER_MACHINE = 8
PER_GPU = 64
# Of a GPU and of two CPU cores, docs/costs.md.
MATRIX_RATE, CPU_RATE, CPU_STEP, CPU_MEMORY = 789e12, 431e9, 3.03, 5.3
# Measured, docs/costs.md: index bytes an expression, kept and while it is read; examples/s by core, files and cache.
INDEX_BYTES, READING_BYTES, CORE_FILES, CORE_CACHE = 15, 54, 288, 2_590
# `shards.sampling._permute`: bytes an expression of the two orders kept, and of one being made; 0.17 µs at 2 × 10⁷.
ORDER_BYTES, SORTING_BYTES, SORT_SECONDS = 16, 24, 0.17e-6
LOG_LINE_BYTES = 700


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A training of the schedule on some GPUs."""

    gpus: int
    batch: int
    link: str

    @property
    def steps(self) -> int:
        return round(PRESET.epochs * EXPRESSIONS / self.batch)

    @property
    def all_reduce(self) -> float:
        """Seconds in which a ring passes the gradients on, at the full rate of the link."""
        return ring_bytes(self.gpus) / LINKS[self.link]

    @property
    def computing(self) -> float:
        """Seconds of a step without communication, in bfloat16 and not compiled; never less than measured at 16.

        The processor that starts the kernels takes so long, however small the batch.
        """
        rates = read_measured()["training, bf16"]
        share = self.batch / self.gpus
        return max(16 / rates["batch 16"], share / rates["batch 64"])

    @property
    def step(self) -> float:
        """Gradients are passed on during the backward pass, two thirds of a step; what takes longer is waited for."""
        return max(self.computing, self.computing / 3 + self.all_reduce)


@cache
def read_measured() -> dict[str, dict[str, float]]:
    """The rows of the table of docs/costs.md about a GPU, by name, with their cells by column."""
    section = COSTS.read_text(encoding="utf-8").partition("## On a GPU")[2].partition("\n## ")[0]
    header, _, *rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line.startswith("|")
    ]
    return {
        row[0]: {
            column: float(re.sub(r"[^\d.]", "", cell)) for column, cell in zip(header[1:], row[1:], strict=True) if cell
        }
        for row in rows
    }


@cache
def count_parameters(size: str = "base") -> int:
    """Parameters of a preset's network."""
    with torch.device("meta"):
        model = IGVGModel({"base": BASE, "large": LARGE}[size])
    return sum(parameter.numel() for parameter in model.parameters())


def ring_bytes(gpus: int) -> float:
    """What each GPU sends in a ring all-reduce of the gradients."""
    return 2 * (gpus - 1) / gpus * GRADIENT * count_parameters()


def format_memory() -> str:
    """Bytes of one GPU that do not depend on the batch, and what a batch adds."""
    rows = []
    for size in ("base", "large"):
        count = count_parameters(size)
        parts = [WEIGHT, GRADIENT, MOMENTS, WEIGHT + GRADIENT + MOMENTS]
        rows.append([size, f"{count / MB:.1f} million", *(f"{count * part / GB:.2f} GB" for part in parts)])
    columns = ["network", "parameters", "weights", "gradients", "Adam, AMSGrad", "together"]
    return format_table(columns, rows)


def format_links() -> str:
    """Bytes and least seconds of one step's all-reduce."""
    rows = [
        [f"{gpus}", f"{ring_bytes(gpus) / GB:.2f} GB"]
        + [f"{1e3 * ring_bytes(gpus) / rate:.1f} ms" for rate in LINKS.values()]
        for gpus in (2, 8, 64, 160)
    ]
    return format_table(["GPUs", "sent by each", *LINKS], rows)


def list_plans() -> list[Plan]:
    """The paper's batch on as many GPUs as can share it, and 64 expressions a GPU on more."""
    small = [Plan(gpus=gpus, batch=PRESET.batch_size, link="NVLink") for gpus in (1, 2, 8)]
    large = [
        Plan(gpus=gpus, batch=PER_GPU * gpus, link="NVLink" if gpus <= GPUS_PER_MACHINE else "100 Gb Ethernet")
        for gpus in (1, 2, 8, 64, 160)
    ]
    return [*small, *large]


def format_schedule() -> str:
    """The paper's ten epochs of gRefCOCO."""
    rows = []
    for plan in list_plans():
        hours, rate = plan.steps * plan.step / HOUR, plan.batch / plan.step
        rows.append([
            f"{plan.gpus}", f"{plan.batch:,}", f"{plan.batch // plan.gpus}", f"{plan.steps:,}",
            f"{1e3 * plan.step:.0f} ms", f"{rate:,.0f}", format_hours(hours), f"{plan.gpus * hours:.2f}",
        ])  # fmt: skip
    columns = ["GPUs", "batch", "of a GPU", "steps", "step", "expressions/s", "time", "GPU hours"]
    return format_table(columns, rows)


def format_input() -> str:
    """What reading has to deliver for GPUs that each train as fast as measured at batch 64."""
    measured, cached = read_measured(), 3 * PRESET.model.image_size**2
    rows = []
    for gpus in (1, 8, 160):
        for way in ("training, bf16", "training, bf16, compiled"):
            rate = gpus * measured[way]["batch 64"]
            rows.append([
                f"{gpus}", "compiled" if "compiled" in way else "eager", f"{rate:,.0f}",
                f"{rate / CORE_FILES:,.1f}", f"{rate * IMAGE_BYTES / MB:,.0f} MB/s",
                f"{rate / CORE_CACHE:,.1f}", f"{rate * cached / MB:,.0f} MB/s",
            ])  # fmt: skip
    columns = ["GPUs", "network", "examples/s", "cores, files", "files", "cores, cache", "cache"]
    return format_table(columns, rows)


def format_growth() -> str:
    """What grows with the data."""
    machines = 20
    seconds = Plan(gpus=160, batch=160 * PER_GPU, link="100 Gb Ethernet")
    lines: dict[str, Callable[[int], str]] = {
        "expressions": lambda factor: f"{factor * EXPRESSIONS:,}",
        "images": lambda factor: f"{factor * IMAGES:,}",
        "image files": lambda factor: format_bytes(factor * IMAGES * IMAGE_BYTES),
        "shards (files)": lambda factor: f"{count_shards(factor):,}",
        "index in memory, a process": lambda factor: format_bytes(factor * EXPRESSIONS * INDEX_BYTES),
        "while it is read": lambda factor: format_bytes(factor * EXPRESSIONS * READING_BYTES),
        "two epochs' orders, a process": lambda factor: format_bytes(factor * EXPRESSIONS * ORDER_BYTES),
        "while an order is made": lambda factor: format_bytes(
            factor * EXPRESSIONS * (ORDER_BYTES // 2 + SORTING_BYTES)
        ),
        "time to make an order": lambda factor: f"{factor * EXPRESSIONS * SORT_SECONDS:.2g} s",
        "image cache at 320 pixels": lambda factor: format_bytes(factor * IMAGES * 3 * PRESET.model.image_size**2),
        "log, ten epochs of batch 16": lambda factor: format_bytes(
            PRESET.epochs * factor * EXPRESSIONS / PRESET.batch_size / PRESET.log_steps * LOG_LINE_BYTES
        ),
        "one epoch on 160 GPUs": lambda factor: format_hours(
            factor * EXPRESSIONS / seconds.batch * seconds.step / HOUR
        ),
        "remote shards, all 20 machines": lambda factor: (
            f"{machines * IMAGES * IMAGE_BYTES / (EXPRESSIONS / seconds.batch * seconds.step) / GB:.1f} GB/s"
            if factor * IMAGES * IMAGE_BYTES > DEFAULT_LIMIT else "once"
        ),
    }  # fmt: skip
    rows = [[name, *(value(factor) for factor in (1, 10, 1000))] for name, value in lines.items()]
    return format_table(["", "gRefCOCO", "10 times", "1,000 times"], rows)


def format_check() -> str:
    """Derived figures beside measured ones."""
    measured = read_measured()
    fp32, bf16, compiled = (measured[f"training, {name}"] for name in ("fp32", "bf16", "bf16, compiled"))
    least = 3 * FORWARD_FLOP * 64 / MATRIX_RATE
    fixed = (WEIGHT + MOMENTS) * count_parameters()
    memory = fixed + 64 * KEPT_BYTES
    pairs = [
        ("memory of a step of 64, fp32", memory / GB, fp32["memory at 64"], "GB"),
        ("a step of 64, bf16, at the rate of matrix products; eager", 1e3 * least, 64e3 / bf16["batch 64"], "ms"),
        ("the same; compiled", 1e3 * least, 64e3 / compiled["batch 64"], "ms"),
        ("a step of 16, bf16, if it took a quarter of one of 64; eager", 16e3 / bf16["batch 64"],
         16e3 / bf16["batch 16"], "ms"),
        ("a step of 2 on two CPU cores at 431 GFLOP/s", 6 * FORWARD_FLOP / CPU_RATE, CPU_STEP, "s"),
        ("memory of a step of 2 on a CPU", (WEIGHT + GRADIENT + MOMENTS) * count_parameters() / GB
         + 2 * KEPT_BYTES / GB, CPU_MEMORY, "GB"),
    ]  # fmt: skip
    rows = [
        [name, f"{derived:.3g} {unit}", f"{found:.3g} {unit}", f"{found / derived:.2f}"]
        for name, derived, found, unit in pairs
    ]
    return format_table(["", "derived", "measured", "measured ÷ derived"], rows)


def count_shards(factor: int) -> int:
    """Shards of the training images: each ends at so many records or so many bytes."""
    records = min(RECORDS_PER_SHARD, int(BYTES_PER_SHARD / IMAGE_BYTES))
    return -(-factor * IMAGES // records)


def format_bytes(count: float) -> str:
    """With three digits, in MB, GB or TB."""
    unit, size = next((pair for pair in (("TB", 1e12), ("GB", GB)) if count >= pair[1]), ("MB", MB))
    return f"{count / size:.3g} {unit}"


def format_hours(hours: float) -> str:
    """In hours, minutes or seconds."""
    if hours >= 1:
        return f"{hours:.1f} h"
    return f"{60 * hours:.1f} min" if hours >= 1 / 60 else f"{HOUR * hours:.1f} s"


def format_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of Markdown."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


TABLES: dict[str, Callable[[], str]] = {
    "memory": format_memory,
    "links": format_links,
    "schedule": format_schedule,
    "input": format_input,
    "growth": format_growth,
    "check": format_check,
}


def fill_page(text: str) -> str:
    """The page with its tables as they are now, each between `<!-- table NAME -->` and `<!-- end -->`."""
    for name, table in TABLES.items():
        before, start, rest = text.partition(f"<!-- table {name} -->\n")
        _, end, after = rest.partition("<!-- end -->")
        if not end:
            raise ValueError(f"{PAGE} has no place for the table {name!r}")
        text = f"{before}{start}{table()}\n{end}{after}"
    return text


def count_work_and_memory() -> tuple[float, float]:
    """The products of a forward pass, and the bytes that one expression keeps for the backward pass in float32."""
    settings = replace(PRESET, mask_targets="decoder")
    model = IGVGModel(BASE)
    # One with two targets, one with none.
    kept = count_kept(model, settings, 2) / 2
    return count_work(model, make_batch(settings, 1, 50)), kept


def count_kept(model: IGVGModel, settings: TrainSettings, size: int) -> int:
    """Bytes of the tensors, weights apart, that a forward pass and its losses keep for the backward pass."""
    own = {tensor.untyped_storage().data_ptr() for tensor in model.state_dict().values()}
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept.setdefault(tensor.untyped_storage().data_ptr(), tensor)
        return tensor

    batch = make_batch(settings, size, 20)
    model.train()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = model(batch["pixel_values"], batch["input_ids"], batch["attention_mask"])
        compute_losses(output, batch["targets"], settings.matching, settings.loss)
    return sum(tensor.untyped_storage().nbytes() for place, tensor in kept.items() if place not in own)


def main() -> None:
    """Print the tables, write them, or count again what they start from."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.scaling", description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--count", action="store_true")
    arguments = parser.parse_args()
    if arguments.count:
        work, kept = count_work_and_memory()
        note(f"forward pass, 50 tokens: {work / 1e9:.1f} GFLOP; kept by an expression: {kept / MB:.0f} MB")
    elif arguments.write:
        PAGE.write_text(fill_page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    else:
        sys.stdout.write("\n\n".join(f"{name}\n\n{table()}" for name, table in TABLES.items()) + "\n")


if __name__ == "__main__":
    main()
