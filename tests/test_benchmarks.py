"""Benchmarks that need a machine of their own are tried on any, line by line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.support.paths import ROOT


def test_the_benchmark_for_gpus_runs_dry_on_a_cpu(tmp_path: Path) -> None:
    out = tmp_path / "figures.json"
    words = [sys.executable, "-m", "tests.benchmarks.accelerator", "--dry-run", "--out", str(out)]
    subprocess.run(words, check=True, capture_output=True, cwd=ROOT, timeout=300)
    figures = json.loads(out.read_text())["figures"]
    assert {"training, batch 64, bf16, compiled, expressions/s", "one step, aten::nonzero, calls"} <= set(figures)
