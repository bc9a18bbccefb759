"""The files that this process opens."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator

_recording: list[list[str]] = []


def _hook(event: str, arguments: tuple[object, ...]) -> None:
    if _recording and event == "open" and isinstance(arguments[0], str | os.PathLike):
        for opened in _recording:
            opened.append(os.fspath(arguments[0]))


@contextlib.contextmanager
def record_opened() -> Iterator[list[str]]:
    """The paths of all files that are opened inside, in order, as they were given."""
    if not _installed:
        # A hook cannot be removed.
        sys.addaudithook(_hook)
        _installed.append(True)
    opened: list[str] = []
    _recording.append(opened)
    try:
        yield opened
    finally:
        _recording.remove(opened)


_installed: list[bool] = []
