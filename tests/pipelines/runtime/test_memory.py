"""Memory that a step frees serves the next one."""

import os
import subprocess
import sys

import pytest

COUNT_FAULTS = """
import resource, sys
from pipelines.runtime.memory import keep_freed_memory

if sys.argv[1] == "kept":
    keep_freed_memory()
if sys.argv[1] == "training":
    from pipelines.config.presets import train_preset
    from pipelines.training.setup import start_processes

    start_processes(train_preset("tiny"))
def fill():
    # More than 2 GiB free at once, as after a step, which a threshold of 31 bits would give back.
    kept = [bytearray(256 << 20) for _ in range(9)]
fill()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(2):
    fill()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def count_faults(how: str) -> int:
    words = [sys.executable, "-c", COUNT_FAULTS, how]
    environment = os.environ | {"ACCELERATE_USE_CPU": "true"}
    return int(subprocess.run(words, capture_output=True, check=True, env=environment).stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only glibc is asked to keep memory")
@pytest.mark.parametrize("how", ["kept", "training"])
def test_memory_is_faulted_in_once_not_at_every_use(how):
    assert count_faults(how) * 10 < count_faults("given back")
