"""Standard output and error that are closed, on a full disk, or of another encoding, so that no work is lost."""

from __future__ import annotations

import codecs
import contextlib
import io
import os
import stat
import sys
from typing import TYPE_CHECKING, TextIO

from shards.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator

# The characters that igvg itself prints, for streams that encode ASCII alone.
SPELLED_OUT = {
    "→": "->",
    "×": "x",
    "–": "-",
    "−": "-",
    "…": "...",
    "λ": "lambda",
    "≥": ">=",
    "≤": "<=",
    "“": '"',
    "”": '"',
}
# Commands that write their result to standard output alone.
PRINTED_ALONE = frozenset({"score", "compare", "sweep", "inspect", "verify"})
_HANDLER = "igvg-spell-out"


def open_streams() -> None:
    """Make every stream writable: a closed one discards its output, and no character is refused.

    A closed descriptor would be given to the next file that is opened, and libraries would print into it.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    codecs.register_error(_HANDLER, _spell_out)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, _open_devnull())
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_HANDLER)


def check_output(command: str, *, closed: bool) -> None:
    """Check before the work that its result can be printed, if it is only printed.

    Args:
        command: the command's name.
        closed: whether standard output was closed when the program was started.

    Raises:
        DataError: it cannot.
    """
    if command not in PRINTED_ALONE:
        return
    remedy = "send it to a file on another disk, or to a terminal"
    if closed:
        raise DataError("standard output is closed, and the result would be lost", remedy="send it to a file")
    with contextlib.suppress(OSError, ValueError):
        descriptor = sys.stdout.fileno()
        status, room = os.fstat(descriptor), True
        if stat.S_ISREG(status.st_mode):
            room = os.fstatvfs(descriptor).f_bavail > 0
        elif stat.S_ISCHR(status.st_mode) and not sys.stdout.isatty():
            # A device such as /dev/full says so only when it is written to.
            try:
                os.write(descriptor, b"\n")
            except OSError:
                room = False
        if not room:
            raise DataError("standard output takes nothing more: there is no space left", remedy=remedy)


@contextlib.contextmanager
def printing() -> Iterator[None]:
    """Flush standard output at the end of the block.

    Raises:
        OSError: it could not be written.
        BrokenPipeError: the reader has closed it.
    """
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        # Python would flush again at exit, and print a message of its own.
        sys.stdout = _open_devnull()
        raise OSError(error.errno, error.strerror, "standard output") from error


def write_error(text: str) -> None:
    """Write to standard error, if it can be written to; otherwise the line is dropped and the work goes on."""
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except OSError:
        sys.stderr = _open_devnull()


def measure_width(stream: TextIO) -> int | None:
    """The width in characters of what a stream is written to: that of COLUMNS, or of its terminal; None for neither."""
    with contextlib.suppress(ValueError):
        if (given := int(os.environ.get("COLUMNS", "0"))) > 0:
            return given
    with contextlib.suppress(OSError, ValueError):
        if stream.isatty():
            return os.get_terminal_size(stream.fileno()).columns or None
    return None


def fit_to_terminal(text: str, stream: TextIO) -> str:
    """A line as it is; on a terminal that is narrower, lines that break between words, the later ones indented."""
    width = measure_width(stream)
    if not (width and len(text) > width and stream.isatty()):
        return text
    # Text wrapping keeps a no-break space: the word Error does not stand alone before a long path.
    return wrap_words(text.replace("Error: ", "Error:\xa0", 1), width, "  ").replace("Error:\xa0", "Error: ", 1)


def wrap_words(text: str, width: int, indent: str = "") -> str:
    """Lines of at most `width` characters that break between words alone; the later ones are indented."""
    import textwrap

    return textwrap.fill(
        text, max(width, len(indent) + 1), subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


def decode_argument(option: str, word: str) -> str:
    """An argument as UTF-8, independent of the locale.

    Raises:
        DataError: it is no UTF-8.
    """
    try:
        return os.fsencode(word).decode()
    except UnicodeError as error:
        raise DataError(f'{option} "{word}" is not UTF-8', remedy="give it in UTF-8") from error


def is_unicode() -> bool:
    """Whether standard output takes every character."""
    return (getattr(sys.stdout, "encoding", None) or "").lower().replace("-", "").startswith("utf")


def _open_devnull() -> io.TextIOWrapper:
    return open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, open for good


def _spell_out(error: UnicodeError) -> tuple[str, int]:
    """An error handler: known characters in ASCII, all others and bytes that are no UTF-8 as escapes."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    escape = codecs.lookup_error("backslashreplace")
    text = ""
    for position in range(error.start, error.end):
        character = error.object[position]
        if "\udc80" <= character <= "\udcff":
            text += f"\\x{ord(character) - 0xDC00:02x}"
        else:
            single = UnicodeEncodeError(error.encoding, error.object, position, position + 1, error.reason)
            text += SPELLED_OUT.get(character) or str(escape(single)[0])
    return text, error.end
