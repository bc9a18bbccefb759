"""Errors of single records: collected, counted by kind and reported together, so that none is skipped in silence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from shards.errors import DataError, join_first
from shards.files import write_json

MALFORMED = "malformed record"
_SHOWN = 10


class ErrorCollector:
    """The errors found so far, in the order in which they were found."""

    def __init__(self) -> None:
        self._errors: list[tuple[str, DataError]] = []

    def __len__(self) -> int:
        return len(self._errors)

    def __iter__(self) -> Iterator[tuple[str, DataError]]:
        """The kind and the error of each record, in order."""
        return iter(self._errors)

    def add(self, error: DataError, kind: str = MALFORMED) -> None:
        """Note a record that cannot be used; errors of one `kind` are counted together."""
        self._errors.append((kind, error))

    def count_kinds(self) -> dict[str, int]:
        """How many errors there are of each kind, the most frequent first."""
        return dict(Counter(kind for kind, _ in self._errors).most_common())

    def raise_if_any(self) -> None:
        """Raise one error for all records.

        Raises:
            DataError: there is an error; gives their number, the first ten, and where all are listed.
        """
        if not self._errors:
            return
        remedy = "correct the files or pass --skip-invalid"
        if len(self._errors) > _SHOWN:
            remedy += ", which lists all of them in skipped.json in --out"
        first = self._errors[0][1]
        if len(self._errors) == 1:
            raise DataError(first.what, file=first.file, record=first.record, remedy=remedy) from first
        shown = join_first([_describe(error) for _, error in self._errors], _SHOWN, "; ")
        raise DataError(f"{len(self._errors)} records cannot be used: {shown}", remedy=remedy) from first

    def save(self, file: Path) -> None:
        """Write all errors as a JSON document: `count`, `kinds`, and `records` with kind, file, record and what."""
        records = [
            {"kind": kind, "file": error.file and str(error.file), "record": error.record, "what": error.what}
            for kind, error in self._errors
        ]
        document = {"count": len(self), "kinds": self.count_kinds(), "records": records}
        write_json(file, document)


def _describe(error: DataError) -> str:
    return str(DataError(error.what, file=error.file, record=error.record))
