"""Progress and log lines: one sink for the whole process, set by the command line; without one nothing is shown."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Sink:
    """Where progress and log lines go; None drops them."""

    progress: Callable[[int, int, str], None] | None = None
    """Takes (done, total, remark)."""
    log: Callable[[str], None] | None = None
    """Takes a line."""
    values: Callable[[Mapping[str, float]], None] | None = None
    """Takes what a training measured, by name."""


class _Current:
    sink = Sink()


@contextlib.contextmanager
def set_sink(
    *,
    progress: Callable[[int, int, str], None] | None = None,
    log: Callable[[str], None] | None = None,
    values: Callable[[Mapping[str, float]], None] | None = None,
) -> Iterator[None]:
    """Inside, what this process reports goes to these functions; None keeps the function from outside."""
    outside = _Current.sink
    _Current.sink = replace(
        outside, progress=progress or outside.progress, log=log or outside.log, values=values or outside.values
    )
    try:
        yield
    finally:
        _Current.sink = outside


def report_progress(done: int, total: int, remark: str = "") -> None:
    """Report that `done` of `total` units of the present stage are done."""
    if _Current.sink.progress:
        _Current.sink.progress(done, total, remark)


def report_values(values: Mapping[str, float]) -> None:
    """Report what a training measured, by name, e.g. `losses/total`."""
    if _Current.sink.values:
        _Current.sink.values(values)


@contextlib.contextmanager
def part_of_progress(before: int, total: int) -> Iterator[None]:
    """Inside, counts are those of a part: `before` of `total` units were done when it began."""
    outside = _Current.sink.progress

    def report_part(done: int, _: int, remark: str) -> None:
        if outside:
            outside(before + done, total, remark)

    with set_sink(progress=report_part):
        yield


def begin_stage(name: str) -> None:
    """Report that a stage begins, before it is known how much there is to do."""
    report_progress(0, 0, name)


def log(line: str) -> None:
    """Log one line for the user."""
    if _Current.sink.log:
        _Current.sink.log(line)
