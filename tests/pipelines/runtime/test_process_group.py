"""A program that has worked in a process group ends with its own status, whatever threads are left."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support.launched_processes import environment

# A thread that comes back from torch while Python is finalized aborts the process.
PROGRAM = """
import atexit
import sys
import threading
import time
import torch
from pipelines.runtime.distributed import Group, run_program

def multiply():
    while True:
        torch.ones(700, 700).matmul(torch.ones(700, 700))

def print_late():
    time.sleep(0.5)
    print("a thread that ends")

def program():
    Group.joined = True
    atexit.register(lambda: print("registered first"))
    atexit.register(lambda: print("registered last"))
    threading.Thread(target=multiply, daemon=True).start()
    threading.Thread(target=print_late).start()
    print("a program")
    {last_line}

run_program(program)
"""
PRINTED = "a program\na thread that ends\nregistered last\nregistered first\n"


@pytest.mark.parametrize(
    ("last_line", "status", "error"),
    [
        ("return", 0, ""),
        ("sys.exit()", 0, ""),
        ("sys.exit(7)", 7, ""),
        ("sys.exit('an error')", 1, "an error\n"),
        ("raise ValueError('an error')", 1, "ValueError: an error\n"),
    ],
)
def test_what_was_printed_and_registered_is_kept_and_no_thread_changes_the_status(
    last_line: str, status: int, error: str
) -> None:
    words = [sys.executable, "-c", PROGRAM.format(last_line=last_line)]
    # Buffered, so that what is printed has to be flushed.
    buffered = environment(PYTHONUNBUFFERED="")
    result = subprocess.run(words, capture_output=True, text=True, env=buffered, timeout=120, check=False)
    assert (result.returncode, result.stdout) == (status, PRINTED)
    assert result.stderr.endswith(error)
    assert "terminate" not in result.stderr
