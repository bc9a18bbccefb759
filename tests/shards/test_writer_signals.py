"""Writing shards while somebody ends it: no worker is left behind, and finished shards stay."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.support.paths import ROOT
from tests.support.pipeline_runs import list_children

PROGRAM = """
    from pathlib import Path
    from pipelines.runtime.signals import RaiseOnSignal
    from tests.support.tiny_shards import dawdle, make_items
    from shards.progress import set_sink
    from shards.writer import write_split

    if __name__ == "__main__":
        items = make_items(Path("images"), [1] * 300)
        show = lambda done, total, remark: done and print(done, flush=True)
        with RaiseOnSignal(), set_sink(progress=show):
            write_split(Path(), "val", items, dawdle, workers=2, records_per_shard=5)
"""


def start_program(folder: Path) -> subprocess.Popen[str]:
    """Start a run of a minute with two workers, as a process group; returns after its first shard."""
    program = folder / "program.py"
    program.write_text(textwrap.dedent(PROGRAM))
    process = subprocess.Popen(
        [sys.executable, str(program)],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # As in a terminal, even where it is ignored here.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509, no other thread runs
    )
    assert process.stdout is not None
    assert process.stdout.readline().strip() == "5"
    return process


def wait_for_all(process: subprocess.Popen[str]) -> str:
    """What was said on standard error, once the last worker has ended (they all hold the pipes open)."""
    try:
        return process.communicate(timeout=15)[1]
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_all_processes_stops_them_at_once_and_keeps_finished_shards(
    tmp_path: Path, number: signal.Signals
) -> None:
    process = start_program(tmp_path)
    os.killpg(process.pid, number)
    messages = wait_for_all(process)
    assert messages.splitlines()[-1].startswith("pipelines.runtime.signals.Stopped")
    assert "SpawnProcess" not in messages
    left = sorted(file.name for file in (tmp_path / "val").iterdir())
    tars = [name for name in left if name.endswith(".tar")]
    assert 1 <= len(tars) <= 3
    assert left == sorted([*tars, *(f"{name}.json" for name in tars)])


def test_a_worker_that_is_killed_ends_all_and_finished_shards_stay(tmp_path: Path) -> None:
    process = start_program(tmp_path)
    # Also the parent of one more process, which watches what is shared.
    workers = [child for child in list_children(process.pid) if is_worker(child)]
    assert len(workers) == 2
    os.kill(workers[0], signal.SIGKILL)
    message = wait_for_all(process).splitlines()[-1]
    assert message.startswith("shards.errors.WorkerError: a worker process was killed by SIGKILL")
    assert "--workers 0" in message
    assert list((tmp_path / "val").glob("*.tar"))


def is_worker(process: int) -> bool:
    return b"spawn_main" in Path(f"/proc/{process}/cmdline").read_bytes()


def test_workers_end_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    process = start_program(tmp_path)
    process.kill()
    wait_for_all(process)
    assert not (tmp_path / "val/index.json").exists()
