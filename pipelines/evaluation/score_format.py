"""Scores as text, the same in tables on a terminal and in pages."""

from __future__ import annotations

from collections.abc import Sequence


def format_score(value: float | None) -> str:
    """A metric with two decimals; a dash for None."""
    return "–" if value is None else f"{value:.2f}"


def format_change(value: float | None) -> str:
    """A difference with its sign and two decimals; a dash for None."""
    return "–" if value is None else f"{value:+.2f}"


def format_interval(bounds: Sequence[float] | None) -> str:
    """The bounds of an interval; a dash for None."""
    return f"{bounds[0]:.2f} to {bounds[1]:.2f}" if bounds else "–"
