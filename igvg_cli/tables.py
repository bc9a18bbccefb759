"""Tables that fit the terminal: words stay whole, and a table that is too wide is continued below itself."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from igvg_cli import streams

if TYPE_CHECKING:
    from collections.abc import Container, Sequence

# Of output that goes to no terminal.
_WIDTH = 160
# Two spaces and a line beside every column, and a line at the left of the table.
_PER_COLUMN, _EDGE = 3, 1


def print_table(
    title: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    notes: Sequence[str] = (),
    *,
    left: Container[int] = (0,),
    labels: int = 1,
) -> None:
    """Print a table and notes below it.

    Args:
        title: printed above the table.
        columns: the names of the columns.
        rows: the cells of every row.
        notes: lines printed below the table.
        left: the indices of the columns that hold words: they are aligned left and break between words, the others
            are aligned right and do not break.
        labels: the number of columns from the left that are repeated where the table is continued.
    """
    from rich.box import HEAVY_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    width = table_width()
    natural = [max(map(_measure, cells)) for cells in zip(columns, *rows, strict=True)]
    # Words never break, nor numbers with what stands beside them, nor short labels.
    least = [
        size if index not in left or (index < labels and size <= width // 3) else max(map(_measure_words, cells))
        for index, (size, cells) in enumerate(zip(natural, zip(columns, *rows, strict=True), strict=True))
    ]
    blocks = split_columns(least, width, labels)
    with streams.printing():
        _print_text(title, width, "bold")
        for block in blocks:
            widths = share_width([natural[i] for i in block], [least[i] for i in block], width)
            table = Table(box=HEAVY_HEAD, header_style="")
            for index, size in zip(block, widths, strict=True):
                table.add_column(Text(columns[index]), justify="left" if index in left else "right", width=size)
            for row in rows:
                table.add_row(*(Text(row[index]) for index in block))
            # Words that are wider than the terminal stay whole, too.
            total = sum(widths) + _PER_COLUMN * len(widths) + _EDGE
            Console(width=max(width, total), highlight=False).print(table)
        for line in notes:
            _print_text(line, width, "dim")


def table_width() -> int:
    """The width in characters that tables on standard output may take."""
    return streams.measure_width(sys.stdout) or _WIDTH


def split_columns(least: Sequence[int], width: int, labels: int) -> list[list[int]]:
    """The columns of each part of a table, by index; every part begins with the columns of labels.

    Args:
        least: the least width of each column in characters.
        width: that a part may take, unless its labels and a single column take more.
        labels: the number of columns of labels.
    """
    head = list(range(labels))
    blocks = [head]
    for index in range(labels, len(least)):
        block = [*blocks[-1], index]
        if len(block) > labels + 1 and sum(least[i] + _PER_COLUMN for i in block) + _EDGE > width:
            block = [*head, index]
            blocks.append(block)
        blocks[-1] = block
    return blocks


def share_width(natural: Sequence[int], least: Sequence[int], width: int) -> list[int]:
    """The width of each column: its natural one if all fit, else what is left is shared by those that can break."""
    widths = list(least)
    left = width - _EDGE - sum(least) - _PER_COLUMN * len(least)
    growing = sorted((index for index in range(len(least)) if natural[index] > least[index]), key=natural.__getitem__)
    for position, index in enumerate(growing):
        gain = max(0, min(natural[index] - least[index], left // (len(growing) - position)))
        widths[index] += gain
        left -= gain
    return widths


def _print_text(text: str, width: int, style: str) -> None:
    from rich.console import Console
    from rich.text import Text

    Console(width=max(width, 10_000), highlight=False).print(Text(streams.wrap_words(text, width), style=style))


def _measure(text: str) -> int:
    from rich.cells import cell_len

    return max(map(cell_len, text.splitlines()), default=0)


def _measure_words(text: str) -> int:
    return max(map(_measure, text.split()), default=0)
