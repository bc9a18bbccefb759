"""Commands of several processes on this machine, as torchrun starts them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.support.paths import ROOT


def environment(**changes: str) -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)} | changes


def torchrun(*words: str | Path, processes: int = 2, **changes: str) -> subprocess.CompletedProcess[str]:
    """Start processes on this machine; each start finds a free port of its own."""
    (result,) = _run([["--standalone", "--nproc_per_node", str(processes)]], words, changes)
    return result


def torchrun_on_machines(
    *words: str | Path, machines: int = 2, **changes: str
) -> list[subprocess.CompletedProcess[str]]:
    """Start as many launchers of one process each as there were machines; all are on this one and meet at a port."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = str(listener.getsockname()[1])
    meeting = ["--nproc_per_node", "1", "--nnodes", str(machines), "--master_addr", "127.0.0.1", "--master_port", port]
    return _run([[*meeting, "--node_rank", str(rank)] for rank in range(machines)], words, changes)


def _run(
    launchers: Sequence[Sequence[str]], words: Sequence[str | Path], changes: Mapping[str, str]
) -> list[subprocess.CompletedProcess[str]]:
    # Each its own group, and an end to all of it: a process that waits for ever must not outlive its test.
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "torch.distributed.run", *launcher, *map(str, words)], stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True, env=environment(**changes), start_new_session=True,
        )
        for launcher in launchers
    ]  # fmt: skip
    try:
        outputs = [process.communicate(timeout=240) for process in processes]
    except subprocess.TimeoutExpired:
        for process in processes:
            os.killpg(process.pid, signal.SIGKILL)
        raise
    return [
        subprocess.CompletedProcess(process.args, process.returncode, *output)
        for process, output in zip(processes, outputs, strict=True)
    ]
