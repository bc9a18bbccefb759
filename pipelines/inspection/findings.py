"""What `igvg verify` finds: files and records that are damaged, missing or extra."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pipelines.inspection.printable import escape_control
from shards.errors import DataError, IGVGError, describe_system_error
from shards.progress import report_progress


@dataclass(frozen=True, order=True, kw_only=True)
class Finding:
    """One thing that is wrong."""

    file: str
    """Path of the file, relative to the folder that is verified."""
    record: str = ""
    """The record in it, e.g. "key 000000000009" or "line 5"; empty: the whole file."""
    what: str

    def __str__(self) -> str:
        return escape_control(f"{self.file}{f', {self.record}' if self.record else ''}: {self.what}")


@dataclass(frozen=True, kw_only=True)
class Verification:
    """The outcome of `igvg verify`."""

    path: str
    full: bool
    """Whether contents were read, not only names, sizes and indexes."""
    units: dict[str, int]
    """What was verified: the number of artifacts by their stage, and of folders without a record by their kind."""
    files: int
    bytes: int
    records: int
    """Records, predictions, raw outputs, rows of tables, tensors and images that were read."""
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]
    """What could not be verified, and why."""

    def to_json(self) -> dict[str, Any]:
        """What `igvg verify --format json` prints."""
        return {**asdict(self), "sound": not self.findings}


@dataclass(kw_only=True)
class Inventory:
    """What has been found so far below one folder."""

    home: Path
    full: bool
    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    loose: list[str] = field(default_factory=list)
    """Files that belong to no artifact."""
    units: Counter[str] = field(default_factory=Counter)
    steps: int = 0
    total: int = 0
    """Files to read, for the progress; shards and chunks are read twice. 0: not counted."""
    files: int = 0
    bytes: int = 0
    records: int = 0

    def add(self, file: Path, what: str, record: str = "") -> None:
        """Note a finding about a file below `home`."""
        self.findings.append(Finding(file=self.name(file), record=record, what=what))

    def advance(self) -> None:
        """Report that the next file is read."""
        self.steps += 1
        if self.total:
            report_progress(min(self.steps, self.total), self.total)

    def name(self, file: Path) -> str:
        """The path of a file, relative to `home`."""
        return str(file.relative_to(self.home)) if file.is_relative_to(self.home) else str(file)

    @contextmanager
    def collect(self, file: Path, record: str = "") -> Iterator[None]:
        """An error inside is a finding about a file, or about the file that the error names."""
        try:
            yield
        except DataError as error:
            place = Path(error.file) if error.file else file
            self.add(place if place.is_relative_to(self.home) else file, error.what, error.record or record)
        except IGVGError as error:
            self.add(file, " ".join(str(error).split()), record)
        except OSError as error:
            self.add(file, describe_system_error(error).partition("; ")[0], record)

    def close(self) -> Verification:
        """Everything that was found, sorted and each once."""
        return Verification(
            path=str(self.home),
            full=self.full,
            units=dict(sorted(self.units.items())),
            files=self.files,
            bytes=self.bytes,
            records=self.records,
            findings=tuple(sorted(set(self.findings))),
            notes=tuple(dict.fromkeys(self.notes)),
        )
