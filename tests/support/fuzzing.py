"""Reads changed files of every kind and tells what came of them.

`python -m tests.support.fuzzing [COUNT [FIRST_SEED [KIND …]]]`
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.support.mutated_annotations import LAYOUTS, draw_images, read_mutated
from tests.support.mutated_readers import KINDS, read_changed, write_whole


def fuzz(kind: str, seeds: range) -> str:
    """Read the files of these seeds; says how many were read and refused, or which reading went wrong."""
    begun, outcomes, slowest, failures = time.monotonic(), Counter[str](), 0.0, []
    with tempfile.TemporaryDirectory() as home:
        images, folder = draw_images(Path(home) / "images"), Path(home) / "annotations"
        folder.mkdir()
        write_whole(whole := Path(home) / "whole")
        for seed in seeds:
            before = time.process_time()
            try:
                reading = kind in LAYOUTS
                outcome = (
                    read_mutated(folder, images, kind, seed) if reading else read_changed(kind, whole, folder, seed)
                )
                outcomes[outcome] += 1
            except AssertionError as error:
                failures.append(str(error))
            slowest = max(slowest, time.process_time() - before)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    seconds = time.monotonic() - begun
    lines = [f"{kind}: {dict(outcomes)}, {len(failures)} failed, {seconds:.0f} s, slowest {slowest:.2f} s, {peak} MB"]
    return "\n  ".join(lines + failures[:20])


def main(count: int = 2500, first: int = 0, *kinds: str) -> None:
    """Read so many files of each kind."""
    for kind in kinds or (*LAYOUTS, *KINDS):
        sys.stdout.write(fuzz(kind, range(first, first + count)) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:3]), *sys.argv[3:])
