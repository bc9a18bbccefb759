"""What a summary consists of: sections of sentences, tables and charts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

SET_LETTERS = ("A", "B")


@dataclass(frozen=True, kw_only=True)
class Row:
    """A row of a table: its label, a remark below the label, and the cells."""

    label: str
    cells: tuple[str, ...]
    remark: str = ""
    expression: str = ""
    """The id of the expression that the label leads to in the gallery; empty: none."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table of texts; the columns after the first are numbers."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A chart with its text alternative."""

    title: str
    svg: str
    """Of `pipelines.report.charts`: the only text of a summary that is put into the page as it is."""
    description: str
    """What the chart shows, in one sentence."""
    values: Table
    """The values that are drawn."""
    unfolded: bool = False
    """Whether the values are shown without being asked for."""


@dataclass(frozen=True, kw_only=True)
class Section:
    """A heading of a summary, and what stands below it."""

    key: str
    """The id of the heading in the page."""
    title: str
    lead: str = ""
    """One or two sentences."""
    notes: tuple[str, ...] = ()
    table: Table | None = None
    fold: bool = False
    """Whether the table is shown on request only."""
    figures: tuple[Figure, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Headline:
    """A metric of the first line of a summary."""

    metric: str
    meaning: str
    values: tuple[tuple[str, str, str], ...]
    """Letter of the set (empty for a single one), score, and interval (empty for none) of each set."""


@dataclass(frozen=True, kw_only=True)
class Composition:
    """What the expressions of a split are, beside the metrics of the first line."""

    expressions: str
    """How many there are."""
    kinds: tuple[tuple[str, str, str], ...]
    """Kind by the number of targets, how many there are of it, and their share."""


def letter_sets(names: Sequence[str]) -> tuple[str, ...]:
    """The names of series in charts: A and B for two sets of predictions, the word score for one."""
    return SET_LETTERS[: len(names)] if len(names) > 1 else ("score",)
