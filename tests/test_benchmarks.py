"""Benchmarks that need a machine of their own are tried on any, line by line."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

from tests.benchmarks import scaling
from tests.benchmarks.training import LOGGING, SAVING, TINY, TWO, list_costs, run_trainings, time_calls
from tests.support.paths import ROOT
from tests.support.pipeline_runs import SMALL_NETWORK
from tests.support.small_training import small_settings, write_set


def test_the_benchmark_for_gpus_runs_dry_on_a_cpu(tmp_path: Path) -> None:
    out = tmp_path / "figures.json"
    words = [sys.executable, "-m", "tests.benchmarks.accelerator", "--dry-run", "--out", str(out)]
    subprocess.run(words, check=True, capture_output=True, cwd=ROOT, timeout=300)
    figures = json.loads(out.read_text())["figures"]
    assert {"training, batch 64, bf16, compiled, expressions/s", "one step, aten::nonzero, calls"} <= set(figures)


def test_the_benchmark_of_training_reads_the_logs_of_its_processes(tmp_path: Path) -> None:
    settings = (*SMALL_NETWORK, "max_steps=8", "epochs=99", "log_steps=2", 'splits=["val"]', "validation_split=none")
    speeds = run_trainings(TWO, write_set(tmp_path), tmp_path / "runs", settings)
    assert len(speeds) == 3
    assert all(speed.expressions_per_second > 0 and 0 <= speed.data_wait < 1 for speed in speeds)


def test_logging_and_saving_are_timed_in_a_training(tmp_path: Path) -> None:
    calls = time_calls(small_settings(max_steps=3, epochs=99), write_set(tmp_path), tmp_path / "run")
    assert all(calls[name] > 0 for name in (*LOGGING, *SAVING))


def test_logging_and_saving_count_at_the_intervals_of_the_settings() -> None:
    costs = list_costs({"log_step": 0.03, "require_finite": 0.01, "save_state": 6.0}, TINY, step=0.5)
    # Every 20 steps of half a second, and every 10 minutes.
    assert math.isclose(costs[-1].value, 100 * (0.04 / 10 + 6 / 600))


def test_the_page_about_scaling_holds_the_tables_that_follow_from_its_inputs() -> None:
    page = scaling.PAGE.read_text(encoding="utf-8")
    assert scaling.fill_page(page) == page, "run python -m tests.benchmarks.scaling --write"


def test_the_page_about_scaling_starts_from_the_work_and_memory_of_the_base_network() -> None:
    work, kept = scaling.count_work_and_memory()
    assert math.isclose(work, scaling.FORWARD_FLOP, rel_tol=1e-3)
    assert math.isclose(kept, scaling.KEPT_BYTES, rel_tol=0.02)


def test_a_ring_sends_the_gradients_nearly_twice() -> None:
    gradients = 4 * scaling.count_parameters()
    assert scaling.ring_bytes(1) == 0
    assert scaling.ring_bytes(2) == gradients
    assert math.isclose(scaling.ring_bytes(8), 1.75 * gradients)
