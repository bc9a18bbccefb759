"""Bad records of other people's files: collected, counted by kind and reported together, none skipped in silence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from shards.errors import DataError
from shards.files import write_json

MALFORMED = "malformed record"
_SHOWN = 3


class ErrorCollector:
    """The faults found so far, in the order in which they were found."""

    def __init__(self) -> None:
        self._faults: list[tuple[str, DataError]] = []

    def __len__(self) -> int:
        return len(self._faults)

    def __iter__(self) -> Iterator[tuple[str, DataError]]:
        """The kind and the fault of each record, in order."""
        return iter(self._faults)

    def add(self, fault: DataError, kind: str = MALFORMED) -> None:
        """Note a record that cannot be used; faults of one `kind` are counted together."""
        self._faults.append((kind, fault))

    def count_kinds(self) -> dict[str, int]:
        """How many faults there are of each kind, the most frequent first."""
        return dict(Counter(kind for kind, _ in self._faults).most_common())

    def raise_if_any(self) -> None:
        """Pass if nothing is wrong.

        Raises:
            DataError: something is; says how much, the first few records and what can be done.
        """
        if not self._faults:
            return
        remedy = "mend the files or pass --skip-invalid"
        first = self._faults[0][1]
        if len(self._faults) == 1:
            raise DataError(first.what, file=first.file, record=first.record, remedy=remedy) from first
        shown = "; ".join(_describe(fault) for _, fault in self._faults[:_SHOWN])
        more = f"; and {len(self._faults) - _SHOWN} more" if len(self._faults) > _SHOWN else ""
        raise DataError(f"{len(self._faults)} records cannot be used: {shown}{more}", remedy=remedy) from first

    def save(self, file: Path) -> None:
        """Write all faults as a JSON document: `count`, `kinds`, and `records` with kind, file, record and what."""
        records = [
            {"kind": kind, "file": fault.file and str(fault.file), "record": fault.record, "what": fault.what}
            for kind, fault in self._faults
        ]
        document = {"count": len(self), "kinds": self.count_kinds(), "records": records}
        write_json(file, document)


def _describe(fault: DataError) -> str:
    return str(DataError(fault.what, file=fault.file, record=fault.record))
