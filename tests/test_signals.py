"""Commands that a signal ends: what was done is kept, one line says so, and no process is left."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from shards.masks import merge_rles
from shards.reader import ShardReader
from tests.support.pipeline_runs import draw_published, end, prepare, run_here, start, train_arguments, wait_until

STEPS = 60


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some hundred expressions to train on: several chunks of a prediction."""
    home = tmp_path_factory.mktemp("signals")
    return prepare(draw_published(home / "published", train_images=80), home / "shards")


@pytest.fixture(scope="module")
def undisturbed(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of a training that was not stopped."""
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    run_here(*list_training(shards, out))
    return out


def list_training(shards: Path, out: Path, *settings: str) -> list[str]:
    settings = (f"max_steps={STEPS}", "epochs=100", "validation_epochs=100", "log_steps=1", *settings)
    return train_arguments(shards, out, *settings)


def count_steps(out: Path) -> int:
    log = out / "log.jsonl"
    return log.read_text().count('"losses"') if log.exists() else 0


def has_steps(out: Path, steps: int = 3) -> Callable[[], bool]:
    return lambda: count_steps(out) >= steps


def saved_step(out: Path) -> int:
    step: int = torch.load(out / "state" / "state.pt", weights_only=True)["step"]
    assert 0 < step < STEPS
    return step


@pytest.mark.parametrize(
    ("number", "to_group", "workers", "word", "status"),
    [
        (signal.SIGTERM, True, 2, "Stopped by SIGTERM", 143),
        (signal.SIGINT, False, 0, "Interrupted", 130),
        (signal.SIGUSR1, True, 2, "Stopped by SIGUSR1", 138),
        (signal.SIGHUP, False, 0, "Stopped by SIGHUP", 129),
    ],
    ids=["SIGTERM to the group", "SIGINT to the main process", "SIGUSR1 to the group", "SIGHUP to the main process"],
)
def test_a_stopped_training_saves_its_last_step_and_continues_as_if_undisturbed(
    shards: Path, undisturbed: Path, tmp_path: Path, number: signal.Signals, to_group: bool, workers: int, word: str,
    status: int,
) -> None:  # fmt: skip
    out = tmp_path / "run"
    process = start(*list_training(shards, out, f"workers={workers}", "checkpoint_minutes=60"))
    wait_until(has_steps(out), process)
    (os.killpg if to_group else os.kill)(process.pid, number)
    remark, message = end(process).split("\n", maxsplit=1)
    assert process.returncode == status
    assert remark.startswith("training in ")
    assert re.fullmatch(rf"{word}: step \d+ of {STEPS} is saved; .*\n", message), message
    assert f"step {saved_step(out)} of" in message
    if number == signal.SIGTERM:
        run_here(*list_training(shards, out))
        one, two = (load_file(folder / "model.safetensors") for folder in (undisturbed, out))
        assert all(torch.equal(one[name], two[name]) for name in one)


def test_where_sigint_was_ignored_from_the_start_it_stays_so_and_sigterm_works(shards: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    process = start(*list_training(shards, out), ignoring_sigint=True)
    wait_until(has_steps(out), process)
    process.send_signal(signal.SIGINT)
    wait_until(has_steps(out, count_steps(out) + 5), process)
    process.send_signal(signal.SIGTERM)
    assert end(process).splitlines()[-1].startswith("Stopped by SIGTERM")
    assert process.returncode == 143


def test_of_two_processes_that_train_both_stop_after_the_same_step_if_one_is_asked_to(
    shards: Path, tmp_path: Path
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    out, place = tmp_path / "run", {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
    words = list_training(shards, out, "checkpoint_minutes=60")
    first, second = (
        start(*words, RANK=rank, LOCAL_RANK=rank, MASTER_PORT=port, OMP_NUM_THREADS="1", **place) for rank in "01"
    )
    wait_until(has_steps(out), first)
    second.send_signal(signal.SIGTERM)
    messages = end(first), end(second)
    assert (first.returncode, second.returncode) == (143, 143), messages
    # torch may have warned before.
    assert messages[0].splitlines()[-1].startswith(f"Stopped by SIGTERM: step {saved_step(out)} of {STEPS} is saved; ")
    assert messages[1] == ""


def test_a_stopped_prediction_keeps_its_chunks_and_ends_as_if_undisturbed(
    shards: Path, undisturbed: Path, tmp_path: Path
) -> None:
    what = ["predict", "--checkpoint", undisturbed, "--shards", shards, "--split", "train", "--set", "workers=2"]
    what += ["--set", "batch_size=2"]
    out, chunk = tmp_path / "stopped", tmp_path / "stopped" / "raw" / "chunk-000000.npz"
    process = start(*what, "--out", out)
    wait_until(chunk.exists, process)
    os.killpg(process.pid, signal.SIGTERM)
    message = end(process)
    assert process.returncode == 143
    assert re.fullmatch(r"Stopped by SIGTERM: .*\n", message), message
    assert not (out / "artifact.json").exists()
    written = chunk.stat().st_mtime_ns
    for folder in (out, tmp_path / "undisturbed"):
        run_here(*what, "--out", folder)
    assert chunk.stat().st_mtime_ns == written
    one, two = ((tmp_path / name / "predictions.jsonl").read_bytes() for name in ("stopped", "undisturbed"))
    assert one == two


def test_a_command_without_anything_to_save_ends_in_one_line(shards: Path, tmp_path: Path) -> None:
    empty = tmp_path / "predictions.jsonl"
    with ShardReader(shards, "val") as reader:
        answers = [
            {"id": expression.id, "boxes": [], "scores": [], "mask": merge_rles([], record.height, record.width)}
            for record in reader.records()
            for expression in record.expressions
        ]
    empty.write_text("".join(json.dumps(answer) + "\n" for answer in answers))
    # Its lines of progress come so soon that they tell when it works; so many samples take minutes.
    code = "import igvg_cli.progress as p; p.INTERVAL = 0.01; from igvg_cli.app import main; main()"
    words = [sys.executable, "-c", code, "score", str(empty), "--shards", str(shards), "--split", "val"]
    process = subprocess.Popen(
        [*words, "--bootstrap", "3000000"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    assert process.stderr.readline().startswith("scoring val: ")
    process.send_signal(signal.SIGTERM)
    lines = [line for line in end(process).splitlines() if not line.startswith("scoring val: ")]
    assert process.returncode == 143
    assert len(lines) == 1
    assert lines[0].startswith("Stopped by SIGTERM: nothing is half-written")


EARLY = """
import os, signal, sys

class Interrupting:
    def find_spec(self, name, *rest):
        if name == "igvg_cli.app":
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupting())
from igvg_cli.__main__ import main
main()
"""


def test_an_interrupt_while_the_program_is_loaded_ends_it_without_a_traceback() -> None:
    result = subprocess.run(
        [sys.executable, "-c", EARLY], capture_output=True, text=True, timeout=60,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    assert (result.returncode, result.stderr) == (-signal.SIGINT, "")


def listens(port: int) -> bool:
    """Whether some process of this machine waits for connections at a port."""
    rows = [line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()]
    return any(row[1].endswith(f":{port:04X}") and row[3] == "0A" for row in rows)


@pytest.mark.skipif(not Path("/proc/net/tcp6").exists(), reason="who listens is read from /proc/net")
def test_a_process_that_waits_for_another_one_to_be_started_can_be_stopped(shards: Path, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    first = {"SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_TASKS_PER_NODE": "2", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}
    process = start(*list_training(shards, tmp_path / "run"), **first, MASTER_PORT=str(port))
    wait_until(lambda: listens(port), process)
    # From here on it waits inside torch.
    time.sleep(0.5)
    process.send_signal(signal.SIGTERM)
    message = end(process, 20)
    assert process.returncode == 143
    assert re.fullmatch(r"Stopped by SIGTERM: nothing is half-written; .*\n", message), message
    assert not (tmp_path / "run").exists()
