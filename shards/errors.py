"""All errors that a user can fix, under one root; a message says what is wrong, where, and what fixes it."""

from __future__ import annotations

import difflib
import errno
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path


class IGVGError(Exception):
    """An error that the user can fix; its message is one line, whatever it quotes from files."""

    def __str__(self) -> str:
        return _escape(super().__str__())


class SettingsError(IGVGError):
    """A setting that does not exist or has an invalid value: says which, and what is valid."""


class ArtifactError(IGVGError):
    """An output folder that holds something else, or a missing or damaged artifact."""


class CheckpointError(IGVGError):
    """A checkpoint that cannot be used: says which file, what is wrong and what fixes it."""


class DataError(IGVGError):
    """The input is wrong.

    Args:
        what: one clause without a final stop, e.g. "no annotation has id 17".
        file: the file that holds the error.
        record: the record inside it, e.g. "ref 1234" or "line 5".
        remedy: what the user can do, a clause without a final stop.
    """

    def __init__(
        self, what: str, *, file: str | Path | None = None, record: str | None = None, remedy: str | None = None
    ) -> None:
        self.what, self.file, self.record, self.remedy = what, file, record, remedy
        super().__init__(what)

    def __str__(self) -> str:
        location = ", ".join(str(part) for part in (self.file, self.record) if part)
        message = f"{location}: {self.what}" if location else self.what
        return _escape(f"{message}; {self.remedy}" if self.remedy else message)


class NonFiniteError(IGVGError):
    """Outputs of the network, losses or targets that are not finite numbers: says which."""


class WorkerError(IGVGError):
    """A worker process died: says how, and what the user can do."""


_SYSTEM_ERRORS = {
    errno.ENOSPC: ("there is no space left on the disk", "free some space there, or choose another folder"),
    errno.EDQUOT: ("the quota of disk space is used up", "free some space there, or choose another folder"),
    errno.EFBIG: (
        "the file becomes larger than is allowed there",
        "raise the limit with ulimit -f",
    ),
    errno.EROFS: ("the file system is read-only", "choose another folder"),
    errno.EACCES: ("permission denied", "change its permissions, or use another place"),
    errno.EPERM: ("operation not permitted", "change its owner or permissions, or use another place"),
    errno.ENOENT: ("no such file or folder", "check the path"),
    errno.ENOTDIR: ("a part of the path is a file, not a folder", "check the path"),
    errno.EISDIR: ("is a folder, not a file", "give a file"),
    errno.EEXIST: ("is there already", "choose another place"),
    errno.ENAMETOOLONG: ("the name is too long", "choose a shorter one"),
    errno.ELOOP: ("the links form a loop", "check the path"),
    errno.EMFILE: ("too many files are open", "raise the limit (ulimit -n), or use fewer workers"),
    errno.ENFILE: ("too many files are open on this machine", "close other programs"),
    errno.EIO: ("the disk failed to read or write", "check the disk, or use another one"),
    errno.ESTALE: ("the file on the network disk is gone", "mount the disk again"),
    errno.ENOMEM: ("there is not enough memory", "use fewer workers or a smaller batch"),
}
# Libraries written in Rust give the system's error only in their message.
_OS_ERROR_TEXT = re.compile(r"\(os error (\d+)\)")


def describe_system_error(error: OSError) -> str:
    """An error of the operating system as a clause and a remedy, without the file."""
    words, remedy = _SYSTEM_ERRORS.get(error.errno or 0, ("", ""))
    words = words or (error.strerror or str(error) or type(error).__name__).lower()
    return f"{words}; {remedy}" if remedy else words


def find_system_error(error: Exception, file: Path) -> OSError | None:
    """The error of the operating system behind an error of a library, naming `file`; None if there is none."""
    found = _OS_ERROR_TEXT.search(str(error))
    code = error.errno if isinstance(error, OSError) else int(found[1]) if found else None
    return None if code is None else OSError(code, os.strerror(code), str(file))


def near_match_hint(name: str, known: Iterable[str], near: Sequence[str] = ()) -> str:
    """The hint of an error about an unknown name: `near` or the known name nearest to it, or all known names."""
    known = list(known)
    near = near or difflib.get_close_matches(name, known, n=1)
    return f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(known)}"


def to_line(text: str, longest: int = 200) -> str:
    """A text from a file as it is or, where it would break the line of an error or fill it, escaped and cut off."""
    shown = _escape(text[:longest])
    return shown if len(shown) <= longest and len(text) <= longest else f"{shown[:longest]}…"


def first_line(error: Exception) -> str:
    """The first line of the message of an error that a library raised, or its kind where it has none."""
    return next(iter(str(error).splitlines()), type(error).__name__)


def _escape(text: str) -> str:
    """A text whose line breaks, control characters and lone surrogates are escapes.

    Bytes of a name that were no text of the locale (`os.fsdecode`) are read as UTF-8, or shown in hexadecimal.
    """
    if text.isprintable():
        return text
    names = "".join(each if "\udc80" <= each <= "\udcff" else _escape_character(each) for each in text)
    decoded = names.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(map(_escape_character, decoded))


def _escape_character(each: str) -> str:
    return each if each.isprintable() else each.encode("unicode_escape").decode()


def join_first(items: Sequence[str], limit: int, separator: str = ", ") -> str:
    """The first `limit` items in one line, and how many more there are."""
    shown = separator.join(items[:limit])
    more = len(items) - limit
    return f"{shown} and {more} more" if more > 0 else shown
