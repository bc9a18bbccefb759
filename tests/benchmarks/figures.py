"""A measured figure, and the ways to time."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Figure:
    """One row of the table; `bound` says what it should not exceed, if anything."""

    name: str
    value: float
    unit: str
    bound: str = ""


def time_in_turns(ways: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Seconds of processor time of the fastest run of each way, on one thread, each run once in every turn.

    Processor time leaves out what other programs take, so it tells ways apart on a machine that is shared.
    """
    threads, best = torch.get_num_threads(), dict.fromkeys(ways, float("inf"))
    torch.set_num_threads(1)
    try:
        for turn in range(repeats + 1):
            for name, work in ways.items():
                started = time.process_time()
                work()
                seconds = time.process_time() - started
                best[name] = min(best[name], seconds) if turn else best[name]
    finally:
        torch.set_num_threads(threads)
    return best


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
