"""A process that has worked in a group ends with its own status, whatever threads are left."""

from __future__ import annotations

import subprocess
import sys

from tests.support.launched_processes import environment

# A thread that comes back from torch while Python is finalized aborts the process.
PROGRAM = """
import atexit
import sys
import threading
import torch
from pipelines.runtime.distributed import end_process

def multiply():
    while True:
        torch.ones(700, 700).matmul(torch.ones(700, 700))

atexit.register(lambda: print("registered first"))
atexit.register(lambda: print("registered last"))
threading.Thread(target=multiply, daemon=True).start()
sys.stdout.write("printed before; ")
end_process(7)
"""


def test_what_was_registered_and_printed_is_kept_and_no_thread_changes_the_status() -> None:
    # Buffered, so that what is printed has to be flushed.
    buffered = environment(PYTHONUNBUFFERED="")
    words = [sys.executable, "-c", PROGRAM]
    result = subprocess.run(words, capture_output=True, text=True, env=buffered, timeout=120, check=False)
    assert (result.returncode, result.stdout) == (7, "printed before; registered last\nregistered first\n")
    assert not result.stderr
