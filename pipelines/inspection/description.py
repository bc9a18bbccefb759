"""What `igvg inspect` says of a path: what it is, made from what, with which settings, and how much of it there is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

Cell = str | int | float | bool | None


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One setting that something was made with."""

    key: str
    """Dotted, as `--set` takes it."""
    value: Any
    default: Any
    """None if there is none, or it is not known."""
    changed: bool
    """Whether the value differs from the default."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows of the same kind, such as the splits of prepared shards."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]


@dataclass(frozen=True, kw_only=True)
class Description:
    """What a path holds."""

    path: str
    kind: str
    """For programs, e.g. "prediction"."""
    what: str
    """A clause for people."""
    files: int = 0
    bytes: int = 0
    changed: str = ""
    """When it was finished or changed, ISO 8601 in UTC."""
    facts: dict[str, Cell] = field(default_factory=dict)
    inputs: dict[str, str] = field(default_factory=dict)
    """Digests of what it was made from."""
    settings: tuple[Setting, ...] = ()
    counts: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    tables: tuple[Table, ...] = ()
    notes: tuple[str, ...] = ()

    def with_parts(
        self, facts: dict[str, Cell] | None = None, tables: Sequence[Table] = (), notes: Sequence[str] = ()
    ) -> Description:
        """The same description with more facts, tables and notes."""
        return replace(
            self, facts={**self.facts, **(facts or {})}, tables=(*self.tables, *tables), notes=(*self.notes, *notes)
        )

    def to_json(self) -> dict[str, Any]:
        """What `igvg inspect --format json` prints; what does not apply is left out."""
        values = asdict(self)
        values["settings"] = {
            one.key: {"value": one.value, "default": one.default, "changed": one.changed} for one in self.settings
        }
        values["tables"] = {
            table.title: [dict(zip(table.columns, row, strict=True)) for row in table.rows] for table in self.tables
        }
        return {name: value for name, value in values.items() if value not in ("", {}, (), [])}


def format_time(seconds: float) -> str:
    """Seconds since 1970 as ISO 8601 in UTC."""
    return datetime.fromtimestamp(int(seconds), tz=UTC).isoformat()


def measure_file(file: Path) -> dict[str, Any]:
    """The size of a file and when it was changed, as fields of a `Description`."""
    status = file.stat()
    return {"files": 1, "bytes": status.st_size, "changed": format_time(status.st_mtime)}


def measure_folder(folder: Path) -> dict[str, Any]:
    """Likewise of a folder, by names and sizes alone."""
    sizes: list[int] = []
    latest = folder.stat().st_mtime
    for file in folder.rglob("*"):
        if file.is_file():
            status = file.stat()
            sizes.append(status.st_size)
            latest = max(latest, status.st_mtime)
    return {"files": len(sizes), "bytes": sum(sizes), "changed": format_time(latest)}
