"""A measured figure, and the ways to time."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """One row of the table; `bound` says what it should not exceed, if anything."""

    name: str
    value: float
    unit: str
    bound: str = ""


def time_best(work: Callable[[], object], repeats: int, warm_up: int = 1) -> float:
    """Seconds of the fastest of some repetitions: the one that other programs disturbed least."""
    for _ in range(warm_up):
        work()
    best = float("inf")
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - started)
    return best
