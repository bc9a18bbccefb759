"""Memory that a step frees serves the next one."""

import subprocess
import sys

import pytest

COUNT_FAULTS = """
import resource, sys
from pipelines.memory import keep_freed_memory

if sys.argv[1] == "kept":
    keep_freed_memory()
def fill():
    # More than 2 GiB free at once, as after a step, which a threshold of 31 bits would give back.
    kept = [bytearray(256 << 20) for _ in range(9)]
fill()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(2):
    fill()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only glibc is asked to keep memory")
def test_memory_is_faulted_in_once_not_at_every_use():
    def count(how: str) -> int:
        return int(subprocess.run([sys.executable, "-c", COUNT_FAULTS, how], capture_output=True, check=True).stdout)

    given_back, kept = count("given back"), count("kept")
    assert kept * 10 < given_back
