"""A process leaves its group before Python exits: threads that run on may abort it when its work is done."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.support.launched_processes import environment

# Threads are named in /proc, i.e. on Linux. A cycle holds the group until the garbage collector runs; torch._dynamo,
# imported while there is a group, would hold it for ever (torch 2.13).
PROGRAM = """
import gc
import sys
from pathlib import Path
import torch
import torch._dynamo
from pipelines.runtime.distributed import leave_process_group

def print_threads():
    names = [file.read_text().strip() for file in Path("/proc/self/task").glob("*/comm")]
    print(sum("gloo" in name for name in names))

leave_process_group()
gc.disable()
torch.distributed.init_process_group("gloo", init_method=f"file://{sys.argv[1]}", world_size=1, rank=0)
model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(2, 2))
model(torch.ones(3, 2)).sum().backward()
cycle = [model]
cycle.append(cycle)
del cycle, model
print_threads()
leave_process_group()
leave_process_group()
print_threads()
"""


def test_the_threads_of_a_group_end_although_a_cycle_of_references_holds_it(tmp_path: Path) -> None:
    words = [sys.executable, "-c", PROGRAM, str(tmp_path / "meeting")]
    result = subprocess.run(words, capture_output=True, text=True, env=environment(), timeout=120, check=False)
    assert result.returncode == 0, result.stderr
    before, after = map(int, result.stdout.split())
    assert before > 0
    assert after == 0
