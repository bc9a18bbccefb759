"""The one sink of everything a user sees: results on standard output, progress and remarks on standard error."""

from __future__ import annotations

import contextlib
import json
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], notes: Sequence[str] = ()) -> None:
    """A table on standard output; the first column to the left, the others to the right, notes beneath."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left", title_style="bold", header_style="", pad_edge=False)
    for position, column in enumerate(columns):
        table.add_column(column, justify="left" if position == 0 else "right", overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    # Redirected output has no width of its own: leave the cells whole.
    console = Console(width=None if sys.stdout.isatty() else 160, highlight=False)
    console.print(table)
    for line in notes:
        console.print(Text(line, style="dim"))


def print_json(document: Any) -> None:
    """One JSON document on standard output."""
    sys.stdout.write(json.dumps(document, ensure_ascii=False, allow_nan=False) + "\n")


def print_line(message: str) -> None:
    """One line of a result on standard output."""
    sys.stdout.write(message + "\n")
    sys.stdout.flush()


def note(message: str) -> None:
    """One line on standard error."""
    sys.stderr.write(message + "\n")
    sys.stderr.flush()


@contextlib.contextmanager
def show_progress(label: str) -> Iterator[Callable[[int, int, str], None]]:
    """A progress bar on standard error, driven by calls (done, total, remark); silent where that is no terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
               TextColumn("{task.fields[remark]}"))  # fmt: skip
    quiet = not sys.stderr.isatty()
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=quiet) as bar:
        task = bar.add_task(label, total=None, remark="")

        def advance(done: int, total: int, remark: str) -> None:
            bar.update(task, completed=done, total=total, remark=remark)

        yield advance
