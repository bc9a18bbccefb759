"""Progress on standard error: a bar on a terminal, elsewhere a plain line every half minute."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from igvg_cli.live import LiveTable
from pipelines.runtime.launch import is_main_process
from shards.progress import set_sink

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Advance = Callable[[int, int, str], None]

# Seconds; less than the promised 30: on a busy machine a thread wakes late.
INTERVAL = 28.0
# The least width of a terminal, in characters, that has room for a bar.
_BAR_WIDTH = 80


class Display:
    """Whether progress is hidden, as by `--quiet`."""

    quiet = False


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """The progress of a stage; the rate is measured since `start_count` and `start_time`."""

    stage: str = ""
    done: int = 0
    total: int = 0
    remark: str = ""
    start_count: int = 0
    start_time: float = 0.0


class ProgressLines:
    """Prints a line every `interval` seconds from a thread of its own, so also while nothing is reported.

    Args:
        label: what the command does, e.g. training.
        interval: seconds between two lines.
        write: takes a line.
    """

    def __init__(self, label: str, *, interval: float, write: Callable[[str], None]) -> None:
        self._label, self._interval, self._write = label, interval, write
        self._state = State(start_time=time.monotonic())
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._print_lines, daemon=True)

    def __enter__(self) -> Advance:
        self._thread.start()
        return self.advance

    def __exit__(self, *error: object) -> None:
        self._closed.set()
        self._thread.join()

    def advance(self, done: int, total: int, remark: str) -> None:
        """Store the progress; without a total, a stage named `remark` begins."""
        # Assigned as a whole: the thread never reads a partial state.
        self._state = advance_state(self._state, done, total, remark, time.monotonic())

    def _print_lines(self) -> None:
        while not self._closed.wait(self._interval):
            self._write(describe_state(self._label, self._state, time.monotonic()))


def advance_state(state: State, done: int, total: int, remark: str, now: float) -> State:
    """The state after a report; the rate counts from the first report of a total, or from where the count went back."""
    if not total:
        return State(stage=remark, start_time=now)
    if total != state.total or done < state.done:
        state = replace(state, start_count=done, start_time=now)
    return replace(state, done=done, total=total, remark=remark)


def describe_state(label: str, state: State, now: float) -> str:
    """One line: stage, done of total, rate, time left, remark."""
    stage = state.stage if state.stage.startswith(label) else f"{label}: {state.stage}".removesuffix(": ")
    seconds = now - state.start_time
    if not state.total:
        return f"{stage}: for {format_time(seconds)}, nothing to count yet"
    parts = [f"{state.done:,} of {state.total:,} ({100 * state.done // state.total} %)"]
    worked = state.done - state.start_count
    if worked > 0 and seconds > 0:
        rate = worked / seconds
        parts += [format_rate(rate), f"{format_time((state.total - state.done) / rate)} left"]
    return f"{stage}: {', '.join([*parts, *([state.remark] if state.remark else [])])}"


def format_rate(rate: float) -> str:
    """A rate per second, or per minute where it is slow."""
    return f"{rate:.1f} a second" if rate >= 1 else f"{60 * rate:.1f} a minute"


def format_time(seconds: float) -> str:
    """A duration in its two largest units, e.g. 2 min 5 s."""
    total = round(seconds)
    if total < 60:
        return f"{total} s"
    if total < 3600:
        return f"{total // 60} min {total % 60} s"
    return f"{total // 3600} h {total % 3600 // 60} min"


def has_terminal() -> bool:
    """Whether standard error is a terminal that can move its cursor; logs of continuous integration cannot."""
    dumb = os.environ.get("TERM") in ("dumb", "unknown") or os.environ.get("CI", "") not in ("", "0", "false")
    return sys.stderr.isatty() and not dumb


@contextlib.contextmanager
def show_progress(label: str, *, write: Callable[[str], None], interval: float, live: bool = False) -> Iterator[None]:
    """Show what a block reports by `shards.progress.report_progress`.

    Args:
        label: what the command does, e.g. training.
        write: takes a plain line where there is no terminal.
        interval: seconds between two plain lines.
        live: on a terminal also a table of what `shards.progress.report_values` reports.
    """
    if Display.quiet or not is_main_process(os.environ):
        yield
    elif has_terminal():
        with _show_bar(label, live=live):
            yield
    else:
        with ProgressLines(label, interval=interval, write=write) as advance, set_sink(progress=advance):
            yield


@contextlib.contextmanager
def _show_bar(label: str, *, live: bool) -> Iterator[None]:
    from rich.console import Console, Group
    from rich.live import Live
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
    from rich.table import Column

    console = Console(stderr=True)
    # On a narrow terminal the numbers say more than a bar of a few characters.
    drawn = (BarColumn(),) if console.width >= _BAR_WIDTH else ()
    counted = MofNCompleteColumn(table_column=Column(no_wrap=True, min_width=7))
    left = TimeRemainingColumn(table_column=Column(no_wrap=True, min_width=7))
    texts = TextColumn("{task.description}"), TextColumn("{task.fields[remark]}")
    bar = Progress(texts[0], *drawn, counted, left, texts[1], console=console, transient=True)
    task = bar.add_task(label, total=None, remark="")
    table = LiveTable()

    def advance(done: int, total: int, remark: str) -> None:
        if total:
            bar.update(task, completed=done, total=total, remark=remark)
        else:
            name = remark if remark.startswith(label) else f"{label}: {remark}"
            bar.reset(task, total=None, description=name, remark="")

    if not live:
        with bar, set_sink(progress=advance):
            yield
        return
    shown = Live(console=console, transient=True, get_renderable=lambda: Group(table.render(), bar))
    with shown, set_sink(progress=advance, values=table.update):
        yield
