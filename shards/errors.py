"""The error that every reader of other people's files raises: what is wrong, where, and what mends it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


class DataError(Exception):
    """The input is wrong.

    Args:
        what: one clause without a final stop, e.g. "no annotation has id 17".
        file: the file that holds the fault.
        record: the record inside it, e.g. "ref 1234" or "line 5".
        remedy: what the user can do, a clause without a final stop.
    """

    def __init__(
        self, what: str, *, file: str | Path | None = None, record: str | None = None, remedy: str | None = None
    ) -> None:
        self.what, self.file, self.record, self.remedy = what, file, record, remedy
        super().__init__(what)

    def __str__(self) -> str:
        place = ", ".join(str(part) for part in (self.file, self.record) if part)
        message = f"{place}: {self.what}" if place else self.what
        return f"{message}; {self.remedy}" if self.remedy else message
