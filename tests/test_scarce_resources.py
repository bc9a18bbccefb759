"""Reading workers where memory to share and open files are scarce, or where the system kills one of them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.support.pipeline_runs import (
    command,
    end,
    list_children,
    start,
    train_arguments,
    wait_until,
)

# What follows runs with 1 MB of shared memory, as in some containers, and with 40 files that may be open.
SCARCE = 'mount -t tmpfs -o size=1m tmpfs /dev/shm && ulimit -n 40 && exec "$@"'


def run_scarcely(words: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["unshare", "--mount", "sh", "-c", SCARCE, "sh", *words], capture_output=True, text=True, timeout=180
    )


def test_a_training_with_workers_needs_neither_shared_memory_nor_many_files(pipeline: Path, tmp_path: Path) -> None:
    tried = run_scarcely(["true"])
    if tried.returncode:
        pytest.skip(f"no small /dev/shm can be mounted here: {tried.stderr.strip()}")
    # Images of 160 pixels: a batch does not fit into what is there.
    words = train_arguments(
        pipeline / "shards", tmp_path / "run", "max_steps=3", "workers=2", "batch_size=32", "model.image_size=160"
    )
    result = run_scarcely(command(*words))
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "run" / "artifact.json").exists()


def test_a_training_whose_worker_is_killed_ends_in_one_line_and_keeps_its_state(pipeline: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    words = train_arguments(
        pipeline / "shards", out, "epochs=100000", "workers=2", "checkpoint_minutes=60", "log_steps=1"
    )
    process = start(*words)
    wait_until(lambda: (out / "log.jsonl").exists() and "losses" in (out / "log.jsonl").read_text(), process)
    # The newest child reads batches: an older one counts expressions, and has done so before it is missed. A worker of
    # a validation that has sent its last result is not missed either: then another one is killed.
    for _ in range(3):
        children = list_children(process.pid)
        assert children
        os.kill(children[-1], signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(20)
            break
    message = end(process)
    assert process.returncode == 1
    remark, error = message.splitlines()
    assert remark.startswith("training in ")
    assert error.startswith("Error: a worker process was killed by SIGKILL, ")
    assert "--set workers=0" in error
    assert (out / "state" / "state.pt").exists()
