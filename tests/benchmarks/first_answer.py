"""How long a program in Python waits for its first answer, imports included.

The bound is 1.3 times what the imports of torch, loading the weights and one forward pass take.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from pipelines.config.presets import train_preset
from pipelines.model import IGVGModel
from pipelines.pretrained import open_checkpoint, save_checkpoint
from tests.benchmarks.figures import Figure

_REPEATS = 3
_TIMES = "\nprint(*(later - earlier for earlier, later in zip(times, times[1:])), time.process_time())"
_PLAIN = """
import sys, time; times = [time.perf_counter()]
import torch; from pipelines.model import IGVGModel; times.append(time.perf_counter())
model = IGVGModel.from_pretrained(sys.argv[1]); times.append(time.perf_counter())
with torch.inference_mode():
    model(torch.rand(1, 3, 320, 320), torch.tensor([[0, 5, 6, 2]]), torch.ones(1, 4, dtype=torch.int64))
times.append(time.perf_counter())"""
_GROUNDER = """
import sys, time; times = [time.perf_counter()]
import torch, numpy; import pipelines.grounder as igvg; times.append(time.perf_counter())
grounder = igvg.Grounder.from_pretrained(sys.argv[1], device="cpu"); times.append(time.perf_counter())
grounder.predict(numpy.zeros((427, 640, 3), "u1"), "the two red cars"); times.append(time.perf_counter())"""


def measure() -> list[Figure]:
    """Seconds of the fastest process of either kind; both kinds run in turns."""
    with tempfile.TemporaryDirectory() as folder:
        _, tokenizer, max_tokens = open_checkpoint("shapes")
        save_checkpoint(Path(folder), IGVGModel(train_preset("base").model), tokenizer, max_tokens)
        runs = [(_time(_PLAIN, folder), _time(_GROUNDER, folder)) for _ in range(_REPEATS)]
    plain = min((run[0][:-1] for run in runs), key=sum)
    ours = min((run[1][:-1] for run in runs), key=sum)
    # Other programs on the machine disturb the time that passes more than the time that is computed.
    computed = min(run[1][-1] for run in runs) / min(run[0][-1] for run in runs)
    return [
        Figure("imports of torch, weights, one forward pass: base", sum(plain), "s"),
        Figure("first answer of Grounder: base", sum(ours), "s", f"≤ {1.3 * sum(plain):.2f}"),
        Figure("first answer ÷ imports, weights, one forward pass, in CPU time", computed, "×", "≤ 1.3"),
        Figure("first answer, share of imports", 100 * ours[0] / sum(ours), "%"),
        Figure("first answer, loading", ours[1], "s"),
        Figure("first answer, predicting", ours[2], "s"),
    ]


def _time(code: str, folder: str) -> list[float]:
    """Seconds of the imports, of loading and of predicting in a process of its own, and its CPU seconds."""
    run = subprocess.run([sys.executable, "-c", code + _TIMES, folder], check=True, capture_output=True, text=True)
    return [float(seconds) for seconds in run.stdout.split()]
