"""The live table of a training: what it measured last, and before that, by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

_UNITS = {"data_wait": 100.0}
"""Factors from the values of the log to those shown."""
_NAMES = {
    "data_wait": "waiting for data, %",
    "expressions_per_second": "expressions a second",
    "gradient_norm": "gradient norm",
    "peak_memory_mb": "peak memory, MB",
}
# Names begin with these, in this order.
_ORDER = ("validation/", "losses/total", "losses/", "gradient_norm", "learning_rates/")


class LiveTable:
    """The last two values of everything that a training reported."""

    def __init__(self) -> None:
        self._values: dict[str, tuple[float, float | None]] = {}

    def update(self, values: Mapping[str, float]) -> None:
        """Take the values of a step or of a validation; losses of the decoder's earlier layers are left out."""
        for name, value in values.items():
            if "_layer" not in name:
                self._values[name] = value, self._values.get(name, (None,))[0]

    def rows(self) -> list[tuple[str, str, str]]:
        """Name, last value and the one before, as shown."""
        ordered = sorted(self._values, key=lambda name: (_rank(name), name))
        return [
            (_describe(name), _format(name, last), _format(name, before))
            for name, (last, before) in ((name, self._values[name]) for name in ordered)
        ]

    def render(self) -> Table:
        """The table."""
        from rich import box
        from rich.table import Table

        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        table.add_column("measured")
        for name in ("last", "before"):
            table.add_column(name, justify="right", min_width=10)
        for row in self.rows():
            table.add_row(*row)
        return table


def _rank(name: str) -> int:
    return next((index for index, prefix in enumerate(_ORDER) if name.startswith(prefix)), len(_ORDER))


def _describe(name: str) -> str:
    if name in _NAMES:
        return _NAMES[name]
    group, _, rest = name.partition("/")
    words = {"losses": "loss", "learning_rates": "learning rate", "validation": "validation"}
    return f"{words.get(group, group)} {rest.replace('/', ' ').replace('_', ' ')}".strip()


def _format(name: str, value: float | None) -> str:
    if value is None:
        return ""
    value *= _UNITS.get(name, 1.0)
    if name.startswith("learning_rates/"):
        return f"{value:.2e}"
    return f"{value:,.1f}" if abs(value) >= 100 else f"{value:.4g}"
