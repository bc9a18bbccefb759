"""Training of `tiny` in real processes: two processes against one, the wait for data, the cost of logging and saving.

The embedded set at its standard level is trained on for `STEPS` steps, of 32 expressions as in the preset and of
`LARGE_BATCH`, in `ROUNDS` turns of each way, every process with one thread of torch. Speeds and waits are those that
`log.jsonl` holds after the first `WARM_UP_LINES` lines; the median of all turns counts. Processes, reading workers too,
are kept to the named cores. Two trainings of half the batch at once, without communication, show what the machine
allows two processes. What a step takes whatever its batch is (a thousand small operations, the norm of the gradient,
Adam) is not divided by two processes: a larger batch has a higher ratio.

Logging and saving are timed in their places in the training loop, after every step instead of every 20 steps and every
10 minutes; medians. The share is what they take at the default settings beside the shortest of the measured steps.

```
python -m tests.benchmarks training
```
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipelines.config.presets import train_preset
from pipelines.config.settings import PrepareSettings, TrainSettings
from pipelines.stages import prepare, train
from shards.synthetic.writer import IMAGES_FOLDER, write_grefcoco
from tests.benchmarks.figures import Figure
from tests.support.paths import ROOT

IMAGES, STEPS, LOG_STEPS, WARM_UP_LINES, ROUNDS = 200, 20, 5, 1, 2
TIMED_STEPS = 12
LARGE_BATCH = 64
TINY = train_preset("tiny")
SETTINGS = (f"max_steps={STEPS}", "epochs=999", f"log_steps={LOG_STEPS}", "validation_split=none")
# The functions of the training loop that log (also: whether weights are finite before they are trusted) and save.
LOGGING, SAVING = ("log_step", "require_finite"), ("save_state",)


@dataclass(frozen=True, kw_only=True)
class Way:
    """Trainings that run at once, each of some processes; all share the first `cores` of this process's cores."""

    name: str
    cores: int
    processes: int = 1
    trainings: int = 1
    batch_size: int = TINY.batch_size


ONE, SPARE, TWO, APART, ONE_LARGE, TWO_LARGE = WAYS = (
    Way(name="one process on one core", cores=1),
    Way(name="one process, a core beside it for two reading workers", cores=2),
    Way(name="two processes on two cores", cores=2, processes=2),
    Way(name="two trainings of half the batch on two cores, not connected", cores=2, trainings=2),
    Way(name=f"one process on one core, batch {LARGE_BATCH}", cores=1, batch_size=LARGE_BATCH),
    Way(name=f"two processes on two cores, batch {LARGE_BATCH}", cores=2, processes=2, batch_size=LARGE_BATCH),
)


@dataclass(frozen=True, kw_only=True)
class Speed:
    """What one line of a log says."""

    expressions_per_second: float
    data_wait: float


def measure() -> list[Figure]:
    """Speeds of the ways, their ratios, the waits for data, and the share of logging and saving."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        shards = draw_set(home, IMAGES)
        found: defaultdict[Way, list[Speed]] = defaultdict(list)
        for turn in range(ROUNDS):
            for way in WAYS:
                found[way] += run_trainings(way, shards, home / f"{turn}-{way.name}")
        calls = time_calls(replace(TINY, max_steps=TIMED_STEPS, epochs=999), shards, home / "timed")
    speeds = {way: statistics.median(speed.expressions_per_second for speed in found[way]) for way in WAYS}
    speeds[APART] *= 2
    shortest = TINY.batch_size / max(speeds[way] for way in (ONE, SPARE, TWO))
    return [
        *(Figure(f"tiny, {way.name}", speeds[way], "expressions/s") for way in WAYS),
        Figure(f"tiny, two processes ÷ one, batch {TINY.batch_size}", speeds[TWO] / speeds[ONE], "", "≥ 1.7"),
        Figure(f"tiny, two processes ÷ one, batch {LARGE_BATCH}", speeds[TWO_LARGE] / speeds[ONE_LARGE], "", "≥ 1.7"),
        Figure(f"tiny, two processes ÷ one, batch {TINY.batch_size} of each process", speeds[TWO_LARGE] / speeds[ONE],
               "", "≥ 1.7"),
        Figure("tiny, two trainings, not connected ÷ one process on one core", speeds[APART] / speeds[ONE], ""),
        *(Figure(f"wait for data, {way.name}", 100 * wait, "%", "≤ 5" if way == SPARE else "")
          for way in (ONE, SPARE, TWO) for wait in [statistics.median(speed.data_wait for speed in found[way])]),
        *list_costs(calls, TINY, shortest),
    ]  # fmt: skip


def draw_set(home: Path, images: int) -> Path:
    """Shards of the embedded set in the layout of gRefCOCO."""
    write_grefcoco(home / "drawn", level="standard", seed=1, images={"train": images})
    settings = PrepareSettings(dataset="grefcoco")
    return prepare.run(
        settings, home / "drawn" / "grefcoco", [home / "drawn" / IMAGES_FOLDER], home / "shards", workers=1
    ).folder


def run_trainings(way: Way, shards: Path, out: Path, settings: tuple[str, ...] = SETTINGS) -> list[Speed]:
    """The lines of the logs of a way's trainings, which run at once."""
    cores = sorted(os.sched_getaffinity(0))[: way.cores]
    batch = way.batch_size // way.trainings
    started = []
    for number in range(way.trainings):
        words = [*_launcher(way.processes), "train", "--preset", "tiny", "--shards", shards, "--out", out / str(number)]
        for setting in (*settings, f"batch_size={batch}"):
            words += ["--set", setting]
        # Trainings that are not connected have a core each, as the processes of torchrun come to have.
        own = cores[number : number + 1] if way.trainings > 1 else cores
        started.append(_start([*map(str, words), "--quiet"], own))
    for process in started:
        _, errors = process.communicate()
        if process.returncode:
            raise RuntimeError(f"{way.name}: {errors.strip()}")
    return [speed for number in range(way.trainings) for speed in read_log(out / str(number) / "log.jsonl")]


def _launcher(processes: int) -> list[str]:
    if processes == 1:
        return [sys.executable, "-m", "igvg_cli"]
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    return [sys.executable, *launcher, "-m", "igvg_cli"]


def _start(words: list[str], cores: list[int]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        preexec_fn=lambda: os.sched_setaffinity(0, cores),  # noqa: PLW1509, no other thread runs Python
    )  # fmt: skip


def read_log(file: Path) -> list[Speed]:
    """The lines about steps, without the first ones, in which memory, kernels and reading workers warm up."""
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    speeds = [
        Speed(expressions_per_second=line["expressions_per_second"], data_wait=line["data_wait"])
        for line in lines
        if "losses" in line
    ]
    return speeds[WARM_UP_LINES:]


def time_calls(settings: TrainSettings, shards: Path, out: Path) -> dict[str, float]:
    """Median seconds of the functions of the training loop that log and save, in a training in this process."""
    from pipelines.training import trainer

    settings = replace(settings, log_steps=1, checkpoint_minutes=0.0, validation_split="none")
    with contextlib.ExitStack() as stack:
        seconds = {name: stack.enter_context(_timing(trainer, name)) for name in (*LOGGING, *SAVING)}
        train.run(settings, [shards], out)
    return {name: statistics.median(values) for name, values in seconds.items()}


@contextlib.contextmanager
def _timing(owner: Any, name: str) -> Iterator[list[float]]:
    """The seconds of each call of a function of a module while the context is open."""
    original: Callable[..., Any] = getattr(owner, name)
    seconds: list[float] = []

    def timed(*arguments: Any, **keywords: Any) -> Any:
        started = time.perf_counter()
        try:
            return original(*arguments, **keywords)
        finally:
            seconds.append(time.perf_counter() - started)

    setattr(owner, name, timed)
    try:
        yield seconds
    finally:
        setattr(owner, name, original)


def list_costs(calls: dict[str, float], settings: TrainSettings, step: float) -> list[Figure]:
    """The share that logging and saving have at the intervals of `settings`, beside steps of `step` seconds."""
    logging, saving = (sum(calls[name] for name in names) for names in (LOGGING, SAVING))
    share = logging / (settings.log_steps * step) + saving / (60 * settings.checkpoint_minutes)
    return [
        Figure("a line of the log", 1e3 * logging, "ms"),
        Figure("a saved state", 1e3 * saving, "ms"),
        Figure("logging and saving", 100 * share, "% of the time", "≤ 2"),
    ]
